"""What a code of the catalogue is made of, and how a rule is entered.

A rule is one function under `@rule`. Its docstring is the text of its code: the misconception in
one line, then paragraphs that begin with a label: Seen, Why, Ask, 1, 2, 3 (the hints), Look (the
commands that show it). The function returns what it found in a failed check, or None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sockwork.diagnosis.case import Case
from sockwork.trace import Call, Packet

LABELS = ("Seen", "Why", "Ask", "1", "2", "3", "Look")


@dataclass(frozen=True)
class Evidence:
    """What a rule found: the first line is the sentence that tells it, the others show it."""

    lines: tuple[str, ...]
    source: str | None = None  # the line of the program that matters: "echo_server.cpp:71"
    packet: Packet | None = None  # where the wire left the way that was expected
    call: Call | None = None
    expected: str = ""  # what stood in the place of `packet` or `call` in a right program


@dataclass(frozen=True)
class Entry:
    """One code: the misconception behind it, its texts, and the rule that finds it."""

    code: str
    misconception: str
    seen: str
    why: str
    question: str
    hints: tuple[str, ...]  # a question, where to look, a worked example of another protocol
    look: tuple[str, ...]
    concept: str
    pitfalls: tuple[str, ...]
    beats: Mapping[str, str]  # code of a more general rule -> why this one is the answer
    endless: bool  # it also reads the beginning of a trace that is too long to be read whole
    find: Callable[[Case], Evidence | None]


ENTRIES: dict[str, Entry] = {}


def rule(
    code: str,
    *,
    concept: str,
    pitfalls: str = "",
    beats: Mapping[str, str] | None = None,
    endless: bool = False,
) -> Callable[[Callable[[Case], Evidence | None]], Callable[[Case], Evidence | None]]:
    """Enters the function below it under `code`."""

    def enter(find: Callable[[Case], Evidence | None]) -> Callable[[Case], Evidence | None]:
        assert code not in ENTRIES, f"{code} is there twice"
        misconception, texts = _parsed(code, inspect.getdoc(find) or "")
        ENTRIES[code] = Entry(
            code=code,
            misconception=misconception,
            seen=texts["Seen"],
            why=texts["Why"],
            question=texts["Ask"],
            hints=(texts["1"], texts["2"], texts["3"]),
            look=tuple(each.strip() for each in texts["Look"].split(";")),
            concept=concept,
            pitfalls=tuple(pitfalls.split()),
            beats=beats or {},
            endless=endless,
            find=find,
        )
        return find

    return enter


def _parsed(code: str, text: str) -> tuple[str, dict[str, str]]:
    first, *rest = [" ".join(part.split()) for part in text.split("\n\n")]
    texts = dict(part.split(": ", 1) for part in rest)
    assert tuple(texts) == LABELS, f"{code} has the paragraphs {', '.join(texts)}"
    return first, texts


# --- evidence in words ---------------------------------------------------------------------------

_NAMES = {
    "recvfrom": "recv",
    "sendto": "send",
    "accept4": "accept",
    "pselect6": "select",
    "exit_group": "exit",
}
_SHOWN = (
    *("fd", "epfd", "fds", "readfds", "size", "backlog", "how", "option", "value", "addr", "flags"),
    *("pid", "status"),
)
_LISTED = 4  # entries of a list that are shown


def told(call: Call) -> str:
    """A call as one line: recv(5, 4096) = 18   echo_server.cpp:71."""
    name = _NAMES.get(call.name, call.name)
    words = [_word(a.name, a.value) for a in call.args if a.name in _SHOWN]
    place = f"   {call.at.text}" if call.at else ""
    result = "" if call.name == "exit_group" else f" {_result(call)}"
    return f"{name}({', '.join(word for word in words if word)}){result}{place}"


def _word(name: str, value: object) -> str:
    if name == "addr" and isinstance(value, tuple) and len(value) == 2:
        return f"{value[0]} port {value[1]}"
    if isinstance(value, tuple):
        words = [_entry(each) for each in value[:_LISTED]]
        more = ["..."] if len(value) > _LISTED else []
        return "{" + ", ".join(words + more) + "}"
    if isinstance(value, (int, str)) and value != "0":
        return str(value)
    return ""


def _entry(entry: object) -> str:
    """One descriptor of a list: with the events that were asked for, if there are some."""
    if isinstance(entry, Mapping):
        events = str(entry.get("events"))
        return f"{entry.get('fd')} {events}" if events != "0" else str(entry.get("fd"))
    return str(entry)


def _result(call: Call) -> str:
    if call.error:
        return f"= -1 {call.error}" if not call.error.startswith("ERESTART") else "has not returned"
    return "has not returned" if call.result is None else f"= {call.result}"


def seen(packet: Packet) -> str:
    """A packet as one line."""
    return f"packet {packet.number}  {packet.from_}: {packet.summary}"


def found(
    first: str,
    *evidence: Call | Packet | str | None,
    at: Call | None = None,
    packet: Packet | None = None,
    expected: str = "",
) -> Evidence:
    """Evidence of these lines; `at` is the call that matters."""
    lines = [_line(each) for each in evidence if each is not None]
    source = at.at.text if at and at.at else None
    return Evidence((first, *lines[:9]), source, packet, at, expected)


def _line(each: Call | Packet | str) -> str:
    if isinstance(each, Call):
        return told(each)
    return seen(each) if isinstance(each, Packet) else each
