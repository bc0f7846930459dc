"""`sockwork check`: builds the programs of a lab, performs its checks, reports."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sockwork import paths
from sockwork.cli import lookup
from sockwork.text import did_you_mean, printable

if TYPE_CHECKING:
    from sockwork.build import Built
    from sockwork.model import Check, Lab, Outcome
    from sockwork.report.record import Asked
    from sockwork.results import Evidence, LabRun

_KEEP_HERE = ".sockwork/evidence"


@dataclass(frozen=True)
class _Options:
    """The options of one call, as click names them."""

    submission: Path | None
    solutions: bool
    execute: str | None
    program: str | None
    json: str | None
    seed: int
    jobs: int
    only: Literal["core", "challenge"] | None
    keep: str | None
    without: tuple[str, ...]
    tier: str
    all_failures: bool
    brief: bool
    fail_fast: bool

    @property
    def folder(self) -> Path:
        return paths.SOLUTIONS if self.solutions else self.submission or paths.LABS

    @property
    def kept_in(self) -> Path | None:
        if self.keep == _KEEP_HERE:
            return paths.state() / "evidence"
        return Path(self.keep) if self.keep else None

    @property
    def detail(self) -> Literal["first", "all", "brief"]:
        return "brief" if self.brief else "all" if self.all_failures else "first"

    def granted_tier(self) -> str:
        from sockwork.probe import probe

        return probe().tier if self.tier == "auto" else self.tier

    def asked(self) -> Asked:
        """How this run was asked for, for its record."""
        from sockwork.report.record import Asked

        submission = self.execute or str(self.folder.resolve())
        folder = None if self.execute else self.folder
        return Asked(submission, self.again(), self.seed, self.granted_tier(), folder)

    def again(self) -> tuple[str, ...]:
        """The words that ask for the same programs in the same setting."""
        words: list[str] = ["--solutions"] if self.solutions else []
        for option, value in (
            ("--submission", self.submission),
            ("--exec", self.execute),
            ("--program", self.program if self.execute else None),
            ("--tier", None if self.tier == "auto" else self.tier),
        ):
            words += [option, str(value)] if value is not None else []
        for word in self.without:
            words += ["--without", word]
        return tuple(words)


@click.command("check")
@click.argument("lab", required=False, shell_complete=lookup.complete_lab)
@click.argument("checks", nargs=-1, metavar="[CHECK]...", shell_complete=lookup.complete_check)
@click.option("--submission", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Folder to judge, holding LAB/NAME.cpp; default: labs/ of this clone.")  # fmt: skip
@click.option("--solutions", is_flag=True, help="Judge the reference solutions.")
@click.option("--exec", "execute", metavar="COMMAND", help="Judge a shell command: sh -c 'COMMAND' PROGRAM ARGUMENT..., with $HOST, $PORT.")  # fmt: skip
@click.option(
    "--program",
    metavar="NAME",
    shell_complete=lookup.complete_program,
    help="Only the checks of this program.",
)
@click.option(
    "--json", metavar="FILE", type=click.Path(), help="Write results.json; - for standard output."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Chooses ports and data.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 64), default=lambda: len(os.sched_getaffinity(0)), show_default="CPUs", help="Checks at the same time.")  # fmt: skip
@click.option("--only", type=click.Choice(["core", "challenge"]), help="Only checks of this level.")
@click.option("--keep", is_flag=False, flag_value=_KEEP_HERE, metavar="[DIR]", help=f"Keep traces and captures of all checks; default: {_KEEP_HERE}.")  # fmt: skip
@click.option("--without", multiple=True, metavar="WORD", shell_complete=lookup.complete_need, help="Treat a capability as missing, as inet6 for an IPv4-only program.")  # fmt: skip
@click.option("--tier", type=click.Choice(["auto", "T0", "T1", "T2"]), default="auto", show_default=True, help="Use no more than this tier gives.")  # fmt: skip
@click.option("--all", "all_failures", is_flag=True, help="Show every failed check in full, not only the first.")  # fmt: skip
@click.option("--brief", is_flag=True, help="Two lines for each failed check.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failed check.")
def command(lab: str | None, checks: tuple[str, ...], **options: Any) -> int:
    """Judge programs by the checks of LAB, or of all labs.

    LAB is a number or a name: 2, 02, tcp-echo-server. Without CHECK all checks are performed.

    Exit status: 0 all that was judged passed, 1 a check failed, 2 usage, 3 something is not
    installed, 4 could not judge.
    """
    wanted = _Options(**options)
    _refuse_contradictions(lab, wanted)
    everything = lookup.labs()
    _refuse_unknown_words(everything, wanted)
    labs = _present(everything, wanted) if lab is None else lookup.labs(lab)
    orders = [_Order(each, _chosen(each, checks, wanted), wanted) for each in labs]
    runs = [order.perform() for order in orders if order.checks]
    if not runs:
        raise click.UsageError("no check is left to perform")
    return _finish(runs, wanted)


# --- what was asked for ------------------------------------------------------------------------


def _refuse_contradictions(lab: str | None, options: _Options) -> None:
    sources = (options.submission is not None, options.solutions, options.execute is not None)
    if sum(sources) > 1:
        raise click.UsageError("--submission, --solutions and --exec exclude each other")
    if options.execute is not None and lab is None:
        raise click.UsageError("--exec needs a LAB")
    if options.keep and options.keep.isdecimal() and lab is None:
        raise click.UsageError(f"--keep took {options.keep} as its folder; put --keep last")
    if not options.folder.is_dir():
        raise click.UsageError(f"{printable(str(options.folder))}: no such folder")
    _refuse_unwritable(options)


def _refuse_unwritable(options: _Options) -> None:
    # A result that cannot be written is better refused before the run than after it.
    if options.json and options.json != "-":
        from sockwork.results import is_stream

        place = Path(options.json)
        written = place if is_stream(place) else place.resolve().parent
        if place.is_dir() or not os.access(written, os.W_OK):
            raise click.UsageError(f"--json: {printable(options.json)} cannot be written")
    if options.kept_in:
        try:
            options.kept_in.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            shown = printable(str(options.kept_in))
            raise click.UsageError(f"--keep: {shown}: {error.strerror}") from error


def _present(labs: Sequence[Lab], options: _Options) -> list[Lab]:
    from sockwork.submission import lab_folder

    found = [lab for lab in labs if lab_folder(options.folder, lab)]
    if not found:
        raise click.UsageError(f"{printable(str(options.folder))} holds no folder of a lab")
    if options.program is None:
        return found
    named = [lab for lab in found if options.program in _programs(lab)]
    # None has it: the first lab tells.
    return named or found[:1]


def _programs(lab: Lab) -> list[str]:
    return [program.name for program in lab.programs]


def _chosen(lab: Lab, words: Sequence[str], options: _Options) -> list[Check]:
    """The checks of `lab` that were asked for; `program` and `only` narrow them."""
    if options.execute is not None and options.program is None and len(lab.programs) > 1:
        raise click.UsageError(f"--exec needs --program, one of: {', '.join(_programs(lab))}")
    program = lookup.program(lab, options.program) if options.program else None
    return [
        check
        for check in lookup.checks(lab, words)
        if program in (None, check.program) and options.only in (None, check.level)
    ]


def _refuse_unknown_words(labs: Sequence[Lab], options: _Options) -> None:
    known = {word for lab in labs for check in lab.checks for word in check.needs}
    for word in options.without:
        if word not in known:
            hint = did_you_mean(word, known) or f"; checks need: {', '.join(sorted(known))}"
            raise click.UsageError(f"no check needs {printable(word)}{hint}")


# --- one lab -----------------------------------------------------------------------------------


class _Order:
    """Some checks of one lab, to be graded and shown."""

    def __init__(self, lab: Lab, checks: Sequence[Check], options: _Options) -> None:
        from sockwork.report.live import Progress

        self.checks = checks
        self._lab = lab
        self._options = options
        self._progress = Progress(sys.stderr)

    def perform(self) -> LabRun:
        """Builds, performs the checks, and shows what comes of them."""
        with self._progress:
            return self._perform()

    def _perform(self) -> LabRun:
        from sockwork.report.live import Live
        from sockwork.report.style import Style
        from sockwork.report.commands import Rerun
        from sockwork.report.terminal import Terminal
        from sockwork.results import LabRun, in_order

        options = self._options
        style = Style.of(sys.stdout)
        rerun = Rerun(options.again(), options.seed)
        live = Live(Terminal(style, self._lab, rerun), self.checks, options.detail)

        def show(lines: Iterable[str]) -> None:
            self._progress.clear()
            if options.json != "-":
                style.write(sys.stdout, lines)

        started = time.monotonic()
        outcomes: list[Outcome] = []
        evidence: dict[str, Evidence] = {}
        with ThreadPoolExecutor(1) as beside:
            tier = beside.submit(options.granted_tier)
            built = self._build()
            seconds = time.monotonic() - started
        show(live.begin(built, seconds, tier.result()))
        for outcome in self._outcomes(built):
            outcomes.append(outcome)
            evidence[outcome.check.id] = self._kept(outcome)
            show(live.add(outcome, evidence[outcome.check.id]))
            self._progress.show(f"{len(outcomes)}/{len(self.checks)} {outcome.check.id}")
        show(live.end(time.monotonic() - started))
        return LabRun(self._lab, in_order(self._lab, outcomes), built, evidence)

    def _build(self) -> Mapping[str, Built]:
        from sockwork.build import build
        from sockwork.grading import command_as_program
        from sockwork.submission import SubmissionError, load

        options = self._options
        if options.execute is not None:
            return command_as_program(options.execute, self.checks[0].program)
        try:
            submission = load(options.folder, self._lab)
        except SubmissionError as error:
            raise click.UsageError(str(error)) from error
        return build(
            submission,
            {check.program for check in self.checks},
            optimised={check.program for check in self.checks if check.optimised},
            jobs=options.jobs,
            progress=self._progress.show,
        )

    def _outcomes(self, built: Mapping[str, Built]) -> Iterator[Outcome]:
        """The outcomes as they come; after --fail-fast ended the run, a skip for each other."""
        from sockwork.grading import Settings, judge
        from sockwork.model import Outcome

        options = self._options
        # With the tier known, no testbed needs to find it out again.
        tier, keep = options.granted_tier(), options.keep is not None
        settings = Settings(options.seed, options.jobs, options.without, tier, keep)
        left = {check.id: check for check in self.checks}
        with closing(judge(self._lab, self.checks, built, settings)) as coming:
            for outcome in coming:
                del left[outcome.check.id]
                yield outcome
                if options.fail_fast and outcome.status == "fail":
                    break
        for check in left.values():
            yield Outcome(check, "skip", 0.0, reason="not performed after the first failure")

    def _kept(self, outcome: Outcome) -> Evidence:
        from sockwork import atomic
        from sockwork.results import Evidence

        folder = self._options.kept_in
        if folder is None:
            return Evidence()
        place = folder / self._lab.id / outcome.check.id
        paths = {"trace": place.with_suffix(".jsonl"), "pcap": place.with_suffix(".pcap")}
        contents = {"trace": outcome.trace, "pcap": outcome.capture}
        kept = {name: paths[name] for name, content in contents.items() if content is not None}
        for name, path in kept.items():
            atomic.write(path, contents[name] or b"")
        return Evidence(**kept)


# --- all labs ----------------------------------------------------------------------------------


def _finish(runs: Sequence[LabRun], options: _Options) -> int:
    from sockwork import results
    from sockwork.report import record

    if options.json:
        made = results.as_json(
            runs,
            seed=options.seed,
            tier=options.granted_tier(),
            submission=options.execute or options.folder.resolve().name,
            folder=Path() if options.json == "-" else Path(options.json).parent,
        )
        if options.json == "-":
            sys.stdout.write(results.text(made))
        else:
            results.write(Path(options.json), made)
    record.keep(runs, options.asked())
    return results.exit_status([outcome for run in runs for outcome in run.outcomes])
