"""Writes with sessions, and increments, as somebody with a client of their own sends them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.sessions import ANSWERS_MAX, SESSIONS_MAX
from kvtwist.core.topology import Settings
from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    NotANumber,
    OutcomeUnknown,
    OutOfRange,
    SessionRefused,
    Unavailable,
    WrongGeneration,
)
from kvtwist.wire.commands import (
    CompareAndSet,
    Delete,
    Get,
    Increment,
    OpenSession,
    Put,
    PutMany,
)
from kvtwist.wire.failures import unpack_failure
from kvtwist.wire.once import pack_once
from tests.cluster import CLIENT_IP, SimulatedCluster, ip_of
from tests.durable import DurableCluster
from tests.simulated import Wire

IDLE_MS = 60_000

Command = type[amp.Command]


class AskingCase(SynchronousTestCase):
    """Asks a node, once, and says what it answers."""

    cluster: SimulatedCluster

    def ask(self, command: Command, number: int = 1, **arguments: Any) -> Any:
        """The answer of a node; or the error."""
        said = {
            name: value.encode() if isinstance(value, str) else value
            for name, value in arguments.items()
        }
        try:
            return self.result(self.client.ask(self.cluster.addresses[number - 1], command, said))
        except KvtwistError as error:
            return error

    def result(self, deferred: Deferred[Any]) -> Any:
        return self.cluster.network.result_of(deferred)

    def begin(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.cluster.found()
        self.client = self.cluster.client()


class DurableTests(AskingCase):
    """A node with a disk; one partition."""

    def setUp(self) -> None:
        cluster = DurableCluster(1, partitions=1)
        self.addCleanup(cluster.cleanup)
        self.begin(cluster)
        opened = self.ask(OpenSession, key="k", idle_ms=IDLE_MS)
        self.session, self.generation = opened["session"], opened["generation"]

    def once(self, seq: int, lowest: int = 0, session: int = 0, generation: int = 0) -> bytes:
        """What names a write."""
        return pack_once(generation or self.generation, session or self.session, seq, lowest)

    def test_each_write_twice(self) -> None:
        """C2: the second time the answer is the same, and nothing is done."""
        steps: list[tuple[Command, dict[str, Any]]] = [
            (Put, {"value": "1"}),
            (Increment, {"delta": 41}),
            (CompareAndSet, {"value": "x", "version": 2}),
            (Increment, {"delta": 1}),
            (Delete, {"version": None}),
            (Delete, {"version": None}),
            (CompareAndSet, {"value": "7", "version": 0}),
        ]
        for seq, (command, arguments) in enumerate(steps):
            answers = [self.ask(command, key="k", once=self.once(seq), **arguments) for _ in "12"]
            if isinstance(answers[0], KvtwistError):
                self.assertEqual(type(answers[0]), type(answers[1]))
                self.assertEqual(answers[0].details(), answers[1].details())
            else:
                for answer in answers:
                    answer.pop("applied")
                self.assertEqual(*answers)
        record = self.ask(Get, key="k")
        self.assertEqual((record["version"], record["value"]), (5, b"7"))

    def test_a_comparison_that_fails_twice(self) -> None:
        """C4: the second time the version is known, the value is not."""
        self.ask(Put, key="k", value="seen")
        steps: list[tuple[Command, dict[str, Any]]] = [
            (CompareAndSet, {"value": "x"}),
            (Delete, {}),
        ]
        for command, arguments in steps:
            once = self.once(seq=len(arguments))
            first, second = (
                self.ask(command, key="k", version=9, once=once, **arguments) for _ in "12"
            )
            self.assertEqual((first["version"], first["value"]), (1, b"seen"))
            self.assertEqual((second["version"], second["value"]), (1, None))
            self.assertEqual((first["done"], second["done"]), (False, False))

    def test_refusals(self) -> None:
        """Else a client cannot tell a write that it must begin anew from one that it must not
        send again, or only later."""
        self.ask(Put, key="k", value="1", once=self.once(seq=4, lowest=3))
        for once, kind, details in (
            (self.once(seq=2), SessionRefused, {"reason": "below_mark"}),
            (self.once(seq=3 + ANSWERS_MAX), SessionRefused, {"reason": "beyond_window"}),
            (self.once(seq=5, session=999), SessionRefused, {"reason": "unknown"}),
            (self.once(seq=5, generation=9), WrongGeneration, {"generation": self.generation}),
        ):
            for command, arguments in (
                (Put, {"value": "2"}),
                (Delete, {}),
                (Increment, {"delta": 1}),
                (CompareAndSet, {"value": "2", "version": 1}),
            ):
                error = self.ask(command, key="k", once=once, **arguments)
                self.assertIs(type(error), kind)
                self.assertEqual(error.details(), details)
        self.assertEqual(self.ask(Get, key="k")["value"], b"1")

    def test_expired(self) -> None:
        """C6: nothing is done, and the session does not begin again."""
        session = self.ask(OpenSession, key="k", idle_ms=500)["session"]
        self.cluster.run(1.0)
        for seq in (0, 0, 1):
            error = self.ask(Put, key="k", value="1", once=self.once(seq, session=session))
            self.assertEqual((type(error), error.reason), (SessionRefused, "unknown"))
        self.assertEqual(self.ask(Get, key="k")["version"], 0)

    def test_too_many_sessions(self) -> None:
        """Else clients that come and go fill the memory of all replicas; and what is said of it
        is no error that a client knows."""
        outcomes: list[Any] = []
        for _ in range(SESSIONS_MAX // 512):
            asked = [
                self.client.ask(
                    self.cluster.addresses[0], OpenSession, {"key": b"k", "idle_ms": IDLE_MS}
                ).addErrback(lambda failure: failure.value)
                for _ in range(512)
            ]
            outcomes += [self.result(each) for each in asked]
        self.assertEqual(sum(isinstance(each, dict) for each in outcomes), SESSIONS_MAX - 1)
        (refused,) = (each for each in outcomes if not isinstance(each, dict))
        self.assertEqual((type(refused), refused.reason), (SessionRefused, "too_many_sessions"))

    def test_malformed(self) -> None:
        """T4: it is said, and the connection lives on; nothing is done."""
        for once in ("", "x", b"x" * 33, pack_once(1, 0, 1, 0)):
            error = self.ask(Put, key="k", value="1", once=once)
            self.assertIsInstance(error, MalformedRequest)
        for onces in (b"", self.once(1), self.once(1) * 3):
            error = self.ask(PutMany, keys=[b"a", b"b"], values=[b"1", b"2"], onces=onces)
            self.assertIsInstance(error, MalformedRequest)
        self.assertEqual(self.ask(Get, key="k")["version"], 0)

    def test_many(self) -> None:
        """Each key is a write of its own, with an answer of its own."""
        onces = b"".join(self.once(seq) for seq in (0, 1, 2))
        keys, values = [b"a", b"b", b"c"], [b"1", b"2", b"3"]
        for _ in range(2):
            answer = self.ask(PutMany, keys=keys, values=values, onces=onces)
            self.assertEqual((answer["versions"], answer["errors"]), ((1, 2, 3), None))
        onces = self.once(3) + self.once(1) + self.once(4, session=999)
        answer = self.ask(PutMany, keys=keys, values=[b"x"] * 3, onces=onces)
        self.assertEqual(answer["versions"], (4, 2, 0))
        error = unpack_failure(answer["errors"][2])
        self.assertIsInstance(error, SessionRefused)
        self.assertEqual([self.ask(Get, key=key)["value"] for key in keys], [b"x", b"2", b"3"])

    def test_numbers(self) -> None:
        """What cannot be added to says so, with its version, and stays."""
        self.ask(Put, key="k", value="x")
        error = self.ask(Increment, key="k", delta=1)
        self.assertEqual((type(error), error.version), (NotANumber, 1))
        self.ask(Put, key="k", value="-9223372036854775808")
        error = self.ask(Increment, key="k", delta=-1)
        self.assertEqual((type(error), error.version), (OutOfRange, 2))
        answer = self.ask(Increment, key="new", delta=-5)
        self.assertEqual((answer["version"], answer["total"]), (3, -5))


class MemoryTests(AskingCase):
    """A cluster in memory: no sessions."""

    def setUp(self) -> None:
        self.begin(SimulatedCluster(1))

    def test_no_sessions(self) -> None:
        """Else somebody sends a write again who believes that it is done once."""
        answer = self.ask(OpenSession, key="k", idle_ms=IDLE_MS)
        self.assertEqual((answer["session"], answer["generation"]), (0, 0))
        once = pack_once(1, 7, 0, 0)
        for command, arguments in (
            (Put, {"key": "k", "value": "1", "once": once}),
            (Increment, {"key": "k", "delta": 1, "once": once}),
            (PutMany, {"keys": [b"k"], "values": [b"1"], "onces": once}),
        ):
            error = self.ask(command, **arguments)
            self.assertEqual((type(error), error.reason), (SessionRefused, "unknown"))
        self.assertEqual(self.ask(Get, key="k")["version"], 0)

    def test_increment(self) -> None:
        """The same as on a disk."""
        first = self.ask(Increment, key="k", delta=5)
        second = self.ask(Increment, key="k", delta=-7)
        self.assertEqual((first["total"], second["total"]), (5, -2))
        self.assertEqual(second["version"], first["version"] + 1)
        self.ask(Put, key="k", value="9223372036854775807")
        self.assertIs(type(self.ask(Increment, key="k", delta=1)), OutOfRange)
        self.ask(Put, key="k", value="")
        self.assertIs(type(self.ask(Increment, key="k", delta=1)), NotANumber)


class ForwardedTests(AskingCase):
    """Three nodes, each with data that the others have not, and one that is asked for theirs."""

    def setUp(self) -> None:
        cluster = DurableCluster(3, partitions=16)
        cluster.settings = Settings(partitions=16, replicas=1, durable=True)
        self.addCleanup(cluster.cleanup)
        self.begin(cluster)

    def test_passed_on(self) -> None:
        """Else a session works only for who knows the owner: what names the write is lost on the
        way, or goes to another key."""
        keys = [self.cluster.key_of(number) for number in (2, 3)]
        onces = []
        for seq, key in enumerate(keys):
            opened = self.ask(OpenSession, 1, key=key, idle_ms=IDLE_MS)
            onces.append(pack_once(opened["generation"], opened["session"], seq, 0))
        first = self.ask(
            PutMany,
            1,
            keys=[key.encode() for key in keys],
            values=[b"1", b"2"],
            onces=b"".join(onces),
        )
        self.assertIsNone(first["errors"])
        for key, once, version in zip(keys, onces, first["versions"], strict=True):
            again = self.ask(Put, 1, key=key, value="again", once=once)
            self.assertEqual(again["version"], version)
            self.assertIn(self.ask(Get, 1, key=key)["value"], (b"1", b"2"))

    def test_never_twice(self) -> None:
        """C3: a node that gets no answer does not send a write again, with a session or without:
        who has sent it to the node may, if it has one."""
        key = self.cluster.key_of(2)
        opened = self.ask(OpenSession, 1, key=key, idle_ms=IDLE_MS)
        sent: list[Wire] = []

        def overhear(wire: Wire, data: bytes) -> None:
            if wire.host.ip != CLIENT_IP and wire.other.host.ip == ip_of(2):
                sent.extend([wire] * data.count(b"Increment"))

        self.cluster.network.overhear = overhear
        for once in (None, pack_once(opened["generation"], opened["session"], 0, 0)):
            sent.clear()
            host = self.cluster.network.host(ip_of(2))
            host.freeze()
            outcome = self.ask(Increment, 1, key=key, delta=1, once=once)
            self.assertIsInstance(outcome, (OutcomeUnknown, Unavailable))
            host.thaw()
            self.cluster.run(5.0)
            self.assertEqual(len(sent), 1)
        self.assertEqual(self.ask(Get, 1, key=key)["value"], b"2")
