"""The command line: one module a command, imported when it is used.

Exit statuses are the same everywhere: 0 well, 1 a check failed, 2 usage, 3 set-up missing,
4 could not judge, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import importlib
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

import sockwork
from sockwork.paths import SetupError
from sockwork.text import did_you_mean

FAILED, USAGE, SETUP, NOT_JUDGED = 1, 2, 3, 4

_COMMANDS = ("list", "check", "doctor", "reset", "solution", "test", "completion")


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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sockwork.__version__, prog_name="sockwork", message="%(prog)s %(version)s")
def cli() -> None:
    """Graded labs of socket programming, judged by kernel state and packets.

    Start with: ./sockwork list, then ./sockwork check 1
    """


def main() -> NoReturn:
    """Runs the command line and exits; whatever ends it is told in one line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        result: Any = cli.main(prog_name="sockwork", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except click.ClickException as error:
        _end(error.format_message(), error.exit_code)
    except SetupError as error:
        _end(str(error), SETUP)
    except _Stopped as stopped:
        _end("stopped", stopped.status)
    except click.Abort:  # the end of input instead of an answer
        _end("stopped", FAILED)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        sys.exit(128 + signal.SIGPIPE)


def _end(message: str, status: int) -> NoReturn:
    line = " ".join(message.split())
    print(f"sockwork: {line[:1].lower() + line[1:]}", file=sys.stderr)
    sys.exit(status)


class _Stopped(BaseException):
    """Unwinds everything, so that every `with` block cleans up."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped(128 + number)
