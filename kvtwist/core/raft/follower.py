"""What a follower does (paper, 5.2 and 5.3, figure 2 "AppendEntries RPC"; section 7)."""

from __future__ import annotations

from kvtwist.core.raft import elections, reads
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexResponse,
    TimeoutNow,
)
from kvtwist.core.raft.state import State


def tick(state: State) -> None:
    """One tick."""
    state.elapsed_ticks += 1
    reads.give_up_old(state)
    if state.elapsed_ticks >= state.timeout_ticks:
        elections.campaign(state)


def on_append(state: State, request: AppendRequest) -> None:
    """Take over the leader's entries, if they follow one that is here."""
    _hear(state, request.sender)
    log = state.log
    # What is committed is the leader's as well, even if it is compacted here.
    is_committed = request.prev_index <= log.commit_index
    if is_committed or log.has(request.prev_index, request.prev_term):
        log.merge(request.entries)
        last_new = request.prev_index + len(request.entries)
        log.commit(min(request.commit, last_new))
        _accept(state, request.sender, max(last_new, log.commit_index))
    else:
        _reject(state, request)


def _accept(state: State, leader: int, index: int) -> None:
    state.send_when_written(AppendResponse(state.replica, leader, state.term, index))


def _reject(state: State, request: AppendRequest) -> None:
    hint_index, hint_term = state.log.find_agreement(request.prev_index, request.prev_term)
    state.send_when_voted(
        AppendResponse(
            state.replica,
            request.sender,
            state.term,
            request.prev_index,
            rejected=True,
            hint_index=hint_index,
            hint_term=hint_term,
        )
    )


def on_heartbeat(state: State, heartbeat: Heartbeat) -> None:
    """The leader is there; fall silent with it, if that is what it says and nothing is missing."""
    _hear(state, heartbeat.sender)
    state.log.commit(min(heartbeat.commit, state.log.last_index))
    if heartbeat.quiesce and state.log.commit_index == state.log.last_index == heartbeat.commit:
        state.is_quiescent = True
    state.send_when_voted(
        HeartbeatResponse(state.replica, heartbeat.sender, state.term, heartbeat.round)
    )


def on_snapshot(state: State, message: InstallSnapshot) -> None:
    """Begin anew from a snapshot, unless what it has is here already (R13)."""
    _hear(state, message.sender)
    snapshot, log = message.snapshot, state.log
    if snapshot.index <= log.commit_index:
        _accept(state, message.sender, log.commit_index)
    elif log.has(snapshot.index, snapshot.term):
        log.commit(snapshot.index)
        _accept(state, message.sender, snapshot.index)
    else:
        log.replace(snapshot.index, snapshot.term, snapshot.configuration)
        state.snapshot = snapshot
        state.applied_index = snapshot.index
        _accept(state, message.sender, snapshot.index)


def on_timeout_now(state: State, _: TimeoutNow) -> None:
    """The leader hands over: stand for election at once (dissertation, 3.10)."""
    if state.is_voter:
        elections.become_candidate(state, transfer=True)


def on_read_index(state: State, response: ReadIndexResponse) -> None:
    """The leader has answered about a read."""
    reads.answered(state, response)


def _hear(state: State, leader: int) -> None:
    assert state.leader in (0, leader), "two leaders in one term (paper, 5.2: Election Safety)"
    state.leader = leader
    state.elapsed_ticks = 0
