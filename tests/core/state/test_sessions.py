"""Sessions: a write that is sent again is applied once, or not at all."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state import sessions
from kvtwist.core.state.answers import (
    BelowMark,
    BeyondWindow,
    Expired,
    GenerationSet,
    NotWritten,
    SessionClosed,
    SessionOpened,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    Written,
    WrongGeneration,
)
from kvtwist.core.state.commands import CloseSession, Expire, OpenSession, SetGeneration, Write
from kvtwist.core.state.operations import Get, Increment, Put
from kvtwist.core.state.outcomes import Changed, Counted, Found, Mismatch
from kvtwist.core.state.sessions import ANSWERS_MAX, IDLE_MS_MAX, SESSIONS_MAX
from tests.core.state.machines import GENERATION, Fed, new


def answers_kept(machine: Fed, session: int) -> int:
    """How many answers the session has."""
    return len(machine._contents.sessions._sessions[session].answers)


class SessionTests(SynchronousTestCase):
    """One session, mostly."""

    def setUp(self) -> None:
        self.machine = new()
        self.session = self.machine.open()

    def assert_refused(self, answer: object, expected: object) -> None:
        """A refusal, and nothing written."""
        self.assertEqual(answer, expected)
        self.assertEqual(self.machine.revision, self.revision)

    def remember(self) -> None:
        self.revision = self.machine.revision

    def test_id_is_index(self) -> None:
        """Ids that were not unique in the partition's life would mix up two clients."""
        self.assertEqual(self.session, 1)
        self.machine.skip(2)
        self.assertEqual(
            self.machine.feed(OpenSession(0, GENERATION, 1000)), SessionOpened(session=3)
        )

    def test_duplicate(self) -> None:
        """C2: a retry gets the answer of the first attempt, and counts no second time."""
        first = self.machine.write(self.session, 1, 1, Increment(b"n"))
        self.assertEqual(first, Written((Counted(1, 1),)))
        self.machine.write(self.session, 2, 1, Increment(b"n"))
        for _ in range(3):
            self.assertEqual(self.machine.write(self.session, 1, 1, Increment(b"n")), first)
        self.assertEqual(self.machine.revision, 2)

    def test_duplicate_of_failure(self) -> None:
        """What was answered "not done" stays undone, although it would succeed by now."""
        put = Put(b"a", b"1", version=5)
        self.assertEqual(
            self.machine.write(self.session, 1, 1, put), NotWritten((Mismatch(0, 0, None),))
        )
        self.machine.do(*[Put(b"a", b"2")] * 5)
        self.assertEqual(
            self.machine.write(self.session, 1, 1, put), NotWritten((Mismatch(0, 0, None),))
        )

    def test_values_are_not_kept(self) -> None:
        """Else a thousand answers would pin a thousand values of 16 MiB. Versions are kept."""
        self.machine.do(Put(b"a", b"long"))
        operations = (Get(b"a"), Increment(b"n"), Get(b"none"))
        answer = self.machine.write(self.session, 1, 1, *operations)
        self.assertEqual(answer, Written((Found(1, b"long"), Counted(2, 1), Found(0, None))))
        self.assertEqual(
            self.machine.write(self.session, 1, 1, *operations),
            Written((Found(1, None), Counted(2, 1), Found(0, None))),
        )
        put = Put(b"a", b"", version=9)
        answer = self.machine.write(self.session, 2, 1, put)
        self.assertEqual(answer, NotWritten((Mismatch(0, 1, b"long"),)))
        answer = self.machine.write(self.session, 2, 1, put)
        self.assertEqual(answer, NotWritten((Mismatch(0, 1, None),)))

    def test_out_of_order(self) -> None:
        """Writes in flight together may be committed in any order: each is applied."""
        for seq in (3, 1, 2):
            answer = self.machine.write(self.session, seq, 1, Put(b"%d" % seq, b""))
            self.assertIsInstance(answer, Written)
        self.assertEqual(self.machine.key_count, 3)

    def test_below_mark(self) -> None:
        """A late duplicate of what the client has long been answered is not applied again."""
        self.machine.write(self.session, 1, 1, Put(b"a", b"1"))
        self.machine.write(self.session, 2, 2, Put(b"a", b"2"))
        self.remember()
        self.assert_refused(
            self.machine.write(self.session, 1, 1, Put(b"a", b"1")), BelowMark(seq=1, mark=2)
        )
        self.assert_refused(
            self.machine.write(self.session, 8, 9, Put(b"a", b"1")), BelowMark(seq=8, mark=9)
        )

    def test_mark_never_falls(self) -> None:
        """A write that was delayed carries an old mark: what was forgotten stays refused."""
        self.machine.write(self.session, 5, 5, Put(b"a", b"1"))
        self.machine.write(self.session, 6, 1, Put(b"a", b"2"))
        self.remember()
        self.assert_refused(self.machine.write(self.session, 4, 1, Put(b"a", b"")), BelowMark(4, 5))

    def test_unknown_session(self) -> None:
        """C6: a session that is gone, closed or never was is not started anew."""
        self.remember()
        for session in (99, self.machine.applied_index + 1):
            self.assert_refused(
                self.machine.write(session, 1, 1, Put(b"a", b"1")), UnknownSession(session)
            )
        close = CloseSession(0, GENERATION, self.session)
        self.assertEqual(self.machine.feed(close), SessionClosed())
        self.assertEqual(self.machine.feed(close), UnknownSession(self.session))
        self.assert_refused(
            self.machine.write(self.session, 1, 1, Put(b"a", b"1")), UnknownSession(self.session)
        )

    def test_expired_session(self) -> None:
        """C6: refused from its time on, whether or not an entry has removed it: else two replicas
        of which one has, and one has not, would part."""
        for stamp_ms in (999, 1998):
            self.machine.write(self.session, 1, 1, Put(b"a", b"1"), stamp_ms=stamp_ms)
        self.remember()
        self.machine.pass_to(2998)
        write = (self.session, 2, 1, Put(b"a", b"2"))
        self.assert_refused(self.machine.write(*write), UnknownSession(self.session))
        self.assertEqual(self.machine.session_count, 1)
        self.assertEqual(self.machine.next_due_ms(), 2998)
        self.assertEqual(
            self.machine.feed(CloseSession(0, GENERATION, self.session)),
            UnknownSession(self.session),
        )
        self.assertEqual(self.machine.feed(Expire(0, 2998, 10)), Expired(1, 0, False))
        self.assertEqual(self.machine.session_count, 0)
        self.assert_refused(self.machine.write(*write), UnknownSession(self.session))

    def test_idle_time_is_capped(self) -> None:
        """A client that asks to be remembered for ever is not."""
        self.machine.open(idle_ms=2**64 - 1)
        self.machine.pass_to(IDLE_MS_MAX)
        self.assertEqual(self.machine.feed(Expire(0, 2**64 - 1)), Expired(2, 0, False))

    def test_window(self) -> None:
        """At most 1,024 answers are kept. The one too many is not applied; when the client has
        said what it has, there is room again."""
        for seq in range(1, ANSWERS_MAX + 1):
            self.machine.write(self.session, seq, 1, Put(b"a", b""))
        self.assertEqual(answers_kept(self.machine, self.session), 1024)
        self.remember()
        for seq in (ANSWERS_MAX + 1, 2**64 - 1):
            self.assert_refused(
                self.machine.write(self.session, seq, 1, Put(b"a", b"")), BeyondWindow(seq, 1)
            )
        self.assertEqual(
            self.machine.write(self.session, ANSWERS_MAX + 1, 2, Put(b"a", b"")),
            Written((Changed(ANSWERS_MAX + 1),)),
        )
        self.assertEqual(answers_kept(self.machine, self.session), 1024)

    def test_large_jump(self) -> None:
        """A client that skips ahead costs no more than what it had; none could stop the node."""
        for seq in (1, 2, 3):
            self.machine.write(self.session, seq, 1, Put(b"a", b""))
        answer = self.machine.write(self.session, 2**64 - 1, 2**64 - 1, Put(b"a", b""))
        self.assertEqual(answer, Written((Changed(4),)))
        self.assertEqual(answers_kept(self.machine, self.session), 1)

    def test_too_many_sessions(self) -> None:
        """Sessions are bounded; those that are there live on."""
        for _ in range(SESSIONS_MAX - 1):
            self.machine.open()
        open_one_more = OpenSession(0, GENERATION, 1)
        self.assertEqual(self.machine.feed(open_one_more), TooManySessions(SESSIONS_MAX))
        self.assertEqual(self.machine.session_count, SESSIONS_MAX)
        answer = self.machine.write(self.session, 1, 1, Put(b"a", b""))
        self.assertEqual(answer, Written((Changed(1),)))
        self.machine.feed(CloseSession(0, GENERATION, self.session))
        self.assertIsInstance(self.machine.feed(open_one_more), SessionOpened)

    def test_too_many_answers(self) -> None:
        """Answers are bounded for all clients together: a thousand that never say what they have
        cost no more memory than was meant. Who waits is served when others have said it, or are
        gone; and on a restored replica as well."""
        self.patch(sessions, "KEPT_MAX", 6)
        other = self.machine.open(idle_ms=1000)
        for seq in (1, 2):
            self.machine.write(self.session, seq, 1, Increment(b"n"), stamp_ms=seq)
        self.machine.write(other, 1, 1, Put(b"a", b"", version=9))
        self.remember()
        self.machine = self.machine.reborn()
        write = (other, 2, 1, Increment(b"n"))
        self.assert_refused(self.machine.write(*write), TooManyAnswers(6))
        self.assertIsInstance(self.machine.write(self.session, 1, 1, Get(b"n")), Written)
        self.machine.write(self.session, 2, 2, Get(b"n"))
        self.assertEqual(self.machine.write(*write), Written((Counted(3, 3),)))
        self.assertEqual(self.machine.write(self.session, 3, 2, Get(b"n")), TooManyAnswers(6))
        self.machine.feed(CloseSession(0, GENERATION, other))
        for seq in (3, 4):
            answer = self.machine.write(self.session, seq, 2, Get(b"n"))
            self.assertEqual(answer, Written((Found(3, b"3"),)))
        self.assertEqual(self.machine.write(self.session, 5, 2, Get(b"n")), TooManyAnswers(6))
        late = self.machine.open(idle_ms=1000)
        self.machine.pass_to(1001)
        self.assertEqual(self.machine.write(late, 1, 1, Get(b"n")), TooManyAnswers(6))
        self.machine.pass_to(1002)
        self.machine.feed(Expire(1002, 1002))
        self.assertEqual(self.machine.write(late, 1, 1, Get(b"n")), Written((Found(3, b"3"),)))

    def test_snapshot_keeps_sessions(self) -> None:
        """R13, C2: a retry that reaches a replica restored from a snapshot is still a retry."""
        self.machine.write(self.session, 1, 1, Increment(b"n"))
        self.machine.write(self.session, 3, 2, Increment(b"n"))
        reborn = self.machine.reborn()
        self.assertEqual(
            reborn.write(self.session, 3, 2, Increment(b"n")), Written((Counted(2, 2),))
        )
        self.assertEqual(reborn.write(self.session, 1, 1, Increment(b"n")), BelowMark(1, 2))
        self.assertEqual(reborn.revision, 2)

    def test_no_session(self) -> None:
        """A write without a session is applied as often as it is committed: never retry those."""
        self.machine.do(Increment(b"n"))
        self.assertEqual(self.machine.do(Increment(b"n")), Written((Counted(2, 2),)))

    def test_mark_below_window(self) -> None:
        """Patched small, the bound holds as well: nothing else bounds the answers (X3)."""
        self.patch(sessions, "ANSWERS_MAX", 2)
        answers = [self.machine.write(self.session, seq, 1, Increment(b"n")) for seq in (1, 3, 2)]
        self.assertEqual(answers[1], BeyondWindow(3, 1))
        self.assertEqual(answers[2], Written((Counted(2, 2),)))


class GenerationTests(SynchronousTestCase):
    """Entries for another membership."""

    def test_wrong_generation(self) -> None:
        """C5: what was sent to the members before is refused where it is applied, with both
        generations, so that the client can send it again; the index moves on."""
        machine = new()
        session = machine.open()
        self.assertEqual(machine.feed(SetGeneration(0, GENERATION, 9)), GenerationSet(9))
        before = machine.applied_index
        for command in (
            Write(0, GENERATION, session, 1, 1, (Put(b"a", b""),)),
            Write(0, GENERATION, 0, 0, 0, (Put(b"a", b""),)),
            OpenSession(0, GENERATION, 1),
            CloseSession(0, GENERATION, session),
            SetGeneration(0, GENERATION, 10),
        ):
            self.assertEqual(machine.feed(command), WrongGeneration(carried=GENERATION, own=9))
        self.assertEqual(machine.applied_index, before + 5)
        self.assertEqual((machine.revision, machine.session_count, machine.generation), (0, 1, 9))

    def test_retry_for_new_generation(self) -> None:
        """C2: the sessions move with the partition: a retry after the move is still a retry."""
        machine = new()
        session = machine.open()
        first = machine.write(session, 1, 1, Increment(b"n"))
        machine.feed(SetGeneration(0, GENERATION, 8))
        again = machine.feed(Write(0, 8, session, 1, 1, (Increment(b"n"),)))
        self.assertEqual(again, first)
        self.assertEqual(machine.revision, 1)
