"""`sockwork doctor`: what this machine allows, and what to do about the rest."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from sockwork import paths
from sockwork.probe import probe
from sockwork.report.style import Style
from sockwork.text import printable

_TIERS = {
    "T0": "no namespaces: programs run on the machine's own loopback, checks that need a link are skipped",
    "T1": "an ordinary user with namespaces: every check can run",
    "T2": "root: every check can run, and programs run as an unprivileged user",
}
_RESTRICTED = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


@click.command("doctor")
def command() -> int:
    """Tell what this machine allows, with remedies."""
    style = Style.of(sys.stdout)
    found = probe()
    style.write(sys.stdout, _tier(style, found.tier))
    for each in found.answer["capabilities"]:
        style.write(sys.stdout, _item(style, each["have"], each["name"], _why_not(each)))
    if _RESTRICTED.exists() and _RESTRICTED.read_text().strip() == "1" and found.tier == "T0":
        style.write(sys.stdout, apparmor_rule(os.environ["SOCKWORK_TESTBED"]))
    style.write(sys.stdout, ["", style.paint("tools", "bold"), *_tools(style)])
    style.write(sys.stdout, ["", style.paint("places", "bold"), *_places()])
    return 0


def _tier(style: Style, tier: str) -> list[str]:
    return style.wrapped(f"tier {tier}: {_TIERS[tier]}", "", "  ")


def _item(style: Style, have: bool, name: str, text: str) -> list[str]:
    mark = style.paint("✓", "green") if have else style.paint("✗", "red")
    lines = style.wrapped(printable(text), " " * 14) or [""]
    return [f"  {mark} {name:<10}{lines[0].strip()}", *lines[1:]]


def _why_not(capability: dict[str, str]) -> str:
    if capability["have"]:
        return ""
    return f"{capability['because']}. Remedy: {capability['remedy']}"


def apparmor_rule(testbed: str) -> list[str]:
    """Ubuntu from 23.10 on lets a program make namespaces when an AppArmor profile allows it."""
    profiles = [
        f'profile {name} "{path}" flags=(unconfined) {{ userns, }}'
        for name, path in (
            ("sockwork-testbed", testbed),
            ("sockwork-enter", str(Path(testbed).with_name("sockwork-enter"))),
            ("sockwork-bwrap", shutil.which("bwrap") or "/usr/bin/bwrap"),
        )
    ]
    return [
        "",
        "To allow namespaces to the testbed and its sandbox only, paste:",
        "",
        "sudo tee /etc/apparmor.d/sockwork >/dev/null <<'END'",
        "abi <abi/4.0>,",
        "include <tunables/global>",
        *profiles,
        "END",
        "sudo apparmor_parser -r /etc/apparmor.d/sockwork",
    ]


def _tools(style: Style) -> Iterator[str]:
    from sockwork.build import bubblewrap_works

    yield from _item(style, True, "python", platform.python_version())
    for name in ("g++", "cmake", "bwrap"):
        said = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
        yield from _item(style, bool(said), name, said.partition("\n")[0])
    confined = bubblewrap_works()
    text = "compilers run confined" if confined else "compilers run unconfined: bwrap does not work"
    yield from _item(style, confined, "sandbox", text)


def _places() -> Iterator[str]:
    cache = paths.cache()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free >> 20
    yield f"  kit        {paths.ROOT}"
    yield f"  testbed    {os.environ['SOCKWORK_TESTBED']}"
    yield f"  cache      {cache} ({free:,} MiB free)"
