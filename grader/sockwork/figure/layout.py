"""What stands where in the figure: rows in the order of time, five columns, and what is left out.

A row is one packet, one call, one step of the harness, or several folded into one. Every packet of
the conversation is in some row, or counted in a notice. Nothing here knows how a row is drawn.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, Literal

from sockwork.facts import address_text
from sockwork.figure import words
from sockwork.figure.conversation import OTHER, Conversation, Side, calls_of, most_involved
from sockwork.figure.words import Text
from sockwork.text import printable
from sockwork.trace import Call, Packet, ProcessEvent, Rule, State, Step, Trace

MAX_ROWS: Final = 2000
_FOLDED: Final = 3  # so many of the same kind become one
_MOST_TURNS: Final = 8  # of the direction of data; beyond, the whole phase is one row a direction
_MOST_TEXTS: Final = 4  # in one cell
_LEAD: Final = 1_000_000
_GAP: Final = 10  # times the median is worth a break mark
_SHORTEST_GAP: Final = 1_000_000
_SIDES: Final[tuple[Side, Side]] = ("client", "server")
_CONTROL: Final = frozenset({"SYN", "FIN", "RST"})
_CLOSING: Final = ("close", "shutdown", "exit_group")

Kind = Literal["control", "reset", "data", "ack", "other"]


@dataclass(frozen=True)
class Deviation:
    """Where the run first left what the check expects: at a packet, or at a time."""

    expected: str
    packet: int | None = None
    time: int | None = None


@dataclass(frozen=True)
class Change:
    """A socket enters a state; `observed` when a look into the socket table saw it there."""

    from_: str | None
    to: str
    observed: bool


@dataclass(frozen=True)
class Wire:
    """What leaves one end in this row. It arrives in the same row, in a later one, or never."""

    sender: Side
    kind: Kind
    label: str
    packets: tuple[Packet, ...]
    acks: tuple[Packet, ...] = ()  # pure acknowledgements folded into this row
    remark: str = ""
    arrives: int | None = None  # the index of the row; None: lost


@dataclass(frozen=True)
class Landing:
    """A packet of an earlier row arrives in this row."""

    sender: Side
    label: str


@dataclass(frozen=True)
class Cell:
    """One end in one row: what its program did, and the state its socket enters."""

    texts: tuple[Text, ...] = ()
    change: Change | None = None


@dataclass(frozen=True)
class Row:
    """One row, `time` in nanoseconds since the first packet; `gap` when much time lies before."""

    time: int
    client: Cell
    server: Cell
    wire: Wire | None = None
    landing: Landing | None = None
    expected: str | None = None
    gap: int | None = None

    @property
    def in_trouble(self) -> bool:
        """Something went wrong here: a loss, a reset, a call that failed."""
        wire = self.wire
        bad = wire is not None and (wire.kind == "reset" or wire.arrives is None)
        return bad or any(text.trouble for side in _SIDES for text in self.cell(side).texts)

    def cell(self, side: Side) -> Cell:
        return self.client if side == "client" else self.server


@dataclass(frozen=True)
class Layout:
    """The whole figure. `origin` is the time of the first packet on the testbed's clock."""

    conversation: Conversation | None
    origin: int
    rows: tuple[Row, ...]
    before: dict[Side, Change]  # the states that the ends are in above the first row
    notices: tuple[str, ...] = ()

    def head(self, side: Side) -> tuple[str, str]:
        """The name of an end and its address: client (peer), 192.0.2.2:34938"""
        if self.conversation is None:
            return side, ""
        end = self.conversation.end(side)
        return printable(f"{side} ({end.host})"), printable(address_text(end.address))

    @property
    def focus(self) -> int:
        """The row that matters most: the deviation, else the first trouble, else the last."""
        marked = [i for i, row in enumerate(self.rows) if row.expected is not None]
        troubled = [i for i, row in enumerate(self.rows) if row.in_trouble]
        return [*marked, *troubled, len(self.rows) - 1][0]


def lay_out(
    trace: Trace,
    conversation: Conversation | None = None,
    deviation: Deviation | None = None,
    max_rows: int = MAX_ROWS,
) -> Layout:
    """The figure of this conversation, or of the one most involved in the failure."""
    if conversation is None:
        at = (deviation.packet, deviation.time) if deviation else (None, None)
        conversation = most_involved(trace, *at)
    return _Maker(trace, conversation, deviation).layout(max_rows)


# --- events ------------------------------------------------------------------------------------


@dataclass
class _Event:
    """One thing to show. `plain`: it may be folded with others like it."""

    time: int
    side: Side
    texts: list[Text] = field(default_factory=list)
    packet: Packet | None = None
    call: Call | None = None
    step: bool = False
    plain: bool = False
    again: bool = False
    bulk: list[Packet] = field(default_factory=list)  # data of one direction, folded
    acks: list[Packet] = field(default_factory=list)
    others: list[tuple[Side, Text]] = field(default_factory=list)  # beside a bulk

    @property
    def is_data(self) -> bool:
        return self.packet is not None and self.packet.length > 0


@dataclass
class _Draft:
    """A row while it is made."""

    time: int
    texts: dict[Side, list[Text]] = field(default_factory=lambda: {"client": [], "server": []})
    changes: dict[Side, Change] = field(default_factory=dict)
    event: _Event | None = None  # with packets
    landing: _Draft | None = None  # the row of the packet that arrives here
    arrives: _Draft | None = None  # the row in which this one's packet arrives, if another
    cause: Call | bool = False  # what the only text is: a call, a step (True), or several
    expected: str | None = None

    @property
    def packets(self) -> list[Packet]:
        if self.event is None:
            return []
        return [self.event.packet] if self.event.packet else self.event.bulk


class _Maker:
    """Makes one layout."""

    def __init__(
        self, trace: Trace, conversation: Conversation | None, deviation: Deviation | None
    ) -> None:
        self._trace = trace
        self._talk = conversation
        self._deviation = deviation
        self._rows: list[_Draft] = []
        self._wired: _Draft | None = None  # the last row with packets
        self._states = self._states_of() if conversation else []
        self._special = {state.packet for state, _ in self._states}
        if deviation:
            self._special.add(deviation.packet)

    def layout(self, max_rows: int) -> Layout:
        events = list(_folded(self._events()))
        for event in events:
            self._place(event)
        self._land()
        before = self._enter_states()
        self._expect()
        return self._finish(before, max_rows)

    # --- what there is to show -----------------------------------------------------------------

    def _states_of(self) -> list[tuple[State, Side]]:
        assert self._talk
        found = []
        for state in self._trace.of(State):
            side = self._talk.side_of(state)
            if side:
                found.append((state, side))
        return found

    def _events(self) -> list[_Event]:
        packets = list(self._packet_events())
        calls = self._call_events()
        start = min((event.time for event in packets), default=0)
        more = [*self._step_events(start), *self._ending_events(calls, start)]
        return sorted([*calls, *packets, *more], key=lambda event: event.time)

    def _packet_events(self) -> Iterator[_Event]:
        talk = self._talk
        if talk is None:
            return
        reached: dict[Side, int] = {}
        for packet in self._trace.of(Packet):
            side = talk.sender(packet)
            if side is None:
                side = self._sender_of_error(packet)
                if side:
                    yield _Event(packet.time, side, packet=packet)
                continue
            takes = packet.length + len(packet.flags & {"SYN", "FIN"}) > 0
            again = packet.transport == "tcp" and takes and packet.end <= reached.get(side, 0)
            reached[side] = max(reached.get(side, 0), packet.end)
            plain = (
                not packet.flags & _CONTROL
                and packet.fate == "forwarded"
                and not again
                and packet.problem is None
                and packet.checksum != "bad"
                and packet.number not in self._special
            )
            yield _Event(packet.time, side, packet=packet, plain=plain, again=again)

    def _sender_of_error(self, packet: Packet) -> Side | None:
        """ICMP errors between the two hosts: their packets hold no ports of their own."""
        assert self._talk
        errors = {"icmp": (3, 11, 12), "icmp6": (1, 2, 3, 4)}
        if packet.icmp is None or packet.icmp[0] not in errors.get(packet.transport, ()):
            return None
        for side in _SIDES:
            mine, peer = self._talk.end(side), self._talk.end(OTHER[side])
            if packet.from_ == mine.host and packet.to == peer.host and mine.host != peer.host:
                return side
        return None

    def _call_events(self) -> list[_Event]:
        if self._talk:
            calls = calls_of(self._trace, self._talk)
        else:
            calls = [(call, self._own_side) for call in self._trace.of(Call)]
        taken: dict[int, int] = {}  # by inode: bytes read
        last = {call.socket.inode: call for call, _ in calls if call.socket}
        events = []
        for call, side in calls:
            late = call.name in words.WAITING and call.ended is not None
            time = call.ended if late and call.ended is not None else call.time
            texts = [words.call_text(call), *self._unread(call, side, taken, last)]
            moves = call.name in words.READING | words.WRITING and (call.result or 0) > 0
            ready = call.name in words.WAITING - words.READING and call.error is None
            # A loop that goes on until nothing is left has one such error in each turn.
            empty = call.error == "EAGAIN"
            plain = (moves or empty or (ready and call.accepted is None)) and not call.perturbed
            plain = plain and call.returned
            events.append(_Event(time, side, texts, call=call, plain=plain))
        return events

    @property
    def _own_side(self) -> Side:
        """The end of the program judged, when no packet tells."""
        connects = any(call.name == "connect" for call in self._trace.of(Call))
        return "client" if connects else "server"

    def _unread(
        self, call: Call, side: Side, taken: dict[int, int], last: dict[int, Call]
    ) -> list[Text]:
        """The bytes that had come and were not read when the program closed for good."""
        if call.socket is None or self._talk is None or self._talk.transport != "tcp":
            return []
        inode = call.socket.inode
        if call.name in words.READING and "MSG_PEEK" not in str(call.argument("flags")):
            taken[inode] = taken.get(inode, 0) + (call.bytes.size if call.bytes else 0)
        if call.name != "close" or call is not last[inode] or self._talk.owner(call) is None:
            return []
        left = self._came(side, call.time) - taken.get(inode, 0)
        return [Text("fact", f"{words.amount(left)} unread", "", trouble=True)] if left > 0 else []

    def _came(self, side: Side, time: int) -> int:
        """How many bytes in a row had come to this end by then."""
        assert self._talk
        reached = 1
        for packet in self._trace.of(Packet):
            if packet.time > time:
                break
            if self._talk.sender(packet) == OTHER[side] and not packet.lost and packet.length:
                if packet.seq <= reached:
                    reached = max(reached, packet.seq + packet.length)
        return reached - 1

    def _step_events(self, start: int) -> Iterator[_Event]:
        talk = self._talk
        hosts = {talk.end(side).host: side for side in _SIDES} if talk else {}
        target = "target" if talk and talk.client.host == talk.server.host else ""
        harness: Side = OTHER[self._own_side]
        if talk:
            harness = "server" if talk.client.host == "target" else "client"
        for step in self._trace.of(Step):
            number = re.search(r"\bconnection (\d{1,9})\b", step.text)
            if number and talk and int(number[1]) != talk.number:
                continue
            # What the harness does is noted a little before or after the packets of it.
            if not number and step.time < start - _LEAD:
                continue
            host, colon, said = step.text.partition(": ")
            side = hosts.get(host) if host != target else None
            text = said if colon and side else step.text
            text = printable(self._shorter(text))
            texts = [Text("step", text, printable(step.text))]
            yield _Event(step.time, side or harness, texts, step=True)

    def _shorter(self, text: str) -> str:
        """Without the connection and the address, which stand above the figure."""
        if self._talk:
            text = text.replace(f" to {address_text(self._talk.server.address)}", "")
        return re.sub(r" (?:on|of) connection \d+", "", text)

    def _ending_events(self, calls: Sequence[_Event], start: int) -> Iterator[_Event]:
        known = {event.call.pid: event.side for event in calls if event.call}
        side = self._own_side
        if self._talk:
            side = "server" if self._talk.server.host == "target" else "client"
        told: set[int | None] = set()
        for event in self._trace.of(ProcessEvent):
            said = words.ending(event)
            mine = not known or event.pid in known
            if said and mine and event.time >= start and event.pid not in told:
                told.add(event.pid)
                failed = said != "exits with status 0"
                yield _Event(
                    event.time,
                    known.get(event.pid or 0, side),
                    [Text("process", said, said, trouble=failed)],
                )

    # --- rows ----------------------------------------------------------------------------------

    def _place(self, event: _Event) -> None:
        last = self._rows[-1] if self._rows else None
        packet = event.packet
        is_ack = packet and event.plain and packet.length == 0 and packet.transport == "tcp"
        if packet and is_ack and self._wired and self._wired.event:
            self._wired.event.acks.append(packet)  # it changed nothing
            return
        if packet and last and not is_ack and _caused(last, event):
            last.event, last.time = event, event.time
            self._wired = last
            return
        draft = _Draft(event.time)
        draft.texts[event.side] += event.texts
        for side, text in event.others:
            draft.texts[side].append(text)
        draft.cause = event.call or event.step
        if packet or event.bulk:
            draft.event = event
            self._wired = draft
        self._rows.append(draft)

    def _land(self) -> None:
        """Arrivals that are later than the next thing that happened."""
        released = [
            (rule.time, rule.rule) for rule in self._trace.of(Rule) if rule.event == "released"
        ]
        late: list[tuple[int, _Draft]] = []
        for draft in self._rows:
            packet = draft.event.packet if draft.event else None
            if packet and packet.fate == "released":
                times = [t for t, rule in released if rule == packet.rule and t >= packet.time]
                if times:
                    late.append((times[0], draft))
        for time, draft in late:
            self._insert(_Draft(time, landing=draft))
        self._cross()

    def _cross(self) -> None:
        """A SYN or FIN that does not acknowledge the other end's had left before that arrived."""
        open_: dict[Side, _Draft] = {}
        pairs = []
        for draft in self._rows:
            packet = draft.event.packet if draft.event else None
            if packet is None or draft.event is None or not packet.flags & {"SYN", "FIN"}:
                continue
            first = open_.get(OTHER[draft.event.side])
            if first and first.event and first.event.packet and not packet.lost:
                if packet.ack < first.event.packet.end and not first.arrives:
                    pairs.append((first, draft))
                    open_.clear()
                    continue
            if not packet.lost:
                open_[draft.event.side] = draft
        for first, second in pairs:
            self._insert(_Draft(second.time, landing=first))
            if not second.arrives:
                self._insert(_Draft(second.time, landing=second))

    def _insert(self, draft: _Draft) -> None:
        self._rows.insert(bisect_right(self._rows, draft.time, key=lambda row: row.time), draft)
        if draft.landing:
            draft.landing.arrives = draft

    # --- states --------------------------------------------------------------------------------

    def _enter_states(self) -> dict[Side, Change]:
        rows_of = {packet.number: each for each in self._rows for packet in each.packets}
        for each in self._rows:
            for packet in each.event.acks if each.event else ():
                rows_of.setdefault(packet.number, each)
        starts: dict[Side, Change] = {}
        extra: list[tuple[_Draft | None, _Draft]] = []  # rows to put behind others
        times = [row.time for row in self._rows]
        newest: dict[int, _Draft] = {}  # the last row put behind a row
        for state, side in self._states:
            change = Change(state.from_, state.to, state.observed)
            if side not in starts and state.from_:
                starts[side] = Change(None, state.from_, state.observed)
            starts.setdefault(side, Change(None, "CLOSED", state.observed))
            row = self._row_for(state, side, rows_of, times)
            while row and side in row.changes and id(row) in newest:
                row = newest[id(row)]
            if row is None or side in row.changes:
                draft = _Draft(_entered(state, row, state.packet in rows_of))
                extra.append((row, draft))
                if row:
                    newest[id(row)] = draft
                row = draft
            row.changes[side] = change
        self._put(extra)
        return starts

    def _row_for(
        self, state: State, side: Side, rows_of: dict[int, _Draft], times: list[int]
    ) -> _Draft | None:
        row = rows_of.get(state.packet) if state.packet is not None else None
        if row and row.event:
            return row if row.event.side == side or not row.arrives else row.arrives
        at = bisect_right(times, state.time) - 1
        return self._rows[at] if at >= 0 else None

    def _put(self, extra: Iterable[tuple[_Draft | None, _Draft]]) -> None:
        behind: dict[int, list[_Draft]] = {}
        first = []
        for row, draft in extra:
            if row is None:
                first.append(draft)
            else:
                behind.setdefault(id(row), []).append(draft)
        rows = first
        waiting = list(reversed(self._rows))
        while waiting:
            row = waiting.pop()
            rows.append(row)
            waiting += reversed(behind.get(id(row), []))
        self._rows = rows

    # --- the deviation and the end -------------------------------------------------------------

    def _expect(self) -> None:
        deviation = self._deviation
        if deviation is None:
            return
        expected = printable(deviation.expected)
        for row in self._rows:
            if deviation.packet is not None and row.event:
                numbers = [packet.number for packet in [*row.packets, *row.event.acks]]
                if deviation.packet in numbers:
                    row.expected = expected
                    return
            if deviation.packet is None and deviation.time is not None:
                if row.time >= deviation.time:
                    row.expected = expected
                    return
        last = self._rows[-1].time if self._rows else 0
        time = deviation.time if deviation.time is not None else last
        self._rows.append(_Draft(max(time, last), expected=expected))

    def _finish(self, before: dict[Side, Change], max_rows: int) -> Layout:
        carried = [row.time for row in self._rows if row.packets]
        first = carried or [row.time for row in self._rows]
        origin = first[0] if first else 0
        start, end = _window(self._rows, max_rows)
        for row in self._rows[:start]:  # the states above what is shown
            before.update(row.changes)
        shown = self._rows[start:end]
        index = {id(row): i for i, row in enumerate(shown)}
        gaps = _gaps([row.time for row in shown])
        transport = self._talk.transport if self._talk else ""
        rows = [self._row(row, gap, transport, index, origin) for row, gap in zip(shown, gaps)]
        notices = [*_left_out(self._rows[:start], "before"), *_left_out(self._rows[end:], "after")]
        return Layout(self._talk, origin, tuple(rows), before, tuple(notices))

    def _row(
        self, row: _Draft, gap: int | None, transport: str, index: dict[int, int], origin: int
    ) -> Row:
        cells = {side: Cell(_few(row.texts[side]), row.changes.get(side)) for side in _SIDES}
        landing = row.landing.event if row.landing else None
        return Row(
            row.time - origin,
            cells["client"],
            cells["server"],
            wire=_wire(row, transport, index) if row.event else None,
            landing=_landing(landing),
            expected=row.expected,
            gap=gap,
        )


def _entered(state: State, row: _Draft | None, caused: bool) -> int:
    """The time of a row behind `row` for this state; its packet is in `row` when that caused it."""
    if row is None:
        return state.time
    return row.time if caused else max(row.time, state.time)


def _few(texts: list[Text]) -> tuple[Text, ...]:
    if len(texts) <= _MOST_TEXTS:
        return tuple(texts)
    left = texts[_MOST_TEXTS - 1 :]
    more = Text("fact", f"and {len(left)} more", "; ".join(each.text for each in left))
    return (*texts[: _MOST_TEXTS - 1], more)


def _caused(last: _Draft, event: _Event) -> bool:
    """Did the one thing in the last row make its program send this packet?"""
    if last.event or last.landing or not last.texts[event.side] or not last.cause:
        return False
    if last.texts[OTHER[event.side]]:
        return False
    if last.cause is True:
        return event.packet is not None and words.speaks_of(last.texts[event.side][0], event.packet)
    call = last.cause
    acts = call.name in words.WRITING or call.name in ("connect", *_CLOSING)
    return acts and call.time <= event.time and (call.ended is None or event.time <= call.ended)


def _wire(row: _Draft, transport: str, index: dict[int, int]) -> Wire:
    event = row.event
    assert event
    packets, label = tuple(row.packets), _label(event, transport)
    if event.packet is None:
        arrives = index[id(row)]
        return Wire(event.side, "data", label, packets, tuple(event.acks), arrives=arrives)
    landing = row.arrives or row
    return Wire(
        event.side,
        _kind(event.packet, transport),
        label,
        packets,
        tuple(event.acks),
        words.remark(event.packet, event.again),
        None if event.packet.lost else index.get(id(landing), len(index) - 1),
    )


def _label(event: _Event, transport: str) -> str:
    if event.packet is None:
        return words.bulk_label(event.bulk)
    return words.label(event.packet, transport)


def _kind(packet: Packet, transport: str) -> Kind:
    if packet.transport != transport:
        return "other"
    if "RST" in packet.flags:
        return "reset"
    if packet.flags & _CONTROL:
        return "control"
    return "data" if packet.length or transport == "udp" else "ack"


def _gaps(times: list[int]) -> list[int | None]:
    between = [later - time for time, later in zip(times, times[1:])]
    positive = [each for each in between if each > 0]
    usual = median(positive) if len(positive) >= _FOLDED else float("inf")
    marks = [each if each > max(_GAP * usual, _SHORTEST_GAP) else None for each in between]
    return [None, *marks][: len(times)]


def _window(rows: Sequence[_Draft], most: int) -> tuple[int, int]:
    """Which rows to show: those around the deviation, else the first trouble, else the last."""
    if len(rows) <= most:
        return 0, len(rows)
    marked = [i for i, row in enumerate(rows) if row.expected]
    troubled = [i for i, row in enumerate(rows) if _in_trouble(row)]
    focus = [*marked, *troubled, len(rows) - 1][0]
    start = max(0, min(focus - most * 2 // 3, len(rows) - most))
    return start, start + most


def _in_trouble(row: _Draft) -> bool:
    packet = row.event.packet if row.event else None
    reset = packet is not None and ("RST" in packet.flags or packet.lost)
    return reset or any(text.trouble for side in _SIDES for text in row.texts[side])


def _left_out(rows: Sequence[_Draft], where: str) -> list[str]:
    if not rows:
        return []
    packets = sum(len(row.packets) + len(row.event.acks if row.event else ()) for row in rows)
    return [f"{len(rows)} rows {where} these are not shown; they hold {packets} packets"]


# --- folding -----------------------------------------------------------------------------------


def _folded(events: Iterable[_Event]) -> Iterator[_Event]:
    """The events, with bulk transfers and repeated calls as one."""
    phase: list[_Event] = []
    for event in events:
        if event.plain:
            phase.append(event)
            continue
        yield from _folded_phase(phase)
        phase = []
        yield event
    yield from _folded_phase(phase)


def _folded_phase(phase: list[_Event]) -> Iterator[_Event]:
    """A phase in which data went to and fro and nothing else happened."""
    runs = _runs(phase)
    data = [event for event in phase if event.is_data]
    most = max((sum(event.side == side for event in data) for side in _SIDES), default=0)
    if len(runs) > _MOST_TURNS and most >= _FOLDED:
        runs = [phase]
    for run in runs:
        if sum(event.is_data for event in run) < _FOLDED:
            yield from _folded_calls(run)
        else:
            yield from _bulk(run)


def _runs(phase: list[_Event]) -> list[list[_Event]]:
    """Cut where the direction of the data changes."""
    runs: list[list[_Event]] = [[]]
    direction: Side | None = None
    for event in phase:
        if event.is_data and direction not in (None, event.side):
            runs.append(_taken_back(runs[-1], event.side))
        if event.is_data:
            direction = event.side
        runs[-1].append(event)
    return runs


def _taken_back(run: list[_Event], side: Side) -> list[_Event]:
    """The calls at the end of the run that made this end send: they begin the next one."""
    start = len(run)
    while start > 1 and run[start - 1].call and run[start - 1].side == side:
        call = run[start - 1].call
        if call is None or call.name not in words.WRITING:
            break
        start -= 1
    taken = run[start:]
    del run[start:]
    return taken


def _bulk(run: list[_Event]) -> Iterator[_Event]:
    """One event for each direction of the data, with the calls of both ends in words."""
    by_side: dict[Side, _Event] = {}
    for event in run:
        if event.is_data and event.side not in by_side:
            by_side[event.side] = _Event(event.time, event.side)
    first = next(iter(by_side.values()))
    calls: dict[tuple[Side, str, int | None], list[Call]] = {}
    for event in run:
        if event.is_data and event.packet:
            by_side[event.side].bulk.append(event.packet)
        elif event.packet:
            by_side.get(OTHER[event.side], first).acks.append(event.packet)
        elif event.call:
            calls.setdefault((event.side, event.call.name, event.call.fd), []).append(event.call)
    for (side, name, _), several in calls.items():
        sender = side if name in words.WRITING else OTHER[side]
        by_side.get(sender, first).others.append((side, _in_words(several)))
    yield from by_side.values()


def _in_words(calls: list[Call]) -> Text:
    return words.call_text(calls[0]) if len(calls) == 1 else words.folded_calls(calls)


def _folded_calls(run: list[_Event]) -> Iterator[_Event]:
    """The same call again and again is told once."""
    same: list[_Event] = []
    for event in [*run, None]:
        if event and event.call and same and _alike(same[0], event):
            same.append(event)
            continue
        if len(same) >= _FOLDED:
            calls = [each.call for each in same if each.call]
            yield _Event(same[0].time, same[0].side, [words.folded_calls(calls)])
        else:
            yield from same
        same = [event] if event and event.call else []
        if event and not event.call:
            yield event


def _alike(first: _Event, event: _Event) -> bool:
    assert first.call and event.call
    one, two = first.call, event.call
    return first.side == event.side and (one.pid, one.name, one.fd) == (two.pid, two.name, two.fd)


def _landing(event: _Event | None) -> Landing | None:
    if event is None or event.packet is None:
        return None
    return Landing(event.side, f"#{event.packet.number}")
