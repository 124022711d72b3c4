"""An engine that keeps nothing: for clusters in memory, and for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from kvtwist.core.state.ordered import Frozen, Ordered
from kvtwist.storage.engine import Batch, Kind, View


class MemoryView:
    """What an engine held at one moment."""

    def __init__(self, content: Frozen[bytes]) -> None:
        self._content = content

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*."""
        return next((value for _, value in self.scan(key, key + b"\0")), None)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from *start* up to *end*."""
        return self._content.items(start, end)


class MemoryEngine:
    """`kvtwist.storage.engine.Engine` in a dictionary that keeps its order."""

    def __init__(self) -> None:
        self._content: Ordered[bytes] = Ordered()

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*."""
        return self._content.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of *keys*."""
        return [self.get(key) for key in keys]

    def get_cached(self, key: bytes) -> bytes | None:
        """The value of *key*."""
        return self._content.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from *start* up to *end*."""
        return self._content.freeze().items(start, end)

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """Do all that *batch* says."""
        content = self._content
        for kind, key, value in batch.operations:
            if kind is Kind.PUT:
                content.put(key, value)
            elif kind is Kind.DELETE:
                if content.get(key) is not None:
                    content.remove(key)
            else:
                for each in [each for each, _ in content.items(key, value)]:
                    content.remove(each)

    def view(self) -> AbstractContextManager[View]:
        """A frozen one."""
        return nullcontext(MemoryView(self._content.freeze()))

    def reopen(self) -> None:
        """Nothing to do."""

    def size_bytes(self) -> int:
        """Keys and values."""
        return sum(len(key) + len(value) for key, value in self._content.items())

    def compact(self, start: bytes, end: bytes) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
