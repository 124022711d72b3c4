"""All that a replica knows and has in hand, and the few things that every role does with it.

What the roles do is in modules of functions on this: `elections`, `replication`, `reads`,
`follower`, `candidate`, `leader`. `kvtwist.core.raft.raft` puts them together.

**What may leave when** is decided here and nowhere else: `send`, `send_when_voted`,
`send_when_written`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from kvtwist.core.raft.configuration import Configuration
from kvtwist.core.raft.log import Log
from kvtwist.core.raft.messages import (
    HardState,
    Heartbeat,
    Message,
    ReadState,
    Restored,
    Snapshot,
)
from kvtwist.core.raft.progress import Progress
from kvtwist.core.raft.settings import Settings

NOBODY: Final = 0


class Role(Enum):
    """The paper's states (figure 4), and the one before a candidacy (dissertation, 9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Reason(Enum):
    """Why a request was dropped. In every case nothing has been done, and nothing will be."""

    NOT_LEADER = "another replica leads"
    NO_LEADER = "no leader is known"
    TRANSFER = "leadership is being handed over"
    LEAVING = "the leader is being removed, and would not learn what becomes of it"
    UNCOMMITTED_BYTES = "too much is waiting to be committed (uncommitted_bytes_max)"
    NO_OWN_COMMIT = "the new leader has not committed an entry of its own term yet"
    CHANGE_PENDING = "another change of the membership is not committed yet"
    NOT_CAUGHT_UP = "that replica's log is too far behind"
    SENSELESS = "it makes no sense in this configuration"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A request that was dropped.

    :ivar leader: who is thought to lead; 0: nobody.
    """

    reason: Reason
    leader: int = NOBODY


@dataclass(slots=True, unsafe_hash=True)
class Proposed:
    """Proposals that the leader has appended: the first one's place, the others follow it."""

    term: Final[int]
    index: Final[int]

    def __init__(self, term: int, index: int) -> None:
        self.term = term
        self.index = index


@dataclass(frozen=True, slots=True)
class Round:
    """Reads that wait for a round of heartbeats to be answered.

    :ivar number: the round's.
    :ivar index: to read at.
    :ivar reads: who has asked, and how: see `kvtwist.core.raft.reads`.
    """

    number: int
    index: int
    reads: tuple[Asked, ...]


class Asked(NamedTuple):
    """A read at the leader: its own, with a context, or a follower's, with a number."""

    replica: int
    number: int
    context: bytes


class Forwarded(NamedTuple):
    """Reads that a follower has asked the leader about."""

    contexts: tuple[bytes, ...]
    at_tick: int


@dataclass(slots=True)
class Leading:
    """What only a leader has; all of it is gone when the leadership is.

    :ivar term_began_index: its no-op: the first entry of its term (R4).
    :ivar progress: of every other replica of the configuration.
    :ivar uncommitted_bytes: of entries that are not committed yet; never less than they are.
    :ivar told_commit: the commit index that all others have been told, or are about to be, who may
        be sent to.
    :ivar round: the latest round of heartbeats; each has its own number, never used twice (R5).
    :ivar round_ticks: with leases, when the rounds that no majority has answered yet were begun.
    :ivar asked: reads that wait for the next round.
    :ivar rounds: reads that wait for an answer to theirs.
    :ivar lease_until_tick: while before it, nobody else can have been elected (`Settings`).
    :ivar is_lease_over: for the rest of the term: leadership was to be handed over, and whoever was
        told so may still act on it (R6).
    :ivar transfer_to: whom leadership is being handed to; `NOBODY`: nobody.
    :ivar transfer_ticks: for how long.
    :ivar idle_ticks: since something last happened.
    """

    term_began_index: int
    progress: dict[int, Progress] = field(default_factory=dict)
    uncommitted_bytes: int = 0
    told_commit: int = 0
    round: int = 0
    round_ticks: deque[tuple[int, int]] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    rounds: deque[Round] = field(default_factory=deque)
    lease_until_tick: int = 0
    is_lease_over: bool = False
    heartbeat_ticks: int = 0
    transfer_to: int = NOBODY
    transfer_ticks: int = 0
    idle_ticks: int = 0


class State:
    """A replica.

    :ivar now: ticks since it was made.
    :ivar leader: whom it takes for the leader; `NOBODY` if it knows none.
    :ivar elapsed_ticks: of a follower, since it heard of the leader or voted; of a candidate, since
        its election began; of a leader, since it last saw that it has a majority.
    :ivar timeout_ticks: the election timeout, drawn anew for each.
    :ivar votes: what was answered in the election under way.
    :ivar leading: only of a leader.
    :ivar outbox: messages that may leave.
    """

    def __init__(
        self,
        replica: int,
        settings: Settings,
        restored: Restored,
        chance: Callable[[], float],
        life: int,
    ) -> None:
        hard = restored.hard_state
        self.replica = replica
        self.settings = settings
        self.chance = chance
        self.term, self.vote = hard.term, hard.vote
        self.log = _restored_log(restored)
        self.now = 0
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.elapsed_ticks = 0
        self.timeout_ticks = 0
        self.votes: dict[int, bool] = {}
        self.leading: Leading | None = None
        self.is_quiescent = False
        self.outbox: list[Message] = []
        self.snapshot: Snapshot | None = None
        self.reads: list[ReadState] = []
        self.reads_lost: list[bytes] = []
        self.asking: list[bytes] = []
        self.forwarded: dict[int, Forwarded] = {}
        self.read_number = life << 32
        self.snapshots_wanted: list[int] = []
        self.applied_index = self.log.applying_index
        self._told = HardState(self.term, self.vote, self.log.commit_index)
        self._next_number = 1
        self._voted_number = 0
        self._written_number = 0
        self._durable_number = 0
        self._held: deque[tuple[int, Message]] = deque()
        self._write_began: deque[tuple[int, int]] = deque()

    # -- configuration ------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The latest one."""
        return self.log.configuration

    @property
    def is_voter(self) -> bool:
        """Whether this replica's own vote counts."""
        return self.replica in self.configuration.voters

    @property
    def others(self) -> tuple[int, ...]:
        """All other replicas."""
        return tuple(each for each in self.configuration.replicas if each != self.replica)

    # -- hard state ---------------------------------------------------------------------------

    def set_term(self, term: int) -> None:
        """Enter a later term, in which nobody has been voted for."""
        assert term > self.term, "terms never fall"
        self.term, self.vote = term, NOBODY
        self._voted_number = self._next_number

    def set_vote(self, replica: int) -> None:
        """Vote for *replica* in this term."""
        assert self.vote in (NOBODY, replica), "one vote in a term (paper, 5.2)"
        if self.vote != replica:
            self.vote = replica
            self._voted_number = self._next_number

    # -- what may leave when ------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Let it leave at once: it says nothing that could be forgotten."""
        self.outbox.append(message)

    def send_when_voted(self, message: Message) -> None:
        """Let it leave when term and vote are durable as they are now (R1)."""
        self._hold(message, self._voted_number)

    def send_when_written(self, message: Message) -> None:
        """Let it leave when term, vote and log are durable as they are now (R1, R2)."""
        if self.log.has_unwritten:
            self._written_number = self._next_number
        self._hold(message, max(self._voted_number, self._written_number))

    def _hold(self, message: Message, number: int) -> None:
        if number <= self._durable_number:
            self.outbox.append(message)
        else:
            self._held.append((number, message))

    # -- Ready --------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        """As it is now."""
        return HardState(self.term, self.vote, self.log.commit_index)

    @property
    def has_output(self) -> bool:
        """Whether there is something to be done outside."""
        return bool(
            self.outbox
            or self.log.has_unwritten
            or self._has_new_hard_state
            or self.log.applying_index < self.log.appliable_index
            or self.reads
            or self.reads_lost
            or self.snapshots_wanted
        )

    @property
    def _has_new_hard_state(self) -> bool:
        told = self._told
        return (
            told.commit != self.log.commit_index or told.term != self.term or told.vote != self.vote
        )

    def begin_write(self) -> tuple[int, HardState | None, bool]:
        """A new Ready's number, its hard state if it has changed, and whether to sync."""
        number, hard, must_sync = self._next_number, None, self.log.has_unwritten
        if must_sync:
            self._written_number = number
        if self._has_new_hard_state:
            hard, told = self.hard_state, self._told
            must_sync = must_sync or hard.term != told.term or hard.vote != told.vote
            self._told = hard
        if must_sync:
            self._write_began.append((number, self.now))
        self._next_number += 1
        return number, hard, must_sync

    def end_write(self, number: int) -> list[Message]:
        """Everything up to *number* is durable: the messages to this replica itself that waited
        for that; those to others are in the outbox.

        What was said in an earlier term is dropped: nobody needs it any more.
        """
        assert self._durable_number <= number < self._next_number, "no such Ready"
        self._durable_number = number
        self.log.written(number)
        while self._write_began and self._write_began[0][0] <= number:
            self._write_began.popleft()
        mine: list[Message] = []
        if not self._held:
            return mine
        later: deque[tuple[int, Message]] = deque()
        for needed, message in self._held:
            if needed > number:
                later.append((needed, message))
            elif message.term >= self.term:
                (mine if message.to == self.replica else self.outbox).append(message)
        self._held = later
        return mine

    @property
    def write_ticks(self) -> int:
        """For how long the oldest write has been under way; 0: none is (R8)."""
        return self.now - self._write_began[0][1] if self._write_began else 0

    # -- time ---------------------------------------------------------------------------------

    def restart_election_timer(self) -> None:
        """Wait a whole election timeout from now, of a length drawn anew (paper, 5.2)."""
        base = self.settings.election_timeout_ticks
        self.elapsed_ticks = 0
        self.timeout_ticks = base + int(self.chance() * base)

    @property
    def hears_leader(self) -> bool:
        """Whether there was a sign of a leader within the shortest election timeout."""
        recent = self.elapsed_ticks < self.settings.election_timeout_ticks
        return self.leader != NOBODY and recent

    # -- the leader's heartbeats --------------------------------------------------------------

    def send_heartbeats(self, leading: Leading, quiesce: bool = False) -> None:
        """One to every other replica."""
        leading.heartbeat_ticks = 0
        self.send_round(leading, self.others, quiesce)

    def send_round(self, leading: Leading, replicas: Sequence[int], quiesce: bool = False) -> None:
        """A heartbeat to each of *replicas*; the others get the next one when it is time."""
        for replica in replicas:
            commit = min(leading.progress[replica].match, self.log.commit_index)
            self.send(Heartbeat(self.replica, replica, self.term, commit, leading.round, quiesce))


def _restored_log(restored: Restored) -> Log:
    log = Log(
        restored.configuration,
        restored.compacted_index,
        restored.compacted_term,
        restored.entries,
    )
    if log.last_term > restored.hard_state.term:
        raise ValueError("an entry is of a later term than the replica: its disk is damaged")
    if not log.compacted_index <= restored.applied <= log.last_index:
        raise ValueError("the state machine and the log do not fit each other")
    commit = max(restored.applied, restored.hard_state.commit)
    if commit > log.last_index:
        raise ValueError("committed entries are missing: the disk is damaged")
    log.commit(commit)
    log.applying_index = restored.applied
    return log
