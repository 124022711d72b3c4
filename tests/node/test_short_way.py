"""The short way of a node's most frequent requests: the ordinary way's answers, or none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import parse_address
from kvtwist.core.topology import Member, Settings
from kvtwist.errors import KvtwistError
from kvtwist.node.cluster import Cluster
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import MemoryPartitions
from kvtwist.node.peers import Peers
from kvtwist.node.router import Router
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Get, Put
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.frequent import ANSWER_HEADS
from kvtwist.wire.greeting import Greeting
from tests.cluster import SimulatedCluster
from tests.wire.properties import examples

KEY_BYTES_MAX, NODE_VALUE_BYTES_MAX = 8, 100_000
LIMITS = Limits(key_bytes_max=KEY_BYTES_MAX, value_bytes_max=NODE_VALUE_BYTES_MAX)

keys = st.sampled_from([b"", b"a", b"b", b"{a}b", b"k" * KEY_BYTES_MAX, b"k" * (KEY_BYTES_MAX + 1)])
values = st.none() | st.sampled_from(
    [size * b"v" for size in (0, 1, VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, NODE_VALUE_BYTES_MAX + 1)]
)


class Alone:
    """A router whose node is its cluster's only member."""

    def __init__(self) -> None:
        clock = Clock()
        me = Member("node-1", "1" * 32, parse_address(":8001"))
        self.cluster = Cluster(me, (me.address,), Settings(partitions=4), clock.seconds, 0)
        peers = Peers(clock, (), Greeting, lambda: 0.5, Deadlines(clock), LIMITS.of_connection())
        self.cluster.start()
        self.store = MemoryPartitions("node-1", lambda: 100)
        self.store.start(self.cluster.founded())
        self.router = Router(
            clock, self.cluster, self.store, peers, LIMITS, clock.seconds, lambda: 0.5
        )
        self.router.start()

    def ordinary(self, key: bytes, value: bytes | None) -> bytes | None:
        """The answer's bytes by the ordinary way; ``None`` for an error."""
        command: type[amp.Command] = Get if value is None else Put
        wanted = {"key": key} | ({} if value is None else {"value": value})
        data = codec_of(command).write_request(b"1", wanted)
        try:
            answer = self.router.route(command, read(command, data))
        except KvtwistError:
            return None
        assert isinstance(answer, dict)
        return codec_of(command).write_answer(b"1", answer)


def read(command: type[amp.Command], data: bytes) -> dict[str, object]:
    """The arguments in a request."""
    return codec_of(command).read_arguments(dict(amp.parseString(data)[0]))


class ShortWayTests(SynchronousTestCase):
    """`Router.answer_here`, which has no errors: where there is one, the ordinary way is taken."""

    @given(st.lists(st.tuples(keys, values), max_size=12))
    @examples(60)
    def test_same_answers(self, requests: list[tuple[bytes, bytes | None]]) -> None:
        """Else what a client sees depends on how its request was cut, or on who sent it."""
        short, ordinary = Alone(), Alone()
        for node in (short, ordinary):
            node.ordinary(b"a", None)
        for key, value in requests:
            expected = ordinary.ordinary(key, value)
            answer = short.router.answer_here(key, value, None)
            if answer is None:
                self.assertEqual(short.ordinary(key, value), expected)
            else:
                assert isinstance(answer, bytes)
                self.assertEqual(ANSWER_HEADS[1] + b"1" + answer, expected)

    def test_taken(self) -> None:
        """Else nobody ever takes it."""
        node = Alone()
        node.ordinary(b"a", None)
        for value in (None, b"v", None):
            self.assertIsNotNone(node.router.answer_here(b"a", value, None))

    def test_limits(self) -> None:
        """Over a limit it is not taken, and nothing has been done; at the limit it is."""
        node = Alone()
        node.ordinary(b"a", None)
        for key, value, taken in (
            (b"k" * KEY_BYTES_MAX, b"v", True),
            (b"k" * (KEY_BYTES_MAX + 1), b"v", False),
            (b"k", b"v" * NODE_VALUE_BYTES_MAX, True),
            (b"k", b"v" * (NODE_VALUE_BYTES_MAX + 1), False),
        ):
            self.assertIs(node.router.answer_here(key, value, None) is not None, taken)
        self.assertEqual(node.store.key_count, 2)

    def test_before_and_after(self) -> None:
        """A node that does not know its cluster yet, or is stopping, says so: the ordinary way."""
        node = Alone()
        self.assertIsNone(node.router.answer_here(b"a", b"v", None))
        node.ordinary(b"a", None)
        self.assertIsNotNone(node.router.answer_here(b"a", b"v", None))
        node.router.stop()
        self.assertIsNone(node.router.answer_here(b"a", b"v", None))

    def test_not_the_owner(self) -> None:
        """Else a key is written where nobody looks for it."""
        cluster = SimulatedCluster()
        cluster.found()
        client = cluster.client()
        key = cluster.key_of(2)
        cluster.network.result_of(client.put(key, "v"))
        cluster.network.result_of(client.put(cluster.key_of(1), "v"))
        answers = [
            cluster.nodes[number]._router.answer_here(key.encode(), None, None) is not None
            for number in (1, 2)
        ]
        self.assertEqual(answers, [False, True])
