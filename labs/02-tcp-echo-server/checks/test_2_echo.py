"""One client, one conversation: what goes in comes back, byte for byte, on both sides."""

from __future__ import annotations

from typing import Literal

from sockwork.harness import Bed, check
from tcp_echo import line, pieces, round_trip

STAGE = "echo"


def every_byte(bed: Bed) -> bytes:
    """All 256 byte values in random order, the newline last (see tcp_echo.line)."""
    values = [value for value in range(256) if value != ord("\n")]
    bed.rng.shuffle(values)
    return bytes(values) + b"\n"


def talk(bed: Bed, *messages: bytes, family: Literal["inet", "inet6"] = "inet") -> None:
    """Each message from echo_client to us and back, then the end of both sides."""
    listener = bed.listen(family=family)
    client = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    for message in messages:
        client.stdin_write(message)
        connection.expect(message)
        connection.send(message)
    bed.quiet()  # what the client does at the end of its input is judged by other checks
    client.stdin_close()
    connection.finish()
    client.expect_exit(0)
    client.expect_stdout(b"".join(messages))


@check(
    title="A line comes back",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="byte-streams",
    after=("listens",),
    hints=(
        "Which socket carries the bytes of a client: the one that listens, or another one?",
        "Follow one line through your program: which call brings it in, which variable says how "
        "many bytes it has, which call sends it out? Does anything else go out as well?",
        "A character generator (RFC 864) sends text and throws away what it receives. Its author "
        "copied the first lines from a chat server, with the greeting `Welcome!`, and so every "
        "client sees eight bytes that no protocol mentions. A program at the other end does not "
        "skip what it did not ask for: it takes the first bytes as the beginning of the answer, "
        "and every byte after them stands in the wrong place. The text of a protocol says exactly "
        "what is sent. All else belongs on standard error, where people look and programs do not.",
    ),
)
def test_echo_line(bed: Bed) -> None:
    """An echo server sends back any bytes it receives, and nothing else (RFC 862). accept(2)
    returns a new socket for each client; that one is used to receive and to send."""
    client = bed.connect(bed.start_server())
    round_trip(bed, client)
    round_trip(bed, client)


@check(
    title="Every byte value comes back, the zero byte too",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="byte-streams",
    covers=("P05",),
    after=("echo-line",),
    hints=(
        "What makes a piece of memory a `string` in C? Is that true of what `recv` puts into your "
        "buffer?",
        "Look at where the number of bytes to send comes from. Which value tells how many bytes "
        "have arrived? Is there any function between `recv` and `send` that looks at the bytes?",
        "A picture server sends PNG files. It reads the file into a buffer and calls `send(fd, "
        "buffer, strlen(buffer), 0)`. A PNG begins with the bytes 89 50 4e 47 0d 0a 1a 0a, and "
        "then the length of the first part: 00 00 00 0d. `strlen` counts to the first zero and "
        "says 8. Eight bytes go out, of every picture. If the picture had no zero at all, "
        "`strlen` would run past the end of the buffer until it found one somewhere else. `read` "
        "had returned 40960: the one number in the program that was true, and it had been thrown "
        "away.",
    ),
)
def test_echo_bytes(bed: Bed) -> None:
    """recv(2) returns how many bytes it stored and adds no zero byte. strlen(3) stops at the first
    zero, which may come early, or behind the end of the buffer."""
    client = bed.connect(bed.start_server())
    for _ in range(2):
        message = every_byte(bed)
        client.send(message)
        client.expect(message)


@check(
    title="Messages just below, at and above the usual buffer sizes come back",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="byte-streams",
    covers=("P52",),
    after=("echo-bytes",),
    hints=(
        "How many bytes can `recv` return when your buffer has 4096? What do you do with the "
        "buffer after it was filled to the last byte?",
        "Look for every place that writes into the buffer after `recv`, and every place that uses "
        "its size. Is `sizeof` used on an array or on a pointer?",
        "A syslog server reads a message into `char text[1024]`, asks for `sizeof text` bytes and "
        "then writes `text[n] = 0`, to print it. With 1023 bytes all is well. With 1024 the zero "
        "lands in the byte after the array, which belongs to another variable, and that one "
        "changes its value as if by magic. For years no message was that long. In a second "
        "version the buffer became a parameter `char* text`, and `sizeof text` became the size of "
        "a pointer: 8. AddressSanitizer finds the first mistake when it happens, at the exact "
        "line; only a message of the exact size makes it happen.",
    ),
)
def test_echo_sizes(bed: Bed) -> None:
    """recv(2) may fill the buffer completely: then there is no byte left for a terminating zero.
    While the server is stopped, 4096 bytes gather in the kernel, so that one recv can return them
    all."""
    server = bed.start_server()
    client = bed.connect(server)
    for size in (1, 1023, 1024, 1025, 4095):
        client.expect_echo(line(bed, size))
    full = line(bed, 4096)
    with server.frozen():
        client.send(full)
        client.delivered()
    client.expect(full)
    client.expect_echo(line(bed, 4097))
    for piece in pieces(line(bed, 65537), 4096):
        client.send(piece)
        client.consumed()
        client.expect(piece)


@check(
    title="Bytes without a newline come back at once",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="byte-streams",
    covers=("P31",),
    after=("echo-line",),
    hints=(
        "Does RFC 862 say anything about lines? What does TCP know about lines?",
        "Look for a function in your server that waits for a particular byte, such as `getline`, "
        "or for a loop that collects bytes. What must a client send so that this wait ends?",
        "A remote shell server reads commands with `getline`. That is right for commands: a "
        "command ends with a newline. Then somebody uses the same function for the password "
        "prompt of a tool that sends single keys, and the server shows nothing until Enter is "
        "pressed. The tool waits for the reaction to the key, the server waits for Enter: both "
        "wait for ever. A server must know which mark ends a unit of its protocol. In a protocol "
        "whose unit is the byte there is no mark, and nothing to wait for.",
    ),
)
def test_echo_no_newline(bed: Bed) -> None:
    """TCP carries a stream of bytes; it has no lines and no messages (RFC 9293 section 2.2). An
    echo server that waits for a newline keeps bytes back that it should return."""
    client = bed.connect(bed.start_server())
    for _ in range(3):
        message = bed.token()
        client.send(message)
        client.expect(message)


@check(
    title="The client sends its input and prints what comes back",
    stage=STAGE,
    program="echo_client",
    points=3,
    concept="byte-streams",
    hints=(
        "Where do the bytes come from that the client sends? Where do the bytes go that it "
        "receives? Which of them appear on standard output?",
        "Follow one line from standard input to the socket, and the answer from the socket to "
        "standard output. Which function adds or removes a newline on the way?",
        "A whois client (RFC 3912) sends one line, the name of a domain, and prints the answer. "
        "It reads the name with `std::getline`, which removes the newline, and sends the rest: "
        "the server waits for the end of the line and never answers. Then the author prints the "
        "answer with `puts`, which adds a newline of its own: the output has one byte more than "
        "the server sent. On a screen an empty line is easily overlooked; a program that reads "
        "the output sees it. `read`, `write`, `recv` and `send` move bytes and change none.",
    ),
)
def test_client_echo(bed: Bed) -> None:
    """Standard input goes to the server, and what the server sends goes to standard output: the
    same bytes, none added. The server's end is the end of the output (recv(2) returns 0)."""
    talk(bed, line(bed))


@check(
    title="The client carries every byte value",
    stage=STAGE,
    program="echo_client",
    points=2,
    concept="byte-streams",
    covers=("P54",),
    after=("client-echo",),
    hints=(
        "Which functions of C and C++ treat some byte values in a special way? Which of them does "
        "your client use?",
        "Look at the calls that read standard input and write standard output. How does each of "
        "them report the number of bytes? What happens when one of the bytes is zero?",
        "A file-transfer client (FTP) has a mode for text and a mode for everything else. Used on "
        "a picture, text mode destroys it: it changes each byte 0a into the two bytes 0d 0a, as "
        "text in FTP demands. C has a trap of the same kind. `fgets` reads a line and says only "
        "whether it worked; how long the line is must be found with `strlen`, and that stops at "
        "the first zero byte. The bytes between the zero and the newline were read from the file "
        "and are gone. Functions that return a count work for every byte: `read`, `fread`, "
        "`std::istream::read` with `gcount`.",
    ),
)
def test_client_bytes(bed: Bed) -> None:
    """fgets(3) returns no length, so a zero byte inside a line hides what follows it. read(2)
    returns the number of bytes and gives none of them a meaning."""
    talk(bed, every_byte(bed), every_byte(bed))


@check(
    title="The client connects over IPv6 too",
    stage=STAGE,
    program="echo_client",
    points=1,
    needs=("inet6",),
    concept="names-and-addresses",
    covers=("P17",),
    after=("client-echo",),
    hints=(
        "What does your client have to know about an address before it can call `socket`?",
        "Look at the first argument of `socket` and at the address that goes into `connect`. Do "
        "both come from the same place?",
        "A Gopher client (RFC 1436) asks `getaddrinfo` for a host and gets two results, an IPv6 "
        "address first. It has already called `socket(AF_INET, ...)`, and `connect` with a "
        "`sockaddr_in6` fails with `Address family not supported by protocol`. The order was the "
        "mistake: the socket was made before the address was known. Each result of `getaddrinfo` "
        "carries its own family, type and protocol, and they are meant for the `socket` call that "
        "comes before this `connect`.",
    ),
)
def test_client_inet6(bed: Bed) -> None:
    """A socket has one family for its whole life: it must be the family of the address it connects
    to. getaddrinfo(3) returns both (RFC 3493 section 6.1)."""
    talk(bed, line(bed), family="inet6")


@check(
    title="A refused connection is an error with its reason",
    stage=STAGE,
    program="echo_client",
    points=2,
    concept="errors-and-errno",
    covers=("P08",),
    hints=(
        "What does a machine answer when nobody listens at the port? What does `connect` make of "
        "this answer?",
        "Start your client with a port that nobody uses, and then run `echo $?`. Which line of "
        "your program sees the failure, and what does it do between the failure and the message?",
        "A script copies a report every night with a small FTP client. One day the server is "
        "moved. The client's `connect` fails, it prints nothing and ends with status 0; the "
        "script notes `copied`, and the empty reports are found three weeks later. A second "
        "client prints `connect: Success`. It had closed the socket and written a log line before "
        "it looked at `errno`, and each of these calls may change it. The value belongs to the "
        "call that failed last: keep it in a variable at once. The answer to a SYN at a closed "
        "port is RST, and its name here is ECONNREFUSED.",
    ),
)
def test_client_refused(bed: Bed) -> None:
    """A SYN to a port where nobody listens is answered with RST, and connect(2) fails with
    ECONNREFUSED (RFC 9293 section 3.10.7.1). Exit status 1 tells scripts that it failed."""
    bed.start(bed.peer.inet, bed.port).expect_error("connect", "Connection refused")


@check(
    title="The client answers wrong arguments with one line and exit status 2",
    stage=STAGE,
    program="echo_client",
    points=1,
    concept="checking-arguments",
    covers=("P11",),
    hints=(
        "What would your client do with the port `70000`? To which port would it really connect?",
        "Look at the first lines of `main`: how many arguments are needed, and how does the port "
        "become a number? Are these the same rules as in your server?",
        "An rsync client is called with `--port=8730x`, a typing error. It connects to port 8730, "
        "where, by bad luck, some other server runs, and the user sees `unexpected greeting`: a "
        "riddle. With a strict conversion the user would have seen `usage: ...` and found the "
        "letter at once. The cheapest moment to find a wrong value is the moment it comes in. "
        "After that it is mixed with right ones, and every message is about something else.",
    ),
)
def test_client_usage(bed: Bed) -> None:
    """Numbers from the command line are text first. strtol(3) and std::from_chars say where the
    number ended; a port must use the whole text and fit into 16 bits."""
    host = bed.peer.inet
    commands = [(), (host,), (host, "70000"), (host, "80x"), (host, "-1")]
    for words in commands:
        bed.start(*words).expect_usage_error()
