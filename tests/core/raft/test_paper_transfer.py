"""Leadership is handed over, sentence by sentence: the dissertation, 3.10 (R15)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import (
    AddLearner,
    Dropped,
    Proposed,
    Reason,
    Remove,
    Settings,
)
from kvtwist.core.raft.messages import (
    Heartbeat,
    ReadIndexRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.core.raft.group import (
    BASE,
    PLAIN,
    Group,
    acknowledge,
    leading,
    member,
    only,
)


class TransferTests(SynchronousTestCase):
    """3.10: leadership is handed over."""

    def test_to_one_that_is_caught_up(self) -> None:
        """3.10: it is told to stand at once."""
        one = leading()
        self.assertIsNone(one.raft.transfer_leadership(2))
        self.assertEqual(one.settle(), [TimeoutNow(1, 2, 1)])

    def test_catches_up_first(self) -> None:
        """3.10: only when it has the whole log."""
        one = leading()
        one.raft.propose([b"x"])
        one.settle()
        one.raft.transfer_leadership(2)
        self.assertEqual(only(TimeoutNow, one.settle()), [])
        self.assertEqual(only(TimeoutNow, acknowledge(one, 3)), [])
        self.assertEqual(only(TimeoutNow, acknowledge(one, 2)), [TimeoutNow(1, 2, 1)])

    def test_takes_no_requests_meanwhile(self) -> None:
        """3.10, R15: neither proposals nor changes, and says to whom they may go."""
        one = leading()
        one.raft.transfer_leadership(2)
        dropped = Dropped(Reason.TRANSFER, 2)
        self.assertEqual(one.raft.propose([b"x"]), dropped)
        self.assertEqual(one.raft.propose_membership(AddLearner(4)), dropped)

    def test_stands_at_once(self) -> None:
        """3.10: without a timeout and a pre-vote, in the next term, and says why."""
        one = member(1, settings=Settings())
        one.step(Heartbeat(2, 1, 1, 0))
        sent = one.step(TimeoutNow(2, 1, 1))
        self.assertEqual(sent, [VoteRequest(1, to, 2, 1, 1, transfer=True) for to in (2, 3)])

    def test_is_not_taken_for_a_disruption(self) -> None:
        """4.2.3: such a request is looked at although there is a leader."""
        one = member(settings=Settings())
        one.step(Heartbeat(2, 1, 1, 0))
        (response,) = one.step(VoteRequest(3, 1, 2, 0, 0, transfer=True))
        self.assertEqual(response, VoteResponse(1, 3, 2, granted=True))

    def test_given_up(self) -> None:
        """3.10, R15: after an election timeout the leader goes on."""
        one = leading()
        one.raft.transfer_leadership(2)
        one.tick(BASE - 1)
        self.assertIsInstance(one.raft.propose([b"x"]), Dropped)
        one.tick()
        self.assertIsInstance(one.raft.propose([b"x"]), Proposed)

    def test_to_whom(self) -> None:
        """R15: to a voter that is close, and not to itself."""
        one = leading(learners=(4,), settings=replace(PLAIN, promotion_lag_entries_max=3))
        for to in (1, 4, 9):
            self.assertEqual(one.raft.transfer_leadership(to), Dropped(Reason.SENSELESS, 1))
        one.raft.propose([b"x"] * 4)
        one.settle()
        self.assertEqual(one.raft.transfer_leadership(2), Dropped(Reason.NOT_CAUGHT_UP, 1))
        acknowledge(one, 2, index=2)
        self.assertIsNone(one.raft.transfer_leadership(2))

    def test_the_whole_way(self) -> None:
        """3.10: nothing is lost by it, and the old leader follows."""
        group = Group(3)
        group.elect(1)
        group.propose(b"x")
        group.leader.raft.transfer_leadership(3)
        group.deliver()
        self.assertIs(group.leader, group.members[3])
        group.tick(group.settings.heartbeat_ticks)
        self.assertEqual(group[1].leader, 3)
        self.assertEqual(len({one.states[2] for one in group.members.values()}), 1)

    def test_only_a_leader_hands_over(self) -> None:
        """Anybody else says who leads."""
        one = member(term=1)
        one.step(Heartbeat(2, 1, 1, 0), ReadIndexRequest(3, 1, 1, 1))
        self.assertEqual(one.raft.transfer_leadership(3), Dropped(Reason.NOT_LEADER, 2))
        self.assertEqual(one.raft.propose_membership(Remove(3)), Dropped(Reason.NOT_LEADER, 2))
        self.assertEqual(one.raft.last_index, 0)
