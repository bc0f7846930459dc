"""The run while it goes on: one line for each call, packet, signal and end of a process.

A line stands where its event became known: a call when it has returned. What comes faster than
anybody can read is counted, not shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sockwork.figure import words
from sockwork.figure.conversation import waited_for
from sockwork.report.style import Style
from sockwork.text import printable, printable_bytes
from sockwork.trace import Call, Note, Packet, ProcessEvent, Record, Rule, Step, Trace

BURST: Final = 1500  # lines at once, after a quiet time
EACH: Final = 60  # lines that every look at the trace adds to that
_LINES: Final = 100  # of output at once
_TIME: Final = 10
_HOST: Final = 6


class Sockets:
    """Tells calls that have to do with sockets from all others, fed with calls in order."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def touched_by(self, call: Call) -> bool:
        """Whether the call is about a socket, or waits for one."""
        if call.socket is not None or call.accepted is not None:
            made = call.result if call.name in ("socket", "accept", "accept4") else None
            self._known |= {fd for fd in (call.fd, made) if fd is not None}
            return True
        if call.name.startswith("epoll_"):
            return bool(self._known)
        return any(fd in self._known for fd in waited_for(call))


def only_sockets(trace: Trace) -> Trace:
    """The trace without calls that touch no socket."""
    sockets = Sockets()
    kept = [
        each for each in trace.records if not isinstance(each, Call) or sockets.touched_by(each)
    ]
    return Trace(tuple(kept), trace.hosts, trace.tier)


class Timeline:
    """Makes the lines. `hosts` names the host of each run."""

    def __init__(self, style: Style, hosts: Mapping[int, str], all_calls: bool) -> None:
        self._style = style
        self._hosts = hosts
        self._all_calls = all_calls
        self._sockets = Sockets()
        self._first: dict[int, int] = {}  # the first process of each run
        self._partial: dict[tuple[int, str], bytes] = {}
        self._last = ("", "", "")  # the line shown last, without its time
        self._again = 0
        self._room = BURST

    # --- records -------------------------------------------------------------------------------

    def records(self, content: bytes, skipped: int) -> Iterator[str]:
        """The lines for these records; `skipped` others were known after them."""
        lines = content.splitlines()
        self._room = min(BURST, self._room + EACH)
        first, last = lines[: self._room], lines[self._room :][-1:]
        self._room -= len(first)
        yield from self._shown(first)
        passed = skipped + len(lines) - len(first) - len(last)
        if passed:
            yield from self.settle()
            yield f"{'':{_TIME}} ··· {passed:,} more went by too fast to be shown ···"
            # Whatever is left of a burst may be the middle of it; its last line tells where it is.
            yield from self._shown(last)

    def _shown(self, lines: Sequence[bytes]) -> Iterator[str]:
        records = Trace.parse(b"\n".join(lines)).records
        for record in sorted(records, key=_known_at):
            host, text, place, trouble = self._told(record)
            if not text:
                continue
            if (host, text, place) == self._last:
                self._again += 1
                continue
            yield from self.settle()
            self._last = (host, text, place)
            yield self._line(_known_at(record), host, text, place, trouble)

    def settle(self) -> Iterator[str]:
        """How often the last line would have stood here again."""
        if self._again:
            yield f"{'':{_TIME}} {'':{_HOST}} ··· the same {self._again:,} times more ···"
        self._again = 0

    def _told(self, record: Record) -> tuple[str, str, str, bool]:
        """Host, text, place in the source, and whether it is bad news; no text: nothing to show."""
        match record:
            case Call():
                shown = self._sockets.touched_by(record) or self._all_calls
                told = words.call_text(record)
                text = self._process(record.run, record.pid) + told.text if shown else ""
                return self._hosts.get(record.run, ""), text, told.at, told.trouble
            case Packet():
                return printable(record.from_), _packet(record), "", _is_bad(record)
            case ProcessEvent():
                return self._hosts.get(record.run, ""), self._event(record), "", False
            case Rule():
                return "link", f"rule {record.rule} {printable(record.event)}", "", False
            case Step(text=text) | Note(text=text):
                return "note", printable(text), "", False
        return "", "", "", False

    def _event(self, event: ProcessEvent) -> str:
        if event.event == "start":
            return "starts " + printable(" ".join(event.argv))
        # A status without an event says the same again.
        said = words.ending(event) if event.event == "exit" else ""
        if event.event == "signal":
            said = f"gets {printable(event.signal or '?')}"
        if event.event == "fork":
            self._first.setdefault(event.run, event.pid or 0)
            said = f"starts process {event.child}"
        return self._process(event.run, event.pid or 0) + said if said else ""

    def _process(self, run: int, pid: int) -> str:
        """A mark for processes that the program has started."""
        return "" if self._first.setdefault(run, pid) == pid else f"[{pid}] "

    def _line(self, time: int, host: str, text: str, place: str, trouble: bool) -> str:
        room = self._style.width - _TIME - _HOST - 2 - (len(place) + 1 if place else 0)
        if room < 16:
            room, place = self._style.width - _TIME - _HOST - 2, ""
        text = self._cut(text, room)
        padded = f"{text:{room}} {place}" if place else text
        colours = ("red",) if trouble else ()
        stamp = self._style.paint(f"{time / 1e9:{_TIME}.6f}", "dim")
        return f"{stamp} {host:{_HOST}} {self._style.paint(padded, *colours)}"

    def _cut(self, text: str, room: int) -> str:
        mark = "…" if self._style.unicode else "..."
        text = text if self._style.unicode else self._style.fit(text)
        return text if len(text) <= room else text[: room - len(mark)] + mark

    # --- output of the programs ----------------------------------------------------------------

    def output(self, run: int, stream: str, content: bytes, ended: bool = False) -> Iterator[str]:
        """What a program wrote since the last time, line by line."""
        key = (run, stream)
        content = self._partial.pop(key, b"") + content
        *lines, rest = content.split(b"\n")
        if len(rest) > self._style.width or (ended and rest):
            lines, rest = [*lines, rest], b""
        if rest:
            self._partial[key] = rest
        mark = "|" if stream == "stdout" else "!"
        head = f"{'':{_TIME}} {self._hosts[run]:{_HOST}} {mark} "
        for line in lines[:_LINES]:
            text = head + printable_bytes(line[: 2 * self._style.width])
            yield self._cut(text, self._style.width)
        if len(lines) > _LINES:
            yield f"{head}··· {len(lines) - _LINES:,} lines are not shown ···"


def _known_at(record: Record) -> int:
    return record.ended or record.time if isinstance(record, Call) else record.time


def _is_bad(packet: Packet) -> bool:
    return packet.lost or "RST" in packet.flags or packet.fate == "corrupted"


def _packet(packet: Packet) -> str:
    remark = words.remark(packet, False)
    said = f" · {remark}" if remark else ""
    if packet.transport not in ("tcp", "udp") or not packet.source or not packet.destination:
        return f"▶ #{packet.number} {printable(packet.summary)}{said}"
    kind = "UDP " if packet.transport == "udp" else ""
    label = words.label(packet, packet.transport)
    return f"▶ {label}  {kind}{packet.source[1]} > {packet.destination[1]}{said}"
