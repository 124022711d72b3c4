"""What a message that leaves must keep to; asked before it does."""

from __future__ import annotations

from kvtwist.core.raft import Role
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.sim.invariants.registry import holds
from tests.sim.ledger import Ledger, View


@holds("Message")
def nobody_is_impersonated(ledger: Ledger, view: View, message: Message) -> str | None:
    """A replica speaks for itself, to others, about no term that it has not reached (R11)."""
    raft = view.member.raft
    assert raft is not None
    if message.sender != view.member.replica or message.to == message.sender:
        return f"{message} was sent by {view.member.replica}"
    # A pre-vote is about a term that nobody is in yet, and its answer repeats it.
    ahead = isinstance(message, PreVoteRequest | PreVoteResponse)
    if message.term > raft.term and not ahead:
        return f"{message} is of a later term than its sender's, {raft.term}"
    return None


@holds("VoteResponse")
def vote_is_durable(ledger: Ledger, view: View, message: VoteResponse) -> str | None:
    """A vote leaves when the disk has it (paper, 5.1, "persistent state"; R1)."""
    if not message.granted:
        return None
    hard = view.member.disk.durable.hard_state
    if hard.term > message.term or (hard.term == message.term and hard.vote == message.to):
        return None
    return f"{message}, but the disk has {hard}"


@holds("VoteResponse")
def one_vote_in_a_term(ledger: Ledger, view: View, message: VoteResponse) -> str | None:
    """Nobody votes for two in a term, however often it crashes (paper, 5.2)."""
    if not message.granted:
        return None
    voted = ledger.votes.setdefault((message.sender, message.term), message.to)
    return None if voted == message.to else f"{message}, after one for {voted}"


@holds("VoteRequest")
def candidacy_is_durable(ledger: Ledger, view: View, message: VoteRequest) -> str | None:
    """A candidate asks when its term and its own vote are on its disk (R1, R2)."""
    hard = view.member.disk.durable.hard_state
    ledger_vote = ledger.votes.setdefault((message.sender, message.term), message.sender)
    if ledger_vote != message.sender:
        return f"{message}, after a vote for {ledger_vote}"
    if hard.term > message.term or (hard.term == message.term and hard.vote == message.sender):
        return None
    return f"{message}, but the disk has {hard}"


@holds("VoteRequest")
def candidacy_claims_what_is_durable(
    ledger: Ledger, view: View, message: VoteRequest
) -> str | None:
    """The log that a candidate claims to have is one that it cannot lose (R2)."""
    image, raft = view.member.disk.durable, view.member.raft
    assert raft is not None
    if raft.role is not Role.CANDIDATE:
        return None  # nobody counts votes any more, and its log may be another one by now
    if message.last_index <= image.compacted_index:
        return None
    if image.term_at(message.last_index) == message.last_term:
        return None
    return f"{message}, but the disk ends at {image.last_index}"


@holds("AppendResponse")
def acknowledged_is_durable(ledger: Ledger, view: View, message: AppendResponse) -> str | None:
    """What a follower acknowledges is on its disk, and is the leader's (figure 2; R1, R2)."""
    if message.rejected or ledger.agrees(view.member.disk.durable, message.index, message.term):
        return None
    return f"{message}, but the disk has {_log(view)}"


def _log(view: View) -> str:
    image = view.member.disk.durable
    terms = [entry.term for entry in image.entries]
    return f"{terms} after {image.compacted_index}"


@holds("AppendRequest")
def leader_sends_its_own_log(ledger: Ledger, view: View, message: AppendRequest) -> str | None:
    """Entries come from the leader of the term, and are those of its log (figure 2)."""
    raft, log = view.member.raft, ledger.leader_logs.get(message.term)
    assert raft is not None
    if log is None:
        return None  # it was elected, and left for a later term, in one turn
    index, term = message.prev_index, message.prev_term
    if index >= len(log) or log[index] != term:
        return f"{message}: the entry before is another one"
    for entry in message.entries:
        index += 1
        if index == len(log) and raft.term > message.term:
            log.append(entry.term)  # likewise: it has left before its own disk was to have it
        if entry.index != index or index >= len(log) or log[index] != entry.term:
            return f"{message}: {entry} is not in the leader's log"
    return None


@holds("AppendRequest")
@holds("Heartbeat")
@holds("InstallSnapshot")
@holds("TimeoutNow")
def one_leader_in_a_term(
    ledger: Ledger,
    view: View,
    message: AppendRequest | Heartbeat | InstallSnapshot | TimeoutNow,
) -> str | None:
    """Whoever speaks as the leader of a term is the only one (figure 3: Election Safety)."""
    leader = ledger.leaders.setdefault(message.term, message.sender)
    return None if leader == message.sender else f"{message}: the leader is {leader}"


@holds("AppendRequest")
def commit_told_is_committed(ledger: Ledger, view: View, message: AppendRequest) -> str | None:
    """No follower is told to commit what is not committed (figure 2)."""
    if message.commit > ledger.commit_index:
        return f"{message}, but only {ledger.commit_index} entries are committed"
    return None


@holds("Heartbeat")
def heartbeat_commits_what_matches(ledger: Ledger, view: View, message: Heartbeat) -> str | None:
    """A heartbeat commits nothing past what its receiver is known to have (figure 2, 5.3)."""
    disk = ledger.disk(message.to)
    if message.commit == 0 or disk is None:
        return None
    if message.commit > ledger.commit_index:
        return f"{message}, but only {ledger.commit_index} entries are committed"
    if ledger.agrees(disk.durable, message.commit, message.term):
        return None
    return f"{message}, but the receiver has another log"


@holds("InstallSnapshot")
def snapshot_is_of_the_log(ledger: Ledger, view: View, message: InstallSnapshot) -> str | None:
    """A snapshot has the term and the configuration of its last entry (paper, section 7)."""
    snapshot = message.snapshot
    if snapshot.index > ledger.commit_index:
        return f"a snapshot at {snapshot.index}, which is not committed"
    term = ledger.committed[snapshot.index].term
    configuration = ledger.configuration_at(snapshot.index)
    if (snapshot.term, snapshot.configuration) == (term, configuration):
        return None
    return f"{snapshot.term}, {snapshot.configuration} instead of {term}, {configuration}"


@holds("TimeoutNow")
def heir_has_the_log(ledger: Ledger, view: View, message: TimeoutNow) -> str | None:
    """Leadership is handed to a voter that has the whole log (dissertation, 3.10; R15)."""
    raft, disk = view.member.raft, ledger.disk(message.to)
    assert raft is not None
    if message.term != raft.term or disk is None:
        return None
    if message.to not in raft.configuration.voters:
        return f"{message}, who is no voter"
    # What was proposed after it, in the same turn, the heir need not have.
    last_index = view.emitted_index if view.member.gathers else raft.last_index
    if disk.written.hard_state.term > message.term:
        return None  # it stands for election already
    if not ledger.agrees(disk.durable, last_index, message.term):
        return f"{message}, who lacks {last_index}"
    return None
