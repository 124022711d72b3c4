"""The short way on a node with a disk: answers that come later are the ordinary way's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.answers import Answer, SessionOpened
from kvtwist.core.state.commands import WHOSE, OpenSession
from kvtwist.core.state.records import Record
from kvtwist.errors import DiskFull, KvtwistError
from kvtwist.node.durable import DurablePartitions
from kvtwist.node.reads import READS_MAX
from kvtwist.node.replica import Replica
from kvtwist.storage.layout import ENTRY
from kvtwist.wire import frequent
from kvtwist.wire.boxes import ANSWER, ERROR_CODE, VALUE_BYTES_MAX, Box
from tests.durable import DurableCluster
from tests.wire.loopback import Loopback, RawPeer
from tests.wire.properties import examples

PARTITIONS = 2
END = frequent.request_end(5000)

Request = tuple[bytes, bytes | None]
"""Key, and the value of a put."""

keys = st.sampled_from([b"", b"a", b"b", b"{a}b", b"c", b"k" * 5000])
values = st.none() | st.sampled_from([b"", b"1", b"22", b"v" * 300, b"v" * VALUE_BYTES_MAX])
turns: st.SearchStrategy[list[list[Request]]] = st.lists(
    st.lists(st.tuples(keys, values), max_size=6), max_size=4
)


def request(tag: bytes, key: bytes, value: bytes | None, once: bytes | None = None) -> bytes:
    """A frequent request."""
    is_get = value is None
    body = (
        frequent.get_body(key, END) if is_get else frequent.put_body(key, value or b"", END, once)
    )
    return frequent.ASK_HEADS[len(tag)] + tag + body


class Asked:
    """A cluster, and a connection to its first node over which one may say anything.

    :ivar taken: how many requests have taken the short way.
    """

    def __init__(self, size: int = 1, is_short: bool = True, cluster: Any = None) -> None:
        self.cluster = cluster or DurableCluster(size, PARTITIONS)
        if cluster is None:
            self.cluster.found()
        self.taken = 0
        node = self.cluster.nodes[1]
        self.router = node._router
        connection = node.server.buildProtocol(IPv4Address("TCP", "10.9.9.9", 1))
        assert connection is not None
        self.connection = connection
        connection._frequent_responder = self._short if is_short else lambda *_: None
        self.peer = RawPeer()
        self.wire = Loopback(self.peer, connection)

    def _short(self, key: bytes, value: bytes | None, once: bytes | None) -> Any:
        taken = self.router.answer_here(key, value, once)
        self.taken += taken is not None
        return taken

    @property
    def partitions(self) -> DurablePartitions:
        """The first node's."""
        partitions = self.cluster.nodes[1]._partitions
        assert isinstance(partitions, DurablePartitions)
        return partitions

    def replica_of(self, key: bytes) -> Replica:
        """The first node's replica of the key's group."""
        number, _ = self.router.locate(key, None, True)
        return self.partitions._leading(number)

    def say(self, *requests: bytes) -> None:
        """Ask, in one chunk; nothing of it is answered yet."""
        self.peer.say_bytes(b"".join(requests))
        self.wire.pump()

    def heard(self, seconds: float = 0.5) -> list[Box]:
        """What has been answered since the last time, after some time, in the order of tags."""
        self.cluster.run(seconds)
        self.wire.pump()
        boxes, self.peer.boxes = self.peer.boxes, []
        return sorted(boxes, key=lambda box: box.get(ANSWER, box.get(b"_error", b"")))

    def cleanup(self) -> None:
        """Remove what is on real disks."""
        self.cluster.cleanup()


@contextmanager
def asked(**how: Any) -> Iterator[Asked]:
    """One, for a while."""
    one = Asked(**how)
    try:
        yield one
    finally:
        one.cleanup()


class SameAnswersTests(SynchronousTestCase):
    @given(turns, st.booleans())
    @examples(15)
    def test_same_answers(self, said: list[list[Request]], is_cold: bool) -> None:
        """Else what a client sees depends on how its request was cut, or on who sent it: box for
        box, whether or not the records are in memory."""
        heard = []
        for is_short in (True, False):
            with asked(is_short=is_short) as node:
                if is_cold:
                    node.cluster.go_cold(1)
                node.say(request(b"0", b"a", None))
                boxes = node.heard()
                for turn in said:
                    node.say(*[request(b"%x" % at, *one) for at, one in enumerate(turn)])
                    boxes += node.heard()
                self.assertEqual(len(boxes), 1 + sum(map(len, said)))
                self.assertEqual(node.connection.unanswered, 0)
                heard.append(boxes)
        self.assertEqual(heard[0], heard[1])

    def test_taken(self) -> None:
        """Else nobody ever takes it; and at the limits it is not."""
        with asked() as node:
            node.say(request(b"0", b"a", None))
            node.heard()
            for key, value, taken in (
                (b"a", None, True),
                (b"a", b"v", True),
                (b"k" * 4096, b"v", True),
                (b"k" * 4097, b"v", False),
            ):
                before = node.taken
                node.say(request(b"1", key, value))
                self.assertEqual(node.taken - before, taken, (key[:9], value))
                self.assertEqual(len(node.heard()), 1)

    def test_nothing_is_answered_before_its_sync(self) -> None:
        """R1: an acknowledgement is a promise."""
        with asked() as node:
            node.say(request(b"0", b"a", None))
            node.heard()
            platter = node.cluster.platters[1]
            node.say(request(b"1", b"k", b"never before"))
            self.assertEqual(node.taken, 1)
            while not node.wire.server.writes[1:]:
                node.cluster.run(0.0001)
            end = bytes((ENTRY[0] + 1,))
            frames = [frame for _, frame in platter.synced.scan(ENTRY, end)]
            self.assertTrue(any(b"never before" in frame for frame in frames))

    def test_large_values(self) -> None:
        """A value that was written the ordinary way, in pieces, is read whole the short way."""
        large = b"x" * (3 << 20)
        with asked() as node:
            node.cluster.network.result_of(node.cluster.client().put("k", large))
            node.say(request(b"1", b"k", None))
            self.assertEqual(node.taken, 1)
            (box,) = node.heard()
            whole = b"".join(data for name, data in box.items() if name.startswith(b"value"))
            self.assertEqual(whole, large)

    def test_reads_see_what_was_answered(self) -> None:
        """Promise 2: a read that begins after a write was answered shows it; also many of them that
        are confirmed together, by the same round."""
        count = 2 * READS_MAX + 1
        with asked() as node:
            for life in range(3):
                value = b"%d" % life
                node.say(*[request(b"%04d" % at, b"a%d" % at, value) for at in range(count)])
                node.heard()
                replica = node.replica_of(b"a1")
                context = next(replica._reads._contexts)
                node.say(*[request(b"%04d" % at, b"a%d" % at, None) for at in range(count)])
                self.assertEqual(next(replica._reads._contexts), context + 2, "one round for all")
                found = [box.get(b"value") for box in node.heard()]
                self.assertEqual(found, [value] * count)

    def test_a_read_of_the_next_turn(self) -> None:
        """R5: a read that comes when a round is under way waits for the next one."""
        with asked() as node:
            node.say(request(b"0", b"a", b"1"))
            node.heard()
            replica = node.replica_of(b"a")
            first, second = _Reader(b"a"), _Reader(b"a")
            replica.ask(first)
            (waiting,) = [*replica._reads._asked]
            node.cluster.run(0.0)
            replica.ask(second)
            self.assertNotIn(waiting, replica._reads._asked)
            self.assertEqual(len(replica._reads._asked), 1)
            node.cluster.run(0.1)
            self.assertEqual((len(first.told), len(second.told)), (1, 1))


class _Reader:
    """A reader that notes what it is told."""

    def __init__(self, key: bytes) -> None:
        self.key = bytes(4) + key
        self.told: list[object] = []

    def found(self, record: Record | None) -> None:
        self.told.append(record)

    def lost(self, error: KvtwistError) -> None:
        self.told.append(error)


class OutcomeTests(SynchronousTestCase):
    """C1: done, definitely not done, unknown: the same ways as ever."""

    def codes(self, boxes: list[Box]) -> list[bytes | None]:
        return [box.get(ERROR_CODE) for box in boxes]

    def test_a_full_disk(self) -> None:
        """S2: what was in the failed batch is unknown; later writes are definitely not done, and
        are not even begun; reads go on."""
        heard = []
        for is_short in (True, False):
            with asked(is_short=is_short) as node:
                node.say(request(b"0", b"a", b"1"))
                node.heard()
                node.cluster.platters[1].trouble = DiskFull("the disk is full")
                node.say(request(b"1", b"a", b"2"))
                codes = self.codes(node.heard(0.1))
                taken = node.taken
                node.say(request(b"2", b"a", b"3"), request(b"3", b"a", None))
                self.assertEqual(node.taken, taken)
                codes += self.codes(node.heard(0.1))
                heard.append(codes)
        self.assertEqual(heard[0], [b"OUTCOME_UNKNOWN", b"DISK_FULL", None])
        self.assertEqual(heard[0], heard[1])

    def test_a_disk_that_stands_still(self) -> None:
        """Promise 5: each ends by its time. The write may be done yet."""
        for is_short in (True, False):
            with asked(is_short=is_short) as node:
                node.say(request(b"0", b"a", b"1"))
                node.heard()
                with mock.patch.object(node.partitions._store._writer, "do", lambda _: Deferred()):
                    node.say(request(b"1", b"a", b"2"))
                    node.cluster.run(4.9)
                    self.assertEqual(node.heard(0.0), [])
                    self.assertEqual(self.codes(node.heard(0.3)), [b"OUTCOME_UNKNOWN"])
                self.assertEqual(node.connection.unanswered, 0)

    def test_stopping(self) -> None:
        """A node that stops answers what it has begun, and begins nothing more."""
        for is_short in (True, False):
            with asked(is_short=is_short) as node:
                node.say(request(b"0", b"a", b"1"))
                node.heard()
                node.say(request(b"1", b"a", b"2"))
                node.router.stop()
                node.say(request(b"2", b"a", b"3"))
                self.assertEqual(self.codes(node.heard()), [None, b"UNAVAILABLE"])

    def test_the_replica_is_over(self) -> None:
        """What was proposed is unknown, what was asked is not answered; and that is said."""
        for is_short in (True, False):
            with asked(is_short=is_short) as node:
                node.say(request(b"0", b"a", b"1"))
                node.heard()
                node.say(request(b"1", b"a", b"2"), request(b"2", b"b", None))
                node.partitions._replicas.stop(KvtwistError("over"))
                codes = self.codes(node.heard(0.1))
                self.assertEqual(codes, [b"OUTCOME_UNKNOWN", b"UNAVAILABLE"])

    def test_another_generation(self) -> None:
        """C5: what the state machine refuses is an error, and not an answer."""
        with asked() as node:
            node.say(request(b"0", b"a", b"1"))
            node.heard()
            node.say(request(b"1", b"a", b"2", WHOSE.pack(9, 7, 0, 0)))
            self.assertEqual(node.taken, 1)
            (box,) = node.heard()
            self.assertIn(ERROR_CODE, box)
            node.say(request(b"2", b"a", None))
            self.assertEqual(node.heard()[0][b"value"], b"1")

    def test_once(self) -> None:
        """C2: the same write again is answered again, and not applied again."""
        with asked() as node:
            node.say(request(b"0", b"a", b"1"))
            node.heard()
            replica = node.replica_of(b"a")
            opening = replica.propose(lambda stamp_ms: OpenSession(stamp_ms, 1, 60_000))
            opened: Answer = node.cluster.network.result_of(opening)
            assert isinstance(opened, SessionOpened)
            once = WHOSE.pack(1, opened.session, 0, 0)
            node.say(request(b"1", b"a", b"2", once))
            (first,) = node.heard()
            node.say(request(b"2", b"a", b"3"))
            node.heard()
            node.say(request(b"3", b"a", b"2", once))
            (again,) = node.heard()
            self.assertEqual(again[b"version"], first[b"version"])
            node.say(request(b"4", b"a", None))
            self.assertEqual(node.heard()[0][b"value"], b"3")

    def test_no_session(self) -> None:
        """Else somebody sends a write again who believes that it is carried out once."""
        with asked() as node:
            node.say(request(b"0", b"a", b"1"))
            node.heard()
            taken = node.taken
            node.say(request(b"1", b"a", b"2", WHOSE.pack(1, 0, 0, 0)))
            self.assertEqual(node.taken, taken)
            self.assertEqual(node.heard()[0][ERROR_CODE], b"MALFORMED")

    def test_who_fails_when_told(self) -> None:
        """T4: else a bug in what waits for an answer ends the node, for all who use it."""
        with asked() as node:
            node.say(request(b"0", b"a", b"1"))
            node.heard()
            with mock.patch("kvtwist.node.waiting.put_answer", side_effect=ZeroDivisionError):
                node.say(request(b"1", b"a", b"2"))
                node.heard()
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            node.say(request(b"2", b"a", None))
            self.assertEqual(node.heard()[-1][b"value"], b"2")

    def test_who_does_not_lead(self) -> None:
        """Else a key is written where nobody looks for it: the ordinary way brings it to the
        leader."""
        with asked(size=3) as node:
            leads = [
                next(
                    key for key in (b"%d" % at for at in range(999)) if self.leads(node, key) is it
                )
                for it in (True, False)
            ]
            node.say(request(b"1", leads[0], b"v"), request(b"2", leads[1], b"v"))
            self.assertEqual(node.taken, 1)
            self.assertEqual(self.codes(node.heard(1.0)), [None, None])
            node.say(request(b"3", leads[1], None))
            self.assertEqual(node.taken, 1)
            self.assertEqual(node.heard(1.0)[0][b"value"], b"v")

    def leads(self, node: Asked, key: bytes) -> bool:
        """Whether the first node leads the key's partition."""
        return bool(node.router.locate(key, None, False)[1] is None)

    def test_deposed(self) -> None:
        """A write that is lost with the leadership is unknown, a read is not done; and no more are
        taken. The leader is cut off from the others."""
        with asked(size=3) as node:
            key = next(key for key in (b"%d" % at for at in range(999)) if self.leads(node, key))
            node.say(request(b"1", key, b"v"))
            self.assertEqual(self.codes(node.heard()), [None])
            node.cluster.crash(2)
            node.cluster.crash(3)
            node.say(request(b"2", key, b"w"), request(b"3", key, None))
            self.assertEqual(node.taken, 3)
            codes = self.codes(node.heard(3.0))  # before their time is up
            self.assertEqual(codes, [b"OUTCOME_UNKNOWN", b"UNAVAILABLE"])
            self.assertEqual(node.connection.unanswered, 0)
            node.say(request(b"4", key, b"x"))
            self.assertEqual(node.taken, 3)
