"""Signs of life, and small requests, between nodes while large values flow between them."""

from __future__ import annotations

from collections import defaultdict

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import Client
from kvtwist.errors import OutcomeUnknown
from kvtwist.wire.boxes import BoxLimits, BoxReader, write_box
from kvtwist.wire.commands import Ping
from kvtwist.wire.fragments import FRAGMENT_BYTES_MAX
from kvtwist.wire.link import Link
from tests.cluster import CLIENT_IP, SimulatedCluster, ip_of
from tests.simulated import LATENCY_SECONDS, Wire

VALUE = bytes(16 << 20)
BYTES_PER_SECOND = 16 << 20
FRAGMENT_SECONDS = FRAGMENT_BYTES_MAX / BYTES_PER_SECOND
SLACK_SECONDS = 10 * LATENCY_SECONDS + 0.01
"""For the network's latency, and the steps in which the tests look."""
WIDE_OPEN = BoxLimits(box_bytes_max=1 << 30, box_pairs_max=1 << 30)


class Boxes:
    """The length of every box that is sent from node to node."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._readers: dict[Wire, BoxReader] = defaultdict(lambda: BoxReader(WIDE_OPEN))

    def overhear(self, wire: Wire, data: bytes) -> None:
        """To be told of all that is sent."""
        if CLIENT_IP not in (wire.host.ip, wire.other.host.ip):
            boxes = self._readers[wire].feed(data)
            self.lengths += [len(write_box(box)) for box in boxes]


class HeartbeatTests(SynchronousTestCase):
    """A value of 16 MiB takes a second from node to node here.

    :ivar client: one that reaches node-1 only, so that node-1 forwards what node-2 owns.
    """

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(size=2)
        self.network = self.cluster.network
        self.boxes = Boxes()
        self.network.overhear = self.boxes.overhear
        self.cluster.found()
        self.network.bytes_per_second = BYTES_PER_SECOND
        self.key, self.other_key = self.cluster.key_of(2), self.cluster.key_of(2, "other")
        self.client = self.connected()
        self.small_client = self.connected()
        self.peers = self.cluster.nodes[1].peers

    def connected(self) -> Client:
        """A client with a connection to node-1, and none to node-2."""
        client = self.cluster.client(1, timeout_seconds=30.0)
        self.enterContext(self.network.cut(CLIENT_IP, ip_of(2)))
        self.network.result_of(client.get(self.key))
        return client

    def write(self) -> None:
        """Let a large value be on its way from node-1 to node-2."""
        self.writing = self.client.put(self.key, VALUE)
        self.cluster.run(1.2)

    def seconds_to_answer(self, link: Link) -> float:
        """How long a ping takes on *link*."""
        started = self.network.clock.seconds()
        self.network.result_of(link.call(Ping, {}, 10.0))
        return self.network.clock.seconds() - started

    def test_control_keeps_its_time(self) -> None:
        """Else one large value makes a healthy node look dead, and its partitions change hands."""
        self.write()
        (control,) = self.peers.control()
        for _ in range(20):
            self.assertLess(self.seconds_to_answer(control), SLACK_SECONDS)
        self.assertNoResult(self.writing)

    def test_bulk_waits_for_a_fragment(self) -> None:
        """Else whatever else is forwarded waits for the whole of a large value. It waits for the
        fragments that are under way already: so a value was indeed on its way."""
        self.write()
        bulk = self.peers.bulk(self.cluster.addresses[1])
        waits = [self.seconds_to_answer(bulk) for _ in range(8)]
        self.assertNoResult(self.writing)
        self.assertLess(max(waits), FRAGMENT_SECONDS + SLACK_SECONDS)
        self.assertGreater(max(waits), FRAGMENT_SECONDS / 4)

    def test_no_large_box(self) -> None:
        """Else a receiver has to take a large value in at once, and so has whoever waits for it;
        neither a request nor an answer is longer than a fragment, whatever is forwarded."""
        self.network.result_of(
            gatherResults([self.client.put(key, VALUE) for key in (self.key, self.other_key)])
        )
        sent = len(self.boxes.lengths)
        self.assertGreater(sum(self.boxes.lengths), 2 * len(VALUE))
        for key in (self.key, self.other_key):
            record = self.network.result_of(self.client.get(key))
            self.assertEqual(record.value, VALUE)
        self.assertGreater(sum(self.boxes.lengths[sent:]), 2 * len(VALUE))
        self.assertLessEqual(max(self.boxes.lengths), FRAGMENT_BYTES_MAX)

    def test_small_requests_overtake(self) -> None:
        """Else a small read waits until large values have been written that it has nothing to do
        with, or misses its deadline because of them."""
        writing = [self.client.put(key, VALUE) for key in (self.key, self.other_key)]
        self.cluster.run(1.2)
        for _ in range(5):
            started = self.network.clock.seconds()
            self.network.result_of(self.small_client.get(self.cluster.key_of(2, "small")))
            took = self.network.clock.seconds() - started
            self.assertLess(took, 2 * FRAGMENT_SECONDS + 2 * SLACK_SECONDS)
        self.assertNoResult(writing[1])
        for each in writing:
            self.network.result_of(each)

    def test_lost_in_the_middle(self) -> None:
        """Else what had come of a large value before the connection was lost spoils the next one,
        or a write is reported as done of which a part is missing."""
        self.write()
        bulk = self.peers.bulk(self.cluster.addresses[1])
        assert bulk.connection is not None
        bulk.connection.abort()
        self.cluster.run(2.0)
        self.failureResultOf(self.writing, OutcomeUnknown)
        self.assertIsNone(self.network.result_of(self.client.get(self.key)))
        self.network.result_of(self.client.put(self.key, VALUE))
        record = self.network.result_of(self.client.get(self.key))
        self.assertEqual(record.value, VALUE)
