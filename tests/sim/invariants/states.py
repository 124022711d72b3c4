"""What a member must keep to when it has done all that there was to do.

Most of it is asked only when something has changed: see `tests.sim.invariants.inspector`.
"""

from __future__ import annotations

from kvtwist.core.raft import EntryKind, Raft, Role
from kvtwist.core.raft.log import ENTRY_OVERHEAD_BYTES
from tests.sim.invariants.registry import holds
from tests.sim.ledger import Ledger, View, holders


@holds("Leader")
def election_safety(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """At most one leader in a term (figure 3: Election Safety)."""
    leader = ledger.leaders.setdefault(raft.term, raft.replica)
    if leader == raft.replica:
        return None
    return f"{leader} and {raft.replica} lead in term {raft.term}"


@holds("Leader")
def leader_completeness(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A leader has all that was committed in earlier terms (figure 3: Leader Completeness)."""
    if view.leading_term == raft.term:
        return None
    log, index = raft.log, ledger.commit_index
    while index > log.compacted_index and ledger.commit_terms[index] >= raft.term:
        index -= 1
    # By log matching, whoever has the last one has them all.
    if index > log.compacted_index and log.term_at(index) != ledger.committed[index].term:
        return f"the leader of term {raft.term} lacks {ledger.committed[index]}"
    return None


@holds("Leader")
def leader_is_a_voter(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """Who comes to lead votes, or did until a change that is not committed (dissertation, 4.2)."""
    if view.leading_term == raft.term:
        return None
    log, replica = raft.log, raft.replica
    before = log.configuration_at(log.commit_index)
    if replica in log.configuration.voters or replica in before.voters:
        return None
    return f"{replica} leads {log.configuration}"


@holds("Leader")
def removed_leader_leaves(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A leader steps down once its removal is committed (dissertation, 4.2.2)."""
    log = raft.log
    if raft.replica in log.configuration.voters or log.configuration_index > log.commit_index:
        return None
    return f"{raft.replica} still leads, but the voters are {log.configuration.voters}"


@holds("Leader")
def stalled_leader_leaves(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A leader whose own disk stalls makes room for others, if there are any (R8)."""
    log = raft.log
    if 1 in (len(log.configuration.voters), len(log.configuration_at(log.commit_index).voters)):
        return None
    waited, limit = view.member.sync_ticks, view.member.settings.election_timeout_ticks
    return f"{waited} ticks without its disk" if waited > limit else None


@holds("Leader")
def leadership_is_durable(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A leader's own vote is one that it cannot take back (paper, 5.2; R1)."""
    hard = view.member.disk.durable.hard_state
    if view.leading_term == raft.term or (hard.term, hard.vote) == (raft.term, raft.replica):
        return None
    return f"the leader of term {raft.term} has {hard} on its disk"


@holds("Candidate")
def candidate_is_a_voter(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """Learners never stand for election (dissertation, 4.2.1)."""
    log, replica = raft.log, raft.replica
    before = log.configuration_at(log.commit_index)
    if replica in log.configuration.voters or replica in before.voters:
        return None
    return f"{replica} is a {raft.role.value} for {log.configuration}"


@holds("Change")
def indexes_never_fall(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """Term, commit index and applied index only grow (figure 2; R12)."""
    if raft.term < view.term:
        return f"term {raft.term} after {view.term}"
    if raft.term == view.term and view.vote not in (0, raft.vote):
        return f"vote {raft.vote} after {view.vote} in term {raft.term}"
    if raft.commit_index < view.commit:
        return f"commit index {raft.commit_index} after {view.commit}"
    applied = view.member.machine.applied
    if applied < view.applied:
        return f"applied index {applied} after {view.applied}"
    return None


@holds("Change")
def indexes_are_in_order(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """compacted <= applied <= commit <= last (figure 2)."""
    compacted, applied = raft.log.compacted_index, view.member.machine.applied
    commit, last = raft.commit_index, raft.last_index
    if raft.applied_index <= commit <= last and applied <= commit and compacted <= commit:
        return None
    return f"compacted {compacted}, applied {applied}, commit {commit}, last {last}"


@holds("Change")
def disk_follows_the_log(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """Whatever the replica has in its log was given to be written, and nothing else."""
    image, log = view.member.disk.written, raft.log
    if (image.last_index, image.compacted_index) != (log.last_index, log.compacted_index):
        there, here = image.compacted_index, log.compacted_index
        return f"{here} to {log.last_index}; on the disk {there} to {image.last_index}"
    if image.term_at(image.last_index) != log.last_term:
        return f"the last term is {log.last_term}; on the disk {image.term_at(image.last_index)}"
    hard = image.hard_state
    if (hard.term, hard.vote) != (raft.term, raft.vote):
        return f"term {raft.term}, vote {raft.vote}; on the disk {hard}"
    return None


@holds("Change")
def configuration_follows_the_log(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """The latest configuration in the log is in force, also after a truncation (4.1)."""
    index, configuration = view.configurations[-1]
    if raft.configuration == configuration:
        return None
    return f"{raft.configuration}, but the log has {configuration} at {index}"


@holds("Change")
def voters_are_never_empty(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A group without voters can never change again."""
    if raft.configuration.voters:
        return None
    return f"{raft.configuration} at {raft.log.configuration_index}"


@holds("Commit")
def only_leaders_commit(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """What nobody knew to be committed becomes so at a leader, by an entry of its term (R3)."""
    commit = raft.commit_index
    # It may have committed that, and left for a later term, in one turn.
    term = raft.term if raft.role is Role.LEADER else view.leading_term
    if ledger.leaders.get(term) != raft.replica:
        return f"{raft.replica}, a {raft.role.value}, commits {commit}"
    if raft.log.term_at(commit) != term:
        return f"{commit} of term {raft.log.term_at(commit)} is committed in term {term}"
    return None


@holds("Commit")
def committed_is_on_a_majority_of_disks(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """An entry is committed when a majority has it durably (figure 2, "Leaders"; R1)."""
    (entry,) = raft.log.entries(raft.commit_index, raft.commit_index)
    possible = [raft.configuration.voters]
    if raft.role is not Role.LEADER or view.member.gathers:
        # In the same turn it may have begun a change since, or left, and cut one off.
        possible.append(view.configurations[-1][1].voters)
    for voters in possible:
        held = holders(ledger, voters, entry)
        if held > len(voters) // 2:
            return None
    return f"{entry} is on {held} disks of {voters}"


@holds("Leader")
def match_is_durable(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """matchIndex never falls, and is on the follower's disk (figure 2; R2, R12)."""
    for replica, progress in raft.progress().items():
        match, before = progress.match, view.match.get(replica, 0)
        if match == before:
            continue
        if match < before and view.leading_term == raft.term:
            return f"of {replica}: {match} after {before}"
        view.match[replica] = match
        disk = ledger.disk(replica)
        if disk is not None and disk.written.hard_state.term > raft.term:
            continue  # it follows another leader by now
        if disk is None or not ledger.agrees(disk.durable, match, raft.term):
            return f"of {replica}: {match}, which it does not have"
    return None


@holds("Leader")
def next_is_after_match(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """matchIndex < nextIndex <= last + 1 (figure 2)."""
    for replica, progress in raft.progress().items():
        if not progress.match < progress.next <= raft.last_index + 1:
            return f"of {replica}: match {progress.match}, next {progress.next}"
    return None


@holds("Leader")
def inflight_is_bounded(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """Only so much is under way to a follower; the last message may pass the bytes (R16)."""
    settings = view.member.settings
    messages_max = settings.inflight_messages_max
    for replica, progress in raft.progress().items():
        messages, size = progress.inflight
        entry_max = settings.append_bytes_max + 500
        if messages > messages_max or size >= settings.inflight_bytes_max + entry_max:
            return f"to {replica}: {messages} messages, {size} bytes"
    return None


@holds("Leader")
def uncommitted_is_bounded(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A leader takes only so much that is not committed; one proposal always (R16)."""
    limit = view.member.settings.uncommitted_bytes_max
    entries = raft.log.entries(raft.commit_index + 1, raft.last_index)
    own = [entry for entry in entries if entry.term == raft.term and entry.kind is EntryKind.DATA]
    size = sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in own)
    if len(own) <= 1 or size <= limit:
        return None
    return f"{size} bytes in {len(own)} entries; {limit} are allowed"


@holds("Quiescent")
def silence_hides_nothing(ledger: Ledger, view: View, raft: Raft) -> str | None:
    """A leader falls silent only when everybody has everything, and it is committed."""
    if raft.commit_index != raft.last_index:
        return f"{raft.commit_index} of {raft.last_index} are committed"
    for replica, progress in raft.progress().items():
        if progress.match != raft.last_index:
            return f"{replica} has {progress.match} of {raft.last_index}"
    return None
