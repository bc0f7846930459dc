#!/usr/bin/env bats
# observe: what is typed wrong, and a run from the outside.

# shellcheck disable=SC2154 # sockwork, stderr and others are set by common.bash
# shellcheck disable=SC2016 # $TARGET is for the shell of the other host

bats_require_minimum_version 1.5.0

setup() {
  load common
  use_built_testbed
  chmod 755 "$BATS_TEST_TMPDIR"
  cd "$BATS_TEST_TMPDIR" || return
}

@test "wrong words are told in one line" {
  run_split "$sockwork" observe && expect_one_line 2 "needs -- and a command"
  run_split "$sockwork" observe -- && expect_one_line 2 "no command stands behind --"
  run_split "$sockwork" observe nothing.pcap && expect_one_line 2 "no file nothing.pcap"
  run_split "$sockwork" observe . && expect_one_line 2 ".: "
  run_split "$sockwork" observe -- ./nothing && expect_one_line 2 "No such file"
  run_split "$sockwork" observe --rule 'drop form=peer' -- true && expect_one_line 2 "did you mean from?"
  run_split "$sockwork" observe --rul x -- true && expect_one_line 2 "did you mean --rule?"
  run_split "$sockwork" observe --html none/page.html -- true && expect_one_line 2 "cannot be written"
  run_split "$sockwork" observe --all --conversation 1 x && expect_one_line 2 "exclude each other"
  printf 'no capture' >file
  run_split "$sockwork" observe file && expect_one_line 2 "file: "
  run_split "$sockwork" observe --quiet file && expect_one_line 2 "--quiet goes with a command"
}

@test "two programs, their packets, and the capture of them" {
  "$sockwork" doctor | grep -q '✓ link' || skip "needs a link"
  run_split "$sockwork" observe --pcap out.pcap --html out.html \
    --peer 'echo hello | nc -N $TARGET6 7000' -- socat TCP6-LISTEN:7000 PIPE
  [ "$status" -eq 0 ]
  [ -z "$stderr" ]
  [[ $output == *"peer   | hello"* ]]
  [[ $output == *"client (peer)"*"server (target)"* ]]
  grep -q '<svg' out.html
  run_split "$sockwork" observe --quiet --seconds 1 -- sleep 9
  [ "$status" -eq 0 ]
  [[ $output == *"SIGTERM came from here"* ]]
  run_split "$sockwork" observe out.pcap
  [ "$status" -eq 0 ]
  [[ $output == *"~TIME_WAIT"* ]]
}

@test "the program reads our standard input" {
  output=$(printf 'from outside\n' | "$sockwork" observe -- cat)
  [[ $output == *"| from outside"* ]]
}
