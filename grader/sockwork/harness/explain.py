"""Why a server cannot be reached where it should listen, read off the kernel's tables."""

from __future__ import annotations

from dataclasses import dataclass

from sockwork.facts import Address, Row, address_text
from sockwork.harness.ports import swapped
from sockwork.harness.run import Run
from sockwork.harness.scene import Scene

WILDCARDS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Explanation:
    """What is there instead of the LISTEN row."""

    reason: str
    observed: str
    evidence: tuple[str, ...] = ()


def reachable(row: Row, wanted: Address) -> bool:
    """A listener at this row takes connections to that address."""
    host, port = wanted
    if row.state != "LISTEN" or (port and row.local_port != port):
        return False
    any_family = row.local[0] == "::"  # takes IPv4 as well, see IPV6_V6ONLY in ipv6(7)
    same_family = (":" in row.local[0]) == (":" in host)
    return row.local[0] == host or any_family or (row.local[0] == "0.0.0.0" and same_family)


def why_not_listening(scene: Scene, run: Run, wanted: Address) -> Explanation:
    if not run.alive:
        words = f", its stderr ends with: {run.last_words}" if run.last_words else ""
        text = f"{run.name} ended before it listened: {run.status.text}{words}."
        return Explanation("exited", text)
    rows = run.rows
    evidence = (*(row.text for row in rows[:5]), *scene.circumstances())
    listening = [row for row in rows if row.state == "LISTEN"]
    if listening:
        reason, text = _elsewhere(listening[0], wanted)
        return Explanation(reason, f"{run.name} listens at {text}.", evidence)
    if any(row.state in ("BOUND", "CLOSE") and row.local_port for row in rows):
        text = f"{run.name} has bound its socket, but it does not listen on it."
        return Explanation("not-listening", text, evidence)
    if any(process.sockets for process in run.processes):
        text = f"{run.name} has a socket that does not listen."
        return Explanation("not-listening", text, evidence)
    return Explanation("not-listening", f"{run.name} holds no socket at all.", evidence)


def _elsewhere(row: Row, wanted: Address) -> tuple[str, str]:
    host, port = wanted
    if row.local_port == swapped(port):
        return (
            "byte-order",
            f"port {row.local_port}: these are the two bytes of {port} in the other order",
        )
    if row.local_port != port:
        return "wrong-port", f"port {row.local_port}, not at {port}"
    return "wrong-address", f"{address_text(row.local)}, not at {address_text((host, port))}"
