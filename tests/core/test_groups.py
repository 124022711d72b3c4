"""Who is who in the groups of a cluster: every founder has to come to the same."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.groups import (
    META,
    Group,
    group_of,
    groups_of,
    meta_group,
    partition_of_group,
)
from kvtwist.core.topology import Member, Settings, Topology


def topology(size: int, replicas: int = 3, partitions: int = 16) -> Topology:
    members = [
        Member(f"node-{number}", f"{number:032x}", Address("10.0.0.1", 8000 + number))
        for number in range(1, size + 1)
    ]
    settings = Settings(partitions=partitions, replicas=replicas, durable=True)
    return Topology("0" * 32, 1, members, settings)


class GroupTests(SynchronousTestCase):
    def test_ids_are_fixed(self) -> None:
        """They stand on disks, and in every message: they never come out otherwise."""
        self.assertEqual((META, group_of(0), group_of(63)), (1, 2, 65))
        self.assertEqual([partition_of_group(each) for each in (1, 2, 65)], [None, 0, 63])

    def test_every_partition_is_a_group(self) -> None:
        """Its replicas count from 1 in the order of its row, the owner's first."""
        map_of = topology(5)
        groups = groups_of(map_of)
        self.assertEqual(sorted(groups), list(range(1, 18)))
        for number, row in enumerate(map_of.placement.replicas):
            group = groups[group_of(number)]
            self.assertEqual((group.id, group.members, group.owner), (number + 2, row, row[0]))
            self.assertEqual([group.replica_of(name) for name in row], [1, 2, 3])
            self.assertEqual(group.configuration.voters, (1, 2, 3))
            self.assertEqual(group.configuration.learners, ())

    def test_more_are_wanted_than_there_are(self) -> None:
        """Then every member has all; it is no reason not to found."""
        groups = groups_of(topology(2, replicas=3))
        self.assertEqual(groups[group_of(0)].configuration.voters, (1, 2))
        groups = groups_of(topology(1, replicas=64))
        self.assertEqual(groups[group_of(0)].configuration.voters, (1,))

    def test_strangers_have_no_replica(self) -> None:
        """R11: a message from a replica that there is not must match nobody."""
        group = Group(7, ("a", "b"), 2)
        self.assertEqual([group.member_of(each) for each in (1, 2)], ["a", "b"])
        for number in (-2, -1, 0, 3, 1 << 63):
            self.assertIsNone(group.member_of(number))
        self.assertIsNone(group.replica_of("c"))

    def test_voters_of_the_meta_group(self) -> None:
        """Five of many, else three, else all; the others learn. Not four: that survives no more
        than three, and waits for more."""
        for size, voters in ((1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)):
            group = meta_group(topology(size))
            ids = tuple(range(1, size + 1))
            self.assertEqual(group.configuration.voters, ids[:voters])
            self.assertEqual(group.configuration.learners, ids[voters:])
            self.assertEqual(group.members, tuple(sorted(group.members)))
