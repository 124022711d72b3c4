"""The engine on disk: what it keeps over restarts, and what it says of a damaged or taken disk."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import DiskFull, StorageError, StoreDamaged, StoreFailed, StoreLocked
from kvtwist.storage import rocks
from kvtwist.storage.engine import NOT_CACHED, Batch, Engine
from kvtwist.storage.rocks import BLOCK_CACHE_BYTES, RocksEngine
from tests.storage.contract import END, EngineContract, batch_of
from tests.storage.standstill import committing, longest_gap

SLOW_BYTES_PER_SECOND = 100_000


class Directories(SynchronousTestCase):
    """A new directory for each engine."""

    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, self.top)
        self.number = 0

    def new_directory(self) -> Path:
        self.number += 1
        return self.top / f"store-{self.number}"

    def opened(self, directory: Path) -> RocksEngine:
        engine = RocksEngine(directory)
        self.addCleanup(engine.close)
        return engine


class RocksEngineTests(EngineContract, Directories):
    def make_engine(self) -> Engine:
        return self.opened(self.new_directory())


class KeepingTests(Directories):
    def test_what_was_committed_is_there_again(self) -> None:
        """The whole point of a disk."""
        directory = self.new_directory()
        engine = RocksEngine(directory)
        engine.commit(batch_of(("put", b"a", b"1"), ("put", b"b", b"2")), sync=True)
        engine.close()
        self.assertEqual(list(self.opened(directory).scan(b"", END)), [(b"a", b"1"), (b"b", b"2")])

    def test_cache_and_filters_outlast_a_restart(self) -> None:
        """Else a node that was started again would go to the disk for keys that are not there,
        and have an eighth of its memory for those that are."""
        directory = self.new_directory()
        RocksEngine(directory).close()
        engine = self.opened(directory)
        capacity = engine._database.property_int_value("rocksdb.block-cache-capacity")
        self.assertEqual(capacity, BLOCK_CACHE_BYTES)
        batch = Batch()
        for number in range(0, 2000, 2):
            batch.put(b"%04d" % number, b"v")
        engine.commit(batch, sync=False)
        engine.compact(b"", END)
        again = [engine.get_cached(b"%04d" % number) for number in range(1, 2000, 2)]
        self.assertGreater(again.count(None), 950)

    def test_synced_is_there_after_a_kill(self) -> None:
        """A process that is killed right after a synced commit has lost nothing."""
        directory = self.new_directory()
        program = (
            "import os, sys; from pathlib import Path\n"
            "from kvtwist.storage.engine import Batch\n"
            "from kvtwist.storage.rocks import RocksEngine\n"
            "engine = RocksEngine(Path(sys.argv[1])); batch = Batch(); batch.put(b'a', b'1')\n"
            "engine.commit(batch, sync=True); os.kill(os.getpid(), 9)"
        )
        done = subprocess.run([sys.executable, "-c", program, str(directory)], check=False)
        self.assertEqual(done.returncode, -9)
        self.assertEqual(self.opened(directory).get(b"a"), b"1")

    def test_a_torn_tail_is_what_a_crash_leaves(self) -> None:
        """The write that a crash interrupted is dropped, those before it are kept (S7)."""
        directory = self.committed_one_by_one(10)
        log = self.write_ahead_log(directory)
        os.truncate(log, log.stat().st_size - 5)
        keys = [key for key, _ in self.opened(directory).scan(b"", END)]
        self.assertEqual(keys, [b"%02d" % number for number in range(9)])

    def test_damage_in_the_middle_is_not_passed_over(self) -> None:
        """S7: RocksDB's default would open with half of the records, and say nothing."""
        directory = self.committed_one_by_one(200)
        log = self.write_ahead_log(directory)
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 0x10
        log.write_bytes(data)
        with self.assertRaises(StoreDamaged) as caught:
            RocksEngine(directory)
        self.assertIn("damaged", str(caught.exception))

    def test_after_a_refusal_the_directory_is_free(self) -> None:
        """An operator who mends the directory need not look for a lock."""
        directory = self.committed_one_by_one(200)
        log = self.write_ahead_log(directory)
        whole = log.read_bytes()
        log.write_bytes(whole[:1000] + b"\xff" + whole[1001:])
        self.assertRaises(StorageError, RocksEngine, directory)
        log.write_bytes(whole)
        self.assertEqual(len(list(self.opened(directory).scan(b"", END))), 200)

    def committed_one_by_one(self, count: int) -> Path:
        directory = self.new_directory()
        engine = RocksEngine(directory)
        for number in range(count):
            batch = Batch()
            batch.put(b"%02d" % number, b"v" * 50)
            engine.commit(batch, sync=True)
        # Not closed but copied, as a crash leaves it: closing may write the log away.
        copy = self.new_directory()
        copy.mkdir()
        for path in directory.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        engine.close()
        return copy

    def write_ahead_log(self, directory: Path) -> Path:
        (log,) = (path for path in directory.glob("*.log") if path.stat().st_size)
        return log


class ReopeningTests(Directories):
    """S8: what others have of a store that is opened anew."""

    def setUp(self) -> None:
        super().setUp()
        self.engine = self.opened(self.new_directory())
        self.engine.commit(batch_of(("put", b"a", b"1"), ("put", b"b", b"2")), sync=True)

    def test_a_view_does_not_keep_it_from_that(self) -> None:
        """A snapshot that is being sent would cost the node its life."""
        with self.engine.view() as view:
            scans = [view.scan(b"", END), self.engine.scan(b"", END)]
            for scan in scans:
                next(scan)
            self.engine.reopen()
            for scan in scans:
                self.assertRaises(StoreFailed, next, scan)
            self.assertRaises(StoreFailed, view.get, b"a")
        self.assertEqual(self.engine.get(b"a"), b"1")

    def test_nor_from_being_closed(self) -> None:
        """A restart in the same process follows at once."""
        with self.engine.view():
            self.engine.close()
            directory = self.top / "store-1"
            self.assertEqual(self.opened(directory).get(b"a"), b"1")

    def test_while_there_is_no_room_it_is_read(self) -> None:
        """S2: it is not closed before it can be opened again."""
        self.patch(rocks, "RECOVERY_BYTES", 1 << 60)
        self.assertRaises(DiskFull, self.engine.reopen)
        self.assertEqual(self.engine.get(b"a"), b"1")
        self.assertEqual(self.engine.get_cached(b"b"), b"2")
        self.patch(rocks, "RECOVERY_BYTES", 0)
        self.engine.reopen()
        self.assertEqual(self.engine.get(b"a"), b"1")

    def test_when_the_room_has_gone_again(self) -> None:
        """S2: likewise, if others were quicker."""
        opened = self.engine._open

        def open_if_read_only(read_only: bool = False) -> object:
            if not read_only:
                raise DiskFull
            return opened(read_only)

        self.patch(self.engine, "_open", open_if_read_only)
        self.assertRaises(DiskFull, self.engine.reopen)
        self.assertEqual(self.engine.get(b"a"), b"1")
        self.patch(self.engine, "_open", opened)
        self.engine.reopen()
        self.engine.commit(batch_of(("put", b"c", b"3")), sync=True)

    def test_what_is_in_memory_is_not_told_while_it_is_closed(self) -> None:
        """The reactor may ask at any time: it has to hear that it is not known, and no error."""
        told: list[object] = []
        database, engine = self.engine._database, self.engine

        class Closing:
            def close(self) -> None:
                told.append(engine.get_cached(b"a"))
                database.close()

        engine._database = Closing()
        engine.reopen()
        self.assertEqual(told, [NOT_CACHED])
        self.assertEqual(engine.get(b"a"), b"1")
        self.engine._database.close()
        self.assertIs(self.engine.get_cached(b"a"), NOT_CACHED)


class StallTests(Directories):
    def test_while_a_write_has_to_wait(self) -> None:
        """R8: on a disk that is slower than what is written RocksDB makes writes wait, until it has
        got rid of what it has in memory; the rest of the process goes on meanwhile."""
        self.patch(rocks, "WRITE_BUFFER_BYTES", 64 << 10)
        ordinary = rocks._options

        def slow() -> Any:
            options = ordinary()
            options.set_ratelimiter(SLOW_BYTES_PER_SECOND, 100_000, 10)
            return options

        self.patch(rocks, "_options", slow)
        engine = self.opened(self.new_directory())
        lasted, gap = longest_gap(lambda number: committing(engine, number, 30_000), 12)
        self.assertGreater(max(lasted), 0.5)  # X1
        self.assertLess(gap, max(lasted) / 2)
        self.assertEqual(len(list(engine.scan(b"", END))), 12)


class Slowed:
    """A database that lets so many bytes a second in, as RocksDB does it (its ``GetDelay``): who
    asks too early finds the wait longer, by what the whole batch takes."""

    def __init__(self, bytes_per_second: int, size_bytes: int) -> None:
        self._bytes_per_second = bytes_per_second
        self._size_bytes = size_bytes
        self._refilled_at = 0.0
        self.now = 0.0
        self.tries = 0

    def write(self, writes: Any, options: Any) -> None:
        self.tries += 1
        credit_bytes = max(0.0, self.now - self._refilled_at) * self._bytes_per_second
        if credit_bytes < self._size_bytes:
            lacking_bytes = self._size_bytes - credit_bytes
            begin = max(self._refilled_at, self.now)
            self._refilled_at = begin + lacking_bytes / self._bytes_per_second
            raise Exception("Result incomplete: Write stall")

    def flush_wal(self, sync: bool) -> None:
        """It is done."""

    def property_int_value(self, name: str) -> int:
        return self._bytes_per_second

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1000, "it is never let in"


class SlowedTests(Directories):
    def test_a_batch_that_takes_long(self) -> None:
        """It is not tried again too early, which it would be for ever: each try would put off the
        time at which it is let in."""
        for bytes_per_second in (1_000, 15_000, 30_000, 1_000_000):
            engine = self.opened(self.new_directory())
            database = Slowed(bytes_per_second, 20_000)
            self.patch(rocks, "time", database)
            ordinary, engine._database = engine._database, database
            try:
                committing(engine, 1, 20_000 - 1)
            finally:
                engine._database = ordinary
            self.assertLess(database.now, 3 * 20_000 / bytes_per_second)
            self.assertLessEqual(database.tries, 3)


class DirectoryTests(Directories):
    def test_nobody_else_can_look_in(self) -> None:
        """It has everybody's values in it."""
        directory = self.new_directory()
        self.opened(directory)
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((directory / "lock").stat().st_mode), 0o600)

    def test_a_second_process_is_refused(self) -> None:
        """Two nodes in one directory would destroy it; the error says who has it."""
        directory = self.new_directory()
        self.opened(directory)
        with self.assertRaises(StoreLocked) as caught:
            RocksEngine(directory)
        self.assertIn(f"process {os.getpid()}", str(caught.exception))
        self.assertIn(str(directory), str(caught.exception))

    def test_closed_it_is_free(self) -> None:
        """A restart follows at once."""
        directory = self.new_directory()
        RocksEngine(directory).close()
        self.opened(directory)

    def test_it_can_be_closed_twice(self) -> None:
        """Whoever stops a node twice gets no traceback."""
        engine = RocksEngine(self.new_directory())
        engine.close()
        engine.close()

    def test_a_file_in_its_place(self) -> None:
        """One line that names it."""
        directory = self.new_directory()
        directory.write_text("not a directory")
        with self.assertRaises(StoreFailed) as caught:
            RocksEngine(directory)
        self.assertIn(str(directory), str(caught.exception))
