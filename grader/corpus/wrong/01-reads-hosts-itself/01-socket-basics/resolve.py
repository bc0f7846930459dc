# Bug: reads /etc/hosts by itself and never asks DNS.
import re
import socket
import sys


def family_of(address: str) -> str:
    for name, family in (("inet", socket.AF_INET), ("inet6", socket.AF_INET6)):
        try:
            socket.inet_pton(family, address)
            return name
        except OSError:
            pass
    return ""


def addresses_of(host: str) -> list[str]:
    if family_of(host):
        return [host]
    found = []
    with open("/etc/hosts") as hosts:
        for line in hosts:
            address, *names = line.split("#")[0].split() or [""]
            if host in names and address not in found:
                found.append(address)
    return found


def port_of(service: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", service) and int(service) <= 65535:
        return int(service)
    try:
        return socket.getservbyname(service, "tcp")
    except OSError:
        return -1


def main() -> None:
    if len(sys.argv) != 3 or port_of(sys.argv[2]) == -1:
        print("usage: resolve HOST SERVICE", file=sys.stderr)
        sys.exit(2)
    addresses = addresses_of(sys.argv[1])
    if not addresses:
        sys.exit("resolve: getaddrinfo: Name or service not known")
    for address in addresses:
        print(family_of(address), address, port_of(sys.argv[2]))


main()
