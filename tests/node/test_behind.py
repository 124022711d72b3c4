"""Nodes that were away for longer than the logs remember: whole clusters of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from kvtwist.core.address import Address
from kvtwist.core.groups import group_of
from kvtwist.core.raft import Configuration, Role
from kvtwist.node import compaction
from kvtwist.storage.snapshots import outgoing
from kvtwist.wire import commands
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.link import Link
from tests.cluster import PORT, ip_of
from tests.durable import DurableCase

ENTRIES_MAX = 30


class BehindCase(DurableCase):
    size = 3
    partitions = 4

    def setUp(self) -> None:
        self.patch(compaction, "LOG_ENTRIES_MAX", ENTRIES_MAX)
        super().setUp()

    def write(self, count: int = 400, value: str = "v") -> dict[str, str]:
        """Some keys of each partition, one after the other."""
        wanted = {f"key-{number}": f"{value}-{number}" for number in range(count)}
        for first in range(0, count, 50):
            some = list(wanted.items())[first : first + 50]
            for done in [self.client.put(key, text) for key, text in some]:
                self.result(done)
        return wanted

    def leave_behind(self, *numbers: int) -> dict[str, str]:
        """Kill nodes, and write more than the logs keep; what there is then."""
        self.put("before", "1")
        for number in numbers:
            self.cluster.crash(number)
        self.cluster.run(3.0)
        self.write()
        self.cluster.run(3.0)  # till they are not waited for
        wanted = self.write()
        for partition in range(self.partitions):
            self.assertGreater(self.log_begin(partition), ENTRIES_MAX)
        return {"before": "1", **wanted}

    def leader(self, partition: int) -> int:
        (number,) = (
            number
            for number in self.cluster.nodes
            if self.replicas(number).replica(group_of(partition)).raft.role is Role.LEADER
        )
        return number

    def log_begin(self, partition: int, number: int = 0) -> int:
        number = number or self.leader(partition)
        return self.replicas(number).replica(group_of(partition)).raft.log.compacted_index

    def digests(self, partition: int) -> set[tuple[int, bytes]]:
        """Of all nodes' states."""
        found = set()
        for node in self.cluster.nodes.values():
            engine = node._partitions._directory.engine  # type: ignore[attr-defined]
            with engine.view() as view:
                snapshot = outgoing(view, group_of(partition))
                assert snapshot is not None
                found.add((snapshot.applied_index, snapshot.digest()))
        return found

    def assert_same(self) -> None:
        """All nodes have the same, and nobody carries anything."""
        self.cluster.run(3.0)
        for partition in range(self.partitions):
            self.assertEqual(len(self.digests(partition)), 1)
        for node in self.cluster.nodes.values():
            partitions: Any = node._partitions
            self.assertEqual(partitions._departures.under_way_count, 0)
            self.assertEqual(partitions._arrivals.open_count, 0)
            self.assertEqual(partitions._directory.engine.views, 0)
        self.assertEqual(self.cluster.hopeless, {})

    def assert_has(self, wanted: dict[str, str]) -> None:
        found = self.result(self.client.get_many(list(wanted)))
        self.assertEqual(
            {key: record and record.value.decode() for key, record in found.items()}, wanted
        )


class BackTests(BehindCase):
    def test_a_node_that_was_away(self) -> None:
        """It comes back with everything: any one of the others may go then."""
        wanted = self.leave_behind(3)
        self.cluster.start_node(3)
        self.cluster.run(8.0)
        for partition in range(self.partitions):
            self.assertGreater(self.log_begin(partition, 3), ENTRIES_MAX)
        self.assert_same()
        self.cluster.crash(1)
        self.cluster.run(3.0)
        self.client = self.cluster.client(2, 3)
        self.assert_has(wanted)
        wanted |= self.write(100, "later")
        self.cluster.start_node(1)
        self.cluster.run(5.0)
        self.cluster.crash(2)
        self.cluster.run(3.0)
        self.client = self.cluster.client(1, 3)
        self.assert_has(wanted)

    def test_all_start_again(self) -> None:
        """One is far behind; all were killed: it is sent what it lacks."""
        wanted = self.leave_behind(2)
        for number in (1, 3):
            self.cluster.crash(number)
        for number in (2, 1, 3):
            self.cluster.start_node(number)
        self.cluster.run(8.0)
        self.client = self.cluster.client()
        self.assert_has(wanted)
        self.assert_same()

    def test_writers_go_on(self) -> None:
        """While it is sent what it lacks, it falls behind no more."""
        self.leave_behind(3)
        self.cluster.network.bytes_per_second = 100_000.0
        self.cluster.start_node(3)
        self.cluster.run(1.0)
        for number in range(6):
            wanted = self.write(200, f"round-{number}")
        self.cluster.run(5.0)
        self.assert_same()
        self.assert_has(wanted)

    def test_the_senders_die(self) -> None:
        """Whoever leads next begins anew."""
        wanted = self.leave_behind(3)
        self.cluster.network.bytes_per_second = 20_000.0
        self.cluster.start_node(3)

        def is_coming() -> bool:
            return bool(self.cluster.nodes[3]._partitions._arrivals.open_count)  # type: ignore[attr-defined]

        while not is_coming():
            self.cluster.run(0.01)
        self.cluster.crash(1)
        self.cluster.run(1.0)
        self.cluster.start_node(1)
        self.cluster.network.bytes_per_second = float("inf")
        self.cluster.run(40.0)
        self.client = self.cluster.client()
        self.assert_has(wanted)
        self.assert_same()


class LargeTests(BehindCase):
    partitions = 1

    def test_heartbeats_go_on(self) -> None:
        """20 MiB over a slow network: nobody is taken for dead, and writes are answered as ever."""
        for number in range(40):
            self.put(f"large-{number}", "x" * (1 << 19))
        self.leave_behind(3)
        self.cluster.network.bytes_per_second = 4e6
        terms = self.terms()
        self.cluster.start_node(3)
        clock, slowest, count = self.cluster.network.clock, 0.0, 0
        before = self.log_begin(0, 3)
        while self.log_begin(0, 3) == before:
            begun = clock.seconds()
            self.put("k", f"{count}")
            slowest, count = max(slowest, clock.seconds() - begun), count + 1
            self.cluster.run(0.3)
        self.assertGreater(count, 8)
        self.assertLess(slowest, 0.1)
        self.assertEqual(self.terms(), terms)
        self.cluster.run(3.0)
        self.assert_same()

    def terms(self) -> set[int]:
        return {
            self.replicas(number).replica(group_of(0)).raft.term
            for number in self.cluster.nodes
            if number != 3
        }


class WhoTests(BehindCase):
    """Whoever can dial a node must not be able to replace its data."""

    def offer(self, client: Any, **changes: Any) -> Deferred[Any]:
        said: dict[str, Any] = {
            "group": group_of(0),
            "sender": 1,
            "to": 2,
            "term": 100,
            "index": 1000,
            "snapshot_term": 100,
            "configuration": Configuration((1, 2, 3)).encode(),
        }
        ended: list[Any] = []
        done = client(commands.OfferSnapshot, said | changes)
        done.addBoth(ended.append)
        self.cluster.run(2.0)
        return ended[0]  # type: ignore[no-any-return]

    def test_a_client(self) -> None:
        """It is no member."""

        def ask(command: type[amp.Command], arguments: dict[str, Any]) -> Deferred[Any]:
            return self.client.ask(Address(ip_of(2), PORT), command, arguments)

        for to in (1, 2, 3):
            refused: Any = self.offer(ask, to=to)
            self.assertIn("members of the cluster", str(refused.value))

    def test_a_name_is_not_enough(self) -> None:
        """R11: a member is its identity, too; a node with an empty disk is another one. It is let
        in, to be told so when it asks for the cluster, and nothing is taken from it."""
        node = self.cluster.nodes[1]
        greeting = replace(node.cluster.greeting(), identity="f" * 32, cluster_id="")
        host = self.cluster.network.host(ip_of(1))
        deadlines = Deadlines(host, host.seconds)
        link = Link(host, Address(ip_of(2), PORT), lambda: greeting, lambda: 0.5, deadlines)
        link.start()
        self.cluster.run(1.0)
        self.assertIsNotNone(link.connection)

        def ask(command: type[amp.Command], arguments: dict[str, Any]) -> Deferred[Any]:
            return link.call(command, arguments, 1.0)

        group = node._partitions._groups[group_of(0)]  # type: ignore[attr-defined]
        ids = {"sender": group.replica_of("node-1"), "to": group.replica_of("node-2")}
        refused: Any = self.offer(ask, **ids)
        self.assertIn("members of the cluster", str(refused.value))
        link.stop()

    def test_another_member(self) -> None:
        """It speaks for its own replicas only, and to those that are there."""
        groups = self.cluster.nodes[1]._partitions._groups  # type: ignore[attr-defined]
        group = groups[group_of(0)]
        peers = self.cluster.nodes[1].peers
        link = peers.bulk(Address(ip_of(2), PORT))

        def ask(command: type[amp.Command], arguments: dict[str, Any]) -> Deferred[Any]:
            return link.call(command, arguments, 1.0)

        mine, theirs = group.replica_of("node-1"), group.replica_of("node-2")
        other = group.replica_of("node-3")
        for changes in (
            {"sender": other, "to": theirs},
            {"sender": mine, "to": other},
            {"sender": mine, "to": 9},
            {"sender": mine, "to": theirs, "group": 99},
        ):
            refused: Any = self.offer(ask, **changes)
            self.assertIn("does not speak for", str(refused.value))
        taken: Any = self.offer(ask, sender=mine, to=theirs)
        self.assertGreater(taken["transfer"], 0)
