"""A replica of a group: the whole machine. See the package for what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kvtwist.core.raft import candidate, elections, follower, leader, reads, replication, sense
from kvtwist.core.raft.configuration import Change, Configuration
from kvtwist.core.raft.log import Log
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    Ready,
    Restored,
    Snapshot,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from kvtwist.core.raft.progress import Progress
from kvtwist.core.raft.settings import Settings
from kvtwist.core.raft.state import NOBODY, Dropped, Leading, Proposed, Reason, Role, State

_FROM_LEADERS: Final = (AppendRequest, Heartbeat, InstallSnapshot)
_CANDIDACIES: Final = (Role.PRE_CANDIDATE, Role.CANDIDATE)


class Raft:
    """One replica.

    :param replica: its id in the group, at least 1, and never used before by another disk (R11).
    :param restored: what its disk has.
    :param chance: a number from 0 to 1, asked for whenever an election timer is started.
    :param life: how often this replica has been started; larger each time.
    :raises ValueError: when what the disk has contradicts itself.
    """

    __slots__ = ("_state",)

    def __init__(
        self,
        replica: int,
        settings: Settings,
        restored: Restored,
        chance: Callable[[], float],
        life: int = 0,
    ) -> None:
        if replica < 1:
            raise ValueError("replica ids are at least 1")
        self._state = State(replica, settings, restored, chance, life)
        self._state.restart_election_timer()

    # -- what it is ---------------------------------------------------------------------------

    @property
    def replica(self) -> int:
        """Its id."""
        return self._state.replica

    @property
    def term(self) -> int:
        """Its current term."""
        return self._state.term

    @property
    def vote(self) -> int:
        """Whom it has voted for in this term; 0: nobody."""
        return self._state.vote

    @property
    def role(self) -> Role:
        """Its role."""
        return self._state.role

    @property
    def leader(self) -> int:
        """Whom it takes for the leader; 0: it knows none."""
        return self._state.leader

    @property
    def log(self) -> Log:
        """Its log; not to be changed."""
        return self._state.log

    @property
    def first_index(self) -> int:
        """The first entry that is not compacted."""
        return self._state.log.first_index

    @property
    def last_index(self) -> int:
        """The last entry."""
        return self._state.log.last_index

    @property
    def commit_index(self) -> int:
        """How far it knows the log to be committed."""
        return self._state.log.commit_index

    @property
    def applied_index(self) -> int:
        """How far the caller has applied it."""
        return self._state.applied_index

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self._state.configuration

    @property
    def is_quiescent(self) -> bool:
        """Whether the group has fallen silent; ticks do nothing then."""
        return self._state.is_quiescent

    def progress(self) -> Mapping[int, Progress]:
        """What a leader knows of the others; empty for anybody else. Not to be changed."""
        leading = self._state.leading
        return leading.progress if leading is not None else {}

    # -- what goes in -------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick pass."""
        state = self._state
        if state.is_quiescent:
            return
        state.now += 1
        if state.leading is not None:
            leader.tick(state, state.leading)
        elif state.role is Role.FOLLOWER:
            follower.tick(state)
        else:
            candidate.tick(state)

    def step(self, message: Message) -> None:
        """Take in a message; one for somebody else is passed over.

        :raises Senseless: when nobody who keeps to Raft sends it; nothing has been done then.
        """
        state = self._state
        if message.to != state.replica:
            return
        if message.term < state.term:
            _answer_earlier_term(state, message)
            return
        sense.check(state, message)
        self._wake_for(message)
        if message.term == state.term or _enter_later_term(state, message):
            _dispatch(state, message)

    def _wake_for(self, message: Message) -> None:
        """Anything but what belongs to falling silent ends it."""
        state = self._state
        if not state.is_quiescent:
            return
        if state.leading is not None:
            if not isinstance(message, HeartbeatResponse):
                leader.wake(state, state.leading)
        elif not (isinstance(message, Heartbeat) and message.quiesce):
            state.is_quiescent = False

    def propose(self, payloads: Sequence[bytes]) -> Proposed | Dropped:
        """Have *payloads* appended to the group's log, one entry each, all or none of them.

        Each is an entry of kind `EntryKind.DATA`. They are sent, together with others of the same
        turn, when `ready` is taken.
        """
        state = self._state
        if state.leading is None:
            return self._not_leader()
        self._wake_to_act()
        return leader.propose(state, state.leading, payloads)

    def propose_membership(self, change: Change) -> Proposed | Dropped:
        """Have the configuration changed by one replica."""
        state = self._state
        if state.leading is None:
            return self._not_leader()
        self._wake_to_act()
        return leader.propose_membership(state, state.leading, change)

    def transfer_leadership(self, to: int) -> Dropped | None:
        """Hand leadership to *to*; given up after an election timeout."""
        state = self._state
        if state.leading is None:
            return self._not_leader()
        self._wake_to_act()
        return leader.transfer_leadership(state, state.leading, to)

    def read_index(self, context: bytes) -> Dropped | None:
        """Ask for an index to read at: it comes in `Ready.reads`, or *context* in ``reads_lost``.

        A message may be lost, so that neither comes from a leader that has no majority, until it
        steps down: the caller has a deadline of its own.
        """
        self._wake_to_act()
        return reads.ask(self._state, context)

    def campaign(self) -> None:
        """Stand for election without waiting for the time to be up.

        For a replica that is alone: among others it is `suspect` that is called for.
        """
        if self._state.role is Role.FOLLOWER:
            elections.campaign(self._state)

    def suspect(self) -> None:
        """The leader's node is silent: do not wait for the shortest election timeout again.

        Also, apart from a read, the only thing that wakes a silent follower when its leader is
        gone. With leases it does nothing but that: this replica may have been counted on for one
        just now, and to suspect is not to know (R6, W1).
        """
        state = self._state
        self._wake_to_act()
        if state.role is Role.FOLLOWER and not state.settings.lease_reads:
            base = state.settings.election_timeout_ticks
            state.elapsed_ticks = max(state.elapsed_ticks, base)

    def send_snapshot(self, to: int, snapshot: Snapshot) -> None:
        """Here is a snapshot for *to*, one of `Ready.snapshots_wanted`."""
        if self._state.leading is not None:
            leader.send_snapshot(self._state, self._state.leading, to, snapshot)

    def snapshot_sent(self, to: int, delivered: bool) -> None:
        """The snapshot for *to* is on its way no more: it was delivered, or could not be."""
        if self._state.leading is not None:
            leader.snapshot_sent(self._state, self._state.leading, to, delivered)

    def _wake_to_act(self) -> None:
        state = self._state
        if state.is_quiescent and state.leading is not None:
            leader.wake(state, state.leading)
        state.is_quiescent = False

    def _not_leader(self) -> Dropped:
        known = self._state.leader != NOBODY
        return Dropped(Reason.NOT_LEADER if known else Reason.NO_LEADER, self._state.leader)

    # -- what comes out, and what has become of it ----------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` has something."""
        state = self._state
        leading = state.leading
        return (
            state.has_output
            or bool(state.asking)
            or (
                leading is not None
                and (
                    reads.may_begin_round(state, leading)
                    or (
                        state.settings.eager_commit and state.log.commit_index > leading.told_commit
                    )
                )
            )
        )

    def ready(self) -> Ready:
        """Everything that is to be done now; see the package for what the caller owes."""
        state = self._state
        self._gather()
        number, hard_state, must_sync = state.begin_write()
        snapshot, state.snapshot = state.snapshot, None
        entries = state.log.take_unwritten(number)
        messages, state.outbox = state.outbox, []
        read_states, state.reads = state.reads, []
        reads_lost, state.reads_lost = state.reads_lost, []
        wanted, state.snapshots_wanted = state.snapshots_wanted, []
        return Ready(
            number=number,
            hard_state=hard_state,
            snapshot=snapshot,
            entries=entries,
            must_sync=must_sync,
            messages=tuple(messages),
            committed=state.log.take_appliable(state.settings.apply_bytes_max),
            reads=tuple(read_states),
            reads_lost=tuple(reads_lost),
            snapshots_wanted=tuple(wanted),
        )

    def _gather(self) -> None:
        """Make the messages that all of one turn share."""
        state = self._state
        if state.leading is not None:
            replication.broadcast(state, state.leading, state.settings.eager_commit)
            if reads.may_begin_round(state, state.leading):
                reads.begin_round(state, state.leading)
        elif state.asking:
            reads.forward(state)

    def persisted(self, number: int) -> None:
        """All `Ready` values up to *number* are on the disk, and synced where they must be."""
        state = self._state
        for message in state.end_write(number):
            self.step(message)
        if state.leading is not None:
            leader.committed(state, state.leading)

    def applied(self, index: int) -> None:
        """The state machine has applied everything up to *index*."""
        state = self._state
        if index > state.log.applying_index:
            raise ValueError(f"{index} was not handed out yet")
        # A snapshot that has come meanwhile may be ahead.
        state.applied_index = max(state.applied_index, index)

    def compact(self, index: int) -> None:
        """Forget the entries up to *index*, which are applied."""
        if index > self._state.applied_index:
            raise ValueError(f"{index} is not applied yet")
        self._state.log.compact(index)

    def describe(self, index: int, data: bytes = b"") -> Snapshot:
        """A snapshot of what is applied up to *index*, with *data*.

        :raises ValueError: when the log does not know that place (any more).
        """
        log = self._state.log
        term = log.term_at(index)
        if term is None:
            raise ValueError(f"{index} is not from {log.compacted_index} to {log.last_index}")
        return Snapshot(index, term, log.configuration_at(index), data)


# -- messages: terms first, then by role and kind -------------------------------------------------


def _enter_later_term(state: State, message: Message) -> bool:
    """Go over to the message's term, if that is called for. Whether it is to be looked at."""
    match message:
        case PreVoteRequest():
            return not _is_content(state, message.sender)
        case PreVoteResponse(granted=True):
            return True  # of the term that this replica would be a candidate in
        case VoteRequest() if not message.transfer and _is_content(state, message.sender):
            return False
    sender = message.sender if isinstance(message, _FROM_LEADERS) else NOBODY
    elections.become_follower(state, message.term, sender)
    return True


def _is_content(state: State, candidate: int) -> bool:
    """Whether there is a leader, so that *candidate* need not be elected (dissertation, 4.2.3).

    Who asks for votes does not lead, whatever this replica has heard: it was started again.
    """
    if candidate == state.leader:
        return False
    is_lease_possible = state.settings.lease_reads and (
        # In its last life it may have heard of a leader that counts on it for its lease.
        state.now < state.settings.election_timeout_ticks
    )
    return state.settings.check_quorum and (state.hears_leader or is_lease_possible)


def _answer_earlier_term(state: State, message: Message) -> None:
    """Tell a leader, or whoever wants to be one, that its term is over."""
    match message:
        case PreVoteRequest():
            elections.answer_pre_vote(state, message)
        case AppendRequest() | Heartbeat() | InstallSnapshot() | VoteRequest():
            state.send_when_voted(HigherTerm(state.replica, message.sender, state.term))


def _dispatch(state: State, message: Message) -> None:
    if state.role in _CANDIDACIES and isinstance(message, _FROM_LEADERS):
        candidate.on_leader(state, message)
    kind = type(message)
    if (taken := _TAKEN.get(kind)) is not None:
        role, act = taken
        if role is None or role is state.role:
            act(state, message)
    elif state.leading is not None and (lead := _LEADING.get(kind)) is not None:
        lead(state, state.leading, message)


_TAKEN: Final[dict[type[Message], tuple[Role | None, Callable[[State, Any], None]]]] = {
    PreVoteRequest: (None, elections.answer_pre_vote),
    VoteRequest: (None, elections.answer_vote),
    AppendRequest: (Role.FOLLOWER, follower.on_append),
    Heartbeat: (Role.FOLLOWER, follower.on_heartbeat),
    InstallSnapshot: (Role.FOLLOWER, follower.on_snapshot),
    TimeoutNow: (Role.FOLLOWER, follower.on_timeout_now),
    ReadIndexResponse: (Role.FOLLOWER, follower.on_read_index),
    PreVoteResponse: (Role.PRE_CANDIDATE, candidate.on_pre_vote),
    VoteResponse: (Role.CANDIDATE, candidate.on_vote),
}
"""In which role a message is taken in, ``None``: in each; and what does it."""

_LEADING: Final[dict[type[Message], Callable[[State, Leading, Any], None]]] = {
    AppendResponse: leader.on_append_response,
    HeartbeatResponse: leader.on_heartbeat_response,
    ReadIndexRequest: leader.on_read_index,
}
"""What is in no table is passed over, as is what comes in another role: a late answer, or one to
nothing."""
