"""Each invariant says nothing of a sound group, and something of a forged step.

Planted bugs show that most of them are asked at the right moment; this, that none is inert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, HardState, ReadState, Ready, Snapshot
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    InstallSnapshot,
    VoteRequest,
    VoteResponse,
)
from tests.sim.invariants.registry import PLACES
from tests.sim.ledger import View
from tests.sim.plan import Plan
from tests.sim.simulation import Simulation

FAR = 1_000_000


def invariant(name: str) -> Callable[..., str | None]:
    """The one of that name."""
    return next(each for checks in PLACES.values() for each in checks if each.__name__ == name)


class ForgeryTests(SynchronousTestCase):
    """A group that has run for a while without faults, and steps that it would never take."""

    def setUp(self) -> None:
        """Have such a group: a leader, and a follower."""
        simulation = Simulation(Plan(seed=1, chaos_ticks=80))
        simulation._chaos()
        self.ledger = simulation.ledger
        views = list(self.ledger.views.values())
        self.leader = next(view for view in views if view.member.is_leading)
        self.follower = next(view for view in views if not view.member.is_leading)
        assert self.leader.member.raft is not None
        self.raft = self.leader.member.raft
        self.me, self.term = self.raft.replica, self.raft.term
        self.other = self.follower.member.replica
        self.commit = self.ledger.commit_index
        self.assertGreater(self.commit, 5)

    def refused(self, name: str, view: View, *forged: Any) -> None:
        """The invariant says something about it."""
        self.assertIsInstance(invariant(name)(self.ledger, view, *forged), str, name)

    def test_messages(self) -> None:
        """R1, R2, R11: forged votes, acknowledgements, appends, heartbeats, snapshots."""
        me, other, term, commit = self.me, self.other, self.term, self.commit
        leader, follower = self.leader, self.follower
        vote = VoteResponse(other, me, term + 5, granted=True)
        self.refused("nobody_is_impersonated", leader, Heartbeat(other, me, term, 0))
        self.refused("nobody_is_impersonated", leader, Heartbeat(me, other, term + 1, 0))
        self.refused("vote_is_durable", follower, vote)
        self.ledger.votes[other, term + 5] = other
        self.refused("one_vote_in_a_term", follower, vote)
        self.refused("candidacy_is_durable", leader, VoteRequest(me, other, term + 5, 1, 1))
        self.refused("one_leader_in_a_term", follower, Heartbeat(other, me, term, 0))
        append = AppendRequest(me, other, term, commit, term + 1, (), 0)
        self.refused("leader_sends_its_own_log", leader, append)
        append = AppendRequest(me, other, term, 0, 0, (Entry(1, term + 1),), 0)
        self.refused("leader_sends_its_own_log", leader, append)
        told = AppendRequest(me, other, term, 0, 0, (), FAR)
        self.refused("commit_told_is_committed", leader, told)
        self.refused("heartbeat_commits_what_matches", leader, Heartbeat(me, other, term, FAR))
        self.refused("acknowledged_is_durable", follower, AppendResponse(other, me, term, FAR))
        snapshot = Snapshot(commit, term, Configuration((me,)))
        self.refused("snapshot_is_of_the_log", leader, InstallSnapshot(me, other, term, snapshot))

    def test_readys(self) -> None:
        """R3, R5, R12, R13: forged logs, commits, reads."""
        leader, commit, term, last = self.leader, self.commit, self.term, self.raft.last_index
        number = leader.number + 1
        self.refused("numbers_go_up_by_one", leader, Ready(number + 1))
        self.refused("term_never_falls", leader, Ready(number, HardState(term - 1)))
        self.refused("term_never_falls", leader, Ready(number, HardState(term, FAR)))
        later = Ready(number, HardState(term + 1))
        self.refused("what_must_last_is_synced", leader, later)
        tail = Ready(number, entries=(Entry(last + 1, term),))
        self.refused("what_must_last_is_synced", leader, tail)
        gap = Ready(number, entries=(Entry(last + 2, term),))
        self.refused("log_has_no_gaps", leader, gap)
        other_data = Ready(number, entries=(Entry(commit, term, data=b"forged"),))
        self.refused("log_matching", leader, other_data)
        self.refused("leader_append_only", leader, other_data)
        self.refused("committed_stays", leader, other_data)
        old = Ready(number, snapshot=Snapshot(1, term, Configuration((1,))))
        self.refused("snapshot_is_ahead", leader, old)
        skipping = Ready(number, committed=(Entry(leader.handed_index + 2, term),))
        self.refused("applied_in_order", leader, skipping)
        self.refused("applied_is_committed", leader, Ready(committed=(Entry(FAR, term),)))
        self.refused("applied_is_committed", leader, Ready(committed=other_data.entries))
        self.refused("applied_is_durable", leader, Ready(committed=(Entry(last + 1, term),)))
        self.refused("read_is_fresh", leader, Ready(reads=(ReadState(b"unasked", 1),)))
        self.ledger.asked[b"asked"] = commit
        self.refused("read_is_fresh", leader, Ready(reads=(ReadState(b"asked", commit - 1),)))

    def test_states(self) -> None:
        """R12, R13, R17: forged memories of what was before."""
        leader, term, applied = self.leader, self.term, self.leader.member.machine.applied
        entry = self.ledger.committed[applied]
        self.refused("state_machine_safety", leader, Entry(FAR, term), None)
        self.refused("state_machine_safety", leader, Entry(applied, FAR), None)
        self.ledger.answers[applied] = None
        self.refused("same_answer_everywhere", leader, entry, "another")
        here = Snapshot(applied, term, self.raft.configuration)
        self.refused("snapshot_is_applied", leader, Snapshot(1, 1, self.raft.configuration))
        self.refused("snapshot_is_applied", leader, Snapshot(applied, term, Configuration((1,))))
        self.ledger.digests.clear()
        self.refused("installed_is_the_state", leader, here)
        self.ledger.digests[applied] = b"another"
        self.refused("installed_is_the_state", leader, here)
        self.refused("same_state_after_a_restart", leader)
        leader.commit = FAR
        self.refused("indexes_never_fall", leader, self.raft)
        self.ledger.leaders[term] = self.other
        self.refused("election_safety", leader, self.raft)
        leader.member.disk.written.hard_state = HardState(term, self.other)
        self.refused("disk_follows_the_log", leader, self.raft)
        leader.configurations.append((FAR, Configuration((FAR,))))
        self.refused("configuration_follows_the_log", leader, self.raft)
