"""Packets, calls and times in the few words that fit into a figure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sockwork.text import printable
from sockwork.trace import Call, Packet, ProcessEvent

READING = frozenset("read readv recvfrom recvmsg recvmmsg".split())
WRITING = frozenset("write writev sendto sendmsg sendmmsg sendfile splice".split())
# A call that waits is shown when it returns: what it waited for then stands above it.
WAITING = READING | frozenset(
    "accept accept4 poll ppoll select pselect6 epoll_wait epoll_pwait wait4 waitid"
    " nanosleep clock_nanosleep".split()
)
# 0 is success and nothing more for these, so it is not worth a word.
_SILENT = frozenset(
    "bind listen connect shutdown close close_range setsockopt getsockopt getsockname getpeername"
    " epoll_ctl".split()
)
_FLAGS = ("SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


@dataclass(frozen=True)
class Text:
    """One line beside the wire. `title` is the whole of it, for who wants more."""

    kind: Literal["call", "fact", "step", "process"]
    text: str
    title: str
    at: str = ""  # "echo_server.cpp:71"
    trouble: bool = False


def amount(size: int) -> str:
    """50 019 B"""
    return f"{size:,} B".replace(",", " ")


def moment(time: int) -> str:
    """A time after the first packet, or before it: +130 µs, -1.25 ms, +2.000 s."""
    size = abs(time)
    sign = "-" if time < 0 else "+"
    if size < 999_500:
        return f"{sign}{size / 1e3:.0f} µs"
    if size < 99_995_000:
        return f"{sign}{size / 1e6:.2f} ms"
    if size < 999_950_000:
        return f"{sign}{size / 1e6:.1f} ms"
    if size >= 99_995_000_000:
        return f"{sign}{size // 1_000_000_000} s"
    return f"{sign}{size / 1e9:.{4 if size < 9_999_950_000 else 3}f} s"


def span(time: int) -> str:
    """A length of time: 30 ms."""
    return moment(time)[1:]


# --- packets -----------------------------------------------------------------------------------


def label(packet: Packet, transport: str) -> str:
    """#1 SYN, #5 118 B: without the flags that nearly every segment has"""
    if packet.transport != transport:
        return f"#{packet.number} {packet.transport.upper()} {_icmp(packet)}"
    tells = packet.flags - {"PSH"}
    if packet.length or packet.flags & {"FIN", "RST"}:
        tells -= {"ACK"}
    words = [f"#{packet.number}", ",".join(flag for flag in _FLAGS if flag in tells)]
    if packet.length or packet.transport == "udp":
        words.append(amount(packet.length))
    return " ".join(word for word in words if word)


def _icmp(packet: Packet) -> str:
    unreachable = 3 if packet.transport == "icmp" else 1
    if packet.icmp and packet.icmp[0] == unreachable:
        return "unreachable"
    return f"type {packet.icmp[0]}" if packet.icmp else ""


def bulk_label(packets: Iterable[Packet]) -> str:
    """x37, 50 019 B"""
    sizes = [packet.length for packet in packets]
    return f"×{len(sizes)}, {amount(sum(sizes))}"


def remark(packet: Packet, again: bool) -> str:
    """What befell the packet, apart from being carried over."""
    by = f" by rule {packet.rule}" if packet.rule is not None else ""
    words = {
        "dropped": f"dropped{by}",
        "held": f"held{by}",
        "released": "held, then released",
        "duplicated": f"copied{by}",
        "corrupted": f"changed{by}",
        "injected": "forged by the link",
    }
    said = [words.get(packet.fate, "")]
    if again:
        said.append("sent again")
    if packet.checksum == "bad":
        said.append("bad checksum")
    said.append(packet.problem or "")
    return printable("; ".join(word for word in said if word))


def speaks_of(step: Text, packet: Packet) -> bool:
    """Does this step of the harness send a packet of this kind?"""
    verb = step.text.partition(" ")[0]
    flags = {"opens": {"SYN"}, "ends": {"FIN"}, "closes": {"FIN", "RST"}, "resets": {"RST"}}
    if verb == "sends":
        return packet.length > 0
    return bool(packet.flags & flags.get(verb, set()))


# --- calls -------------------------------------------------------------------------------------


def name(call: Call) -> str:
    """recvfrom(2) without an address is what recv(3) of the C library makes, and send likewise."""
    if call.name in ("recvfrom", "sendto"):
        if not any(_is_address(argument.value) for argument in call.args):
            return call.name[:4]
    return call.name


def call_text(call: Call) -> Text:
    """recv(5) = 18"""
    short = f"{printable(name(call))}({', '.join(_few(call))}){_result(call)}"
    return Text("call", short, _whole(call), _at(call), _failed(call))


def _failed(call: Call) -> bool:
    """That a call would have to wait, or was interrupted, is no failure of it."""
    if call.error is None or call.error.startswith("ERESTART"):
        return False
    return call.error not in ("EAGAIN", "EINPROGRESS", "EINTR")


def _few(call: Call) -> list[str]:
    """The one or two arguments that tell calls of one name apart."""
    few = {"shutdown": ("how",), "listen": ("backlog",), "setsockopt": ("option",)}
    words = []
    if call.fd is not None and call.name != "socket":
        words.append(str(call.fd))
    for argument in few.get(call.name, ()):
        value = call.argument(argument)
        if value is not None:
            words.append(_value(value))
    return words


def _result(call: Call) -> str:
    if call.error:
        return f" = -1 {printable(call.error)}"
    if call.result is None:
        return "" if call.name == "exit_group" else " waits"
    if call.result == 0 and call.name in _SILENT:
        return ""
    return f" = {call.result}"


def _whole(call: Call) -> str:
    arguments = ", ".join(_value(argument.value) for argument in call.args)
    said = f"{printable(call.name)}({arguments}){_result(call)}"
    if call.returned and call.ended is not None:
        said += f", took {span(call.ended - call.time)}"
    if call.perturbed:
        said += f", changed by the testbed: {printable(call.perturbed)}"
    return said + (f", {_at(call)}" if call.at else "")


def _at(call: Call) -> str:
    return printable(call.at.text) if call.at else ""


def _is_address(value: Any) -> bool:
    return isinstance(value, tuple) and [type(part) for part in value] == [str, int]


def _value(value: Any) -> str:
    if value is None:
        return "NULL"
    if _is_address(value):
        host, port = value
        return printable(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(each) for each in value[:8]) + (", …]" if value[8:] else "]")
    if hasattr(value, "items"):
        if set(value) == {"size"}:
            return amount(value["size"]) if type(value["size"]) is int else "?"
        return "{" + ", ".join(f"{printable(k)}: {_value(v)}" for k, v in value.items()) + "}"
    return printable(str(value))


def folded_calls(calls: list[Call]) -> Text:
    """recv(5) ×64 = 262 144 B"""
    first = calls[0]
    total = sum(call.result or 0 for call in calls)
    gives = f" = {amount(total)}" if first.name in READING | WRITING else ""
    if all(call.error for call in calls):
        gives = _result(first)
    text = f"{printable(name(first))}({', '.join(_few(first))}) ×{len(calls)}{gives}"
    took = span(max(call.ended or call.time for call in calls) - first.time)
    return Text("call", text, f"{text}, within {took}", _at(first))


def ending(event: ProcessEvent) -> str:
    """exits with status 1; empty when the process did not end."""
    if event.status and event.status.kind == "exit":
        return f"exits with status {event.status.code}"
    signal = event.status.signal if event.status else event.signal
    killed = event.status is not None and event.status.kind == "signal"
    return f"killed by {printable(signal or '?')}" if killed else ""
