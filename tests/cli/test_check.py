"""``kvcli check``: on directories that are sound, damaged, in use, or none."""

from __future__ import annotations

import io
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.cli import check
from kvtwist.cli.progress import LINE_COLUMNS, Progress
from kvtwist.storage.check import PROBLEMS_MAX, WATCH_KEYS
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import Batch
from kvtwist.storage.frames import sealed
from kvtwist.storage.layout import RECORD, STORE, generation_range
from kvtwist.storage.rocks import RocksEngine
from tests.cli.test_main import CommandLineTestCase
from tests.storage.test_check import GROUPS, fill
from tests.storage.test_rocks import Directories


class CheckTests(Directories, CommandLineTestCase):
    """What a person, and a script, is told of a directory."""

    def filled(self) -> Path:
        path = self.new_directory()
        directory = DataDirectory(path, RocksEngine, "node-1", "1" * 32)
        fill(directory.engine)
        directory.close()
        return path

    def put(self, path: Path, *pairs: tuple[bytes, bytes]) -> None:
        engine, batch = RocksEngine(path), Batch()
        for key, frame in pairs:
            batch.put(key, frame)
        engine.commit(batch, sync=True)
        engine.close()

    def damage(self, path: Path, count: int) -> None:
        engine = RocksEngine(path)
        pairs = [
            pair for group in GROUPS for pair in engine.scan(*generation_range(RECORD, group, 1))
        ]
        engine.close()
        self.put(path, *((key, frame[:-1] + b"!") for key, frame in pairs[:count]))

    def test_sound(self) -> None:
        """One sees that something was looked at, and at what."""
        code, out, err = self.kvcli("check", str(self.filled()))
        self.assertEqual((code, err), (0, ""))
        for line in ("groups +2", "entries +122", "records +118", "sessions +2", "answers +118"):
            self.assertRegex(out, rf"(?m)^{line}$")
        self.assertTrue(out.endswith("store-1 is sound\n"), out)

    def test_problems(self) -> None:
        """S3: one line for each, with where it is; a script sees it by the exit code."""
        path = self.filled()
        self.damage(path, 2)
        code, out, err = self.kvcli("check", str(path))
        self.assertEqual((code, err), (1, ""))
        lines = [line for line in out.splitlines() if "wrong checksum" in line]
        self.assertEqual(len(lines), 2)
        self.assertTrue(lines[0].startswith("group 1, record: "), lines)
        self.assertIn("is damaged: 2 problems\n", out)

    def test_more_problems_than_are_told(self) -> None:
        """A disk that is gone altogether does not scroll the summary away."""
        path = self.filled()
        self.damage(path, PROBLEMS_MAX + 5)
        code, out, _ = self.kvcli("check", str(path))
        self.assertEqual((code, out.count("wrong checksum")), (1, PROBLEMS_MAX))
        self.assertIn("\nand 5 more problems\n", out)

    def test_json(self) -> None:
        """What a program reads of both."""
        path = self.filled()
        said = json.loads(self.kvcli("check", str(path), "--json")[1])
        self.assertEqual((said["sound"], said["complete"], said["problems"]), (True, True, []))
        self.assertEqual((said["checked"]["records"], said["checked"]["groups"]), (118, 2))
        self.damage(path, 1)
        code, out, err = self.kvcli("--json", "check", str(path))
        said = json.loads(out)
        self.assertEqual((code, err, said["sound"], said["problem_count"]), (1, "", False, 1))
        self.assertEqual((said["problems"][0]["kind"], said["problems"][0]["group"]), ("record", 1))

    def test_in_use(self) -> None:
        """A node that runs writes: what is read meanwhile says nothing."""
        path = self.filled()
        self.opened(path)
        code, out, err = self.kvcli("check", str(path))
        self.assertEqual((code, out), (3, ""))
        self.assertIn("in use by another process", err)

    def test_no_data_directory(self) -> None:
        """A typing error in the path is no damage, and no traceback; nor does it make anything."""
        there = self.top / "file"
        there.write_bytes(b"")
        empty = self.new_directory()
        empty.mkdir()
        for path in (self.top / "absent", there, empty):
            self.assert_usage_error("check", str(path), says="has no store in it")
        self.assertFalse((self.top / "absent").exists())
        self.assertEqual(list(empty.iterdir()), [])

    def test_no_permission(self) -> None:
        """It is another user's, as servers' data usually is."""

        def refuse(_: Path) -> bool:
            raise PermissionError(13, "Permission denied", "store/CURRENT")

        self.patch(Path, "is_file", refuse)
        self.assert_usage_error("check", "store", says="store/CURRENT: Permission denied")

    def test_another_format(self) -> None:
        """A later release's directory is not damaged; this one cannot tell."""
        path = self.filled()
        self.put(path, (STORE, sealed(STORE, b'{"format": 9}')))
        self.assert_usage_error("check", str(path), says="format 9")
        said = json.loads(self.kvcli("check", str(path), "--json")[1])
        self.assertEqual(said["error"], "ConfigurationError")


class Terminal(io.StringIO):
    """A terminal that remembers all that was written to it."""

    def isatty(self) -> bool:
        return True


class ProgressTests(SynchronousTestCase):
    """A line on a terminal."""

    def test_written_over(self) -> None:
        """The rest of a longer text must not stay; nor anything in the end."""
        terminal = Terminal()
        progress = Progress(terminal)
        progress.show("long text")
        progress.show("short")
        progress.clear()
        self.assertEqual(terminal.getvalue(), "\rlong text\rshort    \r     \r")

    def test_nothing_elsewhere(self) -> None:
        """A log file is not filled with it."""
        stream = io.StringIO()
        Progress(stream).show("text")
        self.assertEqual(stream.getvalue(), "")

    def test_a_bar(self) -> None:
        """It is full when all is done, also if there is nothing to do; and fits the line."""
        for done, total, begins in (
            (0, 10, "[....."), (5, 10, "[###############....."), (10, 10, f"[{'#' * 30}] 100%"),
            (0, 0, f"[{'#' * 30}] 100%"), (11, 10, f"[{'#' * 30}] 100%"),
        ):  # fmt: skip
            terminal = Terminal()
            Progress(terminal).show_share(done, total, "x" * 200)
            self.assertTrue(terminal.getvalue()[1:].startswith(begins), terminal.getvalue())
            self.assertEqual(len(terminal.getvalue()), 1 + LINE_COLUMNS)


class WatchTests(Directories, CommandLineTestCase):
    def test_a_terminal_sees_how_far_it_is(self) -> None:
        """A large store takes minutes: who sees nothing, ends it."""
        path = self.new_directory()
        directory = DataDirectory(path, RocksEngine, "node-1", "1" * 32)
        batch = Batch()
        for number in range(WATCH_KEYS):
            batch.put(b"?%08d" % number, b"")
        directory.engine.commit(batch, sync=True)
        directory.close()
        terminal = Terminal()
        self.patch(check, "Progress", lambda _: Progress(terminal))
        self.kvcli("check", str(path))
        self.assertIn("\r4,096 keys, ", terminal.getvalue())
