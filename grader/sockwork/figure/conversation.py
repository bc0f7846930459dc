"""Which packets, calls and states of a trace belong to one conversation, and to which end of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from sockwork.facts import Address
from sockwork.trace import Call, Packet, Socket, State, Trace

Side = Literal["client", "server"]
OTHER: dict[Side, Side] = {"client": "server", "server": "client"}
_ANY = ("0.0.0.0", "::")


@dataclass(frozen=True)
class End:
    """One end: the host it is in, and its address."""

    host: str
    address: Address


@dataclass(frozen=True)
class Conversation:
    """Two ends. The client is the one that sent the first SYN, or the first datagram."""

    transport: str
    client: End
    server: End
    number: int = field(default=1, compare=False)  # among those of its transport, from 1 on

    def end(self, side: Side) -> End:
        return self.client if side == "client" else self.server

    def sender(self, packet: Packet) -> Side | None:
        """The end that sent the packet; None when it belongs to another conversation."""
        if packet.transport != self.transport:
            return None
        return self._side(packet.source, packet.destination)

    def side_of(self, state: State) -> Side | None:
        """The end that this state of TCP is of; a listener is the server's."""
        if self.transport != "tcp":
            return None
        side = self._side(state.local, state.remote)
        if side is None and state.remote[1] == 0 and _same(state.local, self.server.address):
            side = "server"
        return side if side and self.end(side).host == state.host else None

    def _side(self, local: Address | None, remote: Address | None) -> Side | None:
        if (local, remote) == (self.client.address, self.server.address):
            return "client"
        if (local, remote) == (self.server.address, self.client.address):
            return "server"
        return None

    def owner(self, call: Call) -> Side | None:
        """The end whose program made the call on this very conversation."""
        for socket in (call.accepted, call.socket):
            side = self.of_socket(socket, call)
            if side:
                return side
        return None

    def of_socket(self, socket: Socket | None, call: Call) -> Side | None:
        if socket is None or socket.transport != self.transport or socket.local is None:
            return None
        if socket.remote is not None:
            return self._side(_plain(socket.local), _plain(socket.remote))
        # A datagram socket without a peer names it in the call.
        named = {_plain(each) for each in _addresses(call)}
        sides: tuple[Side, Side] = ("client", "server")
        for side in sides:
            mine, peer = self.end(side).address, self.end(OTHER[side]).address
            if self.transport == "udp" and _same(_plain(socket.local), mine) and peer in named:
                return side
        return None

    def listens(self, socket: Socket) -> bool:
        """Is it a socket without a peer at the server's address?"""
        alone = socket.remote is None or socket.remote[1] == 0
        known = socket.transport == self.transport and socket.local is not None
        return known and alone and _same(_plain(socket.local or ("", 0)), self.server.address)


def conversations(trace: Trace) -> list[Conversation]:
    """All of TCP and UDP between two hosts, in the order of their first packets."""
    found: dict[tuple[str, frozenset[Address]], Conversation] = {}
    counted: dict[str, int] = {}
    for packet in trace.of(Packet):
        if packet.source is None or packet.destination is None or packet.to is None:
            continue
        key = (packet.transport, frozenset((packet.source, packet.destination)))
        if packet.transport not in ("tcp", "udp") or key in found:
            continue
        number = counted[packet.transport] = counted.get(packet.transport, 0) + 1
        ends = [End(packet.from_, packet.source), End(packet.to, packet.destination)]
        if packet.flags >= {"SYN", "ACK"}:  # the SYN itself was not seen
            ends.reverse()
        found[key] = Conversation(packet.transport, ends[0], ends[1], number)
    return list(found.values())


def most_involved(
    trace: Trace, packet: int | None = None, time: int | None = None
) -> Conversation | None:
    """The conversation of that packet, or near that time; else the last one with trouble."""
    by_key = {_key(each): each for each in conversations(trace)}
    last: dict[Conversation, tuple[bool, int]] = {}
    nearest: tuple[int, Conversation] | None = None
    for each in trace.of(Packet):
        conversation = by_key.get(_packet_key(each))
        if conversation is None:
            continue
        if each.number == packet:
            return conversation
        distance = abs(each.time - time) if time is not None else 0
        if nearest is None or distance < nearest[0]:
            nearest = (distance, conversation)
        trouble, _ = last.get(conversation, (False, 0))
        last[conversation] = (trouble or "RST" in each.flags or each.lost, each.time)
    if nearest is None:
        return None
    return nearest[1] if time is not None else max(last, key=lambda each: last[each])


_Key = tuple[str, frozenset[Address]]


def _key(conversation: Conversation) -> _Key:
    ends = (conversation.client.address, conversation.server.address)
    return (conversation.transport, frozenset(ends))


def _packet_key(packet: Packet) -> _Key:
    ends = (packet.source, packet.destination)
    return (packet.transport, frozenset(end for end in ends if end))


def calls_of(trace: Trace, conversation: Conversation) -> list[tuple[Call, Side]]:
    """The calls on this conversation, those that made its sockets, and those that waited for it."""
    calls = trace.of(Call)
    owners = [conversation.owner(call) for call in calls]
    mine: dict[int, Side] = {}  # by inode
    for call, side in zip(calls, owners):
        for socket in (call.accepted, call.socket):
            if side and socket and conversation.of_socket(socket, call) == side:
                mine[socket.inode] = side
        if call.socket and conversation.listens(call.socket):
            mine.setdefault(call.socket.inode, "server")
    found = []
    descriptors: dict[tuple[int, int], int] = {}  # (pid, fd): inode
    for call, side in zip(calls, owners):
        if call.socket and call.fd is not None:
            descriptors[call.pid, call.fd] = call.socket.inode
        if call.accepted and call.result is not None:
            descriptors[call.pid, call.result] = call.accepted.inode
        if side is None and call.accepted is None:
            side = _through(call, mine, descriptors)
        if side:
            found.append((call, side))
    return found


def _through(
    call: Call, mine: dict[int, Side], descriptors: dict[tuple[int, int], int]
) -> Side | None:
    if call.socket:
        return mine.get(call.socket.inode)
    for fd in waited_for(call):
        side = mine.get(descriptors.get((call.pid, fd), 0))
        if side:
            return side
    return None


def waited_for(call: Call) -> list[int]:
    """The descriptors that made poll, select or epoll_wait return; all, while it has not."""
    found: list[int] = []
    for value in (argument.value for argument in call.args):
        if not isinstance(value, tuple):
            continue
        for each in value:
            if isinstance(each, int) and call.name in ("select", "pselect6"):
                found.append(each)
            elif hasattr(each, "get") and (each.get("revents") or not call.returned):
                found.append(each.get("fd"))
            elif hasattr(each, "get") and "data" in each:
                found.append(each.get("data"))  # most programs put the descriptor there
    return [fd for fd in found if type(fd) is int]


def _addresses(call: Call) -> Iterable[Address]:
    for argument in call.args:
        value = argument.value
        if isinstance(value, tuple) and [type(part) for part in value] == [str, int]:
            yield (value[0], value[1])


def _plain(address: Address) -> Address:
    """The IPv4 address in an IPv4-mapped one, see ipv6(7)."""
    return (address[0].removeprefix("::ffff:"), address[1])


def _same(local: Address, mine: Address) -> bool:
    return local[1] == mine[1] and (local[0] == mine[0] or local[0] in _ANY)
