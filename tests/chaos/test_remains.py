"""What stopped nodes have left: that a difference between replicas is found."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, HardState, Ready, Snapshot
from kvtwist.core.state.commands import Write, encode
from kvtwist.core.state.operations import Put
from kvtwist.storage import logs
from kvtwist.storage.engine import Batch
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.states import new_state
from tests.chaos.remains import Remains, compare

GROUP = 3


def write(index: int, value: bytes = b"v", term: int = 1) -> Entry:
    """An entry that puts a key of its own."""
    return Entry(index, term, EntryKind.DATA, encode(of(index, value)))


def of(index: int, value: bytes = b"v") -> Write:
    """What it says."""
    return Write(0, 1, 0, 0, 0, (Put(b"key-%d" % index, value),))


LOG = [write(index) for index in range(1, 9)]


def node(
    entries: Sequence[Entry] = LOG,
    *,
    base: int = 0,
    commit: int = 8,
    applied: int = 4,
    value: bytes = b"v",
) -> MemoryEngine:
    """A node's store: the entries after *base*, and a state that has applied some of them.

    :param value: what its state machine made of them.
    """
    engine, batch = MemoryEngine(), Batch()
    logs.save_base(batch, GROUP, Snapshot(base, min(base, 1), Configuration((1, 2, 3))))
    ready = Ready(1, HardState(2, 1, commit), None, tuple(entries[base:]))
    logs.save(batch, GROUP, ready, 0)
    state = new_state(GROUP, engine, engine.get_cached, 1, 0)
    for index in range(1, applied + 1):
        command = of(index, value)
        state.records.missing(state.machine.needs(command))
        state.machine.carry_out(index, command)
        state.note(index, command)
    batch.extend(state.take_batch()[0])
    engine.commit(batch, sync=True)
    return engine


class RemainsTests(SynchronousTestCase):
    """Replicas of one group, side by side."""

    def compared(self, *nodes: MemoryEngine) -> Remains:
        """What is found of these nodes."""
        return compare({f"node-{number}": each for number, each in enumerate(nodes, 1)})

    def test_of_one_opinion(self) -> None:
        """However far each has applied or compacted its log: nobody would believe a check that
        cries at that."""
        found = self.compared(
            node(),
            node(commit=6, applied=6),
            node(LOG[:5], commit=5, applied=0),
            node(base=4, applied=8),
        )
        self.assertEqual(found, Remains(replicas=4, entries=8, states=4))

    def test_nothing_to_compare(self) -> None:
        """X1: a replica that is alone agrees with itself."""
        self.assertEqual(self.compared(node()).states, 0)

    def test_too_far_behind(self) -> None:
        """Nobody has the entries any more: it is said, and no wrong alarm."""
        found = self.compared(node(base=6, applied=7), node(LOG[:3], commit=3, applied=2))
        self.assertEqual((found.behind, found.problems), (1, []))

    def test_uncommitted_entries(self) -> None:
        """An entry that was not committed may be another one."""
        other = [*LOG[:7], write(8, b"w", term=2)]
        self.assertEqual(self.compared(node(), node(other, commit=7)).problems, [])

    def test_another_entry(self) -> None:
        """State machine safety (the Raft paper, 5.4.3): one index, one entry, for all time."""
        other = [*LOG[:5], write(6, term=2), *(write(index, term=2) for index in (7, 8))]
        found = self.compared(node(), node(other))
        self.assertEqual(len(found.problems), 3)
        self.assertIn("node-2 and node-1 have committed other entries at 6", found.problems[0])

    def test_another_state(self) -> None:
        """R17: two replicas answer a read differently, for ever."""
        (problem,) = self.compared(node(), node(value=b"w"), node()).problems
        self.assertIn("group 3: at 8 the states differ", problem)
        self.assertIn("['node-1', 'node-3']", problem)
        self.assertIn("['node-2']", problem)
