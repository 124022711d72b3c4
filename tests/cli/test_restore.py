"""What ``kvcli restore`` says, and to what it comes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kvtwist.cli import restore
from kvtwist.errors import StoreFailed
from kvtwist.storage.check import check
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.rocks import RocksEngine
from tests.cli.test_main import CommandLineTestCase
from tests.storage.test_backup import CONTENTS, verified, written
from tests.storage.test_rocks import Directories


class RestoreTests(Directories, CommandLineTestCase):
    """The command line, on real disks."""

    def setUp(self) -> None:
        super().setUp()
        self.data = written(CONTENTS)
        self.file = self.top / "backup"
        self.file.write_bytes(self.data)
        self.directory = self.top / "node-1.kvtwist"

    def restore(self, *more: str) -> tuple[int, str, str]:
        return self.kvcli(
            "restore", str(self.file), "--id=node-1", f"--data-dir={self.directory}", *more
        )

    def assert_failed(self, code: int, says: str) -> None:
        """With one line; and nothing is made, as a script is told as well."""
        before = sorted(os.listdir(self.top))
        self.assertEqual(self.restore()[:2], (code, ""))
        err = self.restore()[2]
        self.assertEqual(err.count("\n"), 1)
        self.assertIn(says, err)
        self.assertIn(says, json.loads(self.restore("--json")[1])["message"])
        self.assertEqual(sorted(os.listdir(self.top)), before)

    def test_what_to_do_next(self) -> None:
        """One would start one node, and wait for a cluster that cannot be founded."""
        code, out, err = self.restore()
        self.assertEqual((code, err), (0, ""))
        digest = verified(self.data)[:8]
        self.assertIn(
            f"node-1.kvtwist: 2 partitions of cluster cccccccc, from backup {digest}", out
        )
        self.assertIn("for every other founder, then start them all with --partitions=2\n", out)
        self.assertEqual(check(self.directory).problems, [])

    def test_json(self) -> None:
        """The same for a script."""
        said = json.loads(self.restore("--json")[1])
        self.assertEqual(
            said,
            {
                "directory": str(self.directory),
                "id": "node-1",
                "partitions": 2,
                "backup_of": "c" * 32,
                "created_ms": 1_700_000_000_000,
                "digest": verified(self.data),
            },
        )

    def test_the_usual_directory(self) -> None:
        """It is where the node looks for it, if nothing else is said."""
        here = Path.cwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.top)
        self.assertEqual(self.kvcli("restore", "backup", "--id=node-7")[0], 0)
        directory = DataDirectory(self.top / "node-7.kvtwist", RocksEngine, "node-7", "")
        directory.close()
        self.assertEqual(len(directory.record.identity), 32)

    def test_this_directory(self) -> None:
        """``--data-dir=.``, in an empty one."""
        self.directory.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.directory)
        self.assertEqual(self.kvcli("restore", str(self.file), "--id=n", "--data-dir=.")[0], 0)
        self.assertEqual(check(self.directory).problems, [])

    def test_identities(self) -> None:
        """S6: two nodes of one identity, or a cluster with the id of another one."""
        found = set()
        for number in (1, 2, 3):
            self.directory = self.top / f"{number}"
            self.restore()
            directory = DataDirectory(self.directory, RocksEngine, "node-1", "")
            directory.close()
            found.add(directory.record.identity)
        self.assertEqual(len(found), 3)

    def test_a_damaged_file(self) -> None:
        """Told apart from a wrong name: that one can be mended."""
        self.file.write_bytes(self.data[:-1])
        self.assert_failed(1, "the backup is cut off: nothing was restored")
        self.file.write_bytes(self.data[:-1] + b"!")
        self.assert_failed(1, "wrong checksum")

    def test_what_is_no_backup(self) -> None:
        """Whatever else somebody names."""
        self.file.write_bytes(b"#!/bin/sh\necho hello\n")
        self.assert_failed(2, "no backup")
        self.file.unlink()
        self.assert_failed(2, f"{self.file}: No such file or directory")
        self.file.mkdir()
        self.assert_failed(2, f"{self.file}: Is a directory")

    def test_a_directory_that_is_not_empty(self) -> None:
        """Nothing is ever restored over anything."""
        self.restore()
        self.assert_failed(2, "is not empty")

    def test_a_directory_that_cannot_be_made(self) -> None:
        """The parent is not there."""
        self.directory = self.top / "absent" / "node-1"
        self.assert_failed(74, "No such file or directory")

    def test_a_disk_that_fails(self) -> None:
        """It is the output that failed, not the file."""

        def fail(*_: object) -> None:
            raise StoreFailed("Input/output error")

        self.patch(restore, "restore", fail)
        self.assert_failed(74, "Input/output error")

    def test_a_node_without_a_name(self) -> None:
        """A directory is one node's, for ever."""
        self.assert_usage_error("restore", "backup", says="--id")
        self.assert_usage_error("restore", str(self.file), "--id=a b", says="--id")
