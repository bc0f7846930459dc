"""Everything that the server sends, on standard output."""

import re
import socket
import sys
from typing import NoReturn

PROGRAM = "greeting_client"


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


def main() -> None:
    with connect(*arguments()) as connection:
        while True:
            try:
                data = connection.recv(4096)
            except OSError as error:
                fail("recv", error)
            if not data:
                return
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


main()
