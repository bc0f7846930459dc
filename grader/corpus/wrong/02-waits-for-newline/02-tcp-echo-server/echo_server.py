# Bug: the server thinks in lines; bytes without a newline stay with it.
import errno
import socket
import sys
import threading

ended = threading.Condition()
endings = 0  # clients served to their end


def fail(call, reason):
    sys.exit(f"echo_server: {call}: {reason}")


def is_port(text):
    """7, 65535 and "echo" are ports; 70000, 80x and -1 are not."""
    if text.isascii() and text.isdigit():
        return int(text) <= 65535
    return text[:1].isalpha()


def listen_on(host, port):
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        fail("getaddrinfo", error.strerror)
    listener = socket.socket(found[0], socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(found[4])
    except OSError as error:
        fail("bind", error.strerror)
    listener.listen(1024)
    return listener


def serve(connection):
    global endings
    with connection, connection.makefile("rb") as lines:
        try:
            while line := lines.readline(4096):
                connection.sendall(line)
        except OSError:
            pass  # the client is gone
    with ended:
        endings += 1
        ended.notify()


def main():
    if len(sys.argv) != 3 or not is_port(sys.argv[2]):
        print("usage: echo_server HOST PORT", file=sys.stderr)
        sys.exit(2)
    listener = listen_on(sys.argv[1], sys.argv[2])
    while True:
        before = endings
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                with ended:  # no descriptor left: wait until a client gives one back
                    ended.wait_for(lambda: endings != before)
            continue
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


main()
