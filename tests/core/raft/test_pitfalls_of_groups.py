"""The traps of Raft, by number: elections, membership, and the log (R7 to R14, R16, R17, R19).

R17 (deterministic applying) is the state machine's, but the order and the choice of what is applied
are the core's; R18 (shared syncs) and R19 (failure detectors) are the caller's, of which the core
has the end that is tested here.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import (
    AddLearner,
    Configuration,
    Dropped,
    Promote,
    Proposed,
    Reason,
    Remove,
    Role,
    Settings,
    Snapshot,
)
from kvtwist.core.raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    VoteResponse,
)
from tests.core.raft.group import (
    BASE,
    PLAIN,
    Group,
    acknowledge,
    appended,
    campaign,
    lead,
    leading,
    log_of,
    member,
    only,
)


class ElectionTests(SynchronousTestCase):
    """R7 to R9: a group finds a leader, and keeps it."""

    def test_r7_pre_vote(self) -> None:
        """R7: it changes nothing at either side, and a refusal tells the term."""
        one = member(term=5, vote=3, settings=Settings())
        (granted,) = one.step(PreVoteRequest(2, 1, 6, 0, 0))
        (refused,) = one.step(PreVoteRequest(2, 1, 3, 0, 0))
        self.assertEqual(granted, PreVoteResponse(1, 2, 6, granted=True))
        self.assertEqual(refused, PreVoteResponse(1, 2, 5, granted=False))
        self.assertEqual((one.raft.term, one.raft.vote), (5, 3))

    def test_r8_stalled_disk(self) -> None:
        """R8: a leader whose own write does not end steps down, though it hears all the others;
        how long that is, is a setting of its own: a large value takes its time."""
        for stall_ticks in (BASE, 3 * BASE):
            one = leading(settings=Settings(stall_ticks=stall_ticks))
            one.raft.propose([b"x"])
            one.take()
            for tick in range(1, stall_ticks + 1):
                one.raft.tick()
                for beat in only(Heartbeat, one.take()):
                    one.raft.step(HeartbeatResponse(beat.to, 1, 1, beat.round))
                self.assertIs(one.raft.role is Role.LEADER, tick < stall_ticks)

    def test_r8_slow_disk(self) -> None:
        """R8: one that is only slow goes on: it is the oldest write that counts."""
        one = leading(settings=Settings())
        for _ in range(3 * BASE):
            one.raft.propose([b"x"])
            one.raft.tick()
            for beat in only(Heartbeat, one.take()):
                one.raft.step(HeartbeatResponse(beat.to, 1, 1, beat.round))
            one.write(max(0, len(one.writes) - (BASE - 2)))
        self.assertIs(one.raft.role, Role.LEADER)

    def partitioned(self, cut: set[tuple[int, int]], replicas: int = 5) -> Group:
        """A group some of whose ways are cut, after a few election timeouts; it makes progress."""
        group = Group(replicas)
        group.tick(2 * BASE)
        before = max(one.raft.commit_index for one in group.members.values())
        group.cut = cut
        group.tick(6 * BASE)
        group.propose()
        group.tick(2)
        self.assertGreater(group.leader.raft.commit_index, before)
        terms = {one.raft.term for one in group.members.values()}
        group.tick(10 * BASE)
        self.assertEqual({one.raft.term for one in group.members.values()}, terms, "no peace")
        group.check()
        return group

    def test_r9_bridge(self) -> None:
        """R9: two halves that only one replica connects."""
        both = [(1, 4), (1, 5), (2, 4), (2, 5)]
        self.partitioned({*both, *((to, sender) for sender, to in both)})

    def test_r9_ring(self) -> None:
        """R9: each hears its two neighbours only."""
        self.partitioned(
            {
                (one, other)
                for one in range(1, 6)
                for other in range(1, 6)
                if (one - other) % 5 in (2, 3)
            }
        )

    def test_r9_only_the_hub_has_a_majority(self) -> None:
        """R9: the leader loses all but one; that one is all that the others hear."""
        group = self.partitioned(
            {
                (one, other)
                for one in range(1, 6)
                for other in range(1, 6)
                if one != other and 2 not in (one, other)
            }
        )
        self.assertEqual(group.leader.replica, 2)

    def test_r9_leader_that_hears_nothing(self) -> None:
        """R9: its heartbeats keep the others from an election, until it notices and steps down."""
        group = self.partitioned({(2, 1), (3, 1)}, replicas=3)
        self.assertIn(group.leader.replica, (2, 3))

    def test_r9_leader_that_nobody_hears(self) -> None:
        """R9: the others elect another one, and it follows."""
        group = self.partitioned({(1, 2), (1, 3)}, replicas=3)
        self.assertIn(group.leader.replica, (2, 3))
        self.assertIs(group[1].role, Role.FOLLOWER)

    def test_r9_follower_that_hears_nothing(self) -> None:
        """R9: it asks again and again, and disturbs nobody."""
        group = self.partitioned({(1, 3), (2, 3)}, replicas=3)
        self.assertEqual((group.leader.replica, group[1].term), (1, 1))


class MembershipTests(SynchronousTestCase):
    """R10, R11, R19: who is a member is decided by the log."""

    def test_r10_one_at_a_time(self) -> None:
        """R10: and no new replica begins as a voter."""
        one = leading()
        self.assertIsInstance(one.raft.propose_membership(AddLearner(4)), Proposed)
        self.assertEqual(one.raft.configuration.voters, (1, 2, 3))
        self.assertEqual(one.raft.propose_membership(Promote(4)), Dropped(Reason.CHANGE_PENDING, 1))
        one.settle()
        acknowledge(one, 2, 4, index=1)
        self.assertEqual(one.raft.propose_membership(Promote(4)), Dropped(Reason.CHANGE_PENDING, 1))

    def test_r10_bug_of_2015(self) -> None:
        """R10: two leaders in turn begin a change each from the same configuration, and neither
        sees the other's; without an own commit first, two disjoint majorities would follow."""
        group = Group(4)
        one = group.elect(1)
        group.propose()
        group.isolate(1)
        self.assertIsInstance(one.raft.propose_membership(AddLearner(5)), Proposed)
        one.settle()
        group.tick(4 * BASE)
        two = group.leader
        self.assertIsInstance(two.raft.propose_membership(Remove(1)), Proposed)
        group.deliver()
        self.assertEqual(two.raft.configuration.voters, (2, 3, 4))
        group.heal()
        group.isolate(1)
        lead(one)
        self.assertEqual(one.raft.propose_membership(Remove(2)), Dropped(Reason.NO_OWN_COMMIT, 1))

    def test_r11_acknowledgements_of_a_removed_replica(self) -> None:
        """R11: they, and its votes, count for nothing when somebody has its place."""
        one = leading(voters=(1, 2, 3, 4))
        one.raft.propose_membership(Remove(4))
        one.settle()
        acknowledge(one, 2, 3)
        one.raft.propose_membership(AddLearner(5))
        one.raft.propose([b"x"])
        one.settle()
        one.step(AppendResponse(4, 1, 1, 4))
        self.assertEqual(one.raft.commit_index, 2)
        self.assertNotIn(4, one.raft.progress())
        one.step(HigherTerm(2, 1, 2))
        campaign(one)
        one.step(VoteResponse(4, 1, 3, granted=True))
        self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_r11_id(self) -> None:
        """R11: 0 is nobody: it is no replica's id."""
        self.assertRaises(ValueError, member, replica=0)

    def test_r19_silence_changes_no_membership(self) -> None:
        """R19: however long a replica is gone, and whoever suspects it."""
        group = Group(3)
        group.elect(1)
        group.isolate(3)
        for _ in range(10 * BASE):
            group[2].suspect()
            group.tick()
        self.assertEqual(group.leader.raft.configuration, Configuration((1, 2, 3)))


class LogTests(SynchronousTestCase):
    """R12 to R14, R16, R17: what is in the log, and what it may cost."""

    def test_r12_overtaken_message(self) -> None:
        """R12: an older, shorter message cuts off nothing; the commit index does not fall."""
        one = member(term=1)
        one.step(appended(1, 1, 1, term=1, commit=3))
        sent = one.step(appended(1, term=1, commit=1), Heartbeat(2, 1, 1, 1))
        self.assertEqual((one.raft.last_index, one.raft.commit_index), (3, 3))
        self.assertEqual(only(AppendResponse, sent), [AppendResponse(1, 2, 1, 3)])

    def test_r12_match_never_falls(self) -> None:
        """R12: not by an older acknowledgement, nor by a rejection that was overtaken."""
        one = leading()
        one.raft.propose([b"x", b"y"])
        one.settle()
        acknowledge(one, 2)
        acknowledge(one, 2, index=1)
        one.step(AppendResponse(2, 1, 1, 2, rejected=True, hint_index=0))
        progress = one.raft.progress()[2]
        self.assertEqual((progress.match, progress.next), (3, 4))

    def test_r12_configuration_follows_a_truncation(self) -> None:
        """R12: the cache of configurations is one of them."""
        one = leading()
        one.raft.propose_membership(Remove(3))
        one.settle()
        one.step(appended(2, term=2, sender=2, prev_index=1, prev_term=1))
        self.assertEqual(one.raft.configuration, Configuration((1, 2, 3)))

    def test_r13_snapshot_that_is_behind(self) -> None:
        """R13: is ignored, and answered with what is here."""
        one = member(1, 1, 1, commit=3)
        (answer,) = one.step(InstallSnapshot(2, 1, 1, Snapshot(2, 1, Configuration((2,)))))
        self.assertEqual(answer, AppendResponse(1, 2, 1, 3))
        self.assertEqual(one.raft.configuration, Configuration((1, 2, 3)))
        self.assertEqual(one.disk.entries, list(log_of(1, 1, 1)))

    def test_r14_slow_follower_stops_no_compaction(self) -> None:
        """R14: the leader compacts what it has applied, whoever lacks it; and keeps what the
        caller wants kept."""
        group = Group(3)
        group.elect(1)
        group.isolate(3)
        for _ in range(10):
            group.propose()
        group.members[1].compact(8)
        self.assertEqual((group[1].first_index, group[1].last_index), (9, 11))
        group.heal()
        group.tick(4)
        self.assertEqual(group[3].commit_index, 11)

    def test_r16_uncommitted_bytes(self) -> None:
        """R16: without a majority a leader takes in a bounded amount; see `test_bounds`."""
        one = leading(settings=replace(PLAIN, uncommitted_bytes_max=1000))
        taken = sum(isinstance(one.raft.propose([b"x" * 84]), Proposed) for _ in range(50))
        self.assertEqual(taken, 10)

    def test_r17_same_calls_same_output(self) -> None:
        """R17: two replicas to which the same happens do the same, message for message."""

        def life() -> list[object]:
            group = Group(3, learners=1)
            group.tick(2 * BASE)
            group.propose(b"x", b"y")
            group.leader.raft.propose_membership(Promote(4))
            group.deliver()
            group.isolate(group.leader.replica)
            group.tick(4 * BASE)
            return [group.sent, [one.applied for one in group.members.values()]]

        self.assertEqual(life(), life())
