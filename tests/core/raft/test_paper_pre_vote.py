"""What the dissertation adds to elections: pre-votes (9.6) and check-quorum (6.2)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import HardState, Role, Settings
from kvtwist.core.raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
)
from tests.core.raft.group import BASE, PLAIN, Group, Member, campaign, leading, member, only

PRE_VOTE = replace(PLAIN, pre_vote=True)
CHECK_QUORUM = replace(PLAIN, check_quorum=True)


def asking(*terms: int) -> Member:
    """A replica that has asked the others whether they would vote for it."""
    one = member(*terms, settings=PRE_VOTE)
    campaign(one)
    assert one.raft.role is Role.PRE_CANDIDATE
    return one


class AskingTests(SynchronousTestCase):
    """9.6: whoever wants to stand asks first."""

    def test_asks(self) -> None:
        """About the next term, which it does not enter for that; nothing is written."""
        one = member(1, 2, settings=PRE_VOTE)
        self.assertEqual(campaign(one), [PreVoteRequest(1, to, 3, 2, 2) for to in (2, 3)])
        self.assertEqual((one.raft.term, one.disk.hard_state), (2, HardState(2, 0, 0)))

    def test_stands_when_a_majority_would_vote(self) -> None:
        """The election is then an ordinary one."""
        one = asking(1)
        sent = one.step(PreVoteResponse(2, 1, 2, granted=True))
        self.assertEqual(sent, [VoteRequest(1, to, 2, 1, 1) for to in (2, 3)])
        self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_does_not_stand_without(self) -> None:
        """Refused by a majority, it waits; without answers it asks again after a timeout."""
        one = asking(1)
        one.step(*(PreVoteResponse(sender, 1, 1, granted=False) for sender in (2, 3)))
        self.assertIs(one.raft.role, Role.FOLLOWER)
        self.assertEqual(only(PreVoteRequest, one.tick(BASE - 1)), [])
        self.assertEqual(len(only(PreVoteRequest, one.tick())), 2)
        self.assertEqual(len(only(PreVoteRequest, one.tick(BASE))), 2)
        self.assertEqual(one.raft.term, 1)

    def test_learns_of_a_later_term(self) -> None:
        """R7: the refusal tells it."""
        one = asking(1)
        one.step(PreVoteResponse(2, 1, 7, granted=False))
        self.assertEqual((one.raft.term, one.raft.role), (7, Role.FOLLOWER))

    def test_yes_for_another_term(self) -> None:
        """What was said about an earlier candidacy says nothing about this one."""
        one = asking(1)
        one.step(HigherTerm(2, 1, 4))
        campaign(one)
        for term in (2, 4, 6, 99):
            one.step(PreVoteResponse(2, 1, term, granted=True))
            self.assertEqual((one.raft.term, one.raft.role), (4, Role.PRE_CANDIDATE))

    def test_hears_of_a_leader(self) -> None:
        """It follows one of its own term, as a candidate would."""
        one = asking(1)
        one.step(Heartbeat(3, 1, 1, 0))
        self.assertEqual((one.raft.role, one.raft.leader), (Role.FOLLOWER, 3))


class AnsweringTests(SynchronousTestCase):
    """9.6: whether one would vote so."""

    def test_promises_nothing(self) -> None:
        """R7: neither term nor vote nor timer are changed by it; all may be told yes."""
        one = member(1, term=3, vote=2, settings=PRE_VOTE)
        one.tick(BASE - 1)
        for sender in (2, 3):
            sent = one.step(PreVoteRequest(sender, 1, 4, 1, 1))
            self.assertEqual(sent, [PreVoteResponse(1, sender, 4, granted=True)])
        self.assertEqual((one.raft.term, one.raft.vote), (3, 2))
        one.tick()
        self.assertIs(one.raft.role, Role.PRE_CANDIDATE)

    def test_log_and_term(self) -> None:
        """Yes for a later term and a log that is up to date; a no says the own term (R7)."""
        for term, last_index, last_term, granted in (
            (4, 2, 2, True),
            (9, 1, 3, True),
            (4, 1, 2, False),
            (4, 9, 1, False),
            (3, 9, 3, False),
            (2, 9, 3, False),
        ):
            one = member(1, 2, term=3, settings=PRE_VOTE)
            (response,) = one.step(PreVoteRequest(2, 1, term, last_index, last_term))
            expected = PreVoteResponse(1, 2, term if granted else 3, granted)
            self.assertEqual(response, expected)

    def test_has_a_leader(self) -> None:
        """9.6: no while it hears of a leader; no answer is a no, for the leader will be heard."""
        for elapsed, granted in ((BASE - 1, False), (BASE, True)):
            one = member(settings=Settings(), chance=0.9)
            one.step(Heartbeat(2, 1, 1, 0))
            one.tick(elapsed)
            sent = one.step(PreVoteRequest(3, 1, 2, 0, 0))
            self.assertEqual(bool(sent), granted)

    def test_back_from_isolation(self) -> None:
        """9.6: who was cut off comes back with the term that it had, and disturbs nobody."""
        group = Group(3)
        group.elect(1)
        group.isolate(3)
        group.tick(20 * BASE)
        group.propose()
        group.heal()
        group.tick(2 * BASE)
        self.assertEqual({one.raft.term for one in group.members.values()}, {1})
        self.assertEqual((group[1].role, group[3].last_index), (Role.LEADER, 2))

    def test_without_it_the_term_grows(self) -> None:
        """The same without pre-votes: else the test before would show nothing."""
        group = Group(3, settings=replace(Settings(), pre_vote=False))
        group.elect(1)
        group.isolate(3)
        group.tick(5 * BASE)
        group.heal()
        group.tick(5 * BASE)
        self.assertGreater(min(one.raft.term for one in group.members.values()), 1)


class CheckQuorumTests(SynchronousTestCase):
    """6.2: a leader that hears of no majority steps down, so that its clients look elsewhere."""

    def test_steps_down(self) -> None:
        """After an election timeout; its term and vote stay as they are."""
        one = leading(settings=CHECK_QUORUM)
        one.tick(2 * BASE)
        self.assertEqual((one.raft.role, one.raft.leader), (Role.FOLLOWER, 0))
        self.assertEqual((one.raft.term, one.raft.vote), (1, 1))

    def test_stays_with_a_majority(self) -> None:
        """One other of three is enough, of five it is not, whichever answer it gives."""
        for voters, stays in (((1, 2, 3), True), ((1, 2, 3, 4, 5), False)):
            for answer in (HeartbeatResponse(2, 1, 1), AppendResponse(2, 1, 1, 1)):
                one = leading(voters=voters, settings=CHECK_QUORUM)
                for _ in range(5 * BASE):
                    one.tick()
                    one.step(answer)
                self.assertIs(one.raft.role is Role.LEADER, stays)

    def test_alone(self) -> None:
        """A group of one always hears of its majority."""
        one = leading(voters=(1,), settings=CHECK_QUORUM)
        one.tick(5 * BASE)
        self.assertIs(one.raft.role, Role.LEADER)

    def test_one_elected_by_the_rest(self) -> None:
        """A leader cut off with a minority gives way on its own side as well."""
        group = Group(5)
        group.elect(1)
        group.isolate(1, 2)
        group.tick(4 * BASE)
        self.assertEqual(group[1].role is Role.LEADER, False)
        leader = group.leader
        self.assertIn(leader.replica, (3, 4, 5))
        group.heal()
        group.tick(BASE)
        self.assertEqual({one.raft.leader for one in group.members.values()}, {leader.replica})

    def test_later_term_of_a_minority(self) -> None:
        """6.2 and 4.2.3: who has got into a later term and hears of the leader tells it, and the
        group goes on in a term that all share: else that replica would be lost to it."""
        group = Group(3)
        group.elect(1)
        group.members[3].raft.step(HigherTerm(2, 3, 5))
        group.tick(4 * BASE)
        self.assertEqual(len({one.raft.term for one in group.members.values()}), 1)
        group.propose()
        self.assertEqual(len({one.raft.commit_index for one in group.members.values()}), 1)
