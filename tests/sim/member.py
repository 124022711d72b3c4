"""A member of the group: a replica, its disk, its state machine, and what binds them together.

This is the caller that `kvtwist.core.raft` asks for, and a model for others: send, persist, apply,
answer, in this order, after each thing that goes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from kvtwist.core.raft import (
    Change,
    Dropped,
    Entry,
    EntryKind,
    Message,
    Proposed,
    Raft,
    ReadState,
    Ready,
    Role,
    Snapshot,
)
from kvtwist.core.state.logtime import LogClock
from tests.sim.disk import Disk, Write
from tests.sim.machine import TICK_MS, Answer, Machine
from tests.sim.plan import Plan
from tests.sim.schedule import TICK, Schedule
from tests.sim.watch import Lost, Reply, Watch


class Member:
    """A member.

    :param send: carries a message.
    :param tick_moments: between two ticks of its clock.
    :ivar raft: ``None`` while it is down.
    :ivar life: its present one, 0 while it is down; what belongs to another is stale.
    :ivar is_paused: nothing reaches it; all of it comes at once when the pause ends.
    :ivar apply_moments: how long it takes to apply what it is handed.
    """

    def __init__(
        self,
        replica: int,
        schedule: Schedule,
        random: Random,
        plan: Plan,
        disk: Disk,
        watch: Watch,
        send: Callable[[Message], None],
        tick_moments: int = TICK,
    ) -> None:
        self.replica = replica
        self.disk = disk
        self.settings = plan.settings
        self.tick_moments = tick_moments
        self.raft: Raft | None = None
        self.machine = Machine()
        self.life = 0
        self.is_paused = False
        self.is_retired = False
        self.apply_moments = 0
        self._schedule = schedule
        self._random = random
        self._plan = plan
        self._watch = watch
        self._send = send
        self._forget()

    def _forget(self) -> None:
        """Be as a process is that has just begun."""
        self._backlog: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.ticks = 0
        self._last_number = 0
        self._unsynced: deque[tuple[int, int]] = deque()
        self._to_apply: deque[Entry] = deque()
        self._is_applying = False
        self._installing: Snapshot | None = None
        self._proposals: dict[int, tuple[int, Reply]] = {}
        self._reads: dict[bytes, tuple[bytes, Reply]] = {}
        self._due: list[ReadState] = []
        self._contexts = 0
        self._is_turn_due = False
        self._clock: LogClock | None = None
        self._clock_term = 0

    # -- life and death -----------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether it runs; it may be paused."""
        return self.raft is not None

    @property
    def is_leading(self) -> bool:
        """Whether it takes itself for the leader."""
        return self.raft is not None and self.raft.role is Role.LEADER

    def start(self) -> None:
        """Begin, from what is on the disk."""
        assert self.raft is None
        self.life = self.disk.start()
        self.is_paused = False
        self._forget()
        image = self.disk.written
        self.machine = Machine.decode(image.state)
        if self._plan.disks.keeps_state:
            # The state on the disk is what these entries have made of it.
            for entry in image.entries[image.state_index - image.compacted_index :]:
                if entry.index <= image.applied:
                    self.machine.apply(entry)
        restored = image.restored(self.machine.applied)
        self.raft = Raft(self.replica, self.settings, restored, self._random.random, self.life)
        self._watch.started(self)
        self._schedule.after(self._random.randrange(self.tick_moments), self._tick, self.life)
        self._turn()

    def crash(self) -> bool:
        """Be gone, and what the disk has not synced with it. Whether anything was lost."""
        assert self.raft is not None
        self.raft, self.life = None, 0
        self._forget()
        return self.disk.crash()

    @property
    def gathers(self) -> bool:
        """Whether more than one thing may have come in between two looks at it."""
        return self._plan.turn_moments > 0

    @property
    def reads_open(self) -> int:
        """How many reads have no answer yet, not even that they are lost."""
        return len(self._reads)

    @property
    def sync_ticks(self) -> int:
        """For how many of its own ticks it has waited for its disk."""
        return self.ticks - self._unsynced[0][1] if self._unsynced else 0

    def pause(self) -> None:
        """Stand still."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on, beginning with all that has come meanwhile."""
        self.is_paused = False
        backlog, self._backlog = self._backlog, []
        life = self.life
        for action, arguments in backlog:
            if self.raft is None or self.life != life:
                return
            action(*arguments)

    def _is_there(self, action: Callable[..., object], *arguments: Any) -> bool:
        """Whether *action* can take place now; if it is only paused, it will."""
        if self.is_paused:
            self._backlog.append((action, arguments))
        return self.raft is not None and not self.is_paused

    # -- what goes in -------------------------------------------------------------------------

    def _tick(self, life: int) -> None:
        if life == self.life and self.raft is not None:
            self._schedule.after(self.tick_moments, self._tick, life)
            self._ticked()

    def _ticked(self) -> None:
        if self._is_there(self._ticked):
            assert self.raft is not None
            self.ticks += 1
            self.raft.tick()
            self._turn()

    def receive(self, message: Message) -> bool:
        """A message has come. Whether there is anybody."""
        if self._is_there(self.receive, message):
            assert self.raft is not None
            self.raft.step(message)
            self._turn()
        return self.raft is not None

    def snapshot_sent(self, life: int, to: int, delivered: bool) -> None:
        """A snapshot that was sent in that *life* is no more under way."""
        if life == self.life and self._is_there(self.snapshot_sent, life, to, delivered):
            assert self.raft is not None
            self.raft.snapshot_sent(to, delivered)
            self._turn()

    def suspect(self) -> None:
        """The leader's node is silent."""
        if self._is_there(self.suspect):
            assert self.raft is not None
            self.raft.suspect()
            self._turn()

    def transfer_leadership(self, to: int) -> object:
        """Hand leadership over; what the replica says to that."""
        assert self.raft is not None
        said = self.raft.transfer_leadership(to)
        self._turn()
        return said

    def propose_membership(self, change: Change) -> object:
        """Change the membership; what the replica says to that."""
        assert self.raft is not None
        said = self.raft.propose_membership(change)
        self._turn()
        return said

    def write(self, payload: Callable[[int], bytes], reply: Reply) -> None:
        """Have *payload*, which is made with a stamp of log time, replicated and applied."""
        if not self._is_there(self.write, payload, reply):
            return
        assert self.raft is not None
        said = self.raft.propose([payload(self._stamp_ms(self.raft))])
        if isinstance(said, Proposed):
            self._proposals[said.index] = (said.term, reply)
        else:
            reply(said)
        self._turn()

    def _stamp_ms(self, raft: Raft) -> int:
        """The log time now, as this leader has it; nothing comes of anybody else's."""
        if self._clock is None or self._clock_term != raft.term:
            self._clock_term = raft.term
            self._clock = LogClock(self.machine.state.log_time_ms, self._now_seconds())
        return self._clock.stamp_ms(self._now_seconds())

    def _now_seconds(self) -> float:
        return self._schedule.now / self.tick_moments * TICK_MS / 1000

    def read(self, key: bytes, reply: Reply) -> None:
        """Read *key* linearizably."""
        if not self._is_there(self.read, key, reply):
            return
        assert self.raft is not None
        self._contexts += 1
        context = b"%d %d %d" % (self.replica, self.life, self._contexts)
        self._reads[context] = (key, reply)
        self._watch.asked(self, context)
        said = self.raft.read_index(context)
        if isinstance(said, Dropped):
            del self._reads[context]
            reply(said)
        self._turn()

    # -- what comes out -----------------------------------------------------------------------

    def _turn(self) -> None:
        """Do all that there is to be done, now or together with what comes next."""
        if not self._plan.turn_moments:
            self._act()
        elif not self._is_turn_due:
            self._is_turn_due = True
            moments = self._random.randrange(self._plan.turn_moments)
            self._schedule.after(moments, self._act_later, self.life)

    def _act_later(self, life: int) -> None:
        if life == self.life and self._is_there(self._act_later, life):
            self._is_turn_due = False
            self._act()

    def _act(self) -> None:
        raft, took = self.raft, False
        while raft is not None and raft.has_ready():
            took = True
            ready = raft.ready()
            self._watch.took(self, ready)
            for message in ready.messages:
                self._send(message)
            self._persist(raft, ready)
            self._to_apply.extend(ready.committed)
            self._apply_soon()
            self._due.extend(ready.reads)
            self._answer_reads()
            for context in ready.reads_lost:
                self._reads.pop(context)[1](Lost.NOT_DONE)
            for replica in ready.snapshots_wanted:
                self._make_snapshot(raft, replica)
            raft = self.raft
        if raft is not None:
            self._watch.stepped(self, took)

    def _make_snapshot(self, raft: Raft, to: int) -> None:
        snapshot = self._snapshot(raft, self.machine.applied)
        if self._plan.snapshot_moments:
            moments = self._random.randrange(self._plan.snapshot_moments)
            self._schedule.after(moments, self._send_snapshot, self.life, to, snapshot)
        else:
            raft.send_snapshot(to, snapshot)

    def _send_snapshot(self, life: int, to: int, snapshot: Snapshot) -> None:
        if life == self.life and self._is_there(self._send_snapshot, life, to, snapshot):
            assert self.raft is not None
            self.raft.send_snapshot(to, snapshot)
            self._turn()

    def _persist(self, raft: Raft, ready: Ready) -> None:
        self._last_number = ready.number
        if ready.hard_state or ready.snapshot or ready.entries:
            self.disk.write(Write(ready.hard_state, ready.snapshot, ready.entries))
        if ready.snapshot is not None:
            # Whatever was waiting to be applied is in it.
            self._to_apply.clear()
            self._installing = ready.snapshot
        if ready.must_sync:
            self._unsynced.append((ready.number, self.ticks))
            self.disk.sync(partial(self._synced, self.life, ready.number))
        elif not self._unsynced:
            raft.persisted(ready.number)

    def _synced(self, life: int, number: int, is_well: bool) -> None:
        if life != self.life:
            return
        if not is_well:
            self._watch.failed(self)  # S1: nobody may go on with this disk
        elif self._is_there(self._synced, life, number, is_well):
            assert self.raft is not None
            self._watch.synced(self)
            while self._unsynced and self._unsynced[0][0] <= number:
                self._unsynced.popleft()
            # Those after it that need no sync are done with it.
            self.raft.persisted(self._unsynced[0][0] - 1 if self._unsynced else self._last_number)
            self._install()
            self._turn()

    def _install(self) -> None:
        snapshot = self._installing
        if snapshot is not None and self.disk.durable.compacted_index >= snapshot.index:
            self._installing = None
            self.machine = Machine.decode(snapshot.data)
            self._watch.installed(self, snapshot)
            self._answer_proposals_up_to(snapshot.index)
            self._answer_reads()

    # -- applying -----------------------------------------------------------------------------

    def _apply_soon(self) -> None:
        if not self._to_apply or self._is_applying:
            return
        if self.apply_moments:
            self._is_applying = True
            self._schedule.after(self.apply_moments, self._apply_later, self.life)
        else:
            self._apply()

    def _apply_later(self, life: int) -> None:
        if life == self.life and self._is_there(self._apply_later, life):
            self._is_applying = False
            self._apply()
            self._turn()

    def _apply(self) -> None:
        raft = self.raft
        if not self._to_apply or raft is None:
            return
        while self._to_apply:
            entry = self._to_apply.popleft()
            answer = self.machine.apply(entry)
            self._watch.applied(self, entry, answer)
            self._answer_proposal(entry, answer)
        applied = self.machine.applied
        self.disk.write(Write(applied=applied))
        raft.applied(applied)
        if self._clock is not None:
            self._clock.applied(self.machine.state.log_time_ms, self._now_seconds())
        self._answer_reads()
        if (
            applied - raft.log.compacted_index
            >= self._plan.snapshot_entries + self._plan.tail_entries
        ):
            self._compact(raft, applied)

    def _compact(self, raft: Raft, applied: int) -> None:
        """Put the state on the disk, and drop what led to it, apart from a tail (R14)."""
        data = self._snapshot(raft, applied).data
        index = applied - self._plan.tail_entries
        self.disk.write(Write(compacted=raft.describe(index, data), applied=applied))
        raft.compact(index)

    def _snapshot(self, raft: Raft, index: int) -> Snapshot:
        snapshot = raft.describe(index, self.machine.encode())
        self._watch.described(self, snapshot)
        return snapshot

    # -- answering ----------------------------------------------------------------------------

    def _answer_proposal(self, entry: Entry, answer: Answer | None) -> None:
        term, reply = self._proposals.pop(entry.index, (0, None))
        if reply is not None:
            # Another term's entry in its place: the proposal is lost.
            is_it = entry.term == term and entry.kind is EntryKind.DATA
            reply(answer if is_it else Lost.NOT_DONE)

    def _answer_proposals_up_to(self, index: int) -> None:
        """What became of these only the snapshot knows."""
        for place in [each for each in self._proposals if each <= index]:
            self._proposals.pop(place)[1](Lost.UNKNOWN)

    def _answer_reads(self) -> None:
        applied, due = self.machine.applied, self._due
        if not due:
            return
        self._due = [each for each in due if each.index > applied]
        for state in due:
            if state.index <= applied:
                key, reply = self._reads.pop(state.context)
                reply(self.machine.read(key))
