"""Runs one command: a reactor, a client, an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from kvtwist.cli.show import Printer, json_of
from kvtwist.client import Client
from kvtwist.errors import (
    ConfigurationError,
    HelloRefused,
    KvtwistError,
    NotANumber,
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
EXIT_OUTPUT = 74
EXIT_BROKEN_PIPE = 141
"""The last two are the shell's own: EX_IOERR, and death by SIGPIPE."""

_EXIT_CODES: tuple[tuple[type[KvtwistError], int], ...] = (
    (ConfigurationError, EXIT_USAGE),
    (VersionMismatch, EXIT_NOT_FOUND),
    (Refused, EXIT_REFUSED),
    (NotANumber, EXIT_REFUSED),
    (NotDone, EXIT_UNAVAILABLE),
    (HelloRefused, EXIT_UNAVAILABLE),
    (OutcomeUnknown, EXIT_UNKNOWN),
)

Work = Callable[[Client, Printer], Coroutine[Any, Any, int]]


def exit_code_of(error: KvtwistError) -> int:
    """The exit code that tells a script what became of the request."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_UNKNOWN)


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
        if printer.as_json:
            printer.object(_as_object(error))
        printer.error(in_words(error))
        status = exit_code_of(error)
    except BrokenPipeError:
        status = EXIT_BROKEN_PIPE
    except OSError as error:
        printer.error(f"cannot write the output: {error.strerror}")
        status = EXIT_OUTPUT
    raise SystemExit(_flushed(status))


def in_words(error: KvtwistError) -> str:
    """The line for people: after an outcome that is unknown, what that means to them (C1)."""
    said = str(error)
    if isinstance(error, OutcomeUnknown) and "unknown" not in said:
        return f"{said}: it was sent, and its fate is unknown: read the key to see"
    return said


def _flushed(status: int) -> int:
    """Flush standard output here, where it can be said that it fails."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE if isinstance(error, BrokenPipeError) else EXIT_OUTPUT
    return status


def _as_object(error: KvtwistError) -> dict[str, Any]:
    """An error for scripts: its class, its text, what it knows."""
    said = {"error": type(error).__name__, "message": str(error), **error.details()}
    if isinstance(error, VersionMismatch):
        said["version"] = error.version
        said |= json_of("value", error.value) if error.value is not None else {"value": None}
    return said
