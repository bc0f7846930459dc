"""`sockwork observe`: runs any program in the testbed, or reads a capture, and draws what happened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sockwork.paths import SetupError
from sockwork.text import printable

if TYPE_CHECKING:
    from sockwork.observe.session import Observed, Plan
    from sockwork.observe.view import Talk
    from sockwork.report.style import Style
    from sockwork.trace import Trace

_INTERRUPTED = 130
_ARGV = "observe.argv"
_FOR_PROGRAMS = ("peer", "rules", "seconds", "quiet", "all_calls", "pcap", "tier")


class _Observe(click.Command):
    """Everything behind `--` is the program's and not read by us."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_ARGV] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS] -- COMMAND... | [OPTIONS] FILE"]


@dataclass(frozen=True)
class _Outputs:
    """Where the results go, and which conversations are drawn."""

    pcap: str | None
    json: str | None
    html: str | None
    number: int | None
    every: bool


@click.command("observe", cls=_Observe)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--peer", metavar="COMMAND", help="A shell command for the other host; it starts when the program listens or rests.")  # fmt: skip
@click.option("--rule", "rules", multiple=True, metavar="TEXT", help="What the link does to packets, as 'drop from=target flags=FIN nth=1'.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0, 86_400, min_open=True), help="End it after this time.")  # fmt: skip
@click.option("--conversation", "number", type=click.IntRange(1), metavar="N", help="Draw this one of the list; default: the one with most traffic.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Draw every conversation.")
@click.option("--quiet", is_flag=True, help="Only the figure, nothing while it runs.")
@click.option("--all-calls", is_flag=True, help="Also show calls that touch no socket.")
@click.option("--pcap", metavar="FILE", type=click.Path(), help="Write the packets, for Wireshark.")
@click.option("--json", metavar="FILE", type=click.Path(), help="Write the trace, JSON lines; - for standard output.")  # fmt: skip
@click.option("--html", metavar="FILE", type=click.Path(), help="Write figures, calls and outputs as one page.")  # fmt: skip
@click.option("--tier", type=click.Choice(["auto", "T0", "T1", "T2"]), default="auto", show_default=True, help="Use no more than this tier gives.")  # fmt: skip
@click.pass_context
def command(context: click.Context, file: Path | None, **options: Any) -> int:
    """Run COMMAND in a small network and show its calls, packets and states; or draw a capture.

    The program runs on the host target, in the current folder, which it cannot write to. Both
    programs have $TARGET, $TARGET6, $PEER and $PEER6.

    Exit status: 0 observed, 2 usage, 3 something is not installed, 130 stopped with Ctrl-C.
    """
    outputs = _Outputs(*(options.pop(each) for each in ("pcap", "json", "html", "number", "every")))
    argv: list[str] | None = context.meta.get(_ARGV)
    if argv is None and file is None:
        raise click.UsageError("observe needs -- and a command, or the FILE of a capture")
    if outputs.number and outputs.every:
        raise click.UsageError("--conversation and --all exclude each other")
    _refuse_unwritable(outputs)
    if argv is None:
        assert file
        _refuse_options_of_programs(context)
        return _read(file, outputs)
    if file is not None:
        raise click.UsageError(f"{printable(str(file))} stands before --; a command stands behind")
    return _run(argv, options, outputs)


# --- a capture ---------------------------------------------------------------------------------


def _read(file: Path, outputs: _Outputs) -> int:
    from sockwork.observe import capture

    if not file.exists():
        shown = printable(str(file))
        raise click.UsageError(f"no file {shown}; to run a program: observe -- {shown}")
    try:
        found = capture.read(file)
    except capture.CaptureError as error:
        raise click.UsageError(f"{printable(str(file))}: {error}") from error
    report = _Report(file.name, found.trace, outputs)
    report.tell((), (), [found.left_out] if found.left_out else [])
    return 0


def _refuse_options_of_programs(context: click.Context) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name)
        if name in _FOR_PROGRAMS and given is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} goes with a command, not with a capture")


# --- programs ----------------------------------------------------------------------------------


def _run(argv: list[str], options: dict[str, Any], outputs: _Outputs) -> int:
    from sockwork.observe import view
    from sockwork.observe.session import Plan

    if not argv:
        raise click.UsageError("no command stands behind --")
    stream = _stream(outputs)
    style = _style(outputs)
    texts = options["rules"]
    options["rules"] = [_rule(text) for text in texts]
    plan = Plan(_from_here(argv), **options)
    if "--peer" in argv and plan.peer is None:
        click.echo("sockwork: --peer stands behind -- and goes to the program", err=True)

    def show(lines: Iterable[str]) -> None:
        style.write(stream, lines)

    seen = _observe(plan, style, show)
    report = _Report(" ".join(argv), seen.trace, outputs, plan.all_calls)
    remarks = list(view.remarks(report.trace, seen.stats, texts))
    if seen.capture is None:
        remarks.insert(0, f"tier {seen.tier} has no link: only calls are seen, no packets")
    if plan.peer is not None and len(seen.programs) == 1:
        remarks.append("the peer was not started: the program had ended before")
    if outputs.pcap and seen.capture is not None:
        _write("--pcap", outputs.pcap, seen.capture)
    report.tell(seen.programs, list(view.programs(seen.programs, style)), remarks)
    return _INTERRUPTED if seen.interrupted else 0


def _observe(plan: Plan, style: Style, show: Any) -> Observed:
    from sockwork.observe.session import Session
    from sockwork.probe import probe
    from sockwork.testbed import Testbed, TestbedError

    tier = probe().tier if plan.tier == "auto" else plan.tier
    if plan.rules and tier == "T0":
        raise SetupError("rules need a link between two hosts, which tier T0 has not")
    try:
        with closing(Testbed(tier=tier)) as testbed:
            return Session(testbed, plan, style, show).observe()
    except TestbedError as error:
        if error.code == "exec":
            raise click.UsageError(_cannot_start(str(error), tier)) from error
        raise SetupError(str(error)) from error


def _rule(text: str) -> dict[str, Any]:
    from sockwork.observe import rules

    try:
        return rules.parse(text)
    except rules.RuleError as error:
        raise click.UsageError(f"--rule: {error}") from error


def _from_here(argv: Sequence[str]) -> list[str]:
    """The program's path as seen from the current folder, which has another name in there."""
    here = Path.cwd()
    if os.path.isabs(argv[0]) and Path(argv[0]).is_relative_to(here):
        return [f"./{Path(argv[0]).relative_to(here)}", *argv[1:]]
    return list(argv)


def _cannot_start(message: str, tier: str) -> str:
    there = "" if tier == "T0" else "; it sees /usr and the current folder, nothing else"
    return printable(message) + there


# --- results -----------------------------------------------------------------------------------


class _Report:
    """Draws a trace and writes the files that were asked for."""

    def __init__(
        self, title: str, content: bytes, outputs: _Outputs, all_calls: bool = False
    ) -> None:
        from sockwork.observe.timeline import only_sockets
        from sockwork.trace import Trace

        self._title = title
        self._content = content
        self._outputs = outputs
        self._style = _style(outputs)
        trace = Trace.parse(content)
        self.trace = trace if all_calls else only_sockets(trace)

    def tell(self, programs: Sequence[Any], lines: Sequence[str], remarks: Sequence[str]) -> None:
        """Writes everything. Raises click.UsageError for a conversation that is not there."""
        from sockwork.observe import view

        outputs, style = self._outputs, self._style
        found = view.talks(self.trace)
        if outputs.json:
            _write("--json", outputs.json, self._content)
        first = self._chosen(found)
        drawn = found if outputs.every else [first] if first else []
        if outputs.html:
            page = self._page(found, first, programs, lines, remarks)
            _write("--html", outputs.html, page.encode("utf-8", "backslashreplace"))
        stream = _stream(outputs)
        figures = [view.figure(self.trace, each, style) for each in drawn]
        for lines_of_figure in figures or [view.figure(self.trace, None, style)]:
            style.write(stream, ["", *lines_of_figure])
        if not found and not programs:
            style.write(stream, ["no conversation of TCP or UDP is in it"])
        style.write(stream, ["", *view.listed(found, drawn, style), *lines])
        for remark in remarks:
            style.write(stream, style.wrapped(remark, "note   "))

    def _chosen(self, found: Sequence[Talk]) -> Talk | None:
        from sockwork.observe import view

        number = self._outputs.number
        if number is None:
            return view.busiest(found)
        if number > len(found):
            there = f"there are {len(found)}" if found else "there is none"
            raise click.UsageError(f"no conversation {number}; {there}")
        return found[number - 1]

    def _page(
        self,
        found: Sequence[Talk],
        first: Talk | None,
        programs: Sequence[Any],
        lines: Sequence[str],
        remarks: Sequence[str],
    ) -> str:
        from sockwork.observe.page import Page

        title = printable(self._title)
        return Page(title, self.trace, found, first, programs, lines, remarks).render()


def _stream(outputs: _Outputs) -> Any:
    """With the trace on standard output, all else goes to standard error."""
    return sys.stderr if outputs.json == "-" else sys.stdout


def _style(outputs: _Outputs) -> Style:
    from sockwork.report.style import Style

    return Style.of(_stream(outputs))


def _write(option: str, name: str, content: bytes) -> None:
    from sockwork import atomic

    if name == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    try:
        atomic.write(Path(name).absolute(), content)
    except OSError as error:
        raise click.UsageError(f"{option}: {printable(name)}: {error.strerror}") from error


def _refuse_unwritable(outputs: _Outputs) -> None:
    # A result that cannot be written is better refused before the run than after it.
    for option, name in (
        ("--pcap", outputs.pcap),
        ("--json", outputs.json),
        ("--html", outputs.html),
    ):
        if name is None or (name == "-" and option == "--json"):
            continue
        place = Path(name)
        if name == "-" or place.is_dir() or not os.access(place.absolute().parent, os.W_OK):
            raise click.UsageError(f"{option}: {printable(name)} cannot be written")
