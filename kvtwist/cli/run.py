"""Runs one command: a reactor, a client, an exit code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from kvtwist.cli.show import Printer
from kvtwist.client import Client
from kvtwist.errors import (
    ConfigurationError,
    KvtwistError,
    NotDone,
    OutcomeUnknown,
    Refused,
    VersionMismatch,
)
from kvtwist.wire.clock import make_monotonic

EXIT_OK = 0
EXIT_NOT_FOUND = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_REFUSED = 4
EXIT_UNKNOWN = 5

_EXIT_CODES: tuple[tuple[type[KvtwistError], int], ...] = (
    (ConfigurationError, EXIT_USAGE),
    (VersionMismatch, EXIT_NOT_FOUND),
    (Refused, EXIT_REFUSED),
    (NotDone, EXIT_UNAVAILABLE),
    (OutcomeUnknown, EXIT_UNKNOWN),
)

Work = Callable[[Client, Printer], Coroutine[Any, Any, int]]


def exit_code_of(error: KvtwistError) -> int:
    """The exit code that tells a script what became of the request."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_UNAVAILABLE)


def run_with_client(peers: str, timeout_seconds: float, printer: Printer, work: Work) -> None:
    """Run *work*, print its error if it has one, and exit."""
    task.react(
        lambda reactor: Deferred.fromCoroutine(_run(reactor, peers, timeout_seconds, printer, work))
    )


async def _run(
    reactor: Any, peers: str, timeout_seconds: float, printer: Printer, work: Work
) -> None:
    make_monotonic(reactor)
    try:
        client = Client(reactor, peers, timeout_seconds=timeout_seconds)
        status = await work(client, printer)
    except KvtwistError as error:
        printer.error(str(error))
        status = exit_code_of(error)
    raise SystemExit(status)
