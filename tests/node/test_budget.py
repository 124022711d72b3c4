"""T5: what a node holds for all its connections together: each limit, and who gives way."""

from __future__ import annotations

import gc
import tracemalloc
from sys import getsizeof
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import ConfigurationError
from kvtwist.node.budget import Budget
from kvtwist.node.limits import HELD_BYTES_DEFAULT, Limits
from kvtwist.node.server import Server
from kvtwist.wire.boxes import ANSWER, BoxLimits, BoxReader
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Get, Ping, Put
from kvtwist.wire.connection import Connection
from kvtwist.wire.fragments import cut
from kvtwist.wire.seldom import INTERVAL_SECONDS
from tests.cluster import SimulatedCluster
from tests.node.test_limits import warnings
from tests.wire.properties import examples

MIB = 1 << 20
WIDE_OPEN = BoxLimits(box_bytes_max=1 << 30, box_pairs_max=1 << 30)
CHUNK_BYTES = 1 << 16
SMALLEST = b"\0\1a\0\0\0\0"
"""A box of one empty value."""
BUFFER_BYTES_MAX = 1 << 16


class Held:
    """A connection, as the budget knows it.

    :ivar dropped: why it was dropped; empty while it is not.
    """

    def __init__(self) -> None:
        self.dropped = ""

    def drop(self, why: str, detail: str = "") -> None:
        self.dropped = why


class BudgetTests(SynchronousTestCase):
    """The rule."""

    def test_at_the_limit(self) -> None:
        """Else a node is within its memory and cuts connections off, or is not and does not."""
        for over in (-1, 0, 1):
            budget, one, other = Budget(1000), Held(), Held()
            budget.account(one, "10.0.0.1", 400)
            budget.account(other, "10.0.0.2", 600 + over)
            self.assertEqual(bool(other.dropped), over > 0)
            self.assertFalse(one.dropped)
            self.assertEqual(budget.held_bytes, 400 if over > 0 else 1000 + over)

    def test_the_largest_of_the_largest_address(self) -> None:
        """Else whoever opens many connections makes others give way, each of which holds more than
        one of his, and less than all."""
        budget = Budget(1000)
        many = [Held() for _ in range(9)]
        for number, each in enumerate(many):
            budget.account(each, "10.0.0.1", 60 + number)
        single = Held()
        budget.account(single, "10.0.0.2", 400)
        budget.account(single, "10.0.0.2", 450)
        self.assertEqual([bool(each.dropped) for each in many], [False] * 8 + [True])
        self.assertFalse(single.dropped)
        budget.account(single, "10.0.0.2", 700)
        self.assertIn("held_bytes_max=1000", single.dropped)
        self.assertIn("700", single.dropped)
        self.assertEqual(sum(bool(each.dropped) for each in many), 1)

    def test_gone(self) -> None:
        """Else what connections held that are long gone is counted, until nobody may hold more."""
        budget = Budget(1000)
        for _ in range(100):
            gone = Held()
            budget.account(gone, "10.0.0.1", 900)
            budget.account(gone, "10.0.0.1", 0)
            budget.account(gone, "10.0.0.1", 0)
            self.assertFalse(gone.dropped)
        self.assertEqual(budget.held_bytes, 0)
        self.assertEqual((budget._held, dict(budget._by_address)), ({}, {}))

    @examples(60)
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 400)), max_size=60)
    )
    def test_always(self, changes: list[tuple[int, int, int]]) -> None:
        """Else there is some order of events after which the sum is wrong, and so all that follows
        from it."""
        budget, holders, held = Budget(1000), [Held() for _ in range(30)], dict[int, int]()
        for number, host, size in changes:
            which = 10 * host + number
            if holders[which].dropped:
                continue
            held[which] = size
            budget.account(holders[which], f"10.0.0.{host}", size)
            kept = sum(size for at, size in held.items() if not holders[at].dropped)
            self.assertEqual(budget.held_bytes, kept)
            self.assertLessEqual(kept, 1000)


class Peer(StringTransport):
    """Somebody who has dialled a node, and takes answers only when the test says so.

    :ivar aborted: whether the node has hung up.
    """

    def __init__(self, server: Server, host: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 4000))
        protocol = server.buildProtocol(self.getPeer())
        assert isinstance(protocol, Connection)
        self.protocol = protocol
        self.aborted = False
        protocol.makeConnection(self)

    def say(self, data: bytes) -> None:
        """Send it, while the node takes it."""
        for at in range(0, len(data), CHUNK_BYTES):
            if not self.aborted:
                self.protocol.dataReceived(data[at : at + CHUNK_BYTES])

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.producer is not None and self.io.tell() > BUFFER_BYTES_MAX:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted = True

    def go(self) -> None:
        """The connection is lost."""
        self.aborted = True
        self.protocol.connectionLost()


class ConnectionsTests(SynchronousTestCase):
    """A node, and connections that hold something.

    :ivar cluster: of two nodes; node-2 is not there, so that what it owns waits.
    """

    def start(self, held_bytes_max: int, **limits: Any) -> None:
        """Start it."""
        boxes = {"value_bytes_max": MIB} | limits
        self.cluster = SimulatedCluster(2, Limits(held_bytes_max=held_bytes_max, **boxes))
        self.cluster.found()
        self.key, self.far_key = self.cluster.key_of(1).encode(), self.cluster.key_of(2).encode()
        server = self.cluster.nodes[1].server
        assert isinstance(server, Server)
        self.server = server
        self.budget = server._budget
        self.before_bytes = self.budget.held_bytes
        self.other = self.dial("10.0.9.9")

    def dial(self, host: str = "10.0.9.1") -> Peer:
        """Somebody."""
        return Peer(self.server, host)

    def put(self, size: int, key: bytes | None = None, **said: Any) -> bytes:
        """The bytes of a request."""
        arguments = {"key": key or self.key, "value": bytes(size), **said}
        return codec_of(Put).write_request(b"1", arguments)

    def held_bytes(self) -> int:
        """What is held for those who have dialled here in a test."""
        return self.budget.held_bytes - self.before_bytes

    def assert_served(self) -> None:
        """Somebody else is served."""
        self.other.clear()
        self.other.say(codec_of(Ping).write_request(b"1", {}))
        self.assertEqual(BoxReader(WIDE_OPEN).feed(self.other.value()), [{ANSWER: b"1"}])

    def test_nothing(self) -> None:
        """Else what is answered at once adds up, and an innocent connection has to go."""
        self.start(4 * MIB)
        peer = self.dial()
        for _ in range(10):
            peer.say(self.put(MIB - 10) + codec_of(Ping).write_request(b"2", {}))
            self.assertEqual(self.held_bytes(), 0)
        peer.go()
        self.assertFalse(self.other.aborted)

    def test_unfinished_boxes(self) -> None:
        """Else a thousand connections, each within its limits, take all memory."""
        for over in (-1, 0, 1):
            self.start(4 * MIB)
            box = self.put(MIB)
            held = 4 * MIB - self.before_bytes + over
            peers = [self.dial(f"10.0.9.{number}") for number in range(4)]
            with warnings() as lines:
                for peer in peers[:3]:
                    peer.say(box[: MIB - 4])
                peers[3].say(box[: held - 3 * (MIB - 4)])
            self.assertEqual([peer.aborted for peer in peers], [False] * 3 + [over > 0])
            self.assertEqual(len(lines), int(over > 0))
            self.assertEqual(self.held_bytes(), held if over <= 0 else 3 * (MIB - 4))
            self.assert_served()
            for peer in peers:
                peer.go()
            self.assertEqual(self.held_bytes(), 0)

    def test_unfinished_fragments(self) -> None:
        """The same, for boxes that come in fragments."""
        self.start(4 * MIB, value_bytes_max=MIB)
        peers = [self.dial(f"10.0.9.{number}") for number in range(6)]
        with warnings() as lines:
            for peer in peers:
                peer.say(next(cut(self.put(MIB))))
        self.assertEqual(sum(peer.aborted for peer in peers), 2)
        self.assertIn("held_bytes_max", lines[0])
        self.assertLessEqual(self.budget.held_bytes, 4 * MIB)
        self.assert_served()

    def test_requests_in_work(self) -> None:
        """Else requests for an owner that is gone fill the memory; of those who have been cut off
        nothing is kept either, although their requests had time left."""
        self.start(8 * MIB)
        self.cluster.crash(2)
        self.cluster.run(0.1)
        peers = [self.dial(f"10.0.9.{number}") for number in range(10)]
        for number, peer in enumerate(peers):
            size = MIB - 1000 * (number + 1)
            peer.say(self.put(size, self.far_key, timeout_ms=60_000))
        self.assertEqual([peer.aborted for peer in peers], [True, True] + [False] * 8)
        self.assertEqual(
            self.held_bytes(), sum(peer.protocol._work.held_bytes for peer in peers[2:])
        )
        self.assert_served()
        for peer in peers:
            peer.go()
            self.assertEqual((peer.protocol.unanswered, peer.protocol._work.held_bytes), (0, 0))
        self.assertEqual(self.held_bytes(), 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unread_answers(self) -> None:
        """Else readers of large values who do not read them fill the memory, each within his
        limit."""
        self.start(4 * MIB)
        self.other.say(self.put(MIB))
        peers = [self.dial(f"10.0.9.{number}") for number in range(6)]
        for peer in peers:
            peer.say(codec_of(Get).write_request(b"1", {"key": self.key}))
        self.assertEqual(sum(peer.aborted for peer in peers), 3)
        self.assertGreater(self.held_bytes(), 3 * MIB)
        self.assert_served()
        for peer in peers:
            while not peer.aborted and peer.protocol._outbox.is_paused:
                peer.clear()
                peer.protocol.resumeProducing()
        self.assertEqual(self.held_bytes(), 0)

    def test_what_waits(self) -> None:
        """Else what was read just before a peer stopped taking answers is not counted."""
        self.start(4 * MIB)
        self.other.say(self.put(MIB))
        peer = self.dial()
        get = codec_of(Get).write_request(b"1", {"key": self.key, "trace": bytes(1000)})
        peer.say(60 * get)
        unread_bytes = peer.protocol._outbox.unread_bytes
        self.assertGreater(self.held_bytes() - unread_bytes, 50 * 1000)
        while peer.protocol._outbox.is_paused:
            peer.clear()
            peer.protocol.resumeProducing()
        self.assertEqual(self.held_bytes(), 0)

    def test_what_waits_is_more_than_its_bytes(self) -> None:
        """Else a stream of the smallest boxes takes forty times the memory that it is counted as,
        on each of a thousand connections."""
        self.start(16 * MIB)
        self.other.say(self.put(MIB))
        peer = self.dial()
        get = codec_of(Get).write_request(b"1", {"key": self.key})
        small = BoxReader(WIDE_OPEN).feed(SMALLEST * 9000)
        peer.say(10 * get + SMALLEST * 9000)
        waits_bytes = self.held_bytes() - peer.protocol._outbox.unread_bytes
        self.assertGreater(waits_bytes, sum(map(getsizeof, small)))

    def test_late_answers(self) -> None:
        """Else what was asked of another node is counted when it comes and not when it has been
        answered, or the other way round."""
        self.start(4 * MIB)
        self.other.say(self.put(MIB - 1000, self.far_key))
        self.assertGreater(self.held_bytes(), MIB - 1000)
        self.cluster.run(0.1)
        self.assertEqual(self.held_bytes(), 0)
        peers = [self.dial(f"10.0.9.{number}") for number in range(6)]
        for peer in peers:
            peer.say(codec_of(Get).write_request(b"1", {"key": self.far_key}))
            self.cluster.run(0.1)
        self.assertEqual(sum(peer.aborted for peer in peers), 2)
        self.assertGreater(self.held_bytes(), 4 * (MIB - 1000))

    def test_one_line_a_second(self) -> None:
        """Else whoever fills the memory of a node again and again fills its disk as well."""
        self.start(4 * MIB)
        box = self.put(MIB)
        with warnings() as lines:
            for _ in range(2):
                for number in range(20):
                    self.dial(f"10.0.9.{number}").say(box[:-2])
                self.cluster.run(INTERVAL_SECONDS)
        self.assertEqual(len(lines), 2)
        self.assertIn("more such lines", lines[1])

    def test_memory(self) -> None:
        """Else the count is right and the memory is full all the same: of a connection that had to
        go nothing is kept, even before the collector of cycles has run."""
        self.start(8 * MIB)
        box = self.put(MIB)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(200):
            peer = self.dial(f"10.0.9.{number}")
            peer.say(box[:-2])
            for each in list(self.server._connections):
                if each.why_dropped:
                    each.connectionLost()
        held_bytes, _ = tracemalloc.get_traced_memory()
        self.assertGreater(held_bytes, 6 * MIB)
        self.assertLess(held_bytes, 12 * MIB)


class SettingTests(SynchronousTestCase):
    """The setting."""

    def test_default(self) -> None:
        """Else a node that takes the longest values that there may be cannot take a single one."""
        self.assertEqual(Limits().of_all_connections(), HELD_BYTES_DEFAULT)
        for value_bytes_max in (1 << 10, 16 << 20, 32 << 20, 256 << 20):
            limits = Limits(value_bytes_max=value_bytes_max)
            box_bytes_max = limits.of_connection().boxes.box_bytes_max
            self.assertGreaterEqual(limits.of_all_connections(), 4 * box_bytes_max)
        self.assertEqual(Limits(held_bytes_max=100 << 20).of_all_connections(), 100 << 20)

    def test_less_than_a_box(self) -> None:
        """Else a node starts that hangs up on whoever writes a value that is within its limits."""
        box_bytes_max = Limits().of_connection().boxes.box_bytes_max
        error = self.assertRaises(ConfigurationError, Limits, held_bytes_max=box_bytes_max - 1)
        self.assertIn("held_bytes_max", str(error))
        self.assertIn(str(box_bytes_max), str(error))
        Limits(held_bytes_max=box_bytes_max)
