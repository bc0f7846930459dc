"""What a check is written with: the two hosts, the program judged, and everything between them."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

from sockwork.facts import Address, Host, Packet, Row, address_text
from sockwork.harness.connection import Connecting, Connection
from sockwork.harness.crowd import Connects, Echoes
from sockwork.harness.explain import WILDCARDS, reachable, why_not_listening
from sockwork.harness.listener import Listener
from sockwork.harness.ports import Ports
from sockwork.harness.rules import Rule, as_match, in_words, matches
from sockwork.harness.run import Run
from sockwork.harness.scene import Scene
from sockwork.harness.text import amount
from sockwork.harness.waiting import Ending
from sockwork.model import Launch
from sockwork.testbed import TestbedError

Family = Literal["inet", "inet6"]
_Data = bytes  # for annotations below Bed.bytes
_PRINTABLE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_DESCRIPTORS = 1024  # what a shell gives on most systems
_PROCESSES = 512
_STDOUT_LIMIT = 64 << 20
_STDERR_LIMIT = 1 << 20
_WAVE = 256  # connections opened before the server must have accepted them
_CONNECT_SLICE = 0.25  # seconds between two looks at a connect that does not complete


class Bed:
    """One check's testbed. Every verb is a step; one whose expectation fails ends the check."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.rng = rng
        self._scene = scene
        self._ports = Ports(rng, own_hosts=scene.link)
        self._port = self._ports.take()
        self._sockets: list[socket.socket] = []
        self._connections = 0

    # --- values -----------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """A random port, the same during the whole check; its bytes swapped it is another one."""
        return self._port

    def other_port(self) -> int:
        return self._ports.take()

    def bytes(self, count: int) -> bytes:
        return self.rng.randbytes(count)

    def token(self, count: int = 12) -> _Data:
        """Random letters and digits."""
        return "".join(self.rng.choices(_PRINTABLE, k=count)).encode()

    def host(self, name: str) -> Host:
        return self._scene.opened.hosts[name]

    @property
    def target(self) -> Host:
        return self.host("target")

    @property
    def peer(self) -> Host:
        return self.host("peer")

    # --- programs ---------------------------------------------------------------------------------

    def start(
        self,
        *arguments: object,
        program: str | None = None,
        stdin: Literal["null", "closed", "pipe"] | _Data = "null",
        names: str | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> Run:
        """Starts a program of the submission at the target. `stdin` as bytes: a file of them."""
        name = program or self._scene.check.program
        built = self._scene.launch(name)
        launch = (built.optimised or built) if self._scene.check.optimised else built
        words = [str(argument) for argument in arguments]
        self._scene.step(" ".join(["target: starts", name, *words]))
        return self._start(name, launch, words, stdin, names, limits or {})

    def _start(
        self,
        name: str,
        launch: Launch,
        words: list[str],
        stdin: str | _Data,
        names: str | None,
        limits: Mapping[str, int],
    ) -> Run:
        nofile = limits.get("nofile", _DESCRIPTORS)
        # A server may well give each client a thread of its own.
        own_limits = {"nofile": nofile, "nproc": max(_PROCESSES, nofile), **limits}
        environment = dict(launch.environment)
        if launch.shell:
            environment |= dict(zip(self._scene.arguments(name), words))
        argv = [*launch.argv, *words]
        file = _file_of(stdin) if isinstance(stdin, _Data) else None
        try:
            request = {
                "name": name,
                "argv": argv,
                "host": "target",
                "directory": str(launch.directory),
                "env": environment,
                "stdin": "fd" if isinstance(stdin, _Data) else stdin,
                "stdout_limit": _STDOUT_LIMIT,
                "stderr_limit": _STDERR_LIMIT,
                "limits": own_limits,
                "files": {"/etc/hosts": names} if names is not None else {},
                "trace": self._scene.traced,
                "lines": self._scene.traced and not launch.shell,
                # A check that disturbs calls must not change what a program can do besides.
                "io_uring": "ptrace" in self._scene.check.needs,
            }
            started = self._scene.testbed.run(request, [] if file is None else [file])
        except TestbedError as error:
            if error.code != "exec":
                raise
            self._not_started(name, str(error))
        finally:
            if file is not None:
                os.close(file)
        run = Run(self._scene, name, started, argv)
        self._scene.runs.append(run)
        return run

    def _not_started(self, name: str, why: str) -> NoReturn:
        self._scene.fail(
            f"{name} cannot be started: {why}.", f"{name} can be started.", reason="not-started"
        )

    def start_server(
        self,
        host: str | None = None,
        port: int | None = None,
        family: Family = "inet",
        limits: Mapping[str, int] | None = None,
    ) -> Run:
        """Starts `PROGRAM HOST PORT` and waits until the kernel shows that it listens there."""
        wanted = (host or self.target.address(family), self._port if port is None else port)
        before = 0 if wanted[1] else len(self.rows(state="LISTEN"))
        run = self.start(*wanted, limits=limits)
        run.serve_at(self._await_listener(run, wanted, before))
        return run

    def _await_listener(self, run: Run, wanted: Address, before: int) -> Row:
        ask = self._scene.waiter.ask
        if wanted[1]:
            seen = ask("listening", {"run": run.number, "port": wanted[1]})
        else:  # the kernel picks the port: wait for one more listener
            fields = {"host": "target", "state": "LISTEN", "at_least": before + 1}
            seen = ask("row-count", fields)
        if seen.held and not any(reachable(row, wanted) for row in run.rows):
            self._scene.waiter.quiet()  # it listens, and perhaps not yet at each of its addresses
        rows = [row for row in run.rows if reachable(row, wanted)]
        if rows:
            return rows[0]
        why = why_not_listening(self._scene, run, wanted)
        self._scene.fail(
            why.observed,
            f"{run.name} listens at {address_text(wanted)}.",
            reason=why.reason,
            evidence=why.evidence,
            about_exit=True,
        )

    # --- connections ------------------------------------------------------------------------------

    def connect(
        self,
        server: Run | Address,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
        host: str = "peer",
        local_port: int | None = None,
    ) -> Connection:
        """Connects from a host; the check fails when that is refused or does not complete."""
        connection = self.connect_start(server, receive_buffer, send_buffer, host, local_port)
        goal = Connecting(connection.socket)
        before = None
        for _ in range(round(self._scene.waiter.deadline / _CONNECT_SLICE)):
            if self._scene.waiter.until(goal, deadline=_CONNECT_SLICE) is Ending.REACHED:
                break
            now = self._asleep_with_full_queue(connection.remote)
            if (
                now is not None and now == before
            ):  # nobody who sleeps there will ever empty the queue
                break
            before = now
        if not goal.done or goal.error:
            self._not_connected(connection, goal)
        return connection

    def connect_start(
        self,
        server: Run | Address,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
        host: str = "peer",
        local_port: int | None = None,
    ) -> Connection:
        """Begins to connect and does not wait for the end of it."""
        address = self._address_of(server)
        made = self._make_socket(address, host, receive_buffer, send_buffer)
        if local_port is not None:
            family: Family = "inet6" if ":" in address[0] else "inet"
            made.bind((self.host(host).address(family), local_port))
        error = made.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error), f"connect to {address_text(address)}")
        connection = self._adopt(made, address, host)
        self._scene.step(f"{host}: opens {connection} to {address_text(address)}")
        return connection

    def _address_of(self, server: Run | Address) -> Address:
        host, port = server.address if isinstance(server, Run) else server
        if host in WILDCARDS:
            host = self.target.inet if host == "0.0.0.0" else self.target.inet6
        return (host, port)

    def _make_socket(
        self, address: Address, host: str, receive_buffer: int | None, send_buffer: int | None
    ) -> socket.socket:
        family = "inet6" if ":" in address[0] else "inet"
        (made,) = self._scene.testbed.make_sockets(1, host, family, "stream")
        self._sockets.append(made)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        return made

    def _adopt(self, made: socket.socket, remote: Address, host: str) -> Connection:
        self._sockets.append(made)
        self._connections += 1
        return Connection(self._scene, made, remote, host=host, number=self._connections)

    def _asleep_with_full_queue(self, address: Address) -> list[tuple[int, int]] | None:
        """Each thread's switches, if the listener's queue is full and every thread sleeps."""
        listening = self._listeners(address)
        threads = [t for run in self._scene.runs for p in run.processes for t in p.threads]
        asleep = all(thread.state in "STt" and not thread.timed for thread in threads)
        full = any(row.rqueue > row.wqueue for row in listening)
        return [(thread.tid, thread.switches) for thread in threads] if full and asleep else None

    def _not_connected(self, connection: Connection, goal: Connecting) -> NoReturn:
        where = address_text(connection.remote)
        listening = self._listeners(connection.remote)
        full = [row for row in listening if row.rqueue > row.wqueue]
        if goal.error:
            observed = f"Connecting to {where} failed: {os.strerror(goal.error)}."
            reason = "refused" if goal.error == errno.ECONNREFUSED else "not-connected"
        elif full:
            observed = f"The queue of connections at {where} is full and nobody accepts them."
            reason = "backlog-full"
        else:
            observed = f"Connecting to {where} does not complete."
            reason = "not-connected"
        rows = [row.text for row in listening]
        connection.fail(observed, f"A client can connect to {where}.", reason, rows)

    def connect_many(
        self, server: Run | Address, count: int, receive_buffer: int | None = None
    ) -> list[Connection]:
        """Opens `count` connections from the peer."""
        address = self._address_of(server)
        self._scene.step(f"peer: opens {amount(count, 'connection')} to {address_text(address)}")
        family = "inet6" if ":" in address[0] else "inet"
        sockets = self._scene.testbed.make_sockets(count, "peer", family, "stream")
        self._sockets += sockets
        if receive_buffer is not None:
            for made in sockets:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # In waves that fit into the listener's queue: a connection that does not is tried again
        # by the kernel after seconds only.
        room = [row.wqueue for row in self._listeners(address)]
        wave = max(1, min([_WAVE, *room]))
        for start in range(0, count, wave):
            self._connect_wave(address, sockets[start : start + wave], start, count)
        return [self._adopt(made, address, "peer") for made in sockets]

    def _listeners(self, address: Address) -> list[Row]:
        return [row for row in self.rows(state="LISTEN") if reachable(row, address)]

    def _connect_wave(
        self, address: Address, sockets: Sequence[socket.socket], before: int, count: int
    ) -> None:
        goal = Connects(sockets, address)
        self._scene.waiter.until_all(goal)
        goal.close()
        opened = before + len(sockets) - goal.missing
        if goal.error or goal.missing:
            why = os.strerror(goal.error) if goal.error else "the others do not complete"
            self._crowd_failed(f"{opened:,} connections were opened: {why}.", address, count)
        # The kernel's look-up finds the listener where the remote end is empty.
        listener = ("::" if ":" in address[0] else "0.0.0.0", 0)
        ends = {"host": "target", "local": address, "remote": listener}
        if not self._scene.waiter.ask("consumed", ends, crowd=True).held:
            what = f"{opened:,} connections were opened, and not all of them accepted."
            self._crowd_failed(what, address, count)

    def _crowd_failed(self, observed: str, address: Address, count: int) -> NoReturn:
        rows = [row.text for row in self._listeners(address)]
        self._scene.fail(
            observed,
            f"{count:,} clients are connected at once.",
            reason="not-connected",
            evidence=[*rows, *self._scene.circumstances()],
        )

    def echo_all(self, connections: Sequence[Connection], tokens: Sequence[_Data]) -> None:
        """Sends each connection its token, all at once, and waits until each has come back."""
        self._scene.step(
            f"peer: sends a token on each of {len(tokens):,} connections, and awaits it back"
        )
        goal = Echoes(connections, tokens)
        ending = self._scene.waiter.until_all(goal)
        goal.close()
        if goal.wrong:
            connection, received = goal.wrong
            connection.received_wrong(received, ending, tokens[connections.index(connection)])
        if goal.waiting:
            goal.waiting[0].fail(
                f"{len(goal.waiting):,} of {len(tokens):,} clients got no answer,"
                f" {goal.waiting[0]} among them.",
                "Each client gets back what it sent.",
                "missing-bytes",
            )

    def listen(
        self,
        port: int | None = None,
        family: Family = "inet",
        backlog: int = 16,
        receive_buffer: int | None = None,
        host: str = "peer",
    ) -> Listener:
        """A listening socket for the client that is judged."""
        address = (self.host(host).address(family), self._port if port is None else port)
        made = self._bound(address, host, "stream", receive_buffer)
        made.listen(backlog)
        self._scene.step(f"{host}: listens at {address_text(address)}")
        return Listener(self._scene, made, host, self._adopt)

    def udp(self, port: int, host: str = "peer", family: Family = "inet") -> socket.socket:
        """A bound UDP socket inside a host."""
        address = (self.host(host).address(family), port)
        self._scene.step(f"{host}: receives datagrams at {address_text(address)}")
        return self._bound(address, host, "dgram")

    def occupy(self, port: int, family: Family = "inet") -> socket.socket:
        """Takes a port of the target away: a listening socket of ours on it."""
        address = (self.target.address(family), port)
        self._scene.step(f"target: another program listens at {address_text(address)}")
        made = self._bound(address, "target", "stream")
        made.listen()
        return made

    def _bound(
        self, address: Address, host: str, kind: str, receive_buffer: int | None = None
    ) -> socket.socket:
        family = "inet6" if ":" in address[0] else "inet"
        (made,) = self._scene.testbed.make_sockets(1, host, family, kind)
        self._sockets.append(made)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.bind(address)
        return made

    # --- tables and packets -----------------------------------------------------------------------

    def rows(self, host: str = "target", transport: str = "tcp", **filters: Any) -> list[Row]:
        """The socket table of a host. Filters are fields of Row; `state` may be several."""
        states = filters.pop("state", None)
        wanted = (states,) if isinstance(states, str) else states
        return [
            row
            for row in self._scene.rows(host, transport)
            if (wanted is None or row.state in wanted)
            and all(getattr(row, name) == value for name, value in filters.items())
        ]

    def expect_rows(
        self,
        why: str,
        *,
        at_least: int | None = None,
        at_most: int | None = None,
        state: str | None = None,
        local_port: int | None = None,
    ) -> None:
        """Waits until the target has that many TCP sockets in this state, on this port."""
        bounds = {"at_least": at_least, "at_most": at_most}
        filters = {"state": state, "local_port": local_port}
        given = {name: value for name, value in bounds.items() if value is not None}
        fields: dict[str, Any] = {n: value for n, value in filters.items() if value is not None}
        wanted = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
        kind = state or "TCP"
        self._scene.step(f"target: is to have {wanted} {kind} sockets: {why}")
        if not self._scene.waiter.ask("row-count", {"host": "target", **given, **fields}).held:
            rows = self.rows(**fields)
            self._scene.fail(
                f"The target has {amount(len(rows), f'{kind} socket')}.",
                f"{wanted[:1].upper()}{wanted[1:]}: {why}.",
                reason="wrong-rows",
                evidence=[*(row.text for row in rows[:6]), *self._scene.circumstances()],
            )

    def packets(self, **match: Any) -> list[Packet]:
        """What the link has seen: from_="target", flags=("FIN", "ACK"), without="RST", …"""
        return [packet for packet in self._scene.packets() if matches(packet, match)]

    def expect_packet(self, why: str, **match: Any) -> Packet:
        """Such a packet was seen, or comes now."""
        self._scene.step(f"link: is to see a packet ({in_words(match)}): {why}")
        self._scene.waiter.ask("frames", {"match": as_match(match)})
        found = self.packets(**match)
        if not found:
            self._wrong_packets(
                f"No such packet passed the link: {in_words(match)}.", why, "no-packet"
            )
        return found[0]

    def expect_no_packet(self, why: str, **match: Any) -> None:
        """No such packet was seen by the time that nothing can move any more."""
        self._scene.step(f"link: is to see no packet ({in_words(match)}): {why}")
        self.quiet()
        found = self.packets(**match)
        if found:
            observed = f"Packet {found[0].n} passed the link: {found[0].summary}."
            self._wrong_packets(observed, why, "unexpected-packet")

    def _wrong_packets(self, observed: str, why: str, reason: str) -> NoReturn:
        last = [f"packet {p.n}  {p.from_}: {p.summary}" for p in self._scene.packets()[-6:]]
        self._scene.fail(observed, f"{why[:1].upper()}{why[1:]}.", reason=reason, evidence=last)

    # --- rules of the link ------------------------------------------------------------------------

    def drop(self, times: int | None = None, **match: Any) -> Rule:
        return self._rule("drop", {}, times, match)

    def hold(self, times: int | None = None, **match: Any) -> Rule:
        """Holds matching packets until the rule is released."""
        return self._rule("hold", {}, times, match)

    def duplicate(self, copies: int = 1, times: int | None = None, **match: Any) -> Rule:
        return self._rule("duplicate", {"copies": copies}, times, match)

    def _rule(
        self, action: str, fields: dict[str, Any], times: int | None, match: dict[str, Any]
    ) -> Rule:
        text = f"{action} {in_words(match) or 'every packet'}"
        self._scene.step(f"link: {text}")
        request: dict[str, Any] = {"match": as_match(match), "action": action, **fields}
        if times is not None:
            request["times"] = times
        reply = self._scene.testbed.call("rule", request)
        return Rule(self._scene, reply.fields["rule"], text)

    def inject_rst(self, connection: Connection, from_: str = "peer") -> None:
        """Puts a RST into the connection as if `from_` had sent it, which knows nothing of it."""
        self._scene.step(f"link: forges a RST from {from_} on {connection}")
        ends = (connection.local, connection.remote)
        source, destination = ends if from_ == connection.host else ends[::-1]
        to = "target" if from_ == connection.host else connection.host
        fields = {
            "kind": "rst",
            "from": from_,
            "to": to,
            "source": source,
            "destination": destination,
        }
        self._scene.testbed.call("inject", fields)

    # --- the course of the check ------------------------------------------------------------------

    def quiet(self, settle_ms: int = 20) -> None:
        """Waits until nothing can move any more, at most until the deadline."""
        self._scene.waiter.quiet(settle_ms=settle_ms)

    def step(self, text: str) -> None:
        self._scene.step(text)

    def fail(
        self, observed: str, expected: str, *, reason: str, evidence: Iterable[str] = ()
    ) -> NoReturn:
        """Ends the check: this was observed, that was expected; one sentence each."""
        self._scene.fail(observed, expected, reason=reason, evidence=evidence)

    def close(self) -> None:
        """Releases every descriptor of the check."""
        for made in self._sockets:
            made.close()
        for run in self._scene.runs:
            run.close()


def _file_of(data: bytes) -> int:
    """A descriptor for reading a file that holds these bytes."""
    memory = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)
