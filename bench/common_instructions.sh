#!/usr/bin/env bash
# Counts the user-space instructions of one pass of each benchmark in common_bench, raw and common:
#   bench/common_instructions.sh build/release/bench/common_bench
# A count does not depend on the load of the machine. Each benchmark runs twice under callgrind, with
# different numbers of passes; the difference leaves out everything that is done only once.
# Fails when common needs more than 16 instructions per system call more than the raw calls: about
# 5 ns, 2 % of the cheapest call there is here.
set -euo pipefail

bench=${1:?usage: common_instructions.sh COMMON_BENCH}
few=500
many=1500
most_per_call=16
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT

instructions() { # BENCHMARK PASSES
  SOCKWORK_BENCH_ITERATIONS=$2 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
    "$bench" --benchmark_filter="^$1/" 2>"$counts" >/dev/null
  sed -nE 's/.*Collected : ([0-9]+).*/\1/p' "$counts"
}

per_pass() { # BENCHMARK
  echo $((($(instructions "$1" $many) - $(instructions "$1" $few)) / (many - few)))
}

status=0
printf '%-16s %8s %8s %8s\n' benchmark raw common added
while read -r name calls; do
  raw=$(per_pass "${name}_raw")
  common=$(per_pass "${name}_common")
  if ((raw <= 0 || common <= 0)); then
    echo "$name: nothing was counted; is $bench common_bench?" >&2
    exit 1
  fi
  printf '%-16s %8d %8d %8d\n' "$name" "$raw" "$common" $((common - raw))
  if ((common - raw > calls * most_per_call)); then
    echo "$name: more than $most_per_call instructions added per call" >&2
    status=1
  fi
done <<'CASES'
send_recv 2
would_block 1
connect_accept 6
CASES
exit $status
