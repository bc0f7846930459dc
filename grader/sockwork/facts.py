"""What the testbed reports about the kernel, as immutable values.

Each `parse` takes the JSON object of one fact of grader/testbed/PROTOCOL.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Address = tuple[str, int]
Fields = Mapping[str, Any]


def address_text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(pair: Any) -> Address:
    return (str(pair[0]), int(pair[1]))


@dataclass(frozen=True)
class Host:
    """One host of the testbed and its addresses; `inet6` is empty where IPv6 is missing."""

    name: str
    inet: str
    inet6: str
    mac: str

    @staticmethod
    def parse(name: str, fields: Fields) -> Host:
        return Host(name, fields["inet"], fields.get("inet6") or "", str(fields.get("mac") or ""))

    def address(self, family: str) -> str:
        return self.inet6 if family == "inet6" else self.inet


@dataclass(frozen=True)
class Row:
    """One row of a socket table. For LISTEN `rqueue` is not yet accepted, `wqueue` the backlog."""

    transport: str
    family: str
    local: Address
    remote: Address
    state: str
    rqueue: int
    wqueue: int
    inode: int
    uid: int
    timer: str
    timer_ms: int
    retransmits: int
    owners: tuple[int, ...]
    mapped: bool

    @staticmethod
    def parse(fields: Fields) -> Row:
        return Row(
            transport=fields["transport"],
            family=fields["family"],
            local=_address(fields["local"]),
            remote=_address(fields["remote"]),
            state=fields["state"],
            rqueue=fields["rqueue"],
            wqueue=fields["wqueue"],
            inode=fields["inode"],
            uid=fields["uid"],
            timer=str(fields.get("timer") or ""),
            timer_ms=fields.get("timer_ms") or 0,
            retransmits=fields.get("retransmits") or 0,
            owners=tuple(fields["owners"]),
            mapped=bool(fields.get("mapped", False)),
        )

    @property
    def local_port(self) -> int:
        return self.local[1]

    @property
    def remote_port(self) -> int:
        return self.remote[1]

    @property
    def text(self) -> str:
        if self.state == "LISTEN":
            waiting = f"{self.rqueue} not accepted, backlog {self.wqueue}"
            return f"{address_text(self.local)}  LISTEN  {waiting}"
        ends = f"{address_text(self.local)} -> {address_text(self.remote)}"
        return f"{ends}  {self.state}  Recv-Q {self.rqueue}, Send-Q {self.wqueue}"


@dataclass(frozen=True)
class Thread:
    """One thread; `call` is the system call it sleeps in, None when it runs."""

    tid: int
    state: str
    call: str | None
    timed: bool
    switches: int

    @staticmethod
    def parse(fields: Fields) -> Thread:
        return Thread(
            fields["tid"], fields["state"], fields["call"], fields["timed"], fields["switches"]
        )


@dataclass(frozen=True)
class Process:
    """One process of a run; a zombie has the state "Z"."""

    pid: int
    parent: int
    command: str
    state: str
    threads: tuple[Thread, ...]
    fds: int
    sockets: tuple[int, ...]
    vm_size: int
    vm_rss: int
    cpu_ns: int

    @staticmethod
    def parse(fields: Fields) -> Process:
        return Process(
            pid=fields["pid"],
            parent=fields["parent"],
            command=fields["command"],
            state=fields["state"],
            threads=tuple(Thread.parse(thread) for thread in fields["threads"]),
            fds=fields["fds"],
            sockets=tuple(fields["sockets"]),
            vm_size=fields["vm_size"],
            vm_rss=fields["vm_rss"],
            cpu_ns=fields["cpu_ns"],
        )


@dataclass(frozen=True)
class Resources:
    """What a run holds, summed over its process tree."""

    fds: int
    sockets: int
    threads: int
    processes: int
    zombies: int
    vm_size: int
    vm_rss: int

    @staticmethod
    def of(processes: list[Process]) -> Resources:
        living = [process for process in processes if process.state != "Z"]
        return Resources(
            fds=sum(process.fds for process in living),
            sockets=len({inode for process in living for inode in process.sockets}),
            threads=sum(len(process.threads) for process in living),
            processes=len(living),
            zombies=len(processes) - len(living),
            vm_size=sum(process.vm_size for process in living),
            vm_rss=sum(process.vm_rss for process in living),
        )


@dataclass(frozen=True)
class Status:
    """How a program is or how it ended."""

    kind: str  # running, exit, signal
    code: int = 0
    signal: str = ""

    @staticmethod
    def parse(fields: Fields) -> Status:
        return Status(fields["kind"], fields.get("code") or 0, fields.get("signal") or "")

    @property
    def running(self) -> bool:
        return self.kind == "running"

    @property
    def text(self) -> str:
        if self.kind == "exit":
            return f"exit status {self.code}"
        return f"killed by {self.signal}" if self.kind == "signal" else "running"


@dataclass(frozen=True)
class Packet:
    """One packet as the link saw it; `seq` and `ack` count from the connection's first numbers."""

    n: int
    time: int
    from_: str
    to: str
    family: str
    transport: str
    source: Address | None
    destination: Address | None
    flags: frozenset[str]
    seq: int
    ack: int
    window: int
    length: int
    fate: str
    rule: int | None
    checksum: str
    problem: str | None
    summary: str

    @staticmethod
    def parse(fields: Fields) -> Packet:
        return Packet(
            n=fields["number"],
            time=fields["time"],
            from_=str(fields.get("from") or ""),
            to=str(fields.get("to") or ""),
            family=str(fields.get("family") or ""),
            transport=fields["transport"],
            source=_address(fields["source"]) if fields.get("source") else None,
            destination=_address(fields["destination"]) if fields.get("destination") else None,
            flags=frozenset(fields.get("flags") or ()),
            seq=fields.get("seq") or 0,
            ack=fields.get("ack") or 0,
            window=fields.get("window") or 0,
            length=fields.get("length") or 0,
            fate=fields["fate"],
            rule=fields.get("rule"),
            checksum=str(fields.get("checksum") or ""),
            problem=fields.get("problem"),
            summary=str(fields.get("summary") or ""),
        )
