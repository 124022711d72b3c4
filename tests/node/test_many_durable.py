"""Requests for many keys on a node with a disk: each key ends for itself."""

from __future__ import annotations

from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.answers import Written
from kvtwist.core.state.outcomes import Changed
from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from kvtwist.node.replica import Replica
from kvtwist.node.waiting import Reader, Writer
from kvtwist.wire.applied import unpack_applied
from kvtwist.wire.boxes import ERROR_CODE
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import GetMany, PutMany
from kvtwist.wire.connection import Arguments
from kvtwist.wire.failures import unpack_failure
from tests.node.test_short_way_durable import PARTITIONS, Asked

KEYS = [b"a", b"b", b"c", b"d"]
TAG = b"1"


class ManyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.node = Asked()
        self.addCleanup(self.node.cleanup)

    def put_many(self, seconds: float = 0.5, values: bytes = b"v") -> Arguments:
        """All keys at once, over a connection of its own: the answer after some time."""
        said = {"keys": KEYS, "values": [values] * len(KEYS), "timeout_ms": 1000}
        return self.answer(PutMany, said, seconds)

    def get_many(self, seconds: float = 0.5) -> Arguments:
        """Likewise."""
        return self.answer(GetMany, {"keys": KEYS, "timeout_ms": 1000}, seconds)

    def answer(
        self, command: type[PutMany | GetMany], said: Arguments, seconds: float
    ) -> Arguments:
        self.node.say(codec_of(command).write_request(TAG, said))
        (box,) = self.node.heard(seconds)
        self.assertNotIn(ERROR_CODE, box)
        return codec_of(command).read_answer(box)

    def test_each(self) -> None:
        """What was written is found, each with the version that was said."""
        put = self.put_many()
        self.assertIsNone(put["errors"])
        got = self.get_many()
        self.assertEqual(got["versions"], put["versions"])
        self.assertEqual(got["values"], [b"v"] * len(KEYS))
        cluster_id, _ = self.node.router.owned()
        for answer in (put, got):
            applied = {at: self.node.partitions.applied(at) for at in range(PARTITIONS)}
            self.assertEqual(unpack_applied(cluster_id, answer["applied"]), applied)

    def test_their_time(self) -> None:
        """Promise 5, C1: a key that nobody answers for is unknown when the time is up, the others
        are done; and what comes after that changes nothing."""
        self.put_many()
        late: list[Writer] = []
        offer = Replica.offer

        def keep(replica: Replica, entry: bytes, writer: Writer) -> KvtwistError | None:
            if b"cnew" not in entry:
                return offer(replica, entry, writer)
            late.append(writer)
            return None

        with mock.patch.object(Replica, "offer", keep):
            answer = self.put_many(1.2, b"new")
        (writer,) = late
        writer.applied(Written((Changed(99),)))
        self.assertEqual([version > 0 for version in answer["versions"]], [True, True, False, True])
        self.assertIsInstance(unpack_failure(answer["errors"][2]), OutcomeUnknown)
        self.assertEqual([error is None for error in answer["errors"]].count(False), 1)

    def test_reads_out_of_time(self) -> None:
        """The same of a read: it is not done."""
        self.put_many()
        asked: list[Reader] = []

        def keep(_: Replica, reader: Reader) -> None:
            asked.append(reader)

        with mock.patch.object(Replica, "ask", keep):
            answer = self.get_many(1.2)
        for reader in asked:
            reader.found(None)
        errors = [unpack_failure(error) for error in answer["errors"]]
        self.assertEqual({type(error) for error in errors}, {Unavailable})

    def test_refused_at_first(self) -> None:
        """A key that is refused is tried again while there is time; the others are written once."""
        versions = self.put_many()["versions"]
        refusals = [Overloaded("for a test", setting="uncommitted_bytes_max")] * 2
        offer = Replica.offer

        def refuse(replica: Replica, entry: bytes, writer: Writer) -> KvtwistError | None:
            if b"cnew" in entry and refusals:
                return refusals.pop()
            return offer(replica, entry, writer)

        before = self.revisions()
        with mock.patch.object(Replica, "offer", refuse):
            answer = self.put_many(0.9, b"new")
        self.assertIsNone(answer["errors"])
        self.assertEqual(self.revisions() - before, len(KEYS))
        self.assertTrue(all(map(int.__gt__, answer["versions"], versions)))

    def test_names_that_are_none(self) -> None:
        """A write that names no session is refused, as it is alone: nobody could send it again."""
        self.put_many()
        before = self.revisions()
        said = {"keys": KEYS, "values": [b"w"] * len(KEYS), "onces": bytes(32 * len(KEYS))}
        answer = self.answer(PutMany, said, 0.5)
        errors = {type(unpack_failure(error)) for error in answer["errors"]}
        self.assertEqual((errors, self.revisions()), ({MalformedRequest}, before))

    def revisions(self) -> int:
        """How often all partitions have changed."""
        replicas = self.node.partitions._replicas.all()
        return sum(replica.revision for replica in replicas.values())

    def test_an_answer_that_makes_no_sense(self) -> None:
        """It is that key's error, and no version."""
        self.put_many()

        def odd(_: Replica, __: bytes, writer: Writer) -> None:
            writer.applied(Written(()))

        with mock.patch.object(Replica, "offer", odd):
            answer = self.put_many(0.5, b"new")
        self.assertEqual([*answer["versions"]], [0] * len(KEYS))
        self.assertTrue(all(answer["errors"]))
