"""The trace of one check, version 1, as immutable values: what was called, sent, seen and done.

`Trace.parse` reads the JSON lines described in docs/trace.md. A field that is not known is passed
over, so that a newer kit may add some; a field that is missing or of another type is a damaged
line, and `TraceError` names it. No module here opens a file or a socket. Thread-safe.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from sockwork import facts
from sockwork.facts import Address, Host, Status

VERSION: Final = 1
SCHEMA: Final = Path(__file__).with_name("schema") / "trace-v1.schema.json"
MAX_BYTES: Final = 1 << 30
SOURCES: Final = ("observed", "inferred")
STATES: Final = (
    "LISTEN",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "CLOSING",
    "TIME_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "CLOSED",
)
_INT64: Final = 1 << 63

Fields = Mapping[str, Any]
_T = TypeVar("_T")


class TraceError(Exception):
    """The trace is damaged or of another version; the message names the line."""


class _Damaged(Exception):
    """What is wrong with one record."""


@dataclass(frozen=True, slots=True)
class Record:
    """What all records have. `observed` is false for what was concluded from other records."""

    n: int
    time: int  # nanoseconds since `open`
    observed: bool


@dataclass(frozen=True, slots=True)
class Socket:
    """The identity of a socket, as it was when a call on it ended."""

    inode: int
    transport: str  # tcp, udp, unix, other
    local: Address | None
    remote: Address | None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call: a number, a word of flags, an address, or a list of such."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class Moved:
    """The data that a call moved: how much, and how it begins."""

    size: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the program's own source."""

    file: str
    line: int
    function: str

    @property
    def text(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Call(Record):
    """One system call; without result and error it has not returned."""

    run: int
    pid: int
    tid: int
    name: str
    args: tuple[Argument, ...]
    result: int | None
    error: str | None
    ended: int | None
    fd: int | None
    socket: Socket | None
    accepted: Socket | None
    bytes: Moved | None
    at: Place | None
    perturbed: str | None

    @property
    def returned(self) -> bool:
        return self.result is not None or self.error is not None

    def argument(self, name: str) -> Any:
        """The value of one argument; None when the call has none of that name."""
        return next((each.value for each in self.args if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Packet(Record):
    """One frame as the link saw it; `seq` and `ack` count from the connection's first numbers."""

    number: int
    from_: str
    to: str | None  # None: to every host
    family: str
    transport: str
    source: Address | None
    destination: Address | None
    flags: frozenset[str]
    seq: int
    ack: int
    seq_raw: int
    ack_raw: int
    window: int
    length: int
    options: Fields
    icmp: tuple[int, int] | None  # type and code
    fate: str
    rule: int | None
    checksum: str
    problem: str | None
    summary: str

    @property
    def end(self) -> int:
        """The sequence number behind it: SYN and FIN take one each (RFC 9293 section 3.4)."""
        return self.seq + self.length + len(self.flags & {"SYN", "FIN"})

    @property
    def lost(self) -> bool:
        """It never came out of the link."""
        return self.fate in ("dropped", "held")


@dataclass(frozen=True, slots=True)
class State(Record):
    """A TCP socket of one host went from one state to another."""

    host: str
    local: Address
    remote: Address
    from_: str | None
    to: str
    because: str

    @property
    def packet(self) -> int | None:
        """The number of the packet that caused it, if one did."""
        word, _, number = self.because.partition(" ")
        return int(number) if word == "packet" and number.isdecimal() else None


@dataclass(frozen=True, slots=True)
class Row(Record):
    """One row of a host's socket table."""

    host: str
    row: facts.Row


@dataclass(frozen=True, slots=True)
class ProcessEvent(Record):
    """Something happened to a process of a run. `event` is empty for a mere change of status."""

    run: int
    event: str  # start, fork, exec, exit, signal
    pid: int | None
    child: int | None
    status: Status | None
    signal: str | None
    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule(Record):
    """A rule of the link was set, was released or ended."""

    rule: int
    event: str
    match: Fields
    action: Any


@dataclass(frozen=True, slots=True)
class Step(Record):
    """What the harness does next, in words."""

    text: str
    data: Fields


@dataclass(frozen=True, slots=True)
class Note(Record):
    """A remark about the trace itself."""

    text: str
    data: Fields


@dataclass(frozen=True)
class Trace:
    """All records in their total order; hosts and tier are empty when the first line is missing."""

    records: tuple[Record, ...]
    hosts: Mapping[str, Host] = field(default_factory=lambda: MappingProxyType({}))
    tier: str = ""

    @staticmethod
    def parse(content: bytes) -> Trace:
        """The trace in these JSON lines; TraceError when a line is not one of version 1."""
        if len(content) > MAX_BYTES:
            raise TraceError(
                f"the trace has {len(content):,} bytes; {MAX_BYTES:,} are read at most"
            )
        records = [
            _record(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line
        ]
        hosts, tier = _header(records[0]) if records else ({}, "")
        # A record is written when it is known; what is right for the reader is when it happened.
        records.sort(key=attrgetter("time"))
        return Trace(tuple(records), MappingProxyType(hosts), tier)

    def of(self, kind: type[_T]) -> list[_T]:
        """The records of one kind, in order."""
        return [record for record in self.records if isinstance(record, kind)]


def _record(number: int, line: bytes) -> Record:
    try:
        fields = json.loads(line)
        if type(fields) is not dict:
            raise _Damaged("it is no JSON object")
        kind = _text(fields, "kind")
        parse = _KINDS.get(kind)
        if parse is None:
            raise _Damaged(f"kind {kind!r} is not known")
        source = _text(fields, "source")
        if source not in SOURCES:
            raise _Damaged(f"source {source!r} is not known")
        head = (_natural(fields, "n"), _natural(fields, "time"), source == "observed")
        return parse(head, _object(fields, kind))
    except _Damaged as error:
        raise TraceError(f"line {number} of the trace: {error}") from None
    except (ValueError, RecursionError):
        raise TraceError(f"line {number} of the trace: it is no JSON") from None


def _header(first: Record) -> tuple[dict[str, Host], str]:
    if not isinstance(first, Note) or first.text != "trace":
        return {}, ""
    try:
        version = _integer(first.data, "version")
        if version != VERSION:
            raise TraceError(f"the trace has version {version}; this kit reads version {VERSION}")
        hosts = _object(first.data, "hosts")
        made = {name: _host(name, _object(hosts, name)) for name in hosts}
        return made, _optional(first.data, "tier", _text) or ""  # a capture has none
    except _Damaged as error:
        raise TraceError(f"line 1 of the trace: {error}") from None


def _host(name: str, fields: Fields) -> Host:
    keys = ("inet", "inet6", "mac")
    return Host(name, **{key: _optional(fields, key, _text) or "" for key in keys})


# --- the kinds ---------------------------------------------------------------------------------

_Head = tuple[int, int, bool]


def _call(head: _Head, fields: Fields) -> Call:
    return Call(
        *head,
        run=_natural(fields, "run"),
        pid=_natural(fields, "pid"),
        tid=_natural(fields, "tid"),
        name=_text(fields, "name"),
        args=tuple(_argument(each) for each in _list(fields, "args")),
        result=_optional(fields, "result", _integer),
        error=_optional(fields, "error", _text),
        ended=_optional(fields, "ended", _natural),
        fd=_optional(fields, "fd", _integer),
        socket=_optional(fields, "socket", _socket),
        accepted=_optional(fields, "accepted", _socket),
        bytes=_optional(fields, "bytes", _moved),
        at=_optional(fields, "at", _place),
        perturbed=_optional(fields, "perturbed", _text),
    )


def _argument(fields: Any) -> Argument:
    if type(fields) is not dict or "value" not in fields:
        raise _Damaged("an argument is not a name and a value")
    return Argument(_text(fields, "name"), _frozen(fields["value"]))


def _socket(fields: Fields, name: str) -> Socket:
    inner = _object(fields, name)
    return Socket(
        _natural(inner, "inode"),
        _text(inner, "transport"),
        _optional(inner, "local", _address),
        _optional(inner, "remote", _address),
    )


def _moved(fields: Fields, name: str) -> Moved:
    inner = _object(fields, name)
    try:
        head = base64.b64decode(_text(inner, "head"), validate=True)
    except (binascii.Error, ValueError):
        raise _Damaged("head is not base64") from None
    return Moved(_natural(inner, "size"), head)


def _place(fields: Fields, name: str) -> Place:
    inner = _object(fields, name)
    return Place(_text(inner, "file"), _natural(inner, "line"), _text(inner, "function"))


def _packet(head: _Head, fields: Fields) -> Packet:
    return Packet(
        *head,
        number=_natural(fields, "number"),
        from_=_optional(fields, "from", _text) or "",
        to=_optional(fields, "to", _text),
        family=_text(fields, "family"),
        transport=_text(fields, "transport"),
        source=_optional(fields, "source", _address),
        destination=_optional(fields, "destination", _address),
        flags=frozenset(_words(fields, "flags")),
        seq=_optional(fields, "seq", _integer) or 0,
        ack=_optional(fields, "ack", _integer) or 0,
        seq_raw=_optional(fields, "seq_raw", _natural) or 0,
        ack_raw=_optional(fields, "ack_raw", _natural) or 0,
        window=_optional(fields, "window", _natural) or 0,
        length=_optional(fields, "length", _natural) or 0,
        options=_frozen(_optional(fields, "options", _object) or {}),
        icmp=_optional(fields, "icmp", _icmp),
        fate=_text(fields, "fate"),
        rule=_optional(fields, "rule", _natural),
        checksum=_text(fields, "checksum"),
        problem=_optional(fields, "problem", _text),
        summary=_text(fields, "summary"),
    )


def _icmp(fields: Fields, name: str) -> tuple[int, int]:
    pair = _naturals(fields, name)
    if len(pair) != 2:
        raise _Damaged(f"{name} is not a type and a code")
    return (pair[0], pair[1])


def _state(head: _Head, fields: Fields) -> State:
    return State(
        *head,
        host=_text(fields, "host"),
        local=_address(fields, "local"),
        remote=_address(fields, "remote"),
        from_=_optional(fields, "from", _state_name),
        to=_state_name(fields, "to"),
        because=_text(fields, "because"),
    )


def _state_name(fields: Fields, name: str) -> str:
    state = _text(fields, name)
    if state not in STATES:
        raise _Damaged(f"{name} is {state!r}, which is no state of TCP")
    return state


def _row(head: _Head, fields: Fields) -> Row:
    for name in ("rqueue", "wqueue", "inode", "uid"):
        _natural(fields, name)
    for name in ("transport", "family", "state"):
        _text(fields, name)
    for name in ("local", "remote"):
        _address(fields, name)
    for name in ("timer_ms", "retransmits"):
        _optional(fields, name, _natural)
    _optional(fields, "timer", _text)
    _naturals(fields, "owners")
    if type(fields.get("mapped", False)) is not bool:
        raise _Damaged("mapped is neither true nor false")
    return Row(*head, host=_text(fields, "host"), row=facts.Row.parse(fields))


def _process(head: _Head, fields: Fields) -> ProcessEvent:
    status = _optional(fields, "status", _object)
    return ProcessEvent(
        *head,
        run=_natural(fields, "run"),
        event=_optional(fields, "event", _text) or "",
        pid=_optional(fields, "pid", _natural),
        child=_optional(fields, "child", _natural),
        status=_status(status) if status is not None else None,
        signal=_optional(fields, "signal", _text),
        name=_optional(fields, "name", _text) or "",
        argv=tuple(_words(fields, "argv")),
    )


def _status(fields: Fields) -> Status:
    return Status(
        _text(fields, "kind"),
        _optional(fields, "code", _integer) or 0,
        _optional(fields, "signal", _text) or "",
    )


def _rule(head: _Head, fields: Fields) -> Rule:
    return Rule(
        *head,
        rule=_natural(fields, "rule"),
        event=_text(fields, "event"),
        match=_frozen(_optional(fields, "match", _object) or {}),
        action=_frozen(fields.get("action")),
    )


def _step(head: _Head, fields: Fields) -> Step:
    return Step(*head, _text(fields, "text"), _frozen(_optional(fields, "data", _object) or {}))


def _note(head: _Head, fields: Fields) -> Note:
    return Note(*head, _text(fields, "text"), _frozen(_optional(fields, "data", _object) or {}))


_KINDS: Final[Mapping[str, Callable[[_Head, Fields], Record]]] = {
    "call": _call,
    "packet": _packet,
    "state": _state,
    "row": _row,
    "process": _process,
    "rule": _rule,
    "step": _step,
    "note": _note,
}

# --- fields ------------------------------------------------------------------------------------


def _optional(fields: Fields, name: str, take: Callable[[Fields, str], _T]) -> _T | None:
    """A field that may be null or missing."""
    return None if fields.get(name) is None else take(fields, name)


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if type(value) is not str:
        raise _Damaged(f"{name} is missing or no text")
    return value


def _integer(fields: Fields, name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise _Damaged(f"{name} is missing or no whole number of 64 bits")
    return value


def _natural(fields: Fields, name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value < _INT64:
        raise _Damaged(f"{name} is missing or no whole number from 0 to 2^63")
    return value


def _object(fields: Fields, name: str) -> Fields:
    value = fields.get(name)
    if not isinstance(value, (dict, MappingProxyType)):
        raise _Damaged(f"{name} is missing or no object")
    return value


def _list(fields: Fields, name: str) -> list[Any]:
    value = fields.get(name)
    if type(value) is not list:
        raise _Damaged(f"{name} is missing or no list")
    return value


def _naturals(fields: Fields, name: str) -> list[int]:
    values = _list(fields, name)
    if any(type(value) is not int or not 0 <= value < _INT64 for value in values):
        raise _Damaged(f"{name} is no list of whole numbers from 0 to 2^63")
    return values


def _words(fields: Fields, name: str) -> list[str]:
    """A list of texts, empty when there is none."""
    words = fields.get(name)
    if words is None:
        return []
    if type(words) is not list or any(type(word) is not str for word in words):
        raise _Damaged(f"{name} is no list of texts")
    return words


def _address(fields: Fields, name: str) -> Address:
    """An Internet address; that of a UNIX socket is its path, here with port 0."""
    value = fields.get(name)
    if type(value) is str:
        return (value, 0)
    if type(value) is not list or [type(part) for part in value] != [str, int]:
        raise _Damaged(f"{name} is missing or no address and port")
    if not 0 <= value[1] < _INT64:
        raise _Damaged(f"{name} has no port")
    return (value[0], value[1])


def _frozen(value: Any) -> Any:
    """`value` as something that cannot be changed."""
    if type(value) is list:
        return tuple(_frozen(each) for each in value)
    if type(value) is dict:
        return MappingProxyType({name: _frozen(each) for name, each in value.items()})
    return value
