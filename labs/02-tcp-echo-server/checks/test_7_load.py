"""Many clients at once, an orderly shutdown, and economical segments."""

from __future__ import annotations

import resource

from sockwork.harness import Bed, check
from sockwork.harness.failure import Skipped
from tcp_echo import line, round_trip, served

STAGE = "load"
BATCH = 1000


def gather(bed: Bed, count: int) -> None:
    """So many clients at once; all get an answer, and the newest gets one more at the end. The
    limits leave room for two threads, or a process with a helper, for each of them."""
    limits = {"nofile": 2 * count, "nproc": 4 * count}
    server = bed.start_server(limits=limits)
    clients = bed.connect_many(server, count)
    for start in range(0, count, BATCH):
        batch = clients[start : start + BATCH]
        bed.echo_all(batch, [line(bed) for _ in batch])
    round_trip(bed, clients[-1])


@check(
    title="More than a thousand clients are served at the same time",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="multiplexing",
    covers=("P21", "P91"),
    after=("unique-tokens",),
    optimised=True,
    hints=(
        "What does your server need for each client: a descriptor, memory, a process? Which of "
        "these has a limit that you did not choose yourself?",
        "If you use `select`: what is FD_SETSIZE, and what does FD_SET do with a descriptor of "
        "that size or above? If you keep clients in an array: how long is it? If you start a "
        "process or a thread for each: what happens when that fails?",
        "A hotel's key board has 1024 hooks. The 1025th key is hung where the board has ended, on "
        "the wall behind it, and the hook above the fire alarm is not a good place. An `fd_set` "
        "is such a board: 1024 bits, fixed when the C library was built. `FD_SET(1024, &set)` "
        "writes one bit behind it, into whatever lies there. A chat server for a school ran for "
        "years with 30 users; at the first online event it crashed in a function that had nothing "
        "to do with sockets. The two successors of that call take a list as long as you like, or "
        "keep the list inside the kernel.",
    ),
)
def test_thousand_clients(bed: Bed) -> None:
    """An fd_set has room for descriptors 0 to 1023 (FD_SETSIZE); FD_SET with a higher one writes
    beyond it (select(2)). poll(2) and epoll(7) have no such limit."""
    gather(bed, 1100)


@check(
    title="Ten thousand clients are served at the same time",
    stage=STAGE,
    program="echo_server",
    points=3,
    level="challenge",
    concept="multiplexing",
    covers=("P91",),
    after=("thousand-clients",),
    optimised=True,
    hints=(
        "With ten thousand silent clients and one that talks: how much work does your server do "
        "for each line?",
        "Count the steps of one round of your loop. Does anything in it go through all clients, "
        "ready or not? How much memory does one client cost, with its stack or its buffers?",
        "A teacher who asks each of ten thousand pupils `do you have a question?` needs a day for "
        "one answer. `poll` does this: the program hands over the whole list, the kernel looks at "
        "each entry, and the program goes through the list again to find the one that raised a "
        "hand. The answer does not depend on how many are busy, but on how many are there. The "
        "other way is a bell on each desk: the list is told to the kernel once, and each call "
        "returns only those who rang. A push server for phones lives from that difference: nearly "
        "all of its clients are silent nearly all of the time.",
    ),
)
def test_ten_thousand(bed: Bed) -> None:
    """poll(2) looks at every descriptor in each call; epoll_wait(2) returns only those that are
    ready, so the cost does not grow with the silent ones (epoll(7))."""
    for limit, what in (
        (resource.RLIMIT_NOFILE, "descriptors (ulimit -Hn)"),
        (resource.RLIMIT_NPROC, "processes and threads (ulimit -Hu)"),
    ):
        if resource.getrlimit(limit)[1] in range(12_000):  # RLIM_INFINITY is -1
            raise Skipped(f"this machine allows fewer than 12,000 {what}")
    gather(bed, 10_000)


@check(
    title="On SIGTERM it takes no more clients, finishes what it owes, and ends with status 0",
    stage=STAGE,
    program="echo_server",
    points=3,
    level="challenge",
    concept="signals-and-children",
    covers=("P73", "P74"),
    after=("half-close-tail",),
    hints=(
        "What does a client expect that has sent everything and is still receiving when the "
        "server is asked to end? And one that waits with nothing owed to it?",
        "List what must happen between the signal and the end: the listener, each client with "
        "bytes outstanding, each idle client. Which of your threads or loops learns of the "
        "signal, and how is one that sleeps in a system call woken?",
        "At closing time a good supermarket locks the entrance; who stands at the till pays in "
        "peace; who only looks around is asked to leave; then the lights go out. Pulling the main "
        "switch is faster, and so a file server did it: SIGTERM was left at its default, which "
        "ends the process at once. Each update of the system broke a few downloads, and clients "
        "that had sent everything never got their receipt. Signal handlers may do very little "
        "(signal-safety(7)), so most servers only leave a note there: a flag, a byte in a pipe, "
        "or a `signalfd`, and do the work in the loop that waits anyway.",
    ),
)
def test_terminate(bed: Bed) -> None:
    """SIGTERM asks a program to end; by default it ends at once (signal(7)). A client that has
    ended its side is owed the rest of its bytes, an idle one only the FIN."""
    server = bed.start_server()
    idle = served(bed, server)
    slow = bed.connect(server, receive_buffer=4096, send_buffer=1 << 19)
    data = bed.bytes(256 << 10)
    slow.send(data)
    slow.finish()
    slow.expect(data[:4096])
    server.signal("SIGTERM")
    idle.expect_end("nothing is owed to the idle client")
    why = "a server that was asked to end takes no more clients"
    bed.expect_rows(why, at_most=0, state="LISTEN", local_port=server.port)
    slow.expect(data[4096:])
    slow.expect_end("everything has come back")
    server.expect_exit(0)


@check(
    title="A short line is sent back in one segment",
    stage=STAGE,
    program="echo_server",
    points=2,
    level="challenge",
    needs=("link",),
    concept="byte-streams",
    covers=("P113", "P114"),
    after=("echo-line",),
    hints=(
        "How many system calls does your server make to send one line back? How many packets does "
        "the kernel make of them?",
        "Count your `send` calls for one `recv`. If there are two, what does the kernel do with "
        "the second small piece while the first one is not acknowledged?",
        "A remote desktop (VNC) sends for each key a header of 4 bytes and then a body of 4 "
        "bytes, with two `send` calls. Nagle's rule lets one small segment travel; the second "
        "waits until the first is acknowledged. The receiver, for its part, delays the "
        "acknowledgement by up to 40 ms, in the hope of sending it together with an answer, which "
        "cannot come, since half of the message is missing. Each key costs 40 ms: 25 keys a "
        "second, for 8 bytes each, in a network with a delay of 0.1 ms. TCP_NODELAY takes away "
        "the waiting and leaves two packets for each key. What would leave one?",
    ),
)
def test_one_packet(bed: Bed) -> None:
    """A second small segment waits until the first is acknowledged (Nagle, RFC 9293 section 3.7.4),
    and the peer may delay that by up to 500 ms (section 3.8.6.3). One send(2) needs one segment."""
    client = served(bed, bed.start_server())
    for _ in range(4):
        round_trip(bed, client)
    segments = [p for p in client.packets() if p.from_ == "target" and p.length > 0]
    if len(segments) != 5:
        bed.fail(
            f"The server sent 5 lines back in {len(segments)} segments.",
            "Each line comes back in one segment.",
            reason="small-segments",
            evidence=[f"packet {p.n}  {p.from_}: {p.summary}" for p in segments[:6]],
        )
