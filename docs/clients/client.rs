// A producer and a worker that connects again: see rust.md.

mod websocket;

use serde_json::{json, Value};
use std::collections::HashSet;
use std::io::stdin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};
use websocket::{broke, frame, random, Ended, Link, Writer};

const STOP: [u16; 22] = [
    400, 401, 403, 404, 405, 413, 414, 426, 431, 505, 1002, 1003, 1007, 1008, 1009, 4000, 4500, 4501, 4502, 4503, 4504,
    4505,
];
const AT_ONCE: [u16; 4] = [1001, 4002, 4003, 4004];
const FIRST_PAUSE: u64 = 200; // ms

static ENDING: AtomicBool = AtomicBool::new(false); // no new jobs are taken
static IN_HAND: AtomicUsize = AtomicUsize::new(0); // jobs

fn told(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// What to show, read before each connection: put here what gets a fresh token.
fn key() -> String {
    env::var("BULLMQ_KEY_FILE").map_or_else(|_| told("BULLMQ_KEY"), |file| fs::read_to_string(file).unwrap().trim().into())
}

fn tell(writer: &Writer, id: &Value, data: Value) {
    frame(writer, 1, json!({"id": id, "data": data}).to_string().as_bytes());
}

fn read(link: &mut Link) -> Result<Value, Ended> {
    link.read().and_then(|text| serde_json::from_slice(&text).map_err(broke))
}

/// Tries until there is a connection; ended is why the one before is not there any more, if there was one.
fn connect(path: &str, mut ended: Option<Ended>, pause: &mut u64) -> Link {
    loop {
        if let Some(why) = ended.take() {
            rest(why, pause);
        }
        match Link::open(told("BULLMQ_URL").trim_start_matches("ws://"), path, &key()) {
            Ok(link) => return link,
            Err(why) => ended = Some(why),
        }
    }
}

/// Waits before the next try, or ends the program when the gateway refuses for good.
fn rest((code, words, least): Ended, pause: &mut u64) {
    eprintln!("no connection: {code} {words}");
    if STOP.contains(&code) {
        process::exit(1);
    }
    let wait = if AT_ONCE.contains(&code) && *pause == FIRST_PAUSE { 0 } else { *pause / 2 + random() % (*pause / 2) };
    thread::sleep(Duration::from_millis(wait.max(1000 * least)));
    *pause = (2 * *pause).min(30_000);
}

/// Does the work of a job; its result is any JSON. Put yours here.
fn handle(payload: &Value) -> Result<Value, String> {
    thread::sleep(Duration::from_millis(payload["wait"].as_u64().unwrap_or(0)));
    payload["fail"].as_str().map_or(Ok(payload.clone()), |reason| Err(reason.into()))
}

/// Has the jobs of one connection done until it ends; those in hand then come again on the next one.
fn work(link: &mut Link) -> Ended {
    let mine = Arc::new(Mutex::new(HashSet::new())); // the jobs that are neither answered nor cancelled
    loop {
        let message = match read(link) {
            Ok(message) => message,
            Err(ended) => return ended,
        };
        let (id, data) = (message["id"].clone(), message["data"].clone());
        if data["type"] == "cancel" {
            mine.lock().unwrap().remove(&id.to_string());
        } else if data["type"] == "process" && !ENDING.load(SeqCst) {
            mine.lock().unwrap().insert(id.to_string());
            IN_HAND.fetch_add(1, SeqCst);
            let (mine, writer) = (mine.clone(), link.writer.clone());
            thread::spawn(move || {
                tell(&writer, &id, json!({"type": "ack"}));
                let answer = match handle(&data["payload"]) {
                    Ok(result) => json!({"result": result}),
                    Err(reason) => json!({"err": {"message": reason}}),
                };
                if mine.lock().unwrap().remove(&id.to_string()) {
                    tell(&writer, &id, answer);
                }
                IN_HAND.fetch_sub(1, SeqCst);
            });
        }
    }
}

/// Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again.
fn produce(path: &str) {
    let mut pause = FIRST_PAUSE;
    let mut link = connect(path, None, &mut pause);
    for (number, line) in stdin().lines().enumerate() {
        let call: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let is_safe = call["fn"] == "add" && call["args"][2]["jobId"] != Value::Null;
        let id = json!(number);
        let answer = loop {
            tell(&link.writer, &id, call.clone());
            let reply = loop {
                match read(&mut link) {
                    Ok(message) if message["id"] != id => continue,
                    reply => break reply,
                }
            };
            match reply {
                Ok(message) => break message["data"].clone(),
                Err(ended) => link = connect(path, Some(ended), &mut pause),
            }
            if !is_safe {
                break json!({"err": {"code": "OUTCOME_UNKNOWN"}});
            }
        };
        println!("{answer}");
    }
}

extern "C" fn terminated(_: i32) {
    ENDING.store(true, SeqCst);
}

extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize; // of the C library; a program takes `signal-hook`
}

fn main() {
    let letters = told("BULLMQ_QUEUE").into_bytes();
    let encode = |byte: &u8| match byte.is_ascii_alphanumeric() {
        true => (*byte as char).to_string(),
        false => format!("%{byte:02X}"),
    };
    let path = format!("/queue/{}", letters.iter().map(encode).collect::<String>());
    if told("BULLMQ_ROLE") == "producer" {
        return produce(&path);
    }
    unsafe { signal(15, terminated) };
    thread::spawn(|| loop {
        thread::sleep(Duration::from_millis(20));
        if ENDING.load(SeqCst) && IN_HAND.load(SeqCst) == 0 {
            process::exit(0);
        }
    });
    let (mut pause, mut ended) = (FIRST_PAUSE, None);
    loop {
        let mut link = connect(&format!("{path}/process/10"), ended, &mut pause);
        let began = Instant::now();
        ended = Some(work(&mut link));
        if began.elapsed() > Duration::from_secs(10) {
            pause = FIRST_PAUSE; // it has worked
        }
    }
}
