#!/usr/bin/python3
"""What the testbed costs, each figure beside a peer in the same run. Needs root for the peers.

    bench/link.py ROUND_TRIP        the compiled bench/round_trip.cc

- a whole testbed (open, run, end) beside a bare fork+exec of the same program
- one echoed byte through the capturing link beside a bare veth pair
- iperf3 through the capturing link
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "grader"))

from sockwork.testbed import Seen, Testbed  # noqa: E402

COUNT = 20_000
SECONDS = 5


def median_ms(action: Callable[[], None], times: int = 30) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


def wait(bed: Testbed, kind: str, **fields: object) -> Seen:
    return Seen.parse(bed.call("wait", {"for": kind, **fields}).fields)


@contextlib.contextmanager
def opened() -> Iterator[Testbed]:
    with contextlib.closing(Testbed()) as bed:
        bed.opened(bed.begin("open", {"capture_limit": 4 << 30}))
        yield bed


def start(bed: Testbed, host: str, *argv: str, directory: str = "") -> int:
    return bed.run({"name": argv[0], "argv": argv, "host": host, "directory": directory}).run


def whole_testbed() -> None:
    with opened() as bed:
        assert wait(bed, "exited", run=start(bed, "target", "true")).held
        bed.end()


def set_up_and_tear_down() -> None:
    bare = median_ms(lambda: subprocess.run(["true"], check=True) and None)
    whole = median_ms(whole_testbed)
    beds = [Testbed() for _ in range(30)]
    requests = [bed.begin("open") for bed in beds]
    for bed, request in zip(beds, requests):
        bed.opened(request)

    def with_spare() -> None:
        bed = beds.pop()
        assert wait(bed, "exited", run=start(bed, "target", "true")).held
        bed.end()
        bed.release()

    spare = median_ms(with_spare)
    print(f"fork+exec                      {bare:8.2f} ms")
    print(f"testbed: open, run, end, gone  {whole:8.2f} ms   +{whole - bare:.2f} ms")
    print(f"testbed opened ahead: run, end {spare:8.2f} ms   +{spare - bare:.2f} ms")


def through_link(program: Path) -> float:
    with opened() as bed:
        folder, name = str(program.parent), f"/work/{program.name}"
        server = start(bed, "target", name, "serve", "192.0.2.1", "7007", directory=folder)
        assert wait(bed, "listening", run=server, port=7007, transport="tcp").held
        arguments = ("ping", "192.0.2.1", "7007", str(COUNT))
        client = start(bed, "peer", name, *arguments, directory=folder)
        assert wait(bed, "exited", run=client, deadline=60).held
        return float(bed.output(client, "stdout"))


@contextlib.contextmanager
def bare_pair() -> Iterator[tuple[str, str]]:
    names = (f"sw{os.getpid()}a", f"sw{os.getpid()}b")
    ip = ["ip"]
    try:
        for name in names:
            subprocess.run([*ip, "netns", "add", name], check=True)
        veth = f"link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}"
        subprocess.run([*ip, *veth.split()], check=True)
        for number, name in enumerate(names, 1):
            inside = [*ip, "-n", name]
            subprocess.run(
                [*inside, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0"], check=True
            )
            subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run([*ip, "netns", "del", name], check=False)


def through_veth(program: Path) -> float:
    with bare_pair() as (target, peer):
        inside = ["ip", "netns", "exec"]
        server = subprocess.Popen([*inside, target, program, "serve", "192.0.2.1", "7007"])
        ping = [*inside, peer, program, "ping", "192.0.2.1", "7007", str(COUNT)]
        until = time.monotonic() + 10
        while True:
            done = subprocess.run(ping, capture_output=True, text=True)
            if done.returncode == 0 or time.monotonic() > until:
                break
        server.wait(10)
        return float(done.stdout)


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keeps every processor from halting, below all other work: what is left is the path itself,
    without the time a (virtual) processor needs to wake up, twice more with the link."""
    spin = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", spin]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def round_trip(program: Path) -> None:
    for said, condition in (("halting", contextlib.nullcontext()), ("kept awake", awake())):
        with condition:
            veth, link = through_veth(program), through_link(program)
        print(f"processors {said}:")
        print(f"  echo over a bare veth pair   {veth:8.2f} us")
        print(f"  echo through the link        {link:8.2f} us   +{link - veth:.2f} us")


def bulk(*extra: str) -> None:
    with opened() as bed:
        server = start(bed, "target", "iperf3", "-s", "-1")
        assert wait(bed, "listening", run=server, port=5201, transport="tcp").held
        options = ("-c", "192.0.2.1", "-t", str(SECONDS), "-J", *extra)
        client = start(bed, "peer", "iperf3", *options)
        assert wait(bed, "exited", run=client, deadline=SECONDS + 30).held
        result = json.loads(bed.output(client, "stdout"))
        rate = result["end"]["sum_received"]["bits_per_second"] / 1e9
        stats = bed.call("stats").fields
        whole = "" if not stats["capture_truncated"] else ", the last ones not kept"
        print(
            f"iperf3 through the link        {rate:8.2f} Gbit/s   {stats['frames'] / SECONDS:.0f} "
            f"frames/s, {stats['lost']} lost, all captured{whole}"
        )


def main() -> int:
    if len(sys.argv) != 2 or os.geteuid() != 0:
        print("usage (as root): bench/link.py ROUND_TRIP", file=sys.stderr)
        return 2
    program = Path(sys.argv[1]).resolve()
    set_up_and_tear_down()
    round_trip(program)
    bulk()
    return 0


if __name__ == "__main__":
    sys.exit(main())
