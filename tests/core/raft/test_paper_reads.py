"""Reads, sentence by sentence: the dissertation, 6.4 (ReadIndex, leases), and the paper, 8."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import AddLearner, Dropped, Promote, ReadState, Reason, Role, Settings
from kvtwist.core.raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    PreVoteRequest,
    ReadIndexRequest,
    ReadIndexResponse,
    VoteRequest,
)
from tests.core.raft.group import (
    BASE,
    PLAIN,
    Group,
    Member,
    acknowledge,
    appended,
    campaign,
    lead,
    leading,
    member,
    only,
)

LEASES = replace(Settings(), lease_reads=True)


def ask(one: Member, context: bytes) -> int:
    """Ask for a read, and send what that takes: the number of the round."""
    assert one.raft.read_index(context) is None
    return max(beat.round for beat in only(Heartbeat, one.settle()))


class LeaderTests(SynchronousTestCase):
    """6.4: a read at the leader."""

    def test_confirmed_by_a_majority(self) -> None:
        """6.4: step 3: heartbeats to all; it is answered when a majority has answered them."""
        one = leading(voters=(1, 2, 3, 4, 5))
        number = ask(one, b"r")
        one.step(HeartbeatResponse(2, 1, 1, number))
        self.assertEqual(one.reads, [])
        one.step(HeartbeatResponse(2, 1, 1, number))
        self.assertEqual(one.reads, [])
        one.step(HeartbeatResponse(3, 1, 1, number))
        self.assertEqual(one.reads, [ReadState(b"r", 1)])

    def test_nothing_is_written(self) -> None:
        """6.4: that is the point of it."""
        one = leading()
        one.raft.read_index(b"r")
        ready = one.raft.ready()
        self.assertEqual((ready.entries, ready.hard_state, ready.must_sync), ((), None, False))

    def test_index_is_that_of_the_question(self) -> None:
        """6.4: step 2: what is committed when it is asked; what comes later need not be waited for.

        Nor may it be less: what was committed before must be seen.
        """
        one = leading()
        number = ask(one, b"before")
        one.raft.propose([b"x"])
        one.settle()
        acknowledge(one, 2)
        later = ask(one, b"after")
        one.step(HeartbeatResponse(3, 1, 1, later))
        self.assertLess(number, later)
        self.assertEqual(one.reads, [ReadState(b"before", 1), ReadState(b"after", 2)])

    def test_round_after_the_question(self) -> None:
        """R5: an answer to heartbeats that left before the read came confirms nothing."""
        one = leading()
        (earlier, _) = only(Heartbeat, one.tick(PLAIN.heartbeat_ticks))
        number = ask(one, b"r")
        self.assertGreater(number, earlier.round)
        for sender in (2, 3):
            one.step(HeartbeatResponse(sender, 1, 1, earlier.round))
        self.assertEqual(one.reads, [])
        one.step(HeartbeatResponse(2, 1, 1, number))
        self.assertEqual(one.reads, [ReadState(b"r", 1)])

    def test_acknowledged_entries_confirm_nothing(self) -> None:
        """R5: they may have been sent before the read came."""
        one = leading()
        ask(one, b"r")
        one.step(AppendResponse(2, 1, 1, 1), AppendResponse(3, 1, 1, 1))
        self.assertEqual(one.reads, [])

    def test_own_entry_first(self) -> None:
        """6.4: step 1, R4: a new leader does not know what is committed before it has committed an
        entry of its own term; the read waits for that, and then for its round."""
        one = member(1, 1)
        lead(one)
        one.raft.read_index(b"r")
        self.assertEqual(only(Heartbeat, one.settle()), [])
        beats = only(Heartbeat, acknowledge(one, 2))
        self.assertEqual({beat.to for beat in beats}, {2, 3})
        one.step(HeartbeatResponse(2, 1, 2, beats[0].round))
        self.assertEqual(one.reads, [ReadState(b"r", 3)])

    def test_shared(self) -> None:
        """6.4: one round for all the reads that have come until it begins."""
        one = leading()
        one.raft.read_index(b"a")
        one.raft.read_index(b"b")
        number = ask(one, b"c")
        self.assertEqual(one.raft.has_ready(), False)
        one.step(HeartbeatResponse(2, 1, 1, number))
        self.assertEqual([read.context for read in one.reads], [b"a", b"b", b"c"])

    def test_later_round_confirms_earlier_reads(self) -> None:
        """6.4: who answers later heartbeats has not voted another leader in before either."""
        one = leading()
        first = ask(one, b"a")
        second = ask(one, b"b")
        one.step(HeartbeatResponse(3, 1, 1, second), HeartbeatResponse(2, 1, 1, first))
        self.assertEqual([read.context for read in one.reads], [b"a", b"b"])

    def test_lost_with_the_leadership(self) -> None:
        """R5: what a former leader has not confirmed it never will, in this term or another."""
        one = leading()
        number = ask(one, b"r")
        one.raft.read_index(b"s")
        one.step(HigherTerm(2, 1, 5))
        self.assertEqual(sorted(one.reads_lost), [b"r", b"s"])
        lead(one)
        acknowledge(one, 2)
        one.step(*(HeartbeatResponse(2, 1, term, number) for term in (1, 6)))
        self.assertEqual(one.reads, [])

    def test_only_voters_confirm(self) -> None:
        """6.4: a learner's answer, or a removed replica's, is none."""
        one = leading(learners=(4, 5))
        number = ask(one, b"r")
        one.step(*(HeartbeatResponse(sender, 1, 1, number) for sender in (4, 5, 9)))
        self.assertEqual(one.reads, [])

    def test_majority_of_the_configuration_in_force(self) -> None:
        """4.1 and 6.4: a voter that was added meanwhile counts as well."""
        group = Group(3)
        group.elect(1)
        group.add(4)
        for change in (AddLearner(4), Promote(4)):
            group.leader.raft.propose_membership(change)
            group.deliver()
            group.tick(2)
        one = group.members[1]
        one.reads.clear()
        number = ask(one, b"r")
        one.step(HeartbeatResponse(2, 1, 1, number))
        self.assertEqual(one.reads, [])
        one.step(HeartbeatResponse(4, 1, 1, number))
        self.assertEqual(len(one.reads), 1)

    def test_alone(self) -> None:
        """A group of one is its own majority."""
        one = leading(voters=(1,))
        one.raft.read_index(b"r")
        one.settle()
        self.assertEqual(one.reads, [ReadState(b"r", 1)])


class FollowerTests(SynchronousTestCase):
    """6.4, the end: reads at followers."""

    def following(self) -> Member:
        """A follower that knows its leader, 2."""
        one = member(term=1)
        one.step(appended(1, term=1, commit=1))
        return one

    def test_asks_the_leader(self) -> None:
        """6.4: for the index only; it answers the read itself."""
        one = self.following()
        one.raft.read_index(b"a")
        one.raft.read_index(b"b")
        (request,) = one.settle()
        assert isinstance(request, ReadIndexRequest)
        self.assertEqual(request.to, 2)
        one.step(ReadIndexResponse(2, 1, 1, request.number, 7))
        self.assertEqual(one.reads, [ReadState(b"a", 7), ReadState(b"b", 7)])

    def test_leader_answers_like_its_own(self) -> None:
        """6.4: after a round, and after an own commit; not a replica that it does not know."""
        one = leading()
        sent = one.step(ReadIndexRequest(2, 1, 1, 77), ReadIndexRequest(9, 1, 1, 78))
        number = max(beat.round for beat in only(Heartbeat, sent))
        sent = one.step(HeartbeatResponse(3, 1, 1, number))
        self.assertEqual(only(ReadIndexResponse, sent), [ReadIndexResponse(1, 2, 1, 77, 1)])

    def test_answer_counts_once(self) -> None:
        """A message may come twice."""
        one = self.following()
        one.raft.read_index(b"a")
        (request,) = only(ReadIndexRequest, one.settle())
        one.step(*(ReadIndexResponse(2, 1, 1, request.number, index) for index in (7, 8)))
        self.assertEqual(one.reads, [ReadState(b"a", 7)])

    def test_numbers_of_another_life(self) -> None:
        """R5: an answer to what was asked before a restart, or another replica asked, is none."""
        one = self.following()
        one.raft.read_index(b"a")
        (before,) = only(ReadIndexRequest, one.settle())
        one.start()
        one.step(Heartbeat(2, 1, 1, 0))
        one.raft.read_index(b"b")
        one.settle()
        one.step(ReadIndexResponse(2, 1, 1, before.number, 1))
        self.assertEqual(one.reads, [])

    def test_given_up(self) -> None:
        """Whoever waits is told when the leader does not answer, or is another one."""
        one = self.following()
        one.raft.read_index(b"a")
        one.settle()
        for _ in range(BASE - 1):
            one.tick()
            one.step(Heartbeat(2, 1, 1, 0))
        self.assertEqual(one.reads_lost, [])
        one.tick()
        self.assertEqual(one.reads_lost, [b"a"])
        one.step(Heartbeat(2, 1, 1, 0))
        one.raft.read_index(b"b")
        one.settle()
        one.step(Heartbeat(3, 1, 2, 0))
        self.assertEqual(one.reads_lost, [b"a", b"b"])

    def test_no_leader(self) -> None:
        """There is nobody to ask."""
        one = member()
        self.assertEqual(one.raft.read_index(b"r"), Dropped(Reason.NO_LEADER))
        campaign(one)
        self.assertEqual(one.raft.read_index(b"r"), Dropped(Reason.NO_LEADER))

    def test_everywhere_in_a_group(self) -> None:
        """6.4: at any replica, a read sees what was committed before it was asked."""
        group = Group(3, learners=1)
        group.elect(1)
        group.propose()
        for one in group.members.values():
            one.raft.read_index(b"r")
        group.deliver()
        for one in group.members.values():
            self.assertEqual(one.reads, [ReadState(b"r", 2)])


class DeposedTests(SynchronousTestCase):
    """6.4 and section 8: a leader that has been deposed without knowing it answers no read."""

    def test_no_stale_read(self) -> None:
        """Its round is answered by nobody who has gone over to the next leader."""
        group = Group(3, settings=replace(Settings(), check_quorum=False))
        old = group.elect(1)
        group.isolate(1)
        group.members[2].raft.suspect()
        group.elect(2)
        self.assertIs(old.raft.role, Role.LEADER)
        old.raft.read_index(b"r")
        group.deliver()
        self.assertEqual(old.reads, [])
        group.heal()
        group.tick(2)
        self.assertEqual((old.reads, old.reads_lost), ([], [b"r"]))


class LeaseTests(SynchronousTestCase):
    """6.4.1: reads within a lease ask nobody."""

    def leading(self) -> tuple[Member, int]:
        """A leader just after heartbeats have left, and their round."""
        one = leading(settings=LEASES)
        beats = only(Heartbeat, one.tick(LEASES.heartbeat_ticks))
        return one, beats[0].round

    def reads_at_once(self, one: Member) -> bool:
        """Whether a read is answered without a message."""
        one.reads.clear()
        one.raft.read_index(b"r")
        sent = only(Heartbeat, one.settle())
        assert bool(sent) != bool(one.reads)
        return bool(one.reads)

    def test_off_unless_asked_for(self) -> None:
        """R6: it trusts clocks."""
        one = leading(settings=Settings())
        beats = only(Heartbeat, one.tick(2))
        one.step(*(HeartbeatResponse(sender, 1, 1, beats[0].round) for sender in (2, 3)))
        self.assertFalse(self.reads_at_once(one))

    def test_from_a_majority(self) -> None:
        """6.4.1: the lease begins with a majority's answer."""
        one, number = self.leading()
        self.assertFalse(self.reads_at_once(one))
        one, number = self.leading()
        one.step(HeartbeatResponse(2, 1, 1, number))
        self.assertTrue(self.reads_at_once(one))

    def test_counted_from_the_send(self) -> None:
        """R6: it ends an election timeout less the drift after the heartbeats left, however late
        they were answered."""
        length = BASE - LEASES.lease_drift_ticks
        for late in (0, 1, 3):
            one, number = self.leading()
            one.tick(late)
            one.step(HeartbeatResponse(2, 1, 1, number))
            one.tick(length - late - 1)
            self.assertTrue(self.reads_at_once(one), late)
            one.tick()
            self.assertFalse(self.reads_at_once(one), late)

    def test_over_with_a_transfer(self) -> None:
        """R6, 6.4.1: who is told to stand may be elected at once, and even later in this term."""
        one, number = self.leading()
        one.step(HeartbeatResponse(2, 1, 1, number))
        one.raft.transfer_leadership(3)
        self.assertFalse(self.reads_at_once(one))
        for _ in range(3 * BASE):
            for beat in only(Heartbeat, one.tick()):
                one.step(HeartbeatResponse(beat.to, 1, 1, beat.round))
        self.assertIs(one.raft.role, Role.LEADER)
        self.assertFalse(self.reads_at_once(one))

    def test_not_before_an_own_commit(self) -> None:
        """R4 holds with a lease as well."""
        one = member(1, settings=LEASES)
        one.tick(BASE)
        lead(one)
        number = only(Heartbeat, one.tick(LEASES.heartbeat_ticks))[0].round
        one.step(HeartbeatResponse(2, 1, one.raft.term, number))
        one.raft.read_index(b"r")
        one.settle()
        self.assertEqual(one.reads, [])

    def test_restarted_replica_keeps_the_lease(self) -> None:
        """6.4.1: it may have answered the leader in its last life: it elects nobody for a while."""
        one = member(term=1, settings=LEASES, chance=0.9)
        candidacies = (PreVoteRequest(3, 1, 2, 0, 0), VoteRequest(3, 1, 2, 0, 0))
        one.tick(BASE - 1)
        self.assertEqual(one.step(*candidacies), [])
        self.assertEqual(one.raft.term, 1)
        one.tick()
        self.assertEqual(len(one.step(*candidacies)), 2)

    def test_suspicion_does_not_break_it(self) -> None:
        """R6, W1: the followers of a leader that is suspected wrongly do not elect another one
        while it answers reads from its lease."""
        group = Group(3, settings=LEASES)
        group.tick(2 * BASE)
        old = group.leader
        group.isolate(old.replica)
        for replica in (2, 3):
            group[replica].suspect()
        for _ in range(BASE - LEASES.lease_drift_ticks - 1):
            group.tick()
            old.reads.clear()
            old.raft.read_index(b"r")
            group.deliver()
            self.assertTrue(not old.reads or group.leader is old)
