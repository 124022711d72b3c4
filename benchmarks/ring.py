"""How even the ring is, and what moves when members come and go: ``python benchmarks/ring.py``.

Nothing is timed and nothing is random: everybody sees the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import mean

from kvtwist.core.placement import Moves, Placement, moves, place
from kvtwist.core.ring import Ring, partition_of

KEYS = [b"user:%d" % number for number in range(100_000)]
PARTITIONS = 64
REPLICAS = 3
MEMBERS_MAX = 12


def main() -> None:
    """Print the tables."""
    print(f"{len(KEYS):,} keys, Q={PARTITIONS}, R={REPLICAS}, 128 tokens per member\n")
    print_loads(3, 10)
    print_joins(3, 10)
    print_changes(64, 256, 1024)


def print_loads(*counts: int) -> None:
    """How far the fullest member is above the mean."""
    print("largest load / mean     keys on a plain ring   keys   partitions   replicas")
    for count in counts:
        ring = Ring(members(count))
        placement = placed(members(count))
        on_plain_ring = Counter(map(ring.member_of, KEYS))
        owned = Counter(placement.owner(partition_of(key, PARTITIONS)) for key in KEYS)
        print(
            f"{count:>4} members            "
            f"{largest_to_mean(on_plain_ring.values(), count):20.2f}"
            f"{largest_to_mean(owned.values(), count):7.2f}"
            f"{largest_to_mean(map(placement.owned, ring.members), count):13.2f}"
            f"{largest_to_mean(map(placement.held, ring.members), count):11.2f}"
        )


def print_joins(*counts: int) -> None:
    """Which share of the keys one more member moves."""
    keys_in = Counter(partition_of(key, PARTITIONS) for key in KEYS)
    print("\nshare of keys      with another owner   ideal   copied   ideal")
    for count in counts:
        change = moves(placed(members(count)), placed(members(count + 1)))
        moved = sum(keys_in[move.partition] for move in change.owners) / len(KEYS)
        copied = sum(keys_in[gain.partition] for gain in change.gains) / len(KEYS)
        ideal = 1 / (count + 1)
        print(
            f"{count:>4} to {count + 1:>2} members {moved:20.1%}{ideal:8.1%}"
            f"{copied:9.1%}{min(REPLICAS, count + 1) * ideal:8.1%}"
        )


def print_changes(*partition_counts: int) -> None:
    """How much more moves than must, over clusters of 1 to `MEMBERS_MAX` members and one more."""
    print("\nmoved / ideal, mean and worst        owners       replicas")
    for partitions in partition_counts:
        for title, changes in (("joins", all_joins), ("leaves", all_leaves)):
            costs = list(changes(partitions))
            owners = [len(change.owners) / ideal for change, ideal, _ in costs]
            replicas = [len(change.gains) / ideal for change, _, ideal in costs if ideal]
            print(
                f"Q={partitions:<5} one member {title:<8}"
                f"{mean(owners):12.2f}{max(owners):6.2f}{mean(replicas):9.2f}{max(replicas):6.2f}"
            )


def all_joins(partitions: int) -> Iterator[tuple[Moves, float, float]]:
    """What joins move; the newcomer's fair share of owned partitions and of replicas."""
    for count in range(1, MEMBERS_MAX + 1):
        change = moves(placed(members(count), partitions), placed(members(count + 1), partitions))
        share = partitions / (count + 1)
        yield change, share, share * min(REPLICAS, count + 1)


def all_leaves(partitions: int) -> Iterator[tuple[Moves, float, float]]:
    """What leaves move; the partitions that the leaver owned and the replicas to make again."""
    for count in range(1, MEMBERS_MAX + 1):
        before = placed(members(count + 1), partitions)
        for leaver in members(count + 1):
            remaining = [name for name in members(count + 1) if name != leaver]
            change = moves(before, placed(remaining, partitions))
            lost = before.held(leaver) if count >= REPLICAS else 0
            yield change, before.owned(leaver), lost


def members(count: int) -> list[str]:
    """node-1, node-2 and so on."""
    return [f"node-{number}" for number in range(1, count + 1)]


def placed(names: list[str], partitions: int = PARTITIONS) -> Placement:
    """The placement on these members."""
    return place(Ring(names), partitions, REPLICAS)


def largest_to_mean(loads: Iterable[int], count: int) -> float:
    """The largest of *count* loads over their mean; loads of zero may be left out."""
    values = list(loads)
    return max(values) * count / sum(values)


if __name__ == "__main__":
    main()
