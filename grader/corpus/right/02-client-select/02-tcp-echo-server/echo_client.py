"""One thread waits for stdin and the socket with select."""

import os
import re
import select
import signal
import socket
import sys
from typing import NoReturn

PROGRAM = "echo_client"
SIZE = 16384
STDIN, STDOUT = 0, 1


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


def connect(host: str, port: str) -> socket.socket:
    """A connection to the first address of `host` that answers."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        fail("getaddrinfo", error)
    call, reason = "socket", OSError()
    for family, kind, protocol, _, address in found:
        try:
            call = "socket"
            connection = socket.socket(family, kind, protocol)
        except OSError as error:
            reason = error
            continue
        try:
            call = "connect"
            connection.connect(address)
            return connection
        except OSError as error:
            reason = error
            connection.close()
    fail(call, reason)


def write_all(data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(STDOUT, left) :]
        except OSError as error:
            fail("write", error)


class Conversation:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.unsent = memoryview(b"")
        self.input_open = True
        self.peer_open = True

    def run(self) -> None:
        while self.input_open or self.peer_open:
            reads: list[int | socket.socket] = []
            if self.input_open and not self.unsent:
                reads.append(STDIN)
            if self.peer_open:
                reads.append(self.connection)
            writes = [self.connection] if self.unsent else []
            readable, writable, _ = select.select(reads, writes, [])
            # What came before a reset is read first, and the reset itself by recv.
            if self.connection in readable:
                self.print_reply()
            if writable:
                self.send()
            if STDIN in readable:
                self.read_input()

    def print_reply(self) -> None:
        try:
            data = self.connection.recv(SIZE)
        except OSError as error:
            fail("recv", error)
        self.peer_open = data != b""
        write_all(data)

    def send(self) -> None:
        try:
            sent = self.connection.send(self.unsent, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            fail("send", error)
        self.unsent = self.unsent[sent:]

    def read_input(self) -> None:
        try:
            data = os.read(STDIN, SIZE)
        except OSError as error:
            fail("read", error)
        self.unsent = memoryview(data)
        if data:
            return
        self.input_open = False
        try:
            self.connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            fail("shutdown", error)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    host, port = arguments()
    Conversation(connect(host, port)).run()


main()
