"""Replication, sentence by sentence: the paper's figure 2 and sections 5.3, 5.4.2 and 5.5; the
dissertation's 10.2.1 (the leader writes while the others do)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import EntryKind, Proposed, Role
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
)
from kvtwist.core.raft.progress import Sending
from tests.core.raft.group import (
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


def terms(one: Member) -> list[int]:
    """Of the entries in its log."""
    log = one.raft.log
    return [entry.term for entry in log.entries(log.first_index, log.last_index)]


class LeaderTests(SynchronousTestCase):
    """5.3: how a leader takes entries, and gives them to the others."""

    def test_appends_then_sends(self) -> None:
        """Figure 2, leaders: what a client wants is appended to the own log and sent to all."""
        one = leading()
        self.assertEqual(one.raft.propose([b"x", b"y"]), Proposed(1, 2))
        requests = only(AppendRequest, one.settle())
        self.assertEqual([request.to for request in requests], [2, 3])
        for request in requests:
            self.assertEqual((request.prev_index, request.prev_term), (1, 1))
            self.assertEqual([entry.data for entry in request.entries], [b"x", b"y"])
            self.assertEqual(
                [(entry.index, entry.term) for entry in request.entries], [(2, 1), (3, 1)]
            )
            self.assertEqual(request.commit, 1)
        self.assertEqual(one.applied[-1].index, 1)

    def test_begins_at_its_end(self) -> None:
        """5.3: nextIndex begins right after the leader's last entry, matchIndex at 0."""
        sent = only(AppendRequest, lead(member(1, 1, 2)))
        for request in sent:
            self.assertEqual((request.prev_index, request.prev_term), (3, 2))
            self.assertEqual(len(request.entries), 1)

    def test_rejected(self) -> None:
        """Figure 2, leaders: rejected for inconsistency, it goes back and tries again."""
        one = member(1, 1, 1)
        lead(one)
        (request,) = one.step(AppendResponse(2, 1, 2, 3, rejected=True, hint_index=1, hint_term=1))
        assert isinstance(request, AppendRequest)
        self.assertEqual((request.to, request.prev_index), (2, 1))
        self.assertEqual([entry.index for entry in request.entries], [2, 3, 4])
        self.assertEqual(terms(one), [1, 1, 1, 2])

    def test_a_term_at_a_time(self) -> None:
        """5.3, the end: a whole conflicting term costs one message, on either side."""
        one = member(1, 1, 4, 4, 4, 4)
        lead(one)
        (request,) = one.step(AppendResponse(2, 1, 5, 6, rejected=True, hint_index=6, hint_term=3))
        assert isinstance(request, AppendRequest)
        self.assertEqual((request.prev_index, request.prev_term), (2, 1))

    def test_sends_until_all_have_it(self) -> None:
        """5.3: what was lost is sent again, for ever, even if it is committed meanwhile."""
        group = Group(3)
        group.elect(1)
        group.isolate(3)
        group.propose(b"x")
        self.assertEqual(group[1].commit_index, 2)
        group.tick(100)
        group.heal()
        group.tick(PLAIN.heartbeat_ticks + 1)
        self.assertEqual((group[3].last_index, group[3].commit_index), (2, 2))

    def test_every_log_of_figure_7(self) -> None:
        """5.3 and figure 7: a follower ends with the leader's log, whatever it had before."""
        leader_terms = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
        for follower_terms in (
            (1, 1, 1, 4, 4, 5, 5, 6, 6),
            (1, 1, 1, 4),
            (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
            (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
            (1, 1, 1, 4, 4, 4, 4),
            (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
            (),
        ):
            group = Group(3, settings=PLAIN)
            group.members[1] = member(*leader_terms, term=7)
            group.members[2] = member(*follower_terms, replica=2, term=7, chance=0.9)
            group.members[3] = member(*leader_terms, replica=3, term=7, chance=0.9)
            group.elect(1)
            group.tick(PLAIN.heartbeat_ticks)
            self.assertEqual(terms(group.members[2]), [*leader_terms, 8], follower_terms)
            self.assertEqual(group[2].commit_index, 11)

    def test_one_probe_at_a_time(self) -> None:
        """5.3: until it is known where the logs agree, one message is enough."""
        one = member(1)
        lead(one)
        one.raft.propose([b"x"])
        self.assertEqual(only(AppendRequest, one.settle()), [])
        requests = only(AppendRequest, acknowledge(one, 2, index=2))
        entries = [entry.index for each in requests for entry in each.entries if each.to == 2]
        self.assertEqual(entries, [3])


class CommitTests(SynchronousTestCase):
    """5.3 and 5.4.2: when an entry is committed."""

    def test_majority(self) -> None:
        """5.3: once the leader has it on a majority, itself included; not with one less."""
        for voters, needed in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
            one = leading(voters=tuple(range(1, voters + 1)))
            one.raft.propose([b"x"])
            one.settle()
            for sender in range(2, 2 + needed):
                self.assertEqual(one.raft.commit_index, 1, voters)
                acknowledge(one, sender)
            self.assertEqual(one.raft.commit_index, 2, voters)

    def test_commits_what_precedes(self) -> None:
        """5.3: with an entry all before it are committed, those of other leaders too."""
        one = member(1, 2, 2)
        lead(one)
        acknowledge(one, 2)
        self.assertEqual(one.raft.commit_index, 4)
        self.assertEqual([entry.index for entry in one.applied], [1, 2, 3, 4])

    def test_only_own_term_by_counting(self) -> None:
        """5.4.2, R3: an entry of an earlier term is not, however many have it."""
        one = member(1, 2)
        lead(one)
        acknowledge(one, 2, 3, index=2)
        self.assertEqual(one.raft.commit_index, 0)
        acknowledge(one, 3, index=3)
        self.assertEqual(one.raft.commit_index, 3)

    def test_tells_the_others(self) -> None:
        """5.3: the commit index is in later messages, and in one at once if there are none."""
        one = leading()
        one.raft.propose([b"x"])
        one.settle()
        requests = only(AppendRequest, acknowledge(one, 2))
        self.assertEqual(
            {(each.to, each.commit, each.entries) for each in requests}, {(2, 2, ()), (3, 2, ())}
        )

    def test_heartbeat_tells_no_more_than_is_there(self) -> None:
        """5.3: a follower is told to commit only what it is known to have."""
        one = leading()
        one.raft.propose([b"x"])
        one.settle()
        acknowledge(one, 2)
        beats = only(Heartbeat, one.tick(PLAIN.heartbeat_ticks))
        self.assertEqual({(beat.to, beat.commit) for beat in beats}, {(2, 2), (3, 1)})

    def test_applied_in_order(self) -> None:
        """5.3: each committed entry, once, in the order of the log."""
        one = leading()
        for _ in range(3):
            one.raft.propose([b"x", b"y"])
        one.settle()
        acknowledge(one, 2)
        self.assertEqual([entry.index for entry in one.applied], list(range(1, 8)))

    def test_figure_8(self) -> None:
        """5.4.2 and figure 8: what a majority has of an old term can still be overwritten, so that
        it is neither committed nor applied before then."""
        group = Group(5, settings=PLAIN)
        for replica, log in ((1, (1, 2)), (2, (1, 2)), (3, (1,)), (4, (1,)), (5, (1, 3))):
            group.members[replica] = member(
                *log, replica=replica, voters=(1, 2, 3, 4, 5), term=3, commit=1, chance=replica / 16
            )
        leader = group.members[1]
        for request in campaign(leader):
            if request.to in (2, 3):
                for vote in group.members[request.to].step(request):
                    leader.raft.step(vote)
        leader.settle()  # the entry of its own term gets to nobody; that of term 2 to replica 3
        (answer,) = group.members[3].step(
            appended(2, term=4, sender=1, to=3, prev_index=1, prev_term=1)
        )
        leader.step(answer, AppendResponse(2, 1, 4, 2))
        self.assertEqual(terms(leader), [1, 2, 4])
        self.assertEqual(leader.raft.commit_index, 1)
        group.isolate(1)
        group.elect(5)
        group.propose(b"x")
        self.assertEqual(terms(group.members[3])[:2], [1, 3])
        group.heal()
        group.tick(2 * PLAIN.heartbeat_ticks)
        self.assertEqual(terms(leader)[:2], [1, 3])
        group.check()


class FollowerTests(SynchronousTestCase):
    """Figure 2, AppendEntries, receiver."""

    def test_consistency_check(self) -> None:
        """2: refused if the entry before is missing or of another term; nothing is taken over."""
        for prev_index, prev_term, accepted in (
            (0, 0, True),
            (1, 1, True),
            (2, 2, True),
            (2, 1, False),
            (1, 2, False),
            (3, 2, False),
        ):
            one = member(1, 2)
            request = appended(3, term=3, prev_index=prev_index, prev_term=prev_term)
            (response,) = only(AppendResponse, one.step(request))
            self.assertIs(response.rejected, not accepted, request)
            self.assertEqual(response.index, prev_index + 1 if accepted else prev_index)
            self.assertEqual(terms(one) == [1, 2], not accepted)

    def test_rejection_says_where_to_look(self) -> None:
        """5.3, the end: with the last place at which the logs may still agree."""
        one = member(1, 1, 3, 3, 3)
        (response,) = only(AppendResponse, one.step(appended(5, term=5, prev_index=5, prev_term=2)))
        self.assertEqual((response.index, response.hint_index, response.hint_term), (5, 2, 1))

    def test_conflict(self) -> None:
        """3: what conflicts is deleted, with all that follows."""
        one = member(1, 1, 1, 1)
        one.step(appended(2, term=2, prev_index=1, prev_term=1))
        self.assertEqual(terms(one), [1, 2])
        self.assertEqual([entry.term for entry in one.disk.entries], [1, 2])

    def test_only_what_is_new(self) -> None:
        """4, R12: what is here already stays, and so does what follows it."""
        one = member(1, 1, 2, 2)
        (response,) = only(
            AppendResponse, one.step(appended(1, 2, term=2, prev_index=1, prev_term=1))
        )
        self.assertEqual(terms(one), [1, 1, 2, 2])
        self.assertEqual(response.index, 3)

    def test_commit(self) -> None:
        """5: as far as the leader has, but never past the last entry of this message: what follows
        it here may not be the leader's."""
        for commit, expected in ((0, 0), (2, 2), (3, 3), (9, 3)):
            one = member(1, 1, 1, 1, 1)
            one.step(appended(1, 1, term=1, prev_index=1, prev_term=1, commit=commit))
            self.assertEqual(one.raft.commit_index, expected)
            one.step(appended(term=1, prev_index=1, prev_term=1, commit=1))
            self.assertEqual(one.raft.commit_index, expected or 1)

    def test_applies(self) -> None:
        """5.3: what it learns to be committed, it applies."""
        one = member()
        one.step(appended(1, 1, term=1, commit=1))
        self.assertEqual([entry.index for entry in one.applied], [1])

    def test_repeated(self) -> None:
        """5.5: the same message twice does no harm, and is answered twice."""
        one = member()
        request = appended(1, 1, term=1)
        first, second = one.step(request), one.step(request)
        self.assertEqual(first, second)
        self.assertEqual(terms(one), [1, 1])

    def test_log_matching(self) -> None:
        """5.3 and figure 3: same index and term, same entry and same entries before it."""
        group = Group(3, settings=PLAIN)
        group.elect(1)
        group.propose(b"x", b"y")
        group.isolate(1)
        group.members[1].raft.propose([b"lost"])
        group.deliver()
        group.tick(4 * PLAIN.election_timeout_ticks)
        group.propose(b"z")
        group.heal()
        group.tick(2 * PLAIN.heartbeat_ticks)
        logs = [one.raft.log.entries(1, one.raft.last_index) for one in group.members.values()]
        self.assertEqual(logs[0], logs[1])
        self.assertEqual(logs[1], logs[2])
        self.assertNotIn(b"lost", [entry.data for entry in logs[0]])

    def test_higher_term_ends_leadership(self) -> None:
        """5.1: the leader that was cut off learns of its end from a follower's answer."""
        one = leading()
        one.step(HigherTerm(2, 1, 5))
        self.assertEqual((one.raft.role, one.raft.term), (Role.FOLLOWER, 5))


class ParallelWriteTests(SynchronousTestCase):
    """Dissertation, 10.2.1: the leader's own write need not come first."""

    def test_entries_leave_before_they_are_written(self) -> None:
        """The followers write while the leader does."""
        one = leading()
        one.raft.propose([b"x"])
        self.assertEqual(len(only(AppendRequest, one.take())), 2)
        self.assertEqual(one.disk.last_index, 1)

    def test_leader_counts_itself_when_written(self) -> None:
        """It is one of the majority only from then on."""
        one = leading()
        one.raft.propose([b"x"])
        one.take()
        one.raft.step(AppendResponse(2, 1, 1, 2))
        self.assertEqual(one.raft.commit_index, 1)
        one.write()
        self.assertEqual(one.raft.commit_index, 2)

    def test_committed_without_the_leader(self) -> None:
        """A majority of others is enough; the leader then applies what its own disk has."""
        one = leading()
        one.raft.propose([b"x"])
        one.take()
        for sender in (2, 3):
            one.raft.step(AppendResponse(sender, 1, 1, 2))
        self.assertEqual(one.raft.commit_index, 2)
        one.take()
        self.assertEqual([entry.index for entry in one.applied], [1])
        one.settle()
        self.assertEqual([entry.index for entry in one.applied], [1, 2])

    def test_follower_answers_when_written(self) -> None:
        """R2: a follower's answer waits for its own write, whatever else is sent meanwhile."""
        one = member(term=1)
        one.raft.step(appended(1, term=1))
        self.assertEqual(one.take(), [])
        one.raft.step(Heartbeat(2, 1, 1, 0, round=7))
        self.assertEqual(one.take(), [HeartbeatResponse(1, 2, 1, 7)])
        one.write(1)
        self.assertEqual(one.take(), [AppendResponse(1, 2, 1, 1)])

    def test_several_writes_under_way(self) -> None:
        """Each answer waits for its own write, not for the last one."""
        one = member(term=1)
        for index in (1, 2, 3):
            one.raft.step(appended(1, term=1, prev_index=index - 1, prev_term=min(1, index - 1)))
            one.take()
        for index in (1, 2, 3):
            one.write(1)
            self.assertEqual(one.take(), [AppendResponse(1, 2, 1, index)])

    def test_crash_forgets_what_was_not_written(self) -> None:
        """And nothing was said about it."""
        one = member(term=1)
        one.raft.step(appended(1, term=1))
        one.take()
        one.start()
        self.assertEqual((one.raft.last_index, one.settle()), (0, []))

    def test_entries_have_their_kind(self) -> None:
        """Proposals are data, whatever is in them."""
        one = leading()
        one.raft.propose([b"", b"\x00"])
        one.settle()
        kinds = {entry.kind for entry in one.raft.log.entries(2, 3)}
        self.assertEqual(kinds, {EntryKind.DATA})

    def test_pipelining(self) -> None:
        """10.2.1: once the logs agree, messages follow each other without an answer in between."""
        one = leading(settings=replace(PLAIN, inflight_messages_max=3))
        sent = []
        for _ in range(5):
            one.raft.propose([b"x"])
            sent += only(AppendRequest, one.settle())
        self.assertEqual([each.prev_index for each in sent if each.to == 2], [1, 2, 3])
        self.assertIs(one.raft.progress()[2].sending, Sending.REPLICATE)
        more = [each for each in only(AppendRequest, acknowledge(one, 2, index=3)) if each.entries]
        self.assertEqual([(each.to, each.prev_index) for each in more], [(2, 4)])

    def test_log_is_told_by_content(self) -> None:
        """The entries that a follower has are the ones that were sent."""
        one = member()
        one.step(appended(1, 1, term=1))
        self.assertEqual(tuple(one.disk.entries), log_of(1, 1))
