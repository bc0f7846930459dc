"""Children and threads: who waits for them, and what they share."""

from __future__ import annotations

from sockwork.diagnosis.case import ACCEPTS, Case
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.trace import Call, ProcessEvent

_THREADS = 10  # so many clients have had a thread that one can speak of each


def _children(case: Case) -> set[int]:
    return {e.child for e in case.processes if e.event == "fork" and e.child is not None}


def _ended_children(case: Case) -> int:
    """How many children ended while their parent could have waited for them."""
    children = _children(case)
    ends = {e.run: e.time for e in case.processes if e.pid == case.main(e.run) and _final(e)}
    return sum(
        e.pid in children and e.time < ends.get(e.run, e.time + 1)
        for e in case.processes
        if e.event == "exit" and e.status and e.status.kind == "exit"
    )


def _final(event: ProcessEvent) -> bool:
    return event.status is not None and not event.status.running


def _reaped(case: Case) -> list[Call]:
    return [c for c in case.named("wait4", "waitid") if c.result is not None and c.result > 0]


def _handles_children(case: Case) -> bool:
    return any(c.argument("signal") == "SIGCHLD" for c in case.named("rt_sigaction"))


@rule("E-ZOMBIES", concept="signals-and-children", pitfalls="P79")
def zombies(case: Case) -> Evidence | None:
    """A child that has ended is gone.

    Seen: Children have ended, and the program never called wait for any of them.

    Why: The kernel keeps the status of an ended child until its parent fetches it with wait(2).
    Until then the child is a zombie and has a place in the table of processes.

    Ask: Which call of your program asks for the status of a child that has ended?

    1: Who wants to know how a child ended, and where is the answer kept until then?

    2: Look with `ps -o pid,stat,command` while clients come and go. Then look for wait or waitpid,
    or for what SIGCHLD is set to.

    3: A postman may throw a registered letter away only when somebody has signed for it. A print
    server forks for each job and signs for none: after a week `ps` shows 30000 lines with `Z`, and
    fork fails with EAGAIN. Three ways to sign: waitpid in a loop when SIGCHLD comes, waitpid with
    WNOHANG in each round of the server, or SIGCHLD set to SIG_IGN, which tells the kernel that
    nobody wants the letters.

    Look: ps -o pid,ppid,stat,command; strace -f -e trace=wait4,clone,exit_group ./echo_server
    127.0.0.1 7000
    """
    ended = _ended_children(case)
    if ended < 2 or case.failure.reason != "zombies" or case.ended(case.last):
        return None
    # A program that does something about SIGCHLD, if only to ignore it, has thought of them.
    if case.named("wait4", "waitid") or _handles_children(case):
        return None
    fork = next(iter(case.named("clone", "clone3", "fork", "vfork")), None)
    if fork is None:
        return None  # no calls were recorded: that one is missing says nothing
    first = f"{ended} children have ended, and wait was never called."
    return found(first, fork, at=fork, expected="waitpid")


@rule("E-SINGLE-WAIT", concept="signals-and-children", pitfalls="P80")
def single_wait(case: Case) -> Evidence | None:
    """Each child that ends sends a signal of its own.

    Seen: Several children ended at once, the handler ran fewer times, and it fetched one child
    each time.

    Why: Signals are not counted: one that is pending stays one, however often it comes
    (signal(7)). One SIGCHLD may stand for many children.

    Ask: How many children may have ended when your handler runs once?

    1: Five children end while the parent is busy. How often will its handler run?

    2: Look at the handler: how many children does it fetch, and what tells it that there are no
    more?

    3: A bell at the counter of a bakery rings when rolls are ready. Three trays come at once, the
    bell rings once, and the seller fetches one; two trays grow cold. The bell says `look`, it does
    not count. He should fetch trays until none is left. A handler for SIGCHLD calls waitpid(-1,
    ..., WNOHANG) in a loop until it returns 0 or -1, and keeps errno as it was.

    Look: ps -o pid,ppid,stat,command; strace -f -e trace=wait4 -e signal=SIGCHLD ./echo_server
    127.0.0.1 7000
    """
    ended, reaped = _ended_children(case), _reaped(case)
    if not reaped or ended - len(reaped) < 2 or case.failure.reason != "zombies":
        return None
    first = f"{ended} children have ended, and {len(reaped)} of them were fetched with wait."
    last = reaped[-1]
    later = next((c for c in case.named("wait4", "waitid") if c.time > last.time), None)
    if later is not None:
        return None
    return found(
        first, last, "no further wait followed", at=last, expected="wait until none is left"
    )


@rule("E-THREAD-KEPT", concept="processes-and-threads", pitfalls="P98")
def thread_kept(case: Case) -> Evidence | None:
    """A thread that has returned is gone.

    Seen: Each client had a thread of its own, all of them have ended, and the address space keeps
    growing by the stacks of threads.

    Why: The stack of a thread that was not detached is kept until somebody joins it
    (pthread_join(3), pthread_detach(3)); 8 MiB of address space each.

    Ask: Who joins the thread of a client, or tells the system that nobody will?

    1: What must be kept of a thread that has ended, and for whom?

    2: Look at where your threads are made. Is each of them joined or detached?

    3: A theatre keeps the coat of each visitor until he brings the token. Visitors who leave by
    the back door never bring it, and the wardrobe fills. A search server made a thread for each
    question and neither joined nor detached it. `VmSize` grew by 8 MiB a question, and after 15
    hours pthread_create failed with EAGAIN. std::thread makes this visible: one that is neither
    joined nor detached ends the program in its destructor.

    Look: grep VmSize /proc/PID/status; ls /proc/PID/task | wc -l
    """
    if case.failure.reason != "leak" or "address space" not in case.failure.observed:
        return None
    threads = [c for c in case.named("clone3", "clone") if c.result is not None]
    clients = [s for s in case.streams if s.opened.name in ACCEPTS]
    open_now = [s for s in clients if s.open]
    if len(threads) < _THREADS or _children(case) or len(open_now) > len(clients) // 2:
        return None
    first = f"{len(threads)} threads were started, and their stacks are still there."
    text = f"{len(clients)} clients came, {len(open_now)} are still connected"
    return found(first, threads[0], text, at=threads[0], expected="join or detach")


@rule("E-SHARED-FD", concept="processes-and-threads", pitfalls="P97")
def shared_fd(case: Case) -> Evidence | None:
    """The new thread has read its argument when pthread_create returns.

    Seen: One connection was served by two threads and another one by none.

    Why: pthread_create(3) returns before the new thread has run. A pointer to the variable of the
    loop then leads to the descriptor of the next client.

    Ask: When does the new thread read the descriptor, and who may write to that variable until
    then?

    1: What exactly does the new thread get: the number, or the place where a number lies?

    2: Look at the last argument of pthread_create, or at what the lambda captures. When does its
    value change?

    3: A teacher writes a room number on the board, calls a pupil and says `go to the room on the
    board`; then he writes the next number. The pupil looks up too late, and two of them meet in
    one room. A mail server passed `&fd` to its threads: under load two threads served one client,
    and another one waited for ever. The number itself, by value, on a note for each pupil, cannot
    change any more.

    Look: strace -f -e trace=accept,clone3,recvfrom ./echo_server 127.0.0.1 7000
    """
    for stream in case.streams:
        threads = {(c.pid, c.tid) for c in stream.calls if c.pid == stream.opened.pid}
        threads -= {(stream.opened.pid, stream.opened.tid)}
        if len(threads) < 2 or _children(case):
            continue
        unserved = next((s for s in case.streams if not s.calls and s.came() > 0), None)
        if unserved:
            first = f"{len(threads)} threads serve one connection, and another one has none."
            lines = (stream.opened, *stream.calls[:2], unserved.opened)
            return found(first, *lines, at=unserved.opened, expected="one thread for each")
    return None


@rule("E-SHARED-BUFFER", concept="processes-and-threads", pitfalls="P96 P99")
def shared_buffer(case: Case) -> Evidence | None:
    """One buffer is enough, since the bytes are sent at once.

    Seen: Bytes that came from one client were sent to another one.

    Why: A static or global variable exists once for all threads and all clients. Between the recv
    of one and its send, the recv of another may overwrite it.

    Ask: How many copies of your buffer are there when three clients are served?

    1: Where does the buffer live, and who else writes to it?

    2: Look for `static` and for variables outside of functions that hold bytes of a client.

    3: Two waiters write their orders on one slate. One table wants soup, the other one fish; both
    get fish. A translation server kept the sentence in a static array, and with one user it was
    right for a year. With two at once each got words of the other. Put the slate into the pocket
    of the waiter: a local variable in the function of the thread, or a field of the structure that
    stands for one client.

    Look: strace -f -e trace=recvfrom,sendto -s 32 ./echo_server 127.0.0.1 7000
    """
    if case.program != "echo_server":
        return None
    owners: dict[bytes, set[int]] = {}
    for stream in case.streams:
        for call in stream.reads:
            if call.bytes and call.bytes.size >= 8:
                owners.setdefault(call.bytes.head[:16], set()).add(stream.inode)
    for stream in case.streams:
        for call in stream.writes:
            head = call.bytes.head[:16] if call.bytes and call.bytes.size >= 8 else b""
            if head in owners and stream.inode not in owners[head]:
                other = case.stream_at(min(owners[head]))
                read = next((c for c in other.reads if _begins(c, head)), None) if other else None
                first = "Bytes of one client were sent to another one."
                return found(first, read, call, at=call, expected="its own bytes")
    return None


def _begins(call: Call, head: bytes) -> bool:
    return call.bytes is not None and call.bytes.head.startswith(head)
