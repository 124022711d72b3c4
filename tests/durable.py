"""Clusters whose nodes have disks, in the simulated network, and what tests of them begin with."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import Client
from kvtwist.core.topology import Settings
from kvtwist.node.replicas import Replicas
from kvtwist.service import Node
from tests.cluster import SimulatedCluster
from tests.storage.simulated import Platter, forget, opener

PARTITIONS = 4


class DurableCluster(SimulatedCluster):
    """A cluster whose nodes have disks."""

    def __init__(self, size: int, partitions: int, replicas: int = 3) -> None:
        super().__init__(size, partitions=partitions)
        self.settings = Settings(partitions=partitions, replicas=replicas, durable=True)
        self.platters = {number: Platter() for number in range(1, size + 1)}

    def start_node(self, number: int, **changes: Any) -> Node:
        self.open_storage = opener(self.platters[number])
        return super().start_node(number, **changes)

    def go_cold(self, number: int) -> None:
        """Have a node read each record from its disk."""
        self.platters[number].is_cold = True
        for replica in replicas_of(self.nodes[number]).all().values():
            forget(replica._state.records)

    def crash(self, number: int, kept: int = 0) -> None:
        """Kill a node; of what was not synced its disk keeps the first *kept* batches."""
        super().crash(number)
        self.platters[number].crash(kept)

    def cleanup(self) -> None:
        for platter in self.platters.values():
            platter.cleanup()


class DurableCase(SynchronousTestCase):
    """A cluster, founded, and a client of it."""

    size = 1
    partitions = PARTITIONS

    def setUp(self) -> None:
        self.cluster = DurableCluster(self.size, self.partitions)
        self.addCleanup(self.cluster.cleanup)
        self.cluster.found()
        self.client: Client = self.cluster.client()

    def result(self, deferred: Deferred[Any]) -> Any:
        return self.cluster.network.result_of(deferred)

    def put(self, key: str, value: str) -> Any:
        return self.result(self.client.put(key, value))

    def get(self, key: str) -> bytes | None:
        record = self.result(self.client.get(key))
        return None if record is None else bytes(record.value)

    def restart(self, number: int = 1) -> None:
        self.cluster.start_node(number)
        self.cluster.run(2.0)

    def replicas(self, number: int = 1) -> Replicas:
        return replicas_of(self.cluster.nodes[number])


def replicas_of(node: Node) -> Replicas:
    """All that it has."""
    replicas = node._partitions._replicas  # type: ignore[attr-defined]
    assert isinstance(replicas, Replicas)
    return replicas
