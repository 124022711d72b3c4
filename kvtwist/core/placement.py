"""Placement: which members hold which partition, and who owns it.

In: a ring, the number of partitions Q, the replicas wanted R. Out: a `Placement`, one row of
members per partition, the owner first. It is a function of these arguments and of nothing else, so
nodes that know the same members agree on it without a word. `moves` compares two placements.

A partition goes to the first members of the preference list that starts where its arc starts. Taken
alone, that loads some of a dozen members with twice the mean. So loads are bounded: no member owns
more than `load_cap` of Q partitions, and none holds more than `load_cap` of Q x R replicas, those
that it owns included. Who has reached the bound is passed over. R here is the number of members if
that is smaller.

Partitions choose in the order of their numbers; first all owners, then all followers. With five
partitions or more to a member, other orders (nearest token first, all first choices before any
second) change what moves at a join or a leave by less than a tenth, to either side; so the plainest
stands. `benchmarks/ring.py` measures it: hardly more data moves than must.

Followers, unlike owners, can run out of choice: whoever has room left may be on the row already.
Then another partition hands one over and takes the member with room instead. That is always
possible (`_exchange` has the proof), so both bounds hold in every placement.

What the caller owes: a power of two for Q, at least one replica.

Sources: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", 2016 (SODA 2018);
DeCandia et al., "Dynamo", SOSP 2007, section 4.3 (replicas) and 6.2 (equal partitions).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeAlias

from kvtwist.core.ring import RING_SIZE, Ring

PreferenceLists: TypeAlias = Sequence[tuple[str, ...]]
"""For each partition all members, in the order in which they are met from the start of its arc."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Who holds each partition.

    :ivar replicas: a row for each partition: its owner, then its followers in clockwise order.
    """

    replicas: tuple[tuple[str, ...], ...]

    def owner(self, partition: int) -> str:
        """The member that owns *partition*."""
        return self.replicas[partition][0]

    def owned(self, name: str) -> int:
        """How many partitions the member called *name* owns."""
        return sum(row[0] == name for row in self.replicas)

    def held(self, name: str) -> int:
        """How many replicas the member called *name* holds, of those that it owns too."""
        return sum(name in row for row in self.replicas)


class OwnerMove(NamedTuple):
    """A partition that another member owns now."""

    partition: int
    before: str
    after: str


class ReplicaGain(NamedTuple):
    """A member that holds a partition now and did not before: its data must be sent there."""

    partition: int
    member: str


@dataclass(frozen=True, slots=True)
class Moves:
    """What is different between two placements, in the order of the partitions.

    :ivar owners: partitions with another owner. If that one held a replica, no data moves.
    :ivar gains: replicas that must be filled.
    """

    owners: tuple[OwnerMove, ...]
    gains: tuple[ReplicaGain, ...]


def load_cap(total: int, members: int) -> int:
    """The most of *total* things that one of *members* may have: a quarter above the mean.

    max(ceil(mean), floor(1.25 mean)): rounding never makes it too small for all things to fit.
    """
    ceil_of_mean = -(-total // members)
    return max(ceil_of_mean, 5 * total // (4 * members))


def arc_start(partition: int, partitions: int) -> int:
    """The first position of a partition's arc."""
    return partition * RING_SIZE // partitions


def place(ring: Ring, partitions: int, replicas: int) -> Placement:
    """Place *partitions* (Q) on the ring's members, with *replicas* (R) of each.

    Every row has R members, or all members if they are fewer.

    :raises ValueError: when Q is not a power of two, or R is less than 1.
    """
    if partitions < 1 or partitions & (partitions - 1):
        raise ValueError(f"the number of partitions is a power of two, not {partitions}")
    if replicas < 1:
        raise ValueError(f"a partition has at least one replica, not {replicas}")
    members = len(ring.members)
    length = min(replicas, members)
    starts = [arc_start(partition, partitions) for partition in range(partitions)]
    preferences = [ring.preference_list(start) for start in starts]
    owners = _owners(preferences, load_cap(partitions, members))
    rows = _rows(owners, preferences, length, load_cap(partitions * length, members))
    return Placement(tuple(_clockwise(*both) for both in zip(rows, preferences, strict=True)))


def moves(before: Placement, after: Placement) -> Moves:
    """What must happen for *after* to take the place of *before*.

    :raises ValueError: when they have different numbers of partitions.
    """
    if len(before.replicas) != len(after.replicas):
        raise ValueError(
            f"cannot compare {len(before.replicas)} partitions with {len(after.replicas)}"
        )
    rows = list(enumerate(zip(before.replicas, after.replicas, strict=True)))
    return Moves(
        owners=tuple(OwnerMove(p, old[0], new[0]) for p, (old, new) in rows if old[0] != new[0]),
        gains=tuple(ReplicaGain(p, m) for p, (old, new) in rows for m in new if m not in old),
    )


def _owners(preferences: PreferenceLists, cap: int) -> list[str]:
    """For each partition the first member that owns fewer than *cap* so far."""
    owned: Counter[str] = Counter()
    owners = []
    for preference in preferences:
        owner = next(member for member in preference if owned[member] < cap)
        owned[owner] += 1
        owners.append(owner)
    return owners


def _rows(
    owners: list[str], preferences: PreferenceLists, length: int, cap: int
) -> list[list[str]]:
    """For each partition its owner and the first others that hold fewer than *cap* so far."""
    loads = Counter(owners)
    rows = []
    for owner, preference in zip(owners, preferences, strict=True):
        free = (member for member in preference if member != owner and loads[member] < cap)
        followers = list(islice(free, length - 1))
        loads.update(followers)
        rows.append([owner, *followers])
    for row in rows:
        while len(row) < length:
            _exchange(row, rows, loads)
    return rows


def _exchange(short: list[str], rows: list[list[str]], loads: Counter[str]) -> None:
    """Give the *short* row one more follower, though all members that it lacks are full.

    Another row gives it one, and takes in its place the least loaded member of the short row.

    Why this works: the cap is at least QR / n. As a row is short, the loads add up to less than QR,
    so some members have room. Let x be any of them. It had room when the rows were filled, since
    loads only grow, so each short row took it; and no row lost it since, because only full members
    are handed over. But x is not on all rows: it holds fewer than the cap, and were the cap above
    Q, nobody could be full. So there is a row without x, and it is not short: it has R - 1
    followers. The short row, apart from x, has R - 2 members at most. One of those followers is
    not among them.
    """
    with_room = min(short, key=loads.__getitem__)
    giver = next(row for row in rows if with_room not in row)
    given = next(member for member in giver[1:] if member not in short)
    giver[giver.index(given)] = with_room
    short.append(given)
    loads[with_room] += 1


def _clockwise(row: list[str], preference: tuple[str, ...]) -> tuple[str, ...]:
    """The row with its owner first and its followers in the order of the preference list."""
    owner, *followers = row
    return (owner, *(member for member in preference if member in followers))
