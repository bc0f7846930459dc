"""A greeting for each client, from a thread of its own."""

import re
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

PROGRAM = "greeting_server"


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


def greet(connection: socket.socket) -> None:
    try:
        with connection:
            connection.sendall(b"hello client")
            connection.shutdown(socket.SHUT_WR)
            # Closing with unread bytes would send RST: they are read first, for a while.
            connection.settimeout(2)
            for _ in range(1000):
                if not connection.recv(4096):
                    break
    except OSError:
        pass  # gone already, or silent for too long


class Terminated(Exception):
    pass


def on_terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def accept_clients(listener: socket.socket) -> None:
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            time.sleep(0.1)  # out of descriptors, or a client that has gone already
            continue
        print(f"connected from: {peer[0]}:{peer[1]}", flush=True)
        threading.Thread(target=greet, args=(connection,)).start()


def main() -> None:
    with listen(*arguments()) as listener:
        listener.setblocking(True)
        signal.signal(signal.SIGTERM, on_terminate)
        try:
            accept_clients(listener)
        except Terminated:
            pass
    # The interpreter waits for the threads.


main()
