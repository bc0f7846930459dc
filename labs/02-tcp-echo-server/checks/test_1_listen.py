"""The server takes its place: its address, its port, its queue, and what it says when it cannot."""

from __future__ import annotations

from sockwork.harness import Bed, check

STAGE = "listen"
IN_USE = "Address already in use"


@check(
    title="It listens at the port it was given",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="listening-sockets",
    covers=("P01", "P12", "P19"),
    hints=(
        "Which calls turn a new socket into one that clients can connect to, and in which order?",
        "Start your server by hand and run `ss -tlnp` beside it. Is there a row for it? Is the "
        "port in that row the one you gave? If there is no row, which call has not happened?",
        "A finger server (RFC 1288) lives on port 79. `ss -tln` shows no row for it: the program "
        "has called `socket` and `bind`, so the port is taken, but a client is refused, since "
        "only `listen` opens the door. In another copy the row shows port 20224. Write both "
        "numbers in hex: 79 is 0x004f and 20224 is 0x4f00. The two bytes of the port stand in the "
        "wrong order. In a third copy the row shows port 79 although the command line said 8079: "
        "somebody had written the number into the source while testing.",
    ),
)
def test_listens(bed: Bed) -> None:
    """bind(2) gives a socket its address, listen(2) makes the kernel take connections there. Before
    listen, a client that connects gets RST (RFC 9293 section 3.10.7.1)."""
    bed.connect(bed.start_server())


@check(
    title="It listens at the given address only, not at every address of the machine",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="listening-sockets",
    covers=("P02",),
    after=("listens",),
    hints=(
        "Your machine has more than one address. Through which of them shall this server be "
        "reached, and who decides that?",
        "Look at the address that goes into `bind`: does its host part come from the first word "
        "of the command line? Compare with the first column of addresses in `ss -tln`.",
        "A print server (IPP, RFC 8011) shall take jobs from programs on the same machine only "
        "and is started with the address 127.0.0.1. `ss -tln` shows `0.0.0.0:631`. Every test on "
        "the machine works, because 0.0.0.0 stands for all addresses, and 127.0.0.1 is one of "
        "them. But so does a print job from a stranger in the same café. The program had read the "
        "address, printed it in its log, and passed a structure full of zeros to the kernel: all "
        "zeros is exactly the address that means `every one`.",
    ),
)
def test_host_only(bed: Bed) -> None:
    """A socket bound to 0.0.0.0 or :: takes connections at every address of the machine; bound to
    one address, only there (ip(7), INADDR_ANY)."""
    server = bed.start_server()
    for row in bed.rows(state="LISTEN", local_port=server.port):
        if row.local[0] != bed.target.inet:
            bed.fail(
                f"the server listens at {row.local[0]}",
                f"a LISTEN row at {bed.target.inet}, the HOST it was given",
                reason="wrong-address",
                evidence=(row.text,),
            )


@check(
    title="It listens over IPv6 as well as over IPv4",
    stage=STAGE,
    program="echo_server",
    points=2,
    needs=("inet6",),
    concept="names-and-addresses",
    covers=("P17",),
    after=("listens",),
    hints=(
        "Where does your program decide between IPv4 and IPv6? Is it your decision, or does the "
        "HOST on the command line say it already?",
        "Look for AF_INET and `sockaddr_in` in your source. Each of them is a place that knows "
        "only one family. Where could the family come from instead?",
        "A news server (NNTP, RFC 3977) is started with `2001:db8::7`. Its code fills a "
        "`sockaddr_in` by hand with `inet_addr`, which cannot read this text and returns the "
        "address 255.255.255.255. A better version gives the text to `getaddrinfo`. The answer "
        "holds all that the next calls need: the family for `socket`, the address and its length "
        "for `bind`. The same lines then work for `192.0.2.7`, for `2001:db8::7` and for a name, "
        "and no line names a family.",
    ),
)
def test_inet6(bed: Bed) -> None:
    """getaddrinfo(3) returns family, address and length together: a server that passes them on to
    socket(2) and bind(2) works with both families (RFC 3493 section 6.1)."""
    bed.connect(bed.start_server(family="inet6"))


@check(
    title="When the port is taken it says so and ends",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="errors-and-errno",
    covers=("P07",),
    after=("listens",),
    hints=(
        "How does a system call tell you that it did not do what you asked? What does your "
        "program do then?",
        "Find each of the calls `socket`, `bind` and `listen`, and look at the line after it. "
        "What happens in your program if `bind` returns -1? What does `listen` do with a socket "
        "that has no address?",
        "An IRC server prints `ready on port 6667` and nobody can talk to it. Another copy was "
        "running. Its `bind` had returned -1, the program did not look, and called `listen` on a "
        "socket without an address. That is no error: the kernel picks a free port, 41873 in this "
        "case, and there the server waits for clients that will never come. A good report names "
        "program, call and reason, on standard error: `ircd: bind: Address already in use`, and "
        "the exit status tells the script that started it. The reason is in `errno`, and it is "
        "only valid directly after the call that failed.",
    ),
)
def test_port_taken(bed: Bed) -> None:
    """bind(2) fails with EADDRINUSE while another socket listens at the address. listen(2) on a
    socket without an address does not fail: the kernel picks some free port (ip(7))."""
    bed.occupy(bed.port)
    run = bed.start(bed.target.inet, bed.port)
    run.expect_reason(IN_USE)


@check(
    title="The error is one line: program, call, reason",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="errors-and-errno",
    covers=("P07",),
    after=("port-taken",),
    hints=(
        "Someone reads this line in a log with the lines of ten other programs. Which three things "
        "does he want to know?",
        "Look at what your program writes when a call fails. Is its own name there, and the name "
        "of the call? Is it one line, and on standard error?",
        "A backup script starts `rsyncd`, `smtpd` and `ntpd`, and its log says `Address already "
        "in use`. Which of the three was it, and what did it try? `smtpd: bind: Address already in "
        "use` answers both in one line, and a script can find it with one pattern. perror(3) "
        "writes the word it is given, a colon and the reason, and so it knows the call but not the "
        "program; a helper function of three lines knows both. The reason comes from "
        "strerror(3), and errno must be read before any other call can change it.",
    ),
)
def test_error_line(bed: Bed) -> None:
    """Programs that run unattended are read in logs. The line `PROGRAM: CALL: REASON` says who
    failed, at what and why; strerror(3) gives the reason."""
    bed.occupy(bed.port)
    run = bed.start(bed.target.inet, bed.port)
    run.expect_error("bind", IN_USE)


@check(
    title="A second copy on the same port ends, and the first goes on",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="listening-sockets",
    covers=("P15",),
    after=("port-taken",),
    hints=(
        "Two servers on one port: to which of them does the next client go? Who would notice?",
        "Look at the options you set before `bind`. One of them lets a server start again at "
        "once, another one lets several sockets share a port. Read the entries of both in "
        "socket(7).",
        "Two copies of a mail server (SMTP) run by mistake, one with the old settings. Both had "
        "set SO_REUSEPORT, so no `bind` failed, and `ss -tln` shows two rows for port 25. The "
        "kernel spreads new connections over them, and half of all mail follows the old rules. "
        "The error comes and goes with each connection. Without this option the second copy would "
        "have ended with `Address already in use`, a message of one line in place of a day of "
        "searching. SO_REUSEADDR is a different option: it only helps against old connections, "
        "never against a second listener.",
    ),
)
def test_second_copy(bed: Bed) -> None:
    """SO_REUSEPORT lets several sockets listen at one address, and the kernel spreads the clients
    over them. SO_REUSEADDR does not: a second listener gets EADDRINUSE (socket(7))."""
    first = bed.start_server()
    second = bed.start(bed.target.inet, first.port)
    second.expect_reason(IN_USE)
    bed.connect(first)


@check(
    title="Wrong arguments are answered with one line and exit status 2",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="checking-arguments",
    covers=("P11",),
    hints=(
        "Which texts are port numbers? What shall happen with all the others?",
        "Look at how the second argument becomes a number. What does your conversion return for "
        "`80x`, for `-1`, for `70000`? How would your program notice?",
        "A time server is started with the port `70000`. `atoi` returns 70000 without a word; "
        "`htons` takes the low 16 bits; and the server listens on port 4464. With `8o80`, where a "
        "letter o slipped in, it listens on port 8. Nobody sees an error, only clients that are "
        "refused. A conversion that helps tells two things more than the number: where it stopped "
        "reading, and whether the number fitted. `strtol` reports them through its second "
        "argument and errno, `std::from_chars` in the struct it returns. Then only the range 0 to "
        "65535 is left to check.",
    ),
)
def test_server_usage(bed: Bed) -> None:
    """A port is a number from 0 to 65535 (RFC 9293 section 3.1). atoi(3) cannot say that the text
    was none: it returns 80 for `80x`, and a port keeps only the low 16 bits of 70000."""
    host = bed.target.inet
    commands = [(), (host,), (host, "70000"), (host, "80x"), (host, "-1")]
    for words in commands:
        bed.start(*words).expect_usage_error()


@check(
    title="Five clients can connect while the server is busy",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="listening-sockets",
    covers=("P20",),
    after=("listens",),
    hints=(
        "Who answers the SYN of a client, your program or the kernel? Where does the connection "
        "wait until your program calls `accept`?",
        "Look at the second argument of your `listen`. What does it count: clients, or something "
        "else? `ss -tln` shows it in the column Send-Q.",
        "A database server passes 1 to `listen`, since `it serves one query at a time anyway`. At "
        "nine o'clock thirty programs connect within a millisecond. The kernel completes two "
        "handshakes and puts them in the queue; all the other SYNs are dropped without any "
        "answer, and those clients try again after 1 second, then 3, then 7. The server looks "
        "slow, and its own log shows nothing. The number is the length of the waiting room, not "
        "the number of patients: a doctor who treats one person at a time still needs more than "
        "one chair.",
    ),
)
def test_backlog(bed: Bed) -> None:
    """The kernel completes handshakes on its own and queues the connections until accept(2). The
    backlog of listen(2) is the length of this queue; when it is full, SYNs are dropped."""
    server = bed.start_server()
    server.signal("SIGSTOP", to="all")  # for good: what it does afterwards is judged elsewhere
    bed.quiet()
    for _ in range(5):
        bed.connect(server)


@check(
    title="It works when standard input is closed",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="descriptors-and-limits",
    covers=("P10",),
    after=("listens",),
    hints=(
        "Which number does the kernel give to the next descriptor? Which one, if 0 is free?",
        "Look at how you test the value that `socket` and `accept` return. Which values mean "
        "failure? Is 0 one of them?",
        "A backup server is started from a boot script that closes standard input. `open` for its "
        "log file returns 0, the lowest free number, and the program says `cannot open log: "
        "Success`: the call had worked, and the test was `if (fd > 0)`. From a terminal it never "
        "happens, since there the numbers 0, 1 and 2 are taken. The manual page states the rule: "
        "-1 is failure, everything else is a descriptor.",
    ),
)
def test_server_closed_stdin(bed: Bed) -> None:
    """socket(2) returns the lowest free descriptor: 0 when standard input is closed, as some
    service managers do. Only -1 means failure."""
    server = bed.start(bed.target.inet, bed.port, stdin="closed")
    bed.quiet()
    bed.connect((bed.target.inet, bed.port))
    server.expect_alive("a server runs until it is killed")
