#!/bin/sh
# A producer and a worker over plain HTTP, which tries again, with curl and jq: see shell.md.

gateway="http${BULLMQ_URL#ws}/queue/$(printf %s "$BULLMQ_QUEUE" | jq -sRr @uri)"
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n') # whoever knows it can move this worker's jobs

# What to show, read before each request: put here what gets a fresh token.
key() {
  if [ -n "$BULLMQ_KEY_FILE" ]; then cat "$BULLMQ_KEY_FILE"; else printf %s "$BULLMQ_KEY"; fi
}

# Makes a call and prints what is answered. Tries again while curl takes the trouble for one that passes: no connection, 408,
# 429, 500, 502, 503; pauses grow from 1 s, and Retry-After is kept. The key is in no list of processes.
call() { # FUNCTION ARGUMENTS TRIES
  printf 'header = "Authorization: Bearer %s"\n' "$(key)" |
    curl --silent --show-error --config - --retry "$3" --retry-connrefused --retry-max-time 60 --max-time 60 \
      --write-out '\n%{http_code}\n' --data-binary "$2" "$gateway/$1" > "$answer"
  status=$(tail -n 1 "$answer")
  case $status in
    401 | 403) head -n 1 "$answer" >&2; kill -USR1 $$ ;; # refused for good
    000) printf '{"err":{"code":"OUTCOME_UNKNOWN","message":"no answer"}}\n' ;;
    *) head -n 1 "$answer" ;;
  esac
}

# Does the work of a job, whose data it reads; prints its result, any JSON, or says why it fails. Put yours here.
handle() {
  data=$(cat)
  sleep "$(printf %s "$data" | jq '(.wait // 0) / 1000')"
  if printf %s "$data" | jq -e 'has("fail")' > /dev/null; then
    printf %s "$data" | jq -r .fail >&2
    return 1
  fi
  printf %s "$data"
}

work() {
  trap 'ending=1' TERM INT
  while [ -z "$ending" ]; do
    job=$(call getNextJob "[\"$token\", {\"block\": 5000, \"lockDuration\": 60000}]" 5)
    id=$(printf %s "$job" | jq -c '.ok.id // empty')
    if [ -z "$id" ]; then # there was none, or an error
      printf %s "$job" | jq -e 'has("err")' > /dev/null && printf '%s\n' "$job" >&2 && sleep 5
      continue
    fi
    if result=$(trap '' TERM INT; printf %s "$job" | jq -c .ok.data | handle 2> "$reason"); then
      ended=$(trap '' TERM INT; call moveJobToCompleted "[$id, $result, \"$token\"]" 5)
    else
      ended=$(trap '' TERM INT; call moveJobToFailed "[$id, {\"message\": $(jq -Rs . "$reason")}, \"$token\"]" 5)
    fi
    printf %s "$ended" | jq -e 'has("err")' > /dev/null && printf 'job %s: %s\n' "$id" "$ended" >&2
  done
}

# Makes the calls of the standard input, and prints what is answered; an add with a jobId is safe to make again.
produce() {
  while read -r line; do
    tries=$(printf %s "$line" | jq 'if .fn == "add" and .args[2].jobId then 5 else 0 end')
    call "$(printf %s "$line" | jq -r .fn)" "$(printf %s "$line" | jq -c '.args // []')" "$tries"
  done
}

answer=$(mktemp) reason=$(mktemp)
trap 'rm -f "$answer" "$reason"' EXIT
trap 'exit 1' USR1
if [ "$BULLMQ_ROLE" = producer ]; then produce; else work; fi
