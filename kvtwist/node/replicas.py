"""All replicas of a node, driven together: one turn, one batch, one sync.

**The order of safety** is in this module, and nowhere else on a node. A turn (`_turn`), for all
replicas that have changed:

1. Take what each core has to say (`Replica.take`): its messages go to the post, what it wants
   persisted into one batch; what is committed, and durable here, is to be applied. While a batch is
   being synced new entries stay in their cores, and gather there for the next.
2. Send the messages (`Carrier.flush`). A core keeps to itself what depends on something unsynced
   (`kvtwist.core.raft`): so a leader's appends leave before its own sync, a vote never does.
3. Have the batch committed (`_commit`): one sync for all groups, with the marks of new terms and
   votes. Nobody waits for it here; other turns go on, and batches are committed in their order.
4. Apply, each replica in the order of its log; then answer the writes, and the reads that were
   confirmed for an index that is applied. Where nobody waits for it, that is left to the next tick.

When a batch is durable (`_written`) the cores are told. That lets go of the votes and
acknowledgements that waited for it, and of entries to be applied; the next turn follows at once.

**What is lazy**, and why nothing is lost by it. What entries have changed is taken once a tick, and
written without a sync, with the index of the last of them (`_take_changes`): after a crash the log
is applied again from there. That the log begins later goes with any batch after the one that has
that state, and a store never has a later batch without an earlier one. That more is committed is
written with the next entry, term or vote only; whoever leads after a crash finds it out again.

**Snapshots.** The batch of the turn in which the core takes one makes its data, which is in the
store already, the group's own. From then on, until that is durable and the new state is loaded
(`_fetched`), nothing of that group is applied or read (`kvtwist.node.installing`).

When the store fails, all replicas are over. When its disk was full and has room again, they are
made anew from what the store has, as after a crash (S2, S8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvtwist.core.raft import Message, Senseless
from kvtwist.errors import KvtwistError, OutcomeUnknown, StoreFailed
from kvtwist.node.leadership import LOOK_TICKS
from kvtwist.node.replica import Replica
from kvtwist.node.turns import Found, Written
from kvtwist.storage.engine import Batch
from kvtwist.storage.marks import Mark
from kvtwist.storage.store import Condition, Store
from kvtwist.wire.seldom import Seldom
from kvtwist.wire.turn import Turn

TICK_SECONDS: Final = 0.05
"""Half a heartbeat; the election timeout is ten of them."""
MARK_TICKS: Final = 20
GATHERING_TICKS: Final = 2
LAZY_BYTES_MAX: Final = 1 << 18
"""What need not be durable yet does not wait when it is more than that."""

_log = Logger(namespace="kvtwist.node")


class Carrier(Protocol):
    """Carries messages between nodes: `kvtwist.node.post.Post`."""

    def flush(self) -> None:
        """Send what this turn has brought."""

    def tick(self) -> None:
        """Time passes."""


class Replicas:
    """The replicas of a node.

    :param post: carries messages to other nodes.
    :param wire_turn: joins what is sent to others in one turn of theirs or ours.
    :param make: makes a replica anew from the store, given whom to tell of changes.
    :param looked: called every `LOOK_TICKS`, to see who should lead.
    :param failed: called, once, when a replica cannot go on: the node has to end.

    :ivar senseless: messages that were passed over, since they may not come.
    """

    def __init__(
        self,
        reactor: Any,
        store: Store,
        post: Carrier,
        wire_turn: Turn,
        make: Callable[[int, Callable[[Replica], None]], Replica],
        failed: Callable[[KvtwistError], None],
        looked: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._post = post
        self._wire_turn = wire_turn
        self._looked = looked
        self._make = make
        self._failed: Callable[[KvtwistError], None] | None = failed
        self._replicas: dict[int, Replica] = {}
        self._changed: dict[int, Replica] = {}
        self._unsaved: dict[int, Replica] = {}
        self._fetching: set[Replica] = set()
        self._turn_is_due = False
        self._is_save_due = False
        self._is_committing = False
        self._commit_tick = 0
        self._late: dict[int, Replica] = {}
        self._batch = Batch()
        self._taken: list[tuple[Replica, Written]] = []
        self.senseless = 0
        self._seldom = Seldom(_log, reactor.seconds)
        self._ticks = self._marked_tick = 0
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor
        store.on_failed(self._store_failed)
        store.on_reopened(self._start_anew)

    def start(self, groups: Iterable[int]) -> None:
        """Make the replicas of *groups*, and let time pass for them."""
        for group in groups:
            self._replicas[group] = self._make(group, self._note)
        self._ticking.start(TICK_SECONDS, now=False)

    def stop(self, why: KvtwistError) -> None:
        """Let no more time pass; what has been asked for and is not answered is unknown."""
        if self._ticking.running:
            self._ticking.stop()
        self._is_save_due = True
        self._commit()
        self._give_up(why)

    def replica(self, group: int) -> Replica:
        """The replica of *group*.

        :raises KeyError: when there is none here.
        """
        return self._replicas[group]

    def all(self) -> Mapping[int, Replica]:
        """All of them, by group; not to be changed."""
        return self._replicas

    def step(self, group: int, message: Message) -> None:
        """A message has come for the replica of *group*; nobody's, if there is none here.

        One that may not come is passed over, as if it had been lost: the core has looked at it
        before it did anything. If it fails after that, nobody knows what it has done by halves: the
        replica must not go on, and its node begins anew from its disk.
        """
        replica = self._replicas.get(group)
        if replica is None:
            return
        try:
            replica.step(message)
        except Senseless as why:
            self.senseless += 1
            self._seldom.warn(f"group {group}: a message was passed over: {why}")
        except Exception:
            self._broken(replica)

    # -- turns --------------------------------------------------------------------------------

    def _note(self, replica: Replica) -> None:
        self._changed[replica.group] = replica
        if not self._turn_is_due:
            self._turn_is_due = True
            self._reactor.callLater(0, self._turn)

    def _tick(self) -> None:
        self._ticks += 1
        self._post.tick()
        is_open = self._store.condition is Condition.OPEN
        for replica in list(self._replicas.values()):
            replica.tick(self._ticks, is_open)
        self._apply_late()
        self._is_save_due = True
        self._commit()
        if self._ticks % LOOK_TICKS == 0:
            self._looked()

    def _due_marks(self) -> dict[int, Mark]:
        """What is committed, noted at most once a second (S7)."""
        if self._ticks - self._marked_tick < MARK_TICKS:
            return {}
        self._marked_tick = self._ticks
        return {
            group: replica.raise_mark()
            for group, replica in self._replicas.items()
            if replica.is_past_mark
        }

    def _turn(self) -> None:
        """Do what is to be done for all replicas that have changed."""
        self._turn_is_due = False
        changed, self._changed = self._changed, {}
        is_urgent = False
        for replica in changed.values():
            if self._replicas.get(replica.group) is not replica:
                continue  # it is over
            if replica.has_entries and self._is_gathering:
                self._changed[replica.group] = replica
                continue
            try:
                taken = replica.take(self._batch)
            except Exception:
                self._broken(replica)
                return
            if taken is not None:
                self._taken.append((replica, taken))
                is_urgent = is_urgent or taken.sync
            self._is_save_due = self._is_save_due or replica.is_waiting_for_store
        self._joined(self._post.flush)  # they leave now, and not with the answers
        if is_urgent or self._is_save_due or self._batch.size_bytes >= LAZY_BYTES_MAX:
            self._commit()
        self._joined(lambda: self._apply_all(changed.values()))

    @property
    def _is_gathering(self) -> bool:
        """Whether new entries wait for the commit that is under way, and then go together. Not for
        long: a disk that stalls must not silence the leaders here."""
        return self._is_committing and self._ticks - self._commit_tick < GATHERING_TICKS

    def _commit(self) -> None:
        """Have all that was taken committed; when it is time, also what was applied.

        What need not be durable, since the log says it too, waits for what must be, or for the next
        tick: each commit costs a trip to the thread and back. What was applied waits for the tick:
        what all of that together has changed is less than each has, of sessions above all.
        """
        if self._is_save_due:
            self._is_save_due = False
            self._take_changes()
        if not self._batch:
            return
        batch, self._batch = self._batch, Batch()
        written, self._taken = self._taken, []
        marks = self._due_marks()
        marks |= {each.group: what.mark for each, what in written if what.mark is not None}
        sync = any(what.sync for _, what in written)
        if sync and not self._is_committing:
            self._is_committing, self._commit_tick = True, self._ticks
        committed = self._store.write(batch, sync=sync, marks=marks, at_once=True)
        committed.addCallbacks(
            lambda _: self._written(written, sync),
            self._not_written,
            errbackArgs=(written, sync),
        )

    def _take_changes(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        for replica in unsaved.values():
            if self._replicas.get(replica.group) is replica:
                try:
                    taken = replica.take_changes(self._batch)
                except Exception:
                    self._broken(replica)
                    return
                if taken is not None:
                    self._taken.append((replica, taken))

    def _joined(self, act: Callable[[], None]) -> None:
        """Have what *act* sends leave in one write for each connection."""
        is_mine = self._wire_turn.open()
        try:
            act()
        finally:
            if is_mine:
                self._wire_turn.close()

    def _written(self, written: list[tuple[Replica, Written]], sync: bool) -> None:
        if sync:
            self._is_committing = False
        for replica, what in written:
            if self._replicas.get(replica.group) is replica:
                replica.written(what)
        if self._changed:
            self._turn()  # at once: nobody gains by another trip around the reactor

    def _not_written(
        self, failure: Failure, written: list[tuple[Replica, Written]], sync: bool
    ) -> None:
        """The batch has failed, or was refused: tell who waits for what was in it. The replicas are
        made anew when the store is there again; if it ever is.

        What was refused here may have been sent to others, and be committed by them."""
        if sync:
            self._is_committing = False
        error = failure.value
        if not isinstance(error, KvtwistError):
            failure.raiseException()
        for replica, _ in written:
            replica.lose_proposals(error if replica.is_alone else OutcomeUnknown(str(error)))

    # -- applying -------------------------------------------------------------------------------

    def _apply_all(self, replicas: Iterable[Replica]) -> None:
        """Apply what is committed: at once where somebody waits for it, else at the next tick."""
        for replica in replicas:
            if replica.is_waited_for:
                self._apply(replica)
            else:
                self._late[replica.group] = replica

    def _apply_late(self) -> None:
        late, self._late = self._late, {}
        for replica in late.values():
            self._apply(replica)

    def _apply(self, replica: Replica) -> None:
        group = replica.group
        if replica in self._fetching or self._replicas.get(group) is not replica:
            return
        try:
            needed = replica.apply()
        except Exception:
            self._broken(replica)
            return
        if replica.has_changes:
            self._unsaved[group] = replica
        if needed is not None:
            self._fetching.add(replica)
            found = self._store.read(lambda engine: replica.fetch(engine, needed))
            found.addCallbacks(
                self._fetched, self._not_fetched, callbackArgs=(replica,), errbackArgs=(replica,)
            )

    def _fetched(self, found: Found, replica: Replica) -> None:
        self._fetching.discard(replica)
        if self._replicas.get(replica.group) is replica:
            replica.have_fetched(found)
            self._joined(lambda: self._apply(replica))

    def _not_fetched(self, failure: Failure, replica: Replica) -> None:
        self._fetching.discard(replica)
        if self._store.condition is Condition.FULL:
            return  # the store may have been closed under it, to be opened again: so will replicas
        if self._replicas.get(replica.group) is replica:
            self._end(failure.value)

    # -- the end, or a new beginning ------------------------------------------------------------

    def _broken(self, replica: Replica) -> None:
        """A replica that meets what it does not understand stops, and so does its node: to skip
        what others apply would make it another state."""
        failure = Failure()
        _log.failure("group {group} cannot go on", failure, group=replica.group)
        self._end(failure.value)

    def _store_failed(self, error: KvtwistError) -> None:
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        known = isinstance(error, KvtwistError)
        why = error if known else StoreFailed(f"a replica cannot go on: {error!r}")
        assert isinstance(why, KvtwistError)
        if self._ticking.running:
            self._ticking.stop()
        self._give_up(why)
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(why)

    def _give_up(self, why: KvtwistError) -> None:
        replicas, self._replicas = self._replicas, {}
        self._changed.clear()
        self._late.clear()
        self._batch, self._taken = Batch(), []
        self._unsaved.clear()
        for replica in replicas.values():
            replica.give_up(why)

    def _start_anew(self) -> None:
        """There is room again: everything is as the store has it, not as it was in memory."""
        groups = list(self._replicas)
        self._give_up(OutcomeUnknown("the disk was full; what was under way may be lost"))
        self._fetching.clear()
        for group in groups:
            self._replicas[group] = self._make(group, self._note)
