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
  run_split "$sockwork" check 2 --sed 1 && expect_one_line 2 "no option --sed - did you mean --seed?"
  run_split "$sockwork" check "" && expect_one_line 2 "no lab '';"
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
  touch "$BATS_TEST_TMPDIR/file"
  run_split "$sockwork" check 2 --submission "$BATS_TEST_TMPDIR/file" && expect_one_line 2 "is a file"
  run_split "$sockwork" check 2 --keep "$BATS_TEST_TMPDIR/file" && expect_one_line 2 "--keep: "
  mkdir -p "$BATS_TEST_TMPDIR/evil/02"
  ln -s /etc/passwd "$BATS_TEST_TMPDIR/evil/02/echo_server.cpp"
  run_split "$sockwork" check 2 --submission "$BATS_TEST_TMPDIR/evil" && expect_one_line 2 "is a symbolic link"
}

@test "a damaged lab.toml" {
  make_kit
  echo 'number = ' >"$kit/labs/02-tcp-echo-server/lab.toml"
  run_split "$kit/sockwork" list && expect_one_line 2 "02-tcp-echo-server"
}

@test "control characters of an argument are not repeated" {
  for words in "check" "" "solution 2" "test" "check --submission"; do
    # shellcheck disable=SC2086 # several words
    run_split "$sockwork" $words $'\e[2J' && expect_one_line 2 '\x1b[2J'
  done
}

@test "a reader that goes away, as head does, ends it by SIGPIPE and without a word" {
  for words in list --help "check --help" --version; do
    # shellcheck disable=SC2086 # several words
    /usr/bin/python3 - "$sockwork" $words <<'END'
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
child.stdout.close()
said = child.stderr.read()
assert (child.wait(), said) == (-13, b""), (child.returncode, said)
END
  done
}

@test "labs, checks, options and their values are offered" {
  offers() { COMP_WORDS=$1 COMP_CWORD=$2 _SOCKWORK_COMPLETE=bash_complete "$sockwork"; }
  [[ $(offers "sockwork ch" 1) == "plain,check" ]]
  [[ $(offers "sockwork check 2" 2) == "plain,02-tcp-echo-server" ]]
  [[ $(offers "sockwork check tcp" 2) == "plain,02-tcp-echo-server" ]]
  [[ $(offers "sockwork check 2 echo-l" 3) == "plain,echo-line" ]]
  [[ $(offers "sockwork check 2 echo-line echo-l" 4) == "" ]]
  [[ $(offers "sockwork check 2 --program " 4) == $'plain,echo_server\nplain,echo_client' ]]
  [[ $(offers "sockwork check 2 --without " 4) == *plain,inet6* ]]
  [[ $(offers "sockwork check --submission " 3) == "dir,"* ]]
  [[ $(offers "sockwork check --json " 3) == "file,"* ]]
  [[ $(offers "sockwork solution 2 echo_s" 3) == "plain,echo_server" ]]
  [[ $(offers "sockwork test li" 2) == "plain,lint" ]]
}

# Types a line with TABs into an interactive shell, where a function tells what became of it.
typed_in() {
  shell=$1
  shift
  command -v "$shell" >/dev/null || skip "$shell is not installed"
  make_kit # at a path with a space
  HOME=$BATS_TEST_TMPDIR TERM=dumb timeout 60 /usr/bin/python3 - "$kit" "$shell" "$@" <<'END'
import os, pty, sys
kit, shell, *options = sys.argv[1:]
lines = ["sockwork() { echo told: $*; }", 'eval "$(./sockwork completion %s)"' % shell]
if shell == "fish":
    lines = ["function sockwork; echo told: $argv; end", "./sockwork completion fish | source"]
pid, terminal = pty.fork()
if pid == 0:
    os.chdir(kit)
    os.execvp(shell, [shell, *options])
lines += ["sockwork che\ttcp\techo-li\t--on\tco\t", "exit"]
seen = b""
for number, line in enumerate(lines):
    # A shell may drop what was typed before it was ready: ask first.
    os.write(terminal, b"echo rea''dy%d\n" % number)
    while b"ready%d" % number not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, line.encode() + b"\n")
while True:
    try:
        seen += os.read(terminal, 4096)
    except OSError:  # EIO: the shell has gone
        break
os.waitpid(pid, 0)
sys.exit(b"told: check 02-tcp-echo-server echo-line --only core" not in seen and repr(seen))
END
}

@test "completion in bash" {
  typed_in bash --norc -i
}

@test "completion in zsh" {
  typed_in zsh -f -i
}

@test "completion in fish" {
  typed_in fish --no-config -i
}

@test "there is no completion for other shells" {
  run_split "$sockwork" completion csh && expect_one_line 2 "csh"
}
