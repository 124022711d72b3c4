"""Compaction, sentence by sentence: the paper's section 7 and figure 13, InstallSnapshot."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import AddLearner, Configuration, Role, Snapshot
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    VoteRequest,
    VoteResponse,
)
from kvtwist.core.raft.progress import Sending
from tests.core.raft.group import (
    PLAIN,
    Group,
    Member,
    acknowledge,
    appended,
    lead,
    leading,
    member,
    only,
)

FOUR = Configuration((1, 2, 3), (4,))


def install(index: int, term: int, *, at: int = 5, data: bytes = b"17") -> InstallSnapshot:
    """A snapshot from leader 2 of term *at*."""
    return InstallSnapshot(2, 1, at, Snapshot(index, term, FOUR, data))


def compacted(entries: int = 4) -> Member:
    """A leader whose log has its last entry only; replica 3 has been heard of, but has nothing."""
    one = leading()
    one.raft.propose([b"x"] * entries)
    one.settle()
    acknowledge(one, 2)
    one.compact(one.raft.applied_index - 1)
    return one


class ReceiverTests(SynchronousTestCase):
    """Figure 13, receiver."""

    def test_earlier_term(self) -> None:
        """1: is refused."""
        one = member(term=6)
        self.assertEqual(one.step(install(7, 3)), [HigherTerm(1, 2, 6)])
        self.assertEqual(one.raft.last_index, 0)

    def test_replaces(self) -> None:
        """7 and 8, R13: log, state and configuration, with the hard state, in one write."""
        one = member(1, 1)
        one.raft.step(install(7, 3))
        ready = one.raft.ready()
        assert ready.snapshot is not None and ready.hard_state is not None
        self.assertEqual((ready.snapshot.index, ready.hard_state.term), (7, 5))
        self.assertEqual((ready.hard_state.commit, ready.must_sync), (7, True))
        self.assertEqual((ready.messages, ready.committed), ((), ()))
        one.disk.write(ready)
        one.raft.persisted(ready.number)
        self.assertEqual(one.raft.configuration, FOUR)
        self.assertEqual((one.raft.first_index, one.raft.last_index), (8, 7))
        self.assertEqual((one.raft.commit_index, one.raft.applied_index), (7, 7))
        self.assertEqual(one.settle(), [AppendResponse(1, 2, 5, 7)])
        one.start()
        self.assertEqual((one.raft.last_index, one.raft.log.last_term), (7, 3))

    def test_log_goes_on_after_it(self) -> None:
        """5.3 and 7: the next entry follows the snapshot's index and term."""
        one = member()
        one.step(install(7, 3))
        (response,) = one.step(appended(5, term=5, prev_index=7, prev_term=3, commit=8))
        self.assertEqual(response, AppendResponse(1, 2, 5, 8))
        self.assertEqual([entry.index for entry in one.applied], [8])

    def test_prefix_of_the_log(self) -> None:
        """6: when its last entry is here, what follows is kept; nothing need be installed."""
        one = member(1, 1, 2, 2)
        (response,) = one.step(install(3, 2))
        self.assertEqual(response, AppendResponse(1, 2, 5, 3))
        self.assertEqual((one.raft.last_index, one.raft.commit_index), (4, 3))
        self.assertEqual(one.disk.compacted.index, 0)

    def test_same_index_but_another_term(self) -> None:
        """7: then the log is not the leader's."""
        one = member(1, 1, 2, 2)
        one.step(install(3, 3))
        self.assertEqual((one.raft.last_index, one.raft.log.last_term), (3, 3))

    def test_behind(self) -> None:
        """R13: one that is behind what is committed changes nothing; the leader is told what is
        here."""
        one = member(1, 1, 1, 1, commit=3)
        for index in (2, 3):
            (response,) = one.step(install(index, 1))
            self.assertEqual(response, AppendResponse(1, 2, 5, 3))
        self.assertEqual((one.raft.last_index, one.disk.compacted.index), (4, 0))

    def test_entries_before_it(self) -> None:
        """5.3 and 7: a message that begins before the compaction is met at what is committed."""
        one = member()
        one.step(install(7, 3))
        (response,) = one.step(appended(3, 3, term=5, prev_index=4, prev_term=3))
        self.assertEqual(response, AppendResponse(1, 2, 5, 7))
        self.assertEqual(one.raft.last_index, 7)

    def test_votes_by_its_end(self) -> None:
        """5.4.1 and 7: the term of the last entry outlives the entry."""
        one = member()
        one.step(install(7, 3))
        for last_index, last_term, granted in ((9, 2, False), (6, 3, False), (7, 3, True)):
            (response,) = one.step(VoteRequest(3, 1, 6, last_index, last_term))
            self.assertEqual(response, VoteResponse(1, 3, 6, granted))


class LeaderTests(SynchronousTestCase):
    """Section 7: a leader whose log begins too late for a follower."""

    def test_wants_one(self) -> None:
        """Once, and sends nothing else until it has arrived."""
        one = compacted()
        one.step(AppendResponse(3, 1, 1, 1, rejected=True))
        one.step(HeartbeatResponse(3, 1, 1))
        one.raft.progress()[3].probe()
        one.step(AppendResponse(3, 1, 1, 0, rejected=True), HeartbeatResponse(3, 1, 1))
        self.assertEqual(one.wanted, [3])
        self.assertIs(one.raft.progress()[3].sending, Sending.SNAPSHOT)
        one.raft.propose([b"y"])
        self.assertEqual({message.to for message in only(AppendRequest, one.settle())}, {2})

    def wanted(self) -> tuple[Member, Snapshot]:
        """A leader that has been asked for a snapshot, and that."""
        one = compacted()
        one.raft.progress()[3].probe()
        one.step(HeartbeatResponse(3, 1, 1))
        self.assertEqual(one.wanted, [3])
        return one, one.raft.describe(one.raft.applied_index, b"data")

    def test_sent(self) -> None:
        """As the caller has made it; afterwards the entries that follow it."""
        one, snapshot = self.wanted()
        one.raft.send_snapshot(3, snapshot)
        self.assertEqual(one.settle(), [InstallSnapshot(1, 3, 1, snapshot)])
        one.raft.snapshot_sent(3, delivered=True)
        one.raft.propose([b"y"])
        self.assertEqual({message.to for message in only(AppendRequest, one.settle())}, {2})
        one.step(AppendResponse(3, 1, 1, snapshot.index))
        self.assertEqual(one.raft.progress()[3].match, snapshot.index)
        self.assertIs(one.raft.progress()[3].sending, Sending.REPLICATE)

    def test_answer_before_the_carrier_knows(self) -> None:
        """The follower's acknowledgement is the better news."""
        one, snapshot = self.wanted()
        one.raft.send_snapshot(3, snapshot)
        one.settle()
        one.step(AppendResponse(3, 1, 1, snapshot.index))
        self.assertIsNot(one.raft.progress()[3].sending, Sending.SNAPSHOT)
        one.raft.snapshot_sent(3, delivered=True)
        self.assertEqual(one.raft.progress()[3].next, snapshot.index + 1)

    def test_failed(self) -> None:
        """It is wanted again, but only when the follower is heard of: not in a loop."""
        one, snapshot = self.wanted()
        one.wanted.clear()
        one.raft.send_snapshot(3, snapshot)
        one.settle()
        one.raft.snapshot_sent(3, delivered=False)
        one.settle()
        self.assertEqual(one.wanted, [])
        one.step(HeartbeatResponse(3, 1, 1))
        self.assertEqual(one.wanted, [3])

    def test_not_wanted_any_more(self) -> None:
        """A snapshot for somebody else, or after the leadership, is not sent."""
        one, snapshot = self.wanted()
        for to in (2, 9):
            one.raft.send_snapshot(to, snapshot)
        one.step(HigherTerm(2, 1, 7))
        one.raft.send_snapshot(3, snapshot)
        one.raft.snapshot_sent(3, delivered=True)
        self.assertEqual(only(InstallSnapshot, one.settle()), [])

    def test_overtaken_by_compaction(self) -> None:
        """R14: what comes after an old snapshot may be compacted when it arrives: another one is
        wanted, and the slow follower stops nothing."""
        one, snapshot = self.wanted()
        one.wanted.clear()
        one.raft.send_snapshot(3, snapshot)
        one.raft.propose([b"y"] * 3)
        one.settle()
        acknowledge(one, 2)
        one.compact(one.raft.applied_index)
        one.step(AppendResponse(3, 1, 1, snapshot.index))
        self.assertEqual(one.wanted, [])
        one.raft.snapshot_sent(3, delivered=True)
        one.step(HeartbeatResponse(3, 1, 1))
        self.assertEqual(one.wanted, [3])

    def test_describe(self) -> None:
        """Index, term and configuration in force there; not of what is not known."""
        one = leading()
        one.raft.propose_membership(AddLearner(4))
        one.settle()
        self.assertEqual(one.raft.describe(1, b"d"), Snapshot(1, 1, Configuration((1, 2, 3)), b"d"))
        acknowledge(one, 2)
        one.compact(2)
        self.assertEqual(one.raft.describe(2).configuration, FOUR)
        self.assertRaises(ValueError, one.raft.describe, 1)
        self.assertRaises(ValueError, one.raft.describe, 3)

    def test_compacts_only_what_is_applied(self) -> None:
        """Section 7: each server on its own, what it has applied."""
        one = leading()
        one.raft.propose([b"x"])
        one.settle()
        self.assertRaises(ValueError, one.raft.compact, 2)
        one.compact(1)
        self.assertEqual(one.raft.first_index, 2)


class GroupTests(SynchronousTestCase):
    """All together."""

    def test_slow_follower(self) -> None:
        """Section 7: it gets the snapshot, then the rest, and has the same state."""
        group = Group(3, settings=replace(PLAIN, pre_vote=True, check_quorum=True))
        group.elect(1)
        group.isolate(3)
        for _ in range(5):
            group.propose()
        group.members[1].compact(4)
        group.members[2].compact(5)
        group.heal()
        group.tick(4)
        self.assertEqual(len(only(InstallSnapshot, group.sent)), 1)
        group.propose()
        self.assertEqual(group.members[3].disk.applied, 7)
        self.assertNotIn(3, group.members[3].states)
        group.check()

    def test_restart_from_a_snapshot(self) -> None:
        """Section 7: with what was compacted and what was not, and it can be elected."""
        group = Group(3)
        group.elect(1)
        for _ in range(4):
            group.propose()
        for one in group.members.values():
            one.compact(3)
            one.start()
            self.assertEqual((one.raft.first_index, one.raft.last_index), (4, 5))
            self.assertEqual(one.raft.applied_index, 5)
        group.elect(2)
        group.propose()
        self.assertEqual({one.raft.commit_index for one in group.members.values()}, {7})
        group.check()

    def test_new_leader_with_a_compacted_log(self) -> None:
        """Its own entries begin after what is compacted."""
        one = member()
        one.step(install(7, 3))
        lead(one)
        self.assertIs(one.raft.role, Role.LEADER)
        self.assertEqual((one.raft.first_index, one.raft.last_index), (8, 8))
