"""Whom a request is brought to."""

from __future__ import annotations

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.node.leaders import Leaders


class FakePartitions:
    """What this node knows.

    :ivar known: who leads; ``None``: there is no replica here.
    """

    def __init__(self) -> None:
        self.known: str | None = None
        self.silent: set[str] = set()

    def leader(self, number: int) -> str | None:
        return self.known

    def is_heard(self, name: str) -> bool:
        return name not in self.silent


class LeadersTests(SynchronousTestCase):
    def setUp(self) -> None:
        members = [
            Member(f"node-{number}", f"{number:032x}", Address("10.0.0.1", 8000 + number))
            for number in range(1, 6)
        ]
        topology = Topology("", 1, members, Settings(partitions=8, durable=True))
        self.partitions = FakePartitions()
        self.leaders = Leaders("node-1", topology, cast(Any, self.partitions))
        self.row = [each.name for each in topology.replicas(0)]
        self.stranger = next(each.name for each in members if each.name not in self.row)

    def of(self, *besides: str) -> str | None:
        member = self.leaders.of(0, besides)
        return member.name if member is not None else None

    def test_the_replica_here_knows(self) -> None:
        """Better than what anybody says."""
        self.partitions.known = self.row[1]
        self.leaders.learn(0, self.row[2])
        self.assertEqual(self.of(), self.row[1])
        self.partitions.known = ""
        self.assertIsNone(self.of())

    def test_it_is_waited_for(self) -> None:
        """A leader that is silent, or has said that it leads no more, will be followed by another
        one: to ask anybody else meanwhile is in vain."""
        self.partitions.known = self.row[1]
        self.assertIsNone(self.of(self.row[1]))
        self.partitions.silent = {self.row[1]}
        self.assertIsNone(self.of())

    def test_a_guess(self) -> None:
        """Without a replica: who was named, else the owner, else the next; nobody who is silent."""
        self.assertEqual(self.of(), self.row[0])
        self.partitions.silent = {self.row[0]}
        self.assertEqual(self.of(), self.row[1])
        self.assertEqual(self.of(self.row[1]), self.row[2])
        self.partitions.silent = set()
        self.leaders.learn(0, self.row[2])
        self.assertEqual(self.of(), self.row[2])
        self.partitions.silent = {self.row[2]}
        self.assertEqual(self.of(), self.row[0])
        self.partitions.silent = set(self.row)
        self.assertIsNone(self.of())

    def test_what_cannot_be(self) -> None:
        """One who has no replica of it never leads it; nor does a name that nobody has."""
        for name in (self.stranger, "nobody", ""):
            self.leaders.learn(0, self.row[2])
            self.leaders.learn(0, name)
            self.assertEqual(self.of(), self.row[0])
