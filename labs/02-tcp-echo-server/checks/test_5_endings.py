"""How a conversation ends: FIN, half-close, RST, and the signal of a broken connection."""

from __future__ import annotations

from sockwork.harness import Bed, check
from tcp_echo import line, round_trip, served

STAGE = "endings"


@check(
    title="When the client ends, the server ends the connection in order",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="ending-a-connection",
    covers=("P49", "P55", "P56", "P64"),
    after=("sequential",),
    hints=(
        "What does `recv` return when the client has said that it will send no more? Who must do "
        "something then, and what?",
        "Look at each way out of the code that serves a client: does every one of them close this "
        "client's descriptor? If you use `fork`, how many processes hold that descriptor? `ss "
        "-tnp` shows sockets in CLOSE_WAIT and who holds them.",
        "A POP3 server (RFC 1939) answers QUIT with `+OK` and forgets to close. The client has "
        "sent its FIN and waits for the other one; the mail program shows `disconnecting...`. `ss "
        "-tn` on the server shows one more row in CLOSE_WAIT for each visit: the kernel waits for "
        "the program, without any time limit. In a second server a child process closes properly, "
        "but the parent still holds a copy of the descriptor from before `fork`: the connection "
        "ends with the last copy. A third one sets SO_LINGER to zero seconds, `to avoid "
        "TIME_WAIT`, and its `close` now sends RST: the client reports an error after every "
        "visit.",
    ),
)
def test_end_fin(bed: Bed) -> None:
    """recv(2) returns 0 after the peer's FIN. Our socket is then in CLOSE_WAIT and stays there
    until the program closes it; FIN goes out when its last descriptor is closed (RFC 9293 section
    3.6)."""
    server = bed.start_server()
    client = served(bed, server)
    client.finish()
    client.expect_end("the client has ended its side")
    client.target_state("NONE")


@check(
    title="A client that ends without a word gets an orderly end, too",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="ending-a-connection",
    covers=("P66",),
    after=("end-fin",),
    hints=(
        "What is the very first thing your server may learn from a new client?",
        "Follow your code for a client whose first `recv` returns 0. Does it take the same way "
        "out as a client that has been served?",
        "A load balancer checks every second whether a web server is there: it connects, sends "
        "nothing, and ends. The web server's loop begins with `read the request line`, and the "
        "code that closes stands at the end of `answer the request`. No request, no answer, no "
        "close. After a night of checks the server holds 30,000 sockets in CLOSE_WAIT and takes "
        "no more clients, and it never did a thing wrong in the eyes of its author, since every "
        "request was answered. Zero bytes is a length like any other, and a test with an empty "
        "input costs one line.",
    ),
)
def test_end_empty(bed: Bed) -> None:
    """A connection may end before any byte was sent: port scanners and health checks do it all day.
    The first recv(2) then returns 0, and FIN is due as after any conversation."""
    client = bed.connect(bed.start_server())
    client.finish()
    client.expect_end("the client has ended its side")


@check(
    title="After a half-close every byte still comes back, and then FIN",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="ending-a-connection",
    covers=("P65", "P73"),
    after=("end-fin", "large"),
    hints=(
        "FIN says `I will send no more`. Does it also say `I will read no more`?",
        "Look at what your server does when `recv` returns 0 while bytes for this client are "
        "still waiting to be sent. Which of them has the kernel already, and which are only in "
        "your own memory?",
        "A sorting service reads lines until the client's FIN: only then can it know the smallest "
        "one. All of its answer comes after the FIN. Clients do `cat names | nc -N host port`, "
        "where -N ends the sending side and keeps reading. A version of the service that closes "
        "as soon as it sees the end works for short lists, because the kernel has taken the whole "
        "answer by then and delivers it after the close. For long lists a part was still in the "
        "program's own queue, and `close` does not know about that queue. The order is: empty the "
        "queue, however long the reader takes, then close.",
    ),
)
def test_half_close_tail(bed: Bed) -> None:
    """Each direction of a connection ends on its own: after the client's FIN the server may send as
    long as it likes (RFC 9293 section 3.6). The reader here is slow, so the queue is long."""
    client = bed.connect(bed.start_server(), receive_buffer=4096, send_buffer=1 << 19)
    data = bed.bytes(256 << 10)
    client.send(data)
    client.finish()
    bed.quiet()  # the server has read all it wants to; the end is read while bytes still wait
    client.expect(data)
    client.expect_end("everything has come back")


@check(
    title="A client that resets in the middle of a transfer ends nobody else",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="resets-and-sigpipe",
    covers=("P68", "P101"),
    after=("sequential", "echo-sizes"),
    hints=(
        "Whose problem is it when one client's connection breaks?",
        "Look at what your program does when `recv` or `send` returns -1. Does the message, the "
        "`exit` or the exception belong to this client, or to the whole server?",
        "A lift has a phone in every cabin. When one phone breaks, the control room notes `cabin "
        "7, line lost` and goes on; it does not switch off the lift. A video server did: its "
        "helper `check(result)` printed the reason and called `exit(1)`, good manners at "
        "start-up, when nothing works without the socket. The same helper was used around `recv`. "
        "The first viewer who closed the laptop in the middle of a film caused ECONNRESET, and a "
        "hundred others lost their picture. Errors have an owner: some belong to the program, "
        "most belong to one connection.",
    ),
)
def test_reset_mid_transfer(bed: Bed) -> None:
    """After RST, recv(2) and send(2) on this connection fail with ECONNRESET or EPIPE (RFC 9293
    section 3.10.7.4). The other connections of the process know nothing of it."""
    server = bed.start_server()
    for _ in range(3):
        client = served(bed, server)
        client.send_some(bed.bytes(1 << 18))
        client.reset()
        served(bed, server).close()


@check(
    title="A client that resets before it is accepted ends nobody else",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="resets-and-sigpipe",
    covers=("P26",),
    after=("reset-mid-transfer",),
    hints=(
        "Between the handshake and your `accept` some time passes. What may the client do in that "
        "time?",
        "Look at the calls between `accept` and the first `recv`: which of them can fail, and "
        "what do you do then? Print nothing you do not need.",
        "A phone rings; when you pick it up, the caller has gone. A telephone exchange (H.323 "
        "over TCP) wanted to write the caller's address into its log and called `getpeername` "
        "after each `accept`. A caller who had hung up has no address any more: the call fails "
        "with ENOTCONN. The author had wrapped it into `must(...)`, since `it cannot fail, I have "
        "just accepted`. Other systems report the same event from `accept` itself, as "
        "ECONNABORTED. In both cases the right reaction is short: put the phone down and wait for "
        "the next ring.",
    ),
)
def test_reset_before_accept(bed: Bed) -> None:
    """On Linux accept(2) also returns a connection that was reset while it waited in the queue;
    getpeername(2) then fails with ENOTCONN and recv(2) with ECONNRESET."""
    server = bed.start_server()
    with server.frozen():
        client = bed.connect(server)
        client.reset()
        client.target_state("NONE")
    for _ in range(2):
        served(bed, server).close()


@check(
    title="Sending to a client that has gone does not kill the server",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="resets-and-sigpipe",
    covers=("P67",),
    after=("unique-tokens", "reset-mid-transfer"),
    hints=(
        "What does `send` do besides returning -1, when the connection is broken? Read the entry "
        "EPIPE in its manual page.",
        "After the server has disappeared without a message: what does `echo $?` say? A status "
        "above 128 names a signal: subtract 128. Where in your program did you say what shall "
        "happen on this signal?",
        "In a shell, `yes | head -1` ends at once, although `yes` writes for ever: when `head` "
        "has gone, the next `write` raises SIGPIPE, and the default of this signal is to end the "
        "process. For a filter that is just right. A weather server inherits the same default: a "
        "phone asks, loses its signal, and while the server writes the second part of the "
        "forecast the whole process ends, without a message, without a core file. The error is "
        "also available as a plain return value, EPIPE, for those who tell the kernel that they "
        "want no signal. There are two places to say so: once for the process, or in each call.",
    ),
)
def test_sigpipe(bed: Bed) -> None:
    """Sending on a connection that is gone raises SIGPIPE, which ends the process unless it is
    ignored or send(2) has the flag MSG_NOSIGNAL: then there is only the error EPIPE. What arrived
    can still be read."""
    server = bed.start_server()
    witness = served(bed, server)
    client = served(bed, server)
    with server.frozen():
        client.send(bed.bytes(8192))
        client.finish()
        client.target_state("CLOSE_WAIT")
        client.reset()
        client.target_state("NONE")
    for _ in range(3):
        round_trip(bed, witness)
    served(bed, server)


@check(
    title="At the end of its input the client ends its sending side and reads on",
    stage=STAGE,
    program="echo_client",
    points=3,
    concept="ending-a-connection",
    covers=("P58", "P60"),
    after=("client-echo",),
    hints=(
        "Your input is at its end. Is the conversation over? How can the server learn about the "
        "one without the other?",
        "Look at what your client does when `read` from standard input returns 0. Which call ends "
        "only one direction of a connection? And where does your client sleep after that?",
        "A client of a spell checker sends a text; the server checks it as a whole, after the "
        "last byte. How does the server know the last byte? If the client calls `close`, the FIN "
        "goes out, but the client can receive nothing more: the answer arrives at a closed socket "
        "and is thrown back with RST. If the client does nothing, the server waits for more text, "
        "the client waits for the answer, and both wait for ever: two rows in ESTABLISHED, all "
        "queues empty. TCP has a third way, since its two directions are ended one by one, and "
        "the `nc` of every system has an option for it.",
    ),
)
def test_client_half_close(bed: Bed) -> None:
    """shutdown(2) with SHUT_WR sends FIN and keeps the other direction open; close(2) ends both,
    and what still arrives is answered with RST (RFC 9293 section 3.6)."""
    listener = bed.listen()
    data = line(bed)
    client = bed.start(*listener.address, stdin=data)
    connection = listener.accept()
    connection.expect(data)
    connection.expect_end("the input of the client is at its end")
    connection.send(data)
    connection.finish()
    client.expect_exit(0)
    client.expect_stdout(data)


@check(
    title="A reset is an error with its reason, not an end",
    stage=STAGE,
    program="echo_client",
    points=2,
    concept="errors-and-errno",
    covers=("P50",),
    after=("client-large",),
    hints=(
        "`recv` has three kinds of results. Which are they, and what does each mean for somebody "
        "who wants to know whether everything has arrived?",
        "Find the condition that ends your reading loop. Is it `<= 0`? What does the rest of the "
        "program know about which of the two it was?",
        "A program fetches the list of bank holidays over HTTP/1.0, where the end of the "
        "connection is the end of the document. Its loop runs while `recv` returns more than 0. "
        "One day the server crashes in the middle; its kernel sends RST; `recv` returns -1; the "
        "loop ends; and half a list is stored as the whole, with status 0. Christmas is missing. "
        "FIN means `that was all, on purpose`. RST means `something went wrong, do not trust the "
        "length`. The two results need two branches, and only one of them leads to success.",
    ),
)
def test_client_reset(bed: Bed) -> None:
    """recv(2) returns 0 for FIN and -1 with ECONNRESET for RST. After RST nobody knows whether all
    bytes have arrived (RFC 9293 section 3.10.7.4), so the exit status is 1."""
    listener = bed.listen()
    client = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    message = line(bed)
    client.stdin_write(message)
    connection.expect(message)
    connection.reset()
    client.expect_error(None, "Connection reset by peer")
