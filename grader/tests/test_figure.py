"""The figure: golden pictures of eight stories, and what holds for any trace."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from sockwork.figure import Conversation, Deviation, Layout, conversations, lay_out
from sockwork.figure import player, svg, terminal
from sockwork.trace import STATES, Packet, Trace

FOLDER = Path(__file__).parent / "figure"
STORIES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
DEVIATIONS = {
    "reset-with-unread-data": Deviation("FIN", packet=8),
    "short-read": Deviation("the program reads until the newline", packet=6),
    "descriptor-leak": Deviation("close(5), then FIN", time=91_000_000),
}
HOSTILE = "</title></text><script>alert(1)</script>\"'&]]>\x1b[2J\u202e\ud800"


def story(name: str) -> Trace:
    return Trace.parse((FOLDER / f"{name}.jsonl").read_bytes())


def figure(name: str) -> Layout:
    return lay_out(story(name), deviation=DEVIATIONS.get(name))


def drawn(layout: Layout) -> list[str]:
    """Every picture of the layout that is markup."""
    return [svg.svg(layout), svg.table(layout), player.html(layout)]


# --- the stories -------------------------------------------------------------------------------


@pytest.mark.parametrize("unicode", [True, False], ids=["unicode", "ascii"])
@pytest.mark.parametrize("name", STORIES)
def test_the_figure_in_a_terminal_is_the_one_agreed_on(name: str, unicode: bool) -> None:
    """SOCKWORK_GOLDEN=write writes the pictures; look at them before they are kept."""
    shown = "\n".join(terminal.lines(figure(name), 80, unicode)) + "\n"
    golden = FOLDER / f"{name}.{'unicode' if unicode else 'ascii'}.txt"
    if os.environ.get("SOCKWORK_GOLDEN") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text()
    assert unicode or shown.isascii()


def test_the_side_of_the_syn_is_the_client() -> None:
    [talk] = conversations(story("short-read"))
    assert (talk.client.host, talk.server.host) == ("target", "peer")
    [talk] = conversations(story("udp"))
    assert (talk.transport, talk.client.host) == ("udp", "peer")


def test_a_reset_stands_out_with_what_was_expected_and_what_was_unread() -> None:
    layout = figure("reset-with-unread-data")
    [row] = [row for row in layout.rows if row.expected]
    assert row.wire and row.wire.kind == "reset" and row.expected == "FIN"
    assert [text.text for text in row.server.texts] == ["close(5)", "100 B unread"]
    assert layout.rows[layout.focus] is row


def test_many_segments_and_many_reads_are_one_row() -> None:
    [bulk] = [row for row in figure("bulk").rows if row.wire and len(row.wire.packets) > 1]
    assert bulk.wire and bulk.wire.label == "×35, 50 019 B" and len(bulk.wire.acks) == 17
    assert [text.text for text in bulk.server.texts] == ["recv(5) ×13 = 50 019 B"]


def test_crossing_segments_arrive_after_the_other_one_was_sent() -> None:
    layout = figure("simultaneous-close")
    sent = {row.wire.label: i for i, row in enumerate(layout.rows) if row.wire}
    lands = {row.wire.label: row.wire.arrives for row in layout.rows if row.wire}
    for one, other in (("#4 FIN", "#5 FIN"), ("#5 FIN", "#4 FIN")):
        arrives = lands[one]
        assert arrives is not None and arrives > sent[other]
    assert [row.client.change.to for row in layout.rows if row.client.change] == [
        *("SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "CLOSING", "TIME_WAIT")
    ]


def test_what_the_link_did_is_marked() -> None:
    wires = [row.wire for row in figure("lost-syn").rows if row.wire]
    marks = {wire.label: (wire.remark, wire.arrives is None) for wire in wires if wire.remark}
    assert marks == {
        "#1 SYN": ("dropped by rule 1", True),
        "#2 SYN": ("sent again", False),
        "#5 FIN": ("held, then released", False),
    }


def test_what_never_came_is_expected_at_its_time() -> None:
    trace = story("descriptor-leak")
    last = lay_out(trace, deviation=Deviation("FIN", time=10**12)).rows[-1]
    assert last.expected == "FIN" and last.wire is None
    unseen = lay_out(trace, deviation=Deviation("FIN", packet=10**6)).rows[-1]
    assert unseen.expected == "FIN"


def test_the_conversation_of_the_failure_is_chosen() -> None:
    trace = many_conversations(random.Random(1), 20)
    found = conversations(trace)
    assert len(found) == 20
    for talk in found:
        mine = [packet for packet in trace.of(Packet) if talk.sender(packet)]
        at = Deviation("x", packet=mine[1].number)
        assert lay_out(trace, deviation=at).conversation == talk
    assert lay_out(trace, found[3]).conversation == found[3]


def test_a_long_figure_is_cut_around_what_matters_and_says_so() -> None:
    trace = random_trace(random.Random(3), 400)
    [packet, *_] = [each for each in trace.of(Packet) if each.number == 100]
    talk = next(each for each in conversations(trace) if each.sender(packet))
    layout = lay_out(trace, talk, Deviation("something else", packet=100), max_rows=10)
    assert len(layout.rows) == 10 and len(layout.notices) == 2
    for picture in (svg.svg(layout), svg.table(layout), "\n".join(terminal.lines(layout))):
        assert "not shown" in picture and "something else" in picture
    short = terminal.lines(lay_out(trace, talk, Deviation("it", packet=100)), max_lines=14)
    assert len(short) <= 14 and any("··· " in line for line in short)
    assert any("expected: it" in line for line in short)


# --- any trace ---------------------------------------------------------------------------------


def random_trace(dice: random.Random, count: int, conversations: int = 2) -> Trace:
    """A trace that is valid and makes no sense."""
    ends = [(["192.0.2.2", 4000 + n], ["192.0.2.1", 7000]) for n in range(conversations)]
    lines: list[dict[str, Any]] = []
    number = time = 0
    for n in range(count):
        time += dice.choice([0, 1, 1000, 10**6, 10**9])
        ours, theirs = dice.choice(ends)[:: dice.choice([1, -1])]
        kind = dice.choice(["packet"] * 4 + ["call", "call", "state", "step", "process", "rule"])
        body: dict[str, Any] = {"run": 1, "pid": dice.randrange(3), "text": f"peer: {HOSTILE}"}
        if kind == "packet":
            number += 1
            body = random_packet(dice, number, ours, theirs)
        elif kind == "call":
            body |= random_call(dice, time, ours, theirs)
        elif kind == "state":
            host = "target" if ours[1] == 7000 else "peer"
            because = dice.choice(["row", "call", "packet x", f"packet {dice.randrange(count)}"])
            body |= {"host": host, "local": ours, "remote": theirs, "because": because}
            body |= {"from": dice.choice([None, *STATES]), "to": dice.choice(STATES)}
        elif kind == "process":
            kinds = ["running", "exit", "signal"]
            body |= {"status": {"kind": dice.choice(kinds), "signal": HOSTILE}}
        elif kind == "rule":
            body |= {"rule": dice.randrange(3), "event": "released"}
        source = dice.choice(["observed", "inferred"])
        lines.append({"n": n, "time": time, "kind": kind, "source": source, kind: body})
    return Trace.parse("\n".join(map(json.dumps, lines)).encode())


def random_packet(dice: random.Random, number: int, ours: Any, theirs: Any) -> dict[str, Any]:
    hosts = ("target", "peer") if ours[1] == 7000 else ("peer", "target")
    flags = dice.choice([["ACK"]] * 6 + [["SYN"], ["FIN", "ACK"], ["RST"], []])
    fates = ["forwarded"] * 9 + ["dropped", "held", "released", "duplicated", "new"]
    made = {"number": number, "from": hosts[0], "to": hosts[1], "family": "inet", "flags": flags}
    made |= {"transport": dice.choice(["tcp"] * 9 + ["udp", "icmp"]), "icmp": [3, 3]}
    made |= {"source": ours, "destination": theirs, "fate": dice.choice(fates), "rule": 1}
    made |= {"seq": dice.randrange(10**5), "ack": dice.randrange(10**5)}
    problem = dice.choice([None] * 5 + [HOSTILE])
    made |= {"length": dice.choice([0, 1, 1448, 10**7]), "checksum": "ok", "problem": problem}
    return made | {"summary": HOSTILE}


def random_call(dice: random.Random, time: int, ours: Any, theirs: Any) -> dict[str, Any]:
    names = ["recvfrom", "sendto", "close", "poll", "accept4", "connect", "exit_group", HOSTILE]
    sockets = {"inode": ours[1], "transport": "tcp", "local": ours, "remote": theirs}
    listening = {"inode": 1, "transport": "tcp", "local": ["0.0.0.0", 7000], "remote": None}
    values: list[Any] = [None, 5, HOSTILE, ["a", 1], [{"fd": 5, "revents": "POLLIN"}], {"size": 9}]
    values += [{"size": HOSTILE}, [[[]]], {HOSTILE: [1, 2, 3]}, 1.5, True]
    return {
        "tid": 1,
        "name": dice.choice(names),
        "args": [{"name": "flags", "value": dice.choice(values)} for _ in range(3)],
        "result": dice.choice([None, 0, 5, 1448]),
        "error": dice.choice([None, None, "ECONNRESET"]),
        "ended": dice.choice([None, time + 5, time + 10**7]),
        "fd": dice.choice([None, 5]),
        "socket": dice.choice([sockets, listening, None]),
        "accepted": dice.choice([sockets, None, None]),
        "bytes": dice.choice([None, {"size": 5, "head": ""}]),
        "at": {"file": HOSTILE, "line": 1, "function": ""},
        "perturbed": dice.choice([None, HOSTILE]),
    }


def many_conversations(dice: random.Random, count: int) -> Trace:
    lines: list[dict[str, Any]] = []
    for n, port in itertools.product(range(3), range(4000, 4000 + count)):
        number = len(lines) + 1
        ours, theirs = ["192.0.2.2", port], ["192.0.2.1", 7000]
        body = random_packet(dice, number, ours, theirs) | {"transport": "tcp"}
        head = {"n": number, "time": number, "kind": "packet", "source": "observed"}
        lines.append({**head, "packet": body})
    return Trace.parse("\n".join(map(json.dumps, lines)).encode())


@pytest.mark.parametrize("seed", range(40))
def test_any_trace_can_be_drawn_and_every_packet_is_in_it(seed: int) -> None:
    dice = random.Random(seed)
    trace = random_trace(dice, dice.choice([0, 1, 5, 60, 300]))
    deviations = [None, Deviation(HOSTILE, packet=dice.randrange(50)), Deviation("x", time=10**6)]
    talks: list[Conversation | None] = [None, *conversations(trace)]
    for talk, deviation in itertools.product(talks, deviations):
        layout = lay_out(trace, talk, deviation)
        assert_all_packets(trace, layout)
        assert [row.time for row in layout.rows] == sorted(row.time for row in layout.rows)
        assert (deviation is not None) == any(row.expected is not None for row in layout.rows)
        assert_fits(layout, dice)
        for picture in drawn(layout):
            assert_inert(picture)
        ElementTree.fromstring(svg.svg(layout))


def assert_all_packets(trace: Trace, layout: Layout) -> None:
    """Each once, in a row or folded into one."""
    wires = [row.wire for row in layout.rows if row.wire]
    shown = [each.number for wire in wires for each in (*wire.packets, *wire.acks)]
    assert len(shown) == len(set(shown))
    talk = layout.conversation
    if talk is None:
        assert not shown
        return
    mine = {packet.number for packet in trace.of(Packet) if talk.sender(packet)}
    others = set(shown) - mine
    icmp = {packet.number for packet in trace.of(Packet) if packet.transport == "icmp"}
    assert mine <= set(shown) and others <= icmp
    for index, wire in ((i, row.wire) for i, row in enumerate(layout.rows) if row.wire):
        assert wire.arrives is None or index <= wire.arrives < len(layout.rows)


def assert_fits(layout: Layout, dice: random.Random) -> None:
    for unicode in (True, False):
        width, most = dice.choice([40, 57, 76, 80, 120]), dice.choice([8, 20, 1000])
        lines = terminal.lines(layout, width, unicode, most)
        assert all(cell_len(line) <= width for line in lines)
        assert all(line.isprintable() for line in lines)
        assert len(lines) <= max(most, 12) or most == 1000


class Elements(HTMLParser):
    """Collects what a browser would find."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on")]
        values = [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        assert values == []
        if tag == "script":
            assert dict(attrs) == {"type": "application/json"}
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def assert_inert(picture: str) -> None:
    """No element or attribute of the program's making, nothing that steers or reorders."""
    found = Elements()
    found.feed(picture)
    found.close()
    for script in found.scripts:
        json.loads(script)
    assert "<script>alert" not in picture
    picture.encode("utf-8")
    assert not set(picture) & {"\x1b", "\u202e", "\x00"}


# --- for a page --------------------------------------------------------------------------------


def test_every_packet_can_be_reached_and_is_named() -> None:
    root = ElementTree.fromstring(svg.svg(figure("lost-syn"), "check-4"))
    assert root.get("id") == "check-4" and root.get("aria-labelledby") == "check-4-t check-4-d"
    names = {each.tag.rpartition("}")[2]: each.text or "" for each in root[:2]}
    assert names["title"].startswith("TCP, client (peer) 192.0.2.2:40001") and names["desc"]
    packets = [each for each in root.iter() if "packet" in (each.get("class") or "").split()]
    labels = [each.get("aria-label") or "" for each in packets]
    assert all(each.get("tabindex") == "0" for each in packets)
    assert labels[0].startswith("client sends #1 SYN; TCP 192.0.2.2:40001 > 192.0.2.1:7000 SYN")
    assert labels[0].endswith("dropped by rule 1; it never arrives")


def test_a_name_that_is_no_id_is_refused() -> None:
    layout = figure("udp")
    for bad in ("", "1", 'a"b', "a b", "é"):
        for draw in (svg.svg, svg.table, player.html):
            with pytest.raises(ValueError):
                draw(layout, bad)


def test_the_player_knows_each_row_and_is_absent_without_states() -> None:
    layout = figure("simultaneous-close")
    page = player.html(layout, "check-4")
    [found] = re.findall(r'<script type="application/json">(.*?)</script>', page)
    data = json.loads(found)
    assert data["name"] == "check-4" and len(data["frames"]) == len(layout.rows)
    last = data["frames"][-1]
    assert (last["client"], last["server"]) == ("TIME_WAIT", "TIME_WAIT")
    for state in STATES:
        assert f'data-state="{state}"' in page
    assert 'class="edge taken" data-edge="FIN_WAIT1 CLOSING"' in page
    assert player.html(figure("udp")) == ""
    assert "</script" not in player.SCRIPT
