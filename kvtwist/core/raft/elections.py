"""How a replica gets from one role to another, and how it votes.

::

    FOLLOWER --timeout--> PRE_CANDIDATE --majority--> CANDIDATE --majority--> LEADER
    FOLLOWER --TimeoutNow-------------------------->  CANDIDATE
    any --a later term, or its leader--> FOLLOWER
    LEADER --no majority heard, its disk stalls, or it was removed--> FOLLOWER

Source: the paper, section 5.2 and 5.4.1; the dissertation, 4.2.3, 6.2, 9.6, 10.2.1.
"""

from __future__ import annotations

from kvtwist.core.raft import reads, replication
from kvtwist.core.raft.log import EntryKind, total_bytes
from kvtwist.core.raft.messages import (
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)
from kvtwist.core.raft.quorum import Election, election
from kvtwist.core.raft.state import NOBODY, Leading, Role, State


def become_follower(state: State, term: int, leader: int) -> None:
    """Follow *leader*, or nobody yet, in *term*.

    A later term alone does not put off a follower's own election: else a replica that cannot win
    would keep those that can from standing (paper, figure 2, "Followers").
    """
    goes_on_waiting = state.role is Role.FOLLOWER and term > state.term
    if term > state.term:
        state.set_term(term)
    reads.give_up_all(state)
    _enter(state, Role.FOLLOWER, leader)
    if not goes_on_waiting:
        state.restart_election_timer()


def campaign(state: State) -> None:
    """The time is up: try to become the leader, if this replica may."""
    if not may_campaign(state):
        become_follower(state, state.term, NOBODY)
    elif state.settings.pre_vote:
        _become_pre_candidate(state)
    else:
        become_candidate(state)


def may_campaign(state: State) -> bool:
    """Whether it is a voter, or was one until a change that may not be committed (4.2.2)."""
    committed = state.log.committed_configuration
    return state.is_voter or state.replica in committed.voters


def _become_pre_candidate(state: State) -> None:
    reads.give_up_all(state)
    _enter(state, Role.PRE_CANDIDATE, NOBODY)
    state.restart_election_timer()
    state.votes = {state.replica: True}
    last_index, last_term = state.log.last_index, state.log.last_term
    for voter in _other_voters(state):
        state.send_when_voted(
            PreVoteRequest(state.replica, voter, state.term + 1, last_index, last_term)
        )
    settle(state)


def become_candidate(state: State, transfer: bool = False) -> None:
    """Stand for election in a new term.

    The requests, and this replica's own vote, count only when term and vote are durable (R1).
    """
    reads.give_up_all(state)
    state.set_term(state.term + 1)
    state.set_vote(state.replica)
    _enter(state, Role.CANDIDATE, NOBODY)
    state.restart_election_timer()
    state.votes = {}
    last_index, last_term = state.log.last_index, state.log.last_term
    for voter in _other_voters(state):
        state.send_when_voted(
            VoteRequest(state.replica, voter, state.term, last_index, last_term, transfer)
        )
    state.send_when_voted(VoteResponse(state.replica, state.replica, state.term, granted=True))


def settle(state: State) -> None:
    """See whether the election under way is decided."""
    match election(state.configuration.voters, state.votes):
        case Election.WON if state.role is Role.PRE_CANDIDATE:
            become_candidate(state)
        case Election.WON:
            _become_leader(state)
        case Election.LOST:
            become_follower(state, state.term, NOBODY)
        case Election.UNDECIDED:
            pass


def _become_leader(state: State) -> None:
    """Begin with an entry of the new term: only what is committed with it is known to be (R4)."""
    _enter(state, Role.LEADER, state.replica)
    state.restart_election_timer()
    inherited = state.log.entries(state.log.commit_index + 1, state.log.last_index)
    leading = Leading(
        term_began_index=state.log.last_index + 1,
        uncommitted_bytes=total_bytes(inherited),
        told_commit=state.log.commit_index,
    )
    state.leading = leading
    replication.reconfigure(state, leading)
    replication.append(state, leading, EntryKind.NOOP, [b""])


def _enter(state: State, role: Role, leader: int) -> None:
    state.role, state.leader = role, leader
    state.leading = None
    state.votes = {}
    state.is_quiescent = False


def _other_voters(state: State) -> tuple[int, ...]:
    return tuple(voter for voter in state.configuration.voters if voter != state.replica)


# -- votes ------------------------------------------------------------------------------------


def answer_pre_vote(state: State, request: PreVoteRequest) -> None:
    """Say whether this replica would vote so; nothing of it changes (R7)."""
    granted = request.term > state.term and state.log.is_up_to_date(
        request.last_index, request.last_term
    )
    term = request.term if granted else state.term
    state.send_when_voted(PreVoteResponse(state.replica, request.sender, term, granted))


def answer_vote(state: State, request: VoteRequest) -> None:
    """Vote, at most once in a term, for a log that is up to date (paper, 5.2 and 5.4.1)."""
    free = state.vote == request.sender or (state.vote == NOBODY and state.leader == NOBODY)
    granted = free and state.log.is_up_to_date(request.last_index, request.last_term)
    if granted:
        state.set_vote(request.sender)
        state.restart_election_timer()
    state.send_when_voted(VoteResponse(state.replica, request.sender, state.term, granted))
