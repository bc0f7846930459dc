"""A server lives long: it rests when there is nothing to do, keeps nothing of clients that have
gone, and gets over full tables, signals and its own death."""

from __future__ import annotations

from sockwork.harness import Bed, Connection, Resources, Run, check
from tcp_echo import round_trip, served

STAGE = "a long life"
MIB = 1 << 20
QUEUE_LIMIT = 32 * MIB  # in the server's own memory
KERNEL_BUFFERS = 12 * MIB  # in both kernels, generously
HALF_A_STACK = 4 * MIB  # pthread_create(3) reserves 8 MiB for a thread unless told otherwise


def visit(bed: Bed, server: Run, clients: int) -> None:
    """So many clients, one after the other; they leave in three different ways."""
    for number in range(clients):
        client = served(bed, server)
        leave(client, number)


def leave(client: Connection, number: int) -> None:
    if number % 3 == 0:
        client.finish()
        client.expect_end()
        client.close()
    elif number % 3 == 1:
        client.reset()
    else:
        client.close()


def at_rest(bed: Bed, server: Run) -> Resources:
    """What the server uses when all clients have gone and nothing moves any more."""
    bed.quiet()
    return server.resources()


def expect_zombies_at_most(bed: Bed, server: Run, count: int) -> None:
    """A server may collect its children when the next client comes, so one is there."""
    served(bed, server)
    server.expect_resources("children that have ended are waited for", zombies_at_most=count)


def crowd(bed: Bed, server: Run) -> list[Connection]:
    """More clients than the server has descriptors for; those without one wait in the kernel's
    queue. (Such servers run without sanitizers, which need descriptors of their own and report
    nonsense without.)"""
    limit = server.limit_descriptors(spare=6)
    clients = [bed.connect(server) for _ in range(10)]
    expect_limit_met(bed, server, limit)
    return clients


def expect_limit_met(bed: Bed, server: Run, limit: int) -> None:
    """Proves that the crowd did what it is there for: no descriptor is free, or the server rests
    and leaves clients in the queue. The processes of a server that has several of them have tables
    of their own, which together are larger."""
    if server.holds_descriptors(limit):
        return
    server.expect_alive("clients that have to wait are no reason to end")
    waiting = sum(row.rqueue for row in bed.rows(state="LISTEN", local_port=server.port))
    if waiting == 0:
        raise RuntimeError(f"ten more clients were taken with fewer than {limit} descriptors")


def flood(bed: Bed, client: Connection, limit: int) -> int:
    """Sends until the server has stopped reading for good, or `limit` bytes have gone."""
    data = bed.bytes(4 * MIB)
    sent = 0
    while sent < limit:
        count = client.send_some(data)
        if count == 0:
            break
        sent += count
        bed.quiet()
    return sent


@check(
    title="It sleeps while its client is silent",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="multiplexing",
    covers=("P44", "P93"),
    after=("echo-line",),
    hints=(
        "Your server has nothing to do. In which system call is it at this moment?",
        "Run `top` beside your server with one silent client: does it use the processor? Then "
        "look at the loop: which call in it waits, and what have you asked it to wait for? Is one "
        "of these things true all the time?",
        "A thermostat asks its sensor a million times a second whether something has changed, and "
        "warms the room by doing so. A printer server made its sockets non-blocking and called "
        "`recv` in a loop: EAGAIN, EAGAIN, EAGAIN. The next version used `poll` and still kept a "
        "processor busy: it had asked for POLLIN and POLLOUT, on every socket, always. A socket "
        "with an empty send buffer is ready for writing, so `poll` returned at once, every time. "
        "The question `may I write?` is worth asking only while there is something to write.",
    ),
)
def test_idle(bed: Bed) -> None:
    """poll(2) returns at once while a socket is ready for what was asked, and an empty send buffer
    is always ready for POLLOUT. A program that waits for nothing but events uses no processor
    time."""
    server = bed.start_server()
    server.expect_idle("there is no client")
    served(bed, server)
    server.expect_idle("its client is silent")


@check(
    title="It sleeps after an idle client was reset",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="multiplexing",
    covers=("P92",),
    after=("idle", "last-opened-first", "reset-mid-transfer"),
    hints=(
        "A waiting call can report more than `readable` and `writable`. What else, and did you "
        "ask for it?",
        "Look at how you test `revents` or the events of `epoll`: do you compare with `==`, or "
        "test one bit? What does your loop do with a socket that has only an error to report?",
        "A street lamp reports `lamp broken` to the control room, and the panel shows it until "
        "somebody presses `seen`. The operator looks only at the column `motion detected`; the "
        "panel rings, the operator looks, sees no motion, sits down, and the panel rings again. "
        "`poll` does this with POLLERR and POLLHUP: they are reported whether you asked or not, "
        "and again and again, until somebody takes the error (with `recv` or SO_ERROR) or closes "
        "the descriptor. A BGP router that ignored them used a full processor for each neighbour "
        "that had crashed.",
    ),
)
def test_idle_after_reset(bed: Bed) -> None:
    """poll(2) and epoll report errors and hang-ups unasked: POLLERR and POLLHUP stay set until the
    error is taken or the descriptor is closed."""
    server = bed.start_server()
    other = served(bed, server)
    client = served(bed, server)
    client.reset()
    client.target_state("NONE")
    server.expect_idle("the client that was reset is gone")
    round_trip(bed, other)


@check(
    title="It sleeps after a client has gone, and keeps no socket of it",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="ending-a-connection",
    covers=("P49", "P66"),
    after=("idle", "last-opened-first", "end-fin"),
    hints=(
        "`recv` has returned 0 for a client. What will it return if you call it again?",
        "Look at what is left of a client after its end: its descriptor, its entry in your list, "
        "its events in `epoll`. Is there still anything that can wake your loop?",
        "A bus company keeps a stop in its timetable after the village has moved away. Each bus "
        "stops, opens the door, nobody gets in, and this goes on for years. A socket at its end "
        "behaves the same way: it is readable, since `recv` would return 0 without waiting; so "
        "`poll` returns at once; `recv` returns 0; and so on. A music server answered 0 with "
        "`shutdown` and nothing more: its FIN went out, the client was content, every test "
        "passed, but the descriptor was still in the list, and each listener who left cost a "
        "little more processor time.",
    ),
)
def test_idle_after_end(bed: Bed) -> None:
    """At the end of the stream recv(2) returns 0 again and again, and poll(2) calls the socket
    readable. Only close(2) ends that, and takes the socket out of CLOSE_WAIT."""
    server = bed.start_server()
    other = served(bed, server)
    for _ in range(3):
        served(bed, server).close()
    server.expect_idle("three clients have gone, one is silent")
    expect_none_in_close_wait(bed, server)
    round_trip(bed, other)


def expect_none_in_close_wait(bed: Bed, server: Run) -> None:
    why = "the server closes the socket of each client that has gone"
    bed.expect_rows(why, at_most=0, state="CLOSE_WAIT", local_port=server.port)


@check(
    title="It goes on after it was stopped and continued",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="signals-and-children",
    covers=("P77", "P78"),
    after=("last-opened-first",),
    hints=(
        "A waiting call can return although nothing has happened. Which value of `errno` says "
        "that?",
        "Look at what follows your waiting call when it returns -1. Is every reason a reason to "
        "end? Try it by hand: press Ctrl-Z in the terminal of your server, then type `fg`.",
        "Somebody sits in a waiting room and reads. An alarm is tested; everyone is asked to step "
        "outside and may come back a minute later. One visitor walks home, since `the waiting was "
        "interrupted`. A stream recorder did that: it slept in `epoll_wait`, a developer stopped "
        "it in a debugger and let it go on, and `epoll_wait` returned -1 with EINTR. The program "
        "printed `epoll_wait: Interrupted system call` and ended. Nothing was wrong with it, the "
        "call had only been cut short. For most calls Linux begins again by itself after a stop; "
        "signal(7) lists those for which it does not.",
    ),
)
def test_stop_continue(bed: Bed) -> None:
    """After SIGSTOP and SIGCONT, epoll_wait(2) and calls with a time-out return EINTR even if the
    program handles no signal (signal(7), `Interruption of system calls by stop signals`)."""
    server = bed.start_server()
    client = served(bed, server)
    bed.quiet()
    with server.frozen():
        pass
    bed.quiet()  # whatever this has done to it, it has done before the next line comes
    round_trip(bed, client)
    served(bed, server)


@check(
    title="After 200 clients no descriptor is left behind",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="descriptors-and-limits",
    covers=("P55", "P62", "P114"),
    after=("unique-tokens", "idle-after-reset", "idle-after-end"),
    hints=(
        "How many descriptors does your server hold when all clients have gone? How do you know?",
        "List every way out of the code that serves one client: end, error of `recv`, error of "
        "`send`, exception. Which of them does not pass a `close`? `ls /proc/PID/fd` shows what "
        "is left.",
        "A library lends books. Readers who bring them back at the desk are crossed off. Readers "
        "who throw them into the night box are not: after a year the computer says that all books "
        "are lent, and the shelves are full. In a proxy the orderly end of a client led to "
        "`close`, and the line `if (n < 0) return;` did not. Only clients with bad connections "
        "take this path: it leaked two descriptors an hour, and after three weeks `accept` failed "
        "with `Too many open files`. Code that closes in one place, whatever the way out was, "
        "cannot forget a path; in C++ an object can do it.",
    ),
)
def test_descriptors(bed: Bed) -> None:
    """A descriptor lives until close(2) or the end of the process, whether its connection ended
    with FIN or RST. A process may have only so many of them (RLIMIT_NOFILE, getrlimit(2))."""
    server = bed.start_server()
    visit(bed, server, 12)
    before = at_rest(bed, server)
    visit(bed, server, 200)
    server.expect_resources("200 clients have come and gone", fds_at_most=before.fds + 4)
    expect_none_in_close_wait(bed, server)


@check(
    title="After 60 clients no process, thread or stack is left behind",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="processes-and-threads",
    covers=("P79", "P98"),
    after=("descriptors",),
    hints=(
        "When a child process or a thread has ended: who must be told, so that the kernel or the "
        "library can clear up after it?",
        "Run `ps` after a few clients: are there processes marked `<defunct>`? Look at VSZ: does "
        "it grow with each client? Which call goes with `fork`, and which two with a new thread?",
        "In a hotel a guest who leaves hands in the key; only then is the room given to somebody "
        "else. A child process that has ended keeps its entry in the table of processes until the "
        "parent has asked how it ended; `ps` calls it a zombie. A thread keeps its stack, 8 MiB "
        "of address space, until another thread has taken its result, or forever if nobody does. "
        "A radio server with a thread for each listener ran well until the four-thousandth "
        "listener: then `pthread_create` said `Resource temporarily unavailable`. There were six "
        "threads, and four thousand stacks that nobody had asked for.",
    ),
)
def test_processes(bed: Bed) -> None:
    """A child that has ended stays in the process table until wait(2); a thread that is neither
    joined nor detached keeps its stack (pthread_join(3)). Both grow with each client."""
    server = bed.start_server()
    visit(bed, server, 12)
    before = at_rest(bed, server)
    sizes = [before.vm_size]
    for _ in range(3):
        visit(bed, server, 20)
        sizes.append(at_rest(bed, server).vm_size)
    # A run-time system may take a large area at any time, but a leak grows in every round.
    growth = min(after - earlier for earlier, after in zip(sizes, sizes[1:]))
    if growth > 20 * HALF_A_STACK:
        bed.fail(
            f"The address space of the server grew by {growth // MIB:,} MiB with each 20 clients.",
            f"It grows by less than half a thread's stack per client ({HALF_A_STACK // MIB} MiB).",
            reason="leak",
        )
    left = {"threads_at_most": before.threads + 4, "processes_at_most": before.processes + 4}
    server.expect_resources("60 clients have come and gone", **left)
    expect_zombies_at_most(bed, server, 60 // 5)  # a few that ended together: zombies-at-once


@check(
    title="Five children that end at the same moment are all waited for",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="signals-and-children",
    covers=("P80",),
    after=("processes",),
    hints=(
        "Five children end before your signal handler runs. How often does it run?",
        "Look at the call in your SIGCHLD handler: how many children does one call collect? How "
        "would you find out whether there are more?",
        "A night porter gets a bell sign for `a guest has left`. Five guests leave together: the "
        "bell rings once, because a bell that is already ringing cannot ring more. The porter "
        "clears one room; the other four stay empty and locked. The next time the bell rings he "
        "clears one room again, and there are four more than before. A signal is such a bell: "
        "while it is pending, further signals of the same number add nothing. A spooler that "
        "started a child for each print job collected one zombie every time that two jobs ended "
        "together. The bell says `look after the rooms`, not `look after one room`.",
    ),
)
def test_zombies_at_once(bed: Bed) -> None:
    """Signals of the same number do not queue: five children that end while SIGCHLD is pending
    cause one delivery (signal(7)). A single wait(2) in the handler collects one of them."""
    server = bed.start_server()
    clients = [served(bed, server) for _ in range(5)]
    server.signal("SIGSTOP")  # only the first process; its children go on
    for client in clients:
        client.close()
    bed.quiet()
    server.signal("SIGCONT")
    expect_zombies_at_most(bed, server, 0)


@check(
    title="It gets over a full table of descriptors",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="descriptors-and-limits",
    covers=("P24",),
    after=("unique-tokens", "backlog", "end-empty", "idle-after-end"),
    optimised=True,
    hints=(
        "`accept` can fail while your server is healthy. For which reasons? Which of them will be "
        "over after a while?",
        "Look at what your server does when `accept` returns -1. Sort the errors of its manual "
        "page: `try the next one`, `wait a little`, `give up`.",
        "A car park with 400 places has a barrier. When it is full, the barrier stays down; the "
        "cars wait in the street, and when one leaves, the next comes in. Nobody closes the "
        "business at car 401. An IMAP server did: its 1021st client made `accept` return EMFILE, "
        "and the program ended with `accept: Too many open files`. A thousand people lost their "
        "connection, and all of them came back within a second. The waiting connections are safe "
        "in the kernel's queue meanwhile; some later moment will be better, namely when somebody "
        "has left.",
    ),
)
def test_descriptor_limit(bed: Bed) -> None:
    """accept(2) fails with EMFILE when the process has no descriptor left. The connection stays in
    the queue; as soon as another one is closed, accept can succeed."""
    server = bed.start_server()
    first = served(bed, server)
    clients = crowd(bed, server)
    for _ in clients:  # a server with one loop comes by accept with each of these lines
        round_trip(bed, first)
    for client in clients:
        client.close()
    round_trip(bed, first)
    for _ in range(3):
        served(bed, server).close()


@check(
    title="It does not spin while its table of descriptors is full",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="descriptors-and-limits",
    covers=("P25",),
    after=("descriptor-limit", "idle"),
    optimised=True,
    hints=(
        "`accept` has failed with EMFILE. Is the listening socket still `readable`? What will "
        "your waiting call say next?",
        "Look at the branch for EMFILE: what is different in the next round of the loop? If "
        "nothing is, the same thing will happen again at once. What event would make the next "
        "attempt worth while?",
        "The phone of a doctor's practice rings, and no chair is free. The assistant says nothing "
        "and hangs up; the phone rings again at once, and so on, all morning; no patient can be "
        "called in, because the assistant is on the phone. The listening socket rings like that: "
        "while a connection waits, it is readable. A web cache at its limit used 100 % of a "
        "processor to read `Too many open files` a million times, and got slower at the very work "
        "that would have freed descriptors. Silence the phone as long as all chairs are taken, "
        "and remember to switch it on again when somebody leaves.",
    ),
)
def test_limit_no_spin(bed: Bed) -> None:
    """A connection that accept(2) could not take stays in the queue, so poll(2) calls the listener
    readable again at once. A server without descriptors must wait for something else."""
    server = bed.start_server()
    first = served(bed, server)
    crowd(bed, server)
    server.expect_idle("no descriptor is free, and nobody leaves")
    round_trip(bed, first)


@check(
    title="It can be started again at once after it was killed",
    stage=STAGE,
    program="echo_server",
    points=2,
    concept="time-wait",
    covers=("P13", "P14"),
    after=("echo-line",),
    hints=(
        "After a server was killed, is there anything of its port left in the kernel? Look with "
        "`ss -tan`.",
        "Look at the option for the reuse of addresses: is it set, on which socket, and before or "
        "after `bind`? Is its return value checked?",
        "A radio station restarts its stream server after an update. `bind: Address already in "
        "use`, although no process is there. A listener's connection from before still exists in "
        "the kernel, in FIN_WAIT2 or TIME_WAIT, with the station's port as its own. For up to a "
        "minute it guards the port against a mistake: late packets of an old connection must not "
        "be taken for new ones. A server may say that it knows this and wants the port all the "
        "same; it is safe, because a new connection gets other sequence numbers. But the wish "
        "must be known when the address is given out. Said afterwards, it is noted, and it "
        "changes nothing any more.",
    ),
)
def test_restart(bed: Bed) -> None:
    """The connections of a killed server live on in the kernel for a while. bind(2) then fails with
    EADDRINUSE unless SO_REUSEADDR was set before it (socket(7), ip(7))."""
    server = bed.start_server()
    client = served(bed, server)
    server.signal("SIGKILL", to="all")
    server.wait_exit()
    client.target_state("FIN_WAIT1", "FIN_WAIT2", "NONE")
    served(bed, bed.start_server())


@check(
    title="When the server dies, its port is free, although a client is still being served",
    stage=STAGE,
    program="echo_server",
    points=1,
    concept="signals-and-children",
    covers=("P57", "P63"),
    after=("restart",),
    hints=(
        "Which descriptors does a child process have directly after `fork`? Which of them does it "
        "need?",
        "Look at the first lines of the code that runs in the child. Then list the descriptors of "
        "a child with `ls -l /proc/PID/fd`: is there a socket among them that also belongs to the "
        "parent?",
        "A shop gives every seller a copy of the front door key. In the evening the owner locks "
        "up and goes, but one seller is still inside with a customer, and the door counts as open "
        "as long as anybody inside holds a key. An FTP server forks a child for each transfer. "
        "The server crashes; the script starts it again; `bind: Address already in use`. A child "
        "sends a large file to a slow client and holds a copy of the listening socket, so the "
        "kernel still completes handshakes at port 21, for a queue that nobody will ever empty. "
        "Children should hand back the keys they do not need, as the first thing they do.",
    ),
)
def test_listener_dies(bed: Bed) -> None:
    """fork(2) copies every descriptor. A socket listens until the last copy is closed: a child that
    kept one keeps the port busy after its parent has died."""
    server = bed.start_server()
    served(bed, server)
    server.signal("SIGKILL")
    server.wait_exit()
    bed.quiet()
    left = bed.rows(state="LISTEN", local_port=bed.port)
    if left:
        holders = [p for p in server.processes if p.pid in left[0].owners]
        bed.fail(
            "The server is dead, and its port still takes connections.",
            f"Nobody listens at port {bed.port} any more.",
            reason="listener-left",
            evidence=[left[0].text, *(f"held by process {p.pid} ({p.command})" for p in holders)],
        )
    served(bed, bed.start_server())


@check(
    title="A client that never reads cannot fill the memory of the server",
    stage=STAGE,
    program="echo_server",
    points=3,
    concept="flow-control",
    covers=("P46",),
    after=("slow-reader", "large", "idle"),
    hints=(
        "A client sends and sends and never reads. Where do the bytes of your server go? Is there "
        "an end to that place?",
        "Look at the queue that holds what could not be sent yet. What makes your server stop "
        "reading from this client? And what makes it begin again?",
        "A post office forwards parcels to a village whose road is closed. It goes on accepting "
        "parcels, and stacks them in the hall, the office, the street. A better one closes its "
        "counter for this village when the shelf is full, and the senders keep their parcels: "
        "they learn about the closed road without a single message. In a message broker (MQTT) "
        "one slow subscriber made the process grow by 2 GB an hour, until the kernel killed it "
        "and all subscribers with it. TCP already has the means to say `not now`: a receiver that "
        "does not read. The broker had defeated it by reading everything, always, into its own "
        "memory.",
    ),
)
def test_bounded_memory(bed: Bed) -> None:
    """When a program stops reading, the receive window closes and the sender has to wait (RFC 9293
    section 3.8.6). A server that always reads takes this brake away and stores the rest itself."""
    server = bed.start_server()
    limit = QUEUE_LIMIT + KERNEL_BUFFERS
    sent = flood(bed, bed.connect(server, receive_buffer=4096), limit)
    if sent >= limit:
        bed.fail(
            f"The server has taken {sent // MIB} MiB from a client that reads nothing; "
            f"it uses {server.resources().vm_rss // MIB} MiB.",
            f"It stops reading before {QUEUE_LIMIT // MIB} MiB wait in its memory for this client.",
            reason="unbounded",
        )
    served(bed, server)
