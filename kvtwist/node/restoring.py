"""Makes a founder's data directory out of a backup.

All partitions are put into it, since nobody knows yet who will own which; the others' are removed
when the cluster is founded (`kvtwist.node.durable`). The directory has a new identity and belongs
to no cluster. Its name appears when all is in it and on the disk, so that nothing can be founded
with a part of it (S4, S6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO, TypeAlias

from kvtwist.core.groups import FIRST_GENERATION, group_of
from kvtwist.core.raft import Configuration, HardState, Ready, Snapshot
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.topology import check_name
from kvtwist.errors import ConfigurationError, StoreDamaged
from kvtwist.storage import logs
from kvtwist.storage.backup import BackupHeader, BackupReader, Readable, sync_directory, verify
from kvtwist.storage.directory import DataDirectory, RestoredFrom
from kvtwist.storage.engine import Batch, Engine
from kvtwist.storage.snapshots import Incoming

TERM = 1
_NOBODY = Configuration()
"""Who has the replicas is known when the cluster is founded."""
"""Of the last entry before the log of a restored group."""

Watch: TypeAlias = Callable[[int], None]
"""Is told how many bytes have been read; the file is read twice."""


def restore(
    file: Path,
    directory: Path,
    name: str,
    identity: str,
    make_engine: Callable[[Path], Engine],
    watch: Watch = lambda _: None,
) -> tuple[BackupHeader, str]:
    """Make *directory* out of *file*, for the node *name*. The backup's header and digest.

    :param identity: a new one.
    :raises ConfigurationError: when there is something in the directory, or the file is no backup
        that this release can read.
    :raises StoreDamaged: when the file is not what was written. Nothing is made then.
    :raises OSError, StorageError: when one cannot be read, or the other be written.
    """
    check_name(name)
    _check_place(directory)
    with file.open("rb") as stream:
        header, digest = verify(_Watched(stream, watch, 0))
        size_bytes = stream.tell()
        stream.seek(0)
        directory = directory.resolve()
        part = directory.with_name(f"{directory.name}.part")
        _make(part)
        try:
            made = DataDirectory(part, make_engine, name, identity)
            try:
                fill(made, _Watched(stream, watch, size_bytes), digest)
            finally:
                made.close()
            sync_directory(part)
            part.replace(directory)
        except BaseException:
            rmtree(part, ignore_errors=True)
            raise
    sync_directory(directory.parent)
    return header, digest


def fill(directory: DataDirectory, stream: Readable, digest: str) -> None:
    """Put all of a backup into an empty directory; then, durably, that it is there.

    :param digest: the backup's, which was verified.
    :raises StoreDamaged: when the backup is not that one. The directory then must not be used.
    """
    engine, reader = directory.engine, BackupReader(stream)
    for number, applied_index, chunks in reader.partitions():
        try:
            for batch in _batches(group_of(number), applied_index, chunks):
                engine.commit(batch, sync=False)
        except (MalformedBytes, UnknownKind) as error:
            raise StoreDamaged(f"partition {number} of the backup: {error}") from error
    if reader.digest != digest:
        raise StoreDamaged("the backup has changed while it was read")
    directory.have_restored(RestoredFrom(digest, reader.header.partitions))


def _batches(group: int, applied_index: int, chunks: Iterator[bytes]) -> Iterator[Batch]:
    """What makes a group out of its stream: its state, without sessions, which were between the old
    cluster and its clients; and a log that goes on after it."""
    incoming = Incoming(group, 0, applied_index)
    for chunk in chunks:
        yield from incoming.feed(chunk)
    yield from incoming.finish(with_sessions=False)
    batch = Batch()
    incoming.begin(batch, FIRST_GENERATION)
    logs.save_base(batch, group, Snapshot(applied_index, TERM, _NOBODY))
    logs.save(batch, group, Ready(1, HardState(TERM, 0, applied_index)), applied_index)
    yield batch


def _check_place(directory: Path) -> None:
    if directory.is_dir():
        if any(directory.iterdir()):
            raise ConfigurationError(
                f"{directory} is not empty: name a new --data-dir; nothing is restored over data"
            )
    elif directory.exists():
        raise ConfigurationError(f"{directory} is no directory: name a new --data-dir")


def _make(part: Path) -> None:
    try:
        part.mkdir(mode=0o700)
    except FileExistsError:
        raise ConfigurationError(
            f"{part} is there: another restore is at work, or was broken off; then remove it"
        ) from None


class _Watched:
    """A file, and somebody who is told how much of it has been read."""

    def __init__(self, stream: BinaryIO, watch: Watch, before_bytes: int) -> None:
        self._stream = stream
        self._watch = watch
        self._before_bytes = before_bytes

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._watch(self._before_bytes + self._stream.tell())
        return data
