"""Membership, sentence by sentence: the dissertation's chapter 4 (the paper's section 6)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import (
    AddLearner,
    Change,
    Configuration,
    Demote,
    Dropped,
    Promote,
    Proposed,
    Reason,
    Remove,
    Role,
    Settings,
)
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from kvtwist.core.raft.progress import Sending
from tests.core.raft.group import (
    BASE,
    PLAIN,
    Group,
    Member,
    acknowledge,
    appended,
    campaign,
    leading,
    member,
    only,
)


def change(leader: Member, wanted: Change) -> Proposed:
    """Have *wanted* appended, and sent."""
    done = leader.raft.propose_membership(wanted)
    assert isinstance(done, Proposed), done
    leader.settle()
    return done


def changed(group: Group, wanted: Change) -> None:
    """Have *wanted* committed and known to all."""
    change(group.leader, wanted)
    group.deliver()
    group.tick(2 * group.settings.heartbeat_ticks)


class ChangeTests(SynchronousTestCase):
    """4.1: one change at a time, by an entry of the log."""

    def test_in_force_when_appended(self) -> None:
        """4.1: at the leader at once, at a follower when it comes; not only when committed."""
        one = leading()
        change(one, AddLearner(4))
        self.assertEqual(one.raft.configuration, Configuration((1, 2, 3), (4,)))
        self.assertLess(one.raft.commit_index, one.raft.last_index)
        other = member(replica=2)
        entries = one.raft.log.entries(1, 2)
        other.step(AppendRequest(1, 2, 1, 0, 0, entries, 0))
        self.assertEqual(other.raft.configuration, Configuration((1, 2, 3), (4,)))

    def test_falls_back_when_cut_off(self) -> None:
        """4.1: a change that is overwritten was none, for the leader that made it too."""
        one = leading()
        change(one, Remove(3))
        one.step(appended(2, term=2, sender=2, prev_index=1, prev_term=1))
        self.assertEqual(one.raft.configuration, Configuration((1, 2, 3)))

    def test_one_at_a_time(self) -> None:
        """4.1, R10: not before the last one is committed."""
        one = leading()
        change(one, AddLearner(4))
        dropped = Dropped(Reason.CHANGE_PENDING, 1)
        self.assertEqual(one.raft.propose_membership(AddLearner(5)), dropped)
        acknowledge(one, 2)
        self.assertIsInstance(one.raft.propose_membership(AddLearner(5)), Proposed)

    def test_not_before_an_own_commit(self) -> None:
        """R10, R4 (the correction of 2015): a new leader may not know of the last change."""
        fresh = member(1)
        campaign(fresh)
        fresh.step(VoteResponse(2, 1, 2, granted=True))
        dropped = Dropped(Reason.NO_OWN_COMMIT, 1)
        self.assertEqual(fresh.raft.propose_membership(AddLearner(4)), dropped)
        acknowledge(fresh, 2)
        self.assertIsInstance(fresh.raft.propose_membership(AddLearner(4)), Proposed)

    def test_senseless(self) -> None:
        """Nothing is appended for it."""
        one = leading(learners=(4,))
        for wanted in (AddLearner(1), AddLearner(4), Promote(1), Demote(4), Remove(9), Promote(9)):
            dropped = Dropped(Reason.SENSELESS, 1)
            self.assertEqual(one.raft.propose_membership(wanted), dropped, wanted)
        alone = leading(voters=(1,), learners=(2,))
        self.assertIsInstance(alone.raft.propose_membership(Remove(1)), Dropped)
        self.assertIsInstance(alone.raft.propose_membership(Demote(1)), Dropped)

    def test_majority_is_of_the_new_configuration(self) -> None:
        """4.1: the entry that makes a voter is committed with that voter's majority."""
        one = leading(learners=(4,))
        change(one, Promote(4))
        acknowledge(one, 2)
        self.assertEqual(one.raft.commit_index, 1)
        acknowledge(one, 4)
        self.assertEqual(one.raft.commit_index, 2)

    def test_what_is_known_of_the_others_stays(self) -> None:
        """4.1: else each change would begin with finding out again where all logs agree."""
        one = leading()
        change(one, AddLearner(4))
        known = one.raft.progress()
        self.assertEqual([known[replica].match for replica in (2, 3, 4)], [1, 1, 0])
        self.assertIs(known[2].sending, Sending.REPLICATE)

    def test_removed_does_not_count(self) -> None:
        """4.1: nor is it sent anything more."""
        one = leading(voters=(1, 2, 3, 4))
        change(one, Remove(4))
        one.step(AppendResponse(4, 1, 1, 2))
        self.assertEqual(one.raft.commit_index, 1)
        sent = acknowledge(one, 2) + one.tick(PLAIN.heartbeat_ticks)
        self.assertEqual({message.to for message in sent}, {2, 3})

    def test_restart(self) -> None:
        """4.1: what is in force is read from the log again."""
        one = leading()
        change(one, AddLearner(4))
        one.start()
        self.assertEqual(one.raft.configuration, Configuration((1, 2, 3), (4,)))

    def test_votes_and_entries_of_strangers(self) -> None:
        """4.1: a replica takes entries from a leader, and votes for a candidate, that its own
        configuration does not know: that may be old."""
        one = member()
        (response,) = one.step(VoteRequest(9, 1, 1, 0, 0))
        self.assertEqual(response, VoteResponse(1, 9, 1, granted=True))
        one.step(appended(1, term=1, sender=9))
        self.assertEqual(one.raft.leader, 9)


class LearnerTests(SynchronousTestCase):
    """4.2.1: a new replica catches up before it has a vote."""

    def test_receives_and_does_not_count(self) -> None:
        """4.2.1: it gets the log, and its acknowledgement commits nothing."""
        group = Group(3, learners=1)
        group.elect(1)
        group.propose()
        self.assertEqual(group[4].commit_index, group[1].commit_index)
        group.isolate(2)
        group.isolate(3)
        before = group[1].commit_index
        group.propose()
        self.assertEqual(group[4].last_index, before + 1)
        self.assertEqual(group[1].commit_index, before)

    def test_does_not_stand(self) -> None:
        """4.2.1: however long it hears nothing, or is told to."""
        one = member(voters=(2, 3), learners=(1,), term=1)
        self.assertEqual(one.tick(5 * BASE), [])
        self.assertEqual(one.step(TimeoutNow(2, 1, 1)), [])
        self.assertEqual((one.raft.role, one.raft.term), (Role.FOLLOWER, 1))

    def test_vote_does_not_count(self) -> None:
        """4.2.1: a candidate needs a majority of voters."""
        one = member(learners=(4, 5))
        sent = campaign(one)
        self.assertEqual({message.to for message in sent}, {2, 3})
        for sender in (4, 5):
            one.step(VoteResponse(sender, 1, 1, granted=True))
        self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_does_not_keep_the_leader(self) -> None:
        """6.2: nor does it make up the majority that a leader has to hear of."""
        group = Group(3, learners=2)
        one = group.elect(1)
        group.isolate(2)
        group.isolate(3)
        group.tick(2 * BASE)
        self.assertIsNot(one.raft.role, Role.LEADER)

    def test_promoted_when_close(self) -> None:
        """4.2.1: at the limit, and one entry further behind."""
        one = leading(learners=(4,), settings=replace(PLAIN, promotion_lag_entries_max=3))
        one.raft.propose([b"x"] * 4)
        one.settle()
        acknowledge(one, 2)
        dropped = Dropped(Reason.NOT_CAUGHT_UP, 1)
        self.assertEqual(one.raft.propose_membership(Promote(4)), dropped)
        acknowledge(one, 4, index=2)
        self.assertIsInstance(one.raft.propose_membership(Promote(4)), Proposed)

    def test_from_nothing_to_leader(self) -> None:
        """4.1 and 4.2.1: added, caught up, promoted; it then can do what all can."""
        group = Group(3)
        group.elect(1)
        group.propose()
        group.add(4)
        changed(group, AddLearner(4))
        self.assertEqual(group[4].commit_index, group[1].commit_index)
        changed(group, Promote(4))
        self.assertEqual(group[4].configuration, Configuration((1, 2, 3, 4)))
        group.leader.raft.transfer_leadership(4)
        group.deliver()
        self.assertIs(group.leader, group.members[4])
        group.propose()
        group.check()

    def test_added_again(self) -> None:
        """R11: of what a removed replica acknowledged nothing counts when it is a member again."""
        one = leading(voters=(1, 2, 3, 4))
        change(one, Remove(4))
        acknowledge(one, 2, 3)
        change(one, AddLearner(4))
        progress = one.raft.progress()[4]
        self.assertEqual((progress.match, progress.sending), (0, Sending.PROBE))


class RemovedLeaderTests(SynchronousTestCase):
    """4.2.2: a leader that is to be removed, or made a learner."""

    def test_steps_down_when_committed(self) -> None:
        """4.2.2: not before; it has told the others that it is committed."""
        for wanted in (Remove(1), Demote(1)):
            one = leading(voters=(1, 2, 3, 4))
            change(one, wanted)
            acknowledge(one, 2)
            self.assertIs(one.raft.role, Role.LEADER)
            sent = only(AppendRequest, acknowledge(one, 3))
            self.assertIs(one.raft.role, Role.FOLLOWER)
            self.assertEqual({(each.to, each.commit) for each in sent}, {(2, 2), (3, 2), (4, 2)})

    def test_stays_while_only_what_precedes_is_committed(self) -> None:
        """4.2.2: an earlier entry's commit ends nothing."""
        one = leading(voters=(1, 2, 3, 4))
        one.raft.propose([b"x"])
        change(one, Remove(1))
        acknowledge(one, 2, 3, index=2)
        self.assertEqual((one.raft.commit_index, one.raft.role), (2, Role.LEADER))

    def test_does_not_count_itself(self) -> None:
        """4.2.2: the majority is of the others."""
        one = leading()
        change(one, Remove(1))
        acknowledge(one, 2)
        self.assertEqual(one.raft.commit_index, 1)

    def test_leads_while_it_is_not_a_member(self) -> None:
        """4.2.2: until then it goes on sending what it has; of new proposals it would not learn
        what becomes of them, so that it takes none."""
        one = leading()
        one.raft.propose([b"x"])
        change(one, Remove(1))
        self.assertEqual(one.raft.propose([b"y"]), Dropped(Reason.LEAVING))
        beats = only(Heartbeat, one.tick(PLAIN.heartbeat_ticks))
        self.assertEqual({each.to for each in beats}, {2, 3})
        acknowledge(one, 2, 3, index=2)
        self.assertEqual((one.raft.commit_index, one.raft.role), (2, Role.LEADER))

    def test_may_stand_before_it_is_committed(self) -> None:
        """4.2.2: it may be the only one that has the entry; its own vote does not count."""
        one = leading()
        change(one, Remove(1))
        one.start()
        self.assertEqual({message.to for message in campaign(one)}, {2, 3})
        one.step(VoteResponse(2, 1, one.raft.term, granted=True))
        self.assertIs(one.raft.role, Role.CANDIDATE)
        one.step(VoteResponse(3, 1, one.raft.term, granted=True))
        self.assertIs(one.raft.role, Role.LEADER)

    def test_does_not_stand_after_it_is_committed(self) -> None:
        """4.2.2: it has left."""
        one = leading(voters=(1, 2, 3, 4))
        change(one, Remove(1))
        acknowledge(one, 2, 3)
        self.assertEqual(one.tick(5 * BASE), [])

    def test_the_others_go_on(self) -> None:
        """4.2.2: they elect one of themselves."""
        group = Group(3)
        group.elect(1)
        change(group.leader, Remove(1))
        group.deliver()
        group.tick(3 * BASE)
        self.assertIn(group.leader.replica, (2, 3))
        group.propose()
        group.check()


class DisruptionTests(SynchronousTestCase):
    """4.2.3: a removed replica, which does not know it, cannot depose a leader."""

    def test_removed_replica(self) -> None:
        """4.2.3: while the others hear of their leader, they neither vote nor take its term."""
        for settings in (Settings(), replace(Settings(), pre_vote=False)):
            group = Group(4, settings=settings)
            group.elect(1)
            group.cut |= {(other, 4) for other in (1, 2, 3)}
            changed(group, Remove(4))
            before = [group[replica].term for replica in (1, 2, 3)]
            group.tick(10 * BASE)
            self.assertEqual([group[replica].term for replica in (1, 2, 3)], before)
            self.assertIs(group[1].role, Role.LEADER)

    def test_exactly_the_shortest_timeout(self) -> None:
        """4.2.3: a request that comes within it is passed over; one at its end is looked at."""
        for elapsed, answered in ((BASE - 1, False), (BASE, True)):
            one = member(settings=replace(PLAIN, check_quorum=True), chance=0.9)
            one.step(Heartbeat(2, 1, 1, 0))
            one.tick(elapsed)
            sent = one.step(VoteRequest(3, 1, 2, 0, 0))
            self.assertEqual(bool(sent), answered)
            self.assertEqual(one.raft.term, 2 if answered else 1)

    def test_leader_is_not_deposed(self) -> None:
        """4.2.3: the leader itself passes such a request over."""
        one = leading(settings=replace(PLAIN, check_quorum=True))
        self.assertEqual(one.step(VoteRequest(3, 1, 9, 99, 9)), [])
        self.assertEqual((one.raft.role, one.raft.term), (Role.LEADER, 1))
