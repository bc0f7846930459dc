# What all tests of the command line share.

repository=$(cd "$BATS_TEST_DIRNAME/../../.." && pwd)
sockwork=$repository/sockwork

# stdout in $output, stderr in $stderr, status in $status.
# shellcheck disable=SC2034 # read by the tests
run_split() {
  status=0
  output=$("$@" 2>"$BATS_TEST_TMPDIR/stderr") || status=$?
  stderr=$(cat "$BATS_TEST_TMPDIR/stderr")
}

# One line on stderr, nothing on stdout.
expect_one_line() {
  [ "$status" -eq "$1" ]
  [ -z "$output" ]
  [ "$(wc -l <"$BATS_TEST_TMPDIR/stderr")" -eq 1 ]
  [[ $stderr == *"$2"* ]]
}

# A kit of its own with one lab, at a path with spaces; judged with the testbed already built.
make_kit() {
  kit="$BATS_TEST_TMPDIR/my kit"
  mkdir -p "$kit/grader" "$kit/labs" "$kit/build/release"
  cp "$repository/sockwork" "$repository/packages.txt" "$kit"
  cp -r "$repository/grader/sockwork" "$kit/grader"
  cp -r "$repository/labs/02-tcp-echo-server" "$kit/labs"
  cp -r "$repository/common" "$kit"
}

use_built_testbed() {
  "$sockwork" doctor >/dev/null
  export SOCKWORK_TESTBED=${SOCKWORK_TESTBED:-$repository/build/release/grader/testbed/sockwork-testbed}
}
