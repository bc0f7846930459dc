"""The bytes of a socket address, packed as the kernel's structures have them."""

import re
import socket
import struct
import sys


def port_of(text: str) -> int:
    if re.fullmatch("[0-9]{1,9}", text) and int(text) <= 65535:
        return int(text)
    if re.match("[A-Za-z]", text):
        return socket.getservbyname(text, "tcp")
    raise ValueError(text)


def line(address: str, port_text: str) -> str:
    port = struct.pack("!H", port_of(port_text))
    for name, family in (("inet", socket.AF_INET), ("inet6", socket.AF_INET6)):
        try:
            return f"{name} {port.hex()} {socket.inet_pton(family, address).hex()}"
        except OSError:
            continue
    raise ValueError(address)


def main() -> int:
    try:
        _, address, port = sys.argv
        print(line(address, port))
        return 0
    except (OSError, ValueError):
        print("usage: sockaddr_bytes ADDRESS PORT", file=sys.stderr)
        return 2


sys.exit(main())
