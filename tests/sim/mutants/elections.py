"""Bugs in elections, votes and terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kvtwist.core.raft.raft as raft
from kvtwist.core.raft import elections, leader, quorum, replication
from kvtwist.core.raft.log import Log
from kvtwist.core.raft.messages import (
    HardState,
    PreVoteRequest,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from kvtwist.core.raft.state import NOBODY, Leading, Role, State
from tests.sim.mutants.planting import Patch, instead, mutant


@mutant
def vote_before_sync(patch: Patch) -> None:
    """Votes, and other messages that tell a term, leave before the sync."""
    patch.replace(State, "send_when_voted", lambda _: _send_now)


def _send_now(state: State, message: Any) -> None:
    if message.to == state.replica:
        state._hold(message, state._voted_number)
    else:
        state.send(message)


@mutant
def vote_not_persisted(patch: Patch) -> None:
    """A restart brings back the term, but not the vote."""

    def made(before: Any) -> Any:
        def begin(self: State, replica: int, settings: Any, restored: Any, *rest: Any) -> None:
            hard = restored.hard_state
            forgotten = HardState(hard.term, NOBODY, hard.commit)
            before(self, replica, settings, replace(restored, hard_state=forgotten), *rest)

        return begin

    patch.replace(State, "__init__", made)


@mutant
def vote_without_sync(patch: Patch) -> None:
    """A change of the vote alone does not ask for a sync."""

    def made(before: Any) -> Any:
        def begin_write(self: State) -> Any:
            told = self._told
            number, hard, must_sync = before(self)
            if hard is not None and hard.term == told.term and hard.vote != told.vote:
                must_sync = False
            return number, hard, must_sync

        return begin_write

    patch.replace(State, "begin_write", made)


@mutant
def vote_twice_in_a_term(patch: Patch) -> None:
    """Whoever asks gets a vote, though another one has it already."""

    def answer_vote(state: State, request: Any) -> None:
        granted = state.log.is_up_to_date(request.last_index, request.last_term)
        if granted:
            state.vote = NOBODY
            state.set_vote(request.sender)
            state.restart_election_timer()
        state.send_when_voted(VoteResponse(state.replica, request.sender, state.term, granted))

    _replace_answer_vote(patch, answer_vote)


@mutant
def vote_for_stale_log(patch: Patch) -> None:
    """A candidate's log is not looked at."""
    patch.replace(Log, "is_up_to_date", instead(lambda self, index, term: True))


@mutant
def vote_for_longer_log(patch: Patch) -> None:
    """Logs are compared by their length, not by their last term first."""
    patch.replace(Log, "is_up_to_date", instead(lambda self, index, term: index >= self.last_index))


@mutant
def candidate_counts_itself_at_once(patch: Patch) -> None:
    """A candidate counts its own vote before its disk has it."""

    def made(before: Any) -> Any:
        def become_candidate(state: State, transfer: bool = False) -> None:
            before(state, transfer)
            state.votes = {state.replica: True}
            elections.settle(state)

        return become_candidate

    patch.replace(elections, "become_candidate", made)


@mutant
def election_quorum_off_by_one(patch: Patch) -> None:
    """Half of the voters elect, if their number is even; else one less than a majority."""

    def election(voters: Any, votes: Any) -> quorum.Election:
        granted = sum(votes.get(voter) is True for voter in voters)
        refused = sum(votes.get(voter) is False for voter in voters)
        if granted >= max(1, len(voters) // 2):
            return quorum.Election.WON
        lost = refused > len(voters) // 2
        return quorum.Election.LOST if lost else quorum.Election.UNDECIDED

    patch.replace(elections, "election", instead(election))


@mutant
def learner_votes_count(patch: Patch) -> None:
    """Candidates ask learners too, and count them."""

    def _other_voters(state: State) -> tuple[int, ...]:
        return state.others

    def made(before: Any) -> Any:
        def election(voters: Any, votes: Any) -> quorum.Election:
            granted = sum(votes.values())
            return quorum.Election.WON if granted > len(voters) // 2 else before(voters, votes)

        return election

    patch.replace(elections, "_other_voters", instead(_other_voters))
    patch.replace(elections, "election", made)


@mutant
def pre_vote_changes_the_term(patch: Patch) -> None:
    """Who is asked for a pre-vote enters the term that it is about."""

    def made(before: Any) -> Any:
        def enter(state: State, message: Any) -> bool:
            if isinstance(message, PreVoteRequest):
                elections.become_follower(state, message.term, NOBODY)
                return True
            return bool(before(state, message))

        return enter

    patch.replace(raft, "_enter_later_term", made)


@mutant
def no_noop_after_election(patch: Patch) -> None:
    """A new leader waits for a proposal instead of beginning with an entry of its own."""

    def _become_leader(state: State) -> None:
        elections._enter(state, Role.LEADER, state.replica)
        log = state.log
        inherited = log.entries(log.commit_index + 1, log.last_index)
        state.leading = Leading(
            term_began_index=log.last_index,
            uncommitted_bytes=sum(entry.size_bytes for entry in inherited),
            told_commit=log.commit_index,
        )
        replication.reconfigure(state, state.leading)

    patch.replace(elections, "_become_leader", instead(_become_leader))


@mutant
def higher_term_forgotten(patch: Patch) -> None:
    """A leader whose term is over is not told so."""
    patch.replace(raft, "_answer_earlier_term", instead(lambda state, message: None))


@mutant
def leader_never_looks_for_its_majority(patch: Patch) -> None:
    """A leader that nobody answers goes on for ever."""
    patch.replace(leader, "_has_majority", instead(lambda state, leading: True))


@mutant
def stalled_leader_stays(patch: Patch) -> None:
    """A leader whose disk hangs goes on leading (R8)."""
    patch.replace(State, "write_ticks", instead(property(lambda self: 0)))


@mutant
def transfer_to_a_lagging_follower(patch: Patch) -> None:
    """Leadership is handed over at once, whatever the other one lacks."""

    def made(before: Any) -> Any:
        def hand_over(state: State, leading: Leading, replica: int) -> None:
            if leading.transfer_to == replica:
                state.send(TimeoutNow(state.replica, replica, state.term))

        return hand_over

    patch.replace(leader, "_hand_over_if_close", made)


def _replace_answer_vote(patch: Patch, answer_vote: Any) -> None:
    patch.replace_item(raft._TAKEN, VoteRequest, instead((None, answer_vote)))
