"""A store in real processes that are killed, whose disk fails, fills up, or loses power.

A campaign of kills is ``python -m tests.storage.crashes 200``.
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import rmtree, which

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from kvtwist.storage.rocks import RocksEngine
from tests.storage import standstill
from tests.storage.crashes import CHECKOUT, SECONDS_MAX, Child, kill_many, survey
from tests.storage.writer import FAILED

KILLS = 20
SLOW_SECONDS = 0.8
SLOW = f"delay_enter={int(SLOW_SECONDS * 1e6)}"
FIRST_LOG = "000004.log"
"""RocksDB's write-ahead log in a new store."""
FIRST_TABLE = "000009.sst"
"""What that becomes."""

_EXT4_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSHING = 2


class CrashCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, self.top)
        self.seed = random.randrange(1 << 32)
        self.chance = random.Random(self.seed)

    def assert_sound(self, path: Path, child: Child) -> set[int]:
        """Every acknowledged batch is there, and nothing is half there."""
        found, problems = survey(path, set(child.said["done"]), set(child.said["refused"]))
        self.assertEqual(problems, [], f"seed {self.seed}")
        return found


class KillTests(CrashCase):
    def test_killed_at_any_time(self) -> None:
        """S1: what a client was told is done is there after any crash of the process, whole, and
        the state is what the log says."""
        acknowledged, _, compacted = kill_many(self.top, KILLS, self.seed)
        self.assertGreater(acknowledged, KILLS * 20)  # X1
        self.assertGreater(compacted, 0)


class FaultTests(CrashCase):
    """System calls that fail, by ``strace``, which counts each thread's calls."""

    def run_under(self, *inject: str, only: str = "") -> Child:
        """A writer, on a new store; only calls on the file *only* of it fail."""
        under = self.strace(*inject, only=only)
        return Child(self.path, 1, under=under)

    def strace(self, *inject: str, only: str = "") -> tuple[str, ...]:
        """What a process runs under so; its store is to be in `path`, which is a new one."""
        if which("strace") is None:
            raise SkipTest("strace is not installed")
        self.path = Path(tempfile.mkdtemp(dir=self.top)) / "store"
        probe = subprocess.run(("strace", "-o", os.devnull, "true"), stderr=subprocess.DEVNULL)
        if probe.returncode:
            raise SkipTest("strace may not trace here")
        files = ("-P", str(self.path / only)) if only else ()
        return "strace", "-f", "-o", os.devnull, *files, *inject

    def test_a_sync_that_fails(self) -> None:
        """S1: the node ends at the first; nothing that rests on it was acknowledged."""
        for _ in range(3):
            number = self.chance.randrange(30, 100)
            child = self.run_under("-e", f"inject=fdatasync:error=EIO:when={number}")
            self.assertEqual(child.ended(), FAILED)
            self.assertIn("Input/output error", child.failure)
            self.assertGreater(len(child.said["done"]), 20)
            self.assert_sound(self.path, child)

    def test_a_write_that_fails(self) -> None:
        """S1: likewise; here RocksDB's own log has a hole, or half a record."""
        for _ in range(2):
            number = self.chance.randrange(30, 100)
            child = self.run_under("-e", f"inject=write:error=EIO:when={number}", only=FIRST_LOG)
            self.assertEqual(child.ended(), FAILED)
            self.assertIn("Input/output error", child.failure)
            self.assertGreater(len(child.said["done"]), 20)
            self.assert_sound(self.path, child)

    def test_killed_in_a_sync(self) -> None:
        """S1: in the very middle of what makes a write durable."""
        for _ in range(3):
            number = self.chance.randrange(10, 100)
            child = self.run_under("-e", f"inject=fdatasync:signal=SIGKILL:when={number}")
            self.assertEqual(child.ended(), -9)
            self.assertGreater(len(child.said["done"]), 0)
            self.assert_sound(self.path, child)

    def test_a_sync_that_finds_the_disk_full(self) -> None:
        """S2, S8: what was under way is unknown, what comes is refused; with room again the node
        goes on, in the same process."""
        child = self.run_under("-e", "inject=fdatasync:error=ENOSPC:when=40")
        self.assertTrue(child.listen(until="unknown"))
        before = len(child.said["done"])
        self.assertTrue(child.listen(until="done"))
        self.assertTrue(child.listen(200))
        self.assertEqual(child.kill(), -9)
        self.assertGreater(before, 20)
        self.assertGreater(len(child.said["done"]), before + 20)
        self.assert_sound(self.path, child)

    def test_after_a_sync_that_failed(self) -> None:
        """S1: what is committed next fails too, be it nothing but a sync. The disk's next sync
        would succeed, though what the failed one was to keep may be lost."""
        program = (
            "import sys; from pathlib import Path\n"
            "from kvtwist.errors import StoreFailed\n"
            "from kvtwist.storage.engine import Batch\n"
            "from kvtwist.storage.rocks import RocksEngine\n"
            "engine = RocksEngine(Path(sys.argv[1])); batch = Batch(); batch.put(b'a', b'1')\n"
            "engine.commit(batch, sync=False)\n"
            "for batch in Batch(), Batch(), batch:\n"
            "    try: engine.commit(batch, sync=True)\n"
            "    except StoreFailed as error: print('failed', error)"
        )
        under = self.strace("-e", "inject=fdatasync:error=EIO:when=1", only=FIRST_LOG)
        done = subprocess.run(
            (*under, sys.executable, "-c", program, self.path),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS_MAX,
        )
        said = done.stdout.decode().splitlines()
        self.assertEqual(len(said), 3, said)
        for line in said:
            self.assertIn("Input/output error", line)

    def test_a_sync_that_takes_long(self) -> None:
        """R8: the rest of the process goes on; else one slow disk silences a node's reactor, with
        its heartbeats, its timers and the other groups' leaders."""
        under = self.strace("-e", f"inject=fdatasync,fsync:{SLOW}", only=FIRST_LOG)
        self.assert_goes_on(under, "commit")

    def test_a_look_up_that_takes_long(self) -> None:
        """R8: likewise, where a disk is slow to read."""
        under = self.strace("-e", f"inject=pread64:{SLOW}", only=FIRST_TABLE)
        engine = RocksEngine(self.path)
        for number in range(standstill.TIMES):
            standstill.committing(engine, number, 5000)  # each in a block of its own
        engine.close()
        self.assertTrue((self.path / FIRST_TABLE).exists())
        self.assert_goes_on(under, "get")

    def assert_goes_on(self, under: tuple[str, ...], what: str) -> None:
        """The rest of a process does, while a thread of it waits for the disk."""
        done = subprocess.run(
            (*under, sys.executable, "-m", standstill.__name__, what, self.path),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            timeout=SECONDS_MAX,
        )
        self.assertEqual(done.returncode, 0)
        shortest_wait, longest_gap = map(float, done.stdout.split())
        self.assertGreaterEqual(shortest_wait, SLOW_SECONDS)  # X1
        self.assertLess(longest_gap, SLOW_SECONDS / 2)


class RootCase(CrashCase):
    """File systems of our own."""

    def mounted(self, *arguments: str | Path) -> Path:
        """The place where this is mounted, until the test ends."""
        if os.geteuid():
            raise SkipTest("only root may mount file systems")
        place = Path(tempfile.mkdtemp(dir=self.top))
        done = subprocess.run(
            ("mount", *arguments, place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode:
            raise SkipTest(f"cannot mount here: {done.stdout.decode().strip()}")
        self.addCleanup(subprocess.run, ("umount", "-l", place), stderr=subprocess.DEVNULL)
        return place


class FullDiskTests(RootCase):
    def test_a_full_disk(self) -> None:
        """S2, S8: writes are refused or unknown, reads go on, and when there is room again so do
        the writes; the process is the same, and nothing acknowledged is lost."""
        place = self.mounted("-t", "tmpfs", "-o", "size=24m", "tmpfs")
        filler = place / "filler"
        filler.write_bytes(bytes(20 << 20))
        child = Child(place / "store", 1)
        self.assertTrue(child.listen(until="unknown"))
        self.assertTrue(child.listen(until="refused"))
        before = len(child.said["done"])
        for _ in range(4):  # long enough for some attempts to go on
            reads = len(child.said["read"])
            self.assertTrue(child.listen(500))
            self.assertGreater(len(child.said["read"]), reads, "nothing can be read")
        self.assertEqual(len(child.said["done"]), before)
        filler.unlink()
        self.assertTrue(child.listen(until="done"), "it does not go on")
        self.assertTrue(child.listen(200))
        self.assertEqual(child.kill(), -9)
        self.assertGreater(before, 100)
        self.assertGreater(len(child.said["done"]), before + 100)
        self.assert_sound(place / "store", child)


class PowerCutTests(RootCase):
    """X5: an ext4 that is shut down at once, and forgets what was not flushed."""

    def test_what_was_acknowledged_is_there(self) -> None:
        """S1, S4: that is what acknowledging a write means."""
        child, place = self.cut()
        found = self.assert_sound(place / "store", child)
        self.assertGreaterEqual(len(found), len(child.said["done"]))

    def test_without_syncing_it_is_not(self) -> None:
        """The power cut is a real one: a store that does not sync loses what it acknowledged."""
        child, place = self.cut("no-sync")
        found: set[int] = set()
        try:
            found, _ = survey(place / "store", set(), set())
        except Exception as error:  # that it cannot even be opened is loss enough
            self.assertNotIsInstance(error, SkipTest)
        self.assertGreater(len(set(child.said["done"]) - found), 50)

    def cut(self, *options: str) -> tuple[Child, Path]:
        """A writer that lost its disk in the middle of writing, and that disk.

        What counts is what it had said by then: a machine without power says nothing more, while
        this one answers a sync that was under way as if it had succeeded, a few times in a hundred.
        """
        if os.geteuid():
            raise SkipTest("only root may mount file systems")
        if which("mkfs.ext4") is None:
            raise SkipTest("mkfs.ext4 is not installed")
        image = self.top / "image"
        with image.open("wb") as file:
            file.truncate(96 << 20)
        subprocess.run(("mkfs.ext4", "-q", "-F", image), check=True, stdout=subprocess.DEVNULL)
        place = self.mounted("-o", "loop", image)
        child = Child(place / "store", 1, *options)
        self.assertTrue(child.listen(300))
        heard = child.said["done"].copy()
        descriptor = os.open(place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_SHUTDOWN, _WITHOUT_FLUSHING.to_bytes(4, "little"))
        finally:
            os.close(descriptor)
        child.kill()
        child.said["done"] = heard
        self.assertGreater(len(heard), 200)
        subprocess.run(("umount", place), check=True)
        subprocess.run(("mount", "-o", "loop", image, place), check=True)
        return child, place
