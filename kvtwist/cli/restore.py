"""``kvcli restore``: a founder's data directory out of a backup."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from kvtwist.cli.progress import Progress
from kvtwist.cli.run import EXIT_OK, EXIT_OUTPUT, EXIT_USAGE
from kvtwist.cli.show import Printer, counted
from kvtwist.errors import ConfigurationError, KvtwistError, StoreDamaged
from kvtwist.node.restoring import restore
from kvtwist.storage.rocks import RocksEngine

EXIT_DAMAGED = 1


def run_restore(file: Path, directory: Path, name: str, printer: Printer) -> int:
    """Make *directory* out of *file*, say what is to be done next, and return the exit code."""
    progress = Progress(sys.stderr)
    try:
        twice_bytes = 2 * file.stat().st_size

        def watch(done_bytes: int) -> None:
            doing = "verified" if 2 * done_bytes <= twice_bytes else "restored"
            progress.show_share(done_bytes, twice_bytes, doing)

        identity = secrets.token_hex(16)
        header, digest = restore(file, directory, name, identity, RocksEngine, watch)
    except (KvtwistError, OSError) as error:
        progress.clear()
        return _failed(file, directory, printer, error)
    progress.clear()
    if printer.as_json:
        printer.object(
            {
                "directory": str(directory),
                "id": name,
                "partitions": header.partitions,
                "backup_of": header.cluster_id,
                "created_ms": header.created_ms,
                "digest": digest,
            }
        )
    else:
        what = f"{counted(header.partitions, 'partition')} of cluster {header.cluster_id[:8]}"
        printer.line(f"{directory}: {what}, from backup {digest[:8]}")
        printer.line(
            "restore the same file for every other founder, then start them all with "
            f"--partitions={header.partitions}"
        )
    return EXIT_OK


def _failed(file: Path, directory: Path, printer: Printer, error: KvtwistError | OSError) -> int:
    if isinstance(error, OSError):
        is_the_file = error.filename is not None and Path(error.filename) == file
        where, status = (file, EXIT_USAGE) if is_the_file else (directory, EXIT_OUTPUT)
        said = f"{where}: {error.strerror}"
    elif isinstance(error, StoreDamaged):
        said, status = f"{file}: {error}: nothing was restored", EXIT_DAMAGED
    elif isinstance(error, ConfigurationError):
        said, status = str(error), EXIT_USAGE
    else:
        said, status = str(error), EXIT_OUTPUT
    if printer.as_json:
        printer.object({"error": type(error).__name__, "message": said})
    printer.error(said)
    return status
