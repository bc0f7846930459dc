# Bug: knows IPv4 addresses only; every IPv6 address is a usage error.
import re
import socket
import struct
import sys


def usage() -> None:
    print("usage: sockaddr_bytes ADDRESS PORT", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    if len(sys.argv) != 3:
        usage()
    address, port = sys.argv[1:]
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        usage()
    try:
        packed = socket.inet_pton(socket.AF_INET, address)
    except OSError:
        usage()
    print("inet", struct.pack("!H", int(port)).hex(), packed.hex())


main()
