#!/usr/bin/env bats
# The launcher: found from anywhere, quick, honest about what is missing, safe when run twice.

# shellcheck disable=SC2154 # sockwork, kit, stderr and others are set by common.bash

bats_require_minimum_version 1.5.0

setup() {
  load common
}

# A package manager of our own, first on the PATH: it notes each call and runs $1 to "install".
fake_package_manager() {
  mkdir -p "$BATS_TEST_TMPDIR/bin"
  for name in apt-get dnf; do
    cat >"$BATS_TEST_TMPDIR/bin/$name" <<END
#!/bin/sh
echo "\$*" >>"$BATS_TEST_TMPDIR/calls"
case "\$*" in *install*) $1 ;; esac
END
    chmod +x "$BATS_TEST_TMPDIR/bin/$name"
  done
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
}

need_a_tool() {
  make_kit
  echo "core cmd:sockwork-needs-this needed-package needed-package" >>"$kit/packages.txt"
}

needs_root() {
  [ "$(id -u)" -eq 0 ] || skip "needs root"
}

@test "it works through a link, from another directory, at a path with spaces" {
  make_kit
  mkdir "$BATS_TEST_TMPDIR/else where"
  ln -s "../my kit/sockwork" "$BATS_TEST_TMPDIR/else where/sock work"
  ln -s "else where/sock work" "$BATS_TEST_TMPDIR/again"
  cd /
  for name in "my kit/sockwork" "else where/sock work" again; do
    run_split "$BATS_TEST_TMPDIR/$name" list
    [ "$status" -eq 0 ]
    [[ $output == "02 TCP echo server"* ]]
  done
}

@test "modules in the current directory are not imported" {
  cd "$BATS_TEST_TMPDIR"
  for name in click json socket; do echo 'raise SystemExit(99)' >"$name.py"; done
  run "$sockwork" list
  [ "$status" -eq 0 ]
}

@test "the second start asks no package manager and costs less than 0.3 s" {
  "$sockwork" list >/dev/null
  # Processor time: the time on the clock is also that of whatever else runs here.
  TIMEFORMAT='%U %S'
  spent=$({ time "$sockwork" list >/dev/null; } 2>&1)
  echo "user and system: $spent s"
  awk '{ exit !($1 + $2 < 0.3) }' <<<"$spent"
  if command -v strace >/dev/null; then
    strace -f -e trace=execve -o "$BATS_TEST_TMPDIR/calls" "$sockwork" list >/dev/null
    run ! grep -E 'dpkg|apt|rpm|dnf' "$BATS_TEST_TMPDIR/calls"
  fi
}

@test "what is missing is installed once, even by two at the same time" {
  needs_root
  need_a_tool
  fake_package_manager "printf '#!/bin/sh\n' >'$BATS_TEST_TMPDIR/bin/sockwork-needs-this'; chmod +x '$BATS_TEST_TMPDIR/bin/sockwork-needs-this'"
  "$kit/sockwork" list >"$BATS_TEST_TMPDIR/one" 2>&1 &
  "$kit/sockwork" list >"$BATS_TEST_TMPDIR/two" 2>&1
  wait $!
  grep -q "02 TCP echo server" "$BATS_TEST_TMPDIR/one"
  grep -q "02 TCP echo server" "$BATS_TEST_TMPDIR/two"
  [ "$(grep -c ' install\|^install' "$BATS_TEST_TMPDIR/calls")" -eq 1 ]
  grep -q 'needed-package' "$BATS_TEST_TMPDIR/calls"
  [ "$(cat "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/two" | grep -c 'installing 1 packages')" -eq 1 ]
}

@test "an installation that fails shows its output and ends with 3" {
  needs_root
  need_a_tool
  fake_package_manager 'echo "E: no such package"; exit 100'
  run_split "$kit/sockwork" list
  [ "$status" -eq 3 ]
  [ -z "$output" ]
  [[ $stderr == *"E: no such package"*"the installation failed"* ]]
}

@test "an installation that brings nothing is not believed" {
  needs_root
  need_a_tool
  fake_package_manager ':'
  run_split "$kit/sockwork" list
  [ "$status" -eq 3 ]
  [[ $stderr == *"still missing after the installation: cmd:sockwork-needs-this"* ]]
}

@test "without root the one line to run is printed, with status 3" {
  need_a_tool
  as_user=()
  if [ "$(id -u)" -eq 0 ]; then
    chmod 755 "$BATS_RUN_TMPDIR" "$BATS_FILE_TMPDIR" "$BATS_TEST_TMPDIR" 2>/dev/null || true
    chmod -R a+rX "$BATS_TEST_TMPDIR"
    as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    "${as_user[@]}" test -r "$kit/sockwork" || skip "the temporary folder is closed to other users"
  fi
  ! "${as_user[@]}" sudo -n true 2>/dev/null || skip "sudo works without a password"
  mkdir -m 777 "$BATS_TEST_TMPDIR/cache"
  run_split env XDG_CACHE_HOME="$BATS_TEST_TMPDIR/cache" "${as_user[@]}" "$kit/sockwork" list
  expect_one_line 3 "packages are missing; run: sudo "
  [[ $stderr == *" install -y "*needed-package ]]
}

@test "a kit that cannot be written to is built in the cache" {
  [ "$(id -u)" -ne 0 ] || skip "root can write everywhere"
  make_kit
  chmod -R a-w "$kit"
  run env XDG_CACHE_HOME="$BATS_TEST_TMPDIR/cache" "$kit/sockwork" list
  chmod -R u+w "$kit"
  [ "$status" -eq 0 ]
  ls "$BATS_TEST_TMPDIR"/cache/sockwork/release-*/have-core
}

@test "without a testbed, checks end with 3" {
  export SOCKWORK_TESTBED=$BATS_TEST_TMPDIR/none
  run_split "$sockwork" doctor && expect_one_line 3 "there is no testbed"
}

@test "the TAB key neither installs nor builds" {
  need_a_tool
  fake_package_manager ':'
  COMP_WORDS="sockwork " COMP_CWORD=1 _SOCKWORK_COMPLETE=bash_complete run "$kit/sockwork"
  [ "$status" -eq 0 ]
  [ -z "$output" ]
  [ ! -e "$BATS_TEST_TMPDIR/calls" ]
}
