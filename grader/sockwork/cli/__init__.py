"""The command line: one module a command, imported when it is used.

Exit statuses are the same everywhere: 0 well, 1 a check failed, 2 usage, 3 set-up missing,
4 could not judge, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click
from click.shell_completion import shell_complete

import sockwork
from sockwork.paths import SetupError
from sockwork.text import did_you_mean, printable

FAILED, USAGE, SETUP, NOT_JUDGED = 1, 2, 3, 4

_COMPLETE = "_SOCKWORK_COMPLETE"
_COMMANDS = (
    "list",
    "check",
    "explain",
    "observe",
    "report",
    "doctor",
    "reset",
    "solution",
    "test",
    "completion",
)


class _Commands(click.Group):
    """Finds a command by the name of its module, so that one command loads only itself."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS]  # `list` is the command of that name here

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"sockwork.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]}{did_you_mean(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(sockwork.__version__, prog_name="sockwork", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Graded labs of socket programming, judged by kernel state and packets.

    Start with: ./sockwork list, then ./sockwork check 1
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> NoReturn:
    """Runs the command line and exits; whatever ends it is told in one line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        status = _perform()
        sys.stdout.flush()
        sys.exit(status)
    except click.NoSuchOption as error:
        near = did_you_mean(error.option_name, error.possibilities or ())
        _end(f"no option {error.option_name}{near}", error.exit_code)
    except click.ClickException as error:
        _end(error.format_message(), error.exit_code)
    except SetupError as error:
        _end(str(error), SETUP)
    except _Stopped as stopped:
        _end("stopped", stopped.status)
    except click.Abort:  # the end of input instead of an answer
        _end("stopped", FAILED)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        raise
    except OSError as error:  # a full disk, a folder that is closed to us
        _end(": ".join(filter(None, (error.filename, error.strerror))), NOT_JUDGED)


def _perform() -> int:
    """What click's own main does, but that one takes a reader that has gone for a failure."""
    asked = os.environ.get(_COMPLETE)
    if asked:
        return shell_complete(cli, {}, "sockwork", _COMPLETE, asked)
    try:
        with cli.make_context("sockwork", sys.argv[1:]) as context:
            result: Any = cli.invoke(context)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    return result if isinstance(result, int) else 0


def _end(message: str, status: int) -> NoReturn:
    line = printable(" ".join(message.split()))
    print(f"sockwork: {line[:1].lower() + line[1:]}", file=sys.stderr)
    sys.exit(status)


class _Stopped(BaseException):
    """Unwinds everything, so that every `with` block cleans up."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped(128 + number)
