"""What replicas of a group say to each other.

Every message has ``sender`` and ``to``, which are replica ids, and the ``term`` it was made in.
Which group it belongs to is the business of whoever carries it, as is that it comes from the
replica that it says. A message may be lost, delayed, repeated and overtaken; it may not be changed.

Names of fields are the paper's, in our spelling: ``prev_index`` is its *prevLogIndex*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kvtwist.core.raft.configuration import Configuration
from kvtwist.core.raft.log import Entry


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a group's log said up to ``index``, in another form.

    :ivar index: of the last entry that it covers.
    :ivar term: of that entry.
    :ivar configuration: in force at that entry.
    :ivar data: the state machine's; nothing here looks into it. It may be the state itself, or a
        name under which the carrier knows it.
    """

    index: int
    term: int
    configuration: Configuration
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class _Message:
    sender: int
    to: int
    term: int


@dataclass(frozen=True, slots=True)
class PreVoteRequest(_Message):
    """Would you vote for me in ``term``? Nobody's term or vote changes by it (R7).

    Dissertation, 9.6.

    :ivar term: the one that the sender would be a candidate in: its own, and one.
    """

    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreVoteResponse(_Message):
    """:ivar term: when granted, the one that was asked for; when not, the sender's own (R7)."""

    granted: bool


@dataclass(frozen=True, slots=True)
class VoteRequest(_Message):
    """RequestVote: paper, figure 2 and section 5.2.

    :ivar transfer: the leader itself has asked for this election; so that a leader who was heard of
        lately is no reason to refuse (dissertation, 4.2.3).
    """

    last_index: int
    last_term: int
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteResponse(_Message):
    """The answer to a `VoteRequest`."""

    granted: bool


@dataclass(slots=True, unsafe_hash=True)
class AppendRequest:
    """AppendEntries: paper, figure 2 and section 5.3.

    :ivar entries: those right after ``prev_index``; none, to probe or to tell ``commit``.
    :ivar commit: the leader's commit index.
    """

    sender: Final[int]
    to: Final[int]
    term: Final[int]
    prev_index: Final[int]
    prev_term: Final[int]
    entries: Final[tuple[Entry, ...]]
    commit: Final[int]

    def __init__(
        self,
        sender: int,
        to: int,
        term: int,
        prev_index: int,
        prev_term: int,
        entries: tuple[Entry, ...],
        commit: int,
    ) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.prev_index = prev_index
        self.prev_term = prev_term
        self.entries = entries
        self.commit = commit


@dataclass(slots=True, unsafe_hash=True)
class AppendResponse:
    """The answer to an `AppendRequest` or an `InstallSnapshot`; sent when all is durable.

    :ivar index: the sender's log is the leader's up to here; when rejected, the ``prev_index`` that
        did not match.
    :ivar hint_index: when rejected, the highest index at which the logs may still agree.
    :ivar hint_term: the sender's term there.
    """

    sender: Final[int]
    to: Final[int]
    term: Final[int]
    index: Final[int]
    rejected: Final[bool]
    hint_index: Final[int]
    hint_term: Final[int]

    def __init__(
        self,
        sender: int,
        to: int,
        term: int,
        index: int,
        rejected: bool = False,
        hint_index: int = 0,
        hint_term: int = 0,
    ) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.index = index
        self.rejected = rejected
        self.hint_index = hint_index
        self.hint_term = hint_term


@dataclass(slots=True, unsafe_hash=True)
class Heartbeat:
    """The leader is there.

    :ivar commit: how far the receiver may commit: never past what it is known to have.
    :ivar round: grows with each round of confirmations; the answer says it back (ReadIndex).
    :ivar quiesce: nothing is going on, and no more heartbeats will come until something does.
    """

    sender: Final[int]
    to: Final[int]
    term: Final[int]
    commit: Final[int]
    round: Final[int]
    quiesce: Final[bool]

    def __init__(
        self, sender: int, to: int, term: int, commit: int, round: int = 0, quiesce: bool = False
    ) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.commit = commit
        self.round = round
        self.quiesce = quiesce


@dataclass(slots=True, unsafe_hash=True)
class HeartbeatResponse:
    """:ivar round: that of the heartbeat."""

    sender: Final[int]
    to: Final[int]
    term: Final[int]
    round: Final[int]

    def __init__(self, sender: int, to: int, term: int, round: int = 0) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.round = round


@dataclass(frozen=True, slots=True)
class InstallSnapshot(_Message):
    """InstallSnapshot: paper, section 7; the snapshot at once, or its name: see `Snapshot`."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class TimeoutNow(_Message):
    """Begin an election at once: leadership is handed over (dissertation, 3.10)."""


@dataclass(frozen=True, slots=True)
class ReadIndexRequest(_Message):
    """A follower asks the leader for an index to read at (dissertation, 6.4).

    :ivar number: says which request; never used twice by the same replica, in any of its lives.
    """

    number: int


@dataclass(frozen=True, slots=True)
class ReadIndexResponse(_Message):
    """What is applied up to ``index`` shows all that was committed when ``number`` was asked."""

    number: int
    index: int


@dataclass(frozen=True, slots=True)
class HigherTerm(_Message):
    """To a leader whose term is over; without it, it might never learn (dissertation, 4.2.3)."""


Message: TypeAlias = (
    PreVoteRequest
    | PreVoteResponse
    | VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
    | HigherTerm
)


@dataclass(slots=True, unsafe_hash=True)
class HardState:
    """What a replica must never forget (paper, figure 2: "persistent state").

    :ivar vote: whom it has voted for in ``term``; 0: nobody.
    :ivar commit: need not be durable; it only saves work after a restart.
    """

    term: Final[int]
    vote: Final[int]
    commit: Final[int]

    def __init__(self, term: int = 0, vote: int = 0, commit: int = 0) -> None:
        self.term = term
        self.vote = vote
        self.commit = commit


@dataclass(slots=True, unsafe_hash=True)
class ReadState:
    """A read may be answered, once ``index`` is applied.

    :ivar context: what the read was asked for with.
    """

    context: Final[bytes]
    index: Final[int]

    def __init__(self, context: bytes, index: int) -> None:
        self.context = context
        self.index = index


@dataclass(slots=True, unsafe_hash=True)
class Ready:
    """What a replica wants done; see the package's contract for who does what and when.

    :ivar number: to be named in `Raft.persisted`.
    :ivar hard_state: to be persisted; ``None`` when it is as it was.
    :ivar snapshot: to be installed in place of log and state, in one atomic write with the hard
        state and the entries; ``None``: none.
    :ivar entries: to be persisted; whatever the disk has at the first one's index and after it is
        replaced.
    :ivar must_sync: whether `Raft.persisted` may only be called after a sync.
    :ivar messages: to be sent, now. None of them says more than is durable already.
    :ivar committed: to be applied, in order; all of them are durable here.
    :ivar reads: reads that may be answered, each once its index is applied.
    :ivar reads_lost: contexts of reads that will never be; they may be asked for again.
    :ivar snapshots_wanted: replicas that need one (`Raft.send_snapshot`).
    """

    number: Final[int]
    hard_state: Final[HardState | None]
    snapshot: Final[Snapshot | None]
    entries: Final[tuple[Entry, ...]]
    must_sync: Final[bool]
    messages: Final[tuple[Message, ...]]
    committed: Final[tuple[Entry, ...]]
    reads: Final[tuple[ReadState, ...]]
    reads_lost: Final[tuple[bytes, ...]]
    snapshots_wanted: Final[tuple[int, ...]]

    def __init__(
        self,
        number: int = 0,
        hard_state: HardState | None = None,
        snapshot: Snapshot | None = None,
        entries: tuple[Entry, ...] = (),
        must_sync: bool = False,
        messages: tuple[Message, ...] = (),
        committed: tuple[Entry, ...] = (),
        reads: tuple[ReadState, ...] = (),
        reads_lost: tuple[bytes, ...] = (),
        snapshots_wanted: tuple[int, ...] = (),
    ) -> None:
        self.number = number
        self.hard_state = hard_state
        self.snapshot = snapshot
        self.entries = entries
        self.must_sync = must_sync
        self.messages = messages
        self.committed = committed
        self.reads = reads
        self.reads_lost = reads_lost
        self.snapshots_wanted = snapshots_wanted


@dataclass(frozen=True, slots=True)
class Restored:
    """What a replica starts from: what its disk has, or nothing.

    :ivar compacted_index: of the last entry that is not in ``entries`` any more; 0: none.
    :ivar compacted_term: of that entry.
    :ivar configuration: in force at that entry; of a replica whose log is empty, the one that the
        group began with: also of one that joins later, since that one is in nobody's log.
    :ivar entries: all that follow it.
    :ivar applied: how far the state machine on the disk has got.
    """

    configuration: Configuration
    hard_state: HardState = field(default_factory=HardState)
    compacted_index: int = 0
    compacted_term: int = 0
    entries: tuple[Entry, ...] = ()
    applied: int = 0
