"""`sockwork observe`: programs run for real, captures made by others, and text of strangers."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sockwork import paths
from sockwork.cli import observe as cli_observe
from sockwork.figure import lay_out
from sockwork.observe import capture, rules, session, view
from sockwork.observe.session import Observed, Plan, Session
from sockwork.observe.timeline import BURST, EACH, Timeline
from sockwork.report.style import Style
from sockwork.testbed import Testbed, TestbedError
from sockwork.trace import Call, Note, Packet, ProcessEvent, State, Trace

PLAIN = Style(colour=False, unicode=True, width=80)
ECHO = """
import socket
listener = socket.create_server(("0.0.0.0", 7000))
end, _ = listener.accept()
while data := end.recv(4096):
    end.sendall(data)
"""
TALK = 'printf "hello\\nworld\\n" | nc -N $TARGET 7000'
LEFT_TO_RIGHT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The current folder of the programs, which run as another user."""
    tmp_path.chmod(0o755)
    (tmp_path / "echo.py").write_text(ECHO)
    return tmp_path


def run(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line in `folder`."""
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-X", "utf8", "-m", "sockwork", "observe", *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(paths.ROOT / "grader"), "LC_ALL": "C.UTF-8", **more}


def observed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, argv: Sequence[str], **wanted: Any
) -> tuple[Observed, list[str]]:
    """What a session saw, and the lines that it showed."""
    monkeypatch.chdir(folder)
    usual: dict[str, Any] = {"peer": None, "rules": (), "seconds": 30.0, "tier": "auto"}
    fields = {**usual, "quiet": False, "all_calls": False}
    lines: list[str] = []
    with closing(Testbed()) as testbed:
        plan = Plan(argv, **{**fields, **wanted})
        return Session(testbed, plan, PLAIN, lines.extend).observe(), lines


# --- rules -------------------------------------------------------------------------------------


def test_a_rule_is_what_the_testbed_understands() -> None:
    assert rules.parse("drop from=target flags=fin,ACK nth=1") == {
        "action": "drop",
        "match": {"transport": "tcp", "from": "target", "flags": ["FIN", "ACK"], "nth": 1},
    }
    made = rules.parse("delay transport=udp ms=20 times=3")
    assert made == {"action": "delay", "match": {"transport": "udp"}, "ms": 20, "times": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no action ''; there are drop, hold, delay, duplicate, reorder, corrupt"),
        ("drp", "no action drp - did you mean drop?"),
        ("drop form=target", "no field form - did you mean from?"),
        ("drop from=traget", "no from called traget - did you mean target?"),
        ("drop flags=FINN", "no flags called FINN - did you mean FIN?"),
        ("drop flags=", "flags needs a value, as in flags=FIN"),
        ("drop nth=0", "nth=0 is no whole number from 1 to 1000000000"),
        ("drop nth=²", "nth=² is no whole number from 1 to 1000000000"),
        ("drop source_port=70000", "source_port=70000 is no whole number from 0 to 65535"),
        ("drop ms=5", "drop takes no ms"),
        ("delay", "delay needs ms=, the milliseconds to wait"),
        ("drop \x1b[2J=1", "no field \\x1b[2J"),
    ],
)
def test_a_wrong_word_of_a_rule_is_named(text: str, said: str) -> None:
    with pytest.raises(rules.RuleError) as error:
        rules.parse(text)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    "text",
    [
        "drop flags=RST",
        "hold from=peer",
        "delay ms=1",
        "duplicate copies=2",
        "reorder behind=2",
        "corrupt offset=1 xor=7 min_length=1 max_length=9 source_port=1 destination_port=2",
        "drop without=SYN to=peer family=inet6 times=1",
    ],
)
def test_the_testbed_takes_every_rule(text: str) -> None:
    with closing(Testbed()) as testbed:
        opened = testbed.opened(testbed.begin("open"))
        if "link" not in opened.capabilities:
            pytest.skip("needs a link")
        assert testbed.call("rule", rules.parse(text)).fields["rule"] == 1


# --- the trace while it grows ------------------------------------------------------------------


def test_records_are_given_in_the_order_in_which_they_became_known(folder: Path) -> None:
    with closing(Testbed()) as testbed:
        opened = testbed.opened(testbed.begin("open"))
        wanted = {"directory": str(folder), "trace": True}
        server = testbed.run({"name": "s", "argv": ["python3", "echo.py"], **wanted})
        wait(testbed, "quiescent", server.run, settle_ms=100)
        env = {"TARGET": opened.hosts["target"].inet}
        talk = {"name": "c", "argv": ["sh", "-c", TALK], "host": "peer", "env": env, **wanted}
        client = testbed.run(talk)
        lines: list[dict[str, Any]] = []
        for until in (server.run, client.run):
            wait(testbed, "exited", until)
            lines += follow(testbed, len(lines))
        assert [line["n"] for line in lines] == list(range(1, len(lines) + 1))
        # Asked again from the middle, the same comes, with the same numbers of the connection.
        middle = next(n for n, line in enumerate(lines) if line["kind"] == "packet") + 3
        assert list(follow(testbed, middle)) == lines[middle:]
        whole = [json.loads(line) for line in testbed.attachment("trace").splitlines()[1:]]
    assert {line["kind"] for line in lines} >= {"call", "process"}
    assert "state" not in {line["kind"] for line in lines}
    told = [without_number(line) for line in lines]
    kept = [without_number(line) for line in whole if line["kind"] != "state"]
    assert sorted(told) == sorted(kept)


def wait(testbed: Testbed, what: str, run: int, **fields: object) -> None:
    assert testbed.call("wait", {"for": what, "run": run, "deadline": 15, **fields}).fields["held"]


def follow(testbed: Testbed, after: int) -> Iterator[dict[str, Any]]:
    while True:
        reply = testbed.call("trace", {"after": after})
        yield from map(json.loads, reply.attached().splitlines())
        after = reply.fields["next"]
        if after == reply.fields["known"]:
            return


def without_number(line: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in line.items() if name != "n"}, sort_keys=True)


def test_a_place_beyond_the_end_gives_nothing() -> None:
    with closing(Testbed()) as testbed:
        testbed.opened(testbed.begin("open"))
        reply = testbed.call("trace", {"after": 1 << 60})
        assert (reply.attached(), reply.fields["next"]) == (b"", reply.fields["known"])
        with pytest.raises(TestbedError):
            testbed.call("trace", {"after": "x"})


def test_a_bulk_transfer_ends_in_the_trace_though_it_does_not_fit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CAPTURE", 300_000)
    monkeypatch.setattr(session, "RECORDS", 1000)
    seen, _ = observed(
        monkeypatch,
        folder,
        ["socat", "-u", "TCP-LISTEN:7000", "OPEN:/dev/null"],
        peer="head -c 8000000 /dev/zero | socat -u - TCP:$TARGET:7000",
        quiet=True,
    )
    trace = Trace.parse(seen.trace)
    if not trace.of(Packet):
        pytest.skip("needs a link")
    assert seen.stats["lost"] == 0
    assert seen.stats["not_captured"] > 5000 and seen.stats["capture_truncated"]
    assert seen.stats["not_traced"] > 0
    assert len(seen.capture or b"") <= 300_000 + (1 << 20)
    assert any("the trace is full" in note.text for note in trace.of(Note))
    # The ends are there: both FINs, what acknowledges them, and the states that follow.
    fins = {each.from_ for each in trace.of(Packet) if "FIN" in each.flags}
    assert fins == {"target", "peer"}
    assert {each.to for each in trace.of(State)} >= {"LAST_ACK", "TIME_WAIT", "CLOSED"}
    assert {each.pid for each in trace.of(ProcessEvent) if each.event == "exit"}
    assert any(call.name == "read" and call.result == 0 for call in trace.of(Call))
    remarks = " ".join(view.remarks(trace, seen.stats, ()))
    assert "the capture is full" in remarks and "the trace: it is full" in remarks


# --- programs ----------------------------------------------------------------------------------


def test_both_programs_are_seen_and_the_figure_is_of_their_talk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, lines = observed(monkeypatch, folder, ["python3", "echo.py"], peer=TALK)
    trace = Trace.parse(seen.trace)
    assert [each.status.code for each in seen.programs] == [0, 0]
    assert seen.programs[1].output["stdout"] == b"hello\nworld\n"
    assert {call.run for call in trace.of(Call)} == {1, 2}
    shown = "\n".join(lines)
    for part in ("target starts python3 echo.py", "accept4(3) = ", "peer   | hello"):
        assert part in shown
    found = view.talks(trace)
    assert len(found) == 1
    layout = lay_out(trace, found[0].conversation)
    said = {side: [t.text for row in layout.rows for t in row.cell(side).texts]
            for side in ("client", "server")}  # fmt: skip
    assert "exits with status 0" in said["client"] and "exits with status 0" in said["server"]
    assert "recv(4) = 12" in said["server"]
    if trace.of(Packet):
        assert (found[0].size, seen.stats["lost"]) == (24, 0)


def test_the_peer_waits_for_a_slow_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "import time; t = time.process_time()\nwhile time.process_time() < t + 1: pass\n"
    (folder / "slow.py").write_text(slow + ECHO)
    seen, _ = observed(monkeypatch, folder, ["python3", "slow.py"], peer=TALK, quiet=True)
    assert seen.programs[1].output["stdout"] == b"hello\nworld\n"


def test_a_server_of_datagrams_rests_and_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["socat", "UDP-RECVFROM:7000,fork", "PIPE"]
    peer = "printf ping | socat -t 2 - UDP:$TARGET:7000"
    seen, lines = observed(monkeypatch, folder, argv, peer=peer)
    assert seen.programs[1].output["stdout"] == b"ping"
    assert seen.programs[0].stopped and seen.programs[0].status.kind != "running"
    assert any("SIGTERM: the observation ends" in line for line in lines)


def test_without_a_listener_the_peer_is_not_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, _ = observed(monkeypatch, folder, ["true"], peer="true", quiet=True)
    assert [each.host for each in seen.programs] == ["target"]


def test_a_program_that_ignores_sigterm_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_MERCY", 0.5)
    argv = ["python3", "-c", IGNORE]
    seen, _ = observed(monkeypatch, folder, argv, seconds=1.0, quiet=True)
    assert seen.programs[0].status.kind == "running"
    assert "killed" in next(view.programs(seen.programs, PLAIN))


IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"


def test_a_rule_changes_what_happens(folder: Path) -> None:
    done = run(
        folder,
        "--rule", "drop from=peer flags=FIN nth=1",
        "--rule", "drop flags=RST",
        "--quiet",
        "--peer", TALK, "--", "python3", "echo.py",
    )  # fmt: skip
    if done.returncode == 3:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "dropped by rule 1" in done.stdout and "sent again" in done.stdout
    assert "no packet that was kept fitted rule 2: drop flags=RST" in done.stdout


def test_the_trace_alone_stands_on_standard_output(folder: Path) -> None:
    pcap = folder / "out.pcap"
    words = ["--json", "-", "--pcap", str(pcap), "--peer", TALK, "--", "python3", "echo.py"]
    done = run(folder, *words)
    assert done.returncode == 0, done.stderr
    trace = Trace.parse(done.stdout.encode())
    assert trace.of(Call)
    assert "conversations" in done.stderr
    if trace.of(Packet):
        read = run(folder, str(pcap))
        assert read.returncode == 0 and "FIN" in read.stdout


def test_lines_are_plain_and_no_wider_than_the_terminal(folder: Path) -> None:
    (folder / "evil.py").write_text(
        "import sys\nprint('\\x1b[2J\\x1b]0;x\\x07\\u202e' + 'x' * 500)\n"
        "sys.stderr.buffer.write(bytes(range(256)))\n" + ECHO
    )
    done = run(folder, "--peer", TALK, "--", "python3", "evil.py", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert not LEFT_TO_RIGHT.search(done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "target | \\x1b[2J" in done.stdout and "target ! " in done.stdout


def test_without_a_link_the_calls_of_both_are_shown(folder: Path) -> None:
    done = run(folder, "--tier", "T0", "--quiet", "--peer", TALK, "--", "python3", "echo.py")
    assert done.returncode == 0, done.stderr
    assert "has no link: only calls are seen, no packets" in done.stdout
    assert "client (peer)" in done.stdout and "no packets seen" in done.stdout
    refused = run(folder, "--tier", "T0", "--rule", "drop", "--", "true")
    assert refused.returncode == 3 and "rules need a link" in refused.stderr


def test_ctrl_c_ends_it_in_order(folder: Path) -> None:
    with subprocess.Popen(
        command("--", "nc", "-l", "7000"),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout
        seen = []
        for line in started.stdout:
            seen.append(line)
            if "listen(" in line:
                started.send_signal(signal.SIGINT)
                break
        seen += started.stdout.readlines()
        assert started.wait(30) == 130
    text = "".join(seen)
    assert "killed by SIGTERM (SIGTERM came from here)" in text
    assert "client" in text and "server" in text


def test_a_path_below_the_current_folder_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert cli_observe._from_here([str(folder / "a" / "b"), "x"]) == ["./a/b", "x"]
    assert cli_observe._from_here(["/usr/bin/true"]) == ["/usr/bin/true"]


# --- what is shown while it runs ---------------------------------------------------------------


def note_lines(texts: Sequence[str]) -> bytes:
    made = [
        {"n": n, "time": n, "kind": "note", "source": "observed", "note": {"text": text}}
        for n, text in enumerate(texts)
    ]
    return "\n".join(map(json.dumps, made)).encode()


def test_what_comes_too_fast_is_counted() -> None:
    timeline = Timeline(PLAIN, {1: "target"}, all_calls=False)
    shown = list(timeline.records(note_lines([str(n) for n in range(2 * BURST)]), skipped=7))
    assert len(shown) == BURST + 2
    assert f"{BURST - 1 + 7:,} more went by too fast" in shown[BURST]
    later = list(timeline.records(note_lines([str(n) for n in range(1000)]), skipped=0))
    assert len(later) == EACH + 2


def test_the_same_line_again_is_counted() -> None:
    timeline = Timeline(PLAIN, {1: "target"}, all_calls=False)
    shown = list(timeline.records(note_lines(["a", "a", "a", "b"]), skipped=0))
    assert [line.split(maxsplit=1)[1] for line in shown] == [
        "note   a",
        "the same 2 times more ···",
        "note   b",
    ]


# --- captures ----------------------------------------------------------------------------------


def pcap(frames: Sequence[tuple[int, bytes]], link: int = 1) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)
    return head + b"".join(
        struct.pack("<IIII", when, 0, len(frame), len(frame)) + frame for when, frame in frames
    )


def ethernet(kind: int, payload: bytes, vlan: bool = False) -> bytes:
    tag = struct.pack(">HH", 0x8100, 5) if vlan else b""
    return bytes(12) + tag + struct.pack(">H", kind) + payload


def syn(family: int, back: bool = False) -> bytes:
    """A SYN from port 40000 to 7000, or the answer to it."""
    ports = (7000, 40000) if back else (40000, 7000)
    tcp = struct.pack(
        ">HHIIBBHHH", *ports, 1, 2 if back else 0, 0x50, 0x12 if back else 2, 99, 0, 0
    )
    if family == 6:
        ends = [bytes([0x20, 1, 13, 0xB8, *bytes(11), n]) for n in ((1, 2) if back else (2, 1))]
        return struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + b"".join(ends) + tcp
    ends = [bytes([192, 0, 2, n]) for n in ((1, 2) if back else (2, 1))]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0)
    return head + b"".join(ends) + tcp


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", ["ethernet", "vlan", "null", "raw"])
def test_a_capture_of_another_program_is_drawn(tmp_path: Path, family: int, kind: str) -> None:
    number = 0x86DD if family == 6 else 0x0800
    packets = [syn(family), syn(family, back=True)]
    made = {
        "ethernet": (1, lambda p: ethernet(number, p)),
        "vlan": (1, lambda p: ethernet(number, p, vlan=True)),
        "null": (0, lambda p: struct.pack("<I", 30 if family == 6 else 2) + p),
        "raw": (101, lambda p: p),
    }
    link, frame = made[kind]
    file = tmp_path / "a b.pcap"
    file.write_bytes(pcap([(n + 1, frame(packet)) for n, packet in enumerate(packets)], link))
    done = run(tmp_path, file.name)
    assert done.returncode == 0, done.stderr
    assert "#1 SYN" in done.stdout and "#2 SYN,ACK" in done.stdout
    assert "~ESTABLISHED" in done.stdout and "1 tcp" in done.stdout


def test_frames_without_addresses_and_times_that_go_back(tmp_path: Path) -> None:
    arp = ethernet(0x0806, bytes(28))
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap([(9, arp), (5, ethernet(0x0800, syn(4))), (3, b"\x00")]))
    trace = Trace.parse(capture.read(file).trace)
    assert sorted(each.time for each in trace.of(Packet)) == [0, 2_000_000_000, 6_000_000_000]
    assert trace.tier == "" and len(view.talks(trace)) == 1


def test_of_a_damaged_capture_the_sound_part_is_drawn(tmp_path: Path) -> None:
    whole = pcap([(1, ethernet(0x0800, syn(4))), (2, ethernet(0x0800, syn(4, back=True)))])
    (tmp_path / "cut.pcap").write_bytes(whole[:-10])
    done = run(tmp_path, "cut.pcap")
    assert done.returncode == 0
    assert "#1 SYN" in done.stdout and "a packet is cut short" in done.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "too short"), (b"no capture at all" * 9, "neither a pcap nor a pcapng file")],
)
def test_what_is_no_capture_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(content)
    done = run(tmp_path, "file")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


# --- the page ----------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_shows_hostile_text_as_text(folder: Path) -> None:
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}\x1b[2J\u202e"
    (folder / "evil.py").write_text(f"print({evil!r})\n" + ECHO)
    words = ["--html", "page.html", "--quiet", "--peer", f"echo '{evil}' | nc -N $TARGET 7000"]
    done = run(folder, *words, "--", "python3", "evil.py", evil)
    assert done.returncode == 0, done.stderr
    page = (folder / "page.html").read_text()
    tags = Tags()
    tags.feed(page)
    scripts = [each for tag, each in tags.found if tag == "script"]
    assert sum("type" not in each for each in scripts) == 1
    assert all(each.get("type") in (None, "application/json") for each in scripts)
    assert "img" not in {tag for tag, _ in tags.found}
    names = {name for _, each in tags.found for name in each}
    assert not [name for name in names if name.startswith("on") or name == "src"]
    assert not LEFT_TO_RIGHT.search(page)
    assert "&lt;script&gt;alert(1)" in page and "{{7*7}}" in page
    metas = {each.get("http-equiv"): each.get("content") for _, each in tags.found}
    policy = metas["Content-Security-Policy"]
    assert policy and policy.startswith("default-src 'none'")
    assert "<svg" in page and len(page) < 400_000
