"""Which keys the clients of a run use."""

from __future__ import annotations

from kvtwist.core.ring import partition_of
from tests.simnodes.plan import Plan


def keys_of(plan: Plan) -> list[bytes]:
    """The keys of a run: in as many partitions as there are, as far as they go."""
    chosen: list[bytes] = []
    number = 0
    while len(chosen) < plan.keys + plan.counters:
        key = b"k%d" % number
        number += 1
        taken = sum(
            partition_of(key, plan.partitions) == partition_of(each, plan.partitions)
            for each in chosen
        )
        if taken <= len(chosen) // plan.partitions:
            chosen.append(key)
    return chosen


def one_in_each(partitions: int) -> list[bytes]:
    """A key in each partition, that nobody else uses: some groups have been silent for long."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < partitions:
        key = b"visitor%d" % number
        found.setdefault(partition_of(key, partitions), key)
        number += 1
    return [found[partition] for partition in range(partitions)]
