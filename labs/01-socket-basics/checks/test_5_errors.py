"""What the programs say and do when a call fails or an argument is wrong."""

from __future__ import annotations

from nameserver import NameServer
from sockwork.harness import Bed, check

STAGE = "errors"
BAD_PORTS = ("70000", "65536", "-1", "80x", "")


@check(
    title="A refused connection ends the client with its reason",
    stage=STAGE,
    program="greeting_client",
    points=3,
    concept="errors-and-errno",
    covers=("P08",),
    hints=(
        "A call has failed. Where does it leave the reason, and for how long does the reason stay "
        "there?",
        "Look at what happens between the failed `connect` and the line that prints the reason. Is "
        "there another call in between? Then look at the value that `main` returns.",
        "A program opens its settings file, and `open` fails with ENOENT. Before it reports this "
        "it writes a line into a log, and closes a descriptor. These calls may change `errno`: the "
        "report now says `Success`, or `Bad file descriptor`, and the user looks in the wrong "
        "place for an hour. The repaired program copies `errno` into a variable in the first "
        "statement after the failure: `const int error = errno;`, and prints `strerror(error)` "
        "when it is ready. The same rule holds for `close` in a clean-up and for a destructor that "
        "runs on the way out. And a script can only see the exit status, so it must not be 0.",
    ),
)
def test_client_refused(bed: Bed) -> None:
    """A port without a listener answers with RST, and connect(2) fails with ECONNREFUSED.
    errno(3) holds this reason only until the next call that changes it."""
    bed.start(bed.peer.inet, bed.port).expect_error("connect", "Connection refused")


@check(
    title="A reset in the middle of the stream is an error, not the end",
    stage=STAGE,
    program="greeting_client",
    points=3,
    concept="resets-and-sigpipe",
    covers=("P50",),
    after=("client-reads-to-end", "client-refused"),
    hints=(
        "`recv` can return a positive number, 0, or -1. What does each of them say about the bytes "
        "that have come so far?",
        "Look at the condition of your loop. Which return values end it, and does the code behind "
        "it know which one it was?",
        "A backup program fetches a file over FTP (RFC 959); the end of the data connection is the "
        "end of the file. The server crashes in the middle and its kernel sends RST. With `while "
        "((n = recv(...)) > 0)` the loop ends with n = -1, the program prints `done`, and a file "
        "that is cut off counts as a good backup. After the loop the program has to look at n once "
        "more: 0 is the orderly end, the server sent FIN and all bytes are here; -1 is a failure "
        "with a reason in `errno`. Then it reports the reason and ends with status 1.",
    ),
)
def test_client_reset(bed: Bed) -> None:
    """FIN says that all bytes have come; RST says that the connection is broken and some may be
    missing (RFC 9293 section 3.10.7.4). recv(2) returns 0 for the first and -1 for the
    second."""
    listener = bed.listen()
    run = bed.start(*listener.address)
    connection = listener.accept()
    connection.send(bed.token(40))
    connection.consumed()
    connection.reset()
    run.expect_error(None, "Connection reset by peer")


@check(
    title="A name that does not exist ends the client with the resolver's own reason",
    stage=STAGE,
    program="greeting_client",
    points=2,
    needs=("link", "names"),
    resolver="192.0.2.2",
    concept="errors-and-errno",
    covers=("P08",),
    after=("client-refused",),
    hints=(
        "Does every call that fails leave its reason in `errno`? Where do you find out?",
        "Look at the branch for a failed name lookup. Which variable does it take the reason from, "
        "and which function turns it into text?",
        "A program compiles a pattern with `regcomp`. The call returns 0, or a number of its own, "
        "such as 8 for a parenthesis that is not closed; `regerror` turns this number into text. A "
        "student prints `strerror(errno)` instead and gets `Success`, because `regcomp` never "
        "touched `errno`; another one prints `strerror(8)` and gets `Exec format error`, as 8 "
        "means something else there. Numbers of errors belong to families, and each family has its "
        "own function for the text. The section RETURN VALUE of the manual page says which family "
        "it is.",
    ),
)
def test_client_unknown_name(bed: Bed) -> None:
    """The errors of getaddrinfo(3) are numbers of their own, and gai_strerror(3) has their
    texts. An unknown name is EAI_NONAME (RFC 3493 section 6.1)."""
    name = "".join(bed.rng.choices("abcdefghijklmnopqrstuvwxyz", k=10)) + ".example"
    with NameServer(bed.udp(53), {}):
        bed.start(name, bed.port).expect_error("getaddrinfo", "Name or service not known")


@check(
    title="The client takes a wrong port or a missing argument as a usage error",
    stage=STAGE,
    program="greeting_client",
    points=2,
    concept="checking-arguments",
    covers=("P11",),
    hints=(
        "To which port does a client connect that was told 70000? And one that was told `80x`?",
        "Where does your program look at the second argument for the first time: in code of your "
        "own, or inside a library call? What does this call do with a number that is too large?",
        "A mail tool reads `--retries 3`. It uses `std::stoi`, which skips spaces, takes `3x` as 3 "
        "and throws for `x`. The tool catches the exception, but `3x` and ` 3` pass, and `-3` "
        "makes a loop that never runs. The next version has one function for all its numbers: from "
        "a text and a limit it makes either a number or nothing. It uses `std::from_chars` with an "
        "unsigned type, and requires that the whole text was used and that the number is not above "
        "the limit. Each option calls this function, and `nothing` leads to the usage line and "
        "status 2 before any real work was done.",
    ),
)
def test_client_bad_port(bed: Bed) -> None:
    """A port is a number of 16 bits. On Linux even getaddrinfo(3) takes 70000 and keeps the low
    16 bits, 4464: the program has to check the text itself."""
    for port in BAD_PORTS:
        bed.start(bed.peer.inet, port).expect_usage_error()
    bed.start(bed.peer.inet).expect_usage_error()


@check(
    title="A port that is taken ends the program with its reason",
    stage=STAGE,
    program="endpoints",
    points=2,
    concept="errors-and-errno",
    covers=("P07",),
    after=("endpoints-listening",),
    hints=(
        "What does a program know about the world after a call whose result it did not look at?",
        "Go through `socket`, `bind` and `listen` one by one: what does your program do when this "
        "one fails? And is the line `listening` printed before or after all of them have "
        "succeeded?",
        "A DHCP server (RFC 2131) needs UDP port 67. Its author wrote `bind(fd, ...);` without "
        "looking at the result. When another server already has the port, `bind` fails with "
        "EADDRINUSE, the program goes on, prints `ready`, and waits in `recv` on a socket that has "
        "no such port. No client ever gets an answer, and nothing in its log says why. With the "
        "result checked the same program ends after a millisecond with `dhcpd: bind: Address "
        "already in use`. Whoever started it sees the reason, and the exit status tells the "
        "service manager.",
    ),
)
def test_endpoints_in_use(bed: Bed) -> None:
    """Two sockets cannot listen at the same address and port: bind(2) fails with EADDRINUSE. A
    listen(2) without an address of its own even succeeds, at a port that nobody knows."""
    bed.occupy(bed.port)
    server = bed.start(bed.target.inet, bed.port)
    server.expect_error("bind", "Address already in use")


@check(
    title="The server takes a wrong port or a missing argument as a usage error",
    stage=STAGE,
    program="greeting_server",
    points=2,
    concept="checking-arguments",
    covers=("P11",),
    hints=(
        "Which port would a server listen at that was told 70000? How long would its user look for "
        "it?",
        "Look at the way of the second argument into the address. Is there any value of the text "
        "for which your program says no?",
        "A print server reads `queue_size=` from its settings into an `unsigned short`. An "
        "administrator writes 70000; `atoi` returns 70000, and storing it in 16 bits leaves 4464. "
        "The server starts, all looks well, and weeks later jobs are dropped at a number that "
        "stands nowhere. With `-1` the same field becomes 65535. In the next version reading and "
        "judging are one step: a text becomes a number between the two limits, or the start ends "
        "with one line that says which setting is wrong. An error at the start, in front of the "
        "person who can repair it, is better than one that shows weeks later.",
    ),
)
def test_greeting_bad_port(bed: Bed) -> None:
    """A port has 16 bits: 70000 put into 16 bits is 4464, and -1 is 65535. A server that accepts
    such a text listens where nobody will look for it. See strtol(3) for what atoi(3) cannot
    tell."""
    for port in BAD_PORTS:
        bed.start(bed.target.inet, port).expect_usage_error()
    bed.start(bed.target.inet).expect_usage_error()
