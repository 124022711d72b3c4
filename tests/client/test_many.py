"""`get_many` and `put_many`, against whole nodes over the simulated network."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import Client, Record
from kvtwist.client.attempts import GRACE_SECONDS
from kvtwist.client.boxes import MANY_IN_FLIGHT
from kvtwist.client.client import TIMEOUT_SECONDS
from kvtwist.client.many import BOX_BYTES_MAX, BOX_KEYS_MAX
from kvtwist.errors import ManyFailed, OutcomeUnknown, TooLarge, Unavailable
from kvtwist.node.limits import Limits
from kvtwist.wire.commands import Get, GetMany, Put, PutMany
from kvtwist.wire.connection import Arguments, Connection
from tests.cluster import CLIENT_IP, SimulatedCluster, ip_of

Command = type[amp.Command]


class ManyTestCase(SynchronousTestCase):
    """Three nodes, and a client that is connected to all of them.

    :ivar boxes: what the client has sent on data: to whom, which command, how many keys.
    :ivar under_way: how many of them are not answered yet.
    :ivar most_under_way: how many there have been at once.
    """

    limits = Limits(value_bytes_max=4 << 20)

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(limits=self.limits)
        self.cluster.found()
        self.client = self.cluster.client()
        self.warm(self.client)
        self.boxes: list[tuple[int, str, int]] = []
        self.under_way = self.most_under_way = 0
        call = Connection.call

        def noted(
            connection: Connection, command: Command, arguments: Arguments, seconds: float
        ) -> Deferred[Arguments]:
            answer = call(connection, command, arguments, seconds)
            if connection.transport.getHost().host == CLIENT_IP:
                self.note(connection, command, arguments, answer)
            return answer

        self.patch(Connection, "call", noted)

    def note(
        self,
        connection: Connection,
        command: Command,
        arguments: Arguments,
        answer: Deferred[Arguments],
    ) -> None:
        """Take down a call of the client's."""

        def over(result: Any) -> Any:
            self.under_way -= 1
            return result

        if command in (Get, Put, GetMany, PutMany):
            number = int(connection.transport.getPeer().host.rpartition(".")[2])
            self.boxes.append((number, command.__name__, len(arguments.get("keys", [None]))))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            answer.addBoth(over)

    def warm(self, client: Client) -> None:
        """Let a client learn the topology and connect to everybody."""
        for number in (1, 2, 3):
            self.result(client.get(self.cluster.key_of(number)))
            self.cluster.run(0.1)

    def result(self, deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """The result of *deferred*."""
        return self.cluster.network.result_of(deferred, seconds)

    def failed(self, deferred: Deferred[Any], seconds: float = 30.0) -> ManyFailed:
        """The error of *deferred*."""
        error = self.assertRaises(ManyFailed, self.result, deferred, seconds)
        assert isinstance(error, ManyFailed)
        self.assertEqual({*error.results} & {*error.errors}, set())
        return error

    def keys_of(self, number: int, count: int = 4) -> list[str]:
        """Keys that a node owns."""
        tag = self.cluster.key_of(number)
        return [f"{{{tag}}}{at}" for at in range(count)]

    def some_of_each(self, count: int = 4) -> list[str]:
        """Keys of all nodes, by turns."""
        owned = [self.keys_of(number, count) for number in (1, 2, 3)]
        return [key for keys in zip(*owned, strict=True) for key in keys]

    def written(self, keys: list[str], size: int = 5) -> dict[str, Record]:
        """Write keys, each with a value of its own, and say what has to be read."""
        values = {key: (key.encode() + b"." * size)[:size] for key in keys}
        versions = self.result(self.client.put_many(values))
        self.assertEqual([*versions], keys)
        self.boxes.clear()
        return {key: Record(values[key], versions[key]) for key in keys}


class ResultTests(ManyTestCase):
    """What comes out."""

    def test_order_and_values(self) -> None:
        """Else a program that goes through its results pairs them with the wrong keys."""
        keys = self.some_of_each()
        records = self.written(keys)
        for asked in (keys, keys[::-1], sorted(keys)):
            got = self.result(self.client.get_many(asked))
            self.assertEqual([*got.items()], [(key, records[key]) for key in asked])

    def test_the_same_as_alone(self) -> None:
        """Else what was written with others cannot be read alone."""
        for key, record in self.written(self.some_of_each(1)).items():
            self.assertEqual(self.result(self.client.get(key)), record)

    def test_missing(self) -> None:
        """Else a key that does not exist looks like an error, or is left out; and empty is not
        missing."""
        empty, missing, other = self.some_of_each(1)
        self.result(self.client.put_many({empty: b"", other: "text"}))
        got = self.result(self.client.get_many([missing, empty, other]))
        self.assertEqual([*got], [missing, empty, other])
        self.assertIsNone(got[missing])
        self.assertEqual((got[empty].value, got[other].value), (b"", b"text"))

    def test_own_keys(self) -> None:
        """Else a program that asked with text finds nothing under its keys."""
        text, data = self.keys_of(1, 2)
        given: list[Any] = [text, data.encode(), "schlüssel", b"\0\xff"]
        versions = self.result(self.client.put_many(dict.fromkeys(given, "v")))
        self.assertEqual([*versions], given)
        got = self.result(self.client.get_many(given))
        self.assertEqual([*got], given)
        self.assertEqual([got[key].version for key in given], [*versions.values()])

    def test_both_kinds_of_one_key(self) -> None:
        """Else one of two results that a program waits for is not there."""
        both: list[Any] = ["k", b"k"]
        self.result(self.client.put("k", "v"))
        got = self.result(self.client.get_many(both))
        self.assertEqual([*got], both)
        self.assertEqual(got["k"], got[b"k"])

    def test_writing_both_kinds_of_one_key(self) -> None:
        """The same, for a write; and of two values the later one stays, as when they are written
        one after the other."""
        (key,) = self.keys_of(2, 1)
        for first, last in ((key, key.encode()), (key.encode(), key)):
            both: dict[Any, str] = {first: "first", last: "last"}
            versions = self.result(self.client.put_many(both))
            self.assertEqual([*versions], [first, last])
            self.assertLess(versions[first], versions[last])
            record = self.result(self.client.get(key))
            self.assertEqual(record, Record(b"last", versions[last]))

    def test_one_key(self) -> None:
        """Else the shortest list is a special case, and fails."""
        for key in self.some_of_each(1):
            version = self.result(self.client.put_many({key: "v"}))[key]
            got = self.result(self.client.get_many([key]))
            self.assertEqual(got, {key: Record(b"v", version)})

    def test_ten_thousand_keys(self) -> None:
        """Else what works for a hundred keys, in one box each, does not for many boxes."""
        keys = [f"key-{number}" for number in range(10_000)]
        records = self.written(keys, size=12)
        self.assertEqual(len({record.version for record in records.values()}), 10_000)
        self.assertEqual([*self.result(self.client.get_many(keys)).items()], [*records.items()])
        self.assertEqual({name for _, name, _ in self.boxes}, {"GetMany"})
        self.assertEqual(sum(count for _, _, count in self.boxes), 10_000)

    def test_the_same_key_twice(self) -> None:
        """Else a list with repetitions is asked for twice, or fails."""
        (key,) = self.keys_of(2, 1)
        records = self.written([key])
        self.assertEqual(self.result(self.client.get_many([key, key, key])), records)
        self.assertEqual(self.boxes, [(2, "GetMany", 1)])

    def test_anything_iterable(self) -> None:
        """Else only lists can be asked for."""
        records = self.written(self.some_of_each(1))
        self.assertEqual(self.result(self.client.get_many(key for key in records)), records)
        self.assertEqual(self.result(self.client.get_many(records.keys())), records)

    def test_nothing(self) -> None:
        """Else a program whose list happens to be empty waits, or fails."""
        self.assertEqual(self.result(self.client.get_many([])), {})
        self.assertEqual(self.result(self.client.put_many({})), {})
        self.assertEqual(self.boxes, [])

    def test_wrong_types(self) -> None:
        """Else a mistake is found after half of the keys have been written."""
        wrong: Any = {"k": "v", 7: "v"}
        self.assertRaises(TypeError, self.client.put_many, wrong)
        self.assertRaises(TypeError, self.client.get_many, wrong)
        wrong = {"k": "v", "l": None}
        self.assertRaises(TypeError, self.client.put_many, wrong)
        self.cluster.run(1.0)
        self.assertEqual(self.boxes, [])


class BoxTests(ManyTestCase):
    """What is sent."""

    def test_one_box_for_each_owner(self) -> None:
        """Else many keys cost as much as each alone."""
        keys = self.some_of_each(30)
        self.result(self.client.put_many(dict.fromkeys(keys, "v")))
        self.assertEqual(sorted(self.boxes), [(number, "PutMany", 30) for number in (1, 2, 3)])
        self.boxes.clear()
        self.result(self.client.get_many(keys))
        self.assertEqual(sorted(self.boxes), [(number, "GetMany", 30) for number in (1, 2, 3)])

    def test_fresh_client(self) -> None:
        """Else a script that starts, writes ten thousand keys and ends, writes nearly all of them
        one by one: its client has only just begun to connect."""
        keys = self.some_of_each(30)
        for known in ((), (1,)):
            self.boxes.clear()
            client = self.cluster.client(*known)
            self.result(client.put_many(dict.fromkeys(keys, "v")))
            self.assertEqual(sorted(self.boxes), [(number, "PutMany", 30) for number in (1, 2, 3)])

    def test_keys_of_a_box(self) -> None:
        """T5: else one call with a million keys holds a node up for all others."""
        for count, sizes in (
            (BOX_KEYS_MAX - 1, [BOX_KEYS_MAX - 1]),
            (BOX_KEYS_MAX, [BOX_KEYS_MAX]),
            (BOX_KEYS_MAX + 1, [1, BOX_KEYS_MAX]),
            (2 * BOX_KEYS_MAX + 1, [1, BOX_KEYS_MAX, BOX_KEYS_MAX]),
        ):
            keys = self.keys_of(2, count)
            self.assertEqual([*self.written(keys)], keys)
            got = self.result(self.client.get_many(keys))
            self.assertEqual([*got], keys)
            self.assertEqual(sorted(self.boxes), [(2, "GetMany", size) for size in sizes])

    def test_bytes_of_a_box(self) -> None:
        """T5: else one call with large values fills the node's memory, or is refused as a box,
        which says nothing to a user."""
        first, second = self.keys_of(3, 2)
        room = BOX_BYTES_MAX - len(first) - len(second)
        for size, boxes in ((room - 1, [2]), (room, [2]), (room + 1, [1, 1])):
            self.boxes.clear()
            values = {first: b"v" * (room // 2), second: b"v" * (size - room // 2)}
            self.result(self.client.put_many(values))
            self.assertEqual(self.boxes, [(3, "PutMany", count) for count in boxes])
            got = self.result(self.client.get_many(values))
            self.assertEqual({key: record.value for key, record in got.items()}, values)

    def test_value_larger_than_a_box(self) -> None:
        """Else a large value cannot be written with others, though it can alone."""
        small, at_limit, large, larger = self.keys_of(1)
        values = {
            small: b"v",
            at_limit: b"v" * (BOX_BYTES_MAX - len(at_limit)),
            large: b"v" * (BOX_BYTES_MAX - len(large) + 1),
            larger: b"v" * self.limits.value_bytes_max,
        }
        self.result(self.client.put_many(values))
        sent = Counter(name for _, name, _ in self.boxes)
        self.assertEqual(sent, {"PutMany": 2, "Put": 2})
        got = self.result(self.client.get_many(values))
        self.assertTrue({key: record.value for key, record in got.items()} == values)

    def test_long_answers(self) -> None:
        """Else reading many large values fails, or has holes: a node's answer has a bound, and
        the client asks for the rest."""
        keys = self.some_of_each(12)
        records = self.written(keys, size=200_000)
        self.assertEqual(self.result(self.client.get_many(keys)), records)
        self.assertEqual(
            sorted(box for box in self.boxes if box[1] == "GetMany"),
            [(number, "GetMany", 12) for number in (1, 2, 3)],
        )

    def test_in_flight(self) -> None:
        """Else a call with very many keys fills the queues of the nodes, and others have to
        wait behind it."""
        self.cluster.network.host(ip_of(2)).freeze()
        client = self.cluster.client(1)
        keys = self.keys_of(2, 3 * MANY_IN_FLIGHT)
        self.failed(client.get_many(keys))
        self.assertGreater(len(self.boxes), MANY_IN_FLIGHT)
        self.assertLessEqual(self.most_under_way, MANY_IN_FLIGHT)


class TroubleTests(ManyTestCase):
    """What fails, fails for the keys that it concerns."""

    def test_owner_down(self) -> None:
        """Else one dead node takes the keys of all others with it; the error says which keys,
        and which node."""
        keys = self.some_of_each()
        records = self.written(keys)
        dead = self.keys_of(2)
        self.cluster.crash(2)
        self.cluster.run(0.1)
        calls: tuple[Callable[[], Deferred[Any]], ...] = (
            lambda: self.client.get_many(keys),
            lambda: self.client.put_many(dict.fromkeys(keys, "new")),
        )
        for call in calls:
            error = self.failed(call(), 12.0)
            self.assertEqual(sorted(error.errors), dead)
            self.assertEqual({*error.results}, {*keys} - {*dead})
            for each in error.errors.values():
                assert isinstance(each, Unavailable)
                self.assertIn("node-2", str(each))
            self.assertIn("4 of 12 keys failed", str(error))
        got = self.result(self.client.get_many(self.keys_of(1) + self.keys_of(3)))
        for key, record in got.items():
            self.assertEqual(record.value, b"new")
            self.assertGreater(record.version, records[key].version)

    def test_owner_out_of_the_clients_reach(self) -> None:
        """Else a client that reaches some nodes loses the keys of the others, although the nodes
        reach each other: they forward."""
        keys = self.some_of_each()
        records = self.written(keys)
        client = self.cluster.client(1, 3, timeout_seconds=8.0)
        with self.cluster.network.cut(CLIENT_IP, ip_of(2)):
            self.assertEqual(self.result(client.get_many(keys)), records)

    def test_overloaded_node(self) -> None:
        """Else a full queue fails requests that have time to wait: nothing was done, so the
        client backs off and tries again."""
        cluster = SimulatedCluster(limits=Limits(requests_in_flight_max=8))
        cluster.found()
        keys = [f"{{{cluster.key_of(2)}}}{number}" for number in range(30)]
        host, chance = cluster.network.host(CLIENT_IP), random.Random(1).random
        client = Client(host, str(cluster.addresses[0]), chance=chance)
        with cluster.network.cut(CLIENT_IP, ip_of(2)):
            putting = client.put_many(dict.fromkeys(keys, "v"))
            versions = cluster.network.result_of(putting)
            self.assertEqual([*versions], keys)
            self.assertEqual(len(cluster.network.result_of(client.get_many(keys))), 30)
        self.assertEqual(len({*versions.values()}), 30, "none was written twice")

    def test_lost_answer_to_a_write(self) -> None:
        """C1: else a write that may have been done is said not to be, or is done again over what
        somebody else has written since."""
        keys = self.some_of_each()
        lost = self.keys_of(2)
        putting = self.client.put_many(dict.fromkeys(keys, "v"))
        self.cluster.run(0.0015)
        with self.cluster.network.cut(CLIENT_IP, ip_of(2)):
            error = self.failed(putting, 12.0)
        self.assertEqual(sorted(error.errors), lost)
        for each in error.errors.values():
            self.assertIsInstance(each, OutcomeUnknown)
        self.assertEqual({*error.results}, {*keys} - {*lost})
        self.assertEqual(sorted(self.boxes), [(number, "PutMany", 4) for number in (1, 2, 3)])
        first = self.result(self.cluster.client().get_many(lost))
        self.assertEqual([record.value for record in first.values()], [b"v"] * 4)
        self.cluster.run(10)
        self.assertEqual(self.result(self.cluster.client().get_many(lost)), first)
        self.assertFalse([box for box in self.boxes if box[1] == "Put"])

    def test_lost_write(self) -> None:
        """The same, when it is the request that is held up: nobody can tell."""
        keys = self.some_of_each()
        lost = self.keys_of(3)
        with self.cluster.network.cut(CLIENT_IP, ip_of(3)):
            error = self.failed(self.client.put_many(dict.fromkeys(keys, "v")), 12.0)
        self.assertEqual(sorted(error.errors), lost)
        for each in error.errors.values():
            self.assertIsInstance(each, OutcomeUnknown)
        self.assertEqual(sorted(self.boxes), [(number, "PutMany", 4) for number in (1, 2, 3)])

    def test_crash_during_a_write(self) -> None:
        """C1: else a write that was done just before a crash is reported as not done."""
        putting = self.client.put_many(dict.fromkeys(self.some_of_each(), "v"))
        self.cluster.run(0.0005)
        self.cluster.crash(2)
        self.cluster.start(2)
        error = self.failed(putting)
        self.assertEqual(sorted(error.errors), self.keys_of(2))
        for each in error.errors.values():
            self.assertIsInstance(each, OutcomeUnknown)
        self.assertFalse([box for box in self.boxes if box[1] == "Put"])

    def test_crash_between_boxes(self) -> None:
        """The same, when a node has some of its boxes behind it: what it answered stands, and what
        it did not is unknown."""
        lost = self.keys_of(2, 3 * BOX_KEYS_MAX)
        keys = [*lost[:BOX_KEYS_MAX], *self.keys_of(1), *lost[BOX_KEYS_MAX:]]
        self.cluster.network.bytes_per_second = 1e6  # some 25 ms for each box
        putting = self.client.put_many(dict.fromkeys(keys, "v"))
        self.cluster.run(0.042)
        self.cluster.crash(2)
        error = self.failed(putting, 12.0)
        self.assertEqual([*error.results], keys[: BOX_KEYS_MAX + 4])
        self.assertEqual([*error.errors], lost[BOX_KEYS_MAX:])
        for each in error.errors.values():
            self.assertIsInstance(each, OutcomeUnknown)
        self.assertFalse([box for box in self.boxes if box[1] == "Put"])

    def test_crash_during_a_read(self) -> None:
        """Else a restart of one node fails reads that had time to wait: they are asked again."""
        keys = self.some_of_each()
        records = self.written(keys)
        reading = self.client.get_many(keys)
        self.cluster.run(0.0005)
        self.cluster.crash(2)
        self.cluster.start(2)
        got = self.result(reading)
        self.assertEqual([*got], keys)
        lost = dict.fromkeys(self.keys_of(2))  # it keeps nothing on a disk yet
        self.assertEqual(got, records | lost)

    def test_one_key_too_large(self) -> None:
        """Else one value over the limit costs all others; it is not sent again, since that will
        not help."""
        for size in (self.limits.value_bytes_max + 1, 5000):
            with self.subTest(size=size):
                keys = self.some_of_each()
                values = dict.fromkeys(keys, b"v")
                if size == 5000:
                    too_large = keys[4] + "k" * size
                    values[too_large] = b"v"
                else:
                    too_large = keys[4]
                    values[too_large] = b"v" * size
                self.boxes.clear()
                error = self.failed(self.client.put_many(values))
                self.assertEqual([*error.errors], [too_large])
                self.assertIsInstance(error.errors[too_large], TooLarge)
                self.assertEqual({*error.results}, {*values} - {too_large})
                self.assertLessEqual(len(self.boxes), 4)
                self.assertIn(repr(too_large), str(error))

    def test_an_error_for_each(self) -> None:
        """Else keys that fail in different ways all get the error of one of them, or go missing;
        they stand in the order of the call, whichever failed first."""
        dead, *fine = self.some_of_each(1)[::-1]
        long, longer = fine[0] + "k" * 5000, fine[1] + "k" * 5001
        self.cluster.crash(3)
        self.cluster.run(0.1)
        values = {dead: b"v", fine[0]: b"v", longer: b"v", fine[1]: b"v", long: b"v"}
        error = self.failed(self.client.put_many(values), 12.0)
        self.assertEqual([*error.errors], [dead, longer, long])
        self.assertIn("node-3", str(error.errors[dead]))
        for key in (long, longer):
            each = error.errors[key]
            assert isinstance(each, TooLarge)
            self.assertEqual(each.actual, len(key))
        self.assertEqual([*error.results], fine)
        self.assertIn(f"3 of 5 keys failed, the first {dead!r}", str(error))

    @contextmanager
    def answers_changed(self, change: Callable[[Arguments], Arguments]) -> Iterator[None]:
        """Meanwhile answers about many keys arrive with other parts."""
        call = Connection.call

        def changed(
            connection: Connection, command: Command, arguments: Arguments, seconds: float
        ) -> Deferred[Arguments]:
            answer = call(connection, command, arguments, seconds)
            if command in (GetMany, PutMany):
                answer.addCallback(lambda said: said | change(said))
            return answer

        patch = self.patch(Connection, "call", changed)
        yield
        patch.restore()

    def test_answer_that_does_not_fit(self) -> None:
        """Else a value is taken for its neighbour's: what was written is unknown, and what was to
        be read is asked for again."""
        keys = self.keys_of(1)
        records = self.written(keys)
        changes: tuple[Callable[[Arguments], Arguments], ...] = (
            lambda said: {"versions": said["versions"][:-1]},
            lambda said: {"errors": [None] * 3},
            lambda said: {"errors": []},
        )
        for change in changes:
            with self.answers_changed(change):
                self.assertEqual(self.result(self.client.get_many(keys)), records)
                error = self.failed(self.client.put_many(dict.fromkeys(keys, "w")))
            self.assertEqual([*error.errors], keys)
            for each in error.errors.values():
                self.assertIsInstance(each, OutcomeUnknown)
            records = self.written(keys)
        for values in ([b"v"], [b"v"] * 5):
            self.boxes.clear()
            with self.answers_changed(lambda _, values=values: {"values": values}):  # type: ignore[misc]
                self.assertEqual(self.result(self.client.get_many(keys)), records)
            self.assertEqual(Counter(name for _, name, _ in self.boxes), {"GetMany": 1, "Get": 4})

    def test_answer_that_says_more_or_less(self) -> None:
        """Else a node that says of each key that it has no error, or does not say how far it has
        come, is not understood."""
        keys = self.some_of_each()
        with self.answers_changed(
            lambda said: {"errors": [None] * len(said["versions"]), "applied": None}
        ):
            records = self.written(keys)
            self.assertEqual(self.result(self.client.get_many(keys)), records)
        self.assertEqual(sorted(self.boxes), [(number, "GetMany", 4) for number in (1, 2, 3)])

    def test_in_time(self) -> None:
        """Else a call takes the longer the more keys there are for a node that does not answer:
        it ends by its deadline, as every operation does."""
        self.cluster.network.host(ip_of(2)).freeze()
        keys = self.keys_of(1) + self.keys_of(2, 2 * MANY_IN_FLIGHT)
        calls: tuple[Callable[[], Deferred[Any]], ...] = (
            lambda: self.client.get_many(keys),
            lambda: self.client.put_many(dict.fromkeys(keys, "v")),
            lambda: self.cluster.client(1).get_many(keys),
        )
        for call in calls:
            started = self.cluster.network.clock.seconds()
            error = self.failed(call(), 60.0)
            self.assertEqual({*error.results}, {*keys[:4]})
            took = self.cluster.network.clock.seconds() - started
            self.assertLess(took, TIMEOUT_SECONDS + 2 * GRACE_SECONDS)

    def test_cancelled(self) -> None:
        """Else a program that gives a call up leaves it behind, with its keys and values."""
        self.cluster.network.host(ip_of(2)).freeze()
        for keys in (self.some_of_each(), self.keys_of(2, 1)):
            for client in (self.client, self.cluster.client(1)):
                putting = client.put_many(dict.fromkeys(keys, "v"))
                self.cluster.run(0.5)
                putting.cancel()
                self.failureResultOf(putting, CancelledError)
        self.assertEqual(self.under_way, 0)

    def test_closed_meanwhile(self) -> None:
        """Else a program that closes its client waits for ever for what it has asked before, if
        that was much: all that is left ends at once, and must not end one within the other."""
        self.cluster.network.host(ip_of(2)).freeze()
        keys = self.keys_of(2, 3000)
        for client in (self.client, self.cluster.client(1)):
            reading = client.get_many(keys)
            self.cluster.run(3.0)
            client.close()
            error = self.failed(reading, 6.0)
            self.assertEqual({*error.errors}, {*keys})

    def test_nobody_there(self) -> None:
        """The same, without any node."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        client = self.cluster.client()
        started = self.cluster.network.clock.seconds()
        keys = [f"key-{number}" for number in range(2 * MANY_IN_FLIGHT)]
        error = self.failed(client.get_many(keys), 60.0)
        self.assertEqual({*error.errors}, {*keys})
        for each in error.errors.values():
            self.assertIsInstance(each, Unavailable)
        self.assertIn("connection refused", str(error))
        took = self.cluster.network.clock.seconds() - started
        self.assertLess(took, TIMEOUT_SECONDS + 2 * GRACE_SECONDS)
