"""What a program sleeps in, and what it does instead of sleeping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sockwork.diagnosis.case import READS, WAITS, WRITES, Case, Stream
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.harness.text import amount
from sockwork.trace import Call

_MANY = 50  # calls one after the other by which no right program waits
_FD_SETSIZE = 1024


def _unread(stream: Stream) -> int:
    return stream.came() - stream.received


def _waiting_data(case: Case) -> list[Stream]:
    """Open connections with bytes that the program has not read although it owes them none: one
    that is behind with its sending may well let them wait (RFC 9293 section 3.8.6)."""
    return [
        s
        for s in case.streams
        if s.open and _unread(s) > 0 and not s.end_read and s.received <= s.sent
    ]


def _descriptor(stream: Stream, call: Call) -> int | None:
    return min(stream.holders.get(call.pid, ()), default=None)


def _ready(call: Call) -> Iterator[tuple[int, str]]:
    """The descriptors that a wait found ready, with their events."""
    entries: Any = call.argument("fds") or call.argument("events") or ()
    for entry in entries if isinstance(entries, tuple) else ():
        events = str(entry.get("revents", entry.get("events")))
        if events not in ("0", "None"):
            yield int(entry.get("fd", entry.get("data", -1))), events


@rule("E-EAGAIN-SPIN", concept="multiplexing", pitfalls="P44", endless=True)
def eagain_spin(case: Case) -> Evidence | None:
    """A non-blocking read is asked until something comes.

    Seen: recv returned EAGAIN again and again, with no call in between that waits.

    Why: EAGAIN means `nothing at the moment` (recv(2)). To sleep until that changes is the work of
    poll(2), select(2) or epoll_wait(2).

    Ask: Which call of your program sleeps while no client says anything?

    1: How can a program wait for bytes without asking for them all the time?

    2: Look at the branch for EAGAIN: does it lead straight back to recv?

    3: A child in a car asks `are we there?` every second; the driver is busy with answers. Better:
    `wake me when we arrive`. A game server read from each of its players in a loop, without
    blocking. With nobody on line it used a whole processor, the fan ran all night, and other
    programs were slow. A poll with all descriptors, before the reads, returns when one of them has
    something to say, and costs nothing until then.

    Look: strace -c -p PID; top -p PID
    """
    for stream in case.streams:
        empty = [c for c in stream.reads if c.error == "EAGAIN"]
        if len(empty) < _MANY:
            continue
        run = empty[-_MANY:]
        waits = [c for c in case.named(*WAITS) if run[0].time < c.time < run[-1].time]
        if len(waits) < _MANY // 10:
            first = f"recv returned EAGAIN {len(empty)} times, with nothing between that waits."
            return found(first, *empty[:3], at=empty[0], expected="poll, select or epoll_wait")
    return None


@rule("E-POLLHUP-SPIN", concept="multiplexing", pitfalls="P92", endless=True)
def pollhup_spin(case: Case) -> Evidence | None:
    """Only the events that I asked for matter.

    Seen: The wait returns again and again with POLLERR or POLLHUP for a descriptor that the
    program does not touch.

    Why: POLLERR and POLLHUP are reported whether they were asked for or not (poll(2)), and again
    each time until the descriptor is closed.

    Ask: What does your loop do with a descriptor that has POLLERR or POLLHUP and no POLLIN?

    1: Which events can poll report that you have never asked for?

    2: Look at the tests of revents: is there one that such a descriptor passes?

    3: A guard has a list of alarms: fire and water. The telephone rings, which is not on his list,
    so he does nothing, and it rings on; he is awake all night and does nothing. A stock ticker
    tested revents for POLLIN only. One client was reset, poll returned at once with POLLERR, no
    branch was taken, and again. A descriptor with POLLERR or POLLHUP can be read like one with
    POLLIN: recv then returns the reason.

    Look: strace -e trace=poll,epoll_wait -p PID
    """
    rounds = [c for c in case.named(*WAITS) if c.result and c.result > 0]
    for start in range(0, max(len(rounds) - _MANY, 1), _MANY):
        same = rounds[start : start + _MANY]
        if len(same) < _MANY:
            return None
        hung = _common(same, lambda events: "HUP" in events or "ERR" in events)
        if hung is not None and not _touched(case, same, hung):
            first = f"The wait returned {_MANY} times for descriptor {hung}, and nothing was done."
            events = next(events for fd, events in _ready(same[0]) if fd == hung)
            return found(first, *same[:2], f"revents {events}", at=same[0], expected="close")
    return None


def _common(calls: list[Call], wanted: Any) -> int | None:
    """The descriptor that each of these waits found ready with such events, and no other one."""
    sets = [{fd for fd, events in _ready(c) if wanted(events)} for c in calls]
    others = [{fd for fd, events in _ready(c) if not wanted(events)} for c in calls]
    shared = set.intersection(*sets) if sets else set()
    return min(shared) if shared and not any(others) else None


def _touched(case: Case, rounds: list[Call], fd: int) -> bool:
    first, last = rounds[0].time, rounds[-1].time
    return any(
        c.fd == fd and c.name in (*READS, *WRITES, "close", "shutdown", "accept", "accept4")
        for c in case.calls
        if first <= c.time <= last and c.pid == rounds[0].pid and c.error != "EAGAIN"
    )


@rule("E-POLLOUT-SPIN", concept="multiplexing", pitfalls="P93", endless=True)
def pollout_spin(case: Case) -> Evidence | None:
    """POLLOUT says that I have something to send.

    Seen: The wait returns again and again because a socket is writable, and the program has
    nothing to write.

    Why: A socket with room in its send buffer is writable nearly always (poll(2)). Whoever asks
    for POLLOUT without anything to send is woken at once, each time.

    Ask: When do you ask for POLLOUT, and when do you stop to ask for it?

    1: What does POLLOUT say about a socket, and how often is that so?

    2: Look at the place where the events of a descriptor are set. Does it depend on whether bytes
    wait to be sent?

    3: A driver asks at each corner `may I go on?`, and the road is free. A proxy asked for POLLIN
    and POLLOUT for all its clients, `to be ready for both`. With one idle client poll returned
    200000 times a second. POLLOUT belongs in the list as long as something could not be sent, from
    the short send on until the queue is empty, and not longer.

    Look: strace -c -p PID; strace -e trace=poll,epoll_wait -p PID
    """
    rounds = [c for c in case.named(*WAITS) if c.result and c.result > 0]
    for start in range(0, max(len(rounds) - _MANY, 1), _MANY):
        same = rounds[start : start + _MANY]
        if len(same) < _MANY:
            return None
        free = _common(same, lambda events: set(events.split("|")) <= {"POLLOUT", "EPOLLOUT"})
        if free is not None and not _touched(case, same, free):
            first = f"The wait returned {_MANY} times: descriptor {free} is writable."
            line = "nothing was written to it in all this time"
            return found(first, *same[:2], line, at=same[0], expected="wait for POLLIN only")
    return None


@rule("E-EDGE-DRAIN", concept="multiplexing", pitfalls="P94")
def edge_drain(case: Case) -> Evidence | None:
    """epoll tells me as long as there is something to read.

    Seen: An edge-triggered descriptor was read once, bytes stayed in the socket, and the program
    sleeps in epoll_wait.

    Why: With EPOLLET epoll_wait(2) reports a descriptor when something new has come, not as long
    as something is there (epoll(7)). So each report must be followed by reads until EAGAIN.

    Ask: When will epoll_wait report a descriptor again that still has bytes?

    1: What is the difference between `something is there` and `something has come`?

    2: Look for EPOLLET and for the loop around recv. By which return value does it end?

    3: A postman rings when he brings something, and only then. Whoever takes one letter of five
    and lies down again sleeps until the next letter comes. A server for pictures read 8 KiB for
    each event with EPOLLET. Small ones worked; of a large one the last part lay in the socket, and
    the client waited for the answer. Read until -1 with EAGAIN, or leave EPOLLET away: then epoll
    rings as long as the box is not empty.

    Look: strace -e trace=epoll_ctl,epoll_wait,recvfrom -p PID; ss -tan  (Recv-Q)
    """
    sleeps = case.waiting_in("epoll_wait", "epoll_pwait")
    for stream in _waiting_data(case) if sleeps else ():
        armed = [c for c in stream.calls if c.name == "epoll_ctl"]
        edge = next((c for c in reversed(armed) if "EPOLLET" in _events(c)), None)
        last = next((c for c in reversed(stream.reads) if c.result), None)
        if edge and last and "EPOLLIN" in _events(edge) and last.time < sleeps[-1].time:
            if stream.reads[-1] is not last:
                continue
            first = f"{amount(_unread(stream))} lie unread, and the program sleeps in epoll_wait."
            lines = (edge, last, sleeps[-1])
            return found(first, *lines, at=last, expected="recv until EAGAIN")
    return None


def _events(call: Call) -> str:
    event = call.argument("event")
    return str(event.get("events")) if hasattr(event, "get") else ""


def _in_select(case: Case) -> Call | None:
    return next(iter(reversed(case.waiting_in("select", "pselect6"))), None)


@rule(
    "E-SELECT-NFDS",
    concept="multiplexing",
    pitfalls="P89",
    beats={"E-FDSET": "the kernel does not look at descriptors from the first argument on"},
)
def select_nfds(case: Case) -> Evidence | None:
    """The first argument of select is the number of my descriptors.

    Seen: A connection has bytes to read, and the first argument of select is not above its
    descriptor.

    Why: select(2) looks at the descriptors 0 to nfds-1. The first argument is the highest
    descriptor plus 1, not their count.

    Ask: Which is the highest descriptor in your sets, and what is your first argument?

    1: Which descriptors does select look at if its first argument is 6?

    2: Look at how the first argument is computed, above all after a client has left.

    3: A night porter looks after the rooms 1 to n. When a guest leaves he lowers n by one,
    although it was room 3 that became free; from now on the last room gets no breakfast. A
    conference server kept a variable with the highest descriptor and lowered it with each close.
    The newest speaker was not heard any more. Compute it from the descriptors that are there, in
    each round, or use poll, which takes a list.

    Look: strace -e trace=select,pselect6 -p PID; ls /proc/PID/fd
    """
    call = _in_select(case)
    count = call.argument("count") if call else None
    for stream in _waiting_data(case) if call and isinstance(count, int) else ():
        assert call and isinstance(count, int)
        fd = _descriptor(stream, call)
        if fd is not None and fd >= count:
            first = f"select looks at descriptors below {count}; bytes wait at descriptor {fd}."
            return found(first, stream.opened, call, at=call, expected=f"select({fd + 1}, ...)")
    return None


@rule("E-FDSET", concept="multiplexing", pitfalls="P90")
def fdset(case: Case) -> Evidence | None:
    """select leaves my sets as they are.

    Seen: A connection has bytes to read, and it is not in the set that select looks at.

    Why: select(2) changes its sets: on return they hold only what is ready. They have to be filled
    again before each call.

    Ask: Which descriptors are in your set directly before select is called?

    1: What stands in your set when select has returned, and what has been taken out?

    2: Look at where the sets are filled: before the loop, or in each round of it?

    3: A teacher has a list of her pupils. After a question she strikes out all who did not raise a
    hand, and asks the next question to those who are left. At the end she talks to one. A server
    for a quiz filled its fd_set once, in front of the loop. After the first event only one
    descriptor was in it. Keep the list in a set of its own, and give select a copy in each round.

    Look: strace -e trace=select,pselect6 -p PID
    """
    call = _in_select(case)
    for stream in _waiting_data(case) if call else ():
        assert call
        fd = _descriptor(stream, call)
        watched = call.argument("readfds") or ()
        if fd is not None and fd not in watched:
            first = f"Bytes wait at descriptor {fd}, and select does not look at it."
            shown = "the set holds " + (", ".join(map(str, watched)) or "nothing")
            return found(first, stream.opened, call, shown, at=call, expected=f"{fd} in the set")
    return None


@rule("E-FD-SETSIZE", concept="multiplexing", pitfalls="P91")
def fd_setsize(case: Case) -> Evidence | None:
    """An fd_set grows with its descriptors.

    Seen: More than 1024 connections were open, and the program was stopped by the check for buffer
    overflows of FD_SET.

    Why: An fd_set has room for the descriptors 0 to 1023 (FD_SETSIZE); FD_SET with a higher one
    writes behind it (select(2)). poll(2) and epoll(7) have no such limit.

    Ask: What is the highest descriptor that your program puts into an fd_set?

    1: How many bits does an fd_set have, and when was that decided?

    2: Look for FD_SET in your source. Is anything done when the descriptor is 1024 or more?

    3: A board for keys has 1024 hooks. Key 1025 is hung where the board has ended, on the hook of
    the fire alarm. A chat server for a school ran for years with 30 users; at its first large
    event it crashed in a function that had nothing to do with sockets, since FD_SET had written
    one bit into the variable behind the set. poll takes a list as long as you like, and epoll
    keeps the list in the kernel.

    Look: grep FD_SETSIZE /usr/include/*/sys/select.h; ulimit -n
    """
    words = case.outcome.stderr
    stopped = "bit out of range" in words or "buffer overflow detected" in words
    remotes = {p.source for p in case.packets if "SYN" in p.flags and p.from_ != "target"}
    if not stopped or len(remotes) < _FD_SETSIZE - 16:
        return None
    line = next(line for line in words.splitlines() if "***" in line)
    first = f"With {len(remotes):,} connections the program was stopped: buffer overflow."
    return found(first, f"stderr: {line}", f"FD_SETSIZE is {_FD_SETSIZE:,}")


@rule(
    "E-BLOCKING-SEND",
    concept="flow-control",
    pitfalls="P45",
)
def blocking_send(case: Case) -> Evidence | None:
    """send returns at once.

    Seen: The only thread waits in send for a client that does not read, and another client has
    bytes waiting.

    Why: send(2) on a blocking socket sleeps while the send buffer is full, that is for as long as
    the client does not read. A wait for many descriptors helps only if no other call sleeps.

    Ask: Which of your calls can sleep because of one single client?

    1: One client stops reading. Which of your calls notices that first?

    2: Look at the flags of send and at the flags of the descriptor. What happens when the buffer
    is full?

    3: A waiter stands at a table with a plate until the guest has finished his newspaper; the
    other tables wait. A stock ticker with one loop over poll wrote with a blocking send. One
    reader closed the lid of his computer, the buffer of his connection was full after a minute,
    and the prices stood still for all. With MSG_DONTWAIT send returns EAGAIN; the rest is kept,
    and POLLOUT tells when there is room.

    Look: ss -tan  (Send-Q); strace -p PID
    """
    threads = {(c.pid, c.tid) for c in case.calls if c.socket and c.socket.transport == "tcp"}
    sends = [c for c in case.waiting_in(*WRITES) if c.socket and c.socket.transport == "tcp"]
    if not case.server or not sends or len(threads) != 1 or sends[-1].socket is None:
        return None
    mine = sends[-1].socket.inode
    others = [s for s in _waiting_data(case) if s.inode != mine]
    stuck = case.stream_at(mine)
    if not others or stuck is None or not case.named(*WAITS):
        return None
    first = "The server waits in send for one client; another one has bytes waiting."
    text = f"{amount(_unread(others[0]))} of the other client are unread"
    return found(first, sends[-1], text, at=sends[-1], expected="-1 with EAGAIN, and go on")


@rule("E-WRITE-ALL", concept="flow-control", pitfalls="P47")
def write_all(case: Case) -> Evidence | None:
    """First send everything, then read the answer.

    Seen: The client waits in send, and it has not read what came back; both ends wait for each
    other.

    Why: The buffers of the two kernels hold a few hundred kilobytes. When both directions are
    full, both programs sleep in send(2), and nobody reads.

    Ask: Who reads the answer while your client still sends?

    1: Where do the bytes of the answer wait while you send, and how large is that place?

    2: Look at the loop that sends. Can a byte of the answer be read before the loop has ended?

    3: Two people push a parcel each through the same narrow door, and neither steps back. A client
    for a sorting service sent its whole list before it read. A list of a thousand words was sorted
    at once; one of a million stood still for ever: the service could not send, so it did not read,
    so the client could not send. Send and receive at the same time: with a second thread, or with
    poll for both directions.

    Look: ss -tan  (Recv-Q and Send-Q of both ends); strace -p PID
    """
    if case.role != "client":
        return None
    for stream in case.streams:
        stuck = stream.waiting
        if stuck is None or stuck.name not in WRITES or stream.reads:
            continue
        readers = case.waiting_in(*READS)
        if stream.came() > 0 and not any(_on(c, stream) for c in readers):
            first = f"The client waits in send, and {amount(stream.came())} lie unread."
            text = f"sent {amount(stream.sent)}, read nothing"
            return found(first, stuck, text, at=stuck, expected="recv at the same time")
    return None


def _on(call: Call, stream: Stream) -> bool:
    return call.socket is not None and call.socket.inode == stream.inode


@rule("E-READ-FIRST", concept="iterative-and-concurrent")
def read_first(case: Case) -> Evidence | None:
    """The client speaks first.

    Seen: The server waits in recv for a client that says nothing, and the client waits for the
    greeting.

    Why: Which side speaks first is part of the protocol. recv(2) sleeps until a byte, a FIN or an
    error comes.

    Ask: What does your server do first after `accept`?

    1: Two people meet, and each waits for the other to say `good morning`. Who begins in this
    protocol?

    2: Look at the first call on the new descriptor behind accept.

    3: In SMTP (RFC 5321) the server greets: `220 ready`. In HTTP the client begins. A mail server
    was made from the code of a web server, and its loop began with recv. Clients for mail wait for
    the greeting before they say HELO, so both sides slept until the client gave up after five
    minutes. A test by hand did not show it: whoever typed a line and pressed Enter got the
    greeting behind it.

    Look: strace -e trace=accept,recvfrom,sendto ./greeting_server 127.0.0.1 7000
    """
    last = case.steps[-1].text if case.steps else ""
    if not case.server or "is to receive" not in last or "nothing" in last or not case.streams:
        return None
    stream = case.streams[-1]
    call = stream.waiting
    if call and call.name in READS and not stream.sent and not stream.came():
        if not stream.fin(stream.incoming) and len(case.streams) == 1 and _said_nothing(case):
            first = "The server waits for bytes of a client that waits for the greeting."
            return found(first, stream.opened, call, at=call, expected="send")
    return None


def _said_nothing(case: Case) -> bool:
    return not any("sends " in step.text for step in case.steps)
