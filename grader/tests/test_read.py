"""`sockwork-testbed read` against tshark, on captures that other programs made.

tcpdump and dumpcap capture real sockets in a network namespace of their own; editcap, mergecap and
text2pcap turn that into the other formats.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sockwork.testbed import default_command

FIELDS = """frame.number frame.time_relative ip.src ipv6.src ip.dst ipv6.dst tcp.srcport udp.srcport tcp.dstport
udp.dstport tcp.flags tcp.seq_raw tcp.ack_raw tcp.seq tcp.ack tcp.len udp.length tcp.window_size_value
tcp.checksum.status udp.checksum.status tcp.options.mss_val tcp.options.wscale.shift tcp.options.timestamp.tsval
icmp.type icmpv6.type"""
BITS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ECE": 64, "CWR": 128}
TALK = r"""
import socket
RESET = b"\1\0\0\0\0\0\0\0"
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    listener = socket.create_server((address, 7300), family=family)
    for ending in ("client", "server", "reset", "unread", "bulk"):
        client = socket.create_connection((address, 7300))
        server, _ = listener.accept()
        client.sendall(b"hello")
        if ending != "unread":
            server.recv(5)
        if ending == "bulk":
            server.sendall(bytes(50000))
            server.shutdown(socket.SHUT_WR)
            while client.recv(9999):
                pass
        if ending == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        for end in (client, server) if ending in ("client", "reset") else (server, client):
            end.close()
    listener.close()
    with socket.socket(family) as client:
        client.connect_ex((address, 7300))
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"anyone?", (address, 7301))
"""
# The rings have a place of the largest size for each packet, hence the large buffers. A capture is
# complete when the last datagram was seen.
CAPTURE = r"""
set -e
ip link set lo up
tcpdump -i lo -B 32768 --immediate-mode -U -w ethernet.pcap 2>ready.1 & one=$!
tcpdump -i any -y LINUX_SLL -s 65535 -B 32768 --immediate-mode --time-stamp-precision=nano -U -w cooked.pcap 2>ready.2 & two=$!
tcpdump -i any -y LINUX_SLL2 -B 32768 --immediate-mode -s 84 -U -w cut.pcap 2>ready.3 & three=$!
dumpcap -q -B 32 -i lo -i any -w both.pcapng 2>ready.4 & four=$!
await() { tries=0; until "$@"; do tries=$((tries + 1)); [ $tries -lt 200 ] || exit 1; sleep 0.05; done; }
await grep -q "listening on" ready.1
await grep -q "listening on" ready.2
await grep -q "listening on" ready.3
await grep -q "File:" ready.4
/usr/bin/python3 talk.py
/usr/bin/python3 -c 'import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b"the last datagram", ("127.0.0.1", 9))'
await grep -q "the last datagram" ethernet.pcap
await grep -q "the last datagram" cooked.pcap
await grep -q "the last datagram" cut.pcap
await grep -q "the last datagram" both.pcapng
kill -INT $one $two $three $four
wait
"""


def read(path: Path, *words: str) -> list[dict[str, Any]]:
    done = subprocess.run([default_command(), "read", path, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def packets(path: Path) -> list[dict[str, Any]]:
    return [record["packet"] for record in read(path) if record["kind"] == "packet"]


def run(*argv: str | Path) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("tcpdump", "dumpcap", "tshark", "editcap", "mergecap", "text2pcap"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    if os.geteuid() != 0:
        pytest.skip("needs root to capture")
    folder = tmp_path_factory.mktemp("captures")
    folder.chmod(0o777)  # tcpdump writes as another user
    (folder / "talk.py").write_text(TALK)
    (folder / "capture.sh").write_text(CAPTURE)
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "capture.sh"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    make_others(folder)
    return folder


def make_others(folder: Path) -> None:
    """The same packets in the formats no program here captures in."""
    ethernet = folder / "ethernet.pcap"
    run("editcap", "-F", "pcapng", ethernet, folder / "blocks.pcapng")
    run("editcap", "-F", "nsecpcap", ethernet, folder / "nanoseconds.pcap")
    run(
        "mergecap", "-F", "pcapng", "-w", folder / "merged.pcapng", ethernet, folder / "cooked.pcap"
    )
    frames = frames_of(ethernet)
    inner = [frame[14:] for frame in frames]
    families = [frame[12:14] for frame in frames]
    tag = bytes.fromhex("8100002a")
    write(folder / "vlan.pcap", 1, [f[:12] + tag + f[12:] for f in frames])
    outer = bytes.fromhex("88a80007")
    write(folder / "qinq.pcap", 1, [f[:12] + outer + tag + f[12:] for f in frames])
    write(folder / "raw.pcap", 101, inner)
    bsd = [2 if family == b"\x08\0" else 30 for family in families]
    headed = list(zip(bsd, inner))
    write(folder / "null-little.pcap", 0, [struct.pack("<I", n) + ip for n, ip in headed])
    write(folder / "null-big.pcap", 0, [struct.pack(">I", n) + ip for n, ip in headed], ">")
    write(folder / "loop.pcap", 108, [struct.pack(">I", n) + ip for n, ip in headed])
    for link, family in ((228, b"\x08\0"), (229, b"\x86\xdd")):
        write(folder / f"raw-{link}.pcap", link, [f[14:] for f in frames if f[12:14] == family])
    text = "".join(f"000000 {frame.hex(' ')}\n" for frame in frames)
    (folder / "hex.txt").write_text(text)
    run("text2pcap", "-q", folder / "hex.txt", folder / "text.pcapng")


def frames_of(path: Path) -> list[bytes]:
    """Of a little-endian pcap file, read without the code under test."""
    data, at, found = path.read_bytes(), 24, []
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        found.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    return found


def write(path: Path, link: int, frames: Sequence[bytes], order: str = "<") -> None:
    data = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for i, frame in enumerate(frames):
        data += struct.pack(order + "IIII", 1000, i, len(frame), len(frame)) + frame
    path.write_bytes(data)


def by_tshark(path: Path) -> list[dict[str, str]]:
    names = FIELDS.split()
    checks = [word for kind in ("tcp", "udp") for word in ("-o", f"{kind}.check_checksum:TRUE")]
    fields = [word for name in names for word in ("-e", name)]
    argv = ["tshark", "-n", "-r", str(path), *checks, "-o", "tcp.analyze_sequence_numbers:TRUE"]
    shown = ["-T", "fields", "-E", "separator=;", "-E", "occurrence=f", *fields]
    done = subprocess.run([*argv, *shown], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [dict(zip(names, line.split(";"))) for line in done.stdout.splitlines()]


def number(text: str) -> int:
    return int(text, 0) if text else 0


def theirs(fields: dict[str, str]) -> dict[str, Any]:
    error = fields["icmp.type"] or fields["icmpv6.type"]  # the other fields are of what it quotes
    if error:
        fields = {name: fields[name] if "frame" in name else "" for name in fields}
    tcp = bool(fields["tcp.srcport"])
    udp = bool(fields["udp.srcport"])
    status = fields["tcp.checksum.status"] or fields["udp.checksum.status"]
    return {
        "number": int(fields["frame.number"]),
        "time": int(Decimal(fields["frame.time_relative"]).scaleb(9)),
        "source": (fields["ip.src"] or fields["ipv6.src"]) if tcp or udp else "",
        "destination": (fields["ip.dst"] or fields["ipv6.dst"]) if tcp or udp else "",
        "ports": [number(fields[f"{'tcp' if tcp else 'udp'}.{end}port"]) for end in ("src", "dst")],
        "flags": number(fields["tcp.flags"]) & 0xFF,
        "seq_raw": number(fields["tcp.seq_raw"]),
        "ack_raw": number(fields["tcp.ack_raw"]),
        "seq": number(fields["tcp.seq"]),
        "ack": number(fields["tcp.ack"]),
        "length": number(fields["tcp.len"])
        if tcp
        else number(fields["udp.length"]) - 8
        if udp
        else 0,
        "window": number(fields["tcp.window_size_value"]),
        # 0 bad, 1 good, 2 not verified: tshark too cannot check what was not captured whole.
        "checksum": {"0": "bad", "1": "ok"}.get(status, "absent"),
        "mss": number(fields["tcp.options.mss_val"]),
        "scale": number(fields["tcp.options.wscale.shift"]),
        "stamp": number(fields["tcp.options.timestamp.tsval"]),
    }


def count_from_the_first(expected: list[dict[str, Any]]) -> None:
    """tshark gives the first packet of a side that sent no SYN the number 1, we give it 0."""
    opened = set()
    for packet in expected:
        side = (packet["source"], packet["destination"], *packet["ports"])
        if packet["flags"] & BITS["SYN"]:
            opened.add(side)
        elif packet["flags"] and side not in opened:
            packet["seq"] -= 1


def ours(packet: dict[str, Any]) -> dict[str, object]:
    tcp = packet["transport"] == "tcp"
    ported = packet["transport"] in ("tcp", "udp")
    options = packet.get("options", {})
    names = ("flags", "seq_raw", "ack_raw", "seq", "ack", "window")
    shown: dict[str, object] = {name: packet.get(name, 0) for name in names}
    return shown | {
        "number": packet["number"],
        "time": packet["time"],
        "source": packet["source"][0] if ported else "",
        "destination": packet["destination"][0] if ported else "",
        "ports": [packet["source"][1], packet["destination"][1]],
        "flags": sum(BITS[name] for name in packet["flags"]) if tcp else 0,
        "length": packet["length"] if ported else 0,
        "checksum": packet["checksum"] if ported else "absent",
        "mss": options.get("mss", 0),
        "scale": options.get("window_scale", 0),
        "stamp": options.get("timestamps", [0])[0],
    }


@pytest.mark.parametrize(
    "name",
    """ethernet.pcap cooked.pcap cut.pcap both.pcapng blocks.pcapng nanoseconds.pcap merged.pcapng
    vlan.pcap qinq.pcap raw.pcap null-little.pcap null-big.pcap loop.pcap raw-228.pcap raw-229.pcap
    text.pcapng""".split(),
)
def test_packets_are_those_tshark_decodes(captures: Path, name: str) -> None:
    path = captures / name
    expected = [theirs(fields) for fields in by_tshark(path)]
    assert len(expected) >= 30
    count_from_the_first(expected)
    # tshark counts from the first frame of the file, which need not be the earliest.
    earliest = min(packet["time"] for packet in expected)
    for packet in expected:
        packet["time"] -= earliest
    found = [ours(packet) for packet in packets(path)]
    assert len(found) == len(expected)
    for mine, other in zip(found, expected):
        assert mine == other


def test_the_states_are_those_of_each_ending(captures: Path) -> None:
    walks: dict[tuple[str, int, int], list[str]] = {}
    for record in read(captures / "ethernet.pcap"):
        if record["kind"] == "state":
            state = record["state"]
            key = (state["host"], state["local"][1], state["remote"][1])
            walks.setdefault(key, []).append(state["to"])
    first = ["FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"]
    second = ["CLOSE_WAIT", "LAST_ACK", "CLOSED"]
    opened = ["SYN_RECV", "ESTABLISHED"]
    endings = [second, first, ["CLOSED"], ["CLOSED"], first]
    for host in ("127.0.0.1", "::1"):
        served = [walk for key, walk in walks.items() if key[0] == host and key[1] == 7300]
        assert served == [opened + ending for ending in endings]
        clients = [walk for key, walk in walks.items() if key[0] == host and key[1] != 7300]
        others = [first, second, ["CLOSED"], ["CLOSED"], second]
        assert clients == [["SYN_SENT", "ESTABLISHED"] + end for end in others] + [
            ["SYN_SENT", "CLOSED"]
        ]


def test_the_trace_is_numbered_and_names_its_hosts(captures: Path) -> None:
    records = read(captures / "ethernet.pcap")
    assert [record["n"] for record in records] == list(range(len(records)))
    head = records[0]["note"]
    assert head["text"] == "trace" and head["data"]["version"] == 1
    assert head["data"]["hosts"] == {"127.0.0.1": {"inet": "127.0.0.1"}, "::1": {"inet6": "::1"}}
    for record in records[1:]:
        assert set(record) == {"n", "time", "kind", "source", record["kind"]}


def test_a_limit_is_kept_and_announced(captures: Path) -> None:
    records = read(captures / "ethernet.pcap", "--limit", "7")
    assert sum(record["kind"] == "packet" for record in records) == 7
    assert records[-1]["note"]["text"] == "only the first 7 packets were read"


@pytest.mark.parametrize("name", ["ethernet.pcap", "both.pcapng"])
def test_a_damaged_file_is_read_as_far_as_it_is_sound(
    captures: Path, tmp_path: Path, name: str
) -> None:
    whole = (captures / name).read_bytes()
    damaged = tmp_path / name
    damaged.write_bytes(whole[: len(whole) // 2 + 3])
    done = subprocess.run([default_command(), "read", damaged], capture_output=True, text=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    count = sum(record["kind"] == "packet" for record in records)
    assert 10 < count < len(packets(captures / name))
    told = records[-1]["note"]["text"]
    assert told.startswith("the capture is damaged at byte ") and told.endswith("is cut short")
    assert done.returncode == 0 and done.stderr == f"sockwork-testbed: {damaged}: {told}\n"


@pytest.mark.parametrize("content", [b"", b"abc", b"#!/bin/sh\necho\n", bytes(1000), None])
def test_what_is_no_capture_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    done = subprocess.run([default_command(), "read", path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"sockwork-testbed: {path}: ") and done.stderr.count("\n") == 1
