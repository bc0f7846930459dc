"""endpoints and greeting_server: create, bind, listen, accept, end the connection in order."""

from __future__ import annotations

from typing import Any

from sockwork.harness import Address, Bed, Connection, Run, check

STAGE = "create, bind, listen, accept"
GREETING = b"hello client"


def pair(address: Address) -> str:
    """An address and a port as the program prints them."""
    return f"{address[0]} {address[1]}"


def expect_line(bed: Bed, run: Run, expected: str) -> None:
    """The next line on stdout, now or when the program ends: when it comes is judged elsewhere."""
    line = run.next_line()
    if line != expected:
        bed.fail(
            f"the program printed `{line}`",
            f"the line `{expected}`, as the kernel's table has it",
            reason="wrong-lines",
        )


def start_for_one_client(bed: Bed, **where: Any) -> Run:
    """Starts the program and waits until it listens. Whether it goes on after its first client is
    left open: `endpoints` must not, and for `greeting_server` there is a check of its own."""
    run = bed.start_server(**where)
    run.is_server = False
    return run


def connect(bed: Bed, address: Address) -> Connection:
    """A client whose port is another one when its two bytes are swapped, like that of the server;
    the kernel may pick one whose bytes are the same."""
    return bed.connect(address, local_port=bed.other_port())


def visit(bed: Bed, address: Address) -> Connection:
    """A client that connects and goes away again."""
    connection = connect(bed, address)
    connection.close()
    return connection


def reset(connection: Connection) -> None:
    """A client resets its connection, and the RST has arrived."""
    connection.reset()
    connection.target_state("NONE", "CLOSE")


def expect_greeting(connection: Connection) -> None:
    """A client that says at once that it will send nothing, and reads to the end."""
    connection.finish()
    connection.expect(GREETING)
    connection.expect_end("the greeting is all that the server has to say")


@check(
    title="It listens at the address and port it was given, and says so",
    stage=STAGE,
    program="endpoints",
    points=3,
    concept="listening-sockets",
    covers=("P01", "P12", "P19"),
    hints=(
        "Which three calls turn nothing into a socket that takes connections? What does each of "
        "them add?",
        "Look at the address you pass to `bind`: do its host and its port come from the command "
        "line, and is the port in network byte order? Then look for the call after `bind`.",
        "A daytime server (RFC 867) on port 13 goes through states that the kernel shows. After "
        "`socket` it has a descriptor and nothing else. After `bind` the address 192.0.2.1 port 13 "
        "is reserved, but a client that connects is refused with RST, and `ss -tln` shows no row. "
        "Only `listen` makes the row with state LISTEN: from now on the kernel itself completes "
        "handshakes and puts the new connections into a queue. `accept` takes them out. If the row "
        "shows port 3328 instead of 13, the two bytes of the port were swapped: 13 is 0x000d and "
        "3328 is 0x0d00.",
    ),
)
def test_endpoints_listening(bed: Bed) -> None:
    """bind(2) gives a socket its address; only listen(2) lets the kernel take connections there.
    Until then a client that connects is refused (RFC 9293 section 3.5.2)."""
    server = start_for_one_client(bed)
    visit(bed, server.address)
    expect_line(bed, server, f"listening {pair(server.address)}")


@check(
    title="With port 0 it prints the port that the kernel picked",
    stage=STAGE,
    program="endpoints",
    points=2,
    concept="listening-sockets",
    after=("endpoints-listening",),
    hints=(
        "If you ask for `any free port`, who knows which one you got, and when is it decided?",
        "Look where the number in your line comes from: from the command line, or from the socket? "
        "Which call asks a socket for its own address?",
        "An FTP server in passive mode (RFC 959) opens a second listening socket for each file and "
        "has to tell the client where it is. It binds to port 0, so that the kernel chooses a free "
        "port. Then it calls `getsockname` on the listening socket and puts the port it finds "
        "there into the reply `227 Entering Passive Mode`. A server that wrote the port it had "
        "asked for would send the client to port 0. The order matters too: before `bind` the "
        "socket has no address, and `getsockname` shows zeros.",
    ),
)
def test_endpoints_ephemeral(bed: Bed) -> None:
    """bind(2) to port 0 makes the kernel pick a free port (ip(7), ip_local_port_range). Only
    getsockname(2) tells the program which one it got."""
    server = start_for_one_client(bed, port=0)
    visit(bed, server.address)
    expect_line(bed, server, f"listening {pair(server.address)}")


@check(
    title="It listens at the given address only, not at every address of the machine",
    stage=STAGE,
    program="endpoints",
    points=2,
    concept="listening-sockets",
    covers=("P02",),
    after=("endpoints-listening",),
    hints=(
        "A machine has several addresses: 127.0.0.1, one for each network card, and more. At which "
        "of them should this server be reached?",
        "Look at the host part of the address that goes into `bind`. Is it the HOST of the command "
        "line, or an address that stands for all of them?",
        "A database server offers its port to programs on the same machine only. It binds to "
        "127.0.0.1, and `ss -tln` shows `127.0.0.1:5432`. A colleague changes the address to "
        "0.0.0.0 `because then it always works`. Now the row shows `0.0.0.0:5432`: the server can "
        "be reached through every address of the machine, also from the network outside. Nothing "
        "in the program looks different, and every test on the machine itself still passes. Only "
        "the row in the kernel's table, or a connection to another address of the machine, shows "
        "the difference.",
    ),
)
def test_endpoints_host_only(bed: Bed) -> None:
    """A socket bound to 0.0.0.0 or :: can be reached through every address of the machine; bound
    to one address it can be reached through this one only. See ip(7), INADDR_ANY."""
    server = start_for_one_client(bed)
    if server.address[0] != bed.target.inet:
        bed.fail(
            f"the program listens at {server.address[0]}",
            f"a LISTEN row at {bed.target.inet}, the HOST it was given",
            reason="wrong-address",
        )


@check(
    title="Each line is on its way as soon as it is printed",
    stage=STAGE,
    program="endpoints",
    points=2,
    concept="standard-output",
    covers=("P41",),
    after=("endpoints-listening",),
    hints=(
        "On a terminal you see each line at once. What is different when the output is a pipe?",
        "Look at each place that prints. Is there something after it that pushes the text out of "
        "the memory of your program? Remember that the program then waits, for a long time, in "
        "another call.",
        "A mail filter reads a message on standard input, prints `HOLD` and then waits for a slow "
        "virus scanner. Run by hand, `HOLD` appears at once. Run by the mail server, through a "
        "pipe, it appears with the verdict a minute later: the C and C++ libraries collect output "
        "for a pipe in a buffer of some kilobytes and write it when the buffer is full or the "
        'program ends. `std::cout << "HOLD" << std::endl` empties the buffer, '
        "`std::cout.flush()` and `fflush(stdout)` do too, and `setvbuf(stdout, nullptr, _IOLBF, "
        "0)` does it after each line. `\\n` alone does it for a terminal only.",
    ),
)
def test_endpoints_flushed(bed: Bed) -> None:
    """The standard library writes output to a terminal line by line, but output to a pipe only
    when its buffer is full or the program ends. See setbuf(3) and fflush(3)."""
    server = start_for_one_client(bed)
    server.expect_output(f"listening {pair(server.address)}\n".encode())
    bed.connect(server)
    for _ in ("listening", "local", "peer"):
        server.next_line()


@check(
    title="It prints the two ends of the connection as the kernel has them",
    stage=STAGE,
    program="endpoints",
    points=3,
    concept="listening-sockets",
    covers=("P04", "P28"),
    after=("endpoints-listening",),
    hints=(
        "After `accept` your program has two sockets. Which of them knows the client, and what are "
        "the four numbers that name one connection?",
        "Look at the descriptor you ask for each end, and at the length you pass: which value must "
        "it have before the call, and what has the kernel written into it afterwards?",
        "An SMTP server (RFC 5321) writes the client's address into each message. It calls "
        "`accept(listener, address, &length)`. `length` goes both ways: before the call it says "
        "how much room there is, after it how much was used. With `length` 0 the kernel writes "
        "nothing, and the message says 0.0.0.0. The server also wants its own address, because the "
        "machine has two: it asks `getsockname` of the new socket. The listening socket was bound "
        "to 0.0.0.0 and answers exactly that; only the connected socket knows through which "
        "address this client came. `getpeername` of the listening socket fails with ENOTCONN.",
    ),
)
def test_endpoints_both_ends(bed: Bed) -> None:
    """accept(2) returns a new socket with both addresses: getsockname(2) gives this end,
    getpeername(2) the other. Their length argument is read first and then written by the
    kernel."""
    for host in (bed.target.inet, "0.0.0.0"):
        server = start_for_one_client(bed, host=host, port=bed.other_port())
        connection = visit(bed, (bed.target.inet, server.port))
        expect_line(bed, server, f"listening {pair(server.address)}")
        expect_line(bed, server, f"local {pair(connection.remote)}")
        expect_line(bed, server, f"peer {pair(connection.local)}")


@check(
    title="The same over IPv6",
    stage=STAGE,
    program="endpoints",
    points=2,
    needs=("inet6",),
    concept="listening-sockets",
    covers=("P17",),
    after=("endpoints-both-ends",),
    hints=(
        "Where in your program does it say IPv4? Does anything have to say it?",
        "Look at the first argument of `socket`, at the size of the object that holds the client's "
        "address, and at the code that turns an address into text.",
        "An HTTP server keeps each client's address in a `sockaddr_in`, 16 bytes. One day a client "
        "comes over IPv6. Its address needs 28 bytes; `accept` fills the 16 it was offered, cuts "
        "the rest off and says 28 in the length. The log then shows an IPv4 address that nobody "
        "has: the flow information, read as an address. A `sockaddr_storage` has room for every "
        "family, and its `ss_family` says which one came. `getnameinfo` turns both into text. The "
        "server takes the family for `socket` from the list that `getaddrinfo` returned, so the "
        "code names no family at all.",
    ),
)
def test_endpoints_inet6(bed: Bed) -> None:
    """A sockaddr_in6 is 28 bytes long, a sockaddr_in 16: only a sockaddr_storage has room for
    every family (RFC 3493 section 3.10). See ipv6(7)."""
    server = start_for_one_client(bed, family="inet6")
    connection = visit(bed, server.address)
    expect_line(bed, server, f"listening {pair(server.address)}")
    expect_line(bed, server, f"local {pair(connection.remote)}")
    expect_line(bed, server, f"peer {pair(connection.local)}")


@check(
    title="It stays until the client ends the connection, and then ends too",
    stage=STAGE,
    program="endpoints",
    points=3,
    concept="ending-a-connection",
    after=("endpoints-listening",),
    hints=(
        "How does a program find out that the other side will send no more? Which call says it, "
        "and with which return value?",
        "Look at what stands between printing the two ends and `close`. What does your loop do "
        "when `recv` returns a positive number, 0, or -1?",
        "A discard server (RFC 863) takes everything and answers nothing. Its heart is a loop "
        "around `recv`: a positive number means bytes, and they are dropped; 0 means that the "
        "client has sent its FIN, and the loop ends; -1 means an error. After the loop it calls "
        "`close`, and its own FIN goes out. Two wrong versions: one calls `recv` once and leaves "
        "after the first bytes; the other goes on after 0 and calls `recv` again and again, gets 0 "
        "each time, and never closes. From outside both can be seen in the state of the socket: "
        "the second one stays in CLOSE_WAIT.",
    ),
)
def test_endpoints_waits(bed: Bed) -> None:
    """recv(2) returns 0 when the peer has ended its side in order, and not before. The kernel
    then waits in CLOSE_WAIT for the close(2) of this side (RFC 9293 section 3.6)."""
    server = start_for_one_client(bed)
    connection = bed.connect(server)
    connection.expect_nothing("the client has not ended the connection")
    connection.send(bed.token())
    connection.expect_nothing("some bytes are not the end of the connection")
    server.expect_alive("the connection is still there")
    connection.finish()
    connection.expect_end("the client has ended the connection")
    server.expect_exit(0)


@check(
    title="A client gets the greeting, nothing else, and then the end",
    stage=STAGE,
    program="greeting_server",
    points=3,
    concept="ending-a-connection",
    covers=("P06", "P55"),
    hints=(
        "How many bytes are in `hello client`? And how does the client learn that there are no "
        "more of them?",
        "Look at the length you pass to `send`. Then look at what happens to the connected socket "
        "after the greeting: which call makes the kernel send FIN?",
        "A quote of the day server (RFC 865) sends one sentence and ends the connection. With "
        "`send(fd, text, sizeof text, 0)` on a `char text[]` it also sends the zero byte that C "
        "puts behind every string: invisible on a terminal, visible in a capture as one byte too "
        "many. `strlen(text)` or the size of a `std::string_view` leaves it out. The client cannot "
        "know how long the sentence is; it reads until `recv` returns 0. This 0 comes from the "
        "FIN, and the FIN comes when the server calls `shutdown(fd, SHUT_WR)` or closes the "
        "socket. If the server forgets it, the client shows the sentence and then waits for ever.",
    ),
)
def test_greeting_exact(bed: Bed) -> None:
    """TCP carries bytes without any mark for the end of a message. FIN is the one mark it has:
    it says that no more bytes will come (RFC 9293 section 3.6, shutdown(2))."""
    server = start_for_one_client(bed)
    expect_greeting(bed.connect(server))


@check(
    title="The server prints where the client came from",
    stage=STAGE,
    program="greeting_server",
    points=3,
    concept="socket-addresses",
    covers=("P01",),
    after=("greeting-exact",),
    hints=(
        "Who chose the port of the client, and in which byte order does it lie in the address that "
        "`accept` filled in?",
        "Compare the port you print with the one in `ss -tn` on the client's side. Write both as "
        "four hex digits. What do you see?",
        "An IRC server asks the client's machine who opened the connection (ident, RFC 1413). The "
        "question is a line with the two ports, such as `51204, 6667`. The server takes the "
        "client's port from the `sockaddr_in` that `accept` has filled in. There it lies in "
        "network byte order: `c8 04`. On a PC a `uint16_t` with these bytes is 1224, and the ident "
        "server answers `NO-USER`, because there is no such connection. `ntohs(address.sin_port)` "
        "gives 51204. The rule is the same as for the other direction: each number that goes into "
        "or comes out of a socket address passes through one conversion.",
    ),
)
def test_greeting_from(bed: Bed) -> None:
    """accept(2) fills in the client's address and port in network byte order. ntohs(3) turns the
    port into the number that the client's own machine shows."""
    server = start_for_one_client(bed)
    connection = connect(bed, server.address)
    expect_greeting(connection)
    server.expect_output("connected from: {}:{}\n".format(*connection.local).encode())


@check(
    title="A client that says nothing is greeted at once",
    stage=STAGE,
    program="greeting_server",
    points=2,
    concept="ending-a-connection",
    after=("greeting-exact",),
    hints=(
        "In this protocol, who speaks first? What would happen if both sides waited for the other?",
        "Look at the calls between `accept` and `send`, and between `send` and the end of the "
        "connection. Does one of them wait for something that a silent client never does?",
        "In SMTP (RFC 5321) the server speaks first: `220 mail.example`. In HTTP the client does. "
        "A student turns an HTTP server into an SMTP server and leaves the first `recv` where it "
        "was. The mail client connects and waits for `220`; the server waits for bytes of the "
        "client. Both connections are fine, both queues are empty, and nothing will ever move "
        "again. No time limit and no sleep repairs this. For each call that waits, a protocol has "
        "to answer one question: which event will end this wait, and can the other side cause it "
        "in the state it is in?",
    ),
)
def test_greeting_silent(bed: Bed) -> None:
    """accept(2) returns as soon as the handshake is done; the client need not have sent a byte.
    A recv(2) before the greeting waits for bytes that a silent client never sends."""
    server = start_for_one_client(bed)
    connection = bed.connect(server)
    connection.expect(GREETING)
    connection.expect_end("the server has said all it has to say")


@check(
    title="A client that spoke first still gets the greeting and an orderly end",
    stage=STAGE,
    program="greeting_server",
    points=3,
    concept="ending-a-connection",
    covers=("P59",),
    after=("greeting-silent",),
    hints=(
        "What does the kernel do with bytes that have arrived and that nobody has read, when their "
        "socket is closed? What does it tell the sender?",
        "Look at the calls after `send`. Can there still be unread bytes in the socket when you "
        "close it? Which call ends only your own direction and leaves the other one open?",
        "A line printer server (RFC 1179) refuses a job: it sends one byte and closes. The client "
        "was already sending its file. The kernel of the server drops the unread bytes and, "
        "because data was lost, sends RST instead of FIN; the client's `recv` fails with "
        "ECONNRESET, and the refusal may be lost on the way. The better server sends its byte, "
        "calls `shutdown(fd, SHUT_WR)`, so that FIN goes out behind it, then reads and drops what "
        "still comes until `recv` returns 0 or a time limit is reached, and only then closes. "
        "Every byte has been read, so nothing was lost, and the kernel has no reason for an RST.",
    ),
)
def test_greeting_speaks_first(bed: Bed) -> None:
    """close(2) with unread bytes in the socket sends RST instead of FIN, to tell the peer that
    data was lost (RFC 1122 section 4.2.2.13)."""
    server = start_for_one_client(bed)
    with server.frozen():
        connection = bed.connect(server)
        connection.send(bed.bytes(3000))
        connection.delivered()
    connection.expect(GREETING)
    connection.expect_end("the client has broken no rule")


@check(
    title="It goes on to serve one client after the other",
    stage=STAGE,
    program="greeting_server",
    points=3,
    concept="listening-sockets",
    covers=("P22", "P29"),
    after=("greeting-exact",),
    hints=(
        "Which of the two sockets belongs to one client, and which one belongs to all of them?",
        "Look at where your loop begins and ends. Which calls are done once, which once for each "
        "client? Which descriptor does `close` get?",
        "A POP3 server (RFC 1939) is a shop with one door and many visits. `socket`, `bind` and "
        "`listen` build the door, once. Then a loop without end: `accept` lets a visitor in and "
        "returns a new descriptor for this visit, the talk happens on it, `close` ends the visit. "
        "The listening socket is never used to send or receive, and it is not closed while the "
        "server lives. If the server closes the wrong one of the two descriptors, the first client "
        "waits for its end, and the second one is refused, because there is no longer a row in "
        "state LISTEN.",
    ),
)
def test_greeting_keeps_serving(bed: Bed) -> None:
    """accept(2) returns a new socket for each connection and leaves the listening socket as it
    is: the same one serves the next client."""
    server = bed.start_server()
    for _ in range(5):
        connection = bed.connect(server)
        expect_greeting(connection)
        connection.close()


@check(
    title="A client that resets its connection does not end the server",
    stage=STAGE,
    program="greeting_server",
    points=3,
    concept="resets-and-sigpipe",
    covers=("P26", "P67"),
    after=("greeting-silent", "greeting-keeps-serving"),
    hints=(
        "A client may be gone before your server has accepted it. Which calls on that connection "
        "can then fail, and is one lost client a reason for the server to end?",
        "Look at each call between `accept` and `close`: what do you do when it fails? And what "
        "does `send` do, besides returning -1, when the connection is broken?",
        "A Telnet server (RFC 854) writes a banner to each new client. A port scanner connects and "
        "resets at once. `accept` still returns a descriptor. `getpeername` says ENOTCONN, `recv` "
        "says ECONNRESET, and a `send` on the broken connection raises the signal SIGPIPE, which "
        "ends the whole process without a word. The server calls `signal(SIGPIPE, SIG_IGN)` at its "
        "start, or passes MSG_NOSIGNAL to each `send`; then the failure is EPIPE, a return value "
        "like any other. It notes the reason on standard error, closes this one descriptor and "
        "goes back to `accept`. A failure of one connection belongs to this connection.",
    ),
)
def test_greeting_reset(bed: Bed) -> None:
    """On Linux accept(2) also returns connections that were reset meanwhile: getpeername(2) then
    fails with ENOTCONN, and send(2) may raise SIGPIPE, which ends the process unless it is
    ignored."""
    server = bed.start_server()
    with server.frozen():
        reset(bed.connect(server))
        ended = bed.connect(server)
        ended.finish()
        ended.target_state("CLOSE_WAIT")
        reset(ended)  # after the FIN: now a send(2) raises SIGPIPE
    bed.quiet()
    server.expect_alive("two clients have reset their connections")
    greeted = bed.connect(server)
    greeted.expect(GREETING)
    reset(greeted)
    bed.quiet()
    server.expect_alive("a client has reset its connection after the greeting")
    expect_greeting(bed.connect(server))


@check(
    title="The greeting comes over IPv6 too",
    stage=STAGE,
    program="greeting_server",
    points=2,
    needs=("inet6",),
    concept="socket-addresses",
    covers=("P17",),
    after=("greeting-from",),
    hints=(
        "Which part of your server would have to change for IPv6? Could it be written so that "
        "nothing changes?",
        "Look at how the text HOST becomes the address for `bind`. Which families can this step "
        "read?",
        "A Redis server is started with an address to listen at, `10.0.0.5` or `fd00::5`. Its "
        "first version used `inet_addr`, which knows IPv4 only, and refused the second one. Now it "
        "calls `getaddrinfo` with AI_PASSIVE and the text from its settings, takes `ai_family` for "
        "`socket` and `ai_addr` with `ai_addrlen` for `bind`. The client's address goes into a "
        "`sockaddr_storage`, and `getnameinfo` with NI_NUMERICHOST writes it out. The word AF_INET "
        "no longer stands in the program. Where a program names a family, it works with this "
        "family only.",
    ),
)
def test_greeting_inet6(bed: Bed) -> None:
    """getaddrinfo(3) returns the family, the address and its length: a program that passes them
    on to socket(2) and bind(2) works with IPv4 and IPv6 alike (RFC 3493)."""
    server = start_for_one_client(bed, family="inet6")
    connection = connect(bed, server.address)
    expect_greeting(connection)
    address, port = connection.local
    line = server.next_line()
    if line not in (f"connected from: {address}:{port}", f"connected from: [{address}]:{port}"):
        bed.fail(
            f"the program printed `{line}`",
            f"the line `connected from: {address}:{port}`",
            reason="wrong-lines",
        )
