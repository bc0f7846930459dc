# Bug: an error of recv() is taken for the end of the stream.
import os
import select
import socket
import sys


def fail(call, reason):
    sys.exit(f"echo_client: {call}: {reason}")


def is_port(text):
    """7, 65535 and "echo" are ports; 70000, 80x and -1 are not."""
    if text.isascii() and text.isdigit():
        return int(text) <= 65535
    return text[:1].isalpha()


def connect_to(host, port):
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        fail("getaddrinfo", error.strerror)
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            reason = error.strerror
    fail("connect", reason)


def write_all(data):
    while data:
        data = data[os.write(1, data) :]


def copy(connection):
    connection.setblocking(False)
    out, reading = b"", True
    while True:
        wait_read = [connection] + ([0] if reading and not out else [])
        readable, writable, _ = select.select(wait_read, [connection] if out else [], [])
        if 0 in readable:
            out = os.read(0, 16384)
            if not out:
                reading = False
                connection.shutdown(socket.SHUT_WR)
        if writable:
            out = out[connection.send(out) :]
        if connection in readable:
            try:
                data = connection.recv(16384)
            except ConnectionError:
                return
            if not data:
                return
            write_all(data)


if len(sys.argv) != 3 or not is_port(sys.argv[2]):
    print("usage: echo_client HOST PORT", file=sys.stderr)
    sys.exit(2)
connection = connect_to(sys.argv[1], sys.argv[2])
try:
    copy(connection)
except OSError as error:
    fail("recv", error.strerror)
