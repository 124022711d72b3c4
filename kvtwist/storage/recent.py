"""The records of a partition that were looked at or changed last: so many bytes of them, in memory.

What an engine has in memory it still has to find, to copy, and to be checked and taken apart; and a
put needs the record that was there before. Here a record is as it was left, for one look-up.

**Law:** what is said of a key is what the engine has, or nothing at all. It is for the owner to see
to it (`kvtwist.storage.records`): nobody else changes these records; what it has changed itself it
puts here when the engine has it, and till then it looks at its own copy first.

**Order.** There are two halves, and a new record goes into the newer one. When that is full it
becomes the older one, and what was older goes. So what nobody asks for goes, and no row of all
records has to be kept in the order of their use.
"""

from __future__ import annotations

from typing import Final

from kvtwist.core.state.records import Stored
from kvtwist.storage.engine import NOT_CACHED, NotCached

NODE_BYTES_MAX = 64 << 20
"""For all groups of a node: as much as its engine has for blocks of records (`storage.rocks`)."""

GROUP_BYTES_MAX = 4 << 20
"""However few groups a node has: half of it is let go of at once, which is to take 1 ms or so."""

RECORD_BYTES_MAX: Final = 4096
"""A larger record is not kept: what is saved is the same for each, and it would take the place of
ten others."""

OVERHEAD_BYTES: Final = 320
"""What a record takes besides its key and value: the objects that it is made of, and its place in a
dictionary."""


def bytes_of_group(groups: int) -> int:
    """What each of so many groups of a node may have."""
    return min(GROUP_BYTES_MAX, NODE_BYTES_MAX // max(groups, 1))


class Recent:
    """Of one partition.

    :param bytes_max: at most so much is kept; 0: nothing.

    :ivar bytes_max: likewise.

    **Invariant:** no key is in both halves.
    """

    __slots__ = ("_newer", "_newer_bytes", "_older", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._newer: dict[bytes, Stored | None] = {}
        self._newer_bytes = 0
        self._older: dict[bytes, Stored | None] = {}

    def find(self, key: bytes) -> Stored | NotCached | None:
        """What is under *key* (``None``: nothing is), or that this is not known here."""
        found = self._newer.get(key, NOT_CACHED)
        if isinstance(found, NotCached) and key in self._older:
            found = self._older[key]
            self.put(key, found)
        return found

    def put(self, key: bytes, stored: Stored | None) -> None:
        """This is under *key* now; ``None``: nothing is."""
        self._drop(key)
        size_bytes = _size_bytes(key, stored)
        if size_bytes > RECORD_BYTES_MAX or 2 * size_bytes > self.bytes_max:
            return
        if 2 * (self._newer_bytes + size_bytes) > self.bytes_max:
            self._older, self._newer, self._newer_bytes = self._newer, {}, 0
        self._newer[key] = stored
        self._newer_bytes += size_bytes

    def _drop(self, key: bytes) -> None:
        before = self._newer.get(key, NOT_CACHED)
        if not isinstance(before, NotCached):
            del self._newer[key]
            self._newer_bytes -= _size_bytes(key, before)
        elif key in self._older:
            del self._older[key]


def _size_bytes(key: bytes, stored: Stored | None) -> int:
    return OVERHEAD_BYTES + len(key) + (0 if stored is None else len(stored[0]))
