"""Stage "disturbed calls": system calls that do less than usual, all within what POSIX allows."""

from __future__ import annotations

from sockwork.harness import ACCEPTS, WRITES, Bed, check

STAGE = "disturbed calls"
NEEDS = ("ptrace",)
GREETING = b"hello client"


@check(
    title="The greeting is whole, however little one send takes",
    stage=STAGE,
    program="greeting_server",
    points=2,
    level="challenge",
    needs=NEEDS,
    concept="byte-streams",
    covers=("P42", "P43"),
    after=("greeting-exact", "greeting-keeps-serving"),
    hints=(
        "What does the result of `send` mean when it is smaller than the length you gave?",
        "Look at the call that sends the greeting. What happens in your program if it has taken "
        "three bytes only?",
        "A clock service (RFC 867) sends one line with the date. Its author wrote one `write` and "
        "did not look at the result, since a line of 30 bytes always fits. Behind a slow modem with "
        "a full buffer the call took 11 bytes, and some clients showed half a date. The result of "
        "the call said 11, the program had all it needed to do better: send the other 19.",
    ),
)
def test_greeting_short_writes(bed: Bed) -> None:
    """send(2) on a stream returns how many bytes the kernel has taken, which may be fewer than were
    given. The rest is still the program's to send."""
    server = bed.start_server()
    server.shorten(WRITES, 3)
    client = bed.connect(server)
    client.finish()
    client.expect(GREETING)
    client.expect_end("the greeting is all that the server has to say")


@check(
    title="A client lost in accept does not end the server",
    stage=STAGE,
    program="greeting_server",
    points=2,
    level="challenge",
    needs=NEEDS,
    concept="listening-sockets",
    covers=("P24",),
    after=("greeting-exact", "greeting-keeps-serving"),
    hints=(
        "When `accept` fails, whose fault can that be, besides your listening socket's?",
        "Look at the branch for a failed `accept`. Does the loop go on after ECONNABORTED?",
        "A ticket office calls the next number, and nobody comes: the visitor has gone home. The "
        "clerk calls the next one. A clerk who locks the office for the day instead has taken a "
        "fault of one visitor for a fault of the office. accept(2) lists the errors that belong to "
        "one connection only; after them the listening socket is as good as before.",
    ),
)
def test_greeting_accept_fails(bed: Bed) -> None:
    """accept(2) fails with ECONNABORTED when the client has given up its connection before it was
    taken from the queue. The next one waits behind it."""
    server = bed.start_server()
    server.interfere(ACCEPTS, "ECONNABORTED")
    client = bed.connect(server)
    client.finish()
    client.expect(GREETING)
    client.expect_end("the greeting is all that the server has to say")
