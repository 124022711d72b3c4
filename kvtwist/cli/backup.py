"""``kvcli backup``: all data of a running cluster in one file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred

from kvtwist import __version__
from kvtwist.cli.progress import Progress
from kvtwist.cli.run import EXIT_OK, EXIT_OUTPUT, EXIT_UNAVAILABLE, exit_code_of
from kvtwist.cli.show import Printer, counted
from kvtwist.client import Client
from kvtwist.client.table import Table
from kvtwist.core.topology import Member
from kvtwist.errors import KvtwistError, StorageError, Unavailable
from kvtwist.storage.backup import BackupHeader, BackupWriter, new_file
from kvtwist.wire import commands
from kvtwist.wire.clock import make_monotonic
from kvtwist.wire.codec import Values

EXIT_INTERRUPTED = 130


async def backup(
    client: Client,
    printer: Printer,
    file: Path,
    overwrite: bool,
    created_ms: int,
    progress: Progress,
) -> int:
    """Write *file*, say what is in it, and return the exit code."""
    table = await client.topology()
    settings = table.settings
    header = BackupHeader(
        table.cluster_id,
        settings.partitions,
        settings.replicas,
        settings.tokens_per_member,
        created_ms,
        __version__,
    )
    try:
        with new_file(file, overwrite=overwrite) as stream:
            writer = BackupWriter(stream, header)
            copy = _Copy(client, table, writer, progress)
            for number in range(settings.partitions):
                await copy.partition(number)
            digest = writer.finish()
            file_bytes = stream.tell()
    finally:
        progress.clear()
    if printer.as_json:
        printer.object(
            {
                "file": str(file),
                "bytes": file_bytes,
                "keys": copy.keys,
                "partitions": settings.partitions,
                "cluster_id": table.cluster_id,
                "digest": digest,
            }
        )
    else:
        what = f"{counted(copy.keys, 'key')} of {counted(settings.partitions, 'partition')}"
        printer.line(f"{file}: {what}, {counted(file_bytes, 'byte')}, digest {digest[:8]}")
    return EXIT_OK


class _Copy:
    """Copies partitions from their leaders into a file.

    :ivar keys: how many there were.
    """

    def __init__(
        self, client: Client, table: Table, writer: BackupWriter, progress: Progress
    ) -> None:
        self.keys = 0
        self._client = client
        self._table = table
        self._writer = writer
        self._progress = progress

    async def partition(self, number: int) -> None:
        """Copy one."""
        wanted = {"partition": number}
        reader, begun = await self._client.ask_leader(number, commands.OpenBackup, wanted)
        try:
            await self._partition(number, reader, begun)
        except Unavailable as error:
            raise Unavailable(
                f"partition {number} cannot be read from {reader.name} at {reader.address}: "
                f"{error}",
                waiting_for=[reader.name],
            ) from error

    async def _partition(self, number: int, reader: Member, begun: Values) -> None:
        self._writer.begin(number, begun["applied_index"])
        written, pieces, last = 0, 0, False
        while not last:
            self._show(number, written, begun["data_bytes"])
            wanted = {"backup": begun["backup"], "number": pieces}
            answer = await self._client.ask(reader.address, commands.ReadBackup, wanted)
            self._writer.add(answer["piece"])
            written, pieces, last = written + len(answer["piece"]), pieces + 1, answer["last"]
        self._writer.end()
        self.keys += begun["key_count"]
        self._show(number + 1, 0, 0)

    def _show(self, number: int, written: int, expected: int) -> None:
        """Partitions count alike: how large those to come are, nobody has said."""
        part = min(999, 1000 * written // expected) if expected else 0
        total = self._table.settings.partitions
        done_bytes = counted(self._writer.stream_bytes + written, "byte")
        shown = f"{number} of {counted(total, 'partition')}, {done_bytes}"
        self._progress.show_share(1000 * number + part, 1000 * total, shown)


def run_backup(
    peers: str, timeout_seconds: float, printer: Printer, file: Path, overwrite: bool
) -> None:
    """Make a backup, and exit. Ctrl-C leaves nothing behind."""
    task.react(
        lambda reactor: Deferred.fromCoroutine(
            _run(reactor, peers, timeout_seconds, printer, file, overwrite)
        )
    )


async def _run(
    reactor: Any, peers: str, timeout_seconds: float, printer: Printer, file: Path, overwrite: bool
) -> None:
    make_monotonic(reactor)
    progress = Progress(sys.stderr)
    try:
        client = Client(reactor, peers, timeout_seconds=timeout_seconds)
        created_ms = int(time.time() * 1000)
        work = Deferred.fromCoroutine(
            backup(client, printer, file, overwrite, created_ms, progress)
        )
        reactor.addSystemEventTrigger("before", "shutdown", work.cancel)
        status = await work
    except CancelledError:
        status = EXIT_INTERRUPTED
    except (KvtwistError, OSError) as error:
        status = failed(printer, error)
    raise SystemExit(status)


def failed(printer: Printer, error: KvtwistError | OSError) -> int:
    """Say why there is no file; the exit code."""
    if isinstance(error, OSError):
        said, status = f"cannot write {error.filename or 'the file'}: {error.strerror}", EXIT_OUTPUT
    elif isinstance(error, StorageError):
        said, status = str(error), EXIT_UNAVAILABLE
    else:
        said, status = str(error), exit_code_of(error)
    if printer.as_json:
        printer.object({"error": type(error).__name__, "message": said})
    printer.error(said)
    return status
