"""One replica of one group: the Raft core and the state machine, and who waits for them.

It does nothing by itself: `kvtwist.node.replicas` asks it what is to be done, does that for all
replicas together, and tells it when it is done. What a caller gets of a write is one of the three
outcomes: its answer, once the entry is applied; a `NotDone`, if it was never proposed; or
`OutcomeUnknown`, if somebody else's entry has taken its place, or the replica is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import NamedTuple, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvtwist.core.raft import (
    Dropped,
    Entry,
    EntryKind,
    Message,
    Raft,
    ReadState,
    Ready,
    Reason,
    Role,
    Senseless,
    Snapshot,
)
from kvtwist.core.raft.messages import InstallSnapshot
from kvtwist.core.state.answers import Answer
from kvtwist.core.state.commands import Command, LonePut, decode_entry, encode
from kvtwist.core.state.contents import Stored, stored_key
from kvtwist.core.state.logtime import LogClock
from kvtwist.core.state.records import Record
from kvtwist.errors import (
    KvtwistError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    TooLarge,
    Unavailable,
)
from kvtwist.node.compaction import Compaction
from kvtwist.node.expiry import Expiry
from kvtwist.node.followers import Followers
from kvtwist.node.installing import Installing
from kvtwist.node.waiting import DeferredReader, DeferredWriter, Reader, Writer
from kvtwist.storage import logs
from kvtwist.storage.engine import Batch, Engine
from kvtwist.storage.marks import Mark
from kvtwist.storage.snapshots import Incoming
from kvtwist.storage.states import StoredState, load_state
from kvtwist.wire.limits import MEMBER_BOXES
from kvtwist.wire.raft import entry_bytes_for

ENTRY_BYTES_MAX = entry_bytes_for(MEMBER_BOXES)
"""A longer entry is not proposed: no follower could be brought it."""

DEPOSED_TICKS = 10
"""So long a replica that leads no more waits for its proposals to be committed by the next leader,
as they mostly are after a hand-over. Then their fate is unknown."""

_Told = TypeVar("_Told")

_log = Logger(namespace="kvtwist.node")

Stamped = Callable[[int], Command]
"""Makes a command, given its stamp in log time (ms)."""


READS_MAX = 64
"""Records for so many reads are looked up, and fetched, together."""

_Proposal: TypeAlias = tuple[int, Writer]
"""The term of an entry that waits to be applied, and who waits for it."""
_Reads: TypeAlias = tuple[int, list[Reader]]
"""The index that has to be applied, and who waits for it."""


class Needed(NamedTuple):
    """What has to be read before the next entry can be carried out, or a read done: records; or the
    whole state, when a snapshot has taken the place of the one in memory."""

    keys: tuple[bytes, ...] = ()
    is_state: bool = False


Found: TypeAlias = dict[bytes, Stored | None] | StoredState | None
"""What was read: records, or the state."""


class Written(NamedTuple):
    """What of a replica is in a batch that is being committed.

    :ivar ready: the number of its Ready; ``None``: nothing of one is in it.
    :ivar state: the number of its state machine's changes; ``None``: none are in it.
    :ivar applied: the entry that these changes go up to.
    :ivar sync: whether the commit must be durable.
    :ivar mark: to be raised with it, when term or vote have changed.
    :ivar is_switch: whether a snapshot takes the place of log and state.
    """

    ready: int | None = None
    state: int | None = None
    applied: int = 0
    sync: bool = False
    mark: Mark | None = None
    is_switch: bool = False


class Replica:
    """A replica.

    :param last_written: the last entry that its log in the store has.
    :param seconds: a monotonic clock.
    :param changed: called whenever there may be something to be done.
    :param send: takes the messages to other replicas.
    :param wanted: told which replicas need a snapshot of this one's state.

    :ivar followers: for those.
    """

    def __init__(
        self,
        group: int,
        raft: Raft,
        state: StoredState,
        last_written: int,
        seconds: Callable[[], float],
        changed: Callable[[Replica], None],
        send: Callable[[int, Message], None],
        wanted: Callable[[Followers, int], None],
    ) -> None:
        self.group = group
        self.raft = raft
        self._state = state
        self._last_written = last_written
        self._seconds = seconds
        self._changed = changed
        self._send = send
        self._wanted = wanted
        self._compaction = Compaction(raft)
        self._installing = Installing(raft)
        self.followers = Followers(group, raft, self._compaction, lambda: changed(self))
        self._clock: LogClock | None = None
        self._clock_term = 0
        self._clock_saw_ms = 0
        self._proposals: dict[int, _Proposal] = {}
        self._contexts = count()
        self._asking: list[Reader] | None = None  # those since the last Ready, who share a context
        self._asked: dict[bytes, list[Reader]] = {}
        self._reads: deque[_Reads] = deque()
        self._to_apply: deque[tuple[Entry, Command | LonePut | None]] = deque()
        self.has_changes = False
        self._base: Snapshot | None = None
        self._saved_index = state.machine.applied_index
        self._savings: deque[tuple[int, Deferred[None]]] = deque()
        self._over: KvtwistError | None = None
        self._mark = Mark(raft.term, raft.vote, 0)
        self._deposed_ticks = 0
        self._expiry = Expiry(self)

    # -- what users want ----------------------------------------------------------------------

    def propose(self, stamped: Stamped) -> Deferred[Answer]:
        """Have a command applied; see the module's docstring for how that ends."""
        writer = DeferredWriter()
        refused = self.offer(encode(stamped(self.stamp_ms())), writer)
        return writer if refused is None else fail(refused)

    def offer(self, entry: bytes, writer: Writer) -> KvtwistError | None:
        """Have an entry applied; why not, if it was not even proposed: nothing was done.

        :param entry: stamped by `stamp_ms`.
        """
        if self._over is not None:
            return Unavailable(str(self._over))
        if len(entry) > ENTRY_BYTES_MAX:
            return _too_large(len(entry))
        proposed = self.raft.propose((entry,))
        if isinstance(proposed, Dropped):
            return _dropped(self.group, proposed)
        self._proposals[proposed.index] = proposed.term, writer
        self._changed(self)
        return None

    def read(self, key: bytes, keyspace: int) -> Deferred[Record | None]:
        """The record of *key*, no older than the call: linearizable."""
        reader = DeferredReader(stored_key(keyspace, key))
        refused = self.ask(reader)
        return reader if refused is None else fail(refused)

    def ask(self, reader: Reader) -> KvtwistError | None:
        """Tell *reader* what is there, no older than the call; why not, if it was not even asked.

        All that are asked before the next Ready share its round, and so may share a context: a
        round begins with a Ready, after all of them (R5).
        """
        if self._over is not None:
            return Unavailable(str(self._over))
        if self._asking is None:
            context = next(self._contexts).to_bytes(8, "big")
            dropped = self.raft.read_index(context)
            if dropped is not None:
                return _dropped(self.group, dropped)
            self._asking = self._asked[context] = []
            self._changed(self)
        self._asking.append(reader)
        return None

    def settled(self) -> Deferred[None]:
        """Fires when the state in the store has all that was answered before this call."""
        return self.read(b"", 0).addCallback(lambda _: self._when_saved())

    def _when_saved(self) -> Deferred[None]:
        saved: Deferred[None] = Deferred()
        if self._saved_index >= self.applied_index:
            saved.callback(None)
        else:
            self._savings.append((self.applied_index, saved))
            self._changed(self)
        return saved

    @property
    def revision(self) -> int:
        """The version of the last change."""
        return self._state.machine.revision

    @property
    def applied_index(self) -> int:
        """How far the log is applied."""
        return self._state.machine.applied_index

    @property
    def is_waiting_for_store(self) -> bool:
        """Whether somebody waits for what was applied to be in the store's state."""
        return bool(self._savings)

    @property
    def leads(self) -> bool:
        """Whether it leads the group, as far as it knows."""
        return self.raft.role is Role.LEADER

    @property
    def is_alone(self) -> bool:
        """Whether it is the group's only replica."""
        return self.raft.configuration.replicas == (self.raft.replica,)

    @property
    def generation(self) -> int:
        """Of the partition's membership, as far as it has been applied here."""
        return self._state.machine.generation

    @property
    def key_count(self) -> int:
        """How many keys there are."""
        return self._state.machine.key_count

    @property
    def data_bytes(self) -> int:
        """Keys and values, added up."""
        return self._state.machine.data_bytes

    def stamp_ms(self) -> int:
        """Log time now, as the leader counts it, from what it had applied when it became that."""
        now, log_time_ms, clock = self._seconds(), self._state.machine.log_time_ms, self._clock
        if clock is None or self._clock_term != self.raft.term:
            clock = self._clock = LogClock(log_time_ms, now)
            self._clock_term, self._clock_saw_ms = self.raft.term, log_time_ms
        elif log_time_ms != self._clock_saw_ms:
            clock.applied(log_time_ms, now)
            self._clock_saw_ms = log_time_ms
        return clock.stamp_ms(now)

    # -- what is to be done ---------------------------------------------------------------------

    def tick(self, number: int, may_expire: bool) -> None:
        """Time passes.

        :param number: of the tick.
        :param may_expire: whether anything can be written here.
        """
        self.raft.tick()
        self._compaction.tick()
        if self.raft.has_ready():
            self._changed(self)
        if self._proposals:
            self._tick_proposals()
        if may_expire:
            self._expiry.tick(number + self.group)

    def next_due_ms(self) -> int | None:
        """The log time at which a session or record expires next."""
        return self._state.machine.next_due_ms()

    def _tick_proposals(self) -> None:
        """Do not wait for long for what another leader may commit, or not."""
        if self.leads and all(term == self.raft.term for term, _ in self._proposals.values()):
            self._deposed_ticks = 0
            return
        self._deposed_ticks += 1
        if self._deposed_ticks >= DEPOSED_TICKS:
            self._deposed_ticks = 0
            self.lose_proposals(OutcomeUnknown("its leader was deposed before it was committed"))

    def suspect(self) -> None:
        """The leader's node is silent."""
        self.raft.suspect()
        if self.raft.has_ready():
            self._changed(self)

    # -- leadership -----------------------------------------------------------------------------

    def hand_over(self, to: int) -> bool:
        """Hand leadership to replica *to*, if that is close and this leads; whether it began."""
        if not self.leads:
            return False
        dropped = self.raft.transfer_leadership(to)
        if self.raft.has_ready():
            self._changed(self)
        return dropped is None

    def closest_followers(self) -> list[int]:
        """The other voters, those first whose logs are closest to this leader's."""
        match = {replica: each.match for replica, each in self.raft.progress().items()}
        voters = [each for each in self.raft.configuration.voters if each in match]
        return sorted(voters, key=lambda each: (-match[each], each))

    def step(self, message: Message) -> None:
        """A message has come. A snapshot comes with its data (`install`), or not at all.

        :raises Senseless: when it may not come; it has done nothing.
        """
        if isinstance(message, InstallSnapshot):
            return
        self._compaction.heard(message.sender)
        self._step(message)

    def _step(self, message: Message) -> None:
        self.raft.step(message)
        if self.raft.has_ready():
            self._changed(self)

    # -- snapshots that come in: `kvtwist.node.arrivals.Target` -----------------------------------

    @property
    def data_generation(self) -> int:
        """That its data stands in, in the store."""
        return self._state.generation

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot is taking the place of what it has."""
        return not self._installing.is_free

    def offered(self, message: InstallSnapshot) -> bool:
        """Whether the snapshot's data is wanted; if not, the core has taken the message in, which
        says to the leader how far this replica is."""
        if self._installing.is_wanted(message):
            return True
        with suppress(Senseless):
            self._step(message)
        return False

    def install(self, message: InstallSnapshot, incoming: Incoming) -> Deferred[bool]:
        """Give the message to the core. Fires when its data has taken the place of the replica's;
        or, with ``False``, when the core did not want it: then it is to be removed, at once."""
        if self._over is not None:
            return fail(Unavailable(str(self._over)))
        kept = self._installing.install(message, incoming)
        self._changed(self)
        return kept

    def take(self, batch: Batch) -> Written | None:
        """Send what may leave; put into *batch* what is to be persisted, and what was applied.

        Returns what is in the batch; ``None``: nothing is.
        """
        self._asking = None
        ready = self.raft.ready() if self.raft.has_ready() else None
        last_installed = self._installing.take(batch, ready, self._state)
        if last_installed is not None:
            self._forget_state(last_installed)
        if ready is not None:
            self._take_ready(ready, batch)
        self._take_base(batch)
        is_switch = last_installed is not None
        if ready is not None and (ready.must_sync or is_switch):
            mark, sync = self._new_mark(), ready.must_sync
            return Written(ready.number, sync=sync, mark=mark, is_switch=is_switch)
        # A Ready with nothing to persist is not told of: it would be taken for all before it.
        return None

    def take_changes(self, batch: Batch) -> Written | None:
        """Put into *batch* what was applied since the last time; as `take`.

        It need not be there soon: whatever it says is in the log as well.
        """
        if not self.has_changes:
            return None
        self.has_changes = False
        changes, number = self._state.take_batch()
        batch.extend(changes)
        return Written(state=number, applied=self.applied_index)

    def _new_mark(self) -> Mark | None:
        """Of a new term or vote: what a store that goes back would forget (S7)."""
        if (self.raft.term, self.raft.vote) == (self._mark.term, self._mark.vote):
            return None
        return self.raise_mark()

    def raise_mark(self) -> Mark:
        """How far this replica is, to be kept apart from the store."""
        raft = self.raft
        # While a snapshot takes the place of the log, that is as if nothing of it were durable.
        committed = max(self._mark.committed, min(raft.commit_index, raft.log.durable_index))
        self._mark = Mark(raft.term, raft.vote, committed)
        return self._mark

    @property
    def is_past_mark(self) -> bool:
        """Whether more is committed than its mark says."""
        return min(self.raft.commit_index, self.raft.log.durable_index) > self._mark.committed

    def _take_ready(self, ready: Ready, batch: Batch) -> None:
        for message in ready.messages:
            if not isinstance(message, InstallSnapshot):  # that goes with its data
                self._send(self.group, message)
        for to in ready.snapshots_wanted:
            self._wanted(self.followers, to)
        if ready.snapshot is None and ready.must_sync:
            # That more is committed says the state as well, once it is written.
            self._take_entries(ready, batch)
        self._to_apply.extend((entry, _command(entry)) for entry in ready.committed)
        for read in ready.reads:
            self._confirmed(read)
        for context in ready.reads_lost:
            lost = Unavailable(f"group {self.group} has changed its leader")
            for reader in self._asked.pop(context, ()):
                _tell(reader.lost, lost)

    def _take_entries(self, ready: Ready, batch: Batch) -> None:
        is_replacing = bool(ready.entries) and ready.entries[0].index <= self._last_written
        self._last_written = logs.save(batch, self.group, ready, self._last_written)
        if is_replacing:
            self._compaction.measure()
        else:
            self._compaction.appended(ready.entries)

    def _forget_state(self, last_written: int) -> None:
        """A snapshot takes the place of log and state: what is in hand of both is void."""
        self._last_written = last_written
        self.has_changes = False
        self._base = None
        self._to_apply.clear()
        self._compaction.measure()

    def written(self, written: Written) -> None:
        """What `take` has put into a batch is durable."""
        if written.ready is not None:
            self.raft.persisted(written.ready)
        if written.is_switch:
            self._installing.durable()
            self._changed(self)
        if written.state is not None:
            self._state.committed(written.state)
            self._saved(written.applied)
            self._compact(written.applied)
        if self.raft.has_ready():
            self._changed(self)

    def _saved(self, index: int) -> None:
        self._saved_index = index
        while self._savings and self._savings[0][0] <= index:
            self._savings.popleft()[1].callback(None)

    def _compact(self, saved: int) -> None:
        """Forget entries whose changes are in the store, which has all up to *saved*."""
        base = self._compaction.compact(saved)
        if base is not None:
            self._base = base
            self._changed(self)

    def _take_base(self, batch: Batch) -> None:
        """Put into *batch* that the log begins later; what goes has done its work already."""
        if self._base is not None:
            logs.save_base(batch, self.group, self._base)
            self._base = None

    # -- applying -------------------------------------------------------------------------------

    def apply(self) -> Needed | None:
        """Carry out what is committed, as far as the records that it needs are in memory.

        Returns what has to be fetched before it can go on; ``None``: it has come to the end.
        """
        if self._installing.is_switching:
            return Needed(is_state=True) if self._installing.is_durable else None
        machine, records = self._state.machine, self._state.records
        while self._to_apply:
            entry, command = self._to_apply[0]
            if command is not None:
                missing = records.missing(machine.needs(command))
                if missing:
                    return Needed(tuple(missing))
            self._to_apply.popleft()
            self._carry_out(entry, command)
        return self._answer_reads()

    def _carry_out(self, entry: Entry, command: Command | LonePut | None) -> None:
        machine = self._state.machine
        answer: Answer | None = None
        if command is None:
            machine.skip(entry.index)
        else:
            answer = machine.carry_out(entry.index, command)
            self._state.note(entry.index, command)
        self.has_changes = True
        self.raft.applied(entry.index)
        proposal = self._proposals.pop(entry.index, None)
        if proposal is None:
            return
        term, writer = proposal
        if term == entry.term and answer is not None:
            _tell(writer.applied, answer)
        else:
            lost = "its leader was deposed, and another one's entry took the place"
            _tell(writer.lost, OutcomeUnknown(lost))

    def _confirmed(self, read: ReadState) -> None:
        asked = self._asked.pop(read.context, [])
        for at in range(0, len(asked), READS_MAX):
            self._reads.append((read.index, asked[at : at + READS_MAX]))

    def _answer_reads(self) -> Needed | None:
        state, records = self._state, self._state.records
        while self._reads and self._reads[0][0] <= state.machine.applied_index:
            _, readers = self._reads[0]
            missing = records.missing([reader.key for reader in readers])
            if missing:
                return Needed(tuple(missing))
            self._reads.popleft()
            for reader in readers:
                _tell(reader.found, state.read(reader.key))
        records.forget_fetched()
        return None

    def fetch(self, engine: Engine, needed: Needed) -> Found:
        """Read what is needed; on a thread."""
        if needed.is_state:
            return load_state(self.group, engine, engine.get_cached)
        return self._state.records.fetch(engine, needed.keys)

    def have_fetched(self, found: Found) -> None:
        """It was read: `apply` may go on."""
        if isinstance(found, dict):
            self._state.records.have_fetched(found)
            return
        assert found is not None, "the state was installed just now"
        if not self._installing.is_durable:
            return  # it was loaded before
        self._state = found
        self._installing.loaded()
        self._saved(found.machine.applied_index)

    # -- the end --------------------------------------------------------------------------------

    def lose_proposals(self, why: KvtwistError) -> None:
        """What was proposed and is not applied will not be, as far as this replica can say."""
        proposals, self._proposals = self._proposals, {}
        for _, writer in proposals.values():
            _tell(writer.lost, why)

    def give_up(self, why: KvtwistError) -> None:
        """This replica is over: what it was asked for and has not answered is unknown."""
        self._over = why
        self.followers.give_up()
        self._installing.give_up(why)
        self.lose_proposals(OutcomeUnknown(str(why)))
        readers = [reader for asked in self._asked.values() for reader in asked]
        readers += [reader for _, confirmed in self._reads for reader in confirmed]
        savings = [saved for _, saved in self._savings]
        self._savings.clear()
        self._asking = None
        self._asked.clear()
        self._reads.clear()
        for reader in readers:
            _tell(reader.lost, Unavailable(str(why)))
        for saved in savings:
            saved.errback(Failure(Unavailable(str(why))))


def _tell(told: Callable[[_Told], None], what: _Told) -> None:
    """Tell who waits. What goes wrong there is that one's trouble: not the replica's, nor that of
    those who are told next."""
    try:
        told(what)
    except Exception:
        _log.failure("a bug: who waited for a replica failed")


def _command(entry: Entry) -> Command | LonePut | None:
    """What an entry asks of the state machine; ``None``: nothing."""
    return decode_entry(entry.data) if entry.kind is EntryKind.DATA else None


def _too_large(size_bytes: int) -> TooLarge:
    return TooLarge(
        f"that is {size_bytes} bytes of one partition's log at once, and nodes bring each other "
        f"{ENTRY_BYTES_MAX}: write less in one batch",
        setting="box_bytes_max",
        limit=ENTRY_BYTES_MAX,
        actual=size_bytes,
    )


def _dropped(group: int, dropped: Dropped) -> KvtwistError:
    """What became of a request that was dropped: nothing."""
    why = f"group {group} does not take it: {dropped.reason.value}"
    if dropped.reason is Reason.UNCOMMITTED_BYTES:
        return Overloaded(why, setting="uncommitted_bytes_max")
    return NotLeader(why)
