"""Replicas to be tested: one with its disk, and a group of them with a network in between.

`Member` does what the core's contract asks of its caller, one step at a time, so that a test
decides what is on the disk when. Whatever a test is about, each message that leaves is held against
the disk: had the replica to start again from there now, would it stand by what it has said?
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar
from zlib import crc32

from kvtwist.core.raft import (
    Configuration,
    Entry,
    HardState,
    Message,
    Proposed,
    Raft,
    ReadState,
    Ready,
    Restored,
    Role,
    Settings,
    Snapshot,
)
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    PreVoteRequest,
    PreVoteResponse,
    VoteRequest,
    VoteResponse,
)

PLAIN = Settings(pre_vote=False, check_quorum=False)
"""The paper's Raft, without what the dissertation adds to elections."""

BASE = PLAIN.election_timeout_ticks

_Kind = TypeVar("_Kind", bound=Message)


def log_of(*terms: int, first: int = 1) -> tuple[Entry, ...]:
    """Entries of these terms; what has the same index and term is the same."""
    return tuple(
        Entry(index, term, data=b"%d of term %d" % (index, term))
        for index, term in enumerate(terms, start=first)
    )


def only(kind: type[_Kind], messages: Iterable[Message]) -> list[_Kind]:
    """The messages of one kind."""
    return [message for message in messages if isinstance(message, kind)]


class Disk:
    """What a replica has written: one write after the other, each whole or not at all."""

    def __init__(self, restored: Restored) -> None:
        self.hard_state = restored.hard_state
        self.compacted = Snapshot(
            restored.compacted_index, restored.compacted_term, restored.configuration
        )
        self.entries = list(restored.entries)
        self.applied = restored.applied

    @property
    def last_index(self) -> int:
        """Of the last entry."""
        return self.compacted.index + len(self.entries)

    def copy(self) -> Disk:
        """Another one with the same on it."""
        return Disk(self.restored())

    def write(self, ready: Ready) -> None:
        """Write what *ready* asks for."""
        if ready.snapshot is not None:
            self.compacted = ready.snapshot
            self.applied = ready.snapshot.index
            self.entries.clear()
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            at = ready.entries[0].index - self.compacted.index - 1
            assert 0 <= at <= len(self.entries), "there would be a gap"
            self.entries[at:] = ready.entries

    def compact(self, snapshot: Snapshot) -> None:
        """Drop the entries that *snapshot* covers."""
        del self.entries[: snapshot.index - self.compacted.index]
        self.compacted = snapshot

    def has(self, index: int, log: Raft) -> bool:
        """Whether all up to *index* is here as in *log*."""
        if index > self.last_index:
            return False
        return all(
            log.log.term_at(entry.index) in (entry.term, None)
            for entry in self.entries
            if entry.index <= index
        )

    def restored(self) -> Restored:
        """What a replica starts from."""
        return Restored(
            configuration=self.compacted.configuration,
            hard_state=self.hard_state,
            compacted_index=self.compacted.index,
            compacted_term=self.compacted.term,
            entries=tuple(self.entries),
            applied=self.applied,
        )


class Member:
    """A replica, its disk, and a state machine: a checksum over all that was applied.

    :ivar writes: taken, and not written yet.
    :ivar applied: what was applied, in order, by this replica itself.
    :ivar states: of the state machine, by index.
    :ivar wanted: who needs a snapshot.
    """

    def __init__(
        self,
        replica: int,
        restored: Restored,
        settings: Settings,
        chance: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.replica = replica
        self.settings = settings
        self.chance = chance
        self.disk = Disk(restored)
        self.states = {restored.applied: 0}
        self.applied: list[Entry] = []
        self.reads: list[ReadState] = []
        self.reads_lost: list[bytes] = []
        self.wanted: list[int] = []
        self.writes: deque[Ready] = deque()
        self.life = -1
        self.start()

    def start(self) -> None:
        """Start, or start again after a crash: writes that are under way are lost."""
        self.life += 1
        self.writes.clear()
        self.wanted.clear()
        self.reads.clear()
        self.reads_lost.clear()
        self.raft = Raft(self.replica, self.settings, self.disk.restored(), self.chance, self.life)

    def take(self) -> list[Message]:
        """Take a Ready, apply what it has for that, and put its write in the queue."""
        ready = self.raft.ready()
        for message in ready.messages:
            self._check(message)
        self.writes.append(ready)
        for entry in ready.committed:
            assert entry.index == self.disk.applied + 1, "applied in order, each once"
            assert self.disk.has(entry.index, self.raft), "applied before it is durable"
            before = self.states[entry.index - 1]
            self.states[entry.index] = crc32(b"%d " % entry.term + entry.data, before)
            self.applied.append(entry)
            self.disk.applied = entry.index
        if ready.committed:
            self.raft.applied(self.disk.applied)
        self.reads.extend(ready.reads)
        self.reads_lost.extend(ready.reads_lost)
        self.wanted.extend(ready.snapshots_wanted)
        return list(ready.messages)

    def write(self, count: int | None = None) -> None:
        """Do the oldest writes, all unless *count* says otherwise, and tell the replica."""
        for _ in range(len(self.writes) if count is None else count):
            ready = self.writes.popleft()
            self.disk.write(ready)
            if ready.snapshot is not None:
                self.states[ready.snapshot.index] = int(ready.snapshot.data or b"0")
            self.raft.persisted(ready.number)

    def settle(self) -> list[Message]:
        """Do all that there is to do. What was sent."""
        sent: list[Message] = []
        while self.raft.has_ready() or self.writes:
            sent.extend(self.take())
            self.write()
        return sent

    def step(self, *messages: Message) -> list[Message]:
        """Take in *messages*, and do all that there is to do then. What was sent."""
        for message in messages:
            self.raft.step(message)
        return self.settle()

    def tick(self, count: int = 1) -> list[Message]:
        """Let time pass, and do all that there is to do in each tick. What was sent."""
        sent: list[Message] = []
        for _ in range(count):
            self.raft.tick()
            sent.extend(self.settle())
        return sent

    def compact(self, index: int) -> None:
        """Make a snapshot of all up to *index*, and drop what it covers."""
        snapshot = self.raft.describe(index)
        self.raft.compact(index)
        self.disk.compact(snapshot)

    def send_snapshots(self) -> None:
        """Send everybody who needs one a snapshot of what is applied."""
        while self.wanted:
            to, index = self.wanted.pop(), self.disk.applied
            snapshot = self.raft.describe(index, b"%d" % self.states[index])
            self.raft.send_snapshot(to, snapshot)
            self.raft.snapshot_sent(to, delivered=True)

    # -- what a message says, against the disk ------------------------------------------------

    def _disks(self) -> Iterator[Disk]:
        """All that the disk may still be found with, if the replica stopped now."""
        disk = self.disk.copy()
        yield disk
        for ready in self.writes:
            disk = disk.copy()
            disk.write(ready)
            yield disk

    def _check(self, message: Message) -> None:
        for disk in self._disks():
            term, vote = disk.hard_state.term, disk.hard_state.vote
            match message:
                case PreVoteRequest():
                    assert term >= message.term - 1, f"a term left before it was durable: {message}"
                case PreVoteResponse(granted=True):
                    pass  # the term is the other one's
                case VoteRequest():
                    assert (term, vote) >= (message.term, self.replica), f"R1: {message}"
                case VoteResponse(granted=True):
                    assert term > message.term or (term, vote) == (message.term, message.to), (
                        f"R1: a vote left before it was durable: {message}"
                    )
                case AppendResponse(rejected=False) if message.term == self.raft.term:
                    assert term >= message.term and disk.has(message.index, self.raft), (
                        f"R2: an acknowledgement left before its entries were durable: {message}"
                    )
                case _:
                    assert term >= message.term, f"a term left before it was durable: {message}"


def member(
    *terms: int,
    replica: int = 1,
    voters: Sequence[int] = (1, 2, 3),
    learners: Sequence[int] = (),
    term: int | None = None,
    vote: int = 0,
    commit: int = 0,
    applied: int = 0,
    settings: Settings = PLAIN,
    chance: float = 0.0,
) -> Member:
    """A replica whose log has entries of *terms*, all of them durable."""
    restored = Restored(
        configuration=Configuration(tuple(voters), tuple(learners)),
        hard_state=HardState(max((0, *terms)) if term is None else term, vote, commit),
        entries=log_of(*terms),
        applied=applied,
    )
    return Member(replica, restored, settings, lambda: chance)


def campaign(candidate: Member) -> list[Message]:
    """Let *candidate* wait until it stands for election. What it sent then."""
    for _ in range(2 * candidate.settings.election_timeout_ticks):
        if candidate.raft.role is Role.FOLLOWER:
            candidate.raft.tick()
    assert candidate.raft.role is not Role.FOLLOWER
    return candidate.settle()


def lead(candidate: Member) -> list[Message]:
    """Have *candidate* elected by all the others. What it sent as soon as it was."""
    raft = candidate.raft
    campaign(candidate)
    others = [voter for voter in raft.configuration.voters if voter != raft.replica]
    if raft.role is Role.PRE_CANDIDATE:
        term = raft.term + 1
        for voter in others:
            raft.step(PreVoteResponse(voter, raft.replica, term, granted=True))
        candidate.settle()
    for voter in others:
        raft.step(VoteResponse(voter, raft.replica, raft.term, granted=True))
    sent = candidate.settle()
    assert raft.role is Role.LEADER
    return sent


def acknowledge(leader: Member, *senders: int, index: int | None = None) -> list[Message]:
    """Have *senders* acknowledge all of the leader's log, or all up to *index*. What it sent."""
    raft = leader.raft
    last = raft.last_index if index is None else index
    return leader.step(
        *(AppendResponse(sender, raft.replica, raft.term, last) for sender in senders)
    )


def leading(
    *terms: int,
    voters: Sequence[int] = (1, 2, 3),
    learners: Sequence[int] = (),
    settings: Settings = PLAIN,
) -> Member:
    """A leader, whose first entry is committed and known to everybody."""
    leader = member(*terms, voters=voters, learners=learners, settings=settings)
    lead(leader)
    acknowledge(leader, *leader.raft.progress())
    assert leader.raft.commit_index == leader.raft.last_index == len(terms) + 1
    return leader


def appended(
    *terms: int,
    term: int,
    sender: int = 2,
    to: int = 1,
    prev_index: int = 0,
    prev_term: int = 0,
    commit: int = 0,
) -> AppendRequest:
    """A leader's `AppendRequest` with entries of *terms*."""
    entries = log_of(*terms, first=prev_index + 1)
    return AppendRequest(sender, to, term, prev_index, prev_term, entries, commit)


class Group:
    """Members that send each other messages, all of which arrive unless the way is cut.

    A member's election timeout is the longer the higher its id: with equal chances, the first one
    is elected.

    :ivar cut: ways (from, to) on which messages are lost.
    :ivar sent: all messages, those that were lost too.
    """

    def __init__(
        self,
        voters: int = 3,
        learners: int = 0,
        settings: Settings | None = None,
    ) -> None:
        everybody = tuple(range(1, voters + learners + 1))
        self.configuration = Configuration(everybody[:voters], everybody[voters:])
        self.settings = settings or Settings()
        self.cut: set[tuple[int, int]] = set()
        self.sent: list[Message] = []
        self.members: dict[int, Member] = {}
        for replica in everybody:
            self.add(replica, self.configuration)

    def add(self, replica: int, configuration: Configuration | None = None) -> Member:
        """A new member; one that joins later knows no configuration yet."""
        chance = (replica - 1) / 8
        restored = Restored(configuration or Configuration())
        new = self.members[replica] = Member(replica, restored, self.settings, lambda: chance)
        return new

    def __getitem__(self, replica: int) -> Raft:
        return self.members[replica].raft

    @property
    def leader(self) -> Member:
        """The leader of the latest term that has one."""
        leaders = [each for each in self.members.values() if each.raft.role is Role.LEADER]
        return max(leaders, key=lambda each: each.raft.term)

    def isolate(self, *replicas: int) -> None:
        """Cut *replicas* off from all others."""
        for one in replicas:
            for other in self.members.keys() - set(replicas):
                self.cut |= {(one, other), (other, one)}

    def heal(self) -> None:
        """Nothing is cut any more."""
        self.cut.clear()

    def deliver(self) -> None:
        """Until everything is done that is to be done now."""
        while messages := [each for one in self.members.values() for each in one.settle()]:
            self.sent.extend(messages)
            for message in messages:
                if (message.sender, message.to) not in self.cut and message.to in self.members:
                    self.members[message.to].raft.step(message)
            for one in self.members.values():
                one.send_snapshots()

    def tick(self, count: int = 1) -> None:
        """Let time pass for everybody, and everything be done."""
        for _ in range(count):
            for one in self.members.values():
                one.raft.tick()
            self.deliver()

    def elect(self, replica: int) -> Member:
        """Have *replica*, whose group has no leader, elected."""
        one = self.members[replica]
        for _ in range(10 * self.settings.election_timeout_ticks):
            one.raft.tick()
            self.deliver()
            if one.raft.role is Role.LEADER:
                return one
        raise AssertionError(f"{replica} is not elected")

    def propose(self, *payloads: bytes) -> Proposed:
        """Propose at the leader, and have everything done."""
        done = self.leader.raft.propose(payloads or (b"x",))
        assert isinstance(done, Proposed), done
        self.deliver()
        return done

    def check(self) -> None:
        """What is applied in one place is what is applied in any other (State Machine Safety)."""
        for one in self.members.values():
            for other in self.members.values():
                for index in one.states.keys() & other.states.keys():
                    assert one.states[index] == other.states[index], f"they differ at {index}"
