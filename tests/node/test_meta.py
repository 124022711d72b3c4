"""The meta group: the topology is written down once, and nobody works by another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core import meta
from kvtwist.core.groups import META
from kvtwist.core.state.commands import NO_SESSION, Write
from kvtwist.core.state.operations import Put
from kvtwist.errors import ConfigurationError, StoreDamaged
from kvtwist.node.replica import Replica
from kvtwist.wire.greeting import Greeting
from tests.cluster import ip_of
from tests.durable import DurableCluster


class MetaCase(SynchronousTestCase):
    def cluster(self, size: int, partitions: int = 4, replicas: int = 3) -> DurableCluster:
        cluster = DurableCluster(size, partitions, replicas)
        self.addCleanup(cluster.cleanup)
        cluster.found()
        return cluster

    def epochs(self, cluster: DurableCluster) -> set[int]:
        return {node._partitions.epoch for node in cluster.nodes.values()}  # type: ignore[attr-defined]

    def replica(self, cluster: DurableCluster, number: int) -> Replica:
        replicas = cluster.nodes[number]._partitions._replicas  # type: ignore[attr-defined]
        replica: Replica = replicas.replica(META)
        return replica

    def leader(self, cluster: DurableCluster) -> Replica:
        all_of = [self.replica(cluster, number) for number in cluster.nodes]
        return next(each for each in all_of if each.leads)

    def result(self, cluster: DurableCluster, deferred: Deferred[Any]) -> Any:
        return cluster.network.result_of(deferred)


class WrittenTests(MetaCase):
    def test_once(self) -> None:
        """Every node knows it, learners too; whoever leads later does not write it again."""
        for size in (1, 3, 6):
            cluster = self.cluster(size)
            cluster.run(2.0)
            self.assertEqual(self.epochs(cluster), {1}, size)
            record = self.result(cluster, self.leader(cluster).read(meta.TOPOLOGY_KEY, 0))
            topology = next(iter(cluster.nodes.values())).cluster.founded()
            self.assertEqual(meta.decode(record.value), meta.first_record(topology))
            for number in list(cluster.nodes):
                cluster.crash(number)
            cluster.start()
            cluster.run(4.0)
            self.assertEqual(self.epochs(cluster), {1}, size)
            self.assertEqual(self.leader(cluster).revision, 1)

    def test_two_write_at_once(self) -> None:
        """A leader that was deposed and one that is: what stands there is one record, the first."""
        cluster = self.cluster(1)
        cluster.run(2.0)
        node = cluster.nodes[1]
        partitions: Any = node._partitions
        partitions._meta.epoch = 0
        partitions._meta._found(None, self.replica(cluster, 1))
        cluster.run(2.0)
        self.assertEqual((self.replica(cluster, 1).revision, self.epochs(cluster)), (1, {1}))

    def test_partitions_do_not_wait_for_it(self) -> None:
        """Its majority is gone, and that of a partition is not: that one elects and serves."""
        cluster = self.cluster(5, partitions=16)
        topology = cluster.nodes[1].cluster.founded()
        rows = topology.placement.replicas
        left = next(
            pair
            for pair in ((1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (3, 4), (4, 5), (2, 4))
            if any({f"node-{each}" for each in pair} <= set(row) for row in rows)
        )
        names = {f"node-{each}" for each in left}
        key = next(
            key
            for key in (f"key-{at}" for at in range(1000))
            if names <= set(rows[topology.partition_of(key.encode())])
        )
        for number in (1, 2, 3, 4, 5):
            cluster.crash(number)
        for number in left:
            cluster.start_node(number)
        cluster.run(5.0)
        client = cluster.client(*left)
        self.result(cluster, client.put(key, "v"))
        self.assertEqual(self.result(cluster, client.get(key)).value, b"v")
        self.assertFalse(any(self.replica(cluster, number).leads for number in left))


class AnotherTests(MetaCase):
    """A node that works by another map than the cluster's ends, with one line."""

    def write(self, cluster: DurableCluster, **changes: Any) -> None:
        """Have the meta group hold another topology."""
        cluster.run(2.0)
        topology = cluster.nodes[1].cluster.founded()
        other = replace(meta.first_record(topology), **changes)
        put = Put(meta.TOPOLOGY_KEY, meta.encode(other))
        leader = self.leader(cluster)
        self.result(
            cluster,
            leader.propose(lambda stamp: Write(stamp, 1, NO_SESSION, 0, 0, (put,))),
        )
        cluster.run(1.0)

    def test_on_its_own_disk(self) -> None:
        """It does not even start: what it would do meanwhile is what must not be done."""
        cluster = self.cluster(1)
        self.write(cluster, cluster_version=2)
        cluster.crash(1, kept=1000)
        error = self.assertRaises(ConfigurationError, cluster.start_node, 1)
        self.assertIn("version 2", str(error))
        self.assertIn("use a later kvtwist", str(error))

    def test_on_a_disk_that_is_not_in_memory(self) -> None:
        """It is looked at, not guessed at, wherever the engine has it."""
        cluster = self.cluster(1)
        self.write(cluster, next_group=77)
        cluster.crash(1, kept=1000)
        cluster.platters[1].is_cold = True
        error = self.assertRaises(ConfigurationError, cluster.start_node, 1)
        self.assertIn("another map", str(error))

    def test_in_its_own_log_only(self) -> None:
        """What was applied and not synced is in the log, and comes back from there."""
        cluster = self.cluster(1)
        self.write(cluster, next_group=77)
        cluster.crash(1)
        cluster.start_node(1)
        cluster.run(3.0)
        self.assertIn("another map", str(cluster.hopeless["node-1"]))

    def test_heard_from_the_others(self) -> None:
        """It was away when it was written, and learns it when it is back."""
        cluster = self.cluster(3)
        cluster.run(2.0)
        cluster.crash(3)
        cluster.run(2.0)
        self.write(cluster, next_group=77)
        cluster.start_node(3)
        cluster.run(5.0)
        self.assertIn("another map", str(cluster.hopeless["node-3"]))
        self.assertEqual(list(cluster.hopeless), ["node-3"])


class StrangerTests(MetaCase):
    """R11: who has not the disk that has voted is not who it says."""

    def test_a_known_name_on_another_disk(self) -> None:
        """Every member refuses it, and says what helps."""
        cluster = self.cluster(3)
        topology = cluster.nodes[1].cluster.founded()
        for number in (1, 3):
            here = cluster.nodes[number].cluster
            theirs = Greeting(
                cluster_id=topology.cluster_id,
                name="node-2",
                identity="f" * 32,
                address=f"{ip_of(2)}:8001",
            )
            refusal = here.objection(theirs)
            assert refusal is not None
            self.assertEqual(refusal.reason, "identity")
            self.assertIn("--data-dir", str(refusal))
            known = replace(theirs, identity=topology.member("node-2").identity)
            self.assertIsNone(here.objection(known))
            self.assertIsNone(here.objection(replace(theirs, cluster_id="")))

    def test_a_copy_of_a_directory(self) -> None:
        """A disk that went back has forgotten votes: it is refused before it says a word."""
        cluster = self.cluster(1)
        platter = cluster.platters[1]
        before = dict(platter.synced.scan(b"N", b"O"))
        cluster.crash(1)
        cluster.start_node(1)
        cluster.crash(1)
        for key, value in before.items():
            platter.synced._content.put(key, value)
        error = self.assertRaises(StoreDamaged, cluster.start_node, 1)
        self.assertIn("has gone back", str(error))
