"""The ring: which member comes next, clockwise, from any point of the Murmur3 circle.

In: the members' names, and how many tokens each has. Out: for a position, or for a key, the member
that follows it (`Ring.successor`, `Ring.member_of`), and the members in the order in which they are
met (`Ring.preference_list`). A ring is a value: it never changes, and the same names give the same
ring on every node, in whatever order they are given.

The circle has 2^32 positions. A member stands on it at its *tokens*, the hashes of labels made from
its name, and covers the positions that lie between the token before each of its own and that token.
So a member that joins takes positions from others and gives them none, and one that leaves hands on
only its own. The more tokens, the more even the shares.

Keys go to *partitions* first: Q equal arcs of the circle, numbered clockwise from position 0. Whom
a partition is placed on is the business of `kvtwist.core.placement`.

What the caller owes: names that differ, at least one of them; positions from 0 to 2^32 - 1; a
number of partitions that is a power of two and the same for the life of the cluster.

Sources: Karger et al., "Consistent hashing and random trees", STOC 1997; DeCandia et al., "Dynamo:
Amazon's highly available key-value store", SOSP 2007, section 4.2 (virtual nodes) and 4.3 (the
preference list). The hash is Appleby's MurmurHash3, the 32-bit variant for x86, with seed 0.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

import mmh3

RING_SIZE: Final = 1 << 32
"""How many positions the circle has."""

TOKENS_PER_MEMBER_DEFAULT: Final = 128

_BRACE: Final = ord("{")
"""A number is looked for in bytes in a tenth of the time that it takes to look for bytes."""

_hash: Final = mmh3.hash
"""Of bytes, with a seed; ``False``: unsigned."""


def hash_bytes(data: bytes) -> int:
    """The position of *data* on the circle: 0 to 2^32 - 1."""
    position: int = _hash(data, 0, False)
    return position


def tag(key: bytes) -> bytes:
    """The part of *key* that is hashed; keys with the same tag share a partition.

    It is what stands between the first ``{`` and the next ``}``. A key without such a pair, or with
    nothing inside it, is its own tag.
    """
    if _BRACE not in key:
        return key
    _, _, rest = key.partition(b"{")
    inside, closed, _ = rest.partition(b"}")
    return inside if inside and closed else key


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of *key*, out of *partitions* (Q): 0 to Q - 1."""
    # Each request comes by here: no calls but for the hash, where there is no tag.
    position: int = _hash(tag(key) if _BRACE in key else key, 0, False)
    return position * partitions >> 32


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partition of each of *keys*, as `partition_of` says: many at once cost less."""
    tags = map(tag, keys) if b"{" in b"".join(keys) else keys
    digest = mmh3.hash
    return [digest(each, 0, False) * partitions >> 32 for each in tags]


def token_labels(name: str, tokens: int) -> list[str]:
    """What is hashed for the tokens of the member called *name*.

    The name itself for one token; else ``name#0``, ``name#1`` and so on. Every node must find the
    same tokens, in every release: this never changes.
    """
    return [name] if tokens == 1 else [f"{name}#{number}" for number in range(tokens)]


class Ring:
    """The members' tokens on the circle.

    :param names: of the members, in any order.
    :param tokens_per_member: tokens, or virtual nodes, of each.
    :raises ValueError: when there is no name, one stands twice, or there are no tokens.
    :ivar members: the names, sorted.

    **Invariant:** the tokens are sorted by position, those at the same position by name.
    """

    __slots__ = ("_names", "_positions", "members")

    def __init__(
        self, names: Iterable[str], tokens_per_member: int = TOKENS_PER_MEMBER_DEFAULT
    ) -> None:
        self.members = _distinct(names)
        if tokens_per_member < 1:
            raise ValueError(f"a member has at least one token, not {tokens_per_member}")
        tokens = sorted(
            (hash_bytes(label.encode()), name)
            for name in self.members
            for label in token_labels(name, tokens_per_member)
        )
        self._positions = tuple(position for position, _ in tokens)
        self._names = tuple(name for _, name in tokens)

    @property
    def tokens(self) -> tuple[tuple[int, str], ...]:
        """Every token as (position, name of its member), clockwise from position 0."""
        return tuple(zip(self._positions, self._names, strict=True))

    def successor(self, position: int) -> str:
        """The member of the first token *after* the position, going round at the end."""
        return self._names[self._index_after(position) % len(self._names)]

    def member_of(self, key: bytes) -> str:
        """The member that *key* falls to when there are no partitions: its tag's successor."""
        return self.successor(hash_bytes(tag(key)))

    def preference_list(self, position: int, length: int | None = None) -> tuple[str, ...]:
        """The members met clockwise after the position, each once, its successor first.

        At most *length* of them; all of them when it is ``None``.
        """
        wanted = len(self.members) if length is None else min(length, len(self.members))
        start = self._index_after(position)
        met: dict[str, None] = {}
        for index in range(start, start + len(self._names)):
            if len(met) >= wanted:
                break
            met[self._names[index % len(self._names)]] = None
        return tuple(met)

    def share(self, name: str) -> float:
        """How much of the circle the member called *name* is the successor of: 0.0 to 1.0.

        :raises KeyError: when there is no such member.
        """
        if name not in self.members:
            raise KeyError(name)
        covered = 0
        previous = self._positions[-1] - RING_SIZE
        for position, member in self.tokens:
            if member == name:
                covered += position - previous
            previous = position
        return covered / RING_SIZE

    def _index_after(self, position: int) -> int:
        """Index of the first token after the position; the number of tokens if it is the end."""
        return bisect_right(self._positions, position)


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names, sorted."""
    ordered = sorted(names)
    if not ordered:
        raise ValueError("a ring needs at least one member")
    for name, following in pairwise(ordered):
        if name == following:
            raise ValueError(f"{name!r} stands twice among the ring's members")
    return tuple(ordered)
