"""One connection and both of its ends."""

import re
import socket
import sys
from typing import NoReturn

PROGRAM = "endpoints"


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


def show(what: str, name: tuple[str, int]) -> None:
    print(what, *name[:2], flush=True)


def main() -> None:
    with listen(*arguments()) as listener:
        listener.setblocking(True)
        show("listening", listener.getsockname())
        connection, peer = listener.accept()
    with connection:
        show("local", connection.getsockname())
        show("peer", peer)
        try:
            while connection.recv(4096):
                pass
        except OSError as error:
            fail("recv", error)


main()
