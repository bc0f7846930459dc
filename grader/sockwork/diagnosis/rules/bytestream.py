"""A stream of bytes taken for messages, for text, or for something that fits into one call."""

from __future__ import annotations

import re

from sockwork.diagnosis.case import READS, WAITS, WRITES, Case, Stream, unfinished
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.harness.text import amount, quoted
from sockwork.trace import Call

_HEAD = 48  # bytes of each call that the trace keeps
_MEBIBYTE = 1 << 20
_SMALL = 1000  # bytes that fit into one segment
_NO_END = 16 * _MEBIBYTE  # more in memory for one client than any right design keeps


def _size(call: Call) -> int:
    size = call.argument("size")
    return size if isinstance(size, int) else 0


def _short(call: Call) -> bool:
    return call.result is not None and 0 < call.result < _size(call)


def _output(case: Case, run: int) -> list[Call]:
    return [c for c in case.named(*WRITES) if c.fd == 1 and c.run == run and c.bytes]


@rule(
    "E-SHORT-READ",
    concept="byte-streams",
    pitfalls="P31",
    beats={"E-RST-UNREAD": "it closed with bytes unread because it took one read for all"},
)
def short_read(case: Case) -> Evidence | None:
    """One recv is one message.

    Seen: The program took what one recv returned for the whole, and did not read on.

    Why: TCP is a byte stream (RFC 9293 section 3.8). recv(2) returns what has arrived, from 1 byte
    up to the size you ask for. On loopback one write often arrives whole, so the fault hides.

    Ask: Which line of your program decides that everything has come?

    1: The server writes once, and your program reads once. Who promised that the two belong
    together?

    2: Look at the number that recv returned and at what your program does next. By which sign does
    this protocol end a message?

    3: A client for HTTP/1.0 calls recv once with room for 64 KiB and shows the page. In the
    laboratory it is always complete. On a line by telephone the page has 300 bytes of headers and
    nothing else, because that was in the first packet. In this protocol the end of the connection
    is the end of the page, so the client has to read in a loop until recv returns 0, and keep what
    came before.

    Look: strace -e trace=recvfrom ./PROGRAM 127.0.0.1 7000; (printf hel; sleep 1; printf lo) | nc
    -lN 7000
    """
    if case.role != "client":
        return None
    for stream in case.streams:
        reads = [c for c in stream.reads if c.result]
        if not reads or stream.end_read or stream.waiting or stream.failed("ECONNRESET"):
            continue
        last = reads[-1]
        ended = stream.closes or case.ended(stream.run)
        more = stream.came() > stream.received or not stream.fin(stream.incoming)
        filled = last.result == _size(last)
        if len(reads) == 1 and ended and more and not filled and stream.came() > 0:
            first = f"The client stopped after {amount(stream.received)}: one recv() is not all."
            later = next((p for p in stream.incoming if p.length and p.time > last.time), None)
            sizes = [str(p.length) for p in stream.incoming if p.length][:8]
            text = f"the peer sent pieces of {', '.join(sizes)} bytes"
            closed = stream.closes[0] if stream.closes else None
            return found(
                first, text, last, closed, later, at=last, packet=later, expected="recv again"
            )
    return None


@rule(
    "E-ONE-READ-EACH",
    concept="byte-streams",
    pitfalls="P31",
)
def one_read_each(case: Case) -> Evidence | None:
    """What I send comes back as one piece.

    Seen: The client read once for each piece that it had sent; the rest of the answer stays in the
    socket.

    Why: A stream keeps the order of the bytes, not the pieces in which they were written. An
    answer may come in more pieces than the question had, or in fewer (RFC 9293 section 3.8).

    Ask: How many times does your client read for each time that it sends?

    1: The server may send its answer in ten pieces. How would your client notice the ninth?

    2: Look at what wakes your client: does it look at the socket again when it has nothing to send?

    3: Two people talk by telegram: one question, one answer, one question, one answer. Then an
    answer comes on two sheets. The first sheet is read, the next question is sent, and from now on
    each answer belongs to the question before it. A client of a database was off by one in this
    way since its first long result. It has to count bytes or lines of the answer, or read whatever
    comes, whenever it comes.

    Look: strace -e trace=read,sendto,recvfrom ./echo_client 127.0.0.1 7000
    """
    if case.role != "client":
        return None
    for stream in case.streams:
        reads = [c for c in stream.reads if c.result]
        writes = [c for c in stream.writes if c.result]
        left = stream.came() - stream.received
        if left <= 0 or not reads or not stream.open or stream.waiting or len(reads) > len(writes):
            continue
        sleeps = next((c for c in case.waiting_in("read", *WAITS) if _input_only(c, stream)), None)
        if sleeps:
            first = f"{amount(left)} of the answer lie unread; the client waits for its input."
            return found(first, writes[-1], reads[-1], sleeps, at=reads[-1], expected="recv again")
    return None


def _input_only(call: Call, stream: Stream) -> bool:
    """It waits for the input of the program, and does not look at the connection."""
    if call.name == "read":
        return call.fd == 0
    mine = stream.holders.get(call.pid, set())
    return _waits_for(call, 0) and not any(_waits_for(call, fd) for fd in mine)


@rule(
    "E-FIXED-BUFFER",
    concept="byte-streams",
    beats={
        "E-RST-UNREAD": "it closed with bytes unread because its array was full",
        "E-SHORT-READ": "the reading ended because the array was full",
    },
)
def fixed_buffer(case: Case) -> Evidence | None:
    """An answer fits into my buffer.

    Seen: The program read until its buffer was full, and what came behind that was lost.

    Why: The peer alone decides how long a stream is. A program that hands on each piece before it
    reads the next needs only a small buffer for a stream of any length.

    Ask: What does your program do when its buffer is full and more comes?

    1: How long may the answer be, and who decides it?

    2: Look at the size that you pass to recv. Does it become smaller with each call, and what
    happens at 0?

    3: A traveller takes pictures until the film of 36 is full and goes home; the best view came
    behind the next bend. A program that showed log files read them into an array of 64 KiB, and
    showed the beginning of each larger one as if it were all. The next version reads 4 KiB, writes
    4 KiB, and reads again, until 0. It needs less memory, shows the first line at once, and has no
    longest file.

    Look: strace -e trace=recvfrom,write ./greeting_client 127.0.0.1 7000
    """
    if case.role != "client":
        return None
    for stream in case.streams:
        reads = [c for c in stream.reads if c.result]
        if not reads:
            continue
        full = reads[-1].result == _size(reads[-1])
        shrinks = len(reads) == 1 or _size(reads[-1]) < _size(reads[0])
        none = next((c for c in stream.reads if _size(c) == 0 and c.result == 0), None)
        more = stream.came() > stream.received or not stream.fin(stream.incoming)
        if not full or not (shrinks or none) or stream.end_read or not more or stream.open:
            continue
        first = f"The program read {amount(stream.received)}; then its buffer was full."
        lines = (reads[0], reads[-1], none, *stream.closes[:1])
        return found(first, *lines, at=reads[-1], expected="recv again")
    return None


def _echoed(stream: Stream) -> list[tuple[Call, list[Call]]]:
    """Each read with the writes that followed it before the next read."""
    groups: list[tuple[Call, list[Call]]] = []
    for call in stream.calls:
        if call.name in READS and call.result:
            groups.append((call, []))
        elif call.name in WRITES and groups and call.result:
            groups[-1][1].append(call)
    return groups


def _stalled(case: Case, stream: Stream) -> bool:
    """Nothing more was done for it: the program sleeps, and the connection is open."""
    asleep = [c for c in case.waiting_in(*READS, *WAITS)]
    return stream.open and bool(asleep) and not any(c.name in WRITES for c in asleep)


@rule("E-COALESCED", concept="byte-streams", pitfalls="P32")
def coalesced(case: Case) -> Evidence | None:
    """Behind the newline nothing more comes.

    Seen: Several lines came with one recv; the program answered the first and dropped the others.

    Why: What was written with several calls may be read with one (RFC 9293 section 3.8). All bytes
    that recv(2) returned are the program's, also those behind the first newline.

    Ask: What does your program do with the bytes behind the first newline?

    1: Can one recv return two lines? And two and a half?

    2: Look at the place where a line is cut off. Where do the bytes behind it go?

    3: A seller opens one letter a day, reads its first order and throws the letter away. A
    customer had written three orders on one sheet. A server for SMTP did so with clients that send
    several commands at once (RFC 2920): it answered MAIL and forgot RCPT and DATA, and the client
    waited for two answers. Bytes stay in the buffer until they are used: cut off a line, answer
    it, look for the next newline, and read again only if there is none.

    Look: printf 'one\\ntwo\\nthree\\n' | nc -N 127.0.0.1 7000
    """
    if case.program != "echo_server":
        return None
    for stream in case.streams:
        for read, writes in _echoed(stream):
            text = read.bytes.head if read.bytes else b""
            cut = text.find(b"\n") + 1
            sent = sum(w.result or 0 for w in writes)
            if not 0 < cut < (read.result or 0) or sent != cut or not _stalled(case, stream):
                continue
            if stream.received > stream.sent and read is _echoed(stream)[-1][0]:
                first = f"{amount(read.result or 0)} came, and only the first line was answered."
                lost = f"{amount((read.result or 0) - sent)} behind the newline were dropped"
                return found(first, read, *writes[:1], lost, at=read, expected="all of them")
    return None


@rule("E-WAITS-NEWLINE", concept="byte-streams", pitfalls="P31 P48")
def waits_newline(case: Case) -> Evidence | None:
    """Everything that comes ends with a newline.

    Seen: Bytes without a newline came; the program read them and waits for more.

    Why: A stream has no lines (RFC 9293 section 3.8). Functions that read lines wait until a
    newline has come; a protocol without lines, such as echo (RFC 862), need not send one.

    Ask: What does your server wait for when it has read bytes without a newline?

    1: Does the protocol say that its messages are lines?

    2: Look at the function that reads. Does it return as soon as something has come, or only when
    something certain has come?

    3: A gate opens for a code of four digits. Its author used a function that reads lines, and
    tested it by hand with the Enter key. The real keypad sends four digits and no newline: the
    gate stays closed, and the function waits. A function for lines hides a loop that goes on until
    `\\n`. Where the protocol has no lines, read what has come, with recv or read, and use what you
    have got.

    Look: printf 'no newline' | nc -N 127.0.0.1 7000; strace -e trace=recvfrom,read,sendto -p PID
    """
    if case.program != "echo_server":
        return None
    for stream in case.streams:
        groups = _echoed(stream)
        held = stream.received - stream.sent
        if held <= 0 or not groups or groups[-1][1] or not _stalled(case, stream):
            continue
        read, _ = groups[-1]
        tail = read.bytes.head[-held:] if read.bytes and read.bytes.size <= _HEAD else b"\n"
        waits = any("MSG_WAITALL" in str(c.argument("flags")) for c in stream.reads)
        sleeps = [c for c in case.waiting_in(*READS, *WAITS) if c.time > read.time]
        if b"\n" not in tail and sleeps and not waits and _asks_again(case, stream, sleeps[0]):
            first = f"The program read {quoted(tail, 24)} and waits for more before it answers."
            return found(first, read, sleeps[0], at=sleeps[0], expected="send")
    return None


def _asks_again(case: Case, stream: Stream, call: Call) -> bool:
    return call.name in WAITS or (call.socket is not None and call.socket.inode == stream.inode)


@rule(
    "E-WAITALL",
    concept="byte-streams",
    pitfalls="P48",
    beats={"E-ITERATIVE": "it would sleep in this call with one client as well"},
)
def waitall(case: Case) -> Evidence | None:
    """recv fills the buffer.

    Seen: The program waits in recv until a certain number of bytes has come, and fewer have come.

    Why: With MSG_WAITALL recv(2) sleeps until all the bytes that were asked for are there. Where
    the length is not known before, that may be for ever.

    Ask: How does your program know how many bytes will come?

    1: Which length do you pass to recv, and who promised that so many come?

    2: Look at the flags of your recv, or at a loop around it that goes on until a count is reached.

    3: A bus leaves when all 40 seats are taken; in the morning that is quick, in the evening three
    people sit in it all night. A client for a stock ticker read blocks of 512 bytes with
    MSG_WAITALL. At noon that worked. At night a quote of 30 bytes lay in the socket and was shown
    when sixteen more had come. MSG_WAITALL is right where a length stands in front of the data;
    else take what is there.

    Look: strace -e trace=recvfrom -p PID; ss -tan  (Recv-Q is not 0)
    """
    for stream in case.streams:
        call = stream.waiting
        if call is None or "MSG_WAITALL" not in str(call.argument("flags")):
            continue
        before = sum(c.result or 0 for c in stream.reads if c.time < call.time)
        if stream.came() > before and stream.open:
            size = _size(call)
            first = f"recv waits for {amount(size)}, and {amount(stream.came() - before)} came."
            return found(first, call, at=call, expected="return with what has come")
    return None


@rule("E-NUL-CUT", concept="byte-streams", pitfalls="P05 P54")
def nul_cut(case: Case) -> Evidence | None:
    """Bytes that come are a string.

    Seen: What the program handed on ends at a zero byte of what it had read.

    Why: strlen(3), `%s` and fgets(3) take a zero byte for the end of a string. The length of what
    was read is the return value of recv(2) or read(2), and nothing else.

    Ask: Which line computes the length of what you send or print?

    1: Which bytes may stand in the middle of the data? Is one of them special to you?

    2: Look for strlen, `%s`, fputs and std::string made from a pointer. Where could the number
    that recv returned be used?

    3: A program copies pictures over TCP, and all arrive with 8 bytes. A PNG file begins with
    eight bytes without a zero, and then comes the length of the first block, `00 00 00 0d`. strlen
    stopped there. Text files had always worked. The number of bytes is known: recv returned it. It
    goes with the buffer to each function that needs it, to send, to write, to fwrite, and no
    function has to guess the end.

    Look: printf 'ab\\0cd' | nc -N 127.0.0.1 7000 | xxd
    """
    for read, write in _handed_on(case):
        source = read.bytes.head if read.bytes else b""
        size = _size(write)
        zero = source.find(b"\0")
        if zero > 0 and size == zero and (read.result or 0) > size and _same(write, source):
            first = (
                f"{amount(read.result or 0)} were read, and {size} handed on: up to a zero byte."
            )
            return found(first, read, write, quoted(source, 24), at=write, expected="all of them")
        if size < (read.result or 0) and zero < 0 and _same(write, source) and not _short(write):
            if _difference_is_zero(case):
                first = f"{amount(read.result or 0)} were read, and {size} handed on."
                line = "the byte behind them is a zero byte"
                return found(first, read, write, line, at=write, expected="all of them")
    return _cut_output(case)


def _handed_on(case: Case) -> list[tuple[Call, Call]]:
    """Each read of data with the first write that follows it in the same thread."""
    pairs = []
    for place, call in enumerate(case.calls):
        if call.name not in READS or not call.result or (call.fd != 0 and not call.socket):
            continue
        later = (c for c in case.calls[place + 1 : place + 40] if c.tid == call.tid)
        write = next((c for c in later if c.name in WRITES and c.fd != 2 and c.bytes), None)
        if write:
            pairs.append((call, write))
    return pairs


def _same(write: Call, source: bytes) -> bool:
    head = write.bytes.head if write.bytes else b""
    return bool(head) and source.startswith(head[: len(source)])


def _difference_is_zero(case: Case) -> bool:
    """The byte that was expected where the data ended is a zero byte, as the check saw it."""
    expected = next((line for line in case.failure.evidence if line.startswith("expected")), "")
    got = next((line for line in case.failure.evidence if line.startswith("got")), "")
    wanted = re.search(r'"(.*)"', expected)
    came = re.search(r'"(.*)"', got)
    if not wanted or not came or not wanted[1].startswith(came[1]):
        return False
    return wanted[1][len(came[1]) :].startswith("\\0")


def _cut_output(case: Case) -> Evidence | None:
    """The same for a program that prints what came."""
    if case.role != "client" or not case.streams:
        return None
    stream = case.streams[-1]
    read = next((c for c in stream.reads if c.bytes and b"\0" in c.bytes.head), None)
    if read is None or read.bytes is None:
        return None
    start = read.bytes.head[: read.bytes.head.index(b"\0")]
    printed = case.printed(stream.run)
    if not start or start not in printed or start + b"\0" in printed or stream.waiting:
        return None
    if len(printed) >= stream.received:
        return None
    first = (
        f"{amount(stream.received)} were read and {len(printed)} printed: zero bytes are missing."
    )
    return found(first, read, quoted(read.bytes.head, 24), at=read, expected="all of them")


@rule("E-NUL-SENT", concept="byte-streams", pitfalls="P06")
def nul_sent(case: Case) -> Evidence | None:
    """The zero byte belongs to the text.

    Seen: The program sent a zero byte behind its text.

    Why: sizeof of a string literal counts the zero byte at its end, strlen(3) does not. On the
    wire there are only the bytes of the protocol.

    Ask: How many bytes does your text have, and how many does your program send?

    1: Which bytes does the protocol name, and which one does the compiler add?

    2: Look at the length that goes into send: sizeof, strlen, or a number?

    3: A client of a weather station sends `sizeof "GET\\n"`, five bytes: G, E, T, newline and a
    zero byte. The station answers the command and finds a zero byte in front of the next one.
    `\\0GET` is no command, and from the second question on all answers are errors. The zero byte
    is how C finds the end of a text in memory; it is no part of the text. sizeof minus one,
    strlen, or a std::string_view give four.

    Look: nc 127.0.0.1 7000 </dev/null | xxd
    """
    if case.failure.reason not in ("unexpected-bytes", "wrong-bytes"):
        return None
    for stream in case.streams:
        call = next((c for c in stream.writes if c.bytes), None)
        if call and call.bytes and call.bytes.size <= _HEAD and call.bytes.head.endswith(b"\0"):
            if not stream.received and call.bytes.head.count(b"\0") == 1:
                first = f"{amount(call.bytes.size)} were sent, and the last is a zero byte."
                return found(first, call, quoted(call.bytes.head), at=call, expected="no zero byte")
    return None


@rule("E-EXTRA-NEWLINE", concept="byte-streams")
def extra_newline(case: Case) -> Evidence | None:
    """A line of output needs a newline of mine.

    Seen: The program added a newline that was not in the data.

    Why: A stream is handed on byte for byte. print(), puts(3) and std::endl each add a newline of
    their own.

    Ask: Which of your calls writes a byte that nobody gave you?

    1: How many bytes came, and how many did you write?

    2: Look at the function that writes. What does it add to what it is given?

    3: A tool copies a file through print(), piece by piece. A text comes out with empty lines in
    it, a picture comes out broken; the sum of the bytes is larger by one for each piece. print is
    made for people who read one thing a line. To hand on bytes, write exactly those that came:
    fwrite, std::cout.write, sys.stdout.buffer.write. The newline of a line is part of the data and
    comes with it.

    Look: printf abc | nc -lN 7000 & ./PROGRAM 127.0.0.1 7000 | xxd
    """
    if case.failure.reason not in ("wrong-output", "unexpected-bytes", "wrong-bytes"):
        return None
    for stream in case.streams:
        if stream.run != case.last or not stream.reads:
            continue
        data = b"".join(c.bytes.head for c in stream.reads if c.bytes)
        printed = case.printed(stream.run)
        pieces = [c for c in stream.reads if c.result]
        complete = len(data) == stream.received
        if case.role == "client" and complete and data and printed != data:
            if printed in (data + b"\n", b"".join(_line(c) for c in pieces)):
                write = next(iter(_output(case, stream.run)), None)
                first = f"{amount(len(data))} came, {amount(len(printed))} were printed."
                ends = f"the output ends with {quoted(printed[-4:])}"
                tail = f"{ends}, the data with {quoted(data[-4:])}"
                return found(first, pieces[-1], write, tail, at=write, expected="no newline")
    return _newline_sent(case)


def _line(call: Call) -> bytes:
    return (call.bytes.head if call.bytes else b"") + b"\n"


def _newline_sent(case: Case) -> Evidence | None:
    """A server that speaks first and ends its fixed text with a newline."""
    seen = case.failure.observed
    if case.failure.reason != "unexpected-bytes" or not seen.endswith('"\\n".'):
        return None
    for stream in case.streams:
        call = next((c for c in reversed(stream.writes) if c.bytes), None)
        if call and call.bytes and call.bytes.head.endswith(b"\n") and not stream.received:
            first = "The program sent a newline that is not in the contract."
            return found(first, call, quoted(call.bytes.head), at=call, expected="no newline")
    return None


@rule("E-EXTRA-BYTES", concept="byte-streams")
def extra_bytes(case: Case) -> Evidence | None:
    """A few words of mine make the answer clearer.

    Seen: The program sent the bytes of the client with bytes of its own around them.

    Why: The other end is a program that reads what the protocol says. In the echo protocol the
    answer is exactly what was sent (RFC 862).

    Ask: Which bytes of your answer did the client not send?

    1: Who reads the answer, a person or a program?

    2: Compare the arguments of recv and send: does the same buffer with the same length go out?

    3: A time server answered `The time is 3913056000` because that is friendlier than a number.
    People liked it. The clocks that asked it took the first four bytes, `The `, as the seconds
    since 1900 and showed the year 1944. A protocol is a promise about each byte. What is meant for
    people goes to standard error, or into a log.

    Look: printf hello | nc -N 127.0.0.1 7000 | xxd
    """
    if case.program != "echo_server":
        return None
    for stream in case.streams:
        for read, writes in _echoed(stream):
            data = read.bytes.head if read.bytes else b""
            whole = b"".join(w.bytes.head for w in writes if w.bytes)
            at = whole.find(data) if data and len(data) <= _HEAD else -1
            if at >= 0 and len(whole) > len(data) == read.result and len(whole) <= 4 * _HEAD:
                own = whole[:at] or whole[at + len(data) :]
                first = f"The client sent {quoted(data, 24)}; {quoted(whole, 32)} went back."
                if own != b"\0":
                    text = f"bytes of its own: {quoted(own)}"
                    return found(first, read, *writes[:2], text, at=writes[0], expected="no more")
    return None


@rule("E-STALE-TAIL", concept="byte-streams", pitfalls="P06")
def stale_tail(case: Case) -> Evidence | None:
    """The buffer holds what has come.

    Seen: A short piece came after a longer one, and the program wrote the end of the longer one
    again.

    Why: recv(2) writes as many bytes as it returns and leaves the rest of the buffer as it was.
    Only the return value says how much of it is new.

    Ask: Where does the length come from with which you write?

    1: A piece of 90 bytes comes and then one of 3. What stands in the buffer now?

    2: Look at the length that goes into the call that writes. Is it the number that this recv
    returned?

    3: A board shows the next train. `Amsterdam Centraal` was there, then `Utrecht` is written over
    it, and passengers read `Utrechtam Centraal`. The program had written the new name into the old
    array and shown it up to its old length. Each message has its own length: keep the two
    together, for instance in a std::span or std::string_view of buffer and count, and pass both
    on.

    Look: strace -e trace=recvfrom,write ./PROGRAM 127.0.0.1 7000
    """
    longest = 0
    for read, write in _handed_on(case):
        count, size = read.result or 0, _size(write)
        wrote_old = write.bytes is not None and read.bytes is not None and count < size <= longest
        if wrote_old and write.bytes and read.bytes and count < _HEAD:
            new, old = read.bytes.head[:count], write.bytes.head
            if old.startswith(new) and len(old) > count:
                first = f"{amount(count)} came, and {amount(size)} were written."
                tail = f"behind them: {quoted(old[count:], 16)}, bytes of an earlier piece"
                return found(first, read, write, tail, at=write, expected=amount(count))
        longest = max(longest, count)
    return None


@rule("E-SHORT-WRITE", concept="flow-control", pitfalls="P42")
def short_write(case: Case) -> Evidence | None:
    """send takes everything.

    Seen: send took only a part, and the program went on as if all had been taken; bytes are
    missing.

    Why: send(2) returns how many bytes the kernel has taken. When the send buffer is nearly full,
    or the socket is non-blocking, that may be fewer than were given.

    Ask: What does your program do with the bytes that send did not take?

    1: Which number does send return, and what may it be?

    2: Look at the line behind each send. Is the return value compared with the length, and where
    do the other bytes wait?

    3: A lift takes 8 persons, and 12 stand before it. Whoever counts the doors that close and not
    the persons leaves four behind. A program that copies disks over TCP looked only for -1. On its
    own machine each send took all; over a slow line one in a thousand took a part, and the copies
    had holes. The number that send returns says where to go on: from that byte, with what is left.

    Look: strace -e trace=sendto ./echo_server 127.0.0.1 7000  (compare length and result)
    """
    for stream in case.streams:
        lost = _skipped(stream) or _left(case, stream)
        if lost:
            bad, next_ = lost
            first = f"send took {bad.result:,} of {amount(_size(bad))}, the rest was never sent."
            return found(first, bad, next_, at=bad, expected="the rest of the bytes")
    return None


def _skipped(stream: Stream) -> tuple[Call, Call] | None:
    """A send that took a part, and the next one, which begins with data read after it."""
    short: Call | None = None
    fresh = b""
    for call in stream.calls:
        head = call.bytes.head if call.bytes else b""
        if call.name in READS and call.result:
            fresh = head if short else b""
        elif call.name in WRITES and call.result:
            if short and len(fresh) >= 8 and head[:16] == fresh[:16]:
                return short, call
            short = call if _short(call) else None
            fresh = b""
    return None


def _left(case: Case, stream: Stream) -> tuple[Call, Call] | None:
    """A send that took a part as the last one, and what the same thread did in its place: it
    closed a connection that was whole, or sleeps until it can read."""
    writes = [call for call in stream.writes if call.result or call.error]
    if not writes or not _short(writes[-1]) or stream.failed("ECONNRESET", "EPIPE"):
        return None
    last = writes[-1]
    after = [c for c in case.calls if c.tid == last.tid and c.time > last.time]
    slept = next((c for c in after if c.name in READS and unfinished(c)), None)
    closed = next((c for c in after if c.name in ("close", "shutdown") and c in stream.calls), None)
    # Asleep in poll, and not until the socket takes more.
    deaf = [c for c in after[:1] if c.name in ("poll", "ppoll") and unfinished(c)]
    if last.perturbed and deaf and "POLLOUT" not in repr(deaf[0].args):
        return last, deaf[0]
    if stream.rst(stream.incoming) or any(c.name in WAITS for c in after[:1]):
        return None
    instead = closed if after[:1] == [closed] else slept if last.perturbed else None
    return (last, instead) if instead else None


@rule("E-RESEND", concept="flow-control", pitfalls="P43")
def resend(case: Case) -> Evidence | None:
    """After a short send the send is repeated.

    Seen: send took a part of the bytes, and the program sent the same bytes again from the start.

    Why: The bytes that send(2) has taken are on their way. The next call has to begin behind them,
    with pointer and length moved on by the return value.

    Ask: From which byte does your second send go on?

    1: send has taken 3 of 10 bytes. Which byte is the next one?

    2: Look at the loop around send: do the pointer and the length change in it, both, by the
    number that was returned?

    3: A secretary dictates a letter by telephone; the line breaks in the middle, and she begins
    again at the first word. The other side writes on where it had stopped, and the letter has its
    beginning twice. A tool for back-ups repeated each send that was not complete, with the same
    arguments. The copies were longer than the originals. `data += n; left -= n;` are the two
    statements that were missing.

    Look: strace -e trace=sendto ./echo_server 127.0.0.1 7000
    """
    for stream in case.streams:
        before: Call | None = None
        for call in stream.writes:
            if call.result is None:
                continue
            if before and _short(before) and _again(before, call):
                first = (
                    f"send took {before.result:,} of {amount(_size(before))}, then came all again."
                )
                return found(
                    first, before, call, at=call, expected=f"from byte {before.result:,} on"
                )
            before = call
    return None


def _again(before: Call, call: Call) -> bool:
    one = before.bytes.head if before.bytes else b""
    other = call.bytes.head if call.bytes else b""
    return len(one) >= 16 and one[:16] == other[:16] and len(set(one[:16])) > 4


@rule("E-UNBOUNDED-QUEUE", concept="flow-control", pitfalls="P46", endless=True)
def unbounded_queue(case: Case) -> Evidence | None:
    """My memory is large enough for what a client does not read.

    Seen: The server read on from a client that takes nothing, and keeps all of it in its memory.

    Why: A program that stops reading lets the receive window close, and the sender has to wait
    (RFC 9293 section 3.8.6). A server that always reads takes this brake away.

    Ask: What makes your server stop reading from one client?

    1: A client sends and never reads. Where do the bytes go, and how large is that place?

    2: Look at the queue of bytes that could not be sent. Does its length change what you wait for?

    3: A post office forwards parcels to a village whose road is closed. It goes on taking parcels
    and stacks them in the hall, the office and the street. A better one closes its counter for
    this village when the shelf is full; the senders keep their parcels. A broker for MQTT grew by
    2 GB an hour for one slow subscriber, until the kernel killed it. TCP can say `not now`: a
    receiver that does not read says it.

    Look: ss -tanm; grep VmRSS /proc/PID/status
    """
    limit = 1 * _MEBIBYTE if case.failure.reason == "unbounded" else _NO_END
    for stream in case.streams:
        held = stream.received - stream.sent
        if case.server and held > limit and not any(_taken_later(stream)):
            refused = next((c for c in stream.writes if c.error == "EAGAIN"), None)
            after = [c for c in stream.reads if refused and c.time > refused.time and c.result]
            if not refused or len(after) < 10:
                continue
            first = f"The server keeps {held / _MEBIBYTE:.0f} MiB for a client that reads nothing."
            text = f"read {amount(stream.received)}, sent {amount(stream.sent)}"
            expected = "no recv until the queue is short"
            return found(first, refused, *after[:2], text, at=after[0], expected=expected)
    return None


def _taken_later(stream: Stream) -> list[Call]:
    """Writes that worked again after the client had begun to read."""
    refused = next((c.time for c in stream.writes if c.error == "EAGAIN"), None)
    return [c for c in stream.writes if refused and c.time > refused and (c.result or 0) > 1 << 18]


@rule("E-OFF-BY-ONE", concept="byte-streams", pitfalls="P52")
def off_by_one(case: Case) -> Evidence | None:
    """Behind the bytes there is room for one more.

    Seen: recv filled the whole buffer, and the program wrote behind its end.

    Why: recv(2) may return as many bytes as it was asked for. `buffer[n] = 0` is then one place
    behind the last one.

    Ask: Which is the largest value of n, and which is the largest index of your buffer?

    1: A buffer has 10 places, numbered from 0. Which number has the last one?

    2: Look at the size that you pass to recv and at each use of its result as an index.

    3: A row of ten lockers has the numbers 0 to 9. Ten parcels fill them, and the note `end` is
    pinned to the door of the next house. A server for logs wrote a zero behind each message.
    Messages of 1023 bytes were fine; one of 1024 changed the variable behind the buffer, and the
    server ended an hour later in another function. Ask recv for one byte less than there is room,
    or keep the length and write no zero at all.

    Look: head -c 4096 /dev/zero | nc -N 127.0.0.1 7000
    """
    failure = case.failure
    if failure.reason != "sanitizer":
        return None
    kind = failure.observed
    if not re.search(r"out of bounds|overflow", kind):
        return None
    full = [c for s in case.streams for c in s.reads if c.result and c.result == _size(c)]
    if not full:
        return None
    first = f"recv filled all {amount(full[-1].result or 0)}, and one more was written."
    return Evidence(
        found(first, full[-1], kind).lines, failure.source, None, full[-1], "a write inside it"
    )


@rule("E-WRITE-WRITE", concept="byte-streams", pitfalls="P113")
def write_write(case: Case) -> Evidence | None:
    """One send more costs nothing.

    Seen: Each answer was sent with two calls, and made two segments.

    Why: A second small segment waits until the first is acknowledged (Nagle, RFC 9293 section
    3.7.4), and the peer may delay that (section 3.8.6.3). One send(2) needs one segment.

    Ask: How many calls of send does your program make for one recv?

    1: How many packets does the kernel make of two calls with 8 bytes each?

    2: Count your sends for one message. Could the parts stand in one buffer before the call, or go
    out with one writev?

    3: A remote desktop sends for each key 4 bytes of header and then 4 bytes of body. The second
    small piece waits until the first is acknowledged; the receiver delays this for up to 40 ms in
    the hope of an answer to send with it, which cannot come, as half of the message is missing. So
    each key costs 40 ms. TCP_NODELAY takes the waiting away and leaves two packets. What would
    leave one?

    Look: sudo tcpdump -ni lo port 7000; strace -e trace=sendto,write ./echo_server 127.0.0.1 7000
    """
    if case.failure.reason != "small-segments":
        return None
    for stream in case.streams:
        doubled = [pair for pair in _echoed(stream) if _in_parts(*pair)]
        if len(doubled) >= 3:
            read, writes = doubled[0]
            first = f"{amount(read.result or 0)} came with one recv, {len(writes)} sends went back."
            packets = [p for p in stream.outgoing if p.length][:2]
            return found(first, read, *writes[:2], *packets, at=writes[1], expected="one send")
    return None


def _in_parts(read: Call, writes: list[Call]) -> bool:
    """One small message went out with several calls, each of which made a segment of its own."""
    small = (read.result or 0) <= _SMALL and len(writes) > 1
    more = any("MSG_MORE" in str(w.argument("flags")) for w in writes)
    whole = not any(_short(w) for w in writes)
    return small and whole and not more and sum(w.result or 0 for w in writes) == read.result


@rule("E-UNFLUSHED", concept="standard-output", pitfalls="P41")
def unflushed(case: Case) -> Evidence | None:
    """What I have printed can be read.

    Seen: The program should have written output by now, it has made no write call, and it sleeps.

    Why: On a terminal stdout is flushed at each newline, on a pipe or file only when some thousand
    bytes are there or the program ends (stdout(3), setbuf(3)).

    Ask: When does your output leave the memory of your program?

    1: Where are the bytes between printf and the reader of the pipe?

    2: Look at the lines behind your output: what makes it go out before the program sleeps?

    3: A thermometer prints a line a minute, and `thermometer | tee log` shows nothing for an hour;
    then sixty lines come at once. On the terminal it had printed each minute. The C library
    collects output for a pipe, 4096 bytes of it, to save system calls. fflush(stdout), std::flush
    or `print(..., flush=True)` behind each line sends it out; write(2) never collects.

    Look: ./PROGRAM 127.0.0.1 7000 | cat; strace -e trace=write ./PROGRAM 127.0.0.1 7000 | cat
    """
    if "output" not in case.failure.observed or not case.runs:
        return None
    written = [c for c in case.named(*WRITES) if c.fd == 1 and c.run == case.last]
    if written or case.printed(case.last) or case.ended(case.last):
        return None
    sleeps = [c for c in case.calls_of(case.last) if unfinished(c)]
    received = [c for s in case.streams for c in s.reads if c.result and s.run == case.last]
    listens = [c for c in case.calls_of(case.last) if c.name == "listen"]
    last = (received or listens)[-1:]
    if not last or not sleeps or sleeps[-1].time < last[0].time:
        return None
    first = "Nothing was written to stdout, and the program sleeps."
    return found(first, last[0], sleeps[-1], at=sleeps[-1], expected="write(1)")


@rule("E-STDIO-POLL", concept="multiplexing", pitfalls="P40")
def stdio_poll(case: Case) -> Evidence | None:
    """When poll is silent, there is nothing to read.

    Seen: One read took several lines from the input, the program sent fewer, and it sleeps until
    more input comes.

    Why: stdio reads thousands of bytes at once and gives out one line (fgets(3), std::getline).
    The other lines are in memory, where poll(2) cannot see them.

    Ask: Where are the lines that were read and not sent?

    1: Which buffers lie between the pipe and the variable that holds your line? Which of them can
    poll look into?

    2: Look for the function that reads a line, and for the call that waits. Do both look at the
    same place?

    3: A clerk takes all letters out of the box, answers one, puts the others into a drawer, and
    waits for the box to rattle. A client for a news service called poll for its input and fgets
    for one line. Pasted text of five lines came as one read; one line was sent, four lay in the
    buffer of stdio, and poll waited for a key. Read with read(2) into a buffer of your own, and
    look there for lines before you wait.

    Look: printf 'a\\nb\\nc\\n' | strace -e trace=read,sendto,poll ./echo_client 127.0.0.1 7000
    """
    if case.role != "client" or not case.streams:
        return None
    reads = [c for c in case.named("read") if c.fd == 0 and c.result]
    sleeps = next((c for c in case.waiting_in(*WAITS) if _waits_for(c, 0)), None)
    stream = case.streams[-1]
    taken = sum(c.result or 0 for c in reads)
    if not reads or not sleeps or taken <= stream.sent or stream.failed("EAGAIN"):
        return None
    lines = reads[-1].bytes.head.count(b"\n") if reads[-1].bytes else 0
    if lines < 2:
        return None
    first = f"{amount(taken)} were read from the input, {amount(stream.sent)} sent."
    last = stream.writes[-1:]
    return found(first, reads[-1], *last, sleeps, at=sleeps, expected="the other lines")


def _waits_for(call: Call, fd: int) -> bool:
    if call.name in ("select", "pselect6"):
        return fd in (call.argument("readfds") or ())
    entries = call.argument("fds") or ()
    return any(e.get("fd") == fd and "POLLIN" in str(e.get("events")) for e in entries)
