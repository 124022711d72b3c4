"""Elections, sentence by sentence: the paper's figure 2 and sections 5.1, 5.2, 5.4.1 and 5.6.

What the dissertation adds (pre-votes, check-quorum) is switched off here: see
`test_paper_pre_vote`.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Dropped, EntryKind, HardState, Raft, Reason, Role
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    Message,
    ReadIndexRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
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
    log_of,
    member,
    only,
)


def candidate(*terms: int, voters: Sequence[int] = (1, 2, 3)) -> Member:
    """A replica whose requests for votes are out."""
    one = member(*terms, voters=voters)
    campaign(one)
    assert one.raft.role is Role.CANDIDATE
    return one


def in_every_role(term: int) -> list[Member]:
    """A follower, a candidate and a leader in *term*."""
    follower = member(term=term)
    standing, elected = (member(term=term - 1) for _ in range(2))
    campaign(standing)
    lead(elected)
    assert {each.raft.term for each in (follower, standing, elected)} == {term}
    return [follower, standing, elected]


class TermTests(SynchronousTestCase):
    """5.1: terms are a clock that tells what is obsolete."""

    def test_later_term_is_taken_over(self) -> None:
        """Figure 2, all servers: a later term in any message makes it this one's, and a follower
        of this one."""
        messages: list[Message] = [
            appended(term=5, sender=2),
            AppendResponse(2, 1, 5, 0),
            Heartbeat(2, 1, 5, 0),
            HeartbeatResponse(2, 1, 5),
            VoteRequest(2, 1, 5, 0, 0),
            VoteResponse(2, 1, 5, granted=False),
            ReadIndexRequest(2, 1, 5, 1),
            HigherTerm(2, 1, 5),
        ]
        for message in messages:
            for one in in_every_role(3):
                role = one.raft.role
                one.step(message)
                self.assertEqual(
                    (one.raft.term, one.raft.role), (5, Role.FOLLOWER), (role, message)
                )
                self.assertEqual(one.disk.hard_state.term, 5)

    def test_stale_leader_is_refused(self) -> None:
        """Figure 2, AppendEntries 1 and 5.1: what comes from an earlier term changes nothing, and
        the sender is told of the later one."""
        for one in in_every_role(3):
            before = (one.raft.role, one.raft.leader, one.raft.last_index, one.raft.commit_index)
            for message in (appended(1, term=2, commit=1), Heartbeat(2, 1, 2, 1)):
                self.assertEqual(one.step(message), [HigherTerm(1, 2, 3)])
            after = (one.raft.role, one.raft.leader, one.raft.last_index, one.raft.commit_index)
            self.assertEqual(after, before)

    def test_stale_candidate_is_refused(self) -> None:
        """Figure 2, RequestVote 1: no vote for an earlier term, however good the log."""
        for one in in_every_role(3):
            vote = one.raft.vote
            self.assertEqual(one.step(VoteRequest(2, 1, 2, 99, 2)), [HigherTerm(1, 2, 3)])
            self.assertEqual(one.raft.vote, vote)

    def test_stale_answers_are_passed_over(self) -> None:
        """5.1: an answer to what was asked in an earlier term counts for nothing."""
        one = candidate()
        self.assertEqual(one.raft.term, 1)
        one.step(HigherTerm(2, 1, 4))
        campaign(one)
        for sender in (2, 3):
            one.step(VoteResponse(sender, 1, 1, granted=True))
        self.assertIs(one.raft.role, Role.CANDIDATE)
        lead(other := member())
        other.step(HigherTerm(2, 1, 4))
        lead(other)
        acknowledge_at_term_1 = AppendResponse(2, 1, 1, other.raft.last_index)
        other.step(acknowledge_at_term_1)
        self.assertEqual(other.raft.commit_index, 0)

    def test_terms_survive(self) -> None:
        """Figure 2, persistent state: term and vote are what they were after a restart."""
        one = candidate()
        one.start()
        self.assertEqual((one.raft.term, one.raft.vote, one.raft.role), (1, 1, Role.FOLLOWER))


class FollowerTests(SynchronousTestCase):
    """5.2: followers stay followers as long as they hear of a leader."""

    def test_begin(self) -> None:
        """5.2: every server starts as a follower, and says nothing."""
        one = member()
        self.assertIs(one.raft.role, Role.FOLLOWER)
        self.assertFalse(one.raft.has_ready())

    def test_passive(self) -> None:
        """5.1: a follower sends nothing of its own accord, before its time is up."""
        one = member()
        self.assertEqual(one.tick(BASE - 1), [])

    def test_leader_keeps_followers(self) -> None:
        """5.2: either kind of a leader's message puts the election off, by a whole timeout."""
        for message in (appended(term=1, sender=2), Heartbeat(2, 1, 1, 0)):
            one = member(term=1)
            one.tick(BASE - 1)
            one.step(message)
            one.tick(BASE - 1)
            self.assertEqual((one.raft.role, one.raft.leader), (Role.FOLLOWER, 2))
            one.tick()
            self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_vote_puts_off(self) -> None:
        """Figure 2, followers: having granted a vote is another reason to wait."""
        one = member()
        one.tick(BASE - 1)
        one.step(VoteRequest(2, 1, 1, 0, 0))
        one.tick(BASE - 1)
        self.assertIs(one.raft.role, Role.FOLLOWER)

    def test_refused_vote_does_not_put_off(self) -> None:
        """Figure 2, followers: nothing else is. Else a replica that cannot win could keep all the
        others from standing, again and again."""
        one = member(1, 1)
        one.tick(BASE - 1)
        one.step(VoteRequest(2, 1, 5, 1, 1))
        one.tick()
        self.assertEqual((one.raft.role, one.raft.term), (Role.CANDIDATE, 6))

    def test_stale_leader_does_not_put_off(self) -> None:
        """Figure 2, followers: only the current leader's messages count."""
        one = member(term=3)
        one.tick(BASE - 1)
        one.step(Heartbeat(2, 1, 2, 0))
        one.tick()
        self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_redirects(self) -> None:
        """5.1 and 8: a follower takes nothing from clients, and names the leader if it knows it."""
        one = member()
        self.assertEqual(one.raft.propose([b"x"]), Dropped(Reason.NO_LEADER, 0))
        one.step(Heartbeat(3, 1, 1, 0))
        self.assertEqual(one.raft.propose([b"x"]), Dropped(Reason.NOT_LEADER, 3))
        self.assertEqual(one.raft.last_index, 0)


class VoterTests(SynchronousTestCase):
    """5.2 and 5.4.1: whom one votes for."""

    def vote(self, one: Member, request: VoteRequest) -> bool:
        """The answer."""
        (response,) = only(VoteResponse, one.step(request))
        self.assertEqual((response.to, response.term), (request.sender, request.term))
        return response.granted

    def test_first_come_first_served(self) -> None:
        """5.2: one vote in a term; the same candidate gets it again, another one does not."""
        one = member()
        self.assertTrue(self.vote(one, VoteRequest(2, 1, 1, 0, 0)))
        self.assertFalse(self.vote(one, VoteRequest(3, 1, 1, 0, 0)))
        self.assertTrue(self.vote(one, VoteRequest(2, 1, 1, 0, 0)))
        self.assertTrue(self.vote(one, VoteRequest(3, 1, 2, 0, 0)))

    def test_remembered(self) -> None:
        """5.2, R1: neither does it after a restart."""
        one = member()
        self.assertTrue(self.vote(one, VoteRequest(2, 1, 1, 0, 0)))
        one.start()
        self.assertFalse(self.vote(one, VoteRequest(3, 1, 1, 0, 0)))

    def test_candidate_has_voted(self) -> None:
        """5.2: for itself."""
        self.assertFalse(self.vote(candidate(), VoteRequest(2, 1, 1, 9, 9)))

    def test_leader_in_this_term(self) -> None:
        """5.2: who follows a leader of this term does not help to elect another one in it."""
        one = member(term=1)
        one.step(Heartbeat(2, 1, 1, 0))
        self.assertFalse(self.vote(one, VoteRequest(3, 1, 1, 9, 1)))

    def test_up_to_date(self) -> None:
        """5.4.1: no vote for who has an earlier last term, or the same one and a shorter log."""
        for last_index, last_term, granted in (
            (3, 2, True),
            (4, 2, True),
            (1, 3, True),
            (2, 2, False),
            (9, 1, False),
            (0, 0, False),
        ):
            one = member(1, 2, 2)
            request = VoteRequest(2, 1, 3, last_index, last_term)
            self.assertIs(self.vote(one, request), granted, request)
            self.assertEqual(one.raft.vote, 2 if granted else 0)


class CandidateTests(SynchronousTestCase):
    """5.2: what a candidate does, and the three ways in which that ends."""

    def test_begins(self) -> None:
        """5.2: the next term, a vote for itself, requests to all others, its own log's end."""
        one = member(1, 1, 2, voters=(1, 2, 3, 4))
        sent = campaign(one)
        self.assertEqual(sent, [VoteRequest(1, to, 3, 3, 2) for to in (2, 3, 4)])
        self.assertEqual(one.disk.hard_state, HardState(3, 1, 0))

    def test_wins(self) -> None:
        """5.2: with a majority, its own vote included; not with one vote less."""
        for voters, needed in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
            one = member(voters=tuple(range(1, voters + 1)))
            campaign(one)
            for sender in range(2, 2 + needed):
                self.assertIs(one.raft.role, Role.CANDIDATE, voters)
                one.step(VoteResponse(sender, 1, 1, granted=True))
            self.assertIs(one.raft.role, Role.LEADER, voters)

    def test_repeated_vote_counts_once(self) -> None:
        """5.2: a message that comes twice is one vote; a changed mind changes nothing."""
        one = candidate(voters=(1, 2, 3, 4, 5))
        for granted in (True, True, False):
            one.step(VoteResponse(2, 1, 1, granted=granted))
        self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_loses(self) -> None:
        """5.2: refused by a majority, it waits like the others."""
        one = candidate()
        for sender in (2, 3):
            one.step(VoteResponse(sender, 1, 1, granted=False))
        self.assertEqual((one.raft.role, one.raft.term), (Role.FOLLOWER, 1))

    def test_another_has_won(self) -> None:
        """5.2: a leader of its own term makes it a follower, and its message counts."""
        one = candidate()
        one.step(appended(1, term=1, sender=3))
        self.assertEqual(
            (one.raft.role, one.raft.leader, one.raft.last_index), (Role.FOLLOWER, 3, 1)
        )

    def test_leader_of_an_earlier_term(self) -> None:
        """5.2: is rejected, and the candidate goes on."""
        one = candidate(1)
        self.assertEqual(one.step(appended(1, term=1, sender=3)), [HigherTerm(1, 3, 2)])
        self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_nobody_wins(self) -> None:
        """5.2: a split vote ends after another timeout, in another term."""
        one = candidate()
        one.tick(BASE - 1)
        self.assertEqual(one.raft.term, 1)
        sent = one.tick()
        self.assertEqual((one.raft.role, one.raft.term), (Role.CANDIDATE, 2))
        self.assertEqual({request.term for request in only(VoteRequest, sent)}, {2})

    def test_requests_are_repeated_by_the_next_election(self) -> None:
        """5.5: a server that is down holds nobody up."""
        group = Group(5, settings=PLAIN)
        group.isolate(4)
        group.isolate(5)
        group.elect(1)
        self.assertIs(group[1].role, Role.LEADER)


class TimerTests(SynchronousTestCase):
    """5.2: timeouts are random, so that split votes are rare."""

    def test_range(self) -> None:
        """From the shortest timeout to twice as long, as chance has it; drawn anew each time."""
        for chance, ticks in ((0.0, BASE), (0.5, BASE * 3 // 2), (0.999, 2 * BASE - 1)):
            one = member(chance=chance)
            one.tick(ticks - 1)
            self.assertIs(one.raft.role, Role.FOLLOWER)
            one.tick()
            self.assertIs(one.raft.role, Role.CANDIDATE)

    def test_drawn_for_each_election(self) -> None:
        """5.2: two candidates that have split the votes do not go on in step."""
        draws = iter((0.0, 0.5, 0.0))
        one = member()
        one.raft = Raft(1, PLAIN, one.disk.restored(), lambda: next(draws))
        one.tick(BASE)
        self.assertEqual(one.raft.term, 1)
        one.tick(BASE * 3 // 2 - 1)
        self.assertEqual(one.raft.term, 1)
        one.tick()
        self.assertEqual(one.raft.term, 2)

    def test_split_vote_is_resolved(self) -> None:
        """5.2: of four that stand at once, one is elected within a few timeouts."""
        group = Group(4, settings=PLAIN)
        for one in group.members.values():
            one.raft.suspect()
            while one.raft.role is Role.FOLLOWER:
                one.raft.tick()
        group.deliver()
        self.assertEqual({one.raft.term for one in group.members.values()}, {1})
        self.assertNotIn(Role.LEADER, {one.raft.role for one in group.members.values()})
        group.tick(3 * BASE)
        roles = [one.raft.role for one in group.members.values()]
        self.assertEqual(roles.count(Role.LEADER), 1)


class NewLeaderTests(SynchronousTestCase):
    """Figure 2, leaders: the first thing that one does."""

    def test_tells_the_others(self) -> None:
        """5.2: at once, to all others, so that they elect nobody else."""
        sent = lead(member(1, 1))
        self.assertEqual([type(message) for message in sent], [AppendRequest] * 2)
        self.assertEqual({message.to for message in sent}, {2, 3})

    def test_goes_on_telling(self) -> None:
        """5.2: and again and again while nothing else happens, well before a timeout."""
        one = leading()
        for _ in range(3):
            sent = one.tick(PLAIN.heartbeat_ticks)
            self.assertEqual({message.to for message in only(Heartbeat, sent)}, {2, 3})
        self.assertLess(PLAIN.heartbeat_ticks, BASE)

    def test_election_safety(self) -> None:
        """5.2 and figure 3: at most one leader in a term; it votes for nobody else in it."""
        one = leading()
        (refusal,) = one.step(VoteRequest(2, 1, one.raft.term, 99, one.raft.term))
        self.assertEqual(refusal, VoteResponse(1, 2, one.raft.term, granted=False))
        self.assertIs(one.raft.role, Role.LEADER)

    def test_own_entry_first(self) -> None:
        """Section 8, R4: a leader begins its term with an entry that does nothing."""
        one = member(1, 1)
        lead(one)
        entry = one.raft.log.entries(3, 3)[0]
        self.assertEqual((entry.term, entry.kind, entry.data), (2, EntryKind.NOOP, b""))

    def test_never_overwrites(self) -> None:
        """5.3 and figure 3, Leader Append-Only: what it has stays as it is."""
        one = leading(1, 1)
        before = one.raft.log.entries(1, 3)
        one.step(
            appended(1, 1, 1, 1, term=one.raft.term, sender=2), TimeoutNow(2, 1, one.raft.term)
        )
        self.assertEqual(one.raft.log.entries(1, one.raft.last_index), before)
        self.assertEqual(before[:2], log_of(1, 1))

    def test_alone(self) -> None:
        """5.2: in a group of one, it elects itself, as soon as its own vote is durable."""
        one = member(voters=(1,))
        one.raft.tick()
        while one.raft.role is Role.FOLLOWER:
            one.raft.tick()
        self.assertIs(one.raft.role, Role.CANDIDATE)
        one.take()
        self.assertIs(one.raft.role, Role.CANDIDATE)
        one.write()
        self.assertIs(one.raft.role, Role.LEADER)
        one.settle()
        self.assertEqual(one.raft.commit_index, 1)
        self.assertEqual(acknowledge(one), [])
