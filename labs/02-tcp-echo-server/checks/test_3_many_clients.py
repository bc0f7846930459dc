"""Several clients: one after the other, and at the same time."""

from __future__ import annotations

from sockwork.harness import Bed, check
from tcp_echo import line, round_trip, served

STAGE = "many clients"


@check(
    title="Five clients are served, one after the other",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="listening-sockets",
    covers=("P22", "P29"),
    after=("echo-line",),
    hints=(
        "After the first client has gone, is there still someone at the door? Which of your two "
        "sockets is the door?",
        "Look at where the loop of your server begins. Which calls happen once in the life of the "
        "server, and which once for each client? Which descriptors are closed, and when?",
        "A daytime server (RFC 867) answers the first client and is never reachable again. There "
        "are two ways to build that. In the first, the program simply comes to the end of `main` "
        "after one client. In the second there is a loop, but at the end of each round it closes "
        "the listening socket instead of the connection, two variables with similar names. `ss "
        "-tln` tells them apart: in the first case the process is gone, in the second it lives "
        "and waits in `accept`, but its row has disappeared. A listening socket is no connection "
        "and ends with none of them.",
    ),
)
def test_sequential(bed: Bed) -> None:
    """accept(2) makes a new socket for each connection and leaves the listening socket as it was,
    ready for the next client. Only closing it, or the end of the process, ends that."""
    server = bed.start_server()
    for _ in range(5):
        served(bed, server).close()


@check(
    title="The client that came last is served while an earlier one is silent",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="iterative-and-concurrent",
    covers=("P23",),
    after=("sequential",),
    hints=(
        "Your server waits for the next bytes of client A. What happens to client B, who connects "
        "now?",
        "Where does your program sleep while A says nothing: in `recv`, or somewhere that also "
        "notices B? Look at the row of your listener in `ss -tln`: its Recv-Q counts the clients "
        "that wait for `accept`.",
        "A chess server plays with one client until the game is over. The second player connects: "
        "the kernel completes the handshake, the client program says `connected`, and then "
        "nothing happens, for an hour. There are three families of ways out. A process or a "
        "thread for each player: each may sleep as long as it likes. Or one thread that never "
        "sleeps in `recv`, but in a call that watches all players at once and tells which of them "
        "has sent a move. Each way has its own price: memory for each client, or the work of "
        "remembering by hand where each game stands.",
    ),
)
def test_last_opened_first(bed: Bed) -> None:
    """recv(2) on a blocking socket sleeps until this client sends something. A server that sleeps
    there cannot accept or serve anyone else meanwhile; the others wait in the kernel's queue."""
    server = bed.start_server()
    silent = served(bed, server)
    silent.target_state("ESTABLISHED")
    served(bed, server)


@check(
    title="Clients that take turns are all served, the newest as well",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="multiplexing",
    covers=("P89", "P90"),
    after=("last-opened-first",),
    hints=(
        "When a call tells you which clients are ready, what does it do with the list of clients "
        "you gave it? Can you use that list again?",
        "If you use `select`: look at its first argument and at what each round does to the set "
        "before the call. What changes when a client leaves? If you keep your own list of "
        "clients: who is added, who is removed, and at which place?",
        "A terminal server for four terminals uses `select`. The set of descriptors is built "
        "once, before the loop. The first call returns with one terminal ready, and the set now "
        "holds only this one: `select` writes its answer into the question. The other three are "
        "never looked at again. A second bug: the first argument is the highest descriptor, where "
        "the manual page wants the highest plus one, so the terminal that came last is deaf. It "
        "is hard to find by hand, because whoever tests alone is always the first one.",
    ),
)
def test_alternating(bed: Bed) -> None:
    """select(2) overwrites its sets with the answer, so they must be built again for each call; its
    first argument is the highest descriptor plus one."""
    server = bed.start_server()
    first, second, third = (served(bed, server) for _ in range(3))
    for client in (first, second, first, second, third):
        round_trip(bed, client)
    first.close()
    for client in (second, third, third, second):
        round_trip(bed, client)


@check(
    title="Every client gets its own bytes, also when many arrive at once",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="processes-and-threads",
    covers=("P96", "P97", "P99"),
    after=("alternating", "backlog"),
    hints=(
        "Which of your variables belong to one client, and which exist once for all of them?",
        "If you start threads: what exactly do you pass to a new thread, and can it change before "
        "the thread has read it? Look for buffers that are global, `static` or shared by "
        "reference.",
        "A ticket counter (one thread for each window) passes `&number` to every new thread, the "
        "address of the loop's own variable. While the first thread is still being started, the "
        "loop has moved on and the variable holds the next number: two windows call 18, and "
        "nobody calls 17. On a quiet day it works, because the threads start faster than people "
        "arrive. A shared buffer fails in the same way: window one writes a name, window two "
        "writes another one over it, window one prints. Each thread needs its own copy, made "
        "before the next round begins.",
    ),
)
def test_unique_tokens(bed: Bed) -> None:
    """Threads share all memory of a process (pthreads(7)): a buffer or a variable that exists once
    is the same for every client. The clients arrive together, while the server is stopped."""
    server = bed.start_server()
    for _ in range(6):
        with server.frozen():
            clients = [bed.connect(server) for _ in range(5)]  # the shortest usual queue holds five
            tokens = {client: line(bed, 4081) for client in clients}
            for client, token in tokens.items():
                client.send(token)
        for client, token in tokens.items():
            client.expect(token)


@check(
    title="A client that does not read its answers does not hold up the others",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="flow-control",
    covers=("P45", "P100"),
    after=("unique-tokens", "echo-sizes"),
    hints=(
        "Where do the bytes of `send` go when the client does not read? What does `send` do when "
        "there is no room left?",
        "Look at each `send` in a thread that serves more than one client. May it sleep? What "
        "would your program need to remember so that it can come back to the rest later?",
        "A radio server (HTTP streaming) sends the same music to all listeners from one thread. "
        "One of them closes the lid of the laptop. Its receive buffer fills up, then the send "
        "buffer of the server, and then `send` sleeps, until the laptop is opened again. All "
        "other listeners hear silence. The socket was chosen by `poll` for reading, so the author "
        "felt safe; `poll` had said nothing about writing. With a non-blocking socket `send` "
        "takes what fits and says so. The server keeps the rest for this one listener, asks to be "
        "told when there is room, and turns to the next.",
    ),
)
def test_slow_reader(bed: Bed) -> None:
    """send(2) on a blocking socket sleeps when the send buffer is full, and it stays full while the
    peer does not read (RFC 9293 section 3.8.6). A thread with several clients must not sleep
    there."""
    server = bed.start_server()
    other = served(bed, server)
    flood = bed.connect(server, receive_buffer=4096)
    flood.send_in_background(bed.bytes(2 << 20))
    for _ in range(20):  # between two of them the server has had its turn with the flood
        round_trip(bed, other)
