"""Linearizable reads without writing to the log: ReadIndex (dissertation, 6.4).

A read that reaches the leader waits for the next *round*: heartbeats with a number of their own. It
notes the commit index; once a majority has answered that round, or a later one, nobody else can
have committed anything before the read came, and it may be answered as soon as what it noted is
applied. All reads between two `Ready`s share a round. A number is used for one round only, and
rounds are gone with the leadership: an answer to an earlier attempt confirms nothing (R5).

A follower asks the leader, with numbers that it never uses again, in this life or another.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvtwist.core.raft.messages import ReadIndexRequest, ReadIndexResponse, ReadState
from kvtwist.core.raft.quorum import majority, reached_by_majority
from kvtwist.core.raft.state import (
    NOBODY,
    Asked,
    Dropped,
    Forwarded,
    Leading,
    Reason,
    Role,
    Round,
    State,
)


def ask(state: State, context: bytes) -> Dropped | None:
    """A user wants to read here."""
    if state.leading is not None:
        state.leading.asked.append(Asked(state.replica, 0, context))
    elif state.role is Role.FOLLOWER and state.leader != NOBODY:
        state.asking.append(context)
    else:
        return Dropped(Reason.NO_LEADER)
    return None


# -- at the leader ----------------------------------------------------------------------------


def may_begin_round(state: State, leading: Leading) -> bool:
    """Whether reads wait, and the leader knows what is committed: it does not before it has
    committed an entry of its own term (R4)."""
    return bool(leading.asked) and state.log.commit_index >= leading.term_began_index


def begin_round(state: State, leading: Leading) -> None:
    """Let the reads that wait be confirmed together."""
    asked, leading.asked = tuple(leading.asked), []
    index = state.log.commit_index
    if state.settings.lease_reads and state.now < leading.lease_until_tick:
        _answer(state, asked, index)
        return
    next_round(state, leading)
    leading.rounds.append(Round(leading.round, index, asked))
    if state.settings.narrow_reads:
        state.send_round(leading, nearest(state, leading))
    else:
        state.send_heartbeats(leading)
    confirm_rounds(state, leading)


def nearest(state: State, leading: Leading) -> Sequence[int]:
    """The other voters who make a majority, with this replica if it is one: those who answered the
    latest rounds. Who is gone is so left out from the next heartbeat on."""
    voters = state.configuration.voters
    others = [voter for voter in voters if voter != state.replica]
    others.sort(key=lambda voter: -leading.progress[voter].round)
    needed = majority(len(voters)) - (len(others) < len(voters))
    return others[:needed]


def next_round(state: State, leading: Leading) -> None:
    """Count the heartbeats that are about to be sent as a round."""
    leading.round += 1
    if state.settings.lease_reads:
        leading.round_ticks.append((leading.round, state.now))


def confirm_rounds(state: State, leading: Leading) -> None:
    """Answer the reads whose round a majority has answered, and extend the lease.

    The lease counts from when the round's heartbeats were sent, not from their answers (R6).
    """
    confirmed = reached_by_majority(
        leading.round if voter == state.replica else leading.progress[voter].round
        for voter in state.configuration.voters
    )
    while leading.rounds and leading.rounds[0].number <= confirmed:
        answered = leading.rounds.popleft()
        _answer(state, answered.reads, answered.index)
    lease_ticks = state.settings.election_timeout_ticks - state.settings.lease_drift_ticks
    while leading.round_ticks and leading.round_ticks[0][0] <= confirmed:
        _, began_tick = leading.round_ticks.popleft()
        if not leading.is_lease_over:
            leading.lease_until_tick = began_tick + lease_ticks


def _answer(state: State, reads: tuple[Asked, ...], index: int) -> None:
    for replica, number, context in reads:
        if replica == state.replica:
            state.reads.append(ReadState(context, index))
        else:
            state.send(ReadIndexResponse(state.replica, replica, state.term, number, index))


# -- at a follower ----------------------------------------------------------------------------


def forward(state: State) -> None:
    """Ask the leader about all reads that have come since the last time."""
    contexts, state.asking = tuple(state.asking), []
    state.read_number += 1
    state.forwarded[state.read_number] = Forwarded(contexts, state.now)
    state.send_when_voted(
        ReadIndexRequest(state.replica, state.leader, state.term, state.read_number)
    )


def answered(state: State, response: ReadIndexResponse) -> None:
    """The leader has told the index."""
    asked = state.forwarded.pop(response.number, None)
    if asked is not None:
        state.reads.extend(ReadState(context, response.index) for context in asked.contexts)


def give_up_old(state: State) -> None:
    """Lose the reads that the leader has not answered for an election timeout."""
    patience_ticks = state.settings.election_timeout_ticks
    for number, asked in list(state.forwarded.items()):
        if state.now - asked.at_tick >= patience_ticks:
            state.reads_lost.extend(state.forwarded.pop(number).contexts)


def give_up_all(state: State) -> None:
    """Lose all reads that are not confirmed: the leader is another one, or none, from now on."""
    lost = list(state.asking)
    for asked in state.forwarded.values():
        lost.extend(asked.contexts)
    if state.leading is not None:
        waiting = list(state.leading.asked)
        for each in state.leading.rounds:
            waiting.extend(each.reads)
        lost.extend(each.context for each in waiting if each.replica == state.replica)
    state.asking.clear()
    state.forwarded.clear()
    state.reads_lost.extend(lost)
