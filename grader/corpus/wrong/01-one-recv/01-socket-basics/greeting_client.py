# Bug: calls recv() once and takes what it returns as the whole message.
import re
import socket
import sys


def valid_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535) or text[:1].isalpha()


def connect_to(host: str, port: str) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        sys.exit(f"greeting_client: getaddrinfo: {error.strerror}")
    for family, kind, _, _, address in addresses:
        connection = socket.socket(family, kind)
        try:
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            reason = error.strerror
    sys.exit(f"greeting_client: connect: {reason}")


def main() -> None:
    if len(sys.argv) != 3 or not valid_port(sys.argv[2]):
        print("usage: greeting_client HOST PORT", file=sys.stderr)
        sys.exit(2)
    connection = connect_to(sys.argv[1], sys.argv[2])
    try:
        sys.stdout.buffer.write(connection.recv(4096))
        sys.stdout.buffer.flush()
    except OSError as error:
        sys.exit(f"greeting_client: recv: {error.strerror}")


main()
