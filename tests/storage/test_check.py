"""The check of a stopped node's directory: silent about what is well, exact about what is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, HardState, Ready, Snapshot
from kvtwist.core.state.commands import Command, OpenSession, Write, encode
from kvtwist.core.state.operations import Put
from kvtwist.errors import ConfigurationError, StoreDamaged, StoreFailed, StoreLocked
from kvtwist.storage import logs
from kvtwist.storage.check import PROBLEMS_MAX, check, check_view
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import Batch, Engine
from kvtwist.storage.frames import sealed
from kvtwist.storage.layout import (
    ANSWER,
    BASE,
    DUE,
    HARD,
    NODE,
    PER_GENERATION,
    RECORD,
    SESSION,
    STATE,
    STORE,
    entry_key,
    generation_range,
    group_key,
)
from kvtwist.storage.marks import Mark
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.states import new_state
from tests.storage.test_rocks import Directories

COMMANDS: list[Command] = [
    OpenSession(0, 1, 1000),
    *(Write(0, 1, 1, seq, 1, (Put(b"%04d" % seq, b"v" * 100, seq % 2),)) for seq in range(1, 60)),
]
LAST = len(COMMANDS) + 2
GROUPS = (1, 5)
END = b"\xff"


def fill(engine: Engine) -> None:
    """Two groups with something of everything; entry 1 is compacted, the last one not applied."""
    for group in GROUPS:
        batch = Batch()
        logs.save_base(batch, group, Snapshot(1, 1, Configuration((1, 2))))
        entries = [
            Entry(index, 2, EntryKind.DATA, encode(command))
            for index, command in enumerate(COMMANDS, start=1)
        ]
        configuration = Configuration((1, 2), (3,)).encode()
        entries += [
            Entry(LAST - 1, 3, EntryKind.CONFIGURATION, configuration),
            Entry(LAST, 3, EntryKind.NOOP, b""),
        ]
        logs.save(batch, group, Ready(1, HardState(4, 1, LAST), None, tuple(entries[1:])), 0)
        state = new_state(group, engine, engine.get_cached, 1, 0)
        for index, command in enumerate(COMMANDS, start=1):
            state.records.missing(state.machine.needs(command))
            state.machine.carry_out(index, command)
            state.note(index, command)
        batch.extend(state.take_batch()[0])
        engine.commit(batch, sync=True)


class ViewTests(SynchronousTestCase):
    """What is in the store."""

    def setUp(self) -> None:
        self.engine = MemoryEngine()
        fill(self.engine)

    def put(self, key: bytes, frame: bytes) -> None:
        batch = Batch()
        batch.put(key, frame)
        self.engine.commit(batch, sync=True)

    def delete(self, key: bytes) -> None:
        batch = Batch()
        batch.delete(key)
        self.engine.commit(batch, sync=True)

    def key_of(self, kind: bytes, group: int = 5) -> bytes:
        if kind in (HARD, BASE, STATE):
            return group_key(kind, group)
        if kind in PER_GENERATION:
            return next(self.engine.scan(*generation_range(kind, group, 1)))[0]
        return entry_key(group, 30)

    def problem(self) -> tuple[str, int | None, str]:
        """The only one there is."""
        report = check_view(self.engine)
        self.assertEqual(report.problem_count, 1, report.problems)
        (problem,) = report.problems
        return problem.kind, problem.group, problem.what

    def test_nothing_is_wrong(self) -> None:
        """A check that cries at nothing is not looked at; and it says what there is."""
        report = check_view(self.engine)
        self.assertEqual(report.problems, [])
        self.assertEqual(report.keys, sum(1 for _ in self.engine.scan(b"", END)))
        self.assertEqual(set(report.groups), set(GROUPS))
        group = report.groups[5]
        self.assertEqual((group.base, group.last), ((1, 1), (LAST, 3)))
        self.assertEqual(group.entries, LAST - 1)
        self.assertEqual((group.current.records, group.current.answers), (59, 59))
        self.assertEqual(group.current.data_bytes, 59 * 108)

    def test_a_changed_bit_of_each_kind(self) -> None:
        """S3: named with its kind and group; what does not fit because of it is not told too."""
        for kind, name in {
            HARD: "hard state", BASE: "base of the log", b"l": "entry", STATE: "state",
            SESSION: "session", ANSWER: "answer", RECORD: "record", DUE: "expiry",
        }.items():  # fmt: skip
            self.setUp()
            key = self.key_of(kind)
            frame = self.engine.get(key)
            assert frame is not None
            self.put(key, frame[:-1] + bytes((frame[-1] ^ 4,)))
            found, group, what = self.problem()
            self.assertEqual((found, group), (name, 5))
            self.assertIn("wrong checksum", what)

    def test_what_is_not_what_its_kind_says(self) -> None:
        """With a good checksum: written by a bug, or by a release that this one does not know."""
        for kind in (HARD, BASE, b"l", STATE, SESSION, ANSWER, RECORD, DUE):
            self.setUp()
            key = self.key_of(kind)
            self.put(key, sealed(key, b"\xee" * 70))
            self.assertEqual(self.problem()[1], 5, kind)

    def test_commands_are_read(self) -> None:
        """An entry that cannot be applied would stop the node when it comes up to it."""
        key = entry_key(5, 30)
        entry = logs.read_entry(key, self.engine.get(key) or b"")
        batch = Batch()
        logs.save(batch, 5, Ready(entries=(Entry(30, 2, EntryKind.DATA, entry.data[:-1]),)), 0)
        self.engine.commit(batch, sync=True)
        self.assertEqual(self.problem()[:2], ("entry", 5))

    def test_a_gap_in_the_log(self) -> None:
        """What was acknowledged is missing."""
        self.delete(entry_key(5, 30))
        self.assertEqual(self.problem(), ("entry", 5, "entry 31 follows 29"))

    def test_terms_go_up(self) -> None:
        """They do in any log that was ever written."""
        batch = Batch()
        logs.save(batch, 5, Ready(entries=(Entry(LAST, 1, EntryKind.NOOP, b""),)), 0)
        self.engine.commit(batch, sync=True)
        self.assertIn("of term 1 follows term 3", self.problem()[2])

    def test_a_log_that_ends_before_the_state(self) -> None:
        """The state has what nobody acknowledged: the log has gone back."""
        batch = Batch()
        batch.delete_range(entry_key(5, LAST - 3), entry_key(5, LAST + 1))
        logs.save(batch, 5, Ready(hard_state=HardState(4, 1, 9)), 0)
        self.engine.commit(batch, sync=True)
        self.assertIn("its state is at 60, its log from 1 to", self.problem()[2])

    def test_a_log_that_ends_before_what_was_committed(self) -> None:
        """Somebody was told that it is there."""
        batch = Batch()
        logs.save(batch, 5, Ready(hard_state=HardState(4, 1, LAST + 1)), 0)
        self.engine.commit(batch, sync=True)
        self.assertIn(f"committed up to {LAST + 1}, of {LAST} entries", self.problem()[2])

    def test_configurations_are_read(self) -> None:
        """A replica would not know who its peers are."""
        batch = Batch()
        logs.save(batch, 5, Ready(entries=(Entry(LAST, 3, EntryKind.CONFIGURATION, b"?"),)), 0)
        self.engine.commit(batch, sync=True)
        self.assertEqual(self.problem()[:2], ("entry", 5))

    def test_a_record_that_is_another(self) -> None:
        """As many of them, and each of them good; and yet not those that were there."""
        key = self.key_of(RECORD)
        payload = (self.engine.get(key) or b"")[9:]
        self.put(key, sealed(key, payload[:-1]))
        self.assertEqual(self.problem()[2], "its records have 6371 bytes, and not 6372")

    def test_parts_that_are_missing(self) -> None:
        """Each good in itself; together they are no state that ever was."""
        for kind, what in {
            BASE: "has no base", HARD: "its term is 0", SESSION: "sessions that are not there",
            RECORD: "58 records, and not 59", STATE: "its state is at 0",
            DUE: "not those that are noted",
        }.items():  # fmt: skip
            self.setUp()
            self.delete(self.key_of(kind))
            problems = check_view(self.engine).problems
            self.assertTrue(any(what in each.what for each in problems), problems)
            self.assertEqual({each.group for each in problems}, {5})

    def test_a_session_of_the_future(self) -> None:
        """It would be there again for a client that opens one then."""
        key = generation_range(SESSION, 5, 1)[0] + (999).to_bytes(8, "big")
        self.put(key, sealed(key, b"\1" + bytes(24)))
        self.assertIn("not opened yet: [999]", self.problem()[2])

    def test_a_record_of_the_future(self) -> None:
        """The state was set back under it."""
        key = self.key_of(STATE)
        header = bytearray((self.engine.get(key) or b"")[9:])
        header[17:25] = (3).to_bytes(8, "big")
        self.put(key, sealed(key, bytes(header)))
        self.assertIn("version 59, the last change 3", self.problem()[2])

    def test_unknown_kinds(self) -> None:
        """A later release's, or nobody's."""
        for key in (b"q" + bytes(8), b"", b"h", b"l" + bytes(9), b"FF"):
            self.setUp()
            self.put(key, sealed(key, b""))
            self.assertIn("no key of this store", self.problem()[2])

    def test_remains_of_a_snapshot(self) -> None:
        """A crash leaves them, and the next start removes them: nothing is wrong."""
        for kind in (RECORD, DUE):
            batch = Batch()
            for key, frame in self.engine.scan(*generation_range(kind, 5, 1)):
                other = key[:16] + b"\2" + key[17:]
                batch.put(other, sealed(other, frame[9:]))
            self.engine.commit(batch, sync=True)
        report = check_view(self.engine)
        self.assertEqual(report.problems, [])
        self.assertEqual(sorted(report.groups[5].data), [1, 2])

    def test_thousands_of_problems(self) -> None:
        """The first of them are told, all are counted."""
        for key, frame in list(self.engine.scan(*generation_range(RECORD, 5, 1))):
            self.put(key, frame[:-1])
        report = check_view(self.engine)
        self.assertEqual((len(report.problems), report.problem_count), (PROBLEMS_MAX, 59))

    def test_where_the_disk_has_a_hole(self) -> None:
        """RocksDB finds no way on in the middle: the rest is looked at all the same, and each
        hole is told of."""
        whole = check_view(self.engine).keys
        holes = [self.key_of(RECORD, 1), self.key_of(ANSWER, 5), entry_key(5, 40)]
        self.put(group_key(HARD, 5), b"bad")
        report = check_view(Holed(self.engine, holes))
        found = [(each.kind, each.group) for each in report.problems]
        self.assertEqual(
            found,
            [
                # where it could read last, and where it tried again
                ("answer", 1),
                ("answer", 5),
                ("base of the log", 5),
                ("record", None),
                ("record", 1),
                ("hard state", 5),
                ("entry", 5),
            ],
        )
        self.assertFalse(report.is_whole)
        self.assertGreater(report.keys, whole // 3)

    def test_where_nothing_can_be_read(self) -> None:
        """It comes to an end."""
        first = next(self.engine.scan(b"", END))[0]
        report = check_view(Holed(self.engine, [first, b"l", b"x"]))
        self.assertFalse(report.is_whole)


class Holed(MemoryEngine):
    """Cannot read on at some keys, in whichever scan comes to them."""

    def __init__(self, other: MemoryEngine, holes: list[bytes]) -> None:
        super().__init__()
        self._content = other._content
        self._holes = holes

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().scan(start, end):
            if any(hole in (pair[0], pair[0][:1]) for hole in self._holes):
                raise StoreDamaged("the store is damaged: Corruption: block checksum mismatch")
            yield pair


class DirectoryTests(Directories):
    """The whole directory."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.new_directory()
        directory = self.started()
        fill(directory.engine)
        directory.marks.raise_to({group: Mark(4, 1, LAST) for group in GROUPS})
        directory.close()

    def started(self) -> DataDirectory:
        return DataDirectory(self.path, RocksEngine, "a", "1" * 32)

    def change(self, change: Callable[[Batch], None]) -> None:
        engine = RocksEngine(self.path)
        batch = Batch()
        change(batch)
        engine.commit(batch, sync=True)
        engine.close()

    def problems(self) -> list[tuple[str, int | None]]:
        return [(each.kind, each.group) for each in check(self.path).problems]

    def test_nothing_is_wrong(self) -> None:
        """And it stays as it is: a check must not repair, nor write what a node would trip over."""
        before = self.files()
        report = check(self.path)
        self.assertEqual((report.problems, report.is_whole), ([], True))
        self.assertGreater(report.keys, 400)
        self.assertEqual(self.files(), before)
        self.started().close()

    def files(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in self.path.iterdir()
            if path.name not in ("lock", "LOG") and not path.name.startswith("LOG.old")
        }

    def test_a_running_node(self) -> None:
        """It would see half of what is going on."""
        directory = self.started()
        self.addCleanup(directory.close)
        self.assertRaises(StoreLocked, check, self.path)

    def test_no_store(self) -> None:
        """A path that was mistyped is not made."""
        self.assertRaises(StoreFailed, check, self.top / "nothing")
        self.assertFalse((self.top / "nothing").exists())

    def test_after_a_kill(self) -> None:
        """What is only in RocksDB's log is read too."""
        directory = self.started()
        batch = Batch()
        key = group_key(HARD, 5)
        batch.put(key, sealed(key, b"bad"))
        directory.engine.commit(batch, sync=True)
        copy = self.new_directory()
        copy.mkdir()
        for path in self.path.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        directory.close()
        self.path = copy
        self.assertIn(("hard state", 5), self.problems())

    def test_damaged_files(self) -> None:
        """RocksDB's own checksums: in the middle of the data, or so that it does not open."""
        (table,) = self.path.glob("*.sst")
        data = bytearray(table.read_bytes())
        data[len(data) // 4] ^= 0x10
        table.write_bytes(data)
        report = check(self.path)
        self.assertFalse(report.is_whole)
        self.assertGreater(report.problem_count, 0)
        self.assertGreater(report.keys, 50)
        os.truncate(table, 100)
        report = check(self.path)
        self.assertEqual([each.kind for each in report.problems], ["store"])

    def test_marks(self) -> None:
        """S7: a store that has gone back is named, group by group; and one without marks."""
        directory = self.started()
        directory.marks.raise_to({5: Mark(4, 1, LAST + 1), 9: Mark(1, 0, 0)})
        directory.close()
        self.assertEqual(self.problems(), [("marks", 5), ("marks", 9)])
        (self.path / "marks").write_bytes(b"what is this")
        self.assertEqual(self.problems(), [("marks", None)])
        (self.path / "marks").unlink()
        self.assertEqual(self.problems(), [("marks", None)])

    def test_lives(self) -> None:
        """A copy of a node's directory that was started meanwhile."""
        directory = self.started()
        directory.marks.raise_to({0: Mark(7)})
        directory.close()
        self.assertEqual(self.problems(), [("marks", None)])

    def test_the_node_itself(self) -> None:
        """A node that does not know who it is may not vote."""
        self.change(lambda batch: batch.put(NODE, b"bad"))
        self.assertEqual(self.problems(), [("node", None)])

    def test_the_format(self) -> None:
        """Damage, and a later release, are two things."""
        self.change(lambda batch: batch.put(STORE, b"bad"))
        self.assertEqual(self.problems(), [("format", None)])
        later = sealed(STORE, b'{"format": 3}')
        self.change(lambda batch: batch.put(STORE, later))
        error = self.assertRaises(ConfigurationError, check, self.path)
        self.assertIn("use a later kvtwist", str(error))

    def test_a_former_format(self) -> None:
        """Its groups have the same ids as today's and other members: mixed, two majorities could
        decide two things. What helps is said."""
        former = sealed(STORE, b'{"format": 1}')
        self.change(lambda batch: batch.put(STORE, former))
        for use in (lambda: check(self.path), self.started):
            error = self.assertRaises(ConfigurationError, use)
            self.assertIn("kvcli backup", str(error))
            self.assertIn("kvcli restore", str(error))
