"""One thread, non-blocking sockets, the selectors module."""

import errno
import re
import resource
import selectors
import signal
import socket
import sys
from typing import NoReturn

PROGRAM = "echo_server"
SIZE = 16384
GRACE = 0.5
RETRY = 1.0
OUT_OF_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def usage() -> NoReturn:
    print(f"usage: {PROGRAM} HOST PORT", file=sys.stderr)
    sys.exit(2)


def fail(call: str, error: OSError) -> NoReturn:
    # A gaierror carries the text of gai_strerror itself.
    print(f"{PROGRAM}: {call}: {error.strerror}", file=sys.stderr)
    sys.exit(1)


def arguments() -> tuple[str, str]:
    """HOST and PORT; a port is a number up to 65535 or the name of a service."""
    if len(sys.argv) != 3:
        usage()
    host, port = sys.argv[1:]
    number = re.fullmatch("[0-9]{1,9}", port) is not None and int(port) <= 65535
    if not number and not re.match("[A-Za-z]", port):
        usage()
    return host, port


def listen(host: str, port: str) -> socket.socket:
    """A non-blocking listener on the first address of `host` that can be bound."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        fail("getaddrinfo", error)
    call, reason = "socket", OSError()
    for family, kind, protocol, _, address in found:
        try:
            call = "socket"
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            reason = error
            continue
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            call = "bind"
            listener.bind(address)
            call = "listen"
            listener.listen(socket.SOMAXCONN)
            listener.setblocking(False)
            return listener
        except OSError as error:
            reason = error
            listener.close()
    fail(call, reason)


class Client:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.owed = memoryview(b"")

    def step(self) -> bool:
        """One recv and one send at most; False when the connection has ended, in order or not."""
        try:
            if not self.owed:
                data = self.connection.recv(SIZE)
                if not data:
                    return False
                self.owed = memoryview(data)
            self.owed = self.owed[self.connection.send(self.owed) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class Server:
    def __init__(self, listener: socket.socket, wakeup: socket.socket) -> None:
        self.listener = listener
        self.wakeup = wakeup
        self.selector = selectors.DefaultSelector()
        self.selector.register(wakeup, READ)
        self.selector.register(listener, READ)
        self.accepting = True
        self.stopping = False
        self.clients: set[Client] = set()

    def run(self) -> None:
        while not self.stopping or self.clients:
            patience = GRACE if self.stopping else None if self.accepting else RETRY
            ready = self.selector.select(patience)
            if not ready:
                self.nothing_came()
            for key, _ in ready:
                if key.fileobj is self.wakeup:
                    self.stop()
                elif key.fileobj is not self.listener:
                    self.serve(key.data)
                elif self.accepting:  # not if stop() came first in this round
                    self.begin()

    def begin(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError as error:
            if error.errno in OUT_OF_ROOM:
                self.selector.unregister(self.listener)
                self.accepting = False
            return
        connection.setblocking(False)
        client = Client(connection)
        self.clients.add(client)
        self.selector.register(connection, READ, client)

    def serve(self, client: Client) -> None:
        if client.step():
            self.selector.modify(client.connection, WRITE if client.owed else READ, client)
        else:
            self.end(client)

    def end(self, client: Client) -> None:
        self.selector.unregister(client.connection)
        client.connection.close()
        self.clients.remove(client)
        self.accept_again()

    def accept_again(self) -> None:
        if not self.accepting and not self.stopping:
            self.selector.register(self.listener, READ)
            self.accepting = True

    def nothing_came(self) -> None:
        self.accept_again()
        if self.stopping:
            for client in [c for c in self.clients if not c.owed]:
                self.end(client)

    def stop(self) -> None:
        self.wakeup.recv(SIZE)
        if self.stopping:
            return
        if self.accepting:
            self.selector.unregister(self.listener)
        self.listener.close()
        self.accepting = False
        self.stopping = True


def main() -> None:
    host, port = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = listen(host, port)
    # A signal writes one byte to the pair and so becomes one more readable descriptor.
    wakeup, signalled = socket.socketpair()
    wakeup.setblocking(False)
    signalled.setblocking(False)
    signal.set_wakeup_fd(signalled.fileno())
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    Server(listener, wakeup).run()


main()
