"""Signs of life between nodes while large values flow between them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.commands import Ping
from kvtwist.wire.link import Link
from tests.cluster import CLIENT_IP, SimulatedCluster, ip_of
from tests.simulated import LATENCY_SECONDS

VALUE = bytes(16 << 20)
BYTES_PER_SECOND = 16 << 20


class HeartbeatTests(SynchronousTestCase):
    """A value of 16 MiB takes a second from node to node here."""

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(size=2)
        self.cluster.found()
        self.network = self.cluster.network
        self.network.bytes_per_second = BYTES_PER_SECOND
        key = self.cluster.key_of(2)
        client = self.cluster.client(1, timeout_seconds=30.0)
        with self.network.cut(CLIENT_IP, ip_of(2)):
            self.network.result_of(client.get(key))
            self.writing = client.put(key, VALUE)
            self.cluster.run(1.2)
        self.peers = self.cluster.nodes[1].peers

    def seconds_to_answer(self, link: Link) -> float:
        """How long a ping takes on *link*."""
        started = self.network.clock.seconds()
        self.network.result_of(link.call(Ping, {}, 10.0))
        return self.network.clock.seconds() - started

    def test_control_keeps_its_time(self) -> None:
        """Else one large value makes a healthy node look dead, and its partitions change hands."""
        (control,) = self.peers.control()
        for _ in range(20):
            self.assertLess(self.seconds_to_answer(control), 10 * LATENCY_SECONDS + 0.01)
        self.assertNoResult(self.writing)

    def test_bulk_does_not(self) -> None:
        """The large value was indeed on its way: on its own connection a ping waits behind it."""
        bulk = self.peers.bulk(self.cluster.addresses[1])
        self.assertGreater(self.seconds_to_answer(bulk), 0.2)
