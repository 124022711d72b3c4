"""The commands of ``kvcli`` that read and write keys, and their help."""

from __future__ import annotations

import sys

import click

from kvtwist.cli.group import Session, bytes_argument, cli, json_too


@cli.command()
@bytes_argument("key")
@bytes_argument("value")
@json_too
@click.pass_obj
def put(session: Session, key: bytes, value: bytes) -> None:
    """Write VALUE under KEY, whatever was there.

    With - for VALUE it is read from standard input, as it is. Write -- before a KEY or VALUE that
    starts with a dash (a lone - always means standard input). Prints nothing when done.
    """
    from kvtwist.cli.data import put as work

    value = _value(value)
    session.run(lambda client, printer: work(client, printer, key, value))


@cli.command()
@bytes_argument("key")
@click.option("--raw", is_flag=True, help="Write the value as it is, with no line end added.")
@json_too
@click.pass_obj
def get(session: Session, key: bytes, raw: bool) -> None:
    """Print the value of KEY; exit with 1 if there is none.

    A value that is not UTF-8 text is shown with escapes, as in Python; --raw writes it as it is.
    """
    from kvtwist.cli.data import get as work

    session.run(lambda client, printer: work(client, printer, key, raw))


@cli.command()
@bytes_argument("key")
@click.option("--version", type=click.IntRange(min=1), help="Only if KEY is at this version.")
@json_too
@click.pass_obj
def delete(session: Session, key: bytes, version: int | None) -> None:
    """Remove KEY; exit with 1 if there is none, or if it is at another version."""
    from kvtwist.cli.data import delete as work

    session.run(lambda client, printer: work(client, printer, key, version))


@cli.command()
@bytes_argument("key")
@bytes_argument("value")
@click.argument("version", type=click.IntRange(min=0))
@json_too
@click.pass_obj
def cas(session: Session, key: bytes, value: bytes, version: int) -> None:
    """Write VALUE under KEY only if KEY is at VERSION (compare and set).

    VERSION 0 means: only if KEY does not exist. `kvcli get --json` shows versions. With - for VALUE
    it is read from standard input. Prints the new version; exits with 1, and says what is there, if
    KEY is at another one.
    """
    from kvtwist.cli.data import cas as work

    value = _value(value)
    session.run(lambda client, printer: work(client, printer, key, value, version))


@cli.command()
@bytes_argument("key")
@click.option(
    "--by",
    type=click.IntRange(-(1 << 63), (1 << 63) - 1),
    default=1,
    show_default=True,
    metavar="N",
    help="What to add; may be negative.",
)
@json_too
@click.pass_obj
def incr(session: Session, key: bytes, by: int) -> None:
    """Add to the number under KEY, and print what it is then.

    A KEY that does not exist counts as 0. The value is the number in decimal digits, from -2^63 to
    2^63 - 1; exits with 4, and changes nothing, if KEY holds something else, or if the sum would be
    beyond that.
    """
    from kvtwist.cli.data import incr as work

    session.run(lambda client, printer: work(client, printer, key, by))


def _value(given: bytes) -> bytes:
    return sys.stdin.buffer.read() if given == b"-" else given
