"""``kvcli``: the console script.

The commands stand, with their help, in the modules that are imported here for their sake; what a
command does is imported when it is called, so that ``kvcli --help`` is quick.
"""

from __future__ import annotations

import sys

import click

from kvtwist.cli import on_cluster, on_data, on_files, under_load
from kvtwist.cli.group import EXIT_CODES, Session, cli

__all__ = ["EXIT_CODES", "Session", "cli", "main"]

COMMANDS = (on_data, on_cluster, on_files, under_load)
"""They have added themselves to `cli`."""


def main() -> None:
    """The console script."""
    try:
        cli.main(prog_name="kvcli", standalone_mode=False)
    except click.UsageError as error:
        if len(sys.argv) == 1 and error.ctx is not None:
            click.echo(error.ctx.get_help(), err=True)
            sys.exit(2)
        where = error.ctx.command_path if error.ctx else "kvcli"
        click.echo(f"kvcli: {error.format_message()} (see {where} --help)", err=True)
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"kvcli: {error.format_message()}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
