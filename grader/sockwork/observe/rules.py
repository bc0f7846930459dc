"""Rules of the link as a user writes them: drop from=target flags=FIN nth=1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sockwork.text import did_you_mean, printable

# An action, and the number it takes; `None`: it takes none.
_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "drop": (),
    "hold": (),
    "delay": ("ms",),
    "duplicate": ("copies",),
    "reorder": ("behind",),
    "corrupt": ("offset", "xor"),
}
_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "from": ("target", "peer"),
    "to": ("target", "peer"),
    "transport": ("tcp", "udp", "icmp", "icmp6", "arp", "other"),
    "family": ("inet", "inet6"),
    "flags": ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"),
    "without": ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"),
}
_LISTS: Final = ("flags", "without")
_NUMBERS: Final = ("min_length", "max_length", "source_port", "destination_port", "nth")
_OWN: Final = ("times", *(field for fields in _ACTIONS.values() for field in fields))
_LARGEST: Final = {"source_port": 65535, "destination_port": 65535, "xor": 255}
_DEFAULT_LARGEST: Final = 1_000_000_000
_SMALLEST: Final = {"nth": 1, "times": 1, "ms": 1, "copies": 1, "behind": 1, "xor": 1}


class RuleError(Exception):
    """The text is no rule; the message names the wrong word and, if there is one, the right one."""


def parse(text: str) -> dict[str, Any]:
    """The fields of the testbed's verb `rule`. Raises RuleError."""
    action, *words = text.split() or [""]
    if action not in _ACTIONS:
        raise _unknown("action", action, _ACTIONS)
    # Hosts also send ARP and ICMPv6 of their own accord: TCP is meant unless something else is said.
    match: dict[str, Any] = {"transport": "tcp"}
    rule: dict[str, Any] = {"action": action, "match": match}
    for word in words:
        name, sign, value = word.partition("=")
        if name not in (*_WORDS, *_NUMBERS, *_OWN):
            raise _unknown("field", name, (*_WORDS, *_NUMBERS, "times", *_ACTIONS[action]))
        if not sign or not value:
            raise RuleError(f"{name} needs a value, as in {name}={_example(name)}")
        if name in _OWN:
            if name != "times" and name not in _ACTIONS[action]:
                raise RuleError(f"{action} takes no {name}")
            rule[name] = _number(name, value)
        else:
            match[name] = _number(name, value) if name in _NUMBERS else _word(name, value)
    if action == "delay" and "ms" not in rule:
        raise RuleError("delay needs ms=, the milliseconds to wait")
    return rule


def _word(name: str, value: str) -> str | list[str]:
    known = _WORDS[name]
    words = value.split(",") if name in _LISTS else [value]
    spelt = {each.lower(): each for each in known}
    for word in words:
        if word.lower() not in spelt:
            raise _unknown(f"{name} called", word, known)
    found = [spelt[word.lower()] for word in words]
    return found if name in _LISTS else found[0]


def _number(name: str, value: str) -> int:
    least, most = _SMALLEST.get(name, 0), _LARGEST.get(name, _DEFAULT_LARGEST)
    if not (value.isascii() and value.isdecimal() and least <= int(value[:12]) <= most):
        raise RuleError(f"{name}={printable(value)} is no whole number from {least} to {most}")
    return int(value)


def _example(name: str) -> str:
    return _WORDS[name][0] if name in _WORDS else "1"


def _unknown(what: str, word: str, known: Mapping[str, Any] | Sequence[str]) -> RuleError:
    shown = printable(word) or "''"
    hint = did_you_mean(word.lower(), known) or did_you_mean(word.upper(), known)
    return RuleError(f"no {what} {shown}{hint or '; there are ' + ', '.join(known)}")
