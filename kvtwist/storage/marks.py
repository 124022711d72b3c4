"""How far a node has been, kept apart from its store: a store that has gone back is noticed.

A disk that is rolled back, cloned, or quietly recovered to an earlier state makes a replica forget
votes and entries that others count on. So a small file beside the store says for each Raft group
the term, the vote and how far the log was committed and durable at some time; and how often the
node was started. A store that is behind it must not be used (S7).

The file is a row of records, each with a checksum: it is appended to and synced, and written anew
at each start. A record that is cut off at the end is what a crash leaves; anything else is damage.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from kvtwist.errors import DiskFull, StoreDamaged, StoreFailed

_RECORD = struct.Struct(">QQQQ")
_CHECKSUM = struct.Struct(">I")
_RECORD_BYTES = _RECORD.size + _CHECKSUM.size
_MAGIC = b"kvtwist marks 1\n"


class Mark(NamedTuple):
    """How far a group's replica has been.

    :ivar committed: up to here the log was committed, and durable here. What comes after may be cut
        off by a later leader, so that a shorter log need not be one that has forgotten something.
    """

    term: int = 0
    vote: int = 0
    committed: int = 0


class Marks:
    """The file.

    :param path: made if it is not there.
    :raises StoreDamaged: when it cannot be read as what it was.
    :raises StoreFailed: when it cannot be opened or written.

    :ivar known: the latest mark of each group.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.known: dict[int, Mark] = read_marks(path) if path.exists() else {}
            self._file = self._written_anew()
        except OSError as error:
            raise StoreFailed(f"{path}: {error.strerror}") from error

    def raise_to(self, marks: Mapping[int, Mark]) -> None:
        """Note *marks*, durably; may wait for the disk.

        :raises DiskFull: when there is no room.
        :raises StoreFailed: when that did not work; then nothing may be sent that rests on it.
        """
        try:
            self._file.write(b"".join(_record(*each) for each in marks.items()))
            self._file.flush()
            os.fdatasync(self._file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"the disk is full: {self._path}") from error
            raise StoreFailed(f"{self._path}: {error.strerror}") from error
        self.known.update(marks)

    def reopen(self) -> None:
        """Begin anew after a full disk: what is in the file, and what half of it is not, may be
        anything.

        :raises StorageError: when that does not work.
        """
        self._file.close()
        try:
            self._file = self._written_anew()
        except OSError as error:
            raise StoreFailed(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _written_anew(self) -> BufferedWriter:
        """With one record a group; the directory is synced, or the new name might be lost (S4)."""
        fresh = self._path.with_suffix(".new")
        with open(os.open(fresh, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            file.write(_MAGIC + b"".join(_record(*each) for each in self.known.items()))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return self._path.open("ab")


def behind(known: Mapping[int, Mark], stored: Mapping[int, Mark]) -> list[int]:
    """The groups whose store has forgotten something.

    :param stored: what the store has; as ``committed``, its last entry.
    """
    return [group for group, mark in known.items() if _is_behind(stored.get(group, Mark()), mark)]


def _is_behind(stored: Mark, mark: Mark) -> bool:
    if stored.term == mark.term and mark.vote not in (0, stored.vote):
        return True
    return stored.term < mark.term or stored.committed < mark.committed


def _record(group: int, mark: Mark) -> bytes:
    packed = _RECORD.pack(group, *mark)
    return packed + _CHECKSUM.pack(crc32(packed))


def read_marks(path: Path) -> dict[int, Mark]:
    """The latest mark of each group in the file.

    :raises StoreDamaged: when it cannot be read as what it was.
    :raises OSError: when it cannot be read at all.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise StoreDamaged(f"{path} is not a file of marks, or of a later release")
    known: dict[int, Mark] = {}
    for at in range(len(_MAGIC), len(data) - _RECORD_BYTES + 1, _RECORD_BYTES):
        packed = data[at : at + _RECORD.size]
        (checksum,) = _CHECKSUM.unpack_from(data, at + _RECORD.size)
        if checksum != crc32(packed):
            if at + _RECORD_BYTES == len(data):
                break
            raise StoreDamaged(f"{path} is damaged at byte {at}")
        group, *mark = _RECORD.unpack(packed)
        known[group] = Mark(*mark)
    return known
