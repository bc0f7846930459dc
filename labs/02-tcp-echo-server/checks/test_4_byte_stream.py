"""TCP carries bytes, not messages: any pieces, any amount, both directions at once."""

from __future__ import annotations

from sockwork.harness import Bed, check
from tcp_echo import line, pieces, served

STAGE = "the byte stream"
LARGE = 4 << 20
CHUNK = 1 << 20
MORE = 1 << 16  # no usual buffer of a library is larger


@check(
    title="A line that arrives byte by byte comes back",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="byte-streams",
    covers=("P48", "P53"),
    after=("echo-no-newline",),
    hints=(
        "The client sends ten bytes. How many bytes can your next `recv` return? Name all "
        "possibilities.",
        "Look for anything in your server that expects a certain number of bytes: a flag such as "
        "MSG_WAITALL, a loop that fills a buffer, a length remembered from an earlier message.",
        "A game server (positions of 8 bytes) reads with MSG_WAITALL, since each position has 8 "
        "bytes. That is right, as long as everybody sends whole positions. Then the protocol gets "
        "a `quit` of 4 bytes. The server holds these 4 bytes and waits for 4 more; the client "
        "waits for the server to say goodbye; neither will move. Before a program waits until a "
        "buffer is full, it must know from the protocol that this many bytes will come. For a "
        "stream without any structure the only thing known is: one byte or more, or the end.",
    ),
)
def test_fragments(bed: Bed) -> None:
    """recv(2) returns what has arrived, from one byte up to the size of the buffer. MSG_WAITALL
    waits for more than that, and an echo client may be waiting for its answer at the same time."""
    client = bed.connect(bed.start_server())
    message = line(bed, 24)
    for piece in [message[:8], *pieces(message[8:], 1)]:
        client.send(piece)
        client.consumed()
        client.expect(piece)


@check(
    title="Several lines that arrive together all come back",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="byte-streams",
    covers=("P32", "P33"),
    after=("echo-line",),
    hints=(
        "The client has called `send` five times. How often will your `recv` return?",
        "Look at what your server does with a buffer that holds more than one line. Is every byte "
        "of it sent, up to the count that `recv` returned?",
        "A mail server (SMTP with PIPELINING, RFC 2920) may receive MAIL, RCPT and DATA in one "
        "segment. Its loop reads, finds the first newline, handles the command before it, and "
        "reads again. The two other commands are in the buffer, handled by nobody. The client "
        "waits for three answers and gets one; the server waits for bytes that have long arrived. "
        "By hand the bug cannot be found, since nobody types three lines within one millisecond. "
        "One read may bring half a command, one, or several and a half: the loop over the buffer "
        "and the loop over the reads are two different loops.",
    ),
)
def test_coalesced(bed: Bed) -> None:
    """Bytes of several send(2) calls may arrive in one recv(2): TCP keeps their order, not their
    borders (RFC 9293 section 3.9.1). These five lines travel in one segment."""
    client = bed.connect(bed.start_server())
    lines = b"".join(line(bed) for _ in range(5))
    client.send(lines)
    client.expect(lines)


@check(
    title="Everything that waits in the socket is read, not one buffer of it",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="multiplexing",
    covers=("P94",),
    after=("echo-sizes", "echo-no-newline", "coalesced"),
    hints=(
        "When does your waiting call tell you about a client: as long as there are bytes, or only "
        "when new ones arrive?",
        "If you use `epoll` with EPOLLET: how often do you call `recv` for one event, and how do "
        "you know that you have read everything? `ss -tn` shows in Recv-Q what you left behind.",
        "Think of a letter box with a bell that rings when a letter falls in. Whoever takes one "
        "letter at each ring leaves the others in the box: two letters thrown in together ring "
        "once. A box with a lamp that is lit while there are letters has no such trouble. A proxy "
        "for SIP telephones uses the bell (edge-triggered) and reads 2048 bytes for each ring. A "
        "large INVITE of 3000 bytes arrives: 952 bytes remain in the socket, no new bytes come, "
        "since the caller waits for the answer, and the bell is silent. The call never happens.",
    ),
)
def test_edge_drain(bed: Bed) -> None:
    """With EPOLLET an event says that something has changed; it is not repeated while bytes are
    left. The socket must be read until EAGAIN (epoll(7), `Level-triggered and edge-triggered`)."""
    server = bed.start_server()
    client = served(bed, server)
    data = bed.bytes(48 << 10)
    with server.frozen():
        client.send(data)
        client.delivered()
    client.consumed()
    client.expect(data)


@check(
    title="Four megabytes come back exactly, through small buffers",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="flow-control",
    covers=("P42", "P43"),
    after=("edge-drain",),
    hints=(
        "You ask `send` to take 4096 bytes, and it returns 1000. Where are the other 3096, and "
        "who must do something about them?",
        "Look at each `send`: what do you do with its return value when it is smaller than what "
        "you asked for, and what when it is -1 with EAGAIN? From which byte does the next attempt "
        "begin?",
        "A photo printer takes pictures over TCP (port 9100) and reads slowly, because paper is "
        "slow. The sending program uses a non-blocking socket and ignores what `send` returns. As "
        "long as the picture fits into the buffers it prints well; larger pictures come out with "
        "stripes missing. The author adds a loop: if not everything was taken, send again. Now "
        "the stripes appear twice, because each attempt begins at the first byte of the block. "
        "Correct books are kept with two numbers for each connection: how many bytes there are, "
        "and how many of them have been taken.",
    ),
)
def test_large(bed: Bed) -> None:
    """send(2) returns how many bytes it took, and a non-blocking one takes only what fits into the
    send buffer. The rest must be sent again, from the first byte that was not taken."""
    server = bed.start_server()
    client = bed.connect(server, receive_buffer=16384, send_buffer=16384)
    data = bed.bytes(LARGE)
    sent = client.send_some(data)
    client.send_in_background(data[sent:])
    bed.quiet()  # nobody reads yet: every buffer on the way is full now
    client.expect(data)


@check(
    title="The client carries 20 MB without a standstill",
    stage=STAGE,
    program="echo_client",
    points=3,
    concept="flow-control",
    covers=("P47",),
    after=("client-bytes",),
    hints=(
        "The server sends back while your client is still sending. Where are these bytes kept, "
        "and what happens when that place is full?",
        "Where does your client sleep while it sends? Can it notice there that bytes have "
        "arrived? Draw the four buffers between the two programs and fill them one by one.",
        "Two neighbours share a narrow bridge for their wheelbarrows; each is polite and brings "
        "all of his own stones over before he takes any. They meet in the middle and stand there "
        "still. A compression service does this: its client sends the whole file and reads the "
        "result afterwards. Small files work, since the kernels of both machines store a few "
        "hundred kilobytes. With a larger file the result fills the client's receive buffer, the "
        "server's `send` sleeps, the server stops reading, and the client's `send` sleeps too. "
        "Nobody is broken; each waits for the other. Only a client that takes out bytes while it "
        "puts bytes in keeps the stream moving.",
    ),
)
def test_client_large(bed: Bed) -> None:
    """All buffers between two programs are finite (RFC 9293 section 3.8.6). A client that sends
    everything before it reads stops for ever as soon as they are full: its server stops as well."""
    listener = bed.listen(receive_buffer=65536)
    client = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    data = bed.bytes(20_000_000)
    # Bytes that nobody asks for: what waits in a buffer of the client's own, and for how long, is
    # the matter of client-interactive.
    client.stdin_write(data + line(bed, MORE))
    for chunk in pieces(data, CHUNK):
        connection.expect(chunk)
        connection.send(chunk)
    bed.quiet()
    client.stdin_close()
    connection.finish()
    client.expect_exit(0)
    client.expect_stdout(data)


@check(
    title="The client is quick: each line goes out at once, each answer is shown at once",
    stage=STAGE,
    program="echo_client",
    points=2,
    concept="standard-output",
    covers=("P40", "P41"),
    after=("client-large",),
    hints=(
        "Between the keyboard and your program, and between your program and the screen: who else "
        "may keep bytes for a while?",
        "Do you use `poll` or `select` together with `fgets`, `getline` or `std::cin`? What does "
        "`poll` know about bytes that such a function has already read? And when does your "
        "standard output really get written, if it is a pipe?",
        "A client for a chat (IRC) waits with `poll` for standard input or the socket. The user "
        "pastes three lines. `poll` says that standard input is ready; `fgets` reads all three "
        "into its own buffer and returns the first; the client goes back to `poll`, which looks "
        "into the kernel, where nothing is left. Two lines appear only when the user presses "
        "Enter again. The output side has a buffer of the same kind: `printf` to a terminal "
        "writes each line, `printf` to a pipe writes when 4096 bytes have come together. A "
        "program that waits should see and empty every buffer that it owns.",
    ),
)
def test_client_interactive(bed: Bed) -> None:
    """poll(2) sees what is in the kernel, not what stdio has already read into its own buffer. And
    stdio keeps output to a pipe back until its buffer is full or flushed (setbuf(3))."""
    listener = bed.listen()
    client = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    output = b""
    for message in (line(bed), line(bed) + line(bed) + line(bed)):
        client.stdin_write(message)
        connection.expect(message)
        connection.send(message)
        output += message
        client.expect_output(output)


@check(
    title="The client prints an answer that arrives byte by byte",
    stage=STAGE,
    program="echo_client",
    points=2,
    concept="byte-streams",
    covers=("P31",),
    after=("client-large",),
    hints=(
        "You sent one line in one `send`. In how many pieces may the same line come back?",
        "Count in your client: how often does it call `recv` for each line that it sends? What "
        "ends the reading: a count, or an event?",
        "A client for a stock ticker sends a request and calls `recv` once for the answer. On its "
        "own machine the whole answer always arrives in one piece. Over a mobile network it "
        "arrives as `AC`, `ME 12` and `3.45`. The client shows a company called AC, and takes `ME "
        "12` as the answer to its next request: from now on every answer belongs to the question "
        "before. A program may not count pieces, because their number means nothing. It reads "
        "whenever bytes are there, and stops when the protocol says so, or when the other side "
        "ends.",
    ),
)
def test_client_fragmented(bed: Bed) -> None:
    """What one send(2) took may arrive in any number of pieces (RFC 9293 section 3.7). Each piece
    here is read by the client before the next one is sent."""
    listener = bed.listen()
    client = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    message = line(bed, 12)
    client.stdin_write(message)
    connection.expect(message)
    for value in message:
        connection.send(bytes([value]))
        connection.consumed()
    client.stdin_close()
    connection.finish()
    client.expect_exit(0)
    client.expect_stdout(message)
