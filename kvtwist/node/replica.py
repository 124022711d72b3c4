"""One replica of one group: the Raft core and the state machine, and who waits for them.

It does nothing by itself: `kvtwist.node.replicas` asks it what is to be done, does that for all
replicas together, and tells it when it is done. What a caller gets of a write is one of the three
outcomes: its answer, once the entry is applied; a `NotDone`, if it was never proposed; or
`OutcomeUnknown`, if somebody else's entry has taken its place, or the replica is over.

Its parts: who waits for writes (`kvtwist.node.proposals`) and for reads (`kvtwist.node.reads`),
what the store keeps of it (`kvtwist.node.kept`, `kvtwist.node.compaction`), snapshots that come in
(`kvtwist.node.installing`) and those that its followers need (`kvtwist.node.followers`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred, fail

from kvtwist.core.raft import Entry, EntryKind, Message, Raft, Ready, Role, Senseless
from kvtwist.core.raft.messages import InstallSnapshot
from kvtwist.core.state.answers import Answer
from kvtwist.core.state.commands import Command, LonePut, decode_entry, encode
from kvtwist.core.state.contents import stored_key
from kvtwist.core.state.records import Record
from kvtwist.errors import KvtwistError, OutcomeUnknown, Unavailable
from kvtwist.node.compaction import Compaction
from kvtwist.node.deferreds import DeferredReader, DeferredWriter
from kvtwist.node.expiry import Expiry
from kvtwist.node.followers import Followers
from kvtwist.node.installing import Installing
from kvtwist.node.kept import Kept
from kvtwist.node.proposals import Proposals, Stamps
from kvtwist.node.reads import Reads
from kvtwist.node.turns import Found, Needed, Written
from kvtwist.node.waiting import Reader, Writer
from kvtwist.storage.engine import Batch, Engine
from kvtwist.storage.marks import Mark
from kvtwist.storage.snapshots import Incoming
from kvtwist.storage.states import StoredState, load_state

Stamped = Callable[[int], Command]
"""Makes a command, given its stamp in log time (ms)."""


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
        self._changed = changed
        self._send = send
        self._wanted = wanted
        self._compaction = Compaction(raft)
        self._installing = Installing(raft)
        self.followers = Followers(group, raft, self._compaction, lambda: changed(self))
        self._kept = Kept(group, raft, self._compaction, last_written, state.machine.applied_index)
        self._proposals = Proposals(group, raft)
        self._reads = Reads(group, raft, lambda: changed(self))
        self._stamps = Stamps(raft, seconds)
        self._to_apply: deque[tuple[Entry, Command | LonePut | None]] = deque()
        self.has_changes = False
        self._over: KvtwistError | None = None
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
        refused = self._proposals.propose(entry, writer)
        if refused is None:
            self._changed(self)
        return refused

    def read(self, key: bytes, keyspace: int) -> Deferred[Record | None]:
        """The record of *key*, no older than the call: linearizable."""
        reader = DeferredReader(stored_key(keyspace, key))
        refused = self.ask(reader)
        return reader if refused is None else fail(refused)

    def ask(self, reader: Reader) -> KvtwistError | None:
        """Tell *reader* what is there, no older than the call; why not, if nobody was asked."""
        if self._over is not None:
            return Unavailable(str(self._over))
        return self._reads.ask(reader)

    def settled(self) -> Deferred[None]:
        """Fires when the state in the store has all that was answered before this call."""
        return self.read(b"", 0).addCallback(lambda _: self._when_saved())

    def _when_saved(self) -> Deferred[None]:
        saved = self._kept.when_saved(self.applied_index)
        if not saved.called:
            self._changed(self)
        return saved

    def stamp_ms(self) -> int:
        """Log time now, as the leader counts it."""
        return self._stamps.stamp_ms(self._state.machine.log_time_ms)

    def next_due_ms(self) -> int | None:
        """The log time at which a session or record expires next."""
        return self._state.machine.next_due_ms()

    # -- how it is ------------------------------------------------------------------------------

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
        return self._kept.is_waited_for

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for what is committed to be applied: a leader's users, readers,
        and a snapshot's data that is to become the state."""
        waiting = len(self._proposals) + len(self._reads.confirmed)
        return (
            self.leads or waiting > 0 or self.is_waiting_for_store or self._installing.is_switching
        )

    @property
    def has_entries(self) -> bool:
        """Whether its log has entries that nobody has taken yet, to send or to persist."""
        return self.raft.log.has_unwritten

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

    # -- time and messages ----------------------------------------------------------------------

    def tick(self, number: int, may_expire: bool) -> None:
        """Time passes.

        :param number: of the tick.
        :param may_expire: whether anything can be written here.
        """
        self.raft.tick()
        self._compaction.tick()
        self._note_ready()
        self._proposals.tick()
        if may_expire:
            self._expiry.tick(number + self.group)

    def suspect(self) -> None:
        """The leader's node is silent."""
        self.raft.suspect()
        self._note_ready()

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
        self._note_ready()

    def _note_ready(self) -> None:
        if self.raft.has_ready():
            self._changed(self)

    # -- leadership -----------------------------------------------------------------------------

    def hand_over(self, to: int) -> bool:
        """Hand leadership to replica *to*, if that is close and this leads; whether it began."""
        if not self.leads:
            return False
        dropped = self.raft.transfer_leadership(to)
        self._note_ready()
        return dropped is None

    def closest_followers(self) -> list[int]:
        """The other voters, those first whose logs are closest to this leader's."""
        match = {replica: each.match for replica, each in self.raft.progress().items()}
        voters = [each for each in self.raft.configuration.voters if each in match]
        return sorted(voters, key=lambda each: (-match[each], each))

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

    # -- what is to be persisted ----------------------------------------------------------------

    def take(self, batch: Batch) -> Written | None:
        """Send what may leave; put into *batch* what is to be persisted.

        Returns what is in the batch; ``None``: nothing that has to be told of when it is written.
        """
        self._reads.end_round()
        ready = self.raft.ready() if self.raft.has_ready() else None
        last_installed = self._installing.take(batch, ready, self._state)
        if last_installed is not None:
            self._forget_state(last_installed)
        if ready is not None:
            self._take_ready(ready, batch)
        self._kept.take_base(batch)
        is_switch = last_installed is not None
        if ready is not None and (ready.must_sync or is_switch):
            mark, sync = self._kept.new_mark(), ready.must_sync
            return Written(ready.number, sync=sync, mark=mark, is_switch=is_switch)
        # A Ready with nothing to persist is not told of: it would be taken for all before it.
        return None

    def take_changes(self, batch: Batch) -> Written | None:
        """Put into *batch* what was applied since the last time. Returns as `take`.

        It need not be there soon: whatever it says is in the log as well.
        """
        if not self.has_changes:
            return None
        self.has_changes = False
        changes, number = self._state.take_batch()
        batch.extend(changes)
        return Written(state=number, applied=self.applied_index)

    def raise_mark(self) -> Mark:
        """How far this replica is, to be kept apart from the store (S7)."""
        return self._kept.raise_mark()

    @property
    def is_past_mark(self) -> bool:
        """Whether more is committed than its mark says."""
        return self._kept.is_past_mark

    def _take_ready(self, ready: Ready, batch: Batch) -> None:
        for message in ready.messages:
            if not isinstance(message, InstallSnapshot):  # that goes with its data
                self._send(self.group, message)
        for to in ready.snapshots_wanted:
            self._wanted(self.followers, to)
        if ready.snapshot is None and ready.must_sync:
            # That more is committed says the state as well, once it is written.
            self._kept.take_entries(ready, batch)
        self._to_apply.extend((entry, _command(entry)) for entry in ready.committed)
        for read in ready.reads:
            self._reads.confirm(read)
        for context in ready.reads_lost:
            self._reads.lose(context)

    def _forget_state(self, last_written: int) -> None:
        """A snapshot takes the place of log and state: what is in hand of both is void."""
        self.has_changes = False
        self._to_apply.clear()
        self._kept.replaced(last_written)

    def written(self, written: Written) -> None:
        """What `take` or `take_changes` has put into a batch is written; durable, if it must be."""
        if written.ready is not None:
            self.raft.persisted(written.ready)
        if written.is_switch:
            self._installing.durable()
            self._changed(self)
        if written.state is not None:
            self._state.committed(written.state)
            self._kept.saved(written.applied)
            if self._kept.compact(written.applied):
                self._changed(self)
        self._note_ready()

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
        self._proposals.applied(entry, answer)

    def _answer_reads(self) -> Needed | None:
        return self._reads.answer(self._state)

    def fetch(self, engine: Engine, needed: Needed) -> Found:
        """Read what is needed; on a thread."""
        records = self._state.records
        if needed.is_state:
            recent_bytes_max = records.recent_bytes_max
            return load_state(self.group, engine, engine.get_cached, recent_bytes_max)
        return records.fetch(engine, needed.keys)

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
        self._kept.saved(found.machine.applied_index)

    # -- the end --------------------------------------------------------------------------------

    def lose_proposals(self, why: KvtwistError) -> None:
        """What was proposed and is not applied will not be, as far as this replica can say."""
        self._proposals.lose(why)

    def give_up(self, why: KvtwistError) -> None:
        """This replica is over: what it was asked for and has not answered is unknown."""
        self._over = why
        self.followers.give_up()
        self._installing.give_up(why)
        self.lose_proposals(OutcomeUnknown(str(why)))
        self._reads.give_up(why)
        self._kept.give_up(why)


def _command(entry: Entry) -> Command | LonePut | None:
    """What an entry asks of the state machine; ``None``: nothing."""
    return decode_entry(entry.data) if entry.kind is EntryKind.DATA else None
