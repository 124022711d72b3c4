"""How a leader's log gets to the others, and when an entry is committed.

Source: the paper, section 5.3 and 5.4.2; the dissertation, 10.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvtwist.core.raft.configuration import Configuration
from kvtwist.core.raft.log import Entry, EntryKind, total_bytes
from kvtwist.core.raft.messages import AppendRequest
from kvtwist.core.raft.progress import Progress, Sending
from kvtwist.core.raft.quorum import reached_by_majority
from kvtwist.core.raft.state import Leading, State


def append(state: State, leading: Leading, kind: EntryKind, payloads: Sequence[bytes]) -> int:
    """Append entries of the leader's own term; the first one's index."""
    first = state.log.last_index + 1
    entries = [Entry(first + at, state.term, kind, data) for at, data in enumerate(payloads)]
    state.log.append(entries)
    leading.uncommitted_bytes += total_bytes(entries)
    leading.idle_ticks = 0
    return first


def reconfigure(state: State, leading: Leading) -> None:
    """Have a progress for every other replica of the configuration, and for nobody else."""
    settings = state.settings
    known = leading.progress
    leading.progress = {
        replica: known.get(replica)
        or Progress(
            state.log.last_index + 1, settings.inflight_messages_max, settings.inflight_bytes_max
        )
        for replica in state.others
    }


def append_configuration(state: State, leading: Leading, configuration: Configuration) -> int:
    """Append a configuration, which is in force at once; its index."""
    index = append(state, leading, EntryKind.CONFIGURATION, [configuration.encode()])
    reconfigure(state, leading)
    return index


def broadcast(state: State, leading: Leading, tell_commit: bool = True) -> None:
    """Send everybody what is new to them: entries, else the commit index if it has moved.

    :param tell_commit: whether that alone is worth a message.
    """
    commit = state.log.commit_index
    if tell_commit:
        leading.told_commit = commit
    for replica, progress in leading.progress.items():
        is_told = replicate(state, leading, replica) or progress.told_commit >= commit
        if tell_commit and not is_told and progress.may_send:
            _send_append(state, replica, progress, ())


def replicate(state: State, leading: Leading, replica: int, probe: bool = False) -> bool:
    """Send *replica* the entries that it lacks, as many as may be under way. Whether any were sent.

    :param probe: send a message even when there are none: an answer is wanted. When there is no
        room, that message has no entries: it finds out whether those under way were lost, and
        does not add to them (R16).
    """
    progress = leading.progress[replica]
    is_full = progress.is_full
    sent = False
    while (progress.may_send or (is_full and probe)) and (
        probe or progress.next <= state.log.last_index
    ):
        if progress.next <= state.log.compacted_index:
            progress.need_snapshot()
            state.snapshots_wanted.append(replica)
            return sent
        last = progress.next - 1 if is_full else state.log.last_index
        entries = state.log.entries(progress.next, last, state.settings.append_bytes_max)
        _send_append(state, replica, progress, entries)
        probe, sent = False, True
    return sent


def _send_append(
    state: State, replica: int, progress: Progress, entries: tuple[Entry, ...]
) -> None:
    prev_index = progress.next - 1
    prev_term = state.log.term_at(prev_index)
    assert prev_term is not None, "what is compacted needs a snapshot"
    commit = state.log.commit_index
    state.send(
        AppendRequest(state.replica, replica, state.term, prev_index, prev_term, entries, commit)
    )
    progress.sent(prev_index + len(entries), total_bytes(entries))
    progress.told_commit = commit


def maybe_commit(state: State, leading: Leading) -> bool:
    """Commit what a majority has on disk. Whether that is news.

    Only an entry of the leader's own term is committed by counting; those before it are so with it
    (paper, 5.4.2; R3). The leader counts itself only as far as its own disk has got, and not at all
    when it is no voter (any more).
    """
    reached = reached_by_majority(
        state.log.durable_index if voter == state.replica else leading.progress[voter].match
        for voter in state.configuration.voters
    )
    if reached <= state.log.commit_index or not state.log.has(reached, state.term):
        return False
    newly = state.log.entries(state.log.commit_index + 1, reached)
    leading.uncommitted_bytes -= total_bytes(newly)
    return state.log.commit(reached)


def is_replicated(state: State, leading: Leading) -> bool:
    """Whether everybody has, and knows to be committed, all that there is."""
    last = state.log.last_index
    return (
        state.log.commit_index == leading.told_commit == last
        and state.log.durable_index == last
        and all(
            progress.match == last and progress.sending is Sending.REPLICATE
            for progress in leading.progress.values()
        )
    )
