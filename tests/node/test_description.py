"""What a node says of its replicas, to whoever asks."""

from __future__ import annotations

from typing import Any

from kvtwist.core.address import Address
from kvtwist.core.description import Description
from kvtwist.core.groups import META, groups_of
from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Sending
from kvtwist.errors import DiskFull, Unavailable
from kvtwist.wire.commands import DESCRIPTIONS_MAX, DescribeReplicas, Status
from kvtwist.wire.descriptions import read_descriptions
from tests.cluster import PORT, SimulatedCluster, ip_of
from tests.durable import DurableCase

MEMBERS = ["node-1", "node-2", "node-3"]


class DescriptionTests(DurableCase):
    """Three nodes, eight partitions."""

    size = 3
    partitions = 8

    def setUp(self) -> None:
        super().setUp()
        self.cluster.run(8.0)  # each partition is led by its owner

    def ask(self, number: int, command: Any, **arguments: Any) -> dict[str, Any]:
        address = Address(ip_of(number), PORT)
        answer: dict[str, Any] = self.result(self.client.ask(address, command, arguments))
        return answer

    def describe(self, number: int, first: int = 0, count: int = 256) -> list[Description]:
        """What one node says."""
        answer = self.ask(number, DescribeReplicas, first=first, count=count)
        return read_descriptions(answer, MEMBERS)

    def test_each_replica(self) -> None:
        """Figures that are not the replicas' own would send people looking in the wrong place."""
        for at in range(20):
            self.put(f"key-{at}", "value")
        self.cluster.run(3.0)  # all groups have fallen silent: nothing moves while it is compared
        groups = groups_of(self.cluster.nodes[1].cluster.founded())
        for number, name in enumerate(MEMBERS, start=1):
            said = self.describe(number)
            self.assertEqual([each.group for each in said], [META, *range(2, 10)])
            for each in said:
                replica, group = self.replicas(number).replica(each.group), groups[each.group]
                raft = replica.raft
                self.assertEqual(each.partition, None if each.group == META else each.group - 2)
                self.assertEqual((each.replica, each.role), (group.replica_of(name), raft.role))
                self.assertEqual((each.term, each.leader), (raft.term, raft.leader))
                self.assertEqual((each.commit, each.last), (raft.commit_index, raft.last_index))
                self.assertEqual(each.applied, replica.applied_index)
                self.assertEqual(each.compacted, raft.log.compacted_index)
                self.assertEqual(each.is_quiescent, raft.is_quiescent)
                self.assertTrue(each.is_voter and each.has_confirmed)
                self.assertEqual(each.key_count, replica.key_count)
                self.assertEqual({*MEMBERS} - {name}, {other.member for other in each.others})
                for other in each.others:
                    self.assertEqual(other.replica, group.replica_of(other.member))
                    self.assertTrue(other.is_voter)
                    if each.role is not Role.LEADER:
                        self.assertIsNone(other.following)
                        continue
                    assert other.following is not None
                    self.assertEqual(other.following.match, each.last)
                    self.assertEqual(other.following.sending, Sending.REPLICATE)
                    self.assertTrue(other.following.is_heard)
        self.assertEqual(sum(each.key_count for each in said if each.group != META), 20)
        keys_bytes = sum(len(f"key-{at}") for at in range(20))
        data_bytes = sum(each.data_bytes for each in said)
        self.assertGreaterEqual(data_bytes, keys_bytes + 20 * len("value"))

    def test_pages(self) -> None:
        """A cluster of thousands of partitions would have an answer that AMP cannot hold, or a part
        of it would never be told."""
        everything = self.describe(1)
        self.assertEqual(len(everything), 9)
        for count in (0, 1, 2, 8, 9):
            told: list[Description] = []
            first = asked = 0
            while asked == 0 or first:
                answer = self.ask(1, DescribeReplicas, first=first, count=count)
                page = read_descriptions(answer, MEMBERS)
                self.assertEqual(len(page), min(max(count, 1), 9 - len(told)))
                told += page
                first, asked = answer["following"], asked + 1
            self.assertEqual(told, everything)
        self.assertEqual(self.describe(1, first=5), everything[4:])
        self.assertEqual(self.describe(1, first=1 << 40), [])
        self.assertLessEqual(DESCRIPTIONS_MAX * 8, 65_535)

    def test_a_follower_is_gone(self) -> None:
        """A follower would be heard for ever in a group in which nothing happens; and for an
        election timeout or two in one that was woken."""
        self.put("k", "v")
        self.cluster.run(3.0)
        self.cluster.crash(3)
        self.cluster.run(2.0)
        for wake in (False, True):
            if wake:
                self.put("k", "w")
            for number in (1, 2):
                for each in self.describe(number):
                    for other in each.others:
                        if other.following is not None:
                            heard = other.member != "node-3"
                            self.assertEqual(other.following.is_heard, heard, each)

    def test_heard_at_any_time(self) -> None:
        """Twice a second a leader would seem to hear nobody: when it has just looked."""
        for at in range(60):
            self.client.put(f"key-{at}", "v")
            self.cluster.run(0.05)
            for number in (1, 2, 3):
                for each in self.describe(number):
                    for other in each.others:
                        self.assertTrue(other.following is None or other.following.is_heard)

    def test_standing(self) -> None:
        """One would not see which nodes carry the load."""
        placement = self.cluster.nodes[1].cluster.founded().placement
        for number, name in enumerate(MEMBERS, start=1):
            said = self.ask(number, Status)
            self.assertEqual((said["leads"], said["held"]), (placement.owned(name), 8))
            self.assertEqual((said["condition"], said["trouble"]), ("open", ""))

    def test_full_disk(self) -> None:
        """S2: the node would look well."""
        self.cluster.platters[2].trouble = DiskFull("3 bytes are left")
        self.put("k", "v")
        self.cluster.run(3.0)
        said = self.ask(2, Status)
        self.assertEqual(said["condition"], "the disk is full")
        self.assertIn("3 bytes are left", said["trouble"])
        self.assertEqual(said["leads"], 0)

    def test_not_founded(self) -> None:
        """It would look like a cluster without partitions."""
        cluster = SimulatedCluster(2)
        cluster.start(1)
        cluster.run(1.0)
        asked = cluster.client(1).ask(
            Address(ip_of(1), PORT), DescribeReplicas, {"first": 0, "count": 1}
        )
        with self.assertRaises(Unavailable):
            cluster.network.result_of(asked)

    def test_in_memory(self) -> None:
        """It has no replicas, and says nothing of any."""
        cluster = SimulatedCluster(1)
        cluster.found()
        address, client = Address(ip_of(1), PORT), cluster.client(1)
        asked = client.ask(address, DescribeReplicas, {"first": 0, "count": 1})
        answer = cluster.network.result_of(asked)
        self.assertEqual((read_descriptions(answer, MEMBERS), answer["following"]), ([], 0))
        said = cluster.network.result_of(client.status(address))
        self.assertEqual((said["leads"], said["held"], said["condition"]), (None, None, None))
