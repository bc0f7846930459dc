"""What is told at the end: the figures, the conversations, and what became of the programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sockwork.facts import address_text
from sockwork.figure import Conversation, End, conversations, lay_out, terminal
from sockwork.observe.session import PEER, TARGET, Program
from sockwork.report.style import Style
from sockwork.text import printable
from sockwork.trace import Call, Packet, Trace

MAX_LINES: Final = 60  # of a figure
_LISTED: Final = 20  # conversations


@dataclass(frozen=True)
class Talk:
    """A conversation, its number among all, and how much was said."""

    number: int
    conversation: Conversation
    packets: int
    size: int

    @property
    def name(self) -> str:
        """tcp 192.0.2.2:40001 > 192.0.2.1:7000"""
        ends = (self.conversation.client.address, self.conversation.server.address)
        said = " > ".join(address_text(each) for each in ends)
        return printable(f"{self.conversation.transport} {said}")

    @property
    def amount(self) -> str:
        if not self.packets:
            return "no packets seen"
        return f"{self.packets:,} packets, {self.size:,} bytes"


def talks(trace: Trace) -> list[Talk]:
    """All conversations, in the order of their first packets."""
    packets: Counter[object] = Counter()
    sizes: Counter[object] = Counter()
    for each in trace.of(Packet):
        key = (each.transport, frozenset((each.source, each.destination)))
        packets[key] += 1
        sizes[key] += each.length
    found = []
    for number, talk in enumerate(conversations(trace), 1):
        key = (talk.transport, frozenset((talk.client.address, talk.server.address)))
        found.append(Talk(number, talk, packets[key], sizes[key]))
    return found or _accepted(trace)


def _accepted(trace: Trace) -> list[Talk]:
    """The connections that calls tell of, where there are no packets to see."""
    found: list[Talk] = []
    for call in trace.of(Call):
        made = call.accepted
        if made and made.transport == "tcp" and made.local and made.remote:
            server, client = (TARGET, PEER) if call.run == 1 else (PEER, TARGET)
            ends = (End(client, made.remote), End(server, made.local))
            talk = Conversation("tcp", *ends, len(found) + 1)
            found.append(Talk(talk.number, talk, 0, 0))
    return found


def busiest(found: Sequence[Talk]) -> Talk | None:
    """The one with most traffic; of equals the first."""
    return max(found, key=lambda each: (each.size, each.packets)) if found else None


def figure(trace: Trace, talk: Talk | None, style: Style) -> list[str]:
    """The figure of one conversation; of the calls alone without one."""
    layout = lay_out(trace, talk.conversation if talk else None)
    if not layout.rows:
        return []
    return terminal.lines(layout, style.width, style.unicode, MAX_LINES)


def listed(found: Sequence[Talk], drawn: Sequence[Talk], style: Style) -> Iterator[str]:
    """One line for each conversation, a mark before those that are drawn."""
    if not found:
        return
    yield "conversations"
    for talk in found[:_LISTED]:
        mark = "▶" if talk in drawn else " "
        end = f"  {talk.amount}"
        room = style.width - len(end) - 6
        name = talk.name if len(talk.name) <= room else talk.name[: room - 1] + "…"
        yield f"{mark} {talk.number:>3} {name}{end}"
    if len(found) > _LISTED:
        yield f"      and {len(found) - _LISTED:,} more; --conversation N draws any of them"


def programs(ended: Sequence[Program], style: Style) -> Iterator[str]:
    """What became of each."""
    for each in ended:
        status = each.status
        said = (
            f"exit status {status.code}" if status.kind == "exit" else f"killed by {status.signal}"
        )
        if status.kind == "running":
            said = "did not end after SIGTERM, killed"
        elif each.stopped:
            said += " (SIGTERM came from here)"
        end = f": {said}"
        yield style.clipped(
            f"{each.host:6} {printable(each.words)}"[: style.width - len(end)] + end
        )


def remarks(trace: Trace, stats: Mapping[str, Any], rules: Sequence[str]) -> Iterator[str]:
    """What the figure does not show, and why."""
    if stats.get("not_captured"):
        yield (
            f"{stats['not_captured']:,} of {stats['frames']:,} packets were forwarded but not kept:"
            " the capture is full; openings, ends and errors are in it"
        )
    if stats.get("not_traced"):
        yield f"{stats['not_traced']:,} calls and packets are not in the trace: it is full"
    if stats.get("lost"):
        where = ", ".join(f"{count} at {name}" for name, count in stats["lost_where"].items())
        yield f"the link lost {stats['lost']:,} packets by itself ({where}): do not trust the figure"
    matched = Counter(each.rule for each in trace.of(Packet) if each.rule)
    for number, text in enumerate(rules, 1):
        if not matched[number]:
            yield f"no packet that was kept fitted rule {number}: {printable(text)}"
