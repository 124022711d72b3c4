"""The client's sessions by themselves: seqs, marks, rooms, and what errors mean to a write."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client.sessions import WITHOUT_SECONDS, Session, Sessions, Ticket
from kvtwist.core.state.sessions import ANSWERS_MAX
from kvtwist.errors import (
    DiskFull,
    KvtwistError,
    NoAnswer,
    NodeFault,
    NotANumber,
    NotLeader,
    NotSent,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    Refused,
    SessionRefused,
    TooLarge,
    Unavailable,
    VersionMismatch,
    WrongGeneration,
)
from kvtwist.wire.codec import Values
from kvtwist.wire.commands import Put
from kvtwist.wire.once import unpack_once
from tests.wire.properties import examples

GONE = [SessionRefused(reason=reason) for reason in ("unknown", "below_mark", "beyond_window")]


def session() -> Session:
    """A new one."""
    return Session(partition=0, id=7, generation=1)


class SeqTests(SynchronousTestCase):
    """The partition is told what it may forget, and never more."""

    def test_mark(self) -> None:
        """Else an answer is forgotten that is still asked for (the write is then refused), or none
        ever is, and the partition's memory fills up."""
        one = session()
        seqs = [one.begin() for _ in range(4)]
        self.assertEqual(seqs, [0, 1, 2, 3])
        one.end(2)
        self.assertEqual(one.mark, 0)
        one.end(0)
        self.assertEqual(one.mark, 1)
        one.end(1)
        self.assertEqual(one.mark, 3)
        one.end(3)
        self.assertEqual(one.mark, 4)

    def test_what_a_write_carries(self) -> None:
        """Else the partition takes it for another write."""
        one = session()
        for _ in range(3):
            one.begin()
        one.end(0)
        self.assertEqual(unpack_once(one.once(2)), (1, 7, 2, 1))

    def test_window(self) -> None:
        """Else the partition refuses a write as too far ahead."""
        one = session()
        for _ in range(ANSWERS_MAX):
            self.assertIsNotNone(one.begin())
        self.assertIsNone(one.begin())
        one.end(5)
        self.assertIsNone(one.begin())
        one.end(0)
        self.assertEqual(one.begin(), ANSWERS_MAX)
        self.assertIsNone(one.begin())

    def test_waiting_for_room(self) -> None:
        """Else a write waits for ever, overtakes those that wait longer, or two have one seq."""
        one = session()
        for _ in range(ANSWERS_MAX):
            one.begin()
        several, single = one.when_begun(3), one.when_begun(1)
        one.end(0)
        one.end(1)
        self.assertNoResult(several)
        self.assertNoResult(single)
        one.end(2)
        self.assertEqual(self.successResultOf(several), ANSWERS_MAX)
        self.assertNoResult(single)
        self.assertIsNone(one.begin())
        one.end(3)
        self.assertEqual(self.successResultOf(single), ANSWERS_MAX + 3)

    def test_given_up(self) -> None:
        """Else who has stopped waiting holds up the others, or takes seqs that nobody ends."""
        one = session()
        for _ in range(ANSWERS_MAX):
            one.begin()
        several, single = one.when_begun(3), one.when_begun(1)
        one.end(0)
        several.cancel()
        self.failureResultOf(several, CancelledError)
        self.assertEqual(self.successResultOf(single), ANSWERS_MAX)

    def test_over(self) -> None:
        """Else writes wait for room in a session that is gone."""
        one = session()
        for _ in range(ANSWERS_MAX):
            one.begin()
        waiting = [one.when_begun(1) for _ in range(2)]
        one.over()
        self.assertEqual([self.successResultOf(each) for each in waiting], [None, None])
        self.assertIsNone(self.successResultOf(one.when_begun(1)))

    @examples(80)
    @given(st.lists(st.integers(0, 9), max_size=200))
    def test_any_order(self, steps: list[int]) -> None:
        """The invariant: the mark is the lowest unanswered seq, whatever ends when."""
        one, open_ones, seqs = session(), list[int](), list[int]()
        for step in steps:
            if step < 6 or not open_ones:
                seq = one.begin()
                assert seq is not None
                open_ones.append(seq)
                seqs.append(seq)
            else:
                one.end(open_ones.pop(step % len(open_ones)))
            self.assertEqual(one.mark, min(open_ones, default=len(seqs)))
        self.assertEqual(len({*seqs}), len(seqs))


class WeighingTests(SynchronousTestCase):
    """What an error of one attempt means, with what may have become of those before."""

    def setUp(self) -> None:
        self.sessions = Sessions(Clock(), lambda key, deadline: Deferred(), lambda: 0.0)
        self.sessions.know(1, True)

    def ticket(self, is_unknown: bool) -> Ticket:
        """A write's, that was sent once already."""
        self.session = self.sessions.slots[0].session = session()
        seq = self.session.begin()
        assert seq is not None
        ticket = Ticket(self.sessions, self.session, seq)
        if is_unknown:
            ticket.weighed(Put, NoAnswer())
        return ticket

    def meaning(self, error: KvtwistError, is_unknown: bool) -> Any:
        """The error that is raised, or that it is sent again, and how."""
        ticket = self.ticket(is_unknown)
        before = ticket.once()
        try:
            ticket.weighed(Put, error)
        except KvtwistError as raised:
            return type(raised)
        if ticket.once() is None:
            return "anew"
        return "again" if ticket.once() == before else "changed"

    def test_sent_again(self) -> None:
        """Else a write that can be done is given up; the seq must be the same one."""
        for error in (
            NotSent(),
            Unavailable(),
            Overloaded(),
            NotLeader(),
            DiskFull(),
            NoAnswer(),
            NodeFault(),
            OutcomeUnknown(),
            SessionRefused(reason="too_many_answers"),
        ):
            for is_unknown in (False, True):
                self.assertEqual(self.meaning(error, is_unknown), "again", error)

    def test_session_gone(self) -> None:
        """C6: a write whose first attempt sits in a frozen node's socket must not be begun anew:
        it might be done twice. One that nobody can have done must be: it is not the user's fault
        that a session has expired."""
        for error in GONE:
            self.assertEqual(self.meaning(error, is_unknown=False), "anew")
            self.assertEqual(self.meaning(error, is_unknown=True), OutcomeUnknown)

    def test_a_session_that_is_gone_is_left(self) -> None:
        """Else each later write is refused once more; or the next session is given up, too, when
        the last of the old one's writes are refused."""
        ticket = self.ticket(is_unknown=False)
        ticket.weighed(Put, GONE[0])
        self.assertIsNone(self.sessions.slots[0].session)
        late, first = self.ticket(is_unknown=False), self.session
        later = self.sessions.slots[0].session = session()
        late.weighed(Put, GONE[0])
        self.assertIsNot(first, later)
        self.assertIs(self.sessions.slots[0].session, later)

    def test_generation(self) -> None:
        """Else a write fails because a replica has moved; or is done twice: the seq stays."""
        for is_unknown in (False, True):
            ticket = self.ticket(is_unknown)
            ticket.weighed(Put, WrongGeneration(generation=9))
            self.assertEqual(unpack_once(ticket.once() or b""), (9, 7, 0, 0))

    def test_a_generation_that_is_none(self) -> None:
        """What a node says is no reason to fail with an exception that nobody expects."""
        for wrong in ("x", -1, 1 << 64, None, True):
            error = WrongGeneration()
            error.generation = wrong  # type: ignore[assignment]
            self.assertEqual(self.meaning(error, is_unknown=False), "again")

    def test_for_good(self) -> None:
        """What the partition answers is the answer, also to an attempt before; what a node refuses
        without asking it says nothing of that."""
        for error in (VersionMismatch(), NotANumber(), OutOfRange()):
            for is_unknown in (False, True):
                self.assertEqual(self.meaning(error, is_unknown), type(error))
        for refused in (Refused(), TooLarge()):
            self.assertEqual(self.meaning(refused, is_unknown=False), type(refused))
            self.assertEqual(self.meaning(refused, is_unknown=True), OutcomeUnknown)

    def test_without_a_session(self) -> None:
        """C3: else a write to a cluster in memory is done twice."""
        ticket = Ticket(self.sessions)
        for error in (NoAnswer(), NodeFault(), TooLarge(), VersionMismatch()):
            self.assertRaises(type(error), ticket.weighed, Put, error)
        for again in (NotSent(), NotLeader(), WrongGeneration(generation=9)):
            self.assertIs(ticket.weighed(Put, again), again)

    def test_end(self) -> None:
        """Else the mark stands for ever at a write that is over."""
        ticket = self.ticket(is_unknown=False)
        for _ in range(2):
            ticket.end()
        self.assertEqual(self.session.mark, 1)


class OpeningTests(SynchronousTestCase):
    """One session for each partition, opened when it is needed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[bytes, Deferred[Values]]] = []
        self.sessions = Sessions(self.clock, self.ask, self.clock.seconds)
        self.sessions.know(2, True)

    def ask(self, key: bytes, deadline: float) -> Deferred[Values]:
        answer: Deferred[Values] = Deferred()
        self.asked.append((key, answer))
        return answer

    def begun(self, key: bytes, deadline: float = 5.0) -> Deferred[Any]:
        """A write to partition 0."""
        return Deferred.fromCoroutine(self.sessions.begun(0, key, 1, deadline))

    def answer(self, session: int = 7) -> None:
        """The node's, to who asked last."""
        self.asked[-1][1].callback({"session": session, "generation": 3})
        self.clock.advance(0)

    def test_shared(self) -> None:
        """Else a burst of first writes opens a session for each, and the others stay behind; or the
        first to be asked for is the last to be sent."""
        writes = [self.begun(b"%d" % number) for number in range(3)]
        self.assertEqual([key for key, _ in self.asked], [b"0"])
        self.answer()
        begun = [self.successResultOf(write) for write in writes]
        self.assertEqual([seq for _, seq in begun], [0, 1, 2])
        self.assertEqual({(one.id, one.generation) for one, _ in begun}, {(7, 3)})
        self.successResultOf(self.begun(b"later"))
        self.assertEqual(len(self.asked), 1)

    def test_one_for_each_partition(self) -> None:
        """A session lives in one partition: another one does not know it."""
        self.begun(b"0")
        Deferred.fromCoroutine(self.sessions.begun(1, b"1", 1, 5.0))
        self.assertEqual([key for key, _ in self.asked], [b"0", b"1"])
        for number, (_, answer) in enumerate(self.asked):
            answer.callback({"session": 10 + number, "generation": 1})
        self.clock.advance(0)
        ids = [slot.session and slot.session.id for slot in self.sessions.slots]
        self.assertEqual(ids, [10, 11])

    def test_who_opens_fails(self) -> None:
        """Else a key that is too long, or a caller who has given up, fails everybody's writes."""
        for fail in (
            lambda answer: answer.errback(TooLarge("the key has 5,000 bytes")),
            lambda answer: answer.cancel(),
        ):
            self.sessions.slots[0].session = None
            first, *others = [self.begun(b"%d" % number) for number in range(3)]
            before = len(self.asked)
            fail(self.asked[-1][1])
            self.clock.advance(0)
            self.failureResultOf(first, TooLarge, CancelledError)
            self.assertEqual([key for key, _ in self.asked[before:]], [b"1"])
            self.answer()
            for other in others:
                self.successResultOf(other)

    def test_who_waits_has_a_deadline(self) -> None:
        """Promise 5: else a write waits as long as somebody else's patience."""
        first, hasty = self.begun(b"0", deadline=60.0), self.begun(b"1", deadline=2.0)
        self.clock.advance(2.0)
        self.failureResultOf(hasty, NotSent)
        cancelled = self.begun(b"2", deadline=60.0)
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.answer()
        self.assertEqual(self.successResultOf(first)[1], 0)

    def test_room_has_a_deadline(self) -> None:
        """The same for who waits for room."""
        self.begun(b"0")
        self.answer()
        one = self.sessions.slots[0].session
        assert one is not None
        while one.begin() is not None:
            pass
        waiting = self.begun(b"1")
        self.clock.advance(5.0)
        self.failureResultOf(waiting, NotSent)
        one.end(0)
        self.assertEqual(one.begin(), ANSWERS_MAX)

    def test_a_session_that_ends_while_writes_wait(self) -> None:
        """Else they are written in none."""
        self.begun(b"0")
        self.answer(session=7)
        first = self.sessions.slots[0].session
        assert first is not None
        while first.begin() is not None:
            pass
        waiting = self.begun(b"1")
        self.sessions.lose(first)
        self.answer(session=8)
        self.assertEqual(self.successResultOf(waiting)[0].id, 8)

    def test_too_many(self) -> None:
        """Else clients that come and go keep others from writing: those write without, and ask
        again later."""
        write, other = self.begun(b"0"), self.begun(b"1")
        self.asked[-1][1].errback(SessionRefused(reason="too_many_sessions"))
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(write))
        self.assertIsNone(self.successResultOf(other))
        self.assertIsNone(self.successResultOf(self.begun(b"2")))
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(WITHOUT_SECONDS)
        self.begun(b"3")
        self.assertEqual(len(self.asked), 2)

    def test_none(self) -> None:
        """A cluster in memory has none: it says 0, and is not asked at all if that is known."""
        write = self.begun(b"0")
        self.answer(session=0)
        self.assertIsNone(self.successResultOf(write))
        self.clock.advance(1e6)
        self.assertIsNone(self.successResultOf(self.begun(b"1")))
        memory = Sessions(self.clock, self.ask, self.clock.seconds)
        memory.know(2, False)
        self.assertEqual(memory.slots, [])
        ticket = Ticket(memory)
        prepared = Deferred.fromCoroutine(ticket.prepare(0, b"0", 5.0))
        self.assertIsNone(self.successResultOf(prepared))
        self.assertEqual(len(self.asked), 1)
