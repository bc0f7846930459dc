"""Every address of a name, in the resolver's order, each once."""

import re
import socket
import sys
from typing import NoReturn

PROGRAM = "resolve"


def fail(call: str, error: OSError) -> NoReturn:
    # A gaierror carries the text of gai_strerror itself.
    print(f"{PROGRAM}: {call}: {error.strerror}", file=sys.stderr)
    sys.exit(1)


def is_port(text: str) -> bool:
    """A port is a number up to 65535 or the name of a service."""
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text) <= 65535
    return re.match("[A-Za-z]", text) is not None


def main() -> None:
    if len(sys.argv) != 3 or not is_port(sys.argv[2]):
        print("usage: resolve HOST SERVICE", file=sys.stderr)
        sys.exit(2)
    try:
        found = socket.getaddrinfo(sys.argv[1], sys.argv[2], type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        fail("getaddrinfo", error)
    names = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}
    lines = [f"{names[family]} {address[0]} {address[1]}" for family, _, _, _, address in found]
    for line in dict.fromkeys(lines):
        print(line)


main()
