"""Rules of the link: what it does to the packets that match."""

from __future__ import annotations

from typing import Any

from sockwork.facts import Packet
from sockwork.harness.scene import Scene

_LISTS = {"flags", "without"}  # of words; the others are single values


def as_match(words: dict[str, Any]) -> dict[str, Any]:
    """The protocol's match: `from_` is `from`, one flag is a list of one, TCP unless said."""
    match = {"transport": "tcp"}  # hosts also send ARP and ICMPv6 of their own accord
    for name, value in words.items():
        listed = [value] if name in _LISTS and isinstance(value, str) else value
        match[name.rstrip("_")] = listed
    return match


def matches(packet: Packet, words: dict[str, Any]) -> bool:
    """The same match, of a packet already captured."""
    match = as_match(words)
    ports = {"source_port": packet.source, "destination_port": packet.destination}
    plain = {
        "from": packet.from_,
        "to": packet.to,
        "transport": packet.transport,
        "family": packet.family,
    }
    return (
        all(match.get(name, value) == value for name, value in plain.items())
        and set(match.get("flags", ())) <= packet.flags
        and not set(match.get("without", ())) & packet.flags
        and match.get("min_length", 0) <= packet.length <= match.get("max_length", packet.length)
        and all(n not in match or (end and end[1] == match[n]) for n, end in ports.items())
    )


def in_words(words: dict[str, Any]) -> str:
    parts = []
    for name, value in words.items():
        listed = " ".join(value) if isinstance(value, (tuple, list)) else value
        parts.append(f"{name.rstrip('_').replace('_', ' ')} {listed}")
    return ", ".join(parts)


class Rule:
    """One rule of the link, in force until it ends."""

    def __init__(self, scene: Scene, number: int, text: str) -> None:
        self._scene = scene
        self._number = number
        self._text = text

    def release(self) -> None:
        """The packets it holds go on, in order; the rule ends."""
        self._scene.step(f"link: lets go what it held ({self._text})")
        self._scene.testbed.call("release", {"rule": self._number})

    def end(self) -> None:
        """The rule ends; what it holds is dropped."""
        self._scene.step(f"link: ends the rule ({self._text})")
        self._scene.testbed.call("unrule", {"rule": self._number})
