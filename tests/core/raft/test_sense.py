"""What may not come is refused before anything is done: one peer's nonsense costs one message."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Entry, EntryKind, Role, Senseless, Snapshot
from kvtwist.core.raft.messages import AppendRequest, Heartbeat, InstallSnapshot, Message
from tests.core.raft.group import Member, leading, log_of, member


def all_of(one: Member) -> tuple[object, ...]:
    """Everything about a replica that a message can change."""
    raft = one.raft
    log = raft.log
    return (
        raft.term,
        raft.vote,
        raft.role,
        raft.leader,
        raft.commit_index,
        log.entries(log.first_index, log.last_index),
        log.durable_index,
        raft.is_quiescent,
        raft.has_ready(),
    )


class SenseTests(SynchronousTestCase):
    def follower(self) -> Member:
        """Has entries of terms 1, 1, 2; the first two are committed; replica 2 leads term 3."""
        one = member(1, 1, 2, term=3)
        one.step(AppendRequest(2, 1, 3, 3, 2, (), 2))
        self.assertEqual((one.raft.commit_index, one.raft.leader), (2, 2))
        return one

    def refused(self, one: Member, message: Message) -> str:
        before = all_of(one)
        error = self.assertRaises(Senseless, one.raft.step, message)
        self.assertEqual(all_of(one), before)
        return str(error)

    def test_two_leaders_in_a_term(self) -> None:
        """Election Safety: of two who say that they lead, one's entries would replace what the
        other one has committed."""
        one = self.follower()
        snapshot = Snapshot(9, 3, one.raft.configuration, b"")
        for message in (
            Heartbeat(3, 1, 3, 0),
            AppendRequest(3, 1, 3, 3, 2, (), 0),
            InstallSnapshot(3, 1, 3, snapshot),
        ):
            self.assertIn("both lead term 3", self.refused(one, message))
        one.step(Heartbeat(2, 1, 3, 0))
        one.step(Heartbeat(3, 1, 4, 0))
        self.assertEqual(one.raft.leader, 3)

    def test_what_is_committed_stays(self) -> None:
        """Leader Completeness: an acknowledged write would be lost; in a later term as well."""
        one = self.follower()
        for term in (3, 4):
            for message in (
                AppendRequest(2, 1, term, 1, 1, log_of(3, first=2), 2),
                AppendRequest(2, 1, term, 2, 3, (), 2),
                AppendRequest(2, 1, term, 0, 0, log_of(1, 2, 2), 2),
            ):
                self.assertIn("committed", self.refused(one, message))
        one.step(AppendRequest(2, 1, 3, 0, 0, log_of(1, 1, 3), 3))
        self.assertEqual(one.raft.log.term_at(3), 3)

    def test_what_does_not_follow(self) -> None:
        """Nothing is cut off the log for entries that cannot take the place: those that were there
        may have been acknowledged."""
        one = self.follower()
        gap = (*log_of(3, first=3), Entry(5, 3, EntryKind.DATA, b""))
        back = (*log_of(3, first=3), *log_of(2, first=4))
        for entries in (gap, back):
            why = self.refused(one, AppendRequest(2, 1, 3, 2, 1, entries, 2))
            self.assertIn("follows", why)
        self.assertEqual(one.raft.log.term_at(3), 2)

    def test_a_leader_passes_over_others(self) -> None:
        """It knows better; and goes on leading."""
        one = leading()
        term, last = one.raft.term, one.raft.last_index
        one.step(AppendRequest(2, 1, term, 0, 0, log_of(1, 1, 1), 3))
        self.assertEqual((one.raft.role, one.raft.last_index), (Role.LEADER, last))

    def test_what_is_compacted(self) -> None:
        """Old messages reach back before what is left of the log: that is no nonsense."""
        one = self.follower()
        one.compact(2)
        one.step(AppendRequest(2, 1, 3, 0, 0, log_of(1, 1, 2), 3))
        self.assertEqual(one.raft.commit_index, 3)
        self.refused(one, AppendRequest(2, 1, 3, 0, 0, log_of(1, 2, 2), 3))
