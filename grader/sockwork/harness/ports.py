"""Ports for the servers of a check."""

from __future__ import annotations

import random
import socket

# Below the ports that the kernel takes for connect(2), see ip_local_port_range in ip(7).
_LOWEST, _HIGHEST = 10000, 32000
_PRIVILEGED = 1024


def swapped(port: int) -> int:
    """The port that results when its two bytes change places."""
    return (port >> 8) | (port & 0xFF) << 8


def _tells_apart(port: int) -> bool:
    """Swapped it is another port, and one that an unprivileged program may take, too."""
    return swapped(port) != port and swapped(port) >= _PRIVILEGED


class Ports:
    """Different ports, one by one: random in own hosts, free ones on the machine's loopback."""

    def __init__(self, rng: random.Random, *, own_hosts: bool) -> None:
        self._rng = rng
        self._own_hosts = own_hosts
        self._taken: set[int] = set()

    def take(self) -> int:
        while True:
            port = self._rng.randint(_LOWEST, _HIGHEST) if self._own_hosts else _free_port()
            if _tells_apart(port) and not {port, swapped(port)} & self._taken:
                self._taken |= {port, swapped(port)}
                return port


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
