"""What an engine is: bytes under bytes, in order, changed by atomic batches.

Two engines keep this contract, and pass the same tests: `kvtwist.storage.memory` and
`kvtwist.storage.rocks`. All of their methods but `Engine.get_cached` may wait for a disk; they may
be called from any thread, `Engine.commit` from one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Final, Protocol


class Kind(Enum):
    """What an operation of a batch does."""

    PUT = 1
    DELETE = 2
    DELETE_RANGE = 3


class Batch:
    """Changes that happen together or not at all, in the order in which they were added.

    :ivar operations: each a kind, a key, and the value to put, or the end of the range.
    :ivar size_bytes: of all keys and values.
    """

    __slots__ = ("operations", "size_bytes")

    def __init__(self) -> None:
        self.operations: list[tuple[Kind, bytes, bytes]] = []
        self.size_bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Write *value* under *key*."""
        self.operations.append((Kind.PUT, key, value))
        self.size_bytes += len(key) + len(value)

    def delete(self, key: bytes) -> None:
        """Remove *key*, if it is there."""
        self.operations.append((Kind.DELETE, key, b""))
        self.size_bytes += len(key)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Remove all keys from *start* up to but not including *end*."""
        if start < end:
            self.operations.append((Kind.DELETE_RANGE, start, end))
            self.size_bytes += len(start) + len(end)

    def extend(self, other: Batch) -> None:
        """Add all that *other* does."""
        self.operations += other.operations
        self.size_bytes += other.size_bytes

    def __bool__(self) -> bool:
        return bool(self.operations)


class NotCached:
    """`Engine.get_cached` does not know."""


NOT_CACHED: Final = NotCached()


class View(Protocol):
    """The content as it was at one moment, whatever is committed meanwhile.

    It pins space, and has to be left soon (S5). A `get` or another `scan` ends a scan under way;
    `Engine.reopen` and `Engine.close` end the view, and it raises `StoreFailed` then.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*."""

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from *start* up to but not including *end*, in byte order, with their values."""


class Engine(View, Protocol):
    """An engine. Reading outside of a `View` shows what was committed last.

    Whatever goes wrong with the disk is raised as a `kvtwist.errors.StorageError`.
    """

    def get_cached(self, key: bytes) -> bytes | NotCached | None:
        """The value of *key*, if that can be told without waiting; never waits."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of *keys*, in their order."""

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """Do all that *batch* says. With *sync* it returns when all that was ever committed is on
        the disk.

        What it does may be read before that, and after a failure: what is read while others commit
        is not durable for that.

        :raises DiskFull: there was no room; whether it is done is unknown until `reopen`.
        :raises StoreFailed: anything else went wrong; this engine must not be used again (S1).
        """

    def view(self) -> AbstractContextManager[View]:
        """The content as it is now, for as long as the context lasts."""

    def reopen(self) -> None:
        """Begin anew from the disk, after a full one (S8). Nothing may be read meanwhile, but by
        `get_cached`.

        :raises DiskFull: when there is still no room; what is there can be read all the same.
        :raises StorageError: when it does not work at all.
        """

    def size_bytes(self) -> int:
        """About how much room all this takes where it is kept."""

    def compact(self, start: bytes, end: bytes) -> None:
        """Give back room that deleted keys in this range still take."""

    def close(self) -> None:
        """Let go of it. What was committed with a sync is there the next time."""
