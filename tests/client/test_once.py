"""Exactly once: whatever is lost on the way, a write that has an answer was carried out once.

Whole nodes with disks, on the simulated network. What is counted are increments, since a put that
is done twice looks as if it had been done once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import ConnectionLost

from kvtwist.client import attempts
from kvtwist.client.sessions import Session
from kvtwist.core.state.outcomes import Counted
from kvtwist.core.state.sessions import ANSWERS_MAX
from kvtwist.errors import (
    KvtwistError,
    ManyFailed,
    NotANumber,
    NotDone,
    OutcomeUnknown,
    OutOfRange,
    TooLarge,
    VersionMismatch,
)
from kvtwist.wire.boxes import ANSWER
from tests.cluster import CLIENT_IP, ip_of
from tests.durable import DurableCase
from tests.simulated import Wire

_ANSWER = bytes((0, len(ANSWER))) + ANSWER


class OnceCase(DurableCase):
    """A client that has opened its sessions already, and a node.

    :ivar asked: how many boxes for each command the nodes were sent.
    """

    def setUp(self) -> None:
        super().setUp()
        self.network = self.cluster.network
        self.asked: dict[str, int] = {}
        self.lost = 0
        self._to_lose = 0
        for number in range(20):
            self.result(self.client.put(f"key-{number}", "0"))
        self.network.overhear = self.overhear

    def overhear(self, wire: Wire, data: bytes) -> None:
        """Count what is asked; lose an answer, and its connection, if that is wanted."""
        for name in ("Put", "PutMany", "Increment", "CompareAndSet", "Delete", "OpenSession"):
            pair = b"\0\x08_command" + len(name).to_bytes(2, "big") + name.encode()
            self.asked[name] = self.asked.get(name, 0) + data.count(pair)
        is_answer = data.startswith(_ANSWER) and b"version" in data
        if self._to_lose and is_answer and wire.other.host.ip == CLIENT_IP:
            self._to_lose -= 1
            self.lost += 1
            for end in (wire.other, wire):
                end.host.callLater(0, end.close, ConnectionLost())

    def lose_answers(self, count: int = 1) -> None:
        """The next answers, of which each ends its connection."""
        self._to_lose = count

    def number(self, key: str) -> int:
        """What is under *key*."""
        return int(self.get(key) or b"0")

    def session_of(self, key: str) -> Session:
        """The client's, for that key."""
        session = self.slot_of(key).session
        assert isinstance(session, Session)
        return session

    def slot_of(self, key: str) -> Any:
        """Where it is kept."""
        table = self.client._leaders.table
        assert table is not None
        return self.client._sessions.slots[table.partition_of(key.encode())]

    def outcome(self, deferred: Deferred[Any]) -> Any:
        """The result, or the error."""
        try:
            return self.result(deferred)
        except KvtwistError as error:
            return error


class LostAnswerTests(OnceCase):
    """The write was done, and its answer is lost."""

    def test_each_write(self) -> None:
        """Else a write that was done is reported as unknown, or is done twice, or a comparison
        that has succeeded fails, since it finds what it has written itself."""
        version = self.put("key-1", "1")
        self.lose_answers()
        self.assertEqual(self.put("key-1", "2"), version + 1)
        self.lose_answers()
        swapped = self.result(self.client.compare_and_set("key-1", "3", version + 1))
        self.assertEqual(swapped, version + 2)
        self.lose_answers()
        counted = self.result(self.client.increment("key-1"))
        self.assertEqual(counted, Counted(version + 3, 4))
        version += 3
        self.assertEqual(self.result(self.client.get("key-1")).version, version)
        self.assertEqual(self.get("key-1"), b"4")
        self.lose_answers()
        self.assertIs(self.result(self.client.delete("key-1", version=version)), True)
        self.assertEqual(self.lost, 4)

    def test_many_in_a_row(self) -> None:
        """The sum is exact, whatever is lost (C2)."""
        for expected in range(1, 31):
            self.lose_answers(expected % 3)
            counted = self.result(self.client.increment("key-2"))
            self.assertEqual(counted.number, expected)
        self.assertEqual(self.number("key-2"), 30)
        self.assertGreater(self.lost, 25)

    def test_a_comparison_that_fails(self) -> None:
        """C4, as far as it goes: of an answer that has to be told again the version is known, the
        value is not; it must not look like a key that does not exist, or like nonsense."""
        version = self.put("key-1", "seen")
        for write in (
            lambda: self.client.compare_and_set("key-1", "x", version + 7),
            lambda: self.client.delete("key-1", version=version + 7),
        ):
            self.lose_answers()
            error = self.outcome(write())
            self.assertIsInstance(error, VersionMismatch)
            self.assertEqual((error.version, error.value), (version, None))
            self.assertIn(f"it is at version {version}", str(error))
            error = self.outcome(write())
            self.assertEqual((error.version, error.value), (version, b"seen"))

    def test_the_answer_is_of_its_time(self) -> None:
        """A retry is answered as the write was, though somebody has written since."""
        other = self.cluster.client()
        self.result(other.increment("key-3"))
        self.lose_answers()
        ours = self.client.increment("key-3")
        self.cluster.run(0.004)
        self.assertEqual(self.lost, 1)
        self._to_lose = 0
        self.result(other.increment("key-3", 100))
        self.assertEqual(self.result(ours).number, 2)
        self.assertEqual(self.number("key-3"), 102)

    def test_cannot_be_incremented(self) -> None:
        """What cannot be added to is an answer, and stays the same one."""
        self.put("key-4", "text")
        version = self.put("key-5", "9223372036854775807")
        for lost in (0, 1):
            self.lose_answers(lost)
            self.assertIs(type(self.outcome(self.client.increment("key-4"))), NotANumber)
            self.lose_answers(lost)
            error = self.outcome(self.client.increment("key-5"))
            self.assertIs(type(error), OutOfRange)
            self.assertEqual(error.version, version)
        self.assertEqual(self.result(self.client.increment("key-5", -(2**63))).number, -1)

    def test_many_keys(self) -> None:
        """Else keys of a box whose answer is lost are unknown, or written twice: their versions say
        how often."""
        wanted = {f"key-{number}": "many" for number in range(20)}
        before = self.result(self.client.get_many(wanted))
        self.asked.clear()
        self.lose_answers()
        versions = self.result(self.client.put_many(wanted))
        self.assertEqual((self.lost, self.asked["PutMany"], self.asked["Put"]), (1, 1, 20))
        found = self.result(self.client.get_many(wanted))
        self.assertEqual({key: record.version for key, record in found.items()}, versions)
        for key in wanted:
            grown = sum(self.slot_of(other) is self.slot_of(key) for other in wanted)
            self.assertLessEqual(versions[key] - before[key].version, 2 * grown - 1)
        highest = max(versions.values())
        again = self.result(self.client.put_many(wanted))
        self.assertLess(max(again.values()) - highest, 20 + 1)

    def test_marks(self) -> None:
        """Else the partition keeps the answers to all that was ever written."""
        self.lose_answers(3)
        self.result(self.client.increment("key-1"))
        self.result(self.client.put_many({f"key-{number}": "x" for number in range(20)}))
        self.outcome(self.client.compare_and_set("key-2", "x", 1 << 40))
        self.outcome(self.client.put("key-3", "x" * (17 << 20)))
        for slot in self.client._sessions.slots:
            assert slot.session is not None
            self.assertEqual(slot.session.mark, slot.session._next)
            self.assertEqual(slot.session._unanswered, set())


class RestartTests(OnceCase):
    """The node is killed."""

    def test_increments(self) -> None:
        """C2: the answers are on the disk with what was written; so the sum is exact across the
        node's death, and only what nobody can know is reported as unknown."""
        chance = random.Random(4)
        known = unknown = 0
        for _ in range(12):
            writes = [self.client.increment("key-6") for _ in "123"]
            self.cluster.run(chance.random() * 0.006)
            self.cluster.crash(1)
            self.cluster.run(chance.random())
            self.cluster.start_node(1)
            for write in writes:
                outcome = self.outcome(write)
                if isinstance(outcome, OutcomeUnknown):
                    unknown += 1
                else:
                    known += 1
                    self.assertLessEqual(known, outcome.number)
        self.assertEqual(unknown, 0, "the node was back long before the deadline")
        self.assertEqual(self.number("key-6"), known)

    def test_it_stays_away(self) -> None:
        """Promise 5: by its deadline a write that was sent is unknown, one that was not is not."""
        key = "key-7"
        sent = self.client.increment(key)
        self.cluster.run(0.0005)
        self.cluster.crash(1)
        self.cluster.run(0.1)
        unsent = self.client.increment(key)
        self.cluster.run(5.5)
        self.assertIsInstance(self.failureResultOf(sent).value, OutcomeUnknown)
        self.assertIsInstance(self.failureResultOf(unsent).value, NotDone)
        self.restart()
        self.assertIn(self.number(key), (0, 1))


class FrozenTests(OnceCase):
    """The node does not answer for a while, and then does all that it was sent."""

    def freeze(self, seconds: float) -> None:
        host = self.network.host(ip_of(1))
        host.freeze()
        host.callLater(seconds, lambda: None)
        self.cluster.run(seconds)
        host.thaw()

    def test_all_attempts_arrive(self) -> None:
        """C6, C2: attempts that waited in a frozen node's socket are one write."""
        self.asked.clear()
        writes = [self.client.increment("key-8") for _ in range(3)]
        self.freeze(3.0)
        numbers = sorted(self.result(write).number for write in writes)
        self.assertEqual(numbers, [1, 2, 3])
        self.assertGreaterEqual(self.asked["Increment"], 6)
        self.cluster.run(2.0)
        self.assertEqual(self.number("key-8"), 3)

    def test_an_attempt_costs_a_second(self) -> None:
        """Else a leader that is frozen costs a write all the time that it has."""
        self.asked.clear()
        writing = self.client.put("key-8", "x")
        self.network.host(ip_of(1)).freeze()
        self.cluster.run(1.4)
        self.assertEqual(self.asked["Put"], 2)
        writing.cancel()
        self.failureResultOf(writing, CancelledError)

    def test_the_session_expires_between_attempts(self) -> None:
        """C6: who can say whether the first attempt was carried out? It is not done twice."""
        self.patch(attempts, "IDLE_MS", 500)
        client = self.cluster.client()
        self.result(client.increment("key-9"))
        self.cluster.run(0.2)
        writing = client.increment("key-9")
        self.cluster.run(0.0005)
        with self.network.cut(CLIENT_IP, ip_of(1)):
            self.cluster.run(2.0)
        other = self.cluster.client()
        self.result(other.increment("key-9", 10))
        outcome = self.outcome(writing)
        self.assertIsInstance(outcome, OutcomeUnknown)
        self.assertIn("there is no session", str(outcome))
        self.cluster.run(5.0)
        self.assertEqual(self.number("key-9"), 11)
        self.assertEqual(self.result(client.increment("key-9")).number, 12)

    def test_a_session_that_has_expired(self) -> None:
        """Else a program that has been idle for ten minutes is told that its write failed."""
        self.patch(attempts, "IDLE_MS", 500)
        client = self.cluster.client()
        for expected in range(1, 4):
            self.asked.clear()
            self.assertEqual(self.result(client.increment("key-9")).number, expected)
            self.assertEqual(self.asked["OpenSession"], 1)
            self.cluster.run(1.0)
        self.result(client.put("key-9", "0"))
        self.cluster.run(1.0)
        self.result(client.put_many({f"key-{number}": "x" for number in range(20)}))

    def test_deadline_in_the_midst(self) -> None:
        """An attempt that was sent, and others that were refused: still unknown."""
        writing = self.client.put("key-8", "x")
        self.cluster.run(0.0005)
        with self.network.cut(CLIENT_IP, ip_of(1)):
            self.cluster.run(1.3)
        self.cluster.crash(1)
        self.assertIsInstance(self.outcome(writing), OutcomeUnknown)


class ManyInFlightTests(OnceCase):
    """More writes at once than the partition remembers."""

    def test_window(self) -> None:
        """Else they are refused as too far ahead; none is lost, none done twice."""
        count = 2 * ANSWERS_MAX + 100
        self.lose_answers()
        results = self.result(
            gatherResults([self.client.increment("key-10") for _ in range(count)])
        )
        self.assertEqual({each.number for each in results}, {*range(1, count + 1)})
        self.assertEqual(self.lost, 1)

    def test_window_that_is_held(self) -> None:
        """One write that has no answer yet holds the mark; what waits for room goes on after it."""
        writes = [self.client.put("key-10", str(number)) for number in range(ANSWERS_MAX)]
        first = self.session_of("key-10").mark
        late = self.client.increment("key-11{key-10}")
        many = self.client.put_many({f"{number}{{key-10}}": "x" for number in range(1500)})
        self.assertLessEqual(self.session_of("key-10")._next, first + ANSWERS_MAX)
        self.result(gatherResults(writes))
        self.result(late)
        self.assertEqual(len(self.result(many)), 1500)

    def test_boxes_that_wait_for_each_other(self) -> None:
        """Else two calls on many keys, each with room in one partition that the other waits for,
        wait until their time is up."""
        tags = [f"key-{number}" for number in range(4)]
        calls = [
            self.client.put_many(
                {f"{at}-{call}{{{tag}}}": "x" for tag in order for at in range(900)}
            )
            for call, order in enumerate((tags, tags[::-1], tags, tags[::-1]))
        ]
        for call in calls:
            self.assertEqual(len(self.result(call)), 3600)

    def test_cancelled(self) -> None:
        """Else a write that its caller has given up holds the mark for ever, and with it, in the
        end, all writes."""
        for write in (
            lambda: self.client.put("key-12", "x"),
            lambda: self.client.increment("key-12"),
            lambda: self.client.put_many({f"key-{number}": "x" for number in range(20)}),
        ):
            for seconds in (0.0, 0.0005, 1.3):
                self.network.host(ip_of(1)).freeze()
                writing = write()
                self.cluster.run(seconds)
                writing.cancel()
                self.failureResultOf(writing, CancelledError)
                self.network.host(ip_of(1)).thaw()
                self.cluster.run(0.5)
                for slot in self.client._sessions.slots:
                    assert slot.session is not None
                    self.assertEqual(slot.session._unanswered, set())
        self.result(self.client.put("key-12", "7"))
        self.assertEqual(self.result(self.client.increment("key-12")).number, 8)

    def test_closed(self) -> None:
        """A write under way when the client is closed is unknown; nothing waits on."""
        self.network.host(ip_of(1)).freeze()
        writes = [self.client.put("key-12", str(number)) for number in range(ANSWERS_MAX + 5)]
        self.cluster.run(0.1)
        self.client.close()
        self.cluster.run(1.0)
        errors = [self.failureResultOf(write).value for write in writes]
        self.assertIsInstance(errors[0], OutcomeUnknown)
        self.assertTrue(all(isinstance(error, (OutcomeUnknown, NotDone)) for error in errors))


class RefusedTests(OnceCase):
    """What a node refuses."""

    def test_generation(self) -> None:
        """Else a client goes on failing after a replica of a partition has moved."""
        session = self.session_of("key-13")
        session.generation = 9
        self.assertEqual(self.result(self.client.increment("key-13")).number, 1)
        self.assertEqual(session.generation, 1)
        session.generation = 9
        self.result(self.client.put_many({"key-13": "x"}))
        self.assertIs(self.session_of("key-13"), session)

    def test_too_large(self) -> None:
        """What no node takes is refused, is no reason to open a session anew, and one key's error
        is not another's."""
        large = "x" * (17 << 20)
        self.assertIsInstance(self.outcome(self.client.put("key-14", large)), TooLarge)
        long = "{key-14}" + "k" * 5000
        self.assertIsInstance(self.outcome(self.client.put(long, "x")), TooLarge)
        self.assertEqual(self.session_of("key-14")._unanswered, set())
        error = self.outcome(self.client.put_many({"key-14": "small", "k" * 5000: "x"}))
        self.assertIsInstance(error, ManyFailed)
        self.assertEqual([*error.results], ["key-14"])
        self.assertIsInstance(error.errors["k" * 5000], TooLarge)

    def test_first_writes(self) -> None:
        """A client that has written nothing yet: keys that are too long fail, the others do not."""
        client = self.cluster.client()
        long = [client.put("k" * 5000 + str(number), "x") for number in range(9)]
        good = [client.increment(f"key-{number}", 1) for number in range(9)]
        for write in long:
            self.assertIsInstance(self.outcome(write), TooLarge)
        self.result(gatherResults(good))


class ForwardingTests(OnceCase):
    """Three nodes: what is passed on."""

    size = 3
    partitions = 16

    def on(self, number: int) -> str:
        """Some key that a node owns."""
        return self.cluster.key_of(number)

    def test_a_frozen_leader(self) -> None:
        """Else a leader that is frozen costs each write all of its time, though another node leads
        after a second."""
        key = self.on(2)
        for write in (
            lambda: self.client.put(key, "7"),
            lambda: self.client.increment(key, 5),
            lambda: self.client.put_many({key: "1", key + "{" + key: "2"}),
        ):
            self.result(self.client.put(key, "0"))
            self.cluster.run(3.0)
            self.network.host(ip_of(2)).freeze()
            started = self.network.clock.seconds()
            self.result(write())
            self.assertLess(self.network.clock.seconds() - started, 2.5)
            self.network.host(ip_of(2)).thaw()
            self.cluster.run(8.0)

    def test_lost_on_either_way(self) -> None:
        """The sum is exact, whether the client or the node in between misses the answer."""
        client = self.cluster.client(1)
        key = self.on(2)
        self.result(client.put(key, "0"))
        expected = 0
        for one, other in ((CLIENT_IP, ip_of(2)), (ip_of(1), ip_of(2)), (CLIENT_IP, ip_of(1))):
            for seconds in (0.0005, 0.0015, 0.0025):
                expected += 1
                writing = client.increment(key)
                self.cluster.run(seconds)
                with self.network.cut(one, other):
                    self.cluster.run(2.0)
                self.assertEqual(self.result(writing).number, expected)
        self.assertEqual(self.number(key), expected)

    def test_a_node_in_between_never_sends_twice(self) -> None:
        """C3: it does not know what becomes of the write; with a session or without one."""
        key = self.on(2)
        client = self.cluster.client(1, 3)
        self.result(client.put(key, "0"))
        with self.network.cut(CLIENT_IP, ip_of(2)):
            self.cluster.run(6.0)
            self.network.host(ip_of(2)).freeze()
            between = self.boxes_to(2)
            counted = self.result(client.increment(key))
        self.assertEqual(counted.number, 1, "another node leads by now")
        self.network.host(ip_of(2)).thaw()
        self.cluster.run(3.0)
        self.assertEqual(self.number(key), 1)
        sent = self.asked["Increment"] - len(between)
        self.assertGreater(len(between), 0)
        self.assertLessEqual(len(between), sent)

    def boxes_to(self, number: int) -> list[Wire]:
        """Notes each increment that another node sends to this one."""
        seen: list[Wire] = []
        before: Callable[[Wire, bytes], None] = self.network.overhear

        def overhear(wire: Wire, data: bytes) -> None:
            before(wire, data)
            if wire.other.host.ip == ip_of(number) and wire.host.ip != CLIENT_IP:
                seen.extend([wire] * data.count(b"Increment"))

        self.network.overhear = overhear
        return seen
