# Bug: waits until the client has said something before it greets.
import re
import socket
import sys
import threading


def listen_at(host: str, port: str) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        sys.exit(f"greeting_server: bind: {error.strerror}")
    listener.listen()
    return listener


def valid_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535) or text[:1].isalpha()


def serve(client: socket.socket) -> None:
    with client:
        try:
            client.recv(4096)
            client.sendall(b"hello client")
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
        except OSError:
            pass


def main() -> None:
    if len(sys.argv) != 3 or not valid_port(sys.argv[2]):
        print("usage: greeting_server HOST PORT", file=sys.stderr)
        sys.exit(2)
    try:
        listener = listen_at(sys.argv[1], sys.argv[2])
    except socket.gaierror as error:
        sys.exit(f"greeting_server: getaddrinfo: {error.strerror}")
    while True:
        client, peer = listener.accept()
        print(f"connected from: {peer[0]}:{peer[1]}", flush=True)
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main()
