"""Requests for many keys, as whole nodes answer them over the simulated network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client.many import BOX_KEYS_MAX
from kvtwist.core.address import Address
from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TooLarge,
    Unavailable,
)
from kvtwist.node.limits import Limits
from kvtwist.node.router import Router
from kvtwist.wire.applied import pack_applied, unpack_applied
from kvtwist.wire.boxes import ERROR_CODE, ERROR_DESCRIPTION, BoxLimits, BoxReader
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import ANSWER_BYTES_MAX, Get, GetMany, Put, PutMany
from kvtwist.wire.connection import Arguments, Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.failures import read_failure, unpack_failure
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import ConnectionLimits
from kvtwist.wire.link import Link
from tests.cluster import CLIENT_IP, PORT, SimulatedCluster, ip_of

Command = type[amp.Command]
WIDE_OPEN = ConnectionLimits(boxes=BoxLimits(box_bytes_max=1 << 30, box_pairs_max=1 << 20))
Asked = list[tuple[str, str, Arguments]]


class BatchTestCase(SynchronousTestCase):
    """Three nodes, and a program that asks node-1, and no other.

    :ivar calls: what the nodes have asked each other of data: who, what, and the arguments.
    """

    limits = Limits(key_bytes_max=64, value_bytes_max=2 << 20)

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(limits=self.limits)
        self.cluster.found()
        host = self.cluster.network.host(CLIENT_IP)
        self.link = Link(
            host, Address(ip_of(1), PORT), Greeting, lambda: 0.5, Deadlines(host), limits=WIDE_OPEN
        )
        self.link.start()
        self.cluster.run(0.1)
        self.mine, self.second, self.third = (
            [self.cluster.key_of(owner, prefix).encode() for prefix in "abcd"]
            for owner in (1, 2, 3)
        )
        self.calls: Asked = []
        call = Connection.call

        def noted(
            connection: Connection, command: Command, arguments: Arguments, seconds: float
        ) -> Deferred[Arguments]:
            host = connection.transport.getPeer().host
            if connection is not self.link.connection and command in (Get, Put, GetMany, PutMany):
                self.calls.append((host, command.__name__, dict(arguments)))
            return call(connection, command, arguments, seconds)

        self.patch(Connection, "call", noted)

    def ask(self, command: Command, **arguments: Any) -> Deferred[Any]:
        """Ask node-1."""
        return self.link.call(command, arguments, timeout_seconds=10.0)

    def result(self, command: Command, **arguments: Any) -> Any:
        """What node-1 answers."""
        return self.cluster.network.result_of(self.ask(command, **arguments))

    @contextmanager
    def answers_changed(self, change: Callable[[Arguments], Arguments]) -> Iterator[None]:
        """Meanwhile the nodes' answers to each other, about many keys, arrive with other parts."""
        call = Connection.call

        def changed(
            connection: Connection, command: Command, arguments: Arguments, seconds: float
        ) -> Deferred[Arguments]:
            answer = call(connection, command, arguments, seconds)
            if connection is not self.link.connection and command in (GetMany, PutMany):
                answer.addCallback(lambda said: said | change(said))
            return answer

        patch = self.patch(Connection, "call", changed)
        yield
        patch.restore()

    def put(self, *keys: bytes, **arguments: Any) -> Any:
        """Write keys, each with itself as its value; the answer."""
        values = [b"value of " + key for key in keys]
        return self.result(PutMany, keys=list(keys), values=values, **arguments)

    def get(self, *keys: bytes, **arguments: Any) -> Any:
        """The answer to a request for keys."""
        return self.result(GetMany, keys=list(keys), **arguments)

    def errors(self, answer: Arguments, count: int) -> dict[int, KvtwistError]:
        """The errors in an answer, by their place, in which everything else fits them."""
        said = answer["errors"]
        if said is None:
            said = [None] * count
        else:
            self.assertTrue(any(said), "a list of errors without one")
        self.assertEqual(len(said), count)
        for name in {"versions", "values"} & {*answer}:
            self.assertEqual(len(answer[name]), count, name)
        for at, error in enumerate(said):
            if error is not None:
                self.assertEqual(answer["versions"][at], 0)
                self.assertIsNone(answer.get("values", [None] * count)[at])
        return {at: unpack_failure(error) for at, error in enumerate(said) if error is not None}


class AnswerTests(BatchTestCase):
    """All is well."""

    def test_local(self) -> None:
        """Else keys and values are mixed up; what a node owns needs no other node."""
        written = self.put(*self.mine)
        self.assertEqual(self.errors(written, 4), {})
        answer = self.get(*reversed(self.mine), b"{%s}none" % self.mine[0])
        self.assertEqual(self.errors(answer, 5), {})
        self.assertEqual(answer["versions"], (*reversed(written["versions"]), 0))
        values = [b"value of " + key for key in reversed(self.mine)]
        self.assertEqual(answer["values"], [*values, None])
        self.assertEqual(self.calls, [])

    def test_mixed(self) -> None:
        """Else the results of a node that forwards are others than those that it was sent, or
        under other keys; and each owner is asked once, for its own keys."""
        keys = [
            key for keys in zip(self.mine, self.second, self.third, strict=True) for key in keys
        ]
        written = self.put(*keys, trace=b"t")
        answer = self.get(*reversed(keys), trace=b"t")
        for said in (written, answer):
            self.assertEqual(self.errors(said, 12), {})
        self.assertEqual(answer["versions"], written["versions"][::-1])
        self.assertEqual(answer["values"], [b"value of " + key for key in reversed(keys)])
        self.assertEqual(
            sorted((host, name) for host, name, _ in self.calls),
            sorted((ip_of(number), name) for number in (2, 3) for name in ("GetMany", "PutMany")),
        )
        for host, name, arguments in self.calls:
            owned = self.second if host == ip_of(2) else self.third
            ordered = owned if name == "PutMany" else owned[::-1]
            self.assertEqual(arguments["keys"], ordered)
            self.assertEqual((arguments["forwarded"], arguments["trace"]), (True, b"t"))

    def test_the_same_as_alone(self) -> None:
        """Else a value written with others cannot be read alone, or the other way round."""
        for key in (self.mine[0], self.second[0]):
            version = self.result(Put, key=key, value=b"alone")["version"]
            answer = self.get(key)
            self.assertEqual((answer["versions"], answer["values"]), ((version,), [b"alone"]))
            version = self.put(key)["versions"][0]
            answer = self.result(Get, key=key)
            self.assertEqual((answer["version"], answer["value"]), (version, b"value of " + key))

    def test_one_look_at_all(self) -> None:
        """Else a node looks at each of a hundred keys on its own, and needs half as long again:
        it does so only when one of them needs it."""
        looks: list[bytes] = []
        locate = Router.locate

        def noted(router: Router, key: bytes, *more: Any) -> Any:
            looks.append(key)
            return locate(router, key, *more)

        self.patch(Router, "locate", noted)
        self.put(*self.mine)
        self.get(*self.mine)
        self.assertEqual(looks, [])
        self.put(*self.mine, self.second[0])
        self.assertEqual(looks, [*self.mine, self.second[0]])

    def test_nothing(self) -> None:
        """Else a program whose list happens to be empty fails."""
        nothing = {"versions": (), "errors": None, "applied": None}
        self.assertEqual(self.get(), nothing | {"values": []})
        self.assertEqual(self.put(), nothing)

    def test_the_same_key_twice(self) -> None:
        """Else which of two values stays is chance: it is the last one."""
        for key in (self.mine[0], self.second[0]):
            written = self.result(PutMany, keys=[key] * 3, values=[b"1", b"2", b"3"])
            self.assertEqual([*written["versions"]], sorted(set(written["versions"])))
            answer = self.get(key, key)
            self.assertEqual(answer["values"], [b"3", b"3"])
            self.assertEqual(answer["versions"], (written["versions"][2],) * 2)

    def test_empty_keys_and_values(self) -> None:
        """Empty is not missing."""
        written = self.result(PutMany, keys=[b"", self.mine[0]], values=[b"", b""])
        self.assertEqual(self.errors(written, 2), {})
        answer = self.get(b"", self.mine[0], self.mine[1])
        self.assertEqual(answer["values"], [b"", b"", None])
        self.assertEqual(answer["versions"][2], 0)


class AppliedTests(BatchTestCase):
    """The mark of an answer: else a client cannot tell a node what it has seen already, and reads
    its own writes only by luck."""

    def setUp(self) -> None:
        super().setUp()
        self.topology = self.cluster.nodes[1].cluster.founded()
        self.cluster_id = bytes.fromhex(self.topology.cluster_id)
        self.all = [*self.mine, *self.second, *self.third]

    def mark(self, answer: Arguments) -> dict[int, int]:
        """What an answer says, each partition once."""
        mark = answer["applied"]
        indexes = unpack_applied(self.cluster_id, mark)
        self.assertEqual(len(mark), 16 + 10 * len(indexes))
        return indexes

    def highest(self, keys: list[bytes], versions: Sequence[int]) -> dict[int, int]:
        """The highest version in each partition."""
        indexes: dict[int, int] = {}
        for key, version in zip(keys, versions, strict=True):
            partition = self.topology.partition_of(key)
            indexes[partition] = max(version, indexes.get(partition, 0))
        return indexes

    def test_local_and_forwarded(self) -> None:
        """It names the partitions that were written, or read, and no other; a write is within."""
        for keys in (self.mine, self.second, self.all):
            written = self.put(*keys)
            expected = self.highest(keys, written["versions"])
            self.assertEqual(self.mark(written), expected)
            self.assertEqual(self.mark(self.get(*keys)), expected)
        partition = self.topology.partition_of(self.mine[0])
        index = self.mark(self.get(self.mine[0]))[partition]
        self.put(*[self.mine[0]] * 3)
        self.assertEqual(self.mark(self.get(self.mine[0])), {partition: index + 3})

    def test_the_same_as_alone(self) -> None:
        """For one key it is what the commands for one key say."""
        for key in (self.mine[0], self.second[0]):
            self.assertEqual(self.put(key)["applied"], self.result(Get, key=key)["applied"])
            self.assertEqual(self.get(key)["applied"], self.result(Get, key=key)["applied"])

    def test_missing_keys(self) -> None:
        """That there is no such key has been seen as well."""
        self.assertEqual([*self.mark(self.get(b"none"))], [self.topology.partition_of(b"none")])

    def test_only_what_was_served(self) -> None:
        """What failed was not seen: not what is too large, nor what an owner did not answer."""
        large = b"{%s}" % self.third[0] + b"k" * 64
        self.cluster.crash(2)
        written = self.put(self.mine[0], large, self.second[0], timeout_ms=300)
        self.assertEqual(sorted(self.errors(written, 3)), [1, 2])
        self.assertEqual([*self.mark(written)], [self.topology.partition_of(self.mine[0])])
        for keys in ([large], [self.second[0]], [large, self.second[0]]):
            self.assertIsNone(self.put(*keys, timeout_ms=300)["applied"])

    def test_owner_says_none(self) -> None:
        """Else a node cannot use the answers of one that leaves it out."""
        with self.answers_changed(lambda _: {"applied": None}):
            written = self.put(self.mine[0], self.second[0])
            self.assertEqual(self.errors(written, 2), {})
            self.assertEqual([*self.mark(written)], [self.topology.partition_of(self.mine[0])])
            written = self.put(self.second[0])
            self.assertEqual((self.errors(written, 1), written["applied"]), ({}, None))

    def test_owners_say_the_same_partition(self) -> None:
        """Else, while a partition moves, a client shows the lower of two indexes that its answer
        was made from, and is given older reads."""
        partition = self.topology.partition_of(self.mine[0])
        own = self.mark(self.put(self.mine[0]))[partition]
        for said, expected in (([4, 9], own), ([own + 9, own + 4], own + 9)):
            for order in (said, said[::-1]):
                left = iter(order)
                with self.answers_changed(
                    lambda _, left=left: {  # type: ignore[misc]
                        "applied": pack_applied(self.cluster_id, {partition: next(left)})
                    }
                ):
                    answer = self.get(self.mine[0], self.second[0], self.third[0])
                self.assertEqual(self.errors(answer, 3), {})
                self.assertEqual(self.mark(answer), {partition: expected})


class ErrorTests(BatchTestCase):
    """Each key has its own error; the others are done."""

    def test_owner_down(self) -> None:
        """Else one dead node fails keys that are not its own, or the user is not told which node
        it is; and all within the request's time."""
        self.put(*self.mine, *self.second, *self.third)
        self.cluster.crash(2)
        keys = [self.second[0], self.mine[0], self.second[1], self.third[0]]
        for command, more in ((GetMany, {}), (PutMany, {"values": [b"new"] * 4})):
            started = self.cluster.network.clock.seconds()
            answer = self.result(command, keys=keys, timeout_ms=700, **more)
            self.assertLess(self.cluster.network.clock.seconds() - started, 0.8)
            errors = self.errors(answer, 4)
            self.assertEqual(sorted(errors), [0, 2])
            for error in errors.values():
                assert isinstance(error, Unavailable)
                self.assertEqual(error.waiting_for, ("node-2",))
                self.assertIn("connection refused", str(error))
        self.assertEqual(self.get(self.mine[0], self.third[0])["values"], [b"new"] * 2)

    def test_owner_back_in_time(self) -> None:
        """Else a restart that takes a moment fails keys that had time to wait."""
        self.cluster.crash(2)
        self.cluster.run(2)
        asking = self.ask(PutMany, keys=[self.second[0]], values=[b"v"], timeout_ms=5000)
        self.cluster.run(1)
        self.cluster.start(2)
        written = self.cluster.network.result_of(asking)
        self.assertEqual(self.errors(written, 1), {})

    def test_owner_cut_off(self) -> None:
        """C3: else writes whose fate nobody knows are said to be done, or not done, or are sent
        again; reads are not lost for that."""
        keys = [self.mine[0], self.second[0], self.third[0]]
        with self.cluster.network.cut(ip_of(1), ip_of(2)):
            writing = self.ask(PutMany, keys=keys, values=[b"v"] * 3, timeout_ms=900)
            written = self.cluster.network.result_of(writing)
            reading = self.ask(GetMany, keys=keys, timeout_ms=900)
            read = self.cluster.network.result_of(reading)
        errors = self.errors(written, 3)
        self.assertEqual([*errors], [1])
        self.assertIs(type(errors[1]), OutcomeUnknown)
        self.assertIn("node-2", str(errors[1]))
        self.assertEqual(read["values"][::2], [b"v", b"v"])
        self.assertIsInstance(self.errors(read, 3)[1], Unavailable)
        self.cluster.run(10)
        sent = [host for host, name, _ in self.calls if name == "PutMany"]
        self.assertEqual(sorted(sent), [ip_of(2), ip_of(3)])

    def test_too_large(self) -> None:
        """Else one key or value over its limit costs all the others; or passes because it comes
        with others."""
        for near in (self.mine[0], self.second[0]):
            long_key = b"{%s}" % near + b"k" * 64
            long_value = b"v" * (self.limits.value_bytes_max + 1)
            written = self.result(
                PutMany,
                keys=[self.mine[1], long_key, near, self.second[1]],
                values=[b"1", b"2", long_value, b"4"],
            )
            errors = self.errors(written, 4)
            self.assertEqual(sorted(errors), [1, 2])
            for at, setting in ((1, "key_bytes_max"), (2, "value_bytes_max")):
                error = errors[at]
                assert isinstance(error, TooLarge)
                self.assertEqual(error.setting, setting)
                self.assertEqual(error.limit, getattr(self.limits, setting))
            answer = self.get(self.mine[1], long_key, near, self.second[1])
            self.assertEqual([*self.errors(answer, 4)], [1])
            self.assertEqual(answer["values"], [b"1", None, None, b"4"])

    def test_at_the_limit(self) -> None:
        """Else the limits of a key with others differ from those of a key alone."""
        for near in (self.mine[0], self.second[0]):
            for size, errors in ((63, 0), (64, 0), (65, 1)):
                key = (b"{%s}" % near).ljust(size, b"k")
                self.assertEqual(len(self.errors(self.get(key), 1)), errors)
                self.assertEqual(len(self.errors(self.put(key), 1)), errors)
        most = self.limits.value_bytes_max
        for size, errors in ((most - 1, 0), (most, 0), (most + 1, 1)):
            written = self.result(PutMany, keys=[self.mine[0]], values=[b"v" * size])
            self.assertEqual(len(self.errors(written, 1)), errors)

    def test_malformed(self) -> None:
        """Else a value lands under the wrong key, or nothing under some; and nothing at all is
        written of a request that contradicts itself."""
        first, second = self.mine[:2]
        for keys, values in (
            ([first, second], [b"1"]),
            ([first], [b"1", b"2"]),
            ([], [b"1"]),
            ([first], []),
            ([first, None], [b"1", b"2"]),
            ([first, second], [b"1", None]),
        ):
            asking = self.ask(PutMany, keys=keys, values=values)
            error = self.assertRaises(MalformedRequest, self.cluster.network.result_of, asking)
            self.assertIn("PutMany", str(error))
        asking = self.ask(GetMany, keys=[first, None])
        self.assertRaises(MalformedRequest, self.cluster.network.result_of, asking)
        self.assertEqual(self.get(first, second)["versions"], (0, 0))

    def test_at_most_one_hop(self) -> None:
        """Else two nodes that disagree about the owners pass a request to and fro."""
        answer = self.get(self.second[0], self.mine[0], forwarded=True)
        errors = self.errors(answer, 2)
        self.assertEqual([*errors], [0])
        error = errors[0]
        assert isinstance(error, NotLeader)
        self.assertEqual((error.leader, error.epoch), ("node-2", 1))
        self.assertEqual(self.calls, [])

    def test_keyspaces_are_reserved(self) -> None:
        """Else data written into a keyspace of today lands in the wrong place tomorrow."""
        self.assertRaises(Refused, self.put, self.mine[0], self.second[0], keyspace=1)
        self.assertEqual(self.get(self.mine[0], self.second[0])["versions"], (0, 0))

    def test_not_founded(self) -> None:
        """Else a user sees "unavailable" and does not know which node to start."""
        cluster = SimulatedCluster()
        cluster.start(1)
        host = cluster.network.host(CLIENT_IP)
        link = Link(host, Address(ip_of(1), PORT), Greeting, lambda: 0.5, Deadlines(host))
        link.start()
        cluster.run(1.0)
        answer = cluster.network.result_of(link.call(GetMany, {"keys": [b"a", b"b"]}, 5.0))
        for error in self.errors(answer, 2).values():
            assert isinstance(error, Unavailable)
            self.assertEqual(len(error.waiting_for), 2)

    def test_stopping(self) -> None:
        """T11: a node that is stopped answers what it works on, and refuses what comes after, each
        key with a reason."""
        reading = self.ask(GetMany, keys=[self.second[0]])
        self.cluster.run(0.0015)
        self.cluster.nodes[1].stopService()
        asking = self.ask(PutMany, keys=[self.mine[0], self.second[0]], values=[b"v", b"v"])
        self.assertEqual(self.errors(self.cluster.network.result_of(reading), 1), {})
        errors = self.errors(self.cluster.network.result_of(asking), 2)
        self.assertEqual(sorted(errors), [0, 1])
        for error in errors.values():
            self.assertIsInstance(error, Unavailable)
            self.assertIn("node-1 is stopping", str(error))

    def test_owner_contradicts_itself(self) -> None:
        """Else one owner's bug fails the keys of all the others, which were written: theirs were
        answered well, and the fate of its own is unknown."""
        other_mark = bytes(16) + b"\0\1" + bytes(8)
        changes: tuple[Callable[[Arguments], Arguments], ...] = (
            lambda said: {"versions": said["versions"][:-1]},
            lambda said: {"versions": (*said["versions"], 1)},
            lambda said: {"errors": [None]},
            lambda said: {"errors": []},
            lambda said: {"applied": said["applied"][:-1]},
            lambda said: {"applied": b""},
            lambda said: {"applied": other_mark},
        )
        for change in changes:
            with self.answers_changed(change):
                written = self.put(self.mine[0], self.second[0], self.second[1])
            errors = self.errors(written, 3)
            self.assertEqual(sorted(errors), [1, 2])
            for error in errors.values():
                self.assertIsInstance(error, OutcomeUnknown)
                self.assertIn("node-2", str(error))
            self.assertEqual(len(written["applied"]), 26)

    def test_values_of_another_number(self) -> None:
        """The same, for a read: else values are read under their neighbours' keys."""
        self.put(*self.mine, *self.second)
        with self.answers_changed(lambda said: {"values": said["values"][:-1]}):
            answer = self.get(self.mine[0], self.second[0], self.second[1], timeout_ms=500)
        errors = self.errors(answer, 3)
        self.assertEqual(sorted(errors), [1, 2])
        self.assertEqual(answer["values"][0], b"value of " + self.mine[0])


class LongAnswerTests(BatchTestCase):
    """Answers have bounds; the rest is asked for again."""

    def assert_rest_asked_for_again(self, keys: list[bytes], sizes: list[int]) -> None:
        """Each key arrives, if one goes on asking, no answer is too long, and none is empty."""
        for key, size in zip(keys, sizes, strict=True):
            self.result(Put, key=key, value=b"v" * size)
        wanted = dict(zip(keys, sizes, strict=True))
        while wanted:
            asked = [*wanted]
            answer = self.get(*asked)
            errors = self.errors(answer, len(asked))
            got = {
                key: len(value)
                for key, value in zip(asked, answer["values"], strict=True)
                if value is not None
            }
            self.assertTrue(got)
            if sum(size > 0 for size in got.values()) > 1:
                self.assertLessEqual(sum(got.values()), ANSWER_BYTES_MAX)
            for at, error in errors.items():
                self.assertIs(type(error), Overloaded, asked[at])
            self.assertEqual(len(got) + len(errors), len(asked))
            for key, size in got.items():
                self.assertEqual(wanted.pop(key), size)

    def test_local(self) -> None:
        """T5: else one small request has a node make an answer of gigabytes."""
        keys = [b"{%s}%d" % (self.mine[0], number) for number in range(30)]
        self.assert_rest_asked_for_again(keys, [100_000] * 30)

    def test_forwarded(self) -> None:
        """The same, for the answers of owners, and all of them together."""
        for owned in ([self.second[0]], [self.mine[0], self.second[0], self.third[0]]):
            keys = [b"{%s}%d" % (key, number) for key in owned for number in range(9)]
            self.assert_rest_asked_for_again(keys, [150_000] * len(keys))

    def test_values_longer_than_an_answer(self) -> None:
        """Else a value that is longer than an answer may be can never be read with others."""
        keys = [b"{%s}%d" % (self.mine[0], number) for number in range(5)]
        self.assert_rest_asked_for_again(keys, [10, 2 << 20, 0, (1 << 20) + 1, 1 << 20])
        self.assert_rest_asked_for_again(keys, [2 << 20] * 5)

    def test_at_the_limit(self) -> None:
        """Else answers are shorter, or longer, than documented."""
        keys = [self.mine[0], self.mine[1]]
        half = ANSWER_BYTES_MAX // 2
        for size, errors in ((half - 1, []), (half, []), (half + 1, [1])):
            self.result(PutMany, keys=keys, values=[b"v" * half, b"v" * size])
            self.assertEqual([*self.errors(self.get(*keys), 2)], errors)

    def test_writes_have_short_answers(self) -> None:
        """Else large writes are done, and said not to be."""
        keys = [b"{%s}%d" % (self.mine[0], number) for number in range(20)]
        values = [b"v" * 200_000] * 20
        self.assertEqual(self.errors(self.result(PutMany, keys=keys, values=values), 20), {})


class VeryManyTests(SynchronousTestCase):
    """T5: a box of a few megabytes has room for millions of empty keys."""

    def error(self, limits: Limits, command: Command, keys: list[bytes]) -> KvtwistError | None:
        """How a node of its own answers; the connection lives on."""
        cluster = SimulatedCluster(1, limits)
        cluster.found()
        server = cluster.network.host(ip_of(1)).ports[PORT]
        connection = server.buildProtocol(IPv4Address("TCP", "10.0.2.1", 4000))
        transport = StringTransport()
        connection.makeConnection(transport)
        arguments = {"keys": keys, **({"values": keys} if command is PutMany else {})}
        connection.dataReceived(codec_of(command).write_request(b"1", arguments))
        (box,) = BoxReader(WIDE_OPEN.boxes).feed(transport.value())
        self.assertFalse(transport.disconnecting)
        if ERROR_CODE not in box:
            return None
        return read_failure(box[ERROR_CODE], box[ERROR_DESCRIPTION])

    def test_very_many_keys(self) -> None:
        """Else one request of a few megabytes stops a node for a minute, and takes hundreds of
        times its own size of the node's memory."""
        for command in (GetMany, PutMany):
            error = self.error(Limits(), command, [b""] * (1 << 17))
            assert isinstance(error, TooLarge), "it was carried out"
            self.assertIn(f"{error.setting}={error.limit:,}", str(error))

    def test_at_the_limit(self) -> None:
        """Else the limit is not what its setting says."""
        limits = Limits(keys_per_request_max=3)
        for command in (GetMany, PutMany):
            for count in (2, 3):
                self.assertIsNone(self.error(limits, command, [b"k"] * count))
            error = self.error(limits, command, [b"k"] * 4)
            assert isinstance(error, TooLarge)
            self.assertEqual(
                error.details(), {"setting": "keys_per_request_max", "limit": 3, "actual": 4}
            )

    def test_what_our_client_sends(self) -> None:
        """Else a client's own boxes are refused by a node with default settings."""
        self.assertLessEqual(BOX_KEYS_MAX, Limits().keys_per_request_max)
