"""What a candidate does, and a pre-candidate (paper, 5.2; dissertation, 9.6)."""

from __future__ import annotations

from kvtwist.core.raft import elections
from kvtwist.core.raft.messages import (
    AppendRequest,
    Heartbeat,
    InstallSnapshot,
    PreVoteResponse,
    VoteResponse,
)
from kvtwist.core.raft.state import State


def tick(state: State) -> None:
    """One tick; a split vote ends by trying again."""
    state.elapsed_ticks += 1
    if state.elapsed_ticks >= state.timeout_ticks:
        elections.campaign(state)


def on_pre_vote(state: State, response: PreVoteResponse) -> None:
    """Count what somebody would do."""
    if response.granted and response.term != state.term + 1:
        return  # it answers an earlier request
    state.votes.setdefault(response.sender, response.granted)
    elections.settle(state)


def on_vote(state: State, response: VoteResponse) -> None:
    """Count a vote."""
    state.votes.setdefault(response.sender, response.granted)
    elections.settle(state)


def on_leader(state: State, message: AppendRequest | Heartbeat | InstallSnapshot) -> None:
    """Somebody else has been elected in this term: follow, and then look at the message."""
    elections.become_follower(state, message.term, message.sender)
