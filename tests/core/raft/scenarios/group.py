"""A group of replicas in one's hand: nothing moves unless it is told to.

Each replica has a disk, on which a write is done at once, or *held* until it is told to be done. A
crash forgets the writes that were held. Each replica applies entries to a state machine that is the
row of its payloads, and answers its users, as a node would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from kvtwist.core.raft import (
    Configuration,
    Dropped,
    Entry,
    EntryKind,
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
from tests.core.raft.scenarios import trace

READYS_MAX = 100
"""In a row, from one replica; more, and it is in a loop."""


class Disk:
    """What a replica finds when it starts again."""

    def __init__(self, restored: Restored) -> None:
        self.restored = restored
        self.state: tuple[bytes, ...] = ()

    def write(self, ready: Ready) -> None:
        """Do what a `Ready` asks for."""
        now = self.restored
        if (snapshot := ready.snapshot) is not None:
            now = Restored(
                snapshot.configuration,
                now.hard_state,
                snapshot.index,
                snapshot.term,
                applied=snapshot.index,
            )
            self.state = tuple(snapshot.data.split())
        if ready.hard_state is not None:
            now = replace(now, hard_state=ready.hard_state)
        if ready.entries:
            kept = ready.entries[0].index - now.compacted_index - 1
            assert kept <= len(now.entries), "a gap in the log on the disk"
            now = replace(now, entries=now.entries[:kept] + ready.entries)
        self.restored = now

    def apply(self, entry: Entry) -> None:
        """Apply the next entry."""
        assert entry.index == self.restored.applied + 1, "applied out of order"
        if entry.kind is EntryKind.DATA:
            self.state += (entry.data,)
        self.restored = replace(self.restored, applied=entry.index)

    def compact(self, snapshot: Snapshot) -> None:
        """Drop what a snapshot at the same place would have."""
        now, index = self.restored, snapshot.index
        self.restored = replace(
            now,
            configuration=snapshot.configuration,
            compacted_index=index,
            compacted_term=snapshot.term,
            entries=now.entries[index - now.compacted_index :],
        )


class Node:
    """A replica, with its disk and its users.

    :ivar raft: ``None`` while it is down.
    :ivar chance: what it draws for its election timers.
    :ivar is_held: its writes wait to be told.
    :ivar writes: those that wait.
    :ivar reads: those that wait for what they are to see.
    :ivar proposed: by place, what its users wait for.
    :ivar seen: role, term and leader that were last shown.
    """

    def __init__(self, replica: int, settings: Settings, disk: Disk, chance: float) -> None:
        self.replica = replica
        self.settings = settings
        self.disk = disk
        self.chance = chance
        self.life = 0
        self.is_held = False
        self.raft: Raft | None = None
        self.start()

    def start(self) -> None:
        """Start from the disk."""
        assert self.raft is None, f"{self.replica} is up"
        self.life += 1
        self.raft = Raft(
            self.replica, self.settings, self.disk.restored, lambda: self.chance, self.life
        )
        self.writes: deque[Ready] = deque()
        self.reads: list[ReadState] = []
        self.proposed: dict[int, tuple[int, bytes]] = {}
        self.seen = (Role.FOLLOWER, self.raft.term, 0)


class Group:
    """The replicas, and what is under way between them.

    :param say: takes each line of the trace.
    :ivar wire: messages under way, the oldest first.
    :ivar cuts: from whom to whom nothing gets.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.nodes: dict[int, Node] = {}
        self.settings = Settings()
        self.first = Configuration()
        self.wire: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        self._leaders: dict[int, int] = {}
        self._applied: dict[int, Entry] = {}

    def found(self, voters: int, settings: Settings) -> None:
        """Begin with so many replicas on empty disks."""
        self.settings = settings
        self.first = Configuration(tuple(range(1, voters + 1)))
        for replica in self.first.voters:
            self.add(replica, Restored(self.first))

    def add(self, replica: int, restored: Restored) -> None:
        """Have a replica start with this on its disk; in place of the one that there is."""
        disk = Disk(restored)
        disk.state = tuple(
            entry.data for entry in restored.entries[: restored.applied] if entry.data
        )
        self.nodes[replica] = Node(replica, self.settings, disk, min(0.2 * (replica - 1), 0.9))

    def raft(self, replica: int) -> Raft:
        """A replica that is up."""
        raft = self.nodes[replica].raft
        assert raft is not None, f"{replica} is down"
        return raft

    def up(self) -> list[int]:
        """Who is up."""
        return [replica for replica, node in self.nodes.items() if node.raft is not None]

    # -- what is done to them -----------------------------------------------------------------

    def tick(self, replicas: Iterable[int], ticks: int) -> None:
        """Let time pass."""
        for _ in range(ticks):
            for replica in replicas:
                self.raft(replica).tick()
                self.work(replica)

    def deliver(self, message: Message) -> None:
        """Have a message arrive."""
        node = self.nodes.get(message.to)
        is_up = node is not None and node.raft is not None
        self.say(f"{trace.message(message)}{'' if is_up else ' (nobody there)'}")
        if is_up:
            self.raft(message.to).step(message)
            self.work(message.to)

    def propose(self, replica: int, payloads: list[bytes]) -> Proposed | Dropped:
        """A user writes."""
        fate = self.raft(replica).propose(payloads)
        if isinstance(fate, Proposed):
            for at, data in enumerate(payloads):
                self.nodes[replica].proposed[fate.index + at] = fate.term, data
        return fate

    def persist(self, replica: int, count: int) -> None:
        """Have the first of the held writes done, and acknowledge the last of them."""
        node, raft = self.nodes[replica], self.raft(replica)
        for _ in range(count):
            done = node.writes.popleft()
            node.disk.write(done)
        self.say(f"{replica} has written up to {done.number}")
        raft.persisted(done.number)
        self.work(replica)

    def crash(self, replica: int) -> None:
        """It forgets all but its disk; its users hear no more."""
        assert self.nodes[replica].raft is not None, f"{replica} is down"
        self.nodes[replica].raft = None

    # -- what they do -------------------------------------------------------------------------

    def work(self, replica: int) -> None:
        """Do what the replica wants done."""
        self._show_role(replica)
        raft = self.raft(replica)
        for _ in range(READYS_MAX):
            if not raft.has_ready():
                return
            self._act(self.nodes[replica], raft, raft.ready())
            self._show_role(replica)
        raise AssertionError(f"{replica} is in a loop")

    def _act(self, node: Node, raft: Raft, ready: Ready) -> None:
        lost = [each for each in ready.messages if (each.sender, each.to) in self.cuts]
        held = " (write held)" if node.is_held else ""
        for line in trace.ready(node.replica, ready, lost, held):
            self.say(line)
        self.wire += [each for each in ready.messages if each not in lost]
        if node.is_held:
            node.writes.append(ready)
        else:
            node.disk.write(ready)
        for entry in ready.committed:
            self._apply(node, entry)
        if ready.committed:
            raft.applied(ready.committed[-1].index)
        node.reads += ready.reads
        self._answer_reads(node)
        if not node.is_held:
            raft.persisted(ready.number)

    def _apply(self, node: Node, entry: Entry) -> None:
        assert self._applied.setdefault(entry.index, entry) == entry, (
            "two replicas apply different entries at one place (State Machine Safety)"
        )
        node.disk.apply(entry)
        term, data = node.proposed.pop(entry.index, (0, b""))
        if term:
            fate = "is done" if term == entry.term else "is LOST"
            self.say(f"{node.replica} tells its user: {trace.payload(data)} {fate}")

    def _answer_reads(self, node: Node) -> None:
        for read in [each for each in node.reads if each.index <= node.disk.restored.applied]:
            node.reads.remove(read)
            seen = trace.payload(b" ".join(node.disk.state)) or "nothing"
            self.say(f"{node.replica} tells its user: {trace.payload(read.context)} sees {seen}")

    def _show_role(self, replica: int) -> None:
        node, raft = self.nodes[replica], self.raft(replica)
        role, term, leader = now = (raft.role, raft.term, raft.leader)
        if now == node.seen:
            return
        node.seen = now
        if role is Role.LEADER:
            assert self._leaders.setdefault(term, replica) == replica, (
                "two leaders in one term (Election Safety)"
            )
        of = f" of {leader}" if role is Role.FOLLOWER and leader else ""
        self.say(f"{replica} is {role.value}{of} in term {term}")


def restored(first: Configuration, hard: HardState, terms: list[int], applied: int) -> Restored:
    """A disk with entries of *terms*, each with its place and term as its payload."""
    row = tuple(
        Entry(index, term, EntryKind.DATA, b"%d.%d" % (index, term))
        for index, term in enumerate(terms, start=1)
    )
    return Restored(first, hard, entries=row, applied=applied)
