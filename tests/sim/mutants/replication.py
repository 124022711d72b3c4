"""Bugs in how the log spreads, gets to disks, and is committed."""

from __future__ import annotations

from typing import Any

import kvtwist.core.raft.raft as raft
from kvtwist.core.raft import follower, leader, quorum, replication
from kvtwist.core.raft.configuration import Configuration
from kvtwist.core.raft.log import Log
from kvtwist.core.raft.messages import AppendRequest, Heartbeat, InstallSnapshot
from kvtwist.core.raft.progress import Progress
from kvtwist.core.raft.quorum import reached_by_majority
from kvtwist.core.raft.state import Leading, Role, State
from tests.sim.mutants.planting import Patch, instead, mutant


@mutant
def acknowledged_before_sync(patch: Patch) -> None:
    """Followers acknowledge entries that are on their way to the disk."""
    patch.replace(State, "send_when_written", instead(lambda self, message: self.send(message)))


@mutant
def acknowledged_by_vote_sync(patch: Patch) -> None:
    """Acknowledgements wait for term and vote only."""
    patch.replace(
        State, "send_when_written", instead(lambda self, message: self.send_when_voted(message))
    )


@mutant
def ack_covers_a_replaced_tail(patch: Patch) -> None:
    """The end of a write makes durable what a later write is about to replace (R2, ABA)."""

    def written(self: Log, number: int) -> None:
        durable = None
        while self._writes and self._writes[0].number <= number:
            durable = self._writes.popleft().last
        if durable is not None and not self.is_replaced:
            self.durable_index = max(self.durable_index, min(durable, self.last_index))

    patch.replace(Log, "written", instead(written))


@mutant
def durable_index_survives_truncation(patch: Patch) -> None:
    """What was durable still counts as such after it was cut off."""

    def made(before: Any) -> Any:
        def _truncate(self: Log, index: int) -> None:
            durable = self.durable_index
            before(self, index)
            self.durable_index = durable

        return _truncate

    patch.replace(Log, "_truncate", made)


@mutant
def leader_counts_itself_before_sync(patch: Patch) -> None:
    """A leader counts its own log as far as it reaches, on disk or not (10.2.1)."""
    _replace_reached(
        patch,
        lambda state, leading: reached_by_majority(
            state.log.last_index if voter == state.replica else leading.progress[voter].match
            for voter in state.configuration.voters
        ),
    )


@mutant
def commit_by_counting_an_old_term(patch: Patch) -> None:
    """Entries of earlier terms are committed by counting (figure 8; R3)."""

    def maybe_commit(state: State, leading: Leading) -> bool:
        return state.log.commit(max(_reached(state, leading), state.log.commit_index))

    patch.replace(replication, "maybe_commit", instead(maybe_commit))


@mutant
def commit_quorum_off_by_one(patch: Patch) -> None:
    """One less than a majority is enough to commit."""

    def reached(values: Any) -> int:
        ordered = sorted(values, reverse=True)
        return int(ordered[max(0, len(ordered) // 2 - 1)])

    patch.replace(replication, "reached_by_majority", instead(reached))


@mutant
def majority_is_half(patch: Patch) -> None:
    """Half of an even number of voters is a majority, everywhere."""
    patch.replace(quorum, "majority", instead(lambda voters: (voters + 1) // 2))


@mutant
def learner_acknowledgements_count(patch: Patch) -> None:
    """Learners count when entries are committed."""

    def reached(state: State, leading: Leading) -> int:
        matches = [progress.match for progress in leading.progress.values()]
        ordered = sorted([*matches, state.log.durable_index], reverse=True)
        return ordered[len(state.configuration.voters) // 2]

    _replace_reached(patch, reached)


@mutant
def removed_leader_counts_itself(patch: Patch) -> None:
    """A leader counts itself, voter or not."""

    def reached(state: State, leading: Leading) -> int:
        voters = state.configuration.voters
        matches = [
            state.log.durable_index if voter == state.replica else leading.progress[voter].match
            for voter in voters
        ]
        if state.replica not in voters:
            matches.append(state.log.durable_index)
        return sorted(matches, reverse=True)[len(voters) // 2]

    _replace_reached(patch, reached)


@mutant
def commit_past_the_matched_prefix(patch: Patch) -> None:
    """A follower commits as far as it is told, not as far as the message has shown it to match."""

    def on_append(state: State, request: AppendRequest) -> None:
        log = state.log
        follower._hear(state, request.sender)
        if request.prev_index < log.commit_index:
            follower._accept(state, request.sender, log.commit_index)
        elif log.has(request.prev_index, request.prev_term):
            log.merge(request.entries)
            log.commit(min(request.commit, log.last_index))
            follower._accept(state, request.sender, request.prev_index + len(request.entries))
        else:
            follower._reject(state, request)

    _replace_follower(patch, AppendRequest, on_append)


@mutant
def heartbeat_commits_too_much(patch: Patch) -> None:
    """Heartbeats tell the leader's commit index, whatever the receiver has."""

    def send_heartbeats(self: State, leading: Leading, quiesce: bool = False) -> None:
        leading.heartbeat_ticks = 0
        for replica in self.others:
            commit = self.log.commit_index
            beat = Heartbeat(self.replica, replica, self.term, commit, leading.round, quiesce)
            self.send(beat)

    patch.replace(State, "send_heartbeats", instead(send_heartbeats))


@mutant
def acknowledged_the_whole_log(patch: Patch) -> None:
    """A follower acknowledges its whole log, also what the message says nothing about."""

    def made(before: Any) -> Any:
        def _accept(state: State, leader: int, index: int) -> None:
            before(state, leader, state.log.last_index)

        return _accept

    patch.replace(follower, "_accept", made)


@mutant
def truncate_on_a_stale_append(patch: Patch) -> None:
    """A follower cuts off whatever follows a message's entries, conflict or not (R12)."""

    def merge(self: Log, entries: Any) -> None:
        if entries and entries[0].index <= self.last_index:
            self._truncate(entries[0].index)
        self.append(entries)

    patch.replace(Log, "merge", instead(merge))


@mutant
def append_without_the_entry_before(patch: Patch) -> None:
    """A follower looks whether there is an entry before the new ones, not of which term."""

    def made(taken: Any) -> Any:
        role, before = taken

        def on_append(state: State, request: AppendRequest) -> None:
            here = state.log.term_at(request.prev_index)
            if here is not None and not state.log.has(request.prev_index, request.prev_term):
                message = AppendRequest(
                    request.sender,
                    request.to,
                    request.term,
                    request.prev_index,
                    here,
                    request.entries,
                    request.commit,
                )
                before(state, message)
            else:
                before(state, request)

        return role, on_append

    patch.replace_item(raft._TAKEN, AppendRequest, made)


@mutant
def conflicts_are_kept(patch: Patch) -> None:
    """Entries that are there stay, though the leader has others in their place."""

    def merge(self: Log, entries: Any) -> None:
        for at, entry in enumerate(entries):
            if entry.index > self.last_index:
                self.append(entries[at:])
                return

    patch.replace(Log, "merge", instead(merge))


@mutant
def match_index_falls(patch: Patch) -> None:
    """An old acknowledgement puts matchIndex back (R12)."""

    def made(before: Any) -> Any:
        def accepted(self: Progress, index: int) -> bool:
            news = bool(before(self, index))
            self.match = index
            return news

        return accepted

    patch.replace(Progress, "accepted", made)


@mutant
def stale_rejection_believed(patch: Patch) -> None:
    """An old rejection puts nextIndex back behind what is known to match."""

    def rejected(self: Progress, index: int, hint_index: int) -> bool:
        self.probe()
        self.next = max(1, min(index, hint_index + 1))
        return True

    patch.replace(Progress, "rejected", instead(rejected))


@mutant
def rejection_ignored(patch: Patch) -> None:
    """A leader does not go back when a follower's log does not match."""
    patch.replace(Progress, "rejected", instead(lambda self, index, hint_index: False))


@mutant
def unbounded_inflight(patch: Patch) -> None:
    """Nothing bounds what is under way to a follower (R16)."""
    patch.replace(Progress, "is_full", instead(property(lambda self: False)))


@mutant
def unbounded_uncommitted(patch: Patch) -> None:
    """A leader without a majority takes proposals without end (R16)."""

    def made(before: Any) -> Any:
        def propose(state: State, leading: Leading, payloads: Any) -> Any:
            leading.uncommitted_bytes = -(1 << 40)
            return before(state, leading, payloads)

        return propose

    patch.replace(leader, "propose", made)


@mutant
def applied_before_durable(patch: Patch) -> None:
    """What is committed is handed out though the own disk does not have it."""
    patch.replace(Log, "appliable_index", instead(property(lambda self: self.commit_index)))


@mutant
def stale_snapshot_installed(patch: Patch) -> None:
    """A snapshot that is behind takes the place of a log that is ahead (R13)."""

    def on_snapshot(state: State, message: InstallSnapshot) -> None:
        follower._hear(state, message.sender)
        snapshot, log = message.snapshot, state.log
        log.commit_index = min(log.commit_index, snapshot.index - 1)
        log.replace(snapshot.index, snapshot.term, snapshot.configuration)
        state.snapshot = snapshot
        state.applied_index = snapshot.index
        follower._accept(state, message.sender, snapshot.index)

    _replace_follower(patch, InstallSnapshot, on_snapshot)


@mutant
def snapshot_without_configuration(patch: Patch) -> None:
    """A snapshot has the configuration that is in force now, not the one at its index (R13)."""
    patch.replace(Log, "configuration_at", instead(lambda self, index: self.configuration))


@mutant
def snapshot_keeps_the_old_configuration(patch: Patch) -> None:
    """Who installs a snapshot goes on with the configuration that it had."""

    def made(before: Any) -> Any:
        def install(self: Log, index: int, term: int, configuration: Configuration) -> None:
            before(self, index, term, self.configuration)

        return install

    patch.replace(Log, "replace", made)


@mutant
def snapshot_never_given_up(patch: Patch) -> None:
    """A leader waits for ever for a snapshot that was lost on its way (R14)."""
    patch.replace(leader, "snapshot_sent", instead(lambda state, leading, to, delivered: None))


def _reached(state: State, leading: Leading) -> int:
    return reached_by_majority(
        state.log.durable_index if voter == state.replica else leading.progress[voter].match
        for voter in state.configuration.voters
    )


def _replace_reached(patch: Patch, reached_in: Any) -> None:
    """Commit up to what *reached_in* says, by entries of the own term."""

    def maybe_commit(state: State, leading: Leading) -> bool:
        reached = reached_in(state, leading)
        if reached <= state.log.commit_index or not state.log.has(reached, state.term):
            return False
        newly = state.log.entries(state.log.commit_index + 1, reached)
        leading.uncommitted_bytes -= sum(entry.size_bytes for entry in newly)
        return state.log.commit(reached)

    patch.replace(replication, "maybe_commit", instead(maybe_commit))


def _replace_follower(patch: Patch, kind: type, act: Any) -> None:
    patch.replace_item(raft._TAKEN, kind, instead((Role.FOLLOWER, act)))
