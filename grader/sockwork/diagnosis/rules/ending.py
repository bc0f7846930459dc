"""How a connection ends: FIN or RST, too early, too late or never."""

from __future__ import annotations

from sockwork.diagnosis.case import ACCEPTS, READS, WAITS, Case, Stream
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.harness.text import amount
from sockwork.trace import Call, Packet

_RESETS = ("ECONNRESET", "EPIPE")
_IDLE = {"getsockname", "getpeername", "getsockopt", "setsockopt", "fcntl", "close"}
_STEPS = 5
_AGAIN = 20  # reads or waits after the end that no right program makes


def _close_by_reader(stream: Stream) -> Call | None:
    return stream.closes[-1] if stream.closes and not stream.open else None


def _reset_after(stream: Stream, call: Call) -> Packet | None:
    return next((p for p in stream.outgoing if "RST" in p.flags and p.time >= call.time), None)


def _unread(stream: Stream, call: Call) -> int:
    return stream.came(call.time) - stream.received


@rule("E-RST-UNREAD", concept="ending-a-connection", pitfalls="P59")
def rst_unread(case: Case) -> Evidence | None:
    """close always sends FIN.

    Seen: The program closed a connection while bytes of the other end lay unread in the socket,
    and the kernel sent RST in place of FIN.

    Why: close(2) with unread bytes sends RST, to tell the peer that data was lost (RFC 1122
    section 4.2.2.13, RFC 2525 section 2.17). On a longer way an RST can also destroy bytes that
    you have sent.

    Ask: How many bytes had come, and how many has your program read when it decides to close?

    1: What does the kernel do with bytes that have come and that nobody has read, when their
    socket is closed?

    2: Look at the calls before close. Can there still be unread bytes? Which call ends only your
    own direction and leaves the other one open?

    3: A line printer server (RFC 1179) refuses a job: it sends one byte and closes while the
    client still sends its file. The kernel drops the unread bytes and sends RST, and the refusal
    may be lost on the way. A better server sends its byte and calls shutdown(fd, SHUT_WR), so that
    FIN goes out behind it. Then it reads and drops what still comes until recv returns 0 or a
    limit of time is reached, and only then closes.

    Look: nstat -az TcpExtTCPAbortOnClose; sudo tcpdump -ni lo 'tcp[tcpflags] & tcp-rst != 0'
    """
    for stream in case.streams:
        closed = _close_by_reader(stream)
        linger = stream.set("SO_LINGER")
        if closed is None or linger or stream.failed(*_RESETS):
            continue
        reset, left = _reset_after(stream, closed), _unread(stream, closed)
        if reset and left > 0 and not stream.rst(stream.incoming):
            data = next((p for p in reversed(stream.incoming) if p.length), None)
            last = stream.reads[-1:]
            first = "The connection ended with RST in place of FIN."
            text = f"came {amount(stream.came(closed.time))}, read {amount(stream.received)}"
            lines = (data, *last, f"{text}: {amount(left)} left unread", closed, reset)
            return found(first, *lines, at=closed, packet=reset, expected="FIN")
    return None


@rule(
    "E-LINGER-ZERO",
    concept="ending-a-connection",
    pitfalls="P64",
    beats={"E-RST-UNREAD": "with SO_LINGER 0 close sends RST whether bytes are unread or not"},
)
def linger_zero(case: Case) -> Evidence | None:
    """TIME_WAIT is an error that SO_LINGER repairs.

    Seen: SO_LINGER was set to 0 seconds, and close sent RST in place of FIN.

    Why: With l_onoff 1 and l_linger 0, close(2) throws away what is not yet sent and resets the
    connection (socket(7)). TIME_WAIT is no fault: it keeps late packets away from the next
    connection (RFC 9293 section 3.6.1).

    Ask: What did you want to prevent with SO_LINGER, and who has been harmed by it so far?

    1: How does a peer tell a connection that is complete from one that broke?

    2: Look for SO_LINGER in your source. What are the two numbers in the structure, and what does
    socket(7) say about a linger time of 0?

    3: The author of a news server saw a hundred rows in TIME_WAIT and took them for a leak. He set
    SO_LINGER with 0, and the rows were gone. So was the end of some articles: what still lay in
    the send buffer was thrown away at close, and readers got `Connection reset by peer`. The rows
    cost almost nothing and vanish after a minute. To start the server again at once, SO_REUSEADDR
    is enough.

    Look: strace -e trace=setsockopt,close ./PROGRAM 127.0.0.1 7000; ss -tan state time-wait
    """
    for stream in case.streams:
        option, closed = stream.set("SO_LINGER"), _close_by_reader(stream)
        if option is None or closed is None or option.argument("value") != (1, 0):
            continue
        reset = _reset_after(stream, closed)
        if reset:
            first = "The connection ended with RST, because SO_LINGER was set to 0 seconds."
            return found(first, option, closed, reset, at=option, packet=reset, expected="FIN")
    return None


def _went_on(case: Case, stream: Stream, end: Call) -> Call | None:
    """The call in which the program sleeps at last, after it had read the end of `stream`."""
    waits = [c for c in case.waiting_in(*WAITS, *ACCEPTS, *READS) if c.pid == end.pid]
    # A thread of its own may be done with it; that nothing moved any more was seen by the check.
    still = case.failure.reason == "no-fin" and not any(c.tid == end.tid for c in waits)
    return next((c for c in waits if c.time > end.time or still), None)


@rule("E-NEVER-CLOSES", concept="ending-a-connection", pitfalls="P55 P66")
def never_closes(case: Case) -> Evidence | None:
    """When the peer has gone, the connection has gone.

    Seen: recv returned 0, the program went on to other work, and it never closed the descriptor.

    Why: recv(2) = 0 means that the peer has sent FIN. The kernel then keeps the socket in
    CLOSE_WAIT until the program calls close(2), however long that takes (RFC 9293 section 3.3.2).

    Ask: What does your program do with the descriptor when recv returns 0?

    1: Who ends the second half of a connection, and with which call?

    2: Follow the descriptor from accept through all ways out of your loop: 0, -1, a conversation
    without a byte. Is there a close on each?

    3: An IMAP server forgets the descriptors of clients that log out before they have said
    anything. `ss -tan` shows a row in CLOSE_WAIT for each, and they are there next morning: the
    kernel waits for the program, and no limit of time ends that. After some days accept fails with
    EMFILE. CLOSE_WAIT in a row means: the other side has finished, and here somebody has not
    called close.

    Look: ss -tanp state close-wait; ls /proc/PID/fd | wc -l
    """
    kept = []
    for stream in case.streams:
        end = stream.end_read
        if end is None or stream.closes or stream.shut or not stream.open:
            continue
        again = [c for c in stream.calls if c.time > end.time]
        if _went_on(case, stream, end) and len(again) < _AGAIN:
            kept.append(stream)
    if not kept or _died(case):
        return None
    stream, end = kept[0], kept[0].end_read
    sleeps = _went_on(case, stream, end) if end else None
    first = "recv returned 0, and the connection was never closed."
    count = f"{len(kept)} of {len(case.streams)} connections are still open"
    fin = stream.fin(stream.incoming)
    more = _growth(case, kept)
    return found(first, stream.opened, fin, end, sleeps, count, *more, at=end, expected="close")


def _growth(case: Case, kept: list[Stream]) -> list[str]:
    """How the number of forgotten connections grew with the clients, in five steps."""
    total = len(case.streams)
    if total < _STEPS:
        return []
    steps = [total * step // (_STEPS - 1) for step in range(_STEPS)]
    left = {stream.inode for stream in kept}
    held = [sum(s.inode in left for s in case.streams[:step]) for step in steps]
    return [
        "clients so far " + "".join(f"{step:6}" for step in steps),
        "left open      " + "".join(f"{count:6}" for count in held) + "   expected 0",
    ]


def _died(case: Case) -> bool:
    return case.ended(case.last) is not None


@rule(
    "E-CLOSE-MISSING",
    concept="ending-a-connection",
    pitfalls="P55",
)
def close_missing(case: Case) -> Evidence | None:
    """A connection ends when both have said what they wanted.

    Seen: The server has sent all that it had to say and went on to the next client, without close
    or shutdown.

    Why: FIN is sent by close(2) or shutdown(2), and by nothing else. TCP cannot know that the last
    byte was the last.

    Ask: Which call of your program tells the client that nothing more will come?

    1: How does the client learn that your answer is complete?

    2: Look at the lines after the last send. Is there a call that ends the connection before the
    next accept?

    3: A daytime server (RFC 867) sends its line and goes back to accept. The client has the line
    and waits, since the protocol says that the end of the connection is the end of the answer. The
    descriptor stays in the variable until the next client overwrites it, and then nobody can close
    it any more. With shutdown or close behind the last send, FIN follows the last byte, and the
    client's recv returns 0.

    Look: ss -tanp; strace -e trace=accept,sendto,shutdown,close ./PROGRAM 127.0.0.1 7000
    """
    if not case.server or case.failure.reason != "no-fin":
        return None
    for stream in case.streams:
        if not stream.sent or stream.reads or stream.shut or stream.closes or not stream.open:
            continue
        last = stream.writes[-1]
        sleeps = next((c for c in case.waiting_in(*ACCEPTS, *WAITS) if c.time > last.time), None)
        if sleeps and sleeps.pid == last.pid:
            first = "The server sent its answer and never ended the connection."
            return found(first, last, sleeps, at=last, expected="close or shutdown")
    return None


@rule("E-EOF-UNSEEN", concept="multiplexing", pitfalls="P66 P92")
def eof_unseen(case: Case) -> Evidence | None:
    """When the client has ended, poll says POLLHUP.

    Seen: The peer has sent FIN, and the program sleeps in a call that does not wake up for it.

    Why: A FIN makes a socket readable: poll(2) reports POLLIN and recv(2) returns 0. POLLHUP comes
    only when both directions have ended, POLLRDHUP only if it was asked for.

    Ask: Which of the events that you asked for does a FIN bring about?

    1: What does poll report when the peer has ended its side, and what when both have?

    2: Look at the `events` that you pass for this descriptor, and at the list of events in poll(2).

    3: A modem pool waits for the end of a call with POLLHUP only. On a serial line that is right.
    On a TCP connection the caller hangs up and the pool sleeps on: the FIN says `I will send no
    more`, which is readable, and the socket is not hung up while the pool's own side is open. It
    has to ask for POLLIN and read: bytes first, if there are some, and then 0, which is the end.

    Look: ss -tanp state close-wait; strace -e trace=poll ./PROGRAM 127.0.0.1 7000
    """
    for call in case.waiting_in("poll", "ppoll"):
        for entry in call.argument("fds") or ():
            stream = _stream_of(case, call, entry.get("fd"))
            if stream is None or stream.end_read:
                continue
            fin = stream.fin(stream.incoming)
            events = str(entry.get("events")).split("|")
            if fin and not {"POLLIN", "POLLRDHUP"} & set(events):
                first = f"FIN has come, and poll waits for {'|'.join(events)} only."
                return found(first, fin, call, at=call, expected="POLLIN")
    return None


def _stream_of(case: Case, call: Call, fd: object) -> Stream | None:
    """The connection that a descriptor of the caller is at the end."""
    for stream in case.streams:
        if isinstance(fd, int) and fd in stream.holders.get(call.pid, ()):
            return stream
    return None


@rule(
    "E-PARENT-KEEPS",
    concept="signals-and-children",
    pitfalls="P56 P63",
    beats={"E-NEVER-CLOSES": "another process closed its copy"},
)
def parent_keeps(case: Case) -> Evidence | None:
    """close in the child ends the connection.

    Seen: The child closed its descriptor and ended, and another process still holds the same
    connection open; no FIN was sent.

    Why: fork(2) copies every descriptor. FIN goes out when the last descriptor of a socket is
    closed, in whichever process that is (close(2)).

    Ask: Which processes hold the connection when the child is done?

    1: How many descriptors lead to the connection directly after `fork`?

    2: Look at what the parent does with the descriptor behind `fork`. Then compare `ls -l
    /proc/PID/fd` of both.

    3: Two people hold the two ends of one receiver, and the line is free only when both have put
    it down. A finger server forks, the child answers and closes, and the client waits for ever:
    the parent has the same connection as descriptor 4. The next client is 5, the next 6, until
    there are no more. Behind fork each of the two should close what belongs to the other: the
    parent the connection, the child the listener.

    Look: ss -tanp state close-wait; ls -l /proc/PID/fd
    """
    for stream in case.streams:
        closers = {call.pid for call in stream.closes}
        keepers = set(stream.holders) - closers
        fin = stream.fin(stream.outgoing) or stream.rst(stream.outgoing)
        forked = {e.child for e in case.processes if e.event == "fork"}
        if closers & forked and keepers and not fin and stream.fin(stream.incoming):
            keeper = min(keepers)
            first = "The child closed the connection, and its parent still holds it."
            line = f"process {keeper} has it as descriptor {min(stream.holders[keeper])}"
            at = stream.opened
            return found(
                first, stream.opened, *stream.closes[:1], line, at=at, expected="close in both"
            )
    return None


@rule("E-CLOSE-EARLY", concept="ending-a-connection")
def close_early(case: Case) -> Evidence | None:
    """After accept and a line of output the work is done.

    Seen: The program closed the connection although it was to wait until the client ends it.

    Why: close(2) ends the connection for both. To wait for the client, read until recv(2) returns
    0, which it does when the client's FIN has come.

    Ask: What does your program do between the last line of its output and `close`?

    1: How can a program find out that the client has ended the connection?

    2: Look at the calls between accept and close. Is there one that waits for the client?

    3: A time-lock protocol says: the door stays open as long as the visitor holds the connection.
    The first version opened the door, wrote a line into its log and closed the connection in the
    same millisecond; the visitor stood outside. The next one reads and throws away what comes
    until recv returns 0. Whether the visitor says something or nothing, 0 comes only when he ends
    his side.

    Look: strace -e trace=accept,recvfrom,close ./endpoints 127.0.0.1 7000
    """
    if case.failure.reason != "ended-early" or case.role == "client":
        return None
    for stream in case.streams:
        fin = stream.fin(stream.outgoing)
        earlier = stream.fin(stream.incoming)
        spoke = any(packet.length for packet in stream.outgoing)
        if (
            fin
            and stream.closes
            and not earlier
            and not spoke
            and {c.name for c in stream.calls} <= _IDLE
        ):
            first = "The program closed the connection; the client had not ended its side."
            closed = stream.closes[0]
            return found(first, stream.opened, closed, fin, at=closed, packet=fin, expected="recv")
    return None


def _stdin_end(case: Case) -> Call | None:
    """The read that told a client that its input has ended."""
    return next((c for c in case.named("read") if c.fd == 0 and c.result == 0), None)


@rule("E-NO-FIN", concept="ending-a-connection", pitfalls="P60")
def no_fin(case: Case) -> Evidence | None:
    """The server sees that I have nothing more to say.

    Seen: The client's input has ended, it never ended its sending side, and both programs wait for
    each other.

    Why: Only shutdown(2) or close(2) sends FIN. Without it the server cannot tell a client that is
    done from one that is thinking.

    Ask: How does the server learn that your client has sent everything?

    1: Your input is at its end. What does the server know about that?

    2: Look at the branch for the end of the input. Which call ends only the sending direction of
    the socket?

    3: A client for a spelling service sends a text and waits for the corrections. The service
    waits for the rest of the text. Both sleep in recv, nothing is on the wire, and nothing will
    ever be: nobody can prove to the service that the text is complete. The client has to call
    shutdown(fd, SHUT_WR): FIN goes out behind the last byte, the service reads 0, and its answer
    still comes back over the other half.

    Look: ss -tan; strace -e trace=read,sendto,shutdown,recvfrom ./echo_client 127.0.0.1 7000
    """
    end = _stdin_end(case)
    if end is None or case.role != "client":
        return None
    for stream in case.streams:
        later = [c for c in stream.calls if c.time > end.time]
        acted = stream.shut or stream.closes or any(c.name in ("sendto", "write") for c in later)
        sleeps = next((c for c in case.waiting_in(*READS, *WAITS) if c.run == stream.run), None)
        if not acted and sleeps and stream.open and not stream.fin(stream.outgoing):
            first = "The input of the client has ended, and no FIN was sent."
            return found(first, end, sleeps, at=end, expected="shutdown(fd, SHUT_WR)")
    return None


@rule(
    "E-CLOSE-NOT-SHUTDOWN",
    concept="ending-a-connection",
    pitfalls="P58",
    beats={"E-SHORT-READ": "the connection was closed at the end of the input, not after a read"},
)
def close_not_shutdown(case: Case) -> Evidence | None:
    """close is the way to say that I am done.

    Seen: At the end of its input the client closed the socket, and the answer that was still to
    come was refused with RST.

    Why: close(2) ends both directions: what arrives later is answered with RST. shutdown(fd,
    SHUT_WR) sends the same FIN and leaves the receiving side open (shutdown(2)).

    Ask: Which direction of the connection has ended when your input has ended?

    1: You have sent everything. Has everything come back?

    2: Look at the branch for the end of the input. Does the call there end one direction or both?

    3: A visitor hands in a form and runs out of the office; the clerk calls after him, and nobody
    is there. A client for a translation service closed its socket when its text was sent. On the
    way back was the translation; the kernel had no socket any more and answered it with RST. With
    shutdown(fd, SHUT_WR) the client says `I will send no more` and stays to listen until recv
    returns 0.

    Look: sudo tcpdump -ni lo port 7000; strace -e trace=read,close,shutdown ./echo_client
    127.0.0.1 7000
    """
    end = _stdin_end(case)
    if case.role != "client":
        return None
    if end is None:
        return _answer_refused(case)
    for stream in case.streams:
        closed = _close_by_reader(stream)
        if closed is None or closed.time < end.time or stream.end_read or stream.shut:
            continue
        late = next((p for p in stream.incoming if p.length and p.time > closed.time), None)
        if stream.received < stream.sent and stream.sent and not stream.failed(*_RESETS):
            first = "The client closed the connection before its answer had come."
            text = f"sent {amount(stream.sent)}, received {amount(stream.received)}"
            reset = _reset_after(stream, closed)
            expected = "shutdown(fd, SHUT_WR)"
            lines = (end, closed, text, late, reset)
            return found(first, *lines, at=closed, packet=reset, expected=expected)
    return None


def _answer_refused(case: Case) -> Evidence | None:
    """The same without a record of calls: the client sent its FIN before any answer, ended well,
    and its kernel refused the answer."""
    status = case.ended(case.last)
    if case.calls or status is None or (status.kind, status.code) != ("exit", 0):
        return None
    for fin in case.packets:
        if fin.from_ != "target" or "FIN" not in fin.flags:
            continue
        ends = {fin.source, fin.destination}
        both = [p for p in case.packets if {p.source, p.destination} == ends]
        answers = [p for p in both if p.from_ != "target" and p.length]
        reset = next((p for p in both if p.from_ == "target" and "RST" in p.flags), None)
        if answers and reset and fin.time < answers[0].time < reset.time:
            first = "The client closed the connection before its answer had come."
            expected = "shutdown(fd, SHUT_WR)"
            return found(first, fin, answers[0], reset, packet=reset, expected=expected)
    return None


@rule("E-CLOSE-BEFORE-FLUSH", concept="ending-a-connection", pitfalls="P65")
def close_before_flush(case: Case) -> Evidence | None:
    """FIN means that the client has left.

    Seen: recv returned 0, and the server closed the connection although it still had bytes to send
    back.

    Why: FIN ends one direction: `I will send no more`. The client may wait for its answer (RFC
    9293 section 3.6). What the server has not sent yet is lost with close.

    Ask: What does your server still owe to this client when recv returns 0?

    1: A client has ended its side. Which of the two directions has ended with that?

    2: Look at the branch for recv = 0. Is there a queue with bytes for this client, and what
    becomes of it?

    3: A customer pays, says `that was all`, and holds out his hand for the change. The cashier
    closes the till, since the customer has nothing more to say. A proxy did this to each slow
    reader: at the FIN it closed the connection, and the megabyte in its own queue went with it.
    Now the FIN only notes that nothing more will come. The connection is closed when its queue is
    empty.

    Look: strace -e trace=recvfrom,sendto,close ./echo_server 127.0.0.1 7000
    """
    if case.program != "echo_server":
        return None
    for stream in case.streams:
        end, closed = stream.end_read, _close_by_reader(stream)
        last = stream.shut or closed
        if end is None or last is None or last.time < end.time or stream.failed(*_RESETS):
            continue
        if stream.rst(stream.incoming) or stream.set("SO_LINGER"):
            continue
        owed = stream.received - stream.sent
        if owed > 0 and _knew(stream):
            first = f"The server closed while it still owed {amount(owed)}."
            text = f"read {amount(stream.received)}, sent back {amount(stream.sent)}"
            fin = stream.fin(stream.outgoing)
            return found(
                first, end, text, last, at=last, packet=fin, expected="the rest of the bytes"
            )
    return None


def _knew(stream: Stream) -> bool:
    """The kernel had told that it took less than all: the rest was the program's to keep."""
    return any(c.error == "EAGAIN" or _short(c) for c in stream.writes)


def _short(call: Call) -> bool:
    size = call.argument("size")
    return isinstance(size, int) and call.result is not None and call.result < size


@rule("E-EOF-SPIN", concept="multiplexing", pitfalls="P49", endless=True)
def eof_spin(case: Case) -> Evidence | None:
    """recv = 0 means that nothing has come yet.

    Seen: recv returned 0, and the program reads or polls the same descriptor again and again.

    Why: 0 is the end of the stream (recv(2)): it is returned each time from then on, and the
    descriptor stays readable for poll(2). `Nothing yet` is -1 with EAGAIN, or sleep.

    Ask: What does your loop do with a descriptor whose recv has returned 0?

    1: recv can return a number above 0, 0 or -1. What does each of them say?

    2: Look at the branch for 0: is there a close, and is the descriptor taken out of what you wait
    for?

    3: A reader of news puts each letter on a pile. When the box is empty he opens it again, at
    once, a million times: `perhaps now`. But the box is not empty, it was taken down. A chat
    server kept the descriptors of users who had left in its poll list; each was readable for ever,
    with 0 bytes to read, and poll returned at once. With one such user a whole processor was busy.
    0 means: close it, and forget it.

    Look: strace -c -p PID; ss -tanp state close-wait
    """
    for stream in case.streams:
        end = stream.end_read
        if end is None or not stream.open:
            continue
        zeros = [c for c in stream.reads if c.time >= end.time and c.result == 0]
        waits = [c for c in case.named(*WAITS) if c.time > end.time and c.pid == end.pid]
        woken = [c for c in waits[: _AGAIN * 5] if _readable(c, end.fd)]
        if len(zeros) >= _AGAIN or len(woken) >= _AGAIN:
            again = zeros[1:3] if len(zeros) > 2 else woken[:2]
            first = "recv had returned 0, and the program goes on to look at the descriptor."
            count = f"{len(zeros)} reads returned 0, {len(woken)} waits found it readable"
            return found(first, end, *again, count, at=end, expected="close")
    return None


def _readable(call: Call, fd: int | None) -> bool:
    ready = call.argument("fds") or call.argument("events") or ()
    if call.name in ("select", "pselect6"):
        return call.result is not None and fd in (call.argument("readfds") or ())
    for entry in ready if isinstance(ready, tuple) else ():
        events = str(entry.get("revents", entry.get("events")))
        if entry.get("fd", entry.get("data")) == fd and "IN" in events:
            return True
    return False


@rule(
    "E-LEAK-ON-ERROR",
    concept="descriptors-and-limits",
    pitfalls="P114",
    beats={"E-NEVER-CLOSES": "the connections that ended in order were closed"},
)
def leak_on_error(case: Case) -> Evidence | None:
    """After an error there is nothing to close.

    Seen: Connections that ended in order were closed; those that ended with RST were not.

    Why: An error of recv(2) or send(2) ends the connection, not the descriptor. Only close(2)
    gives the number back to the process.

    Ask: Which ways lead out of your loop, and which of them pass by a close?

    1: A descriptor is a number in a table of your process. Which call takes it out of the table?

    2: Look at the branch for a failed recv or send. Compare it with the one for recv = 0.

    3: A library counts the books that come back and forgets those that are lost: their cards stay
    in the box for ever. A mail server closed each connection at its end, and returned from its
    function with an error when a client had reset. Two percent of its clients did so. After three
    weeks accept failed with EMFILE, and `ls /proc/PID/fd` showed a thousand sockets. One place
    where every way out closes the descriptor, such as a destructor, cannot be forgotten.

    Look: ls -l /proc/PID/fd; ss -tanp
    """
    broken = [s for s in case.streams if s.open and s.failed(*_RESETS) and not s.closes]
    closed = [s for s in case.streams if s.closes and s.end_read and not s.open]
    if len(broken) < 2 or _died(case) or case.failure.reason not in ("leak", "no-fin"):
        return None
    first = f"{len(broken)} connections that were reset are still open."
    bad = broken[0].failed(*_RESETS)
    text = f"{len(closed)} that ended with FIN were closed"
    more = _growth(case, broken)
    return found(first, broken[0].opened, bad, text, *more, at=bad, expected="close")
