"""What a program does when a call fails, and what it says about it."""

from __future__ import annotations

import os
import re

from sockwork.diagnosis.case import ACCEPTS, READS, WAITS, WRITES, Case
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.diagnosis.rules.arguments import is_address
from sockwork.trace import Call

# getaddrinfo's own texts (gai_strerror(3)); all others after "getaddrinfo:" are those of errno.
_RESOLVER = (
    "Name or service not known",
    "No address associated with hostname",
    "Temporary failure in name resolution",
    "Non-recoverable failure in name resolution",
    "Address family for hostname not supported",
    "Servname not supported for ai_socktype",
)
_ERRORS = {os.strerror(number) for number in range(134)}
_BREAKS = ("ECONNRESET", "EPIPE", "ETIMEDOUT")


def _reason(error: str) -> str:
    """The text of strerror(3) for the name of an error."""
    import errno

    number = getattr(errno, error, None)
    return os.strerror(number) if isinstance(number, int) else error


def _lines(case: Case) -> list[str]:
    return case.said(case.last).strip().splitlines()


def _connects(case: Case) -> list[Call]:
    return [
        call
        for call in case.calls_of(case.last)
        if call.name == "connect" and call.socket and call.socket.transport == "tcp"
    ]


@rule("E-FD-ZERO", concept="descriptors-and-limits", pitfalls="P10")
def fd_zero(case: Case) -> Evidence | None:
    """0 means that the call has failed.

    Seen: socket returned descriptor 0, which is valid, and the program took it for a failure.

    Why: A new descriptor gets the lowest free number, 0 if standard input is closed. socket(2) and
    accept(2) say failure with -1 and with nothing else.

    Ask: Which values of a descriptor does your test take for a failure?

    1: Which number does the kernel give to the next descriptor? Which one, if 0 is free?

    2: Look at each place where a descriptor is tested. Would the number 0 pass?

    3: A program that rotates log files calls open and tests `if (fd > 0)`. On a terminal 0, 1 and
    2 are taken, open returns 3, and the test is never wrong. At night a service manager starts it
    with standard input closed. Now open returns 0 for a file that is open and fine, and the log
    says `cannot open: Success`. The manual page names one value for failure. A test for that
    value, `fd == -1`, is right in both worlds.

    Look: ./PROGRAM 127.0.0.1 7000 <&-; strace -e trace=socket ./PROGRAM 127.0.0.1 7000 <&-
    """
    for socket in case.sockets:
        used = [c for c in socket.calls if c.name not in ("socket", "close")]
        if socket.opened.result != 0 or used or socket.run != case.last:
            continue
        ended = case.gave_up_after(socket.opened)
        if ended:
            first = "socket returned descriptor 0, and the program gave up."
            return found(first, socket.opened, ended, *_lines(case)[-1:], at=socket.opened)
    return None


@rule("E-EXIT-ZERO", concept="errors-and-errno", pitfalls="P08")
def exit_zero(case: Case) -> Evidence | None:
    """The message on the screen is enough.

    Seen: No connection could be made, and the program ended with status 0.

    Why: A script sees the exit status only. 0 says that all went well (exit(3)); 1 says `I tried,
    and it did not work`.

    Ask: Which value does `main` return when every `connect` has failed?

    1: Who else than a person at a screen wants to know that your program failed?

    2: Follow the way from the failed connect to the end of main. Which value leaves the program?

    3: A nightly job fetches the exchange rates and then prints the price list: `fetch && print`.
    One night the server was down. The fetcher said so on a screen that nobody watched, and
    returned 0; the list was printed with the rates of last month. With status 1 the second command
    would not have run, and the job would have reported itself. Reporting has two halves: one line
    for people, one number for programs.

    Look: ./PROGRAM 127.0.0.1 9; echo $?
    """
    connects, status = _connects(case), case.ended(case.last)
    if case.server or not connects or status is None:
        return None
    real = [call for call in connects if call.error not in (None, "EINPROGRESS")]
    if len(real) != len(connects) or (status.kind, status.code) != ("exit", 0):
        return None
    first = f"connect failed with {real[-1].error}, and the program ended with exit status 0."
    return found(first, real[-1], *_lines(case)[-1:], at=real[-1], expected="exit status 1")


@rule("E-ERRNO-STALE", concept="errors-and-errno", pitfalls="P09")
def errno_stale(case: Case) -> Evidence | None:
    """errno is 0 when all is well.

    Seen: The last connect succeeded, and the program reported the error of an earlier one and gave
    up.

    Why: No library function sets errno to 0 (errno(3)). It holds the last failure, however old,
    and is valid only directly after a call that has failed.

    Ask: Which condition decides in your program that the connection failed?

    1: When may you read errno, and what does it hold at all other times?

    2: Look for places where errno is tested without a look at the return value of the call before.

    3: A program reads numbers with strtol and tests errno after the loop. One line of the file was
    too large, errno became ERANGE, the program noted it and went on. All other lines were right,
    and at the end the test found ERANGE and threw everything away. errno is a note that somebody
    left on the table: it does not say when. The return value of the call says whether there is a
    note for you at all.

    Look: strace -e trace=connect,write,exit_group ./PROGRAM localhost 7000
    """
    connects, status = _connects(case), case.ended(case.last)
    if len(connects) < 2 or connects[-1].result != 0 or status is None or status.code == 0:
        return None
    old = [c for c in connects[:-1] if c.error and _reason(c.error) in case.said(case.last)]
    if not old:
        return None
    first = f"The last connect succeeded; the program reported {old[-1].error} of an earlier one."
    lines = _lines(case)[-1:]
    return found(first, old[-1], connects[-1], *lines, at=connects[-1], expected="go on")


@rule("E-ERRNO-CLOBBERED", concept="errors-and-errno", pitfalls="P08")
def errno_clobbered(case: Case) -> Evidence | None:
    """errno waits for me.

    Seen: A call failed with one reason, and the program reported another one.

    Why: Each later call may change errno, also one that succeeds (errno(3)). It holds the reason
    only until then.

    Ask: Which calls stand between the failed call and the line that prints the reason?

    1: Where does a failed call leave its reason, and for how long?

    2: Look at what happens between the failure and the message: a close, an output, a destructor.

    3: A program cannot open its settings, and open leaves ENOENT in errno. Before it says so it
    writes a line to a log and closes a descriptor. These calls leave reasons of their own or none,
    and the message becomes `settings: Success`. The user looks in the wrong place for an hour. The
    repaired program copies errno into a variable in the first statement behind the failure, and
    prints strerror of that variable when it is ready.

    Look: strace -e trace=connect,close,write ./PROGRAM 127.0.0.1 9
    """
    lines = _lines(case)
    if len(lines) != 1 or "getaddrinfo" in lines[0]:
        return None
    told = re.fullmatch(rf"{re.escape(case.program)}: (\w+): (.+)", lines[0])
    calls = [c for c in case.calls_of(case.last) if told and c.name == told[1] and c.error]
    tcp = [c for c in calls if c.socket and c.socket.transport == "tcp"]
    if not told or not tcp or tcp[-1].error == "EINPROGRESS" or told[2] not in _ERRORS:
        return None
    if any(_reason(call.error or "") == told[2] for call in tcp):
        return None
    between = [c for c in case.calls_of(case.last) if c.time > tcp[-1].time and c.fd not in (1, 2)]
    first = f"{tcp[-1].name} failed with {tcp[-1].error}, and the message says `{told[2]}`."
    return found(first, tcp[-1], *between[:1], f"stderr: {lines[0]}", at=tcp[-1])


@rule("E-GAI-ERRNO", concept="errors-and-errno", pitfalls="P08")
def gai_errno(case: Case) -> Evidence | None:
    """Every call leaves its reason in errno.

    Seen: getaddrinfo failed, and the message holds a reason that came from errno.

    Why: getaddrinfo(3) returns a number of its own, such as EAI_NONAME, and gai_strerror(3) has
    its texts (RFC 3493 section 6.1). errno need not change.

    Ask: Which variable does your message about the name come from?

    1: Does every call that fails leave its reason in errno? Which part of the manual page tells?

    2: Look at the branch for a failed lookup: from where does it take the reason, and which
    function makes a text of it?

    3: A program compiles a pattern with regcomp, which returns 0 or a number of its own, such as 8
    for a parenthesis that is not closed. One student printed strerror(errno) and got `Success`;
    another one printed strerror(8) and got `Exec format error`. Numbers of errors belong to
    families. For this one the right function is regerror, and the section RETURN VALUE of the
    manual page says so.

    Look: ./PROGRAM no-such-name.example 80
    """
    host, status = case.argument(case.last, "HOST"), case.ended(case.last)
    if not host or is_address(host) or status is None or status.code == 0:
        return None
    for line in _lines(case):
        words = re.fullmatch(r"\S+: (.*getaddrinfo.*): (.+)", line)
        if not words or words[2] in _RESOLVER or _connects(case):
            continue
        if words[2] in _ERRORS or words[2].startswith("Unknown error"):
            first = f"The name {host} is unknown, and the reason given is `{words[2]}`."
            return found(first, f"stderr: {line}", "that is a text of errno")
    return None


@rule("E-PERROR", concept="errors-and-errno", pitfalls="P07")
def perror(case: Case) -> Evidence | None:
    """Whoever reads the message knows which program it is from.

    Seen: The message names the call and the reason, but not the program.

    Why: perror(3) writes the word it is given, a colon and the reason. Programs that run
    unattended are read in logs with the lines of others.

    Ask: Which three things does your message say, and which of them is missing?

    1: Somebody reads this line among those of ten other programs. What does he want to know?

    2: Look at the call that writes the message. Where would the name of the program come from?

    3: A backup script starts rsyncd, smtpd and ntpd, and its log says `bind: Address already in
    use`. Which of the three was it? Three people look at three programs. `smtpd: bind: Address
    already in use` answers it in one line, and a script can find it with one pattern. perror knows
    the call only; a function of three lines, with the name of the program as its first word, knows
    both.

    Look: ./PROGRAM 127.0.0.1 7000 & ./PROGRAM 127.0.0.1 7000
    """
    lines = _lines(case)
    failed = {c.name: _reason(c.error) for c in case.calls_of(case.last) if c.error}
    for line in lines:
        call, _, why = line.partition(": ")
        if call in failed and failed[call] == why:
            at = next(c for c in case.calls_of(case.last) if c.name == call and c.error)
            first = f"The message `{line}` does not say which program it is from."
            return found(first, at, f"expected  {case.program}: {line}", at=at)
    return None


@rule("E-RESET-IS-END", concept="resets-and-sigpipe", pitfalls="P50")
def reset_is_end(case: Case) -> Evidence | None:
    """When no more bytes come, the stream is complete.

    Seen: recv failed with ECONNRESET, and the client ended with status 0.

    Why: FIN says that all bytes have come, and recv(2) returns 0. RST says that the connection
    broke and some may be missing (RFC 9293 section 3.10.7.4), and recv returns -1.

    Ask: Which of its two ways to end does your loop tell from the other?

    1: recv can return a positive number, 0 or -1. What does each say about the bytes so far?

    2: Look at the condition of the loop that reads. Which values end it, and does the code behind
    it know which one it was?

    3: A backup program fetches a file over FTP; the end of the data connection is the end of the
    file. The server crashes in the middle and its kernel sends RST. The loop `while ((n =
    recv(...)) > 0)` ends with n = -1, the program prints `done`, and half a file counts as a good
    backup. Behind the loop it has to look at n once more: 0 is the orderly end, -1 is a failure
    with a reason, and the status is 1.

    Look: strace -e trace=recvfrom,exit_group ./PROGRAM 127.0.0.1 7000
    """
    status = case.ended(case.last)
    if case.role != "client" or status is None or (status.kind, status.code) != ("exit", 0):
        return None
    for stream in case.streams:
        bad = stream.failed("ECONNRESET")
        if bad and bad.name in READS and stream.run == case.last:
            reset = stream.rst(stream.incoming)
            first = "recv failed with ECONNRESET, and the client ended with exit status 0."
            return found(first, reset, bad, at=bad, packet=reset, expected="exit status 1")
    return None


@rule("E-RESET-FATAL", concept="resets-and-sigpipe", pitfalls="P68")
def reset_fatal(case: Case) -> Evidence | None:
    """An error of one client is an error of the server.

    Seen: One client reset its connection, and the whole server ended.

    Why: recv(2) with ECONNRESET and send(2) with EPIPE speak of one connection. The others are as
    good as before.

    Ask: Which of your connections does the error belong to, and which end with it?

    1: One guest leaves the restaurant without a word. What should become of the others?

    2: Look at the branch for a failed recv or send. Does it end this connection or the program?

    3: A chat server had one function for all errors: it wrote a line and called exit(1). That was
    right for bind. One evening somebody pulled a cable, the reset arrived, and forty people were
    thrown out of their conversation. There are two kinds of errors: those without which the server
    cannot work, and those of one client. The second kind closes one descriptor and goes back to
    the loop.

    Look: strace -e trace=recvfrom,sendto,exit_group ./PROGRAM 127.0.0.1 7000
    """
    if not case.server:
        return None
    for stream in case.streams:
        bad = stream.failed(*_BREAKS)
        ended = case.gave_up_after(bad) if bad else None
        if bad and ended and bad.pid == case.main(stream.run):
            reset = stream.rst(stream.incoming)
            first = f"One client broke its connection ({bad.error}), and the server ended."
            return found(first, reset, bad, ended, at=bad, expected="close this connection")
    return None


@rule(
    "E-SIGPIPE",
    concept="resets-and-sigpipe",
    pitfalls="P67",
    beats={"E-RESET-FATAL": "the signal ended the program, not its own code"},
)
def sigpipe(case: Case) -> Evidence | None:
    """If the peer has gone, send returns -1.

    Seen: The program sent on a connection that was broken, and SIGPIPE killed it.

    Why: send(2) on a broken connection also raises SIGPIPE, and its default action ends the
    process (signal(7)). With MSG_NOSIGNAL, or SIGPIPE ignored, there is only the error EPIPE.

    Ask: What has your program told the kernel to do with SIGPIPE?

    1: What happens, besides an error, when a program sends on a connection that has broken?

    2: Look for MSG_NOSIGNAL in each call that sends, and for the place where SIGPIPE is ignored.

    3: `yes | head -1` prints one line and ends: head leaves, and SIGPIPE ends yes. For a filter in
    a pipeline this is what one wants. A web server lives in another world: one reader closes the
    browser in the middle of a picture, the next send raises SIGPIPE, and a thousand other readers
    lose their connections. No line stands in the log, for no code of the server has run. With the
    signal ignored the send fails with EPIPE, and only this connection is closed.

    Look: strace -e trace=sendto -e signal=SIGPIPE ./PROGRAM 127.0.0.1 7000
    """
    killed = [e for e in case.processes if e.status and e.status.signal == "SIGPIPE"]
    calls = [c for c in case.named(*WRITES) if c.error == "EPIPE" and c.socket]
    if not killed:
        return None
    broken = calls[-1] if calls else None
    reset = next((s.rst(s.incoming) for s in case.streams if s.rst(s.incoming)), None)
    first = "The program sent on a broken connection and was killed by SIGPIPE."
    return found(first, reset, broken, at=broken, expected="-1 with EPIPE")


@rule(
    "E-EINTR",
    concept="signals-and-children",
    pitfalls="P77 P78",
    beats={
        "E-ACCEPT-FATAL": "the call was only interrupted",
        "E-RST-UNREAD": "it closed with bytes unread because the read was interrupted",
    },
)
def eintr(case: Case) -> Evidence | None:
    """A call that fails cannot be repeated.

    Seen: A call that was waiting was interrupted by a signal, and the program took EINTR for a
    failure and ended.

    Why: EINTR means that nothing has happened yet: the call is made again. epoll_wait(2), poll(2)
    and calls with a time limit are interrupted also by SIGSTOP and SIGCONT (signal(7)).

    Ask: What has gone wrong with the descriptor when a call fails with EINTR?

    1: Somebody knocks while you wait for the postman. Is the letter lost?

    2: Look at each call that can wait: is EINTR among the cases behind it?

    3: A timer for eggs sleeps in select. The user stops it with Ctrl-Z, answers the telephone and
    types `fg`. select returns -1 with EINTR, the program says `select: Interrupted system call`
    and ends; the eggs are forgotten. Nothing was wrong: no time had passed that mattered, no
    descriptor was bad. A loop around the call, which goes back to it for EINTR and counts what is
    left of the time, makes the interruption invisible.

    Look: kill -STOP PID; kill -CONT PID; strace -p PID
    """
    for call in case.named(*WAITS, *ACCEPTS, *READS, *WRITES, "connect"):
        if call.error != "EINTR":
            continue
        closed = _closed_for(case, call)
        if closed:
            first = f"The call {call.name} was interrupted by a signal (EINTR), and the connection closed."
            return found(first, call, closed, at=call, expected=f"{call.name} again")
        if case.ended(call.run) is None:
            continue
        ended = case.gave_up_after(call)
        said = any(_reason("EINTR") in line for line in case.said(call.run).splitlines())
        if ended and (said or not _retried(case, call)):
            first = (
                f"The call {call.name} was interrupted by a signal (EINTR), and the program ended."
            )
            return found(first, call, ended, at=call, expected=f"{call.name} again")
    return None


def _closed_for(case: Case, call: Call) -> Call | None:
    """The close of a connection as the next thing that its thread did with it."""
    stream = case.stream_at(call.socket.inode) if call.socket else None
    later = [c for c in stream.calls if c.time > call.time and c.tid == call.tid] if stream else []
    return later[0] if later and later[0].name == "close" else None


def _retried(case: Case, call: Call) -> bool:
    return any(
        later.name == call.name and later.tid == call.tid and later.time > call.time
        for later in case.calls
    )


@rule("E-SIGTERM", concept="signals-and-children", pitfalls="P74 P73")
def sigterm(case: Case) -> Evidence | None:
    """A server that is asked to end may end at once.

    Seen: SIGTERM ended the process while it still owed bytes to a client.

    Why: The default action of SIGTERM ends a process at once (signal(7)); the kernel closes its
    sockets, with RST where bytes are unread. A program that catches it can finish first.

    Ask: What does your server owe to its clients at the moment when the signal comes?

    1: Who sends SIGTERM, and what does he expect of your server?

    2: List what must happen between the signal and the end: the listener, clients with bytes
    outstanding, idle clients. Where in your code would each stand?

    3: At closing time a good shop locks the entrance, serves those who stand at the till, and then
    puts out the lights. A file server left SIGTERM at its default, and each update of the system
    broke a few downloads in the middle. Now a handler writes one byte into a pipe, which the loop
    of the server watches as it watches its clients: it closes the listener, sends what it owes,
    closes the idle ones, and returns 0.

    Look: kill -TERM PID; echo $?
    """
    killed = [e for e in case.processes if e.status and e.status.signal == "SIGTERM"]
    owing = [s for s in case.streams if s.received > s.sent or s.came() > s.received]
    if not case.server or not killed or not owing:
        return None
    stream = owing[-1]
    first = "SIGTERM ended the server in the middle of its work."
    text = f"came {stream.came():,} bytes, sent back {stream.sent:,}"
    packet = stream.rst(stream.outgoing)
    return found(first, text, packet, packet=packet, expected="the rest of the bytes, then FIN")


@rule("E-REUSEADDR", concept="time-wait", pitfalls="P13")
def reuseaddr(case: Case) -> Evidence | None:
    """When a server is dead its port is free.

    Seen: The server was started again after it had been killed, and bind failed with EADDRINUSE;
    SO_REUSEADDR was not set.

    Why: Connections of the dead server live on in the kernel, in FIN_WAIT2 or TIME_WAIT, for up to
    a minute. bind(2) then fails unless SO_REUSEADDR was set before it (socket(7), ip(7)).

    Ask: What is still in the kernel of the server that was killed?

    1: Look with `ss -tan` directly after the server was killed. Which rows have its port?

    2: Look at the options that you set on the listening socket, and at where they are set.

    3: A radio station starts its stream server again after an update: `bind: Address already in
    use`, and no process is there. A connection of a listener from before still exists in the
    kernel and guards the port, so that late packets of the old connection are not taken for new
    ones. A server may say that it knows this and wants the port all the same: SO_REUSEADDR, set on
    the new socket before bind. A second server that listens there is still refused.

    Look: ss -tan; strace -e trace=setsockopt,bind ./PROGRAM 127.0.0.1 7000
    """
    refused = _bind_after_kill(case)
    if refused is None or refused.socket is None:
        return None
    inode = refused.socket.inode
    if any(_reuses(c) and c.socket and c.socket.inode == inode for c in case.calls):
        return None
    first = "bind failed after a restart, and SO_REUSEADDR was not set on the socket."
    return found(first, refused, at=refused, expected="setsockopt(SO_REUSEADDR) before bind")


def _bind_after_kill(case: Case) -> Call | None:
    """The bind of a later run that failed although no earlier run is alive."""
    if len(case.runs) < 2 or any(case.ended(run) is None for run in case.runs[:-1]):
        return None
    return next(
        (
            call
            for call in case.calls_of(case.last)
            if call.name == "bind" and call.error == "EADDRINUSE"
        ),
        None,
    )


def _reuses(call: Call) -> bool:
    option = call.argument("option")
    return call.name == "setsockopt" and option == "SO_REUSEADDR" and call.result == 0


@rule(
    "E-REUSEADDR-LATE",
    concept="time-wait",
    pitfalls="P14",
    beats={"E-REUSEADDR": "the option is set, only too late for bind"},
)
def reuseaddr_late(case: Case) -> Evidence | None:
    """The order of setsockopt and bind does not matter.

    Seen: SO_REUSEADDR is set behind bind, and bind failed with EADDRINUSE after a restart.

    Why: bind(2) looks at the option at the moment when it gives out the address (socket(7)). Set
    afterwards it is noted, and it does not change what bind has decided.

    Ask: In which order does your program call setsockopt and `bind`?

    1: At which moment does the kernel decide whether you may have the port?

    2: Put a finger on the line with bind. Which options are set above it, and which below?

    3: A traveller asks for a seat by the window after he has got his boarding card. His wish is
    written down; his seat is the one on the card. A news server set SO_REUSEADDR between bind and
    listen, and `getsockopt` showed a 1, so the option was `there`. Each restart failed all the
    same, for a minute. With the two lines exchanged the same option helps, because bind reads it.

    Look: strace -e trace=setsockopt,bind,listen ./PROGRAM 127.0.0.1 7000
    """
    refused = _bind_after_kill(case)
    if refused is None:
        return None
    for socket in case.sockets:
        bound = socket.call("bind")
        late = next((c for c in socket.calls if _reuses(c)), None)
        if bound and late and late.time > bound.time and socket.run != refused.run:
            first = "SO_REUSEADDR was set after bind, where it no longer helps."
            return found(first, bound, late, refused, at=late, expected="before bind")
    return None


@rule("E-REUSEPORT", concept="listening-sockets", pitfalls="P15")
def reuseport(case: Case) -> Evidence | None:
    """SO_REUSEPORT makes `Address already in use` go away.

    Seen: Two copies of the program listen at the same port, and no bind has failed.

    Why: SO_REUSEPORT lets several sockets listen at one address, and the kernel spreads the
    clients over them (socket(7)). SO_REUSEADDR does not.

    Ask: Two servers at one port: to which of them does the next client go?

    1: Who would notice that the server was started twice?

    2: Look at the options that you set before bind, and read the entries of both in socket(7).

    3: Two copies of a mail server run by mistake, one with old settings. Both had set
    SO_REUSEPORT, so `ss -tln` shows two rows for port 25. The kernel spreads the connections over
    them, and half of all mail follows the old rules, at random. Without this option the second
    copy would have ended with `Address already in use`: one line in place of a day of searching.
    SO_REUSEADDR helps only against old connections, never against a second listener.

    Look: ss -tlnp; strace -e trace=setsockopt,bind ./PROGRAM 127.0.0.1 7000
    """
    shared = []
    for socket in case.listeners:
        option = next((c for c in socket.calls if c.argument("option") == "SO_REUSEPORT"), None)
        bound = next((c for c in socket.calls if c.name == "bind" and c.result == 0), None)
        if option and bound and option.time < bound.time:
            shared.append((socket.run, bound.argument("addr"), option, bound))
    for run, address, option, bound in shared:
        others = [other for other in shared if other[0] != run and other[1] == address]
        if others and not any(case.ended(number) for number in (run, others[0][0])):
            first = "Two copies of the program listen at the same port."
            last = others[0]
            return found(first, option, bound, last[2], last[3], at=option, expected="EADDRINUSE")
    return None
