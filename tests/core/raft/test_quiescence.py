"""A group in which nothing happens falls silent, and wakes up again."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import AddLearner, ReadState, Role, Settings
from kvtwist.core.raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteRequest,
    ReadIndexRequest,
)
from tests.core.raft.group import BASE, Group, appended, member, only

PATIENCE = 6
QUIET = replace(Settings(), quiesce_after_ticks=PATIENCE)


def silent(replicas: int = 3, settings: Settings = QUIET) -> Group:
    """A group that has fallen silent, led by 1."""
    group = Group(replicas, settings=settings)
    group.tick(BASE + 1)
    group.propose()
    group.tick(3 * PATIENCE)
    assert all(one.raft.is_quiescent for one in group.members.values())
    return group


class SilenceTests(SynchronousTestCase):
    """Thousands of groups on a node must cost nothing while nobody uses them."""

    def test_nothing(self) -> None:
        """No message, no Ready, no election; however long."""
        group = silent()
        del group.sent[:]
        for _ in range(20 * BASE):
            for one in group.members.values():
                one.raft.tick()
                self.assertFalse(one.raft.has_ready())
        self.assertEqual(group.sent, [])
        self.assertEqual((group[1].role, group[2].leader), (Role.LEADER, 1))

    def test_when(self) -> None:
        """After so many ticks, not one earlier; only what happened counts, no heartbeats."""
        group = Group(3, settings=QUIET)
        group.elect(1)
        group.tick(2)
        group.propose()
        group.tick(PATIENCE - 1)
        self.assertFalse(group[1].is_quiescent)
        group.tick()
        self.assertTrue(group[1].is_quiescent)

    def test_never_unless_asked_for(self) -> None:
        """0 is never."""
        group = Group(3)
        group.elect(1)
        group.tick(20 * BASE)
        self.assertFalse(group[1].is_quiescent)

    def test_not_while_somebody_lacks_something(self) -> None:
        """Else the follower would never get it."""
        group = Group(3, settings=QUIET)
        group.elect(1)
        group.isolate(3)
        group.propose()
        group.tick(10 * PATIENCE)
        self.assertFalse(group[1].is_quiescent)
        group.heal()
        group.tick(3 * PATIENCE)
        self.assertTrue(group[1].is_quiescent and group[3].is_quiescent)
        self.assertEqual(group[3].commit_index, 2)

    def test_not_while_a_read_waits(self) -> None:
        """Else it would wait for ever."""
        group = Group(3, settings=replace(QUIET, check_quorum=False))
        group.elect(1)
        group.tick(1)
        group.cut = {(2, 1), (3, 1)}
        group[1].read_index(b"r")
        group.deliver()
        group.tick(5 * PATIENCE)
        self.assertFalse(group[1].is_quiescent)

    def test_follower_that_is_behind_does_not_join_in(self) -> None:
        """The commit index that goes with it must be the end of its log."""
        for terms, commit, joins in (((1,), 1, True), ((1, 1), 1, False), ((), 0, False)):
            one = member(*terms, term=1, settings=QUIET)
            one.step(Heartbeat(2, 1, 1, commit, quiesce=True) if terms else appended(1, term=1))
            self.assertIs(one.raft.is_quiescent, joins, terms)


class WakingTests(SynchronousTestCase):
    """Whatever happens ends the silence."""

    def test_proposal(self) -> None:
        """It is committed everywhere at once, and heartbeats go on."""
        group = silent()
        group.propose()
        self.assertEqual({one.raft.commit_index for one in group.members.values()}, {3})
        self.assertFalse(any(one.raft.is_quiescent for one in group.members.values()))
        del group.sent[:]
        group.tick(QUIET.heartbeat_ticks)
        self.assertNotEqual(only(Heartbeat, group.sent), [])

    def test_change_and_transfer(self) -> None:
        """What an operator wants, too."""
        group = silent()
        group[1].propose_membership(AddLearner(4))
        self.assertFalse(group[1].is_quiescent)
        group = silent()
        group[1].transfer_leadership(2)
        group.deliver()
        self.assertIs(group[2].role, Role.LEADER)

    def test_read_at_the_leader(self) -> None:
        """It is answered."""
        group = silent()
        group[1].read_index(b"r")
        group.deliver()
        self.assertEqual(group.members[1].reads, [ReadState(b"r", 2)])

    def test_read_at_a_follower(self) -> None:
        """It is answered."""
        group = silent()
        group[2].read_index(b"r")
        group.deliver()
        self.assertEqual(group.members[2].reads, [ReadState(b"r", 2)])

    def test_read_at_a_follower_whose_leader_is_gone(self) -> None:
        """It wakes the follower: the read is given up, and another leader is elected."""
        group = silent()
        group.isolate(1)
        group[2].read_index(b"r")
        group.deliver()
        group.tick(5 * BASE)
        self.assertEqual(group.members[2].reads_lost, [b"r"])
        self.assertIn(group.leader.replica, (2, 3))

    def test_any_message(self) -> None:
        """Of the leader, or of anybody who wants to be it; not a repeated farewell."""
        farewell, beat = Heartbeat(1, 2, 1, 2, quiesce=True), Heartbeat(1, 2, 1, 2)
        for replica, message, wakes in (
            (2, farewell, False),
            (2, beat, True),
            (2, PreVoteRequest(3, 2, 2, 2, 1), True),
            (1, HeartbeatResponse(2, 1, 1, 0), False),
            (1, AppendResponse(2, 1, 1, 2), True),
            (1, ReadIndexRequest(2, 1, 1, 5), True),
        ):
            one = silent().members[replica]
            one.step(message)
            self.assertIs(one.raft.is_quiescent, not wakes, message)

    def test_suspicion(self) -> None:
        """R18: the followers of a leader whose node has died elect another one in time."""
        group = silent()
        group.isolate(1)
        for replica in (2, 3):
            group[replica].suspect()
        group.tick(BASE)
        self.assertIn(group.leader.replica, (2, 3))

    def test_missed_farewell(self) -> None:
        """A follower that did not get the last heartbeat gets the group going again."""
        group = Group(3, settings=QUIET)
        group.elect(1)
        group.tick(2)
        group.propose()
        group.tick(PATIENCE - 1)
        group.isolate(3)
        group.tick()
        group.heal()
        quiet = [one.raft.is_quiescent for one in group.members.values()]
        self.assertEqual(quiet, [True, True, False])
        del group.sent[:]
        group.tick(2 * BASE)
        self.assertNotEqual([beat for beat in only(Heartbeat, group.sent) if not beat.quiesce], [])
        group.tick(3 * PATIENCE)
        self.assertTrue(all(one.raft.is_quiescent for one in group.members.values()))
        self.assertEqual({one.raft.term for one in group.members.values()}, {1})
        self.assertIs(group[1].role, Role.LEADER)

    def test_restarted_follower(self) -> None:
        """So does one that comes back, and knows of no silence."""
        group = silent()
        group.members[3].start()
        group.tick(5 * BASE)
        self.assertEqual((group[3].leader, group[3].term), (1, 1))
        self.assertEqual(group[3].commit_index, 2)


class LeaseTests(SynchronousTestCase):
    """R6: no time is counted in silence, so that no lease may outlive it."""

    leases = replace(QUIET, lease_reads=True)

    def test_read_after_a_long_silence(self) -> None:
        """Others may have elected a leader meanwhile: the read is confirmed first."""
        for act in ("read", "suspect"):
            group = silent(settings=self.leases)
            group.isolate(1)
            one = group.members[1]
            if act == "suspect":
                one.raft.suspect()
            one.raft.read_index(b"r")
            group.deliver()
            self.assertEqual(one.reads, [], act)

    def test_lease_before_the_silence(self) -> None:
        """There was one: else the test before would show nothing."""
        group = Group(3, settings=self.leases)
        group.tick(BASE + 1)
        group.propose()
        group.tick(PATIENCE - 1)
        group[1].read_index(b"r")
        group.isolate(1)
        group.deliver()
        self.assertEqual(len(group.members[1].reads), 1)
