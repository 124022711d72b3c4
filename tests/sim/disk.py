"""A member's disk: a journal of atomic writes, with a cache that a crash empties.

A write is in the cache at once, and durable when a sync that began after it has ended. One sync is
under way at a time; it covers all that was written before it began, so that writes gather meanwhile
(group commit). A crash loses what is not durable; or it leaves a first part of that, for the cache
may have been on its way. The write that the crash tears in two fails its checksum and is dropped
whole: a write is there or it is not. Whatever is there follows what was written before it.

A sync may fail. Then nothing may be concluded from the disk any more until its owner has started
again from what is there (S1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from kvtwist.core.raft import Configuration, Entry, HardState, Restored, Snapshot
from tests.sim.plan import Disks
from tests.sim.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Write:
    """One atomic write: some of these at once.

    :ivar snapshot: takes the place of log and state.
    :ivar entries: replace what the log has from the first one's index on.
    :ivar compacted: the log up to its index goes; its ``data`` is the state at ``applied``.
    :ivar applied: how far the state has got; 0: no news.
    """

    hard_state: HardState | None = None
    snapshot: Snapshot | None = None
    entries: tuple[Entry, ...] = ()
    compacted: Snapshot | None = None
    applied: int = 0


@dataclass(slots=True)
class Image:
    """What a disk says.

    :ivar entries: the log after ``compacted_index``.
    :ivar state_index: where ``state`` was made; the log has all entries that follow it.
    :ivar applied: how far the state machine has got on the disk.
    """

    configuration: Configuration
    hard_state: HardState = field(default_factory=HardState)
    compacted_index: int = 0
    compacted_term: int = 0
    entries: list[Entry] = field(default_factory=list)
    state_index: int = 0
    state: bytes = b""
    applied: int = 0

    @property
    def last_index(self) -> int:
        """Of the last entry; that of the compaction when there is none."""
        return self.compacted_index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        """The term of an entry; ``None`` when it is not here, or compacted."""
        at = index - self.compacted_index
        if at == 0:
            return self.compacted_term
        return self.entries[at - 1].term if 0 < at <= len(self.entries) else None

    def take(self, write: Write) -> None:
        """Be as after *write*."""
        if write.snapshot is not None:
            self._install(write.snapshot)
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.entries:
            del self.entries[write.entries[0].index - self.compacted_index - 1 :]
            self.entries.extend(write.entries)
        if write.applied:
            self.applied = write.applied
        if write.compacted is not None:
            self._compact(write.compacted)

    def _install(self, snapshot: Snapshot) -> None:
        self.entries.clear()
        self.compacted_index, self.compacted_term = snapshot.index, snapshot.term
        self.configuration = snapshot.configuration
        self.state_index = self.applied = snapshot.index
        self.state = snapshot.data

    def _compact(self, to: Snapshot) -> None:
        del self.entries[: to.index - self.compacted_index]
        self.compacted_index, self.compacted_term = to.index, to.term
        self.configuration = to.configuration
        self.state_index, self.state = self.applied, to.data

    def copy(self) -> Image:
        """Another one that says the same."""
        return Image(
            self.configuration,
            self.hard_state,
            self.compacted_index,
            self.compacted_term,
            list(self.entries),
            self.state_index,
            self.state,
            self.applied,
        )

    def restored(self, applied: int) -> Restored:
        """What a replica starts from, whose state machine is at *applied*."""
        return Restored(
            configuration=self.configuration,
            hard_state=self.hard_state,
            compacted_index=self.compacted_index,
            compacted_term=self.compacted_term,
            entries=tuple(self.entries),
            applied=applied,
        )


class Disk:
    """A disk.

    :param configuration: what a new group begins with; nothing for one who joins.
    :ivar written: what its owner sees.
    :ivar durable: what is certain to survive.
    :ivar life: how often its owner has started.
    :ivar stall_moments: how much longer a sync takes now.
    :ivar fails: whether the next sync fails.
    """

    def __init__(
        self, schedule: Schedule, random: Random, disks: Disks, configuration: Configuration
    ) -> None:
        self._schedule = schedule
        self._random = random
        self._disks = disks
        self._unsynced: deque[Write] = deque()
        self._waiting: list[Callable[[bool], None]] = []
        self._is_syncing = False
        self.written = Image(configuration)
        self.durable = Image(configuration)
        self.life = 0
        self.stall_moments = 0
        self.fails = False

    def be(self, disks: Disks) -> None:
        """Be as fast, and as reliable, as *disks* say from now on."""
        self._disks = disks

    def start(self) -> int:
        """Its owner starts: what number this life of it has."""
        self.life += 1
        return self.life

    def write(self, write: Write) -> None:
        """Put *write* into the cache."""
        self.written.take(write)
        self._unsynced.append(write)

    def sync(self, done: Callable[[bool], None]) -> None:
        """Make durable what is written; then call *done* with whether that went well."""
        self._waiting.append(done)
        if not self._is_syncing:
            self._begin()

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._is_syncing = True
        moments = 1 + int(self._random.random() * self._disks.sync_moments) + self.stall_moments
        self._schedule.after(moments, self._end, self.life, len(self._unsynced), waiting)

    def _end(self, life: int, writes: int, waiting: list[Callable[[bool], None]]) -> None:
        if life != self.life:
            return  # its owner has crashed meanwhile
        self._is_syncing = False
        fails, self.fails = self.fails, False
        if not fails:
            for _ in range(writes):
                self.durable.take(self._unsynced.popleft())
        for done in waiting:
            done(not fails)
        if self._waiting and life == self.life and not fails:
            self._begin()

    def crash(self) -> bool:
        """Lose what is not durable, or all but a first part of it. Whether anything was lost."""
        survivors = 0
        if self._random.random() < self._disks.keeps_unsynced:
            survivors = self._random.randrange(len(self._unsynced) + 1)
        lost = len(self._unsynced) - survivors
        for _ in range(survivors):
            self.durable.take(self._unsynced.popleft())
        self._unsynced.clear()
        self._waiting.clear()
        self._is_syncing = False
        self.life += 1  # a sync that is under way belongs to nobody now
        self.written = self.durable.copy()
        return lost > 0
