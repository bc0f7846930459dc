#!/usr/bin/env bats
# What is typed wrong is told in one line with the nearest right word, and exit status 2.

# shellcheck disable=SC2154 # sockwork, kit, stderr and others are set by common.bash

bats_require_minimum_version 1.5.0

setup() {
  load common
}

@test "no command shows the help" {
  run "$sockwork"
  [ "$status" -eq 0 ]
  [[ $output == *"Commands:"*"check"*"doctor"* ]]
}

@test "every command has a help" {
  for command in list check doctor reset solution test completion; do
    run_split "$sockwork" "$command" --help
    [ "$status" -eq 0 ]
    [[ $output == "Usage: sockwork $command"* ]]
    [ -z "$stderr" ]
  done
}

@test "the version is one line" {
  run "$sockwork" --version
  [ "$status" -eq 0 ]
  [[ $output =~ ^sockwork\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "an unknown command, option, lab, check, program or section" {
  run_split "$sockwork" chekc && expect_one_line 2 "did you mean check?"
  run_split "$sockwork" check 2 --sed 1 && expect_one_line 2 "--seed"
  run_split "$sockwork" check tcp-ecko-server && expect_one_line 2 "did you mean tcp-echo-server?"
  run_split "$sockwork" check 77 && expect_one_line 2 "no lab 77; there are labs 1, "
  run_split "$sockwork" check 2 echo-lines && expect_one_line 2 "did you mean echo-line?"
  run_split "$sockwork" check 2 --program ecko_server && expect_one_line 2 "did you mean echo_server?"
  run_split "$sockwork" check 2 --without inet7 && expect_one_line 2 "did you mean inet6?"
  run_split "$sockwork" solution 2 echo_serve && expect_one_line 2 "did you mean echo_server?"
  run_split "$sockwork" test pyton && expect_one_line 2 "did you mean python?"
}

@test "options that contradict each other" {
  run_split "$sockwork" check 2 --solutions --submission . && expect_one_line 2 "exclude each other"
  run_split "$sockwork" check --exec true && expect_one_line 2 "--exec needs a LAB"
  run_split "$sockwork" check 2 --exec true && expect_one_line 2 "--exec needs --program, one of: echo_server"
  run_split "$sockwork" check --keep 2 && expect_one_line 2 "put --keep last"
}

@test "files and folders that are not there" {
  run_split "$sockwork" check 2 --submission "$BATS_TEST_TMPDIR/none" && expect_one_line 2 "no such folder"
  run_split "$sockwork" check 2 --submission "$BATS_TEST_TMPDIR" && expect_one_line 2 "holds no folder 02-tcp-echo-server"
  run_split "$sockwork" check 2 --json "$BATS_TEST_TMPDIR/no/file" && expect_one_line 2 "cannot be written"
}

@test "a damaged lab.toml" {
  make_kit
  echo 'number = ' >"$kit/labs/02-tcp-echo-server/lab.toml"
  run_split "$kit/sockwork" list && expect_one_line 2 "02-tcp-echo-server"
}

@test "control characters of an argument are not repeated" {
  run_split "$sockwork" check $'\e[2J' && expect_one_line 2 '\x1b[2J'
}

@test "bash completes commands, labs and checks" {
  complete() { COMP_WORDS=$1 COMP_CWORD=$2 _SOCKWORK_COMPLETE=bash_complete "$sockwork"; }
  [[ $(complete "sockwork ch" 1) == "plain,check" ]]
  [[ $(complete "sockwork check 02" 2) == "plain,02-tcp-echo-server" ]]
  [[ $(complete "sockwork check 2 echo-l" 3) == "plain,echo-line" ]]
}

@test "each shell gets a script that it accepts" {
  for shell in bash zsh fish; do
    run_split "$sockwork" completion "$shell"
    [ "$status" -eq 0 ]
    [[ $output == *_SOCKWORK_COMPLETE=${shell}_complete* ]]
  done
  "$sockwork" completion bash | bash -n
  run_split "$sockwork" completion csh && expect_one_line 2 "csh"
}
