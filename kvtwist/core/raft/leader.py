"""What a leader does (paper, 5.3 and figure 2 "Leaders"; dissertation, chapters 3, 4 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

from kvtwist.core.raft import elections, reads, replication
from kvtwist.core.raft.configuration import Change, Promote, changed
from kvtwist.core.raft.log import ENTRY_OVERHEAD_BYTES, EntryKind
from kvtwist.core.raft.messages import (
    AppendResponse,
    HeartbeatResponse,
    InstallSnapshot,
    ReadIndexRequest,
    Snapshot,
    TimeoutNow,
)
from kvtwist.core.raft.progress import Sending
from kvtwist.core.raft.quorum import majority
from kvtwist.core.raft.state import NOBODY, Asked, Dropped, Leading, Proposed, Reason, State

# -- time -------------------------------------------------------------------------------------


def tick(state: State, leading: Leading) -> None:
    """One tick."""
    settings = state.settings
    others = len(state.configuration.voters) > 1
    if others and state.write_ticks >= settings.stall_ticks:
        # They can do better than a leader whose disk stalls (R8). One that is alone can be read.
        elections.become_follower(state, state.term, NOBODY)
        return
    state.elapsed_ticks += 1
    if state.elapsed_ticks >= settings.election_timeout_ticks:
        state.elapsed_ticks = 0
        if settings.check_quorum and not _has_majority(state, leading):
            elections.become_follower(state, state.term, NOBODY)
            return
    _tick_transfer(state, leading)
    if not settings.eager_commit and state.log.commit_index > leading.told_commit:
        replication.broadcast(state, leading)
    leading.heartbeat_ticks += 1
    if leading.heartbeat_ticks >= settings.heartbeat_ticks:
        reads.next_round(state, leading)
        state.send_heartbeats(leading)
    _tick_quiescence(state, leading)


def _has_majority(state: State, leading: Leading) -> bool:
    """Whether a majority was heard of since the last time; and forget it."""
    voters = state.configuration.voters
    active = sum(voter == state.replica or leading.progress[voter].is_active for voter in voters)
    for progress in leading.progress.values():
        progress.was_active, progress.is_active = progress.is_active, False
    return active >= majority(len(voters))


def _tick_transfer(state: State, leading: Leading) -> None:
    if leading.transfer_to != NOBODY:
        leading.transfer_ticks += 1
        if leading.transfer_ticks >= state.settings.election_timeout_ticks:
            leading.transfer_to = NOBODY  # it did not work: go on (R15)


def _tick_quiescence(state: State, leading: Leading) -> None:
    patience_ticks = state.settings.quiesce_after_ticks
    if not patience_ticks:
        return
    leading.idle_ticks += 1
    is_idle = not leading.rounds and not leading.asked and leading.transfer_to == NOBODY
    is_time = is_idle and leading.idle_ticks >= patience_ticks
    if is_time and replication.is_replicated(state, leading):
        state.send_heartbeats(leading, quiesce=True)
        state.is_quiescent = True


def wake(state: State, leading: Leading) -> None:
    """Something happens in a group that had fallen silent.

    No time was counted since, so that a lease may long be over.
    """
    state.is_quiescent = False
    leading.lease_until_tick = 0
    leading.round_ticks.clear()
    state.elapsed_ticks = 0
    leading.idle_ticks = 0
    leading.heartbeat_ticks = state.settings.heartbeat_ticks
    for progress in leading.progress.values():
        progress.is_active = True


# -- what the others answer -------------------------------------------------------------------


def on_append_response(state: State, leading: Leading, response: AppendResponse) -> None:
    """A follower has, or has not, taken over entries."""
    progress = leading.progress.get(response.sender)
    if progress is None or response.index > state.log.last_index:
        return  # it was removed; or it says what cannot be
    progress.is_active = True
    leading.idle_ticks = 0
    if response.rejected:
        # Where it has an earlier term than we have, we can skip all of ours as well (paper, 5.3).
        hint, _ = state.log.find_agreement(response.hint_index, response.hint_term)
        if progress.rejected(response.index, hint):
            replication.replicate(state, leading, response.sender, probe=True)
        return
    was_full = not progress.may_send
    is_news = progress.accepted(response.index)
    if was_full and progress.told_commit < leading.told_commit:
        leading.told_commit = progress.told_commit  # it was passed over: tell it now
    if progress.sending is Sending.SNAPSHOT and progress.match >= state.log.compacted_index:
        progress.probe()
    if is_news and response.sender in state.configuration.voters:
        committed(state, leading)
    if state.leading is leading:
        replication.replicate(state, leading, response.sender)
        _hand_over_if_close(state, leading, response.sender)


def committed(state: State, leading: Leading) -> None:
    """More may be committed than is known: see; and step down when that ends one's own
    membership (dissertation, 4.2.2)."""
    if not replication.maybe_commit(state, leading):
        return
    if state.log.configuration_index <= state.log.commit_index and not state.is_voter:
        replication.broadcast(state, leading)
        elections.become_follower(state, state.term, NOBODY)


def on_heartbeat_response(state: State, leading: Leading, response: HeartbeatResponse) -> None:
    """A follower is there."""
    progress = leading.progress.get(response.sender)
    if progress is None:
        return
    progress.heard()
    progress.round = max(progress.round, response.round)
    if response.sender in state.configuration.voters:
        reads.confirm_rounds(state, leading)
    if progress.match < state.log.last_index or progress.sending is Sending.PROBE:
        replication.replicate(state, leading, response.sender, probe=True)
    _hand_over_if_close(state, leading, response.sender)


def on_read_index(state: State, leading: Leading, request: ReadIndexRequest) -> None:
    """A follower wants to read."""
    if request.sender in leading.progress:
        leading.asked.append(Asked(request.sender, request.number, b""))


# -- what the caller wants --------------------------------------------------------------------


def propose(state: State, leading: Leading, payloads: Sequence[bytes]) -> Proposed | Dropped:
    """Append proposals, all or none."""
    if leading.transfer_to != NOBODY:
        return Dropped(Reason.TRANSFER, leading.transfer_to)
    if not state.is_voter:
        return Dropped(Reason.LEAVING, NOBODY)
    size_bytes = ENTRY_OVERHEAD_BYTES * len(payloads)
    for data in payloads:
        size_bytes += len(data)
    is_over = leading.uncommitted_bytes + size_bytes > state.settings.uncommitted_bytes_max
    if is_over and state.log.commit_index < state.log.last_index:
        return Dropped(Reason.UNCOMMITTED_BYTES, state.replica)
    return Proposed(state.term, replication.append(state, leading, EntryKind.DATA, payloads))


def propose_membership(state: State, leading: Leading, change: Change) -> Proposed | Dropped:
    """Append a configuration that differs by *change* (R10)."""
    if leading.transfer_to != NOBODY:
        return Dropped(Reason.TRANSFER, leading.transfer_to)
    if state.log.commit_index < leading.term_began_index:
        return Dropped(Reason.NO_OWN_COMMIT, state.replica)
    if state.log.configuration_index > state.log.commit_index:
        return Dropped(Reason.CHANGE_PENDING, state.replica)
    configuration = changed(state.configuration, change)
    if configuration is None:
        return Dropped(Reason.SENSELESS, state.replica)
    if isinstance(change, Promote):
        lag_entries = state.log.last_index - leading.progress[change.replica].match
        if lag_entries > state.settings.promotion_lag_entries_max:
            return Dropped(Reason.NOT_CAUGHT_UP, state.replica)
    index = replication.append_configuration(state, leading, configuration)
    return Proposed(state.term, index)


def transfer_leadership(state: State, leading: Leading, to: int) -> Dropped | None:
    """Hand leadership to the voter *to*, once it has the whole log; meanwhile take no proposals.

    A lease ends at once: the next leader does not know of it (R6).
    """
    if to == state.replica or to not in state.configuration.voters:
        return Dropped(Reason.SENSELESS, state.replica)
    progress = leading.progress[to]
    lag_entries = state.log.last_index - progress.match
    if progress.sending is Sending.SNAPSHOT or (
        lag_entries > state.settings.promotion_lag_entries_max
    ):
        return Dropped(Reason.NOT_CAUGHT_UP, state.replica)
    leading.transfer_to, leading.transfer_ticks = to, 0
    leading.is_lease_over, leading.lease_until_tick = True, 0
    leading.idle_ticks = 0
    _hand_over_if_close(state, leading, to)
    return None


def _hand_over_if_close(state: State, leading: Leading, replica: int) -> None:
    is_close = leading.progress[replica].match == state.log.last_index
    if leading.transfer_to == replica and is_close:
        state.send(TimeoutNow(state.replica, replica, state.term))


def send_snapshot(state: State, leading: Leading, to: int, snapshot: Snapshot) -> None:
    """Send the snapshot that was wanted for *to*, if it still is."""
    progress = leading.progress.get(to)
    if progress is not None and progress.sending is Sending.SNAPSHOT:
        progress.pending_snapshot_index = snapshot.index
        leading.idle_ticks = 0
        state.send(InstallSnapshot(state.replica, to, state.term, snapshot))


def snapshot_sent(state: State, leading: Leading, to: int, delivered: bool) -> None:
    """The snapshot has been delivered to *to*, or has failed: see where its log stands."""
    progress = leading.progress.get(to)
    if progress is not None and progress.sending is Sending.SNAPSHOT:
        if delivered:
            progress.probe()
        else:
            progress.snapshot_failed()
        progress.is_waiting = True  # for the answer, or the next heartbeat's: not in a loop
