"""``kvcli`` before its commands: the options that all have, and what they say."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kvtwist import software
from kvtwist.cli.show import Printer
from kvtwist.core.address import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kvtwist.client import Client

EXIT_CODES = """\b
Exit codes:
  0  done
  1  not found, or the comparison failed
  2  the command line makes no sense
  3  unavailable; definitely not done
  4  refused, as over a limit
  5  the outcome of a write is unknown
"""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def bytes_argument(name: str) -> Callable[[_Function], _Function]:
    """An argument as the bytes that the shell passed, whatever their encoding."""
    return click.argument(name, callback=lambda _, __, given: os.fsencode(given))


def finite(_: click.Context, __: click.Parameter, given: float | None) -> float | None:
    """Refuse what is no number, which no range excludes."""
    if given is not None and not math.isfinite(given):
        raise click.BadParameter(f"{given} is not a finite number.")
    return given


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.option(
    "--peers",
    envvar="KVTWIST_PEERS",
    default=f":{DEFAULT_PORT}",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT,...",
    help="Nodes to ask, any that the cluster has. One is enough; several survive its loss.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    callback=finite,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a request may take, retries included.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object.")
@click.version_option(software(), prog_name="kvcli")
@click.pass_context
def cli(context: click.Context, peers: str, timeout: float, as_json: bool) -> None:
    """Read and write a kvtwist cluster.

    \b
    kvcli --peers=:8001,:8002,:8003 put user:42 alice
    kvcli --peers=:8001 get user:42
    """
    context.obj = Session(peers, timeout, Printer(as_json))


class Session:
    """What the options before the command said."""

    def __init__(self, peers: str, timeout_seconds: float, printer: Printer) -> None:
        self.peers = peers
        self.timeout_seconds = timeout_seconds
        self.printer = printer

    def run(self, work: Callable[[Client, Printer], Coroutine[Any, Any, int]]) -> None:
        """Run *work* with a client; exit with the status that it returns."""
        from kvtwist.cli.run import run_with_client

        run_with_client(self.peers, self.timeout_seconds, self.printer, work)


def json_too(function: _Function) -> _Function:
    """Let ``--json`` stand behind the command as well."""

    def note(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.obj.printer = Printer(as_json=True)

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="Print JSON, one object."
    )(function)
