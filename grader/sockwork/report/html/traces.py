"""What a page tells from a stored trace besides the figure: calls, places in the source, packets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sockwork import trace as trace_records
from sockwork.figure import words
from sockwork.trace import Trace, TraceError

MAX_CALLS = 60
_FIRST_CALLS = 15
_AROUND = 3  # lines of the source before and after the named one
MAX_EXCERPTS = 3


@dataclass(frozen=True)
class Call:
    """One system call in words."""

    time: int
    text: str
    failed: bool
    place: str  # echo_server.cpp:71, or nothing


@dataclass(frozen=True)
class Calls:
    """The calls of a check; `left_out` of them stood where `gap` says."""

    shown: tuple[Call, ...] = ()
    gap: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Excerpt:
    """A few lines of a source around the one that was named."""

    file: str
    line: int
    because: str
    lines: tuple[tuple[int, str], ...]


def read(path: Path | None) -> Trace | None:
    """The trace in a file; None when there is none that this kit can read."""
    if path is None:
        return None
    try:
        return Trace.parse(path.read_bytes())
    except (OSError, TraceError):
        return None


def calls(trace: Trace) -> Calls:
    """The calls in order, the middle left out when they are many."""
    found = trace.of(trace_records.Call)
    if len(found) <= MAX_CALLS:
        return Calls(tuple(map(_call, found)))
    shown = (*found[:_FIRST_CALLS], *found[_FIRST_CALLS - MAX_CALLS :])
    return Calls(tuple(map(_call, shown)), _FIRST_CALLS, len(found) - MAX_CALLS)


def _call(call: trace_records.Call) -> Call:
    text = words.call_text(call)
    return Call(call.time, text.title, text.trouble, text.at)


# --- the source --------------------------------------------------------------------------------


def excerpts(
    sources: Mapping[str, str], named: str | None, found: Sequence[Call]
) -> Iterator[Excerpt]:
    """The source around the line a failure names, and around the last calls of the program."""
    places = [(named, "the line that was named")] if named else []
    places += [(call.place, call.text) for call in reversed(found)]
    seen: set[tuple[str, int]] = set()
    for where, because in places:
        file, _, number = where.rpartition(":")
        if not number.isdecimal() or file not in sources:
            continue
        line = int(number)
        if any(file == other and abs(line - near) <= _AROUND for other, near in seen):
            continue
        lines = sources[file].splitlines()
        if not 0 < line <= len(lines):
            continue
        seen.add((file, line))
        first = max(1, line - _AROUND)
        around = lines[first - 1 : line + _AROUND]
        yield Excerpt(file, line, because, tuple(enumerate(around, first)))
        if len(seen) == MAX_EXCERPTS:
            return


# --- two traces --------------------------------------------------------------------------------


def first_difference(before: Trace, now: Trace) -> str:
    """Where two runs part, in one sentence about packets; nothing if they do not."""
    theirs, ours = _packets(before), _packets(now)
    for old, new in zip(theirs, ours):
        if old != new:
            return f"The first packet that differs: before, {old}; now, {new}."
    if len(theirs) == len(ours):
        return ""
    longer, which = (ours, "now") if len(ours) > len(theirs) else (theirs, "before")
    return (
        f"After the same packets one more came only {which}: {longer[min(len(ours), len(theirs))]}."
    )


def _packets(trace: Trace) -> list[str]:
    """The TCP packets without what differs from run to run: ports, numbers, mere ACKs, times."""
    return [
        f"{each.from_} sends {' '.join(sorted(each.flags))}, {each.length} bytes"
        for each in trace.of(trace_records.Packet)
        if each.transport == "tcp" and (each.flags != {"ACK"} or each.length)
    ]
