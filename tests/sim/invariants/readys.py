"""What a Ready must keep to; asked before anything of it is done.

What is about a part of it only is asked when there is that part: see `parts`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvtwist.core.raft import Configuration, EntryKind, Ready, Role
from tests.sim.invariants.registry import holds
from tests.sim.ledger import Ledger, View


def parts(ready: Ready) -> Iterator[str]:
    """Where the invariants for what *ready* has are found."""
    yield "Ready"
    if ready.hard_state is not None:
        yield "HardState"
    if ready.entries:
        yield "Entries"
    if ready.committed:
        yield "Committed"
    if ready.reads or ready.reads_lost:
        yield "Reads"


@holds("Ready")
def numbers_go_up_by_one(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Who persists by numbers must not meet one twice, or miss one."""
    if ready.number != view.number + 1:
        return f"number {ready.number} follows {view.number}"
    return None


@holds("HardState")
def term_never_falls(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Terms grow, and a vote is not taken back (paper, 5.1 and 5.2)."""
    new, old = ready.hard_state, view.member.disk.written.hard_state
    if new is None or new.term > old.term:
        return None
    if new.term < old.term:
        return f"term {new.term} follows {old.term}"
    if old.vote and new.vote != old.vote:
        return f"vote {new.vote} follows {old.vote} in term {new.term}"
    return None


@holds("HardState")
def vote_is_for_a_complete_log(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """A vote is for a log that is at least as up-to-date as the voter's own (paper, 5.4.1)."""
    raft, hard = view.member.raft, ready.hard_state
    assert raft is not None
    if hard is None or not hard.vote or hard.vote == raft.replica or hard.term != raft.term:
        return None
    old, candidate = view.member.disk.written.hard_state, ledger.views.get(hard.vote)
    if (old.term, old.vote) == (hard.term, hard.vote) or candidate is None or raft.leader:
        return None
    other = candidate.member.raft
    if other is None or other.term != hard.term or other.role is not Role.CANDIDATE:
        return None  # its log may be another one by now
    own, theirs = raft.log, other.log
    mine, its = (own.last_term, own.last_index), (theirs.last_term, theirs.last_index)
    return f"{hard}: {mine} is ahead of {its}" if mine > its else None


@holds("Ready")
def what_must_last_is_synced(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Term, vote, entries and snapshots need a sync (figure 2, "persistent state"; R1)."""
    if ready.must_sync:
        return None
    if ready.entries or ready.snapshot:
        return "entries without a sync"
    new, old = ready.hard_state, view.member.disk.written.hard_state
    if new is not None and (new.term, new.vote) != (old.term, old.vote):
        return f"{new} without a sync"
    return None


@holds("Entries")
def log_has_no_gaps(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Entries follow one another, and terms do not fall along a log (paper, 5.3)."""
    image = view.member.disk.written
    snapshot = ready.snapshot
    first = ready.entries[0].index
    if snapshot is not None:
        low = high = snapshot.index
        term: int | None = snapshot.term
    else:
        low, high = image.compacted_index, image.last_index
        term = image.term_at(first - 1)
    if not low < first <= high + 1 or term is None:
        return f"entries from {first} on, in a log from {low + 1} to {high}"
    for index, entry in enumerate(ready.entries, start=first):
        if entry.index != index or entry.term < term:
            return f"{entry} at {index}, after one of term {term}"
        term = entry.term
    raft = view.member.raft
    assert raft is not None
    return None if term <= raft.term else f"an entry of term {term} in term {raft.term}"


@holds("Entries")
def log_matching(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Two logs that have the same entry are the same up to there (figure 3: Log Matching)."""
    snapshot, image = ready.snapshot, view.member.disk.written
    for entry in ready.entries:
        if entry.index == ready.entries[0].index:
            at_snapshot = snapshot is not None and snapshot.index == entry.index - 1
            before = snapshot.term if at_snapshot and snapshot else image.term_at(entry.index - 1)
        entry_is = (before or 0, entry.kind, entry.data)
        known = ledger.entries.setdefault((entry.index, entry.term), entry_is)
        if known != entry_is:
            return f"{entry} after one of term {before}; known: {known}"
        before = entry.term
    return None


@holds("Ready")
def leader_append_only(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """A leader never overwrites or deletes entries of its log (figure 3: Leader Append-Only)."""
    raft = view.member.raft
    assert raft is not None
    if raft.role is not Role.LEADER or view.emitted_leading != raft.term:
        return None
    if ready.snapshot is not None:
        return f"a leader takes a snapshot at {ready.snapshot.index}"
    if ready.entries and ready.entries[0].index <= view.emitted_index:
        return f"{ready.entries[0]} replaces one of {view.emitted_index}"
    return None


@holds("Entries")
def committed_stays(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """What was known to be committed is not cut off (paper, 5.3, 5.4; R12)."""
    if ready.entries and ready.snapshot is None and ready.entries[0].index <= view.commit:
        return f"{ready.entries[0]} replaces a committed one: {view.commit} were"
    return None


@holds("Ready")
def snapshot_is_ahead(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """A snapshot that is behind is ignored; one that comes is committed (section 7; R13)."""
    snapshot = ready.snapshot
    if snapshot is None:
        return None
    if snapshot.index <= max(view.commit, view.applied):
        return f"at {snapshot.index}, though {view.commit} is committed here"
    if snapshot.index > ledger.commit_index:
        return f"at {snapshot.index}, though only {ledger.commit_index} are committed"
    if ledger.committed[snapshot.index].term != snapshot.term:
        return f"{snapshot} is of another log"
    if ledger.configuration_at(snapshot.index) != snapshot.configuration:
        return f"{snapshot} has another configuration"
    return None


@holds("Committed")
def applied_in_order(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Entries are handed out once, in order, none left out (figure 2, "lastApplied")."""
    handed = view.handed_index if ready.snapshot is None else ready.snapshot.index
    for entry in ready.committed:
        handed += 1
        if entry.index != handed:
            return f"{entry} is handed out after {handed - 1}"
    return None


@holds("Committed")
def applied_is_committed(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """What is applied is committed, and the same everywhere (figure 3: State Machine Safety)."""
    raft = view.member.raft
    assert raft is not None
    for entry in ready.committed:
        if entry.index > raft.commit_index:
            return f"{entry} is handed out, but {raft.commit_index} are committed"
        if entry.index <= ledger.commit_index and ledger.committed[entry.index] != entry:
            return f"{entry} instead of {ledger.committed[entry.index]}"
    return None


@holds("Committed")
def applied_is_durable(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """Nothing is applied that the own disk might lose: it would be applied twice, or not there
    after a restart (a node never acts on state that is not on its disk)."""
    image = view.member.disk.durable
    for entry in ready.committed:
        if image.term_at(entry.index) != entry.term and entry.index > image.compacted_index:
            return f"{entry} is not on the disk yet"
    return None


@holds("Reads")
def read_is_fresh(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """A read shows all that was committed before it was asked (dissertation, 6.4; R5)."""
    for read in ready.reads:
        committed = ledger.asked.pop(read.context, None)
        if committed is None:
            return f"{read} was not asked for, or is answered already"
        if read.index < committed:
            return f"{read}, but {committed} were committed when it was asked"
    for context in ready.reads_lost:
        if ledger.asked.pop(context, None) is None:
            return f"{context!r} is lost, but was not asked for, or is answered already"
    return None


@holds("Entries")
def one_change_at_a_time(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """No change before the last one, and an entry of the own term, are committed (R10)."""
    raft = view.member.raft
    assert raft is not None
    if raft.role is not Role.LEADER:
        return None
    pending = view.configurations[-1][0]
    for entry in ready.entries:
        if entry.term != raft.term or entry.kind is not EntryKind.CONFIGURATION:
            continue
        if pending > raft.commit_index and pending < entry.index:
            return f"{entry.index} while {pending} is not committed"
        if raft.log.term_at(raft.commit_index) != raft.term:
            return f"{entry.index} before an entry of term {raft.term} is committed"
        pending = entry.index
    return None


@holds("Entries")
def promoted_have_caught_up(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """A learner votes only once its log is close to the leader's (dissertation, 4.2.1; R10)."""
    raft = view.member.raft
    assert raft is not None
    before = set(view.configurations[-1][1].voters)
    for entry in ready.entries:
        if raft.role is not Role.LEADER or entry.kind is not EntryKind.CONFIGURATION:
            continue
        for replica in Configuration.decode(entry.data).voters:
            disk = ledger.disk(replica)
            if replica in before or entry.term != raft.term or disk is None:
                continue
            lag = entry.index - 1 - disk.durable.last_index
            if lag > view.member.settings.promotion_lag_entries_max:
                return f"{replica} is {lag} entries behind and votes from {entry.index} on"
    return None


@holds("Ready")
def term_begins_with_a_noop(ledger: Ledger, view: View, ready: Ready) -> str | None:
    """A new leader's first entry is an empty one (paper, section 8; R4)."""
    raft = view.member.raft
    assert raft is not None
    if raft.role is not Role.LEADER or view.emitted_leading == raft.term:
        return None
    own = [entry for entry in ready.entries if entry.term == raft.term]
    if not own or own[0].kind is not EntryKind.NOOP:
        return f"term {raft.term} of {raft.replica} begins with {own[:1]}"
    return None
