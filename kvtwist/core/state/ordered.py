"""A map whose keys are bytes in byte order, and which can be frozen at once. No value is ``None``.

Two levels: leaves of at most `LEAF_KEYS_MAX` keys each, which are plain dictionaries, and the first
key of each leaf's range in a sorted list. To find a key is a bisection and a look-up, in C. A leaf
is sorted when it is walked through, or has to be split; a map that is only written never pays for
its order.

**Freezing** copies the list of leaves, not the leaves: one pointer for every few hundred keys. A
leaf that is older than the last freeze belongs to the frozen view too, so it is copied before its
next change (copy-on-write): at most one copy of one leaf for each freeze.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

LEAF_KEYS_MAX = 512
LEAF_KEYS_MIN = 64

V = TypeVar("V")


class Frozen(Generic[V]):
    """What a map held when it was frozen. Iterates over (key, value) in the order of keys."""

    __slots__ = ("_count", "_firsts", "_leaves")

    def __init__(self, firsts: list[bytes], leaves: list[dict[bytes, V]], count: int) -> None:
        self._firsts = firsts
        self._leaves = leaves
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[bytes, V]]:
        return _walk(self._firsts, self._leaves, b"", None)

    def items(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, V]]:
        """(key, value) from *start* on, before *end*."""
        return _walk(self._firsts, self._leaves, start, end)


class Ordered(Generic[V]):
    """A map from bytes, in byte order.

    **Invariant:** the keys of leaf n are at or after ``_firsts[n]`` and before ``_firsts[n + 1]``;
    ``_firsts[0]`` is empty; no leaf has more than `LEAF_KEYS_MAX` keys.

    **Invariant:** a leaf whose ``_made`` is not ``_epoch`` is never changed: a frozen view has it.
    """

    __slots__ = ("_count", "_epoch", "_firsts", "_leaves", "_made")

    def __init__(self) -> None:
        self._firsts = [b""]
        self._leaves: list[dict[bytes, V]] = [{}]
        self._made = [0]
        self._epoch = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> V | None:
        """What is under *key*, or ``None``."""
        return self._leaves[bisect_right(self._firsts, key) - 1].get(key)

    def put(self, key: bytes, value: V) -> V | None:
        """Put *value* under *key*; what was there before, or ``None``."""
        place = bisect_right(self._firsts, key) - 1
        leaf = self._leaves[place] if self._made[place] == self._epoch else self._thaw(place)
        before = leaf.get(key)
        leaf[key] = value
        if before is None:
            self._count += 1
            if len(leaf) > LEAF_KEYS_MAX:
                self._split(place, key)
        return before

    def remove(self, key: bytes) -> V:
        """Remove *key*; what was there.

        :raises KeyError: when there was nothing.
        """
        place = bisect_right(self._firsts, key) - 1
        leaf = self._leaves[place] if self._made[place] == self._epoch else self._thaw(place)
        value = leaf.pop(key)
        self._count -= 1
        if len(leaf) < LEAF_KEYS_MIN:
            self._merge(place)
        return value

    def items(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, V]]:
        """(key, value) from *start* on, before *end*. The map must not change meanwhile."""
        return _walk(self._firsts, self._leaves, start, end)

    def freeze(self) -> Frozen[V]:
        """A view of what is here now, which no later change shows in."""
        self._epoch += 1
        return Frozen(self._firsts.copy(), self._leaves.copy(), self._count)

    def _thaw(self, place: int) -> dict[bytes, V]:
        """A leaf of our own in place of one that a frozen view has too."""
        leaf = self._leaves[place] = self._leaves[place].copy()
        self._made[place] = self._epoch
        return leaf

    def _split(self, place: int, newest: bytes) -> None:
        """Make two leaves of one that has become too large by the key *newest*."""
        leaf = self._leaves[place]
        keys = sorted(leaf)
        # Keys that come in order (a restore, a log) leave full leaves behind them, not half ones.
        is_append = place == len(self._leaves) - 1 and keys[-1] == newest
        cut = len(keys) - 1 if is_append else len(keys) // 2
        self._leaves[place : place + 1] = [
            {key: leaf[key] for key in keys[:cut]},
            {key: leaf[key] for key in keys[cut:]},
        ]
        self._firsts.insert(place + 1, keys[cut])
        self._made.insert(place + 1, self._epoch)

    def _merge(self, place: int) -> None:
        """Join a leaf that has become small to a neighbour that has room; drop it if it is empty.

        The joined leaf has room for more, so that it is not split by the next key.
        """
        if len(self._leaves) == 1:
            return
        left = min(place, len(self._leaves) - 2)
        ours, theirs = self._leaves[left], self._leaves[left + 1]
        together = len(ours) + len(theirs)
        if self._leaves[place] and together > 3 * LEAF_KEYS_MAX // 4:
            return
        if ours and theirs:
            self._leaves[left] = {**ours, **theirs}
            self._made[left] = self._epoch
        elif theirs:
            self._leaves[left] = theirs
            self._made[left] = self._made[left + 1]
        del self._leaves[left + 1], self._made[left + 1], self._firsts[left + 1]


def _walk(
    firsts: list[bytes], leaves: list[dict[bytes, V]], start: bytes, end: bytes | None
) -> Iterator[tuple[bytes, V]]:
    for place in range(bisect_right(firsts, start) - 1, len(leaves)):
        if end is not None and firsts[place] >= end:
            return
        leaf = leaves[place]
        keys = sorted(leaf)
        until = len(keys) if end is None else bisect_left(keys, end)
        for key in islice(keys, bisect_left(keys, start), until):
            yield key, leaf[key]
