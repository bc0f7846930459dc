# Bug: prints the port it was given, not the one the kernel gave it.
import re
import socket
import sys


def listen_at(host: str, port: str) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        sys.exit(f"endpoints: bind: {error.strerror}")
    listener.listen()
    return listener


def valid_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535) or text[:1].isalpha()


def main() -> None:
    if len(sys.argv) != 3 or not valid_port(sys.argv[2]):
        print("usage: endpoints HOST PORT", file=sys.stderr)
        sys.exit(2)
    try:
        listener = listen_at(sys.argv[1], sys.argv[2])
    except socket.gaierror as error:
        sys.exit(f"endpoints: getaddrinfo: {error.strerror}")
    print("listening", listener.getsockname()[0], sys.argv[2], flush=True)

    client, peer = listener.accept()
    print("local", *client.getsockname()[:2], flush=True)
    print("peer", *peer[:2], flush=True)
    try:
        while client.recv(4096):
            pass
    except OSError as error:
        sys.exit(f"endpoints: recv: {error.strerror}")
    client.close()
    listener.close()


main()
