"""The testbed against things we did not write: ss, tshark, the kernel's own answers.

Every test opens a testbed of its own. Skips where the tier has no link.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sockwork.testbed import Seen, Testbed, TestbedError

PORT = 7007
ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
Server((sys.argv[1], int(sys.argv[2])), Echo).serve_forever()
"""
SWALLOW = (
    "import socket,sys;s=socket.create_server((sys.argv[1],int(sys.argv[2])));c=s.accept();input()"
)


@pytest.fixture
def bed() -> Iterator[Testbed]:
    testbed = Testbed()
    with contextlib.closing(testbed):
        opened = testbed.opened(testbed.begin("open"))
        if "link" not in opened.capabilities:
            pytest.skip("this tier has no link")
        yield testbed
        stats = testbed.call("end").fields
        assert stats["lost"] == 0, stats["lost_where"]


def start(bed: Testbed, source: str, stdin: str = "null") -> int:
    argv = ["/usr/bin/python3", "-c", source, "192.0.2.1", str(PORT)]
    run = bed.run({"name": "server", "argv": argv, "stdin": stdin}).run
    assert wait(bed, "listening", run=run, port=PORT, transport="tcp").held
    return run


def wait(bed: Testbed, kind: str, **fields: object) -> Seen:
    return Seen.parse(bed.call("wait", {"for": kind, **fields}).fields)


def connect(bed: Testbed, host: str = "peer") -> socket.socket:
    made = bed.make_sockets(1, host, "inet", "stream")[0]
    made.settimeout(10)
    made.connect(("192.0.2.1", PORT))
    return made


def ends(peer: socket.socket) -> dict[str, object]:
    """The connection as the target sees it."""
    return {"host": "target", "local": peer.getpeername(), "remote": peer.getsockname()}


def in_network_of(pid: int, *command: str) -> str:
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_socket_table_is_the_one_ss_shows(bed: Testbed) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to look into the namespace with another program")
    argv = ["/usr/bin/python3", "-c", ECHO, "192.0.2.1", str(PORT)]
    started = bed.run({"name": "server", "argv": argv})
    assert wait(bed, "listening", run=started.run, port=PORT, transport="tcp").held
    with connect(bed) as first, connect(bed) as second:
        first.sendall(b"x")
        assert first.recv(1) == b"x"
        second.shutdown(socket.SHUT_WR)
        assert second.recv(1) == b""
        shown = in_network_of(started.pid, "ss", "-Htan")
    ours = {
        (row.state, row.rqueue, row.wqueue, "%s:%d" % row.local, row.remote[1])
        for row in bed.rows("target", "tcp")
        if row.state == "LISTEN"
    }
    theirs = set()
    for line in shown.splitlines():
        state, received, sent, local, remote = line.split()[:5]
        port = 0 if remote.endswith("*") else int(remote.rpartition(":")[2])
        theirs.add((state, int(received), int(sent), local, port))
    assert ours == {row for row in theirs if row[0] == "LISTEN"}
    assert ours


def test_packets_are_those_tshark_decodes(bed: Testbed, tmp_path: Path) -> None:
    start(bed, ECHO)
    with connect(bed) as peer:
        peer.sendall(b"some bytes")
        assert peer.recv(100) == b"some bytes"
        table = ends(peer)
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b""
    assert wait(bed, "state", **table, **{"in": ["NONE"]}).held
    capture = tmp_path / "capture.pcap"
    capture.write_bytes(bed.attachment("capture"))
    names = "frame.number ip.src tcp.srcport tcp.dstport tcp.seq tcp.ack tcp.len tcp.flags"
    fields = [word for name in names.split() for word in ("-e", name)]
    options = ["-o", "tcp.check_checksum:TRUE", "-Y", "tcp", "-T", "fields", "-E", "separator=,"]
    tshark = subprocess.run(
        ["tshark", "-r", str(capture), *options, *fields], capture_output=True, text=True
    )
    assert tshark.returncode == 0, tshark.stderr
    bits = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16}
    ours = [
        f"{packet.n},{packet.source[0]},{packet.source[1]},{packet.destination[1]},"
        f"{packet.seq},{packet.ack if 'ACK' in packet.flags else 0},{packet.length},"
        f"0x{sum(bits[name] for name in packet.flags):04x}"
        for packet in bed.packets()
        if packet.transport == "tcp"
    ]
    assert ours == tshark.stdout.splitlines()
    assert len(ours) >= 9  # three to open, two with data, their acknowledgements, three to end


def test_a_dropped_syn_is_sent_again(bed: Testbed) -> None:
    start(bed, ECHO)
    bed.call("rule", {"match": {"from": "peer", "flags": "SYN"}, "action": "drop", "times": 1})
    with connect(bed):
        syns = [packet for packet in bed.packets() if packet.flags == {"SYN"}]
    assert [packet.fate for packet in syns] == ["dropped", "forwarded"]


def test_held_frames_keep_a_state_until_they_are_released(bed: Testbed) -> None:
    start(bed, ECHO)
    with connect(bed) as peer:
        fin = {"match": {"from": "target", "flags": "FIN"}}
        rule = bed.call("rule", {**fin, "action": "hold", "times": 1}).fields["rule"]
        # A FIN that is sent again while the first is held would meet TIME_WAIT later, and the
        # target's answer to that acknowledgement, a reset, would end TIME_WAIT (RFC 1337).
        bed.call("rule", {**fin, "action": "drop"})
        peer.shutdown(socket.SHUT_WR)
        assert wait(bed, "state", **ends(peer), **{"in": ["LAST_ACK"]}).held
        mine = {"host": "peer", "local": peer.getsockname(), "remote": peer.getpeername()}
        assert wait(bed, "state", **mine, **{"in": ["FIN_WAIT2"]}).held
        bed.call("release", {"rule": rule})
        assert peer.recv(1) == b""
        assert wait(bed, "state", **mine, **{"in": ["TIME_WAIT"]}).held


def test_an_injected_reset_ends_the_connection(bed: Testbed) -> None:
    start(bed, ECHO)
    with connect(bed) as peer:
        peer.sendall(b"hello")
        assert peer.recv(5) == b"hello"
        bed.call(
            "inject",
            {
                "kind": "rst",
                "from": "target",
                "to": "peer",
                "source": peer.getpeername(),
                "destination": peer.getsockname(),
            },
        )
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_an_icmp_error_reaches_the_socket(bed: Testbed) -> None:
    peer = bed.make_sockets(1, "peer", "inet", "dgram")[0]
    rule = {"match": {"transport": "udp"}, "action": "drop"}
    bed.call("rule", rule)
    with peer:
        peer.settimeout(10)
        peer.connect(("192.0.2.1", 9))
        peer.send(b"anyone?")
        match = {"match": {"transport": "udp"}}
        assert wait(bed, "frames", **match).held
        number = next(packet.n for packet in bed.packets() if packet.transport == "udp")
        fields = {"kind": "icmp-unreachable", "from": "target", "to": "peer"}
        bed.call("inject", {**fields, "code": 3, "packet": number})
        with pytest.raises(ConnectionRefusedError):
            peer.recv(1)


def test_duplicates_and_reordering_reach_a_datagram_socket(bed: Testbed) -> None:
    sender = bed.make_sockets(1, "peer", "inet", "dgram")[0]
    receiver = bed.make_sockets(1, "target", "inet", "dgram")[0]
    with sender, receiver:
        receiver.bind(("192.0.2.1", PORT))
        receiver.settimeout(10)
        bed.call("rule", {"match": {"nth": 1}, "action": "reorder", "behind": 1, "times": 1})
        bed.call("rule", {"match": {"nth": 1}, "action": "duplicate", "times": 1})
        for text in (b"first", b"second"):
            sender.sendto(text, ("192.0.2.1", PORT))
        assert [receiver.recv(100) for _ in range(3)] == [b"second", b"second", b"first"]


def test_consumed_and_delivered_are_what_the_program_and_its_kernel_did(bed: Testbed) -> None:
    run = start(bed, SWALLOW, stdin="pipe")
    with connect(bed) as peer:
        peer.sendall(b"unread")
        mine = {"host": "peer", "local": peer.getsockname(), "remote": peer.getpeername()}
        assert wait(bed, "delivered", **mine).held
        unread = wait(bed, "consumed", **ends(peer), deadline=0)
        assert not unread.held
        assert unread.facts["row"]["rqueue"] == 6
        assert wait(bed, "quiescent", run=run, untimed=True).held


def test_a_spinning_program_is_never_quiescent(bed: Testbed) -> None:
    run = bed.run({"name": "spin", "argv": ["/bin/sh", "-c", "while :; do :; done"]}).run
    seen = wait(bed, "quiescent", run=run, deadline=0.3)
    assert not seen.held
    assert seen.facts["cpu_ns"] > 0
    assert seen.facts["moving"] in ("a thread runs", "a thread ran")


def test_the_sandbox_shows_nothing_of_the_machine(bed: Testbed) -> None:
    script = "id -u; ls /; ls /proc/self/fd; cat /proc/self/status; env; kill -0 1 && echo killed"
    run = bed.run({"name": "look", "argv": ["/bin/sh", "-c", script]}).run
    assert wait(bed, "exited", run=run).held
    said = bed.output(run, "stdout").decode()
    lines = said.splitlines()
    assert int(lines[0]) != 0
    assert "home" not in lines and "root" not in lines
    assert "CapEff:\t0000000000000000" in lines
    assert "CapBnd:\t0000000000000000" in lines or "CapBnd" in said
    assert "NoNewPrivs:\t1" in lines
    assert "SigIgn:\t0000000000000000" in lines
    assert "SOCKWORK_TESTBED" not in said
    assert sorted(line for line in lines if line.isdigit())[:4] == ["0", "1", "2", "3"]


def test_a_run_has_names_of_its_own() -> None:
    with contextlib.closing(Testbed()) as bed:
        opened = bed.opened(bed.begin("open", {"names": "192.0.2.9 nine.example\n"}))
        if "names" not in opened.capabilities:
            pytest.skip("this tier has no files of its own")
        run = bed.run({"name": "look-up", "argv": ["getent", "ahostsv4", "nine.example"]}).run
        assert wait(bed, "exited", run=run).facts["status"]["code"] == 0
        assert bed.output(run, "stdout").startswith(b"192.0.2.9 ")


def test_how_a_program_ends_is_told_by_status_or_signal(bed: Testbed) -> None:
    for script, status in (
        ("exit 7", {"kind": "exit", "code": 7}),
        ("kill -PIPE $$", {"kind": "signal", "signal": "SIGPIPE"}),
        ("exit 141", {"kind": "exit", "code": 141}),  # what a shell says of SIGPIPE
    ):
        run = bed.run({"name": "end", "argv": ["/bin/sh", "-c", script]}).run
        assert wait(bed, "exited", run=run).facts["status"] == status


def test_the_limit_of_descriptors_changes_while_a_program_runs(bed: Testbed) -> None:
    script = "read line; ulimit -n"
    started = bed.run({"name": "ask", "argv": ["/bin/sh", "-c", script], "stdin": "pipe"})
    assert bed.call("limit", {"run": started.run, "nofile": 17}).fields["previous"] > 17
    assert started.stdin is not None
    os.write(started.stdin, b"go\n")
    os.close(started.stdin)
    assert wait(bed, "exited", run=started.run).held
    assert bed.output(started.run, "stdout") == b"17\n"


def test_a_program_that_cannot_start_is_named(bed: Testbed) -> None:
    with pytest.raises(TestbedError, match="no-such-program: No such file or directory"):
        bed.run({"name": "none", "argv": ["no-such-program"]})


@pytest.mark.parametrize(
    "request_fields",
    [
        {"do": "explode"},
        {"do": "wait", "for": "christmas"},
        {"do": "wait", "for": "consumed", "host": "nowhere", "local": ["a", 1], "remote": ["b", 2]},
        {"do": "run", "argv": []},
        {"do": "run", "argv": ["true"], "colour": "red"},
        {"do": "rule", "match": {"flags": "FINN"}, "action": "drop"},
        {"do": "signal", "run": 99, "signal": "SIGTERM"},
        {"do": "inject", "kind": "frame", "from": "peer", "to": "target", "bytes": "?"},
    ],
)
def test_a_bad_request_is_refused_and_the_testbed_lives(
    bed: Testbed, request_fields: dict[str, object]
) -> None:
    verb = str(request_fields.pop("do"))
    with pytest.raises(TestbedError):
        bed.call(verb, request_fields)
    assert bed.call("stats").fields["lost"] == 0


def test_three_hosts_share_one_lan() -> None:
    with contextlib.closing(Testbed()) as bed:
        opened = bed.opened(bed.begin("open", {"hosts": ["target", "peer", "third"]}))
        if "link" not in opened.capabilities:
            pytest.skip("this tier has no link")
        start(bed, ECHO)
        with connect(bed, "peer") as one, connect(bed, "third") as two:
            assert one.getsockname()[0] == "192.0.2.2"
            assert two.getsockname()[0] == "192.0.2.3"
            two.sendall(b"third")
            assert two.recv(5) == b"third"


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = {int(child) for child in task.read_text().split()}
                waiting += list(children - found)
                found |= children
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, "close"])
def test_nothing_is_left_however_it_ends(how: signal.Signals | str) -> None:
    bed = Testbed()
    opened = bed.opened(bed.begin("open"))
    if "link" not in opened.capabilities:
        pytest.skip("this tier has no link")
    script = "setsid sh -c 'trap \"\" TERM HUP INT; while :; do :; done' & exec sleep 1000"
    bed.run({"name": "stubborn", "argv": ["/bin/sh", "-c", script]})
    pid = bed._process.pid
    family = {os.pidfd_open(child) for child in descendants(pid)}
    assert len(family) >= 3
    if how == "close":
        bed.close()
    else:
        os.kill(pid, signal.Signals(how))
        bed._process.wait(10)
    for descriptor in family:  # a pidfd is readable once its process has ended
        with socket_like(descriptor) as ended:
            assert ended


@contextlib.contextmanager
def socket_like(descriptor: int) -> Iterator[bool]:
    import select

    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    try:
        yield bool(poller.poll(10_000))
    finally:
        os.close(descriptor)


def test_probe_names_a_tier_and_a_remedy_for_what_is_missing() -> None:
    command = os.environ["SOCKWORK_TESTBED"]
    probe = json.loads(subprocess.check_output([command, "probe"], text=True))
    assert probe["tier"] in ("T0", "T1", "T2")
    assert probe["tiers"][probe["tier"]]["works"]
    for capability in probe["capabilities"]:
        assert capability["have"] != bool(capability["remedy"]), capability
