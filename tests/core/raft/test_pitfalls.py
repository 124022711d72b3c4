"""The traps of Raft, by number: one directed test at least for each that the core has to know of.

Here R1 to R6, R13, R15, R18, and what a replica starts from; the others are in
`test_pitfalls_of_groups`.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import (
    Configuration,
    Dropped,
    Entry,
    EntryKind,
    HardState,
    Proposed,
    ReadState,
    Reason,
    Remove,
    Restored,
    Role,
    Settings,
    Snapshot,
)
from kvtwist.core.raft.log import Log
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.core.raft.group import (
    BASE,
    PLAIN,
    Member,
    acknowledge,
    appended,
    lead,
    leading,
    log_of,
    member,
    only,
)


class DurabilityTests(SynchronousTestCase):
    """R1, R2, R13, R18: nothing is said that a crash takes back."""

    def test_r1_vote(self) -> None:
        """R1: a vote, and a candidate's requests, leave only when term and vote are on disk."""
        voter, candidate = member(), member()
        voter.raft.step(VoteRequest(2, 1, 1, 0, 0))
        candidate.raft.suspect()
        candidate.raft.tick()
        for one, vote, kind in ((voter, 2, VoteResponse), (candidate, 1, VoteRequest)):
            self.assertEqual(one.take(), [])
            self.assertEqual(one.writes[-1].must_sync, True)
            self.assertEqual(one.writes[-1].hard_state, HardState(1, vote, 0))
            one.write()
            self.assertEqual({type(message) for message in one.take()}, {kind})

    def test_r1_vote_in_a_term_that_is_durable(self) -> None:
        """R1: the vote is a promise of its own."""
        one = member(term=1)
        one.raft.step(VoteRequest(2, 1, 1, 0, 0))
        self.assertEqual(one.take(), [])
        one.write()
        self.assertEqual(one.take(), [VoteResponse(1, 2, 1, granted=True)])

    def test_r1_own_vote(self) -> None:
        """R1: nor does a candidate count its own vote before: here that would be the majority."""
        one = member(voters=(1, 2))
        one.raft.suspect()
        one.raft.tick()
        one.raft.step(VoteResponse(2, 1, 1, granted=True))
        one.take()
        self.assertIs(one.raft.role, Role.CANDIDATE)
        one.write()
        self.assertIs(one.raft.role, Role.LEADER)

    def test_r1_every_answer_of_a_new_term(self) -> None:
        """R1: the term itself is a promise: an answer to a heartbeat in it waits for it too."""
        for message in (Heartbeat(2, 1, 4, 0), appended(term=4), appended(3, term=4, prev_index=9)):
            one = member(term=1)
            one.raft.step(message)
            self.assertEqual(one.take(), [])
            one.write()
            self.assertEqual(len(one.take()), 1)

    def test_r1_two_terms_under_way(self) -> None:
        """R1: the first write's end lets nothing of the second one's term out."""
        one = member()
        one.raft.step(VoteRequest(2, 1, 1, 0, 0))
        one.take()
        one.raft.step(VoteRequest(3, 1, 2, 0, 0))
        one.take()
        one.write(1)
        self.assertEqual(one.take(), [])
        one.write()
        self.assertEqual(one.settle(), [VoteResponse(1, 3, 2, granted=True)])

    def test_r2_acknowledgement(self) -> None:
        """R2: it names term and index, and leaves when these entries are on disk."""
        one = member(term=1)
        one.raft.step(appended(1, 1, term=1))
        self.assertEqual(one.take(), [])
        one.write()
        self.assertEqual(one.take(), [AppendResponse(1, 2, 1, 2)])

    def test_r2_repeated_request(self) -> None:
        """R2: the repetition of a request is not acknowledged earlier than the request."""
        one = member(term=1)
        one.raft.step(appended(1, term=1))
        one.take()
        one.raft.step(appended(1, term=1))
        self.assertEqual(one.take(), [])

    def test_r2_replaced_and_put_back(self) -> None:
        """R2, ABA: an entry was durable, is replaced, and put back by the next leader; what says it
        is here waits for the write that puts it back."""
        one = member(1, 1)
        one.raft.step(appended(2, term=2, prev_index=1, prev_term=1))
        one.take()
        one.raft.step(appended(1, term=3, sender=3, prev_index=1, prev_term=1))
        one.take()
        one.raft.step(appended(term=3, sender=3, prev_index=2, prev_term=1))
        one.write(1)
        self.assertEqual(only(AppendResponse, one.take()), [])
        one.write(1)
        answers = only(AppendResponse, one.settle())
        self.assertEqual(answers, [AppendResponse(1, 3, 3, 2)] * 2)

    def test_r2_answers_of_an_earlier_term(self) -> None:
        """R2: what was to be acknowledged to a former leader is not told to anybody any more."""
        one = member(term=1)
        one.raft.step(appended(1, term=1))
        one.take()
        one.raft.step(appended(2, term=2, sender=3))
        sent = one.settle()
        self.assertEqual(sent, [AppendResponse(1, 3, 2, 1)])

    def test_r13_one_write(self) -> None:
        """R13: a snapshot, what follows it and the hard state are in one Ready; a crash before it
        leaves all as it was, and nothing was said."""
        one = member(1, 1, commit=2)
        configuration = Configuration((1, 2, 4))
        one.raft.step(InstallSnapshot(2, 1, 3, Snapshot(9, 2, configuration)))
        one.raft.step(appended(3, term=3, prev_index=9, prev_term=2))
        self.assertEqual(one.take(), [])
        (ready,) = one.writes
        assert ready.snapshot is not None
        self.assertEqual((ready.hard_state, ready.must_sync), (HardState(3, 0, 9), True))
        self.assertEqual([entry.index for entry in ready.entries], [10])
        self.assertEqual(ready.committed, ())
        one.start()
        self.assertEqual((one.raft.term, one.raft.last_index), (1, 2))
        self.assertEqual(one.raft.configuration, Configuration((1, 2, 3)))

    def test_r18_each_its_own_batch(self) -> None:
        """R18: answers wait for their own write, and one acknowledgement may stand for several."""
        one = member(term=1)
        for index in (0, 1, 2):
            one.raft.step(appended(1, term=1, prev_index=index, prev_term=min(index, 1)))
            one.take()
        one.disk.write(one.writes.popleft())
        ready = one.writes.popleft()
        one.disk.write(ready)
        one.raft.persisted(ready.number)
        self.assertEqual([each.index for each in only(AppendResponse, one.take())], [1, 2])


class LeadershipTests(SynchronousTestCase):
    """R3 to R6 and R15: what a leader may take for granted."""

    def test_r3_figure_8(self) -> None:
        """R3: an entry of an earlier term that all have is not committed by that."""
        one = member(1, 1)
        lead(one)
        acknowledge(one, 2, 3, index=2)
        self.assertEqual((one.raft.commit_index, one.applied), (0, []))
        acknowledge(one, 2)
        self.assertEqual(one.raft.commit_index, 3)

    def test_r4_no_op(self) -> None:
        """R4: at once, and no read and no change of the membership before it is committed."""
        one = member(1, 1)
        (first, *_) = only(AppendRequest, lead(one))
        self.assertEqual(first.entries, (Entry(3, 2, EntryKind.NOOP),))
        self.assertEqual(one.raft.propose_membership(Remove(3)), Dropped(Reason.NO_OWN_COMMIT, 1))
        one.raft.read_index(b"r")
        one.settle()
        one.step(*(HeartbeatResponse(sender, 1, 2, 1) for sender in (2, 3)))
        self.assertEqual(one.reads, [])

    def test_r5_fresh_round(self) -> None:
        """R5: an answer to an earlier attempt confirms no later read."""
        one = leading()
        one.raft.read_index(b"a")
        (first, *_) = only(Heartbeat, one.settle())
        one.raft.read_index(b"b")
        (second, *_) = only(Heartbeat, one.settle())
        self.assertNotEqual(first.round, second.round)
        one.step(*(HeartbeatResponse(sender, 1, 1, first.round) for sender in (2, 3)))
        self.assertEqual(one.reads, [ReadState(b"a", 1)])

    def test_r5_next_term(self) -> None:
        """R5: nor does one to an earlier leadership of the same replica."""
        one = leading()
        for _ in range(3):
            one.tick(PLAIN.heartbeat_ticks)
        one.step(HigherTerm(2, 1, 2))
        lead(one)
        acknowledge(one, 2)
        one.raft.read_index(b"r")
        one.settle()
        one.step(*(HeartbeatResponse(sender, 1, 1, 99) for sender in (2, 3)))
        self.assertEqual(one.reads, [])

    def test_r6_lease_ends_before_a_transfer(self) -> None:
        """R6: in the same Ready as the word to the next leader no read is answered."""
        one = leading(settings=replace(Settings(), lease_reads=True))
        beat = only(Heartbeat, one.tick(2))[0]
        one.step(HeartbeatResponse(2, 1, 1, beat.round))
        one.raft.transfer_leadership(2)
        one.raft.read_index(b"r")
        sent = one.settle()
        self.assertEqual(len(only(TimeoutNow, sent)), 1)
        self.assertEqual(one.reads, [])

    def test_r15_not_to_one_that_is_far_behind(self) -> None:
        """R15: nor while it needs a snapshot; and in vain only for an election timeout."""
        one = leading(settings=replace(PLAIN, promotion_lag_entries_max=2))
        one.raft.propose([b"x"] * 3)
        one.settle()
        self.assertEqual(one.raft.transfer_leadership(2), Dropped(Reason.NOT_CAUGHT_UP, 1))
        acknowledge(one, 2)
        one.raft.progress()[3].need_snapshot()
        acknowledge(one, 3)
        one.raft.progress()[3].need_snapshot()
        self.assertEqual(one.raft.transfer_leadership(3), Dropped(Reason.NOT_CAUGHT_UP, 1))
        self.assertIsNone(one.raft.transfer_leadership(2))
        self.assertEqual(one.raft.propose([b"x"]), Dropped(Reason.TRANSFER, 2))
        one.tick(BASE)
        self.assertIsInstance(one.raft.propose([b"x"]), Proposed)


class RestartTests(SynchronousTestCase):
    """A disk that contradicts itself is not believed (S1, S3)."""

    def refused(self, restored: Restored) -> None:
        """By a replica that is to start from it."""
        self.assertRaises(ValueError, Member, 1, restored, PLAIN)

    def test_refused(self) -> None:
        """Committed or applied entries that are missing, terms of the future."""
        alone = Configuration((1,))
        self.refused(Restored(alone, HardState(1, 0, 3), entries=log_of(1, 1)))
        self.refused(Restored(alone, HardState(1), entries=log_of(1), applied=2))
        self.refused(Restored(alone, HardState(2), 3, 1, log_of(2, first=4), applied=2))
        self.refused(Restored(alone, HardState(1), entries=log_of(2)))
        self.refused(Restored(alone, HardState(1), 3, 2, applied=3))


class FalseWordsTests(SynchronousTestCase):
    """Promise 4: what no correct replica could say stops nobody."""

    def test_acknowledged_what_is_not_there(self) -> None:
        """A leader would send, or commit, entries that it does not have."""
        one = leading()
        last = one.raft.last_index
        for rejected in (False, True):
            false = AppendResponse(2, 1, one.raft.term, last + 5, rejected)
            one.raft.step(false)
            one.settle()
        self.assertEqual(one.raft.commit_index, last)
        self.assertLessEqual(one.raft.progress()[2].match, last)

    def test_a_configuration_that_cannot_be_read(self) -> None:
        """Half of a message must not stay behind in the log."""
        log = Log(Configuration((1, 2, 3)))
        bad = [Entry(1, 1), Entry(2, 1, EntryKind.CONFIGURATION, b"?")]
        self.assertRaises(ValueError, log.append, bad)
        self.assertEqual((log.last_index, log.configuration_index), (0, 0))
        self.assertFalse(log.has_unwritten)
