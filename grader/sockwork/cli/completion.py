"""`sockwork completion`: the script that lets a shell complete our words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    For bash: eval "$(./sockwork completion bash)"
    """
    made = get_completion_class(shell)
    assert made is not None  # one of the three above
    click.echo(made(context.find_root().command, {}, "sockwork", "_SOCKWORK_COMPLETE").source())
