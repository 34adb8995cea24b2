// A producer, and a worker and a watcher that connect again: see go.md.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

type object = map[string]any
type message struct{ ID, Data any }

const first = 200 * time.Millisecond

var pause = first         // before the next try to connect
var ending atomic.Bool    // no new jobs are taken
var inHand sync.WaitGroup // jobs

// key returns what to show, read before each connection: put here what gets a fresh token.
func key() string {
	if file := os.Getenv("BULLMQ_KEY_FILE"); file != "" {
		text, _ := os.ReadFile(file)
		return strings.TrimSpace(string(text))
	}
	return os.Getenv("BULLMQ_KEY")
}

// connect tries until there is a connection; err is why the one before has ended.
func connect(path string, err error) (conn *websocket.Conn) {
	for response := (*http.Response)(nil); ; {
		if err != nil {
			code, least := 1006, 0
			if closed, ok := err.(*websocket.CloseError); ok {
				code = closed.Code
			} else if response != nil {
				words, _ := io.ReadAll(response.Body)
				code, err = response.StatusCode, fmt.Errorf("%s", words)
				fmt.Sscan(response.Header.Get("Retry-After"), &least)
			}
			fmt.Fprintln(os.Stderr, "no connection:", code, err)
			wait := time.Duration(float64(pause) * (0.5 + rand.Float64()/2))
			switch code {
			case 400, 401, 403, 404, 405, 413, 414, 426, 431, 505, 1002, 1003, 1007, 1008, 1009, 4000,
				4500, 4501, 4502, 4503, 4504, 4505:
				os.Exit(1) // refused for good
			case 1001, 4002, 4003, 4004:
				if pause == first { // at once, then later
					wait = 0
				}
			}
			time.Sleep(wait + time.Duration(least)*time.Second)
			if pause < 20*time.Second {
				pause *= 2
			}
		}
		shown := http.Header{"Authorization": {"Bearer " + key()}}
		if conn, response, err = websocket.DefaultDialer.Dial(os.Getenv("BULLMQ_URL")+path, shown); err == nil {
			return conn
		}
	}
}

// handle does the work of a job; its result is any JSON. Put yours here.
func handle(payload any) (any, error) {
	wanted, _ := payload.(object)
	milliseconds, _ := wanted["wait"].(float64)
	time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	if reason, fails := wanted["fail"]; fails {
		return nil, fmt.Errorf("%v", reason)
	}
	return payload, nil
}

// work has the jobs of one connection done until it ends; those in hand then come again on the next one.
func work(conn *websocket.Conn) (err error) {
	var mine, writing = sync.Map{}, sync.Mutex{} // the jobs that are neither answered nor cancelled
	send := func(id any, data object) {
		writing.Lock()
		defer writing.Unlock()
		conn.WriteJSON(object{"id": id, "data": data})
	}
	done := func(id, payload any) {
		defer inHand.Done()
		send(id, object{"type": "ack"})
		answer := object{}
		if result, err := handle(payload); err != nil {
			answer["err"] = object{"message": err.Error()}
		} else {
			answer["result"] = result
		}
		if _, is := mine.LoadAndDelete(id); is {
			send(id, answer)
		}
	}
	for err == nil {
		var m message
		err = conn.ReadJSON(&m)
		data, _ := m.Data.(object)
		if data["type"] == "cancel" {
			mine.Delete(m.ID)
		} else if data["type"] == "process" && !ending.Load() {
			mine.Store(m.ID, true)
			inHand.Add(1)
			go done(m.ID, data["payload"])
		}
	}
	return err
}

// call makes a call, and again on the next connection where that is safe: an add with a jobId.
func call(conn **websocket.Conn, path string, n float64, fn any, args []any) any {
	for {
		err := (*conn).WriteJSON(object{"id": n, "data": object{"fn": fn, "args": args}})
		for err == nil {
			var m message
			if err = (*conn).ReadJSON(&m); m.ID == n {
				return m.Data
			}
		}
		*conn = connect(path, err)
		opts, _ := append(args, nil, nil, nil)[2].(object)
		if fn != "add" || opts["jobId"] == nil {
			return object{"err": object{"code": "OUTCOME_UNKNOWN", "message": err.Error()}}
		}
	}
}

// watch prints the events of one connection until it ends, and returns the options of the next one, which goes on behind them.
func watch(conn *websocket.Conn, resume string) (string, error) {
	for {
		var m message
		if err := conn.ReadJSON(&m); err != nil {
			return resume, err
		}
		data, _ := m.Data.(object)
		args, _ := data["args"].([]any)
		if data["event"] == nil || len(args) == 0 {
			continue // no event
		}
		json.NewEncoder(os.Stdout).Encode(data)
		if id, is := args[len(args)-1].(string); is { // a gap has none
			resume = "?lastEventId=" + id
		}
	}
}

func main() {
	rand.Seed(time.Now().UnixNano()) // Go before 1.20 begins with the same number each time
	path := "/queue/" + url.PathEscape(os.Getenv("BULLMQ_QUEUE"))
	if os.Getenv("BULLMQ_ROLE") == "producer" {
		conn := connect(path, nil)
		for input, n := json.NewDecoder(os.Stdin), 1.0; input.More(); n++ {
			var wanted struct{ Fn, Args any }
			input.Decode(&wanted)
			args, _ := wanted.Args.([]any)
			json.NewEncoder(os.Stdout).Encode(call(&conn, path, n, wanted.Fn, args))
		}
		return
	}
	go func() {
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM, os.Interrupt)
		<-terminated
		ending.Store(true)
		inHand.Wait()
		os.Exit(0)
	}()
	for err, resume := error(nil), ""; ; {
		began := time.Now()
		if os.Getenv("BULLMQ_ROLE") == "watcher" {
			resume, err = watch(connect(path+"/events"+resume, err), resume)
		} else {
			err = work(connect(path+"/process/10", err))
		}
		if time.Since(began) > 10*time.Second {
			pause = first // it has worked
		}
	}
}
