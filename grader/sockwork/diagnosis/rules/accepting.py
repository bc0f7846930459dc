"""The listening socket: how it comes to be, what waits there, who takes it."""

from __future__ import annotations

import re

from sockwork.diagnosis.case import ACCEPTS, READS, WAITS, Case, unfinished
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.trace import Call, Packet

_MANY = 50  # failed calls one after the other that no right program makes
_SMALL_BACKLOG = 5


@rule("E-NO-LISTEN", concept="listening-sockets", pitfalls="P19")
def no_listen(case: Case) -> Evidence | None:
    """After bind a server can be reached.

    Seen: The socket has an address, and listen was never called on it; clients are refused.

    Why: bind(2) only gives a socket its address. listen(2) makes the kernel take connections
    there; before that a SYN is answered with RST (RFC 9293 section 3.10.7.1).

    Ask: Which call is missing between `bind` and `accept`?

    1: Which calls turn a new socket into one that clients can connect to, and in which order?

    2: Run `ss -tln` beside your server. Is there a row for its port? If not, which call has not
    happened, or has failed?

    3: A finger server (RFC 1288) holds port 79: a second program that asks for it gets `Address
    already in use`. Yet every client is refused at once, and `ss -tln` has no row for the port.
    The server had called socket and bind, so the number was taken, and then accept, which failed
    with EINVAL since the socket does not listen. One call of listen opens the door: from then on
    the kernel answers the SYNs by itself, also while the program does something else.

    Look: ss -tlnp; strace -e trace=socket,bind,listen,accept ./PROGRAM 127.0.0.1 7000
    """
    for socket in case.sockets:
        bound = next((c for c in socket.calls if c.name == "bind" and c.result == 0), None)
        connected = socket.call("connect")
        if bound is None or connected or socket.call("listen") or socket.run != case.last:
            continue
        if case.role == "client" or _bound_again(case, bound):
            continue
        refused = socket.call(*ACCEPTS)
        first = "The socket was bound, and listen(2) was never called on it."
        return found(first, bound, refused, at=refused or bound, expected="listen")
    return None


def _bound_again(case: Case, bound: Call) -> bool:
    """Another socket of the same run listens: this one was a trial."""
    return any(s.call("listen") and s.run == bound.run for s in case.sockets)


@rule("E-CALL-UNCHECKED", concept="errors-and-errno", pitfalls="P07")
def call_unchecked(case: Case) -> Evidence | None:
    """bind works.

    Seen: bind failed, and the program went on with the same socket as if it had an address.

    Why: A failed system call returns -1, and nothing else happens. listen(2) on a socket without
    an address does not fail: the kernel picks some free port (ip(7)).

    Ask: What does your program do if `bind` returns -1?

    1: How does a system call tell you that it did not do what you asked?

    2: Find each of the calls socket, bind and listen, and look at the line after it.

    3: An IRC server prints `ready on port 6667`, and nobody can talk to it. Another copy was
    running. Its bind had returned -1 with EADDRINUSE, the program did not look and called listen.
    That worked: the kernel picked port 41873, and there the server waits for clients that will
    never come. With each result tested, the same program ends after a millisecond with `ircd:
    bind: Address already in use`.

    Look: ss -tlnp; strace -e trace=bind,listen ./PROGRAM 127.0.0.1 7000
    """
    for socket in case.sockets:
        bound = [call for call in socket.calls if call.name == "bind"]
        if not bound or any(call.result == 0 for call in bound):
            continue
        last = bound[-1]
        later = [c for c in socket.calls if c.time > last.time and c.name in ("listen", "accept")]
        if later:
            first = f"bind failed with {last.error}, and the program went on to {later[0].name}."
            return found(first, last, *later[:2], at=last, expected="an error message and exit 1")
    return None


@rule(
    "E-LISTENER-CLOSED",
    concept="listening-sockets",
    pitfalls="P29",
    beats={
        "E-SERVES-ONE": "the listener was closed first",
        "E-ACCEPT-FATAL": "accept failed because its descriptor was closed",
    },
)
def listener_closed(case: Case) -> Evidence | None:
    """After accept the listening socket has done its work.

    Seen: The program closed its listening socket while it was to go on serving; the next client
    was refused.

    Why: accept(2) returns a new socket for one connection. The listening socket stays as it was
    and takes the next one; when it is closed, a SYN is answered with RST.

    Ask: Which descriptor does your `close` get behind `accept`?

    1: How many sockets are there after the first `accept`, and what is each of them for?

    2: Look at every close between `accept` and the end of the loop, and in destructors that run
    there. Which descriptor is it?

    3: A shop has a door and a chair for each customer. One seller locks the door as soon as the
    first customer has sat down. A daytime server (RFC 867) did so: it answered the first client,
    then called close with the number of the listening socket in place of that of the connection.
    `ss -tln` showed its row before the first client and none after, and all others got `Connection
    refused` from a server that was running well.

    Look: ss -tlnp; strace -e trace=accept,close ./PROGRAM 127.0.0.1 7000
    """
    for socket in case.listeners:
        if not socket.call("listen") or socket.holders:
            continue
        closed = next((c for c in socket.calls if c.name == "close" and c.result == 0), None)
        if closed is None or not case.server or _asked_to_end(case, socket.run):
            continue
        refused = _refused_after(case, closed)
        again = next((c for c in case.named(*ACCEPTS) if c.error == "EBADF"), None)
        if case.main(socket.run) == closed.pid and (refused or again) and _works_on(case, closed):
            first = "The program closed its listening socket after a client had come."
            return found(
                first, closed, again, refused, at=closed, packet=refused, expected="SYN ACK"
            )
    return None


def _works_on(case: Case, closed: Call) -> bool:
    """The process did not close it on its way out."""
    return any(
        call.pid == closed.pid and call.time > closed.time and call.name != "close"
        for call in case.calls
        if call.name != "exit_group" and (call.name in ACCEPTS | WAITS or call.socket)
    )


def _asked_to_end(case: Case, run: int) -> bool:
    return any(e.run == run and e.signal in ("SIGTERM", "SIGINT") for e in case.processes)


def _refused_after(case: Case, closed: Call) -> Packet | None:
    """The RST by which the kernel refused a connection; its sequence number is 0."""
    return next(
        (
            packet
            for packet in case.packets
            if packet.time > closed.time
            and packet.from_ == "target"
            and "RST" in packet.flags
            and packet.ack == 1
            and packet.seq == 0
        ),
        None,
    )


@rule("E-SERVES-ONE", concept="iterative-and-concurrent", pitfalls="P22")
def serves_one(case: Case) -> Evidence | None:
    """accept serves the clients.

    Seen: The server took one connection, served it and ended.

    Why: accept(2) takes one connection out of the queue. For the next one it has to be called
    again; a server goes on until it is ended from outside.

    Ask: What does your program do after it has closed its first connection?

    1: How often does your program call `accept`, and how many clients shall it serve?

    2: Look for the loop around `accept`. Does each way through its body lead back to its top?

    3: A quote server (RFC 865) answers the first client and prints the prompt of the shell. Each
    test passed, since each test had started the server anew. The function that serves a client
    ended with exit(0): right in a child process, where it ends the child, and wrong in the only
    process there is. With `return` in its place, and accept in a loop without an end, the same
    server runs for months.

    Look: strace -e trace=accept,accept4,exit_group ./PROGRAM 127.0.0.1 7000
    """
    taken = [s.opened for s in case.streams if s.run == case.last and s.opened.name in ACCEPTS]
    status = case.ended(case.last)
    if not case.server or len(taken) != 1 or status is None or status.kind != "exit":
        return None
    again = [c for c in case.named(*ACCEPTS) if c.time > taken[0].time and c.run == case.last]
    stream = case.streams[-1]
    orderly = stream.end_read or stream.shut or stream.closes
    next_one = _not_accepted(case)
    if again or not orderly or status.code != 0 or next_one is None:
        return None
    first = f"The server took one connection and ended with {status.text}."
    closed = stream.closes[0] if stream.closes else None
    at = taken[0]
    return found(first, at, closed, next_one, at=at, packet=next_one, expected="accept again")


@rule("E-ITERATIVE", concept="iterative-and-concurrent", pitfalls="P23")
def iterative(case: Case) -> Evidence | None:
    """While one client is silent, the others can wait.

    Seen: The server waits for bytes of one client, and another one stands in the queue and is not
    accepted.

    Why: The kernel completes the handshake of the second client on its own (listen(2)); it
    believes to be served. A program that sleeps in recv(2) for one client does nothing for the
    others.

    Ask: In which call does your server sleep, and which clients can wake it there?

    1: One of your clients says nothing for an hour. Who has to wait for it?

    2: Find the call in which your server sleeps while a client is silent. Which events end this
    sleep?

    3: A doctor treats one patient and waits beside him until he says something. The waiting room
    fills. A POP3 server was built so: one user had a slow line, and the mail of the whole company
    stood still. There are three ways out: a process for each client, a thread for each client, or
    one loop that sleeps in poll until any of them has something to say, and then never waits for
    one alone.

    Look: ss -tlnp  (the column Recv-Q counts those who wait for accept); strace -p PID
    """
    waits = [c for c in case.waiting_in(*READS) if c.socket and c.socket.transport == "tcp"]
    if not case.server or not waits or case.named(*WAITS) or case.waiting_in(*ACCEPTS):
        return None
    threads = {(c.pid, c.tid) for s in case.streams for c in s.calls}
    queued = _not_accepted(case)
    stream = case.stream_at(waits[-1].socket.inode) if waits[-1].socket else None
    if len(threads) != 1 or not queued or stream is None or stream.came() > stream.received:
        return None
    first = "The server waits for one client while another one is not accepted."
    return found(first, waits[-1], queued, at=waits[-1], packet=queued, expected="accept")


def _not_accepted(case: Case) -> Packet | None:
    """The data, or else the handshake, of a connection that the program never took."""
    taken = {stream.remote for stream in case.streams}
    ports = {c.argument("addr")[1] for c in case.named("bind") if c.argument("addr")}
    waiting = [
        packet
        for packet in case.packets
        if packet.from_ != "target" and packet.source not in taken
        if packet.destination and packet.destination[1] in ports
    ]
    syn = next((packet for packet in waiting if "SYN" in packet.flags), None)
    return next((packet for packet in waiting if packet.length), syn)


@rule("E-BACKLOG", concept="listening-sockets", pitfalls="P20 P21")
def backlog(case: Case) -> Evidence | None:
    """The backlog is the number of clients that I serve.

    Seen: The queue of the listening socket is full after a few clients, and the SYN of the next
    one gets no answer.

    Why: The backlog of listen(2) is the length of the queue of connections that wait for
    accept(2). When it is full, Linux drops further SYNs, and the client tries again after 1
    second.

    Ask: What does the second argument of your `listen` count?

    1: Who answers the SYN of a client, your program or the kernel?

    2: Look at the second argument of listen, and at the columns Recv-Q and Send-Q of `ss -tln`.

    3: A database passes 1 to listen, since `it answers one query at a time anyway`. At nine
    o'clock thirty programs connect within a millisecond. The kernel completes two handshakes and
    puts them in the queue; the other SYNs are dropped without an answer, and these clients try
    again after 1, 3 and 7 seconds. The server looks slow, and its log shows nothing. A doctor who
    treats one person at a time still needs more than one chair.

    Look: ss -tln; nstat -az TcpExtListenOverflows
    """
    listening = [s.call("listen") for s in case.listeners if s.run == case.last]
    for call in listening:
        size = call.argument("backlog") if call else None
        if call is None or not isinstance(size, int) or size >= _SMALL_BACKLOG:
            continue
        dropped = _unanswered(case)
        if dropped:
            first = f"The queue holds {size + 1} connections; the next SYN got no answer."
            return found(first, call, dropped, at=call, packet=dropped, expected="SYN ACK")
    return None


def _unanswered(case: Case) -> Packet | None:
    """A SYN that came in and to which nothing went out."""
    answered = {packet.destination for packet in case.packets if packet.from_ == "target"}
    for packet in case.packets:
        if packet.flags == {"SYN"} and packet.from_ != "target" and not packet.lost:
            if packet.source not in answered:
                return packet
    return None


@rule("E-ACCEPT-FATAL", concept="descriptors-and-limits", pitfalls="P24")
def accept_fatal(case: Case) -> Evidence | None:
    """If accept fails, the server is broken.

    Seen: accept failed, and the server ended with it.

    Why: accept(2) also reports what concerns one connection (ECONNABORTED) or a shortage that will
    pass (EMFILE, ENOBUFS). The listening socket is as good as before.

    Ask: Which errors of `accept` say something about the listening socket itself?

    1: What is lost when `accept` fails once, and what when the server ends?

    2: Look at the branch for a failed accept. Does it make a difference which error it was?

    3: A proxy reached its limit of descriptors on a busy morning. accept returned EMFILE, the
    proxy wrote one line and ended, and with it ended the 1000 connections that were doing well. A
    minute later half of them would have been done and would have given their descriptors back. Now
    it serves those whom it has, does not look at the listener until one of them has left, and goes
    on. Of the errors in accept(2) only few, such as EBADF, are faults of the program.

    Look: strace -e trace=accept,accept4 -e inject=accept4,accept:error=ECONNABORTED:when=1
    ./PROGRAM 127.0.0.1 7000
    """
    for call in case.named(*ACCEPTS):
        if call.error in (None, "EAGAIN", "EINTR", "EBADF", "EINVAL") or unfinished(call):
            continue
        ended = case.gave_up_after(call)
        if ended and case.server:
            first = f"accept failed with {call.error}, and the server ended."
            return found(first, call, ended, at=call, expected="go on with the other clients")
    return _said_no_descriptor(case)


def _said_no_descriptor(case: Case) -> Evidence | None:
    """The same without a record of calls: the program's own last words, at a limit that was set."""
    limit = next((step.text for step in case.steps if "more descriptors" in step.text), None)
    status = case.ended(case.last)
    last = case.said(case.last).strip().splitlines()[-1:]
    if case.calls or not case.server or limit is None or status is None or not last:
        return None
    if status.kind != "exit" or not last[0].endswith("accept: Too many open files"):
        return None
    first = f"accept found no free descriptor, and the server ended with {status.text}."
    return found(first, limit, f"stderr: {last[0]}")


@rule("E-EMFILE-SPIN", concept="descriptors-and-limits", pitfalls="P25", endless=True)
def emfile_spin(case: Case) -> Evidence | None:
    """If accept fails, it is best to try again.

    Seen: At the limit of descriptors the server calls accept again and again and uses a whole
    processor.

    Why: accept(2) with EMFILE leaves the connection in the queue, so the listener stays readable
    for poll(2) and accept fails again at once. Only a close can change that.

    Ask: What has to happen before `accept` can work again?

    1: No descriptor is free. What would make one free, and how could your program wait for that?

    2: Look at what follows a failed accept. Does the loop sleep anywhere, and is the listener
    among those it waits for?

    3: All chairs of an office are taken, and the telephone rings. The assistant lifts the
    receiver, says that there is no room, and puts it down; it rings at once, since the caller has
    not gone. A web cache did this: it used a whole processor to read `Too many open files` a
    million times, and served its clients more slowly, who therefore stayed longer. Take the
    telephone off the table while no chair is free, and put it back when somebody leaves.

    Look: (ulimit -n 10; ./PROGRAM 127.0.0.1 7000) & strace -c -p PID
    """
    failed = [c for c in case.named(*ACCEPTS) if c.error in ("EMFILE", "ENFILE")]
    if len(failed) < _MANY:
        return _spins_at_limit(case)
    first = f"accept failed with {failed[0].error} {len(failed)} times, one call after the other."
    return found(first, *failed[:3], at=failed[0], expected="wait until a descriptor is free")


def _spins_at_limit(case: Case) -> Evidence | None:
    """The same without a record of calls: more clients than descriptors, and no rest."""
    limit = next((s for s in case.steps if "more descriptors" in s.text), None)
    if case.calls or limit is None or "processor time" not in case.failure.observed:
        return None
    spare = re.search(r"may open (\d+) more", limit.text)
    came = [s for s in case.steps if s.time > limit.time and "opens connection" in s.text]
    if not spare or len(came) <= int(spare[1]):
        return None
    first = "No descriptor is free, a client waits in the queue, and the server does not sleep."
    clients = f"{len(came)} clients came, {spare[1]} descriptors were free"
    return found(first, limit.text, clients, case.failure.observed)


@rule(
    "E-PEERNAME-FATAL",
    concept="resets-and-sigpipe",
    pitfalls="P26",
    beats={"E-RESET-FATAL": "the call that failed is the one that asks for the address"},
)
def peername_fatal(case: Case) -> Evidence | None:
    """A connection that accept returned is there.

    Seen: The client had reset its connection before accept; getpeername failed with ENOTCONN, and
    the server ended.

    Why: Linux hands out a connection that was reset while it waited in the queue. accept(2)
    succeeds, getpeername(2) fails with ENOTCONN, recv(2) with ECONNRESET.

    Ask: What does your server do if getpeername fails for one client?

    1: How much time may pass between the handshake of a client and your `accept`? What may the
    client do in it?

    2: Look at the calls directly behind accept and at what follows when one of them fails.

    3: A person takes a number at the office, waits and goes home. When the number is called nobody
    comes, and the office goes on with the next. A statistics server asked each new connection for
    the address of its client and treated an error as the end of the world: a port scanner, which
    resets its connections at once, stopped it every night at three. Now an error behind accept
    closes this one descriptor and goes back to accept; the address can also come from accept
    itself.

    Look: strace -e trace=accept4,accept,getpeername,exit_group ./PROGRAM 127.0.0.1 7000
    """
    for call in case.named("getpeername"):
        ended = case.gave_up_after(call) if call.error == "ENOTCONN" and case.server else None
        if ended:
            first = "The client had gone before getpeername; the server ended with that error."
            return found(first, call, ended, at=call, expected="close this connection, go on")
    return None


@rule("E-CHILD-LISTENER", concept="signals-and-children", pitfalls="P57 P63")
def child_listener(case: Case) -> Evidence | None:
    """The child only has the connection.

    Seen: The parent is dead, and a child still holds the listening socket, so its port stays taken.

    Why: fork(2) copies every descriptor. A socket listens until its last copy is closed, in
    whichever process that is.

    Ask: Which descriptors does a child have directly after `fork`, and which of them does it need?

    1: After `fork` two processes hold the same listening socket. Which of them ever calls `accept`?

    2: Look at the first lines of the code that runs in the child. Then list `ls -l /proc/PID/fd`
    of a child.

    3: A shop gives each seller a key of the front door. In the evening the owner locks up and
    goes, but the door counts as open as long as anybody inside has a key. An FTP server forks a
    child for each transfer. It crashes, the script starts it again: `bind: Address already in
    use`. A child still sends a large file and holds a copy of the listening socket. Children
    should close what they do not need as the first thing they do.

    Look: ss -tlnp; ls -l /proc/PID/fd
    """
    for socket in case.listeners:
        main = case.main(socket.run)
        others = [pid for pid in socket.holders if pid != main]
        children = {e.child for e in case.processes if e.event == "fork"}
        if not socket.call("listen") or not others or case.ended(socket.run) is None:
            continue
        if others[0] in children and main not in socket.holders:
            first = "The server has ended, and a child holds its listening socket."
            fork = next((c for c in case.named("clone", "clone3", "fork") if c.pid == main), None)
            line = f"process {others[0]} has it as descriptor {min(socket.holders[others[0]])}"
            return found(first, fork, line, at=fork, expected="close in the child")
    return None
