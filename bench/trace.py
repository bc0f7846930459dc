#!/usr/bin/python3
"""What tracing costs a program, each figure beside strace's in the same run.

    bench/trace.py [COUNT]        round trips a measurement

One byte goes there and back between two processes of one host, over loopback. Only the server is
traced: two calls a round trip. Five ways in turn, again and again: not traced; our tracer; our
tracer with source lines; strace for the calls of the network alone, by the same kind of filter;
strace as most know it. Of each the least median counts: what is above it is the machine's other
work.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "grader"))

from sockwork.testbed import Testbed  # noqa: E402

TIMES = 5
CALLS = 2  # of the server, in a round trip
SERVE = ["/work/round_trip", "serve", "127.0.0.1", "7007"]
STRACE = ["/usr/bin/strace", "-f", "-o", "/tmp/strace"]
WAYS: dict[str, Mapping[str, object]] = {
    "not traced": {"argv": SERVE},
    "our tracer": {"argv": SERVE, "trace": True},
    "our tracer, with source lines": {"argv": SERVE, "trace": True, "lines": True},
    "strace -f --seccomp-bpf -e trace=network": {
        "argv": [*STRACE, "--seccomp-bpf", "-e", "trace=network", *SERVE]
    },
    "strace -f": {"argv": [*STRACE, *SERVE]},
}


def build(folder: Path) -> None:
    folder.chmod(0o755)  # programs run as another user
    words = ["g++", "-std=c++20", "-O2", "-g", f"-I{ROOT / 'common' / 'include'}"]
    words += [str(ROOT / "bench" / "round_trip.cc"), "-o", str(folder / "round_trip")]
    subprocess.run(words, check=True)


def round_trip(folder: Path, way: Mapping[str, object], count: int) -> float:
    """The median of `count`, in microseconds."""
    with contextlib.closing(Testbed()) as bed:
        bed.opened(bed.begin("open"))
        common = {"directory": str(folder), "host": "target"}
        server = bed.run({"name": "server", **common, **way}).run
        listening = {"for": "listening", "run": server, "port": 7007, "transport": "tcp"}
        assert bed.call("wait", listening).fields["held"]
        ping = ["/work/round_trip", "ping", "127.0.0.1", "7007", str(count)]
        client = bed.run({"name": "client", "argv": ping, **common}).run
        for run in (client, server):
            assert bed.call("wait", {"for": "exited", "run": run, "deadline": 120}).fields["held"]
        if "trace" in way:
            complete(bed.attachment("trace"), count, bool(way.get("lines")))
        taken = float(bed.output(client, "stdout"))
        bed.end()
    return taken


def complete(trace: bytes, count: int, lines: bool) -> None:
    """A tracer that loses calls could be as fast as it likes."""
    calls = [record["call"] for record in map(json.loads, trace.splitlines()) if "call" in record]
    moved = [call for call in calls if call["name"] in ("recvfrom", "sendto") and call["result"]]
    assert len(moved) == CALLS * count
    assert not lines or all(call["at"] for call in moved)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        taken = {way: float("inf") for way in WAYS}
        for _ in range(TIMES):
            for way, fields in WAYS.items():
                taken[way] = min(taken[way], round_trip(folder, fields, count))
    bare = taken["not traced"]
    peer = taken["strace -f --seccomp-bpf -e trace=network"] - bare
    print(f"{'':42}round trip   ratio   a traced call   of strace's")
    for way, time in taken.items():
        each = (time - bare) / CALLS
        line = f"{way:42}{time:7.1f} us {time / bare:7.2f}"
        print(
            line if way == "not traced" else f"{line} {each:12.1f} us {(time - bare) / peer:12.2f}"
        )


main()
