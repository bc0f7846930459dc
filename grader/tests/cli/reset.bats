#!/usr/bin/env bats
# `reset` and `solution`: starters come back, and nobody's work is lost.

# shellcheck disable=SC2154 # sockwork, kit, stderr and others are set by common.bash

bats_require_minimum_version 1.5.0

setup() {
  load common
  make_kit
  starter=$kit/labs/02-tcp-echo-server/echo_server.cpp
  git -C "$kit" init -q
  git -C "$kit" add labs
  git -C "$kit" -c user.name=t -c user.email=t@example.org commit -qm "kit"
  cp "$starter" "$BATS_TEST_TMPDIR/as-it-was"
}

@test "an unchanged lab needs no reset" {
  run_split "$kit/sockwork" reset 2
  [ "$status" -eq 0 ]
  [[ $output == "nothing to restore"* ]]
}

@test "a changed starter is backed up and restored; other files stay" {
  echo "// my work" >"$starter"
  echo "mine" >"$kit/labs/02-tcp-echo-server/notes.txt"
  rm "$kit/labs/02-tcp-echo-server/echo_client.cpp"
  run_split "$kit/sockwork" reset 2 --yes
  [ "$status" -eq 0 ]
  cmp "$starter" "$BATS_TEST_TMPDIR/as-it-was"
  [ "$(cat "$kit/labs/02-tcp-echo-server/notes.txt")" = mine ]
  [ -e "$kit/labs/02-tcp-echo-server/echo_client.cpp" ]
  [ "$(cat "$kit"/.sockwork/backup/02-tcp-echo-server-*/echo_server.cpp)" = "// my work" ]
  [ -z "$(git -C "$kit" status --porcelain .sockwork)" ]
}

@test "it asks first, and no means no" {
  echo "// my work" >"$starter"
  "$kit/sockwork" reset 2 <<<n
  [ "$(cat "$starter")" = "// my work" ]
  "$kit/sockwork" reset 2 <<<y
  cmp "$starter" "$BATS_TEST_TMPDIR/as-it-was"
}

@test "committed work goes back further with --from" {
  first=$(git -C "$kit" rev-parse HEAD)
  echo "// my work" >"$starter"
  git -C "$kit" -c user.name=t -c user.email=t@example.org commit -qam "done"
  "$kit/sockwork" reset 2 --yes | grep -q "nothing to restore"
  "$kit/sockwork" reset 2 --yes --from "$first"
  cmp "$starter" "$BATS_TEST_TMPDIR/as-it-was"
}

@test "without git there is nothing to restore from: status 3" {
  rm -rf "$kit/.git"
  GIT_CEILING_DIRECTORIES=$BATS_TEST_TMPDIR run_split "$kit/sockwork" reset 2 --yes
  expect_one_line 3 "git: "
}

@test "a solution is shown, and what is missing from it" {
  mkdir -p "$kit/solutions/02-tcp-echo-server"
  { cat "$starter"; echo "// the rest"; } >"$kit/solutions/02-tcp-echo-server/echo_server.cpp"
  run_split "$kit/sockwork" solution 2 echo_server
  [ "$status" -eq 0 ]
  [[ $output == *"// the rest"* ]]
  run_split "$kit/sockwork" solution tcp-echo-server echo_server --diff
  [ "$status" -eq 0 ]
  [[ $output == "--- labs/02-tcp-echo-server/echo_server.cpp"*"+// the rest"* ]]
  run_split "$kit/sockwork" solution 2 echo_client && expect_one_line 3 "no solution of echo_client"
}
