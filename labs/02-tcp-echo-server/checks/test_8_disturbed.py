"""Stage "disturbed calls": system calls that do less than usual, all within what POSIX allows."""

from sockwork.harness import ACCEPTS, READS, WAITS, WRITES, Bed, check
from tcp_echo import round_trip

STAGE = "disturbed calls"
NEEDS = ("ptrace",)


@check(
    title="Short writes change nothing",
    stage=STAGE,
    program="echo_server",
    points=2,
    level="challenge",
    needs=NEEDS,
    concept="byte-streams",
    covers=("P42", "P43"),
    after=("echo-sizes", "coalesced"),
    hints=(
        "What does `send` return, and what has your program done with the bytes it does not count?",
        "Find every call that sends. Is there a way out of it, other than an error, before the last "
        "byte is with the kernel? And which byte does the next call begin with?",
        "A courier takes boxes to a flat on the fifth floor. He is asked to take ten, takes as many "
        "as he can carry, says `four`, and goes. A careless sender crosses ten off his list; a "
        "careful one crosses off four and asks again with the other six. On one machine, with small "
        "amounts, the courier always carries all ten, so both senders look alike for years. A signal "
        "in the middle of a long transfer, a full buffer or another system shows the difference. "
        "The loop has three lines: while something is left, send it, and move on by what was taken.",
    ),
)
def test_short_calls(bed: Bed) -> None:
    """send(2) on a stream may take fewer bytes than it was given; the rest is still the program's to
    send. Here every call takes a few bytes only, which a right program cannot even notice."""
    server = bed.start_server()
    server.shorten(WRITES, 300)
    first, second = bed.connect(server), bed.connect(server)
    one, two = bed.bytes(5000), bed.bytes(3001)
    first.send(one)
    second.send(two)
    second.expect(two)
    first.expect(one)
    first.finish()
    first.expect_end("everything has come back")


@check(
    title="A connection that goes wrong in accept costs only itself",
    stage=STAGE,
    program="echo_server",
    points=2,
    level="challenge",
    needs=NEEDS,
    concept="listening-sockets",
    covers=("P24",),
    after=("sequential",),
    hints=(
        "Which errors of `accept` say something about your listening socket, and which only about "
        "the one connection that was to be accepted?",
        "Look at what your server does when `accept` returns -1. Does it look at `errno` before it "
        "decides that all is over?",
        "A shop opens its door for a customer who has already walked away. That is no reason to "
        "close the shop. A mail server of the nineties did close: `accept` failed with ECONNABORTED "
        "when a client gave up in the queue, the error branch was the one for `the socket is "
        "broken`, and every impatient client could end it. Errors of accept fall in three classes: "
        "the connection is gone or a signal came (try again), something is used up for the moment "
        "(wait until there is more), and the descriptor is no listening socket (stop, it is a bug).",
    ),
)
def test_accept_fails(bed: Bed) -> None:
    """accept(2) may report errors of the new connection: ECONNABORTED when the client has given it
    up, ENOBUFS or ENOMEM for want of memory. The listening socket is as good as before."""
    server = bed.start_server()
    server.interfere(ACCEPTS, "ECONNABORTED")
    round_trip(bed, bed.connect(server))
    server.interfere(ACCEPTS, "ENOBUFS")
    round_trip(bed, bed.connect(server))


@check(
    title="A signal in any call ends nothing",
    stage=STAGE,
    program="echo_server",
    points=2,
    level="challenge",
    needs=NEEDS,
    concept="signals-and-children",
    covers=("P77", "P78"),
    after=("sequential", "stop-continue"),
    hints=(
        "If your program catches a signal, which of its calls can return -1 because of that?",
        "For each call that waits, look at the branch for -1. What happens there when `errno` is "
        "EINTR?",
        "A night guard reads a long book. Each time the phone rings he puts the book down, answers, "
        "and goes on where he was. A bad guard takes the ring for the end of the book and goes "
        "home. In a program that counts ended children, the handler for SIGCHLD is the phone. The "
        "parent waits in accept, a child that serves a client waits in recv; either may be "
        "interrupted and return EINTR, although nothing is wrong with its socket. SA_RESTART lets "
        "the kernel repeat some calls, but not poll and epoll_wait: signal(7) has the list.",
    ),
)
def test_interrupted(bed: Bed) -> None:
    """A call that waits fails with EINTR when a handler has run (signal(7)). Nothing is lost by it:
    the call is made again. A program that catches no signal cannot meet this, and passes."""
    server = bed.start_server()
    for calls in (WAITS, ACCEPTS):
        server.interfere(calls, "EINTR")
        round_trip(bed, bed.connect(server))
    client = bed.connect(server)
    round_trip(bed, client)
    for calls in (READS, WRITES, WAITS):
        server.interfere(calls, "EINTR")
        round_trip(bed, client)
    client.finish()
    client.expect_end("the client has ended its side")


@check(
    title="The client, too, makes up for short writes",
    stage=STAGE,
    program="echo_client",
    points=2,
    level="challenge",
    needs=NEEDS,
    concept="byte-streams",
    covers=("P42", "P43"),
    after=("client-echo",),
    hints=(
        "How does your client know how much of its input the kernel has taken?",
        "Follow one piece of input from `read` to the socket. At which place could its second half "
        "be forgotten?",
        "A printer's spooler copied files of any length to a device in pieces of 4 KiB and took "
        "each piece for written when the call returned. The device took 512 bytes at a time "
        "whenever its paper ran low. The pages that came out had gaps, always at the same place "
        "after a refill, and never in a short test. The result of every write says how far you "
        "are; the rest of the piece goes into the next call, and only then is the next piece read.",
    ),
)
def test_client_short_calls(bed: Bed) -> None:
    """What send(2) did not take is still the program's to send. Every send of the client takes a
    few bytes only here."""
    listener = bed.listen()
    client = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    client.shorten(WRITES, 200)
    data = bed.bytes(3000)
    client.stdin_write(data)
    connection.expect(data)
    connection.send(data)
    client.stdin_close()
    connection.expect_end("its input has ended")
    connection.finish()
    client.expect_exit(0)
    client.expect_stdout(data)
