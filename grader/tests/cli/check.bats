#!/usr/bin/env bats
# `check` for real: programs are built, started in the testbed and judged.

# shellcheck disable=SC2154 # sockwork, kit, stderr and others are set by common.bash

bats_require_minimum_version 1.5.0

setup() {
  load common
  use_built_testbed
  command -v socat >/dev/null || skip "needs socat"
}

# $HOST and $PORT are for the shell that the grader starts.
# shellcheck disable=SC2016
echo_server='exec socat TCP-LISTEN:$PORT,bind=$HOST,fork,reuseaddr PIPE'
# shellcheck disable=SC2016
wrong_server='exec socat TCP-LISTEN:$PORT,bind=$HOST,fork,reuseaddr SYSTEM:"tr a-z A-Z"'

submit() {
  mkdir -p "$BATS_TEST_TMPDIR/submission/02-tcp-echo-server"
  cat >"$BATS_TEST_TMPDIR/submission/02-tcp-echo-server/$1"
}

# Asks a question until the answer is yes, at most 10 s.
wait_for() {
  for _ in $(seq 500); do
    if [ "$1" = ! ]; then
      "${@:2}" >/dev/null || return 0
    elif "$@" >/dev/null; then
      return 0
    fi
    sleep 0.02
  done
  return 1
}

@test "a right program passes: status 0, results on stdout, nothing on stderr" {
  run_split "$sockwork" check 2 listens echo-line --exec "$echo_server" --program echo_server
  echo "$output"
  [ "$status" -eq 0 ]
  [ -z "$stderr" ]
  [[ $output == "lab 02 TCP echo server"*"✓ listens"*"✓ echo-line"*points* ]]
}

@test "a wrong program fails: status 1, the block, and a command that shows it again" {
  run_split "$sockwork" check 2 listens echo-line --exec "$wrong_server" --program echo_server --seed 5
  [ "$status" -eq 1 ]
  [[ $output == *"✗ "*"echo-line"*"Expected:"*"Why "*"Next "*"rerun "* ]]
  command=$(sed -n 's/^  rerun   //p' <<<"$output")
  [[ $command == "./sockwork check 2 echo-line --exec "*" --program echo_server --seed 5" ]]
  cd "$repository"
  run bash -c "$command"
  [ "$status" -eq 1 ]
}

@test "a check whose capability is missing is skipped; with nothing judged the status is 4" {
  run_split "$sockwork" check 2 inet6 --exec "$echo_server" --program echo_server --without inet6
  [ "$status" -eq 4 ]
  [[ $output == *"1 skipped"*"inet6"* ]]
}

@test "--json writes what the schema asks for, to a file or to stdout" {
  file=$BATS_TEST_TMPDIR/results.json
  run_split "$sockwork" check 2 listens --exec "$echo_server" --program echo_server --json "$file"
  [ "$status" -eq 0 ]
  run_split "$sockwork" check 2 listens --exec "$echo_server" --program echo_server --json -
  [ "$status" -eq 0 ]
  for each in "$(cat "$file")" "$output"; do
    /usr/bin/python3 - "$repository/grader/sockwork/schema/results-v1.schema.json" "$each" <<'END'
import json, sys
import jsonschema
schema = json.load(open(sys.argv[1]))
results = json.loads(sys.argv[2])
jsonschema.Draft202012Validator(schema).validate(results)
assert [c["status"] for lab in results["labs"] for c in lab["checks"]] == ["pass"]
END
  done
}

@test "--keep keeps a trace and a capture that others can read" {
  kept=$BATS_TEST_TMPDIR/kept
  run_split "$sockwork" check 2 echo-line --exec "$echo_server" --program echo_server --keep="$kept"
  [ "$status" -eq 0 ]
  /usr/bin/python3 -c 'import json, sys; [json.loads(l) for l in open(sys.argv[1])]' \
    "$kept/02-tcp-echo-server/echo-line.jsonl"
  if command -v tshark >/dev/null; then
    tshark -r "$kept/02-tcp-echo-server/echo-line.pcap" -Y tcp.flags.syn==1 2>/dev/null | grep -q 'SYN, ACK'
  fi
}

@test "a submission is built, its warning shown, and judged" {
  submit echo_server.cpp <<'END'
#include <sys/socket.h>
int main() { int unused; }
END
  run_split "$sockwork" check 2 listens --submission "$BATS_TEST_TMPDIR/submission"
  [ "$status" -eq 1 ]
  [[ $output == *"echo_server.cpp:2:18: warning: unused variable"*"✗ 1/"*"listens"* ]]
}

@test "a program that does not compile is told with the compiler's own words: status 1" {
  submit echo_server.cpp <<<'int main() { return nothing; }'
  run_split "$sockwork" check 2 --submission "$BATS_TEST_TMPDIR/submission" --program echo_server
  [ "$status" -eq 1 ]
  [[ $output == *"✗ echo_server does not compile"*"echo_server.cpp:1:21: error:"*"nothing"* ]]
}

@test "a program that is not there is skipped, not failed" {
  submit echo_server.py <<<'raise SystemExit(1)'
  run_split "$sockwork" check 2 client-echo --submission "$BATS_TEST_TMPDIR/submission"
  [ "$status" -eq 4 ]
  [[ $output == *"the submission holds no echo_client"* ]]
}

@test "--fail-fast stops at the first failure" {
  run_split "$sockwork" check 2 --exec false --program echo_server --fail-fast --jobs 1
  [ "$status" -eq 1 ]
  [[ $output == *"not performed after the first failure"* ]]
}

@test "colour and letters: only what the reader can show" {
  run_split env NO_COLOR=1 LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 \
    "$sockwork" check 2 listens --exec "$wrong_server" --program echo_server
  [ "$status" -eq 0 ]
  [[ $output == *"+ listens"* ]]
  run ! grep -qP '[^\x00-\x7f]|\x1b' <<<"$output"
  command -v script >/dev/null || skip "needs script(1) for a terminal"
  words="'$sockwork' check 2 listens --exec 'exec socat TCP-LISTEN:\$PORT,bind=\$HOST,fork PIPE' --program echo_server"
  TERM=xterm run script -qec "$words" /dev/null
  [[ $output == *$'\e[32m'* ]]
  TERM=xterm NO_COLOR=1 run script -qec "$words 2>/dev/null" /dev/null
  [[ $output != *$'\e['* ]]
  TERM=dumb run script -qec "$words 2>/dev/null" /dev/null
  [[ $output != *$'\e['* ]]
}

@test "doctor tells the tier and what each capability needs" {
  run_split "$sockwork" doctor
  [ "$status" -eq 0 ]
  [[ $output =~ ^tier\ T[012]:\  ]]
  for capability in link sandbox names owner inet6 uid ptrace; do
    grep -qE "^  (✓ $capability|✗ $capability +[^ ].*)$" <<<"$output"
  done
}

@test "Ctrl-C and SIGTERM: one line, nothing left" {
  for signal in INT TERM; do
    # No other process has this command line.
    program="sleep 98765.$$"
    (
      trap - INT # a shell starts its background jobs with SIGINT ignored
      exec "$sockwork" check 2 listens --exec "exec $program" --program echo_server
    ) >/dev/null 2>"$BATS_TEST_TMPDIR/stderr" &
    pid=$!
    wait_for pgrep -fx "$program"
    kill -"$signal" "$pid"
    status=0
    wait "$pid" || status=$?
    echo "$signal: status $status, $(cat "$BATS_TEST_TMPDIR/stderr")"
    case $signal in
      INT) [ "$status" -eq 130 ] && [ "$(cat "$BATS_TEST_TMPDIR/stderr")" = "sockwork: stopped" ] ;;
      TERM) [ "$status" -eq 143 ] ;;
    esac
    wait_for ! pgrep -fx "$program"
  done
}

@test "Ctrl-C on a terminal takes the progress line away and leaves the terminal as it was" {
  TERM=xterm timeout 120 /usr/bin/python3 - "$sockwork" check 2 listens --program echo_server \
    --exec 'exec sleep 1000' <<'END'
import os, pty, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
before = termios.tcgetattr(terminal)
seen = b""
while b"built in" not in seen:
    seen += os.read(terminal, 4096)
os.write(terminal, b"\x03")
while b"stopped" not in seen:
    seen += os.read(terminal, 4096)
assert termios.tcgetattr(terminal) == before
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
assert b"\r\x1b[Ksockwork: stopped" in seen, seen
END
}

@test "only what a chosen check needs is built" {
  submit echo_server.cpp <<<'int main() { return 1; }'
  submit echo_client.cpp <<<'int main() { return nothing; }'
  cache=$BATS_TEST_TMPDIR/cache
  XDG_CACHE_HOME=$cache run_split "$sockwork" check 2 listens --submission "$BATS_TEST_TMPDIR/submission"
  [ "$status" -eq 1 ]
  [ "$(find "$cache" -name echo_server | wc -l)" -eq 1 ]
  XDG_CACHE_HOME=$cache run_split "$sockwork" check 2 listens ten-thousand --submission "$BATS_TEST_TMPDIR/submission"
  [ "$(find "$cache" -name echo_server | wc -l)" -eq 2 ]
}

@test "a tier that was asked for is named as the reason, not the machine" {
  run_split "$sockwork" check 2 one-packet --exec "$echo_server" --program echo_server --tier T0
  [ "$status" -eq 4 ]
  [[ $output == *"needs link, and "*"tier T0 was asked for"* || $output == *"this machine does not give"* ]]
}

@test "--json to a pipe or a device writes into it" {
  mkfifo "$BATS_TEST_TMPDIR/fifo"
  "$sockwork" check 2 listens --exec "$echo_server" --program echo_server \
    --json "$BATS_TEST_TMPDIR/fifo" >/dev/null &
  grep -q '"version": 1' "$BATS_TEST_TMPDIR/fifo"
  wait $!
  [ -p "$BATS_TEST_TMPDIR/fifo" ]
  run_split "$sockwork" check 2 listens --exec "$echo_server" --program echo_server --json /dev/full
  [ "$status" -eq 4 ]
  [ "$stderr" = "sockwork: no space left on device" ]
  [ -c /dev/full ]
}
