"""The inferred states of sockets against the kernel's own (sock:inet_sock_set_state).

A thousand connections over the testbed's link end in every way there is; for each socket the
sequence of states is compared, none missing and none invented. The tracepoint shows neither
TIME_WAIT nor a SYN_RECV that never opened: those are compared with the rows of sock_diag(7).
Needs root and tracefs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from sockwork.facts import Row
from sockwork.testbed import Seen, Testbed, default_command

# Ports of our own: the tracepoint sees the whole machine.
PORT, CLOSED_PORT, PROGRAM_PORT, OPENER_PORT, FULL_PORT = range(
    first := 20000 + os.getpid() % 9000, first + 5
)
LAST_PORT = FULL_PORT
EACH = 80  # connections of each way to end
RESET = struct.pack("ii", 1, 0)  # of SO_LINGER
REPLAY = default_command().with_name("states_replay")
EVENT = re.compile(r"sport=(\d+) dport=(\d+) .*oldstate=TCP_(\w+) newstate=TCP_(\w+)")
KERNEL = {"CLOSE": "CLOSED"}

Ports = tuple[int, int]  # local, remote
Walks = dict[Ports, list[str]]


class Tracepoint:
    """An own instance of the kernel's trace, with one event of one port."""

    def __init__(self, root: Path) -> None:
        self.instance = root / "instances" / f"states-{os.getpid()}"
        self.instance.mkdir()
        self.event = self.instance / "events/sock/inet_sock_set_state"

    def start(self) -> None:
        (self.instance / "buffer_size_kb").write_text("8192")
        ours = [f"({end}>={PORT}&&{end}<={LAST_PORT})" for end in ("sport", "dport")]
        (self.event / "filter").write_text("||".join(ours))
        (self.event / "enable").write_text("1")

    def walks(self) -> Walks:
        (self.event / "enable").write_text("0")
        for stats in self.instance.glob("per_cpu/cpu*/stats"):
            assert re.search(r"^overrun: 0$", stats.read_text(), re.M), "the trace lost events"
        found: Walks = defaultdict(list)
        for line in (self.instance / "trace").read_text().splitlines():
            if match := EVENT.search(line):
                local, remote, _, state = match.groups()
                if local != "0" and remote != "0":  # not the listener's
                    found[int(local), int(remote)].append(KERNEL.get(state, state))
        return found

    def close(self) -> None:
        self.instance.rmdir()


@contextlib.contextmanager
def tracefs(folder: Path) -> Iterator[Path]:
    usual = Path("/sys/kernel/tracing")
    if (usual / "instances").exists():
        yield usual
        return
    if subprocess.run(["mount", "-t", "tracefs", "none", folder], capture_output=True).returncode:
        pytest.skip("needs root and tracefs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def tracepoint(tmp_path: Path) -> Iterator[Tracepoint]:
    if os.geteuid() != 0:
        pytest.skip("needs root to read the kernel's tracepoint")
    if not REPLAY.exists():
        pytest.skip("needs a developer build (states_replay)")
    folder = tmp_path / "tracefs"
    folder.mkdir()
    with tracefs(folder) as root:
        tracepoint = Tracepoint(root)
        try:
            tracepoint.start()
            yield tracepoint
        finally:
            tracepoint.close()


class Bench:
    """A testbed whose two hosts this test plays itself."""

    def __init__(self) -> None:
        self.bed = Testbed()
        self.opened = self.bed.opened(self.bed.begin("open"))
        self.next_port = 30000
        self.released: dict[int, int] = {}  # rule: time
        self.resting: set[Ports] = set()  # seen in TIME_WAIT
        self.listener = self.listen(PORT)

    # --- sockets ------------------------------------------------------------------------------

    def bound(self, host: str, port: int) -> socket.socket:
        made = self.bed.make_sockets(1, host, "inet", "stream")[0]
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((self.opened.hosts[host].inet, port))
        return made

    def listen(self, port: int, backlog: int = 100) -> socket.socket:
        listener = self.bound("target", port)
        listener.listen(backlog)
        listener.settimeout(20)
        return listener

    def connecting(self, to: int = PORT, port: int = 0) -> socket.socket:
        self.next_port += 1
        client = self.bound("peer", port or self.next_port)
        with contextlib.suppress(BlockingIOError):
            client.connect((self.opened.hosts["target"].inet, to))
        return client

    def client(self, to: int = PORT, port: int = 0) -> socket.socket:
        client = self.connecting(to, port)
        ready(client, select.POLLOUT)
        client.settimeout(20)
        return client

    def accept(self) -> socket.socket:
        server = self.listener.accept()[0]
        server.settimeout(20)
        return server

    def pair(self, port: int = 0) -> tuple[socket.socket, socket.socket]:
        return self.client(port=port), self.accept()

    # --- the link -----------------------------------------------------------------------------

    def rule(self, action: str, times: int = 0, behind: int = 0, **match: object) -> int:
        """`source`: the host whose packets it is about."""
        match |= {"transport": "tcp"}
        if "source" in match:
            match["from"] = match.pop("source")
        fields: dict[str, object] = {"match": match, "action": action}
        fields |= {"times": times} if times else {}
        fields |= {"behind": behind} if behind else {}
        return int(self.bed.call("rule", fields).fields["rule"])

    def unrule(self, rule: int) -> None:
        self.bed.call("unrule", {"rule": rule})

    def release(self, rule: int) -> None:
        self.released[rule] = time.monotonic_ns() - self.opened.origin
        self.bed.call("release", {"rule": rule})

    def settle(self) -> None:
        """Waits until every connection is over, and notes those that rest in TIME_WAIT."""
        until = time.monotonic() + 30
        busy = {"any"}
        while busy:
            assert time.monotonic() < until, busy
            rows = self.bed.rows("target", "tcp") + self.bed.rows("peer", "tcp")
            busy = {row.text for row in rows if row.state not in ("TIME_WAIT", "LISTEN")}
            self.resting |= {row_ports(row) for row in rows if row.state == "TIME_WAIT"}

    def inferred(self, folder: Path) -> Walks:
        """What States makes of the capture and of what became of each packet."""
        capture = folder / "capture.pcap"
        capture.write_bytes(self.bed.attachment("capture"))
        packets = json.loads(self.bed.attachment("packets"))
        events = [event for i in range(len(packets)) for event in self.events_of(packets, i)]
        events.sort(key=lambda event: event[0])
        lines = [f"{what} {number} {when} {host}\n" for when, what, number, host in events]
        done = subprocess.run(
            [REPLAY, capture], input="".join(lines), capture_output=True, text=True, check=True
        )
        found: Walks = defaultdict(list)
        for line in done.stdout.splitlines():
            _, _, local, remote, _, state, _ = line.split()
            found[int(local), int(remote)].append(state)
        return found

    def events_of(
        self, packets: list[dict[str, Any]], index: int
    ) -> Iterator[tuple[int, str, int, int]]:
        hosts = {"target": 0, "peer": 1}
        packet = packets[index]
        number, when, fate = packet["number"], packet["time"], packet["fate"]
        if packet["transport"] != "tcp":
            return
        yield when, "sent", number, hosts[packet["from"]]
        if fate == "released" and packet["rule"] in self.released:
            when = self.released[packet["rule"]]
        elif fate == "released":  # by a rule that let the sender's next packet go first
            behind = (
                other
                for other in islice(packets, index + 1, None)
                if other["from"] == packet["from"]
            )
            when = next(behind)["time"] + 1
        if fate in ("forwarded", "duplicated", "released"):
            yield when, "delivered", number, hosts[packet["to"]]


def row_ports(row: Row) -> Ports:
    return row.local_port, row.remote_port


def ready(waits: socket.socket, events: int) -> None:
    poller = select.poll()
    poller.register(waits, events)
    assert poller.poll(20_000)


def read_end(reader: socket.socket) -> None:
    """Reads to the end, whichever it is."""
    with contextlib.suppress(ConnectionResetError):
        while reader.recv(65536):
            pass


# --- the ways to end ---------------------------------------------------------------------------


def client_first(bench: Bench) -> None:
    for _ in range(EACH):
        client, server = bench.pair()
        client.close()
        read_end(server)
        server.close()


def server_first(bench: Bench) -> None:
    for _ in range(EACH):
        client, server = bench.pair()
        server.sendall(b"last words")
        server.close()
        read_end(client)
        client.close()


def at_the_same_time(bench: Bench) -> None:
    pairs = [bench.pair() for _ in range(EACH)]
    rule = bench.rule("hold", flags="FIN")
    for pair in pairs:
        for end in pair:
            end.close()
    bench.release(rule)


def half_close(bench: Bench) -> None:
    for _ in range(EACH):
        client, server = bench.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        read_end(server)
        server.sendall(b"answer")
        server.close()
        read_end(client)
        client.close()


def by_linger(bench: Bench) -> None:
    for i in range(EACH):
        pair = bench.pair()
        resets, other = pair if i % 2 else reversed(pair)
        if i % 3 == 0:  # from CLOSE_WAIT
            other.shutdown(socket.SHUT_WR)
            read_end(resets)
        resets.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        resets.close()
        read_end(other)
        other.close()


def by_unread_data(bench: Bench) -> None:
    for _ in range(EACH):
        client, server = bench.pair()
        client.sendall(b"never read")
        ready(server, select.POLLIN)
        server.close()
        read_end(client)
        client.close()


def before_accept(bench: Bench) -> None:
    for _ in range(EACH):
        client = bench.client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        server = bench.accept()
        read_end(server)
        server.close()


def never_accepted(bench: Bench) -> None:
    clients = [bench.client() for _ in range(EACH)]
    bench.listener.close()
    for client in clients:
        read_end(client)
        client.close()
    bench.listener = bench.listen(PORT)


def refused(bench: Bench) -> None:
    for _ in range(EACH):
        client = bench.connecting(CLOSED_PORT)
        ready(client, select.POLLERR)
        client.close()


def opening_lost(bench: Bench) -> None:
    """A SYN, a SYN with ACK and a third ACK each, sent again after a second."""
    third = EACH // 3
    rules = [
        bench.rule("drop", third, source="peer", flags="SYN"),
        bench.rule("drop", third, source="target", flags="SYN"),
        bench.rule("drop", third, source="peer", flags="ACK"),
    ]
    clients = [bench.connecting() for _ in range(EACH)]
    for client in clients:
        ready(client, select.POLLOUT)
        client.setblocking(True)
        client.sendall(b"now it is open")
    servers = [bench.accept() for _ in range(EACH)]
    for rule in rules:
        bench.unrule(rule)
    for end in clients + servers:
        end.shutdown(socket.SHUT_WR)
        end.settimeout(20)
    for end in clients + servers:
        read_end(end)
        end.close()


def ending_lost(bench: Bench) -> None:
    pairs = [bench.pair() for _ in range(EACH)]
    lost = bench.rule("drop", EACH, flags="FIN")
    for client, server in pairs:
        client.close()
    for client, server in pairs:
        read_end(server)
        server.close()
    bench.settle()
    bench.unrule(lost)


def last_acknowledgement_lost(bench: Bench) -> None:
    for _ in range(EACH // 4):
        client, server = bench.pair()
        client.shutdown(socket.SHUT_WR)
        read_end(server)
        lost = bench.rule("drop", 1, source="peer", flags="ACK", without="FIN")
        server.close()
        read_end(client)
        client.close()
        bench.settle()
        bench.unrule(lost)


def out_of_order(bench: Bench) -> None:
    for action, behind in (("reorder", 1), ("duplicate", 0)):
        for _ in range(EACH // 2):
            client, server = bench.pair()
            rule = bench.rule(action, behind=behind, min_length=1)
            client.sendall(b"overtaken by the FIN")
            client.shutdown(socket.SHUT_WR)
            read_end(server)
            bench.unrule(rule)
            server.close()
            read_end(client)
            client.close()


def killed(bench: Bench) -> None:
    program = (
        "import socket,sys\n"
        "s=socket.create_server((sys.argv[1],int(sys.argv[2])),backlog=200)\n"
        "held=[]\n"
        "while True: held.append(s.accept()); print(flush=True)\n"
    )
    argv = ["/usr/bin/python3", "-c", program, bench.opened.hosts["target"].inet]
    run = bench.bed.run({"name": "server", "argv": [*argv, str(PROGRAM_PORT)]}).run
    listening = {"run": run, "transport": "tcp", "port": PROGRAM_PORT}
    assert Seen.parse(bench.bed.call("wait", {"for": "listening", **listening}).fields).held
    clients = [bench.client(PROGRAM_PORT) for _ in range(EACH)]
    for client in clients[::2]:
        client.sendall(b"unread")
    accepted = {"run": run, "stream": "stdout", "lines": EACH}
    assert Seen.parse(bench.bed.call("wait", {"for": "output", **accepted}).fields).held
    bench.bed.call("signal", {"run": run, "signal": "SIGKILL"})
    for client in clients:
        read_end(client)
        client.close()


def the_same_ports_again(bench: Bench) -> None:
    for port in range(50001, 50001 + EACH // 2):
        for _ in range(2):
            client, server = bench.pair(port)
            server.close()  # so that TIME_WAIT is the server's, which a newer SYN may end
            read_end(client)
            client.close()
            bench.settle()


def a_full_window(bench: Bench) -> None:
    for _ in range(5):
        client, server = bench.pair()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while client.send(bytes(65536)):
                pass
        client.close()  # its FIN waits behind the data
        read_end(server)
        server.close()


def both_open(bench: Bench) -> None:
    for i in range(20):
        rule = bench.rule("hold", flags="SYN", without="ACK")
        target, peer = bench.bound("target", OPENER_PORT), bench.bound("peer", 51001 + i)
        for one, other in ((target, peer), (peer, target)):
            with contextlib.suppress(BlockingIOError):
                one.connect(other.getsockname())
        bench.release(rule)
        for end in (target, peer):
            ready(end, select.POLLOUT)
            end.settimeout(20)
        peer.close()
        read_end(target)
        target.close()
        bench.settle()


WAYS: list[Callable[[Bench], None]] = [
    client_first,
    server_first,
    at_the_same_time,
    half_close,
    by_linger,
    by_unread_data,
    before_accept,
    never_accepted,
    refused,
    opening_lost,
    ending_lost,
    last_acknowledgement_lost,
    out_of_order,
    killed,
    the_same_ports_again,
    a_full_window,
    both_open,
]


def as_the_tracepoint_shows(walk: list[str]) -> list[str]:
    """Without SYN_RECV, and with a TIME_WAIT as the CLOSED that the tracepoint shows for it."""
    shown: list[str] = []
    for state in walk:
        state = "CLOSED" if state == "TIME_WAIT" else state
        if state != "SYN_RECV" and not (state == "CLOSED" and shown[-1:] in ([], ["CLOSED"])):
            shown.append(state)
    return shown


def test_states_are_those_of_the_kernel(tracepoint: Tracepoint, tmp_path: Path) -> None:
    bench = Bench()
    with contextlib.closing(bench.bed):
        if "link" not in bench.opened.capabilities:
            pytest.skip("this tier has no link")
        for way in WAYS:
            way(bench)
            bench.settle()
        bench.listener.close()
        ours = bench.inferred(tmp_path)
        assert bench.bed.call("end").fields["lost"] == 0
    kernel = tracepoint.walks()
    expected = {ports: as_the_tracepoint_shows(walk) for ports, walk in kernel.items()}
    inferred = {ports: as_the_tracepoint_shows(walk) for ports, walk in ours.items()}
    compared = {ports for ports in expected if expected[ports]}
    assert len(compared) >= 2 * 1000
    differences = {
        ports: (ours.get(ports), kernel.get(ports))
        for ports in expected.keys() | inferred.keys()
        if expected.get(ports, []) != inferred.get(ports, [])
    }
    assert (
        not differences
    ), f"{len(differences)} of {len(compared)}: {list(differences.items())[:9]}"
    assert {ports for ports in ours if "TIME_WAIT" in ours[ports]} == bench.resting


def test_a_full_queue_of_accept_leaves_syn_recv(tracepoint: Tracepoint, tmp_path: Path) -> None:
    bench = Bench()
    with contextlib.closing(bench.bed):
        if "link" not in bench.opened.capabilities:
            pytest.skip("this tier has no link")
        full = bench.listen(FULL_PORT, backlog=1)  # the kernel has room for one more
        clients = [bench.client(FULL_PORT)]
        accepting = {"host": "target", "state": "ESTABLISHED", "at_least": 1}
        assert Seen.parse(bench.bed.call("wait", {"for": "row-count", **accepting}).fields).held
        # Both are answered before either is open: later the kernel would drop their SYN.
        held = bench.rule("hold", source="peer", flags="ACK")
        clients += [bench.client(FULL_PORT) for _ in range(2)]
        bench.release(held)
        # Until an answer was sent a second time: what opens was not taken.
        again = {"match": {"from": "target", "flags": ["SYN", "ACK"]}, "at_least": 4}
        assert Seen.parse(bench.bed.call("wait", {"for": "frames", **again}).fields).held
        rows = {row_ports(row): row.state for row in bench.bed.rows("target", "tcp")}
        ours = bench.inferred(tmp_path)
        theirs = {ports: state for ports, state in rows.items() if ports[1]}
        assert {ports: walk[-1] for ports, walk in ours.items() if ports in theirs} == theirs
        assert sorted(theirs.values()) == ["ESTABLISHED", "ESTABLISHED", "SYN_RECV"]
        for end in (full, *clients):
            end.close()
