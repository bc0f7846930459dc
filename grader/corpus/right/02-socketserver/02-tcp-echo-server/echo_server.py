"""The standard library's threading server, made fit for a descriptor limit and for SIGTERM."""

import errno
import re
import select
import signal
import socket
import socketserver
import sys
import threading
from typing import NoReturn

PROGRAM = "echo_server"
SIZE = 16384
GRACE = 0.5
RETRY = 1.0
DAYS = 1e6
OUT_OF_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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


class Echo(socketserver.BaseRequestHandler):
    server: "Server"

    def handle(self) -> None:
        try:
            while data := self.next_bytes():
                self.request.sendall(data)
        except OSError:
            pass  # reset by the client

    def next_bytes(self) -> bytes:
        """What comes next; nothing at the end, or when all stop and the client stays silent."""
        ready = select.poll()
        ready.register(self.request, select.POLLIN)
        ready.register(self.server.stop_reader, select.POLLIN)
        if all(fd != self.request.fileno() for fd, _ in ready.poll()):
            ready.unregister(self.server.stop_reader)
            if not ready.poll(GRACE * 1000):
                return b""
        data: bytes = self.request.recv(SIZE)
        return data


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname(), Echo, bind_and_activate=False)
        self.socket.close()  # TCPServer makes an IPv4 socket whatever the address
        self.socket = listener
        self.clients = 0
        self.changed = threading.Condition()
        # Ends when the program stops: every handler polls it beside its own connection.
        self.stop_reader, self.stop_writer = socket.socketpair()

    def get_request(self) -> tuple[socket.socket, object]:
        try:
            connection, address = super().get_request()
        except OSError as error:
            if error.errno in OUT_OF_ROOM:
                with self.changed:
                    self.changed.wait(RETRY)  # for a client to end
            raise
        with self.changed:
            self.clients += 1
        connection.setblocking(True)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.clients -= 1
            self.changed.notify_all()

    def wait_for_clients(self) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.clients == 0)


def main() -> None:
    host, port = arguments()
    server = Server(listen(host, port))

    def on_terminate(number: int, frame: object) -> None:
        # shutdown() waits for the loop in this very thread to end, so another one calls it;
        # shutting the listening socket wakes the loop.
        threading.Thread(target=server.shutdown).start()
        server.socket.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGTERM, on_terminate)
    # Everything that ends the loop wakes it, so there is nothing to look for now and then.
    server.serve_forever(poll_interval=DAYS)
    server.socket.close()
    server.stop_writer.close()
    server.wait_for_clients()


main()
