"""Logs of Raft groups in a store: what a replica starts from is what it had written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, HardState, Ready, Restored, Snapshot
from kvtwist.errors import StoreDamaged
from kvtwist.storage.engine import Batch
from kvtwist.storage.frames import sealed
from kvtwist.storage.layout import BASE, ENTRY, entry_key, group_key, groups_range
from kvtwist.storage.logs import load, save, save_base, save_replaced
from kvtwist.storage.memory import MemoryEngine

VOTERS = Configuration((1, 2, 3), (4,))
GROUP = 7


def entries(first: int, last: int, term: int, data: bytes = b"data") -> tuple[Entry, ...]:
    return tuple(Entry(index, term, EntryKind.DATA, data) for index in range(first, last + 1))


class LogCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.engine = MemoryEngine()
        self.written = 0
        batch = Batch()
        save_base(batch, GROUP, Snapshot(0, 0, VOTERS))
        self.engine.commit(batch, sync=True)

    def save(self, ready: Ready) -> None:
        batch = Batch()
        self.written = save(batch, GROUP, ready, self.written)
        self.engine.commit(batch, sync=True)

    def loaded(self, applied: int = 0) -> Restored:
        restored = load(self.engine, GROUP, applied)
        assert restored is not None
        return restored

    def damage(self, key: bytes, frame: bytes | None) -> None:
        batch = Batch()
        if frame is None:
            batch.delete(key)
        else:
            batch.put(key, frame)
        self.engine.commit(batch, sync=True)


class SavingTests(LogCase):
    def test_a_group_that_is_not_there(self) -> None:
        """A replica is made by the topology only, never by a store that happens to be empty."""
        self.assertIsNone(load(self.engine, GROUP + 1, 0))

    def test_everything_comes_back(self) -> None:
        """Term, vote, commit index, entries of all kinds: R1 depends on it."""
        row = (
            Entry(1, 2, EntryKind.NOOP),
            Entry(2, 2, EntryKind.CONFIGURATION, VOTERS.encode()),
            Entry(3, 5, EntryKind.DATA, b"\0" * 70_000),
        )
        self.save(Ready(hard_state=HardState(5, 3, 2), entries=row))
        expected = Restored(VOTERS, HardState(5, 3, 2), 0, 0, row, 1)
        self.assertEqual(self.loaded(applied=1), expected)

    def test_what_is_replaced_is_gone(self) -> None:
        """A longer row that a later leader has cut off must not come back behind its entries."""
        self.save(Ready(entries=entries(1, 9, term=1)))
        self.save(Ready(entries=entries(4, 5, term=2)))
        self.assertEqual(self.loaded().entries, entries(1, 3, 1) + entries(4, 5, 2))

    def test_compaction(self) -> None:
        """What is compacted is gone, the rest stays."""
        self.save(Ready(entries=entries(1, 9, term=3)))
        batch = Batch()
        save_base(batch, GROUP, Snapshot(6, 3, VOTERS))
        self.engine.commit(batch, sync=True)
        restored = self.loaded(applied=7)
        self.assertEqual((restored.compacted_index, restored.compacted_term), (6, 3))
        self.assertEqual(restored.entries, entries(7, 9, 3))

    def test_a_snapshot_takes_the_place_of_the_whole_log(self) -> None:
        """R13: nothing of the old log may follow the snapshot."""
        self.save(Ready(entries=entries(1, 9, term=1)))
        batch, other = Batch(), Configuration((2, 3))
        save_replaced(batch, GROUP, Snapshot(5, 4, other))
        self.engine.commit(batch, sync=True)
        restored = self.loaded(applied=5)
        self.assertEqual((restored.configuration, restored.entries), (other, ()))

    def test_groups_do_not_mix(self) -> None:
        """One store has all groups; a neighbour's entries are not ours."""
        batch = Batch()
        for group in (GROUP - 1, GROUP + 1):
            save_base(batch, group, Snapshot(0, 0, Configuration((9,))))
            save(batch, group, Ready(hard_state=HardState(9, 9), entries=entries(1, 3, 9)), 0)
        self.engine.commit(batch, sync=True)
        self.save(Ready(entries=entries(1, 2, term=1)))
        self.save(Ready(entries=entries(1, 1, term=2)))
        self.assertEqual(self.loaded().entries, entries(1, 1, term=2))
        for group in (GROUP - 1, GROUP + 1):
            restored = load(self.engine, group, 0)
            assert restored is not None
            self.assertEqual(restored.entries, entries(1, 3, 9))
        self.assertEqual(len(list(self.engine.scan(*groups_range(ENTRY)))), 7)

    @settings(deadline=None, max_examples=150)
    @given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=12))
    def test_any_row_of_writes(self, writes: list[tuple[int, int]]) -> None:
        """Appends and replacements, wherever they begin, leave what they leave in a list."""
        self.setUp()
        model: list[Entry] = []
        for term, (first, count) in enumerate(writes, start=1):
            start = min(first, len(model) + 1)
            row = entries(start, start + count - 1, term)
            if row:
                model[start - 1 :] = row
            self.save(Ready(entries=row))
            self.assertEqual(list(self.loaded().entries), model)


class DamageTests(LogCase):
    """S3: what is damaged is said to be, never guessed at."""

    def setUp(self) -> None:
        super().setUp()
        self.save(Ready(hard_state=HardState(2, 1), entries=entries(1, 5, term=2)))

    def test_a_missing_entry(self) -> None:
        """A log with a gap is not a shorter log."""
        self.damage(entry_key(GROUP, 3), None)
        error = self.assertRaises(StoreDamaged, load, self.engine, GROUP, 0)
        self.assertIn("entry 3 of group 7", str(error))

    def test_entries_that_changed_places(self) -> None:
        """The checksum covers the key."""
        frame = self.engine.get(entry_key(GROUP, 2))
        self.damage(entry_key(GROUP, 3), frame)
        self.assertRaises(StoreDamaged, load, self.engine, GROUP, 0)

    def test_an_unknown_kind(self) -> None:
        """A replica that meets one stops rather than skips."""
        key = entry_key(GROUP, 5)
        self.damage(key, sealed(key, b"\x01" + (2).to_bytes(8, "big") + b"\x63" + b"data"))
        error = self.assertRaises(StoreDamaged, load, self.engine, GROUP, 0)
        self.assertIn("unknown kind 99", str(error))

    def test_a_later_format(self) -> None:
        """Of an entry, or of the base."""
        for key, payload in (
            (entry_key(GROUP, 5), b"\x02" + bytes(9)),
            (group_key(BASE, GROUP), b"\x02" + bytes(16)),
        ):
            self.setUp()
            self.damage(key, sealed(key, payload))
            error = self.assertRaises(StoreDamaged, load, self.engine, GROUP, 0)
            self.assertIn("format 2", str(error))

    def test_what_is_cut_off_under_a_good_checksum(self) -> None:
        """A bug that writes too little is found at once."""
        for key in (entry_key(GROUP, 5), group_key(BASE, GROUP)):
            self.setUp()
            self.damage(key, sealed(key, b"\x01\0"))
            self.assertRaises(StoreDamaged, load, self.engine, GROUP, 0)
