"""greeting_client: connect to the address that answers, read to the end, print exactly that."""

from __future__ import annotations

from collections.abc import Iterable

from nameserver import NameServer
from sockwork.harness import Bed, Run, check

STAGE = "connect and read to the end"
GREETING = b"hello client"


def expect_copied(run: Run, data: bytes) -> None:
    run.expect_exit(0)
    run.expect_stdout(data)


def serve_fragments(bed: Bed, fragments: Iterable[bytes]) -> None:
    """Sends each fragment after the client has read the one before, so none arrives together."""
    listener = bed.listen()
    run = bed.start(*listener.address)
    connection = listener.accept()
    sent = b""
    for fragment in fragments:
        connection.send(fragment)
        connection.consumed()
        sent += fragment
    connection.finish()
    expect_copied(run, sent)


@check(
    title="The client prints what the server sends, and nothing else",
    stage=STAGE,
    program="greeting_client",
    points=3,
    concept="byte-streams",
    hints=(
        "Which two calls does a client need before it can receive? What should the output be, byte "
        "for byte?",
        "Look at what you print after the bytes of the server: does your program add a new line or "
        "any other text? Then look at the value `main` returns.",
        "A daytime client (RFC 867) calls `socket`, then `connect` with the address of the server. "
        "It does not call `bind`: the kernel picks a free port for it. Then it reads until `recv` "
        "returns 0 and writes the bytes to descriptor 1. The server ends its line with `\\r\\n`, "
        "and so does the output of the client, because these two bytes came from the server. A "
        "client that adds its own `\\n` cannot be used to fetch a file: the copy would be one byte "
        "longer than the original. Messages for the person in front of the screen go to standard "
        "error.",
    ),
)
def test_client_prints(bed: Bed) -> None:
    """A program that copies a stream adds nothing to it: its output may be the input of another
    program. connect(2) picks the local address by itself (ip(7))."""
    serve_fragments(bed, [GREETING])


@check(
    title="It reads to the end, in however many pieces the bytes come",
    stage=STAGE,
    program="greeting_client",
    points=3,
    concept="byte-streams",
    covers=("P31",),
    after=("client-prints",),
    hints=(
        "If a server calls `send` once, how many calls of `recv` does the client need? Who "
        "decides?",
        "Look at the condition that ends your reading. Is it that some bytes have come, or that "
        "the server has said there will be no more?",
        "A finger client (RFC 1288) gets a page of 700 bytes. On the same machine one `recv` "
        "returns all of it, and the client with one single `recv` seems to work. Over a network "
        "the page comes as 512 and 188 bytes, or as ten pieces, and the client shows the first "
        "piece only. TCP keeps the order of the bytes, but not the borders between calls of "
        "`send`. So the client reads in a loop, prints each piece as it comes, and leaves the loop "
        "when `recv` returns 0. How large the pieces are plays no part in this code, and neither "
        "does time.",
    ),
)
def test_client_reads_to_end(bed: Bed) -> None:
    """TCP is a stream of bytes. One recv(2) returns what has arrived, from one byte up to the
    size of the buffer, and 0 only after the FIN of the peer (RFC 9293 section 3.6)."""
    serve_fragments(bed, [bed.token(length) for length in (1, 2, 5, 23, 230)])


@check(
    title="Every byte value passes through unchanged",
    stage=STAGE,
    program="greeting_client",
    points=2,
    concept="byte-streams",
    covers=("P05",),
    after=("client-prints",),
    hints=(
        "Which byte ends a string in C? May the same byte be sent over a socket?",
        "Look at how your output call learns the number of bytes. Does it get the number from "
        "`recv`, or does it look for it in the data?",
        "A program fetches a picture over HTTP (RFC 9112). A PNG file has a zero byte at offset 8. "
        "The client prints its buffer with `%s`, and the file on disk is 8 bytes long: `%s` stops "
        "at the first zero. `std::cout << buffer`, `fputs` and `strlen` do the same, as they take "
        "the buffer as a C string. `fwrite(buffer, 1, n, stdout)`, `std::cout.write(buffer, n)` "
        "and `write(1, buffer, n)` take the number of bytes from their caller. It is the number "
        "that `recv` has returned, and no byte has a special meaning.",
    ),
)
def test_client_binary(bed: Bed) -> None:
    """A stream may hold any byte, also zero. Functions for C strings, such as printf(3) with %s,
    end at the first zero byte; the length comes from recv(2) alone."""
    serve_fragments(bed, [bytes(bed.rng.sample(range(256), 256)) for _ in range(2)])


@check(
    title="A short piece after a long one shows nothing of the long one",
    stage=STAGE,
    program="greeting_client",
    points=2,
    concept="byte-streams",
    covers=("P06",),
    after=("client-reads-to-end",),
    hints=(
        "Your buffer is used again and again. What is in it behind the bytes that have just "
        "arrived?",
        "Follow the value that `recv` returns: is this exact number used when the bytes are "
        "printed, each time round the loop?",
        "A TFTP client (RFC 1350) receives blocks of 512 bytes, and a last block that is shorter. "
        "It writes 512 bytes to the file for every block. For a file of 700 bytes the second block "
        "has 188 bytes; behind them the buffer still holds the tail of the first block, and the "
        "file gets 1024 bytes, the last 324 of them old. Clearing the buffer before each call "
        "would fill the file with zeros instead. The client needs the number that the call "
        "returned: that many bytes are new, and everything behind them is not part of the message.",
    ),
)
def test_client_no_stale_tail(bed: Bed) -> None:
    """recv(2) writes as many bytes as it returns, and leaves the rest of the buffer as it was:
    old bytes, and no zero byte behind the new ones."""
    serve_fragments(bed, [bed.token(90), bed.token(3), bed.token(40), bed.token(1)])


@check(
    title="A mebibyte arrives whole",
    stage=STAGE,
    program="greeting_client",
    points=2,
    concept="byte-streams",
    after=("client-binary", "client-no-stale-tail"),
    hints=(
        "How much can a server send before it ends the connection? Can your program know this "
        "before?",
        "Where are the bytes between `recv` and the output? What happens when there are more of "
        "them than that place can hold?",
        "A whois server (RFC 3912) sends everything it knows and then closes; for a large network "
        "that is some hundred kilobytes. A client with `char answer[65536]` reads into it until it "
        "is full and prints it at the end. The tail is lost, and with a small mistake in the sum "
        "the memory behind the array is overwritten. The other client has a buffer of 4096 bytes "
        "and prints each piece before it reads the next one: the buffer is empty again each time "
        "round, so the length of the answer does not matter at all. It needs less memory, and the "
        "first lines are on the screen at once.",
    ),
)
def test_client_large(bed: Bed) -> None:
    """The peer alone decides how long a stream is. A program that prints each piece before it
    reads the next one needs a small buffer for a stream of any length."""
    data = bed.bytes(1 << 20)
    listener = bed.listen()
    run = bed.start(*listener.address)
    connection = listener.accept()
    connection.send(data)
    connection.finish()
    expect_copied(run, data)


@check(
    title="When the first address of a name refuses, the next one is tried",
    stage=STAGE,
    program="greeting_client",
    points=3,
    needs=("link", "names"),
    hosts=("target", "peer", "third"),
    resolver="192.0.2.2",
    concept="names-and-addresses",
    covers=("P03", "P09"),
    after=("client-prints",),
    hints=(
        "A name has two addresses, and nobody listens at the first one. Is the server gone?",
        "Look at what follows a `connect` that failed. Does your program go on with the rest of "
        "the list, and with a new socket? And after one that succeeded: does it still look at an "
        "old `errno`?",
        "An NTP tool asks `localhost`, which has the addresses ::1 and 127.0.0.1. The server "
        "listens at 127.0.0.1 only. The tool walks along the list of `getaddrinfo`: for each entry "
        "it makes a new socket and connects. ::1 is refused, so it closes this socket, keeps the "
        "reason, and takes the next entry; 127.0.0.1 works, and it leaves the loop. Only when the "
        "list is at its end does it report the last reason. POSIX does not say what a socket is "
        "good for after a failed `connect`, so each try gets its own. And `errno` still holds the "
        "refusal: it is read only after a call that has failed.",
    ),
)
def test_client_every_address(bed: Bed) -> None:
    """A name may stand for several addresses, and a client should try them in turn until one
    connects (RFC 1123 section 2.3). See the example in getaddrinfo(3)."""
    name = "".join(bed.rng.choices("abcdefghijklmnopqrstuvwxyz", k=10)) + ".example"
    listener = bed.listen()
    refuses = bed.host("third").inet
    with NameServer(bed.udp(53), {name: [refuses, bed.peer.inet]}):
        run = bed.start(name, listener.port)
        connection = listener.accept()
    connection.send(GREETING)
    connection.finish()
    expect_copied(run, GREETING)


@check(
    title="It connects over IPv6",
    stage=STAGE,
    program="greeting_client",
    points=2,
    needs=("inet6",),
    concept="socket-addresses",
    covers=("P17",),
    after=("client-prints",),
    hints=(
        "Which argument of `socket` has to fit the address you connect to?",
        "Look for AF_INET and for `sockaddr_in` in your program. Which of them could come from the "
        "list of the resolver instead?",
        "An SSH client is given `2001:db8::7`. It created its socket with AF_INET before it looked "
        "at the address, and `connect` fails with EAFNOSUPPORT: a socket of one family cannot use "
        "the address of the other one. In the next version the address comes first. `getaddrinfo` "
        "reads the text, whichever family it is; the socket is made with the `ai_family` of the "
        "entry, and `connect` gets `ai_addr` and `ai_addrlen` just as they are. The length "
        "matters: a `sockaddr_in6` is longer than a `sockaddr`, and with `sizeof(sockaddr)` the "
        "kernel answers EINVAL.",
    ),
)
def test_client_inet6(bed: Bed) -> None:
    """The family of the socket and of the address must be the same, and the length that of this
    family: else connect(2) says EAFNOSUPPORT or EINVAL. See ipv6(7)."""
    listener = bed.listen(family="inet6")
    run = bed.start(*listener.address)
    connection = listener.accept()
    connection.send(GREETING)
    connection.finish()
    expect_copied(run, GREETING)


@check(
    title="It works when its standard input is closed, and the socket gets descriptor 0",
    stage=STAGE,
    program="greeting_client",
    points=2,
    concept="errors-and-errno",
    covers=("P10",),
    after=("client-prints",),
    hints=(
        "Which numbers can a descriptor have? Which value of `socket` says that it failed?",
        "Look at each place where you test a descriptor. Does the test treat 0 as a failure?",
        "A program that rotates log files calls `open` and tests `if (fd > 0)`. On a terminal the "
        "descriptors 0, 1 and 2 are taken and `open` returns 3, so the test is never wrong. At "
        "night the program is started by a service manager with standard input closed. Now the "
        "lowest free number is 0, `open` returns 0 for a file that is open and fine, and the "
        "program reports an error with whatever stands in `errno`. The manual page names one value "
        "for failure: -1. A test for this value, `fd == -1`, is right in both worlds.",
    ),
)
def test_client_closed_stdin(bed: Bed) -> None:
    """A new descriptor gets the lowest free number: with standard input closed this is 0, and 0
    is valid. socket(2) says failure with -1 and nothing else."""
    listener = bed.listen()
    run = bed.start(*listener.address, stdin="closed")
    connection = listener.accept()
    connection.send(GREETING)
    connection.finish()
    expect_copied(run, GREETING)
