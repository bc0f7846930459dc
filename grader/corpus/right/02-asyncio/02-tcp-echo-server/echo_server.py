"""One coroutine per client on the asyncio event loop."""

import asyncio
import contextlib
import errno
import re
import resource
import signal
import socket
import sys
from typing import NoReturn

PROGRAM = "echo_server"
SIZE = 16384
GRACE = 0.5
RETRY = 1.0
OUT_OF_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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


def listen(host: str, port: str) -> socket.socket:
    """A non-blocking listener on the first address of `host` that can be bound."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        fail("getaddrinfo", error)
    call, reason = "socket", OSError()
    for family, kind, protocol, _, address in found:
        try:
            call = "socket"
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            reason = error
            continue
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            call = "bind"
            listener.bind(address)
            call = "listen"
            listener.listen(socket.SOMAXCONN)
            listener.setblocking(False)
            return listener
        except OSError as error:
            reason = error
            listener.close()
    fail(call, reason)


class Server:
    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.one_ended = asyncio.Event()
        self.patience: set[asyncio.Timeout] = set()
        self.clients: set[asyncio.Task[None]] = set()

    async def next_bytes(self, reader: asyncio.StreamReader) -> bytes:
        """What comes next; nothing at the end, or when all stop and the client stays silent."""
        try:
            async with asyncio.timeout(GRACE if self.stopping.is_set() else None) as timeout:
                self.patience.add(timeout)
                return await reader.read(SIZE)
        except TimeoutError:
            return b""
        finally:
            self.patience.discard(timeout)

    async def echo(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=SIZE)
        try:
            while data := await self.next_bytes(reader):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # reset by the client
        finally:
            writer.close()
            # The task lives until the last byte is out, and run() waits for the task.
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def ended(self, client: asyncio.Task[None]) -> None:
        self.clients.discard(client)
        self.one_ended.set()

    async def wait_for_room(self) -> None:
        self.one_ended.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY):
                await self.one_ended.wait()

    # asyncio.start_server() tries a hundred times for each connection it has no descriptor for.
    async def accept_clients(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                if error.errno in OUT_OF_ROOM:
                    await self.wait_for_room()
                continue
            client = asyncio.create_task(self.echo(connection))
            self.clients.add(client)
            client.add_done_callback(self.ended)

    def stop(self) -> None:
        self.stopping.set()
        for timeout in self.patience:
            timeout.reschedule(asyncio.get_running_loop().time() + GRACE)

    async def run(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stop)
        accepting = asyncio.create_task(self.accept_clients(listener))
        await self.stopping.wait()
        accepting.cancel()
        await asyncio.wait({accepting})
        listener.close()
        while self.clients:
            await asyncio.wait(self.clients)


def main() -> None:
    host, port = arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = listen(host, port)
    asyncio.run(Server().run(listener))


main()
