"""Bytes in words, sanitizer reports, ports and packet matches: what needs no testbed."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from toys import SANITIZERS
from sockwork.facts import Packet, Row, address_text
from sockwork.harness import sanitizer
from sockwork.harness.explain import reachable
from sockwork.harness.ports import Ports, swapped
from sockwork.harness.rules import as_match, in_words, matches
from sockwork.harness.text import amount, byte_diff, difference, first_difference, quoted


def test_quoted_shows_every_byte() -> None:
    assert quoted(b'a"\\\n\r\t\0\x01\xff') == '"a\\"\\\\\\n\\r\\t\\0\\x01\\xff"'
    assert quoted(b"abcdef", limit=3) == '"abc"…'
    assert quoted(b"") == '""'


def test_amount() -> None:
    assert [amount(n) for n in (0, 1, 1234)] == ["0 bytes", "1 byte", "1,234 bytes"]


@pytest.mark.parametrize(
    ("expected", "got", "at", "clause"),
    [
        (b"hello", b"hellO", 4, 'byte 4 is "O" instead of "o"'),
        (b"hello", b"hel", 3, "only 3 of 5 bytes came"),
        (b"hel", b"hello", 3, "2 bytes came beyond the 3 expected"),
        (b"\n", b"\r", 0, 'byte 0 is "\\r" instead of "\\n"'),
    ],
)
def test_difference(expected: bytes, got: bytes, at: int, clause: str) -> None:
    assert first_difference(expected, got) == at
    assert difference(expected, got) == clause


@pytest.mark.parametrize("at", [0, 1, 15, 16, 17, 5000])
def test_the_caret_points_at_the_first_difference(at: int) -> None:
    expected = bytes(random.Random(at).randbytes(6000))
    got = expected[:at] + bytes([expected[at] ^ 0xFF]) + expected[at + 1 :]
    wanted, came, caret = byte_diff(expected, got)
    column = caret.index("^")
    assert f"byte {at:,}" in caret
    assert wanted[:column] == came[:column].replace("got     ", "expected")
    assert wanted[column:] != came[column:]
    assert max(map(len, (wanted, came))) < 300


def test_first_difference_of_equal_beginnings_is_the_shorter_length() -> None:
    assert first_difference(b"abc", b"abc") == 3
    assert first_difference(b"", b"abc") == 0


@pytest.mark.parametrize(
    ("mode", "tool", "kind"),
    [
        ("overflows", "AddressSanitizer", "heap-buffer-overflow"),
        (
            "undefined",
            "UndefinedBehaviorSanitizer",
            "signed integer overflow: 2147483647 + 1 cannot be represented in type 'int'",
        ),
    ],
)
def test_a_real_report_is_read(toys: Path, mode: str, tool: str, kind: str) -> None:
    """The report of a program that really has the error, with the line of its own source."""
    source = (Path(__file__).parent / "programs" / "toy.c").read_text().splitlines()
    text = {"overflows": "four[4 + count] = 'x'", "undefined": "number = number + 1"}[mode]
    line = next(n for n, content in enumerate(source, 1) if text in content)
    environment = {**SANITIZERS, "MODE": mode, "PROGRAM": "echo_client"}
    argv = [str(toys / "toy"), "127.0.0.1", "9"]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True)
    report = sanitizer.find(ended.stderr)
    assert report
    assert (report.tool, report.kind, report.source) == (tool, kind, f"toy.c:{line}")


def test_frames_of_others_are_not_the_source() -> None:
    report = sanitizer.find(
        "==2==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000010 (pc 0x55d bp 0x1)\n"
        "    #0 0x1 in memcpy ../sysdeps/x86_64/multiarch/memmove.S:370\n"
        "    #1 0x2 in std::copy /usr/include/c++/12/bits/stl_algo.h:384\n"
        "    #2 0x3 in sock::read_exactly /kit/common/include/sock/stream.h:40\n"
        "    #3 0x4 in serve(int) /src/echo_server.cpp:71:9\n"
        "    #4 0x5 in __libc_start_main csu/libc-start.c:360\n"
        "\n"
        "freed by thread T0 here:\n"
        "    #0 0x6 in main /src/echo_server.cpp:12\n"
    )
    assert report
    assert (report.kind, report.source) == ("SEGV", "echo_server.cpp:71")
    assert all("echo_server.cpp:71" in line for line in report.lines[1:])


def test_other_words_on_stderr_are_no_report() -> None:
    assert sanitizer.find("echo_server: accept: Bad file descriptor\nAddressSanitizer\n") is None


def test_ports_tell_byte_orders_apart() -> None:
    for own_hosts in (True, False):
        ports = Ports(random.Random(1), own_hosts=own_hosts)
        taken = [ports.take() for _ in range(200)]
        assert len({*taken, *map(swapped, taken)}) == 400
        assert all(1024 <= port <= 65535 for port in (*taken, *map(swapped, taken)))
    assert swapped(0x1234) == 0x3412


def test_the_same_seed_gives_the_same_ports() -> None:
    first, second = (Ports(random.Random("1:lab:check"), own_hosts=True) for _ in range(2))
    assert [first.take() for _ in range(9)] == [second.take() for _ in range(9)]


PACKET = Packet(
    n=1,
    time=0,
    from_="target",
    to="peer",
    family="inet",
    transport="tcp",
    source=("192.0.2.1", 7000),
    destination=("192.0.2.2", 40000),
    flags=frozenset({"FIN", "ACK"}),
    seq=1,
    ack=1,
    window=100,
    length=5,
    fate="forwarded",
    rule=None,
    checksum="ok",
    problem=None,
    summary="",
)


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        ({}, True),
        ({"from_": "target", "to": "peer", "transport": "tcp", "family": "inet"}, True),
        ({"from_": "peer"}, False),
        ({"transport": "udp"}, False),
        ({"flags": "FIN"}, True),
        ({"flags": ("FIN", "ACK")}, True),
        ({"flags": ("FIN", "PSH")}, False),
        ({"without": "RST"}, True),
        ({"without": "ACK"}, False),
        ({"min_length": 5, "max_length": 5}, True),
        ({"min_length": 6}, False),
        ({"max_length": 4}, False),
        ({"source_port": 7000, "destination_port": 40000}, True),
        ({"source_port": 40000}, False),
    ],
)
def test_match(words: dict[str, object], fits: bool) -> None:
    assert matches(PACKET, words) is fits


def test_match_in_the_words_of_the_protocol() -> None:
    words = {"from_": "peer", "flags": "SYN", "without": ("ACK",), "min_length": 1}
    assert as_match(words) == {
        "transport": "tcp",
        "from": "peer",
        "flags": ["SYN"],
        "without": ("ACK",),
        "min_length": 1,
    }
    assert in_words(words) == "from peer, flags SYN, without ACK, min length 1"


ROW = Row(
    transport="tcp",
    family="inet",
    local=("192.0.2.1", 7000),
    remote=("0.0.0.0", 0),
    state="LISTEN",
    rqueue=1,
    wqueue=128,
    inode=1,
    uid=0,
    timer="none",
    timer_ms=0,
    retransmits=0,
    owners=(5,),
    mapped=False,
)


@pytest.mark.parametrize(
    ("local", "wanted", "there"),
    [
        (("192.0.2.1", 7000), ("192.0.2.1", 7000), True),
        (("0.0.0.0", 7000), ("192.0.2.1", 7000), True),
        (("::", 7000), ("192.0.2.1", 7000), True),
        (("::", 7000), ("2001:db8::1", 7000), True),
        (("192.0.2.1", 41000), ("192.0.2.1", 0), True),
        (("0.0.0.0", 7000), ("2001:db8::1", 7000), False),
        (("127.0.0.1", 7000), ("192.0.2.1", 7000), False),
        (("192.0.2.1", 7001), ("192.0.2.1", 7000), False),
    ],
)
def test_reachable(local: tuple[str, int], wanted: tuple[str, int], there: bool) -> None:
    assert reachable(replace(ROW, local=local), wanted) is there
    assert not reachable(replace(ROW, local=local, state="ESTABLISHED"), wanted)


def test_rows_in_words() -> None:
    assert ROW.text == "192.0.2.1:7000  LISTEN  1 not accepted, backlog 128"
    connected = replace(ROW, remote=("192.0.2.2", 4), state="CLOSE_WAIT", wqueue=0)
    assert connected.text == "192.0.2.1:7000 -> 192.0.2.2:4  CLOSE_WAIT  Recv-Q 1, Send-Q 0"
    assert address_text(("2001:db8::1", 7)) == "[2001:db8::1]:7"
