"""Backups of real nodes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.nodes import KVCLI, Processes


class BackupTests(SynchronousTestCase):
    """What an operator does, and what comes in between."""

    def setUp(self) -> None:
        self.processes = Processes()
        self.addCleanup(self.processes.close)

    def test_what_can_go_wrong(self) -> None:
        """One line, an exit code, and no half file: for each reason."""
        self.processes.found()
        self.processes.kvcli("put", "k", "v")
        top = self.processes.directory
        done = self.processes.kvcli("backup", "all")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(b"all: 1 key of 16 partitions", done.stdout)
        kept = (top / "all").read_bytes()
        before = set(os.listdir(top))
        cases = [
            (2, "all", b"--force"),
            (2, ".", b"is a directory"),
            (74, "absent/all", b"No such file or directory"),
        ]
        for code, name, said in cases:
            done = self.processes.kvcli("backup", name)
            self.assertEqual((done.returncode, done.stdout), (code, b""), done)
            self.assertEqual(done.stderr.count(b"\n"), 1)
            self.assertIn(said, done.stderr)
        for number in (2, 3):
            self.processes.nodes[number].kill()
        done = self.processes.kvcli("backup", "all", "--force")
        self.assertEqual(done.returncode, 3, done)
        self.assertIn(b"cannot be read from node-", done.stderr)
        self.assertEqual((top / "all").read_bytes(), kept)
        self.assertEqual(set(os.listdir(top)), before)

    def test_there_and_back(self) -> None:
        """S6: put, backup, stop, restore into three new directories, start, get; all of them are
        sound, and where a byte is flipped that is found."""
        self.processes.found()
        values = {f"key-{number}": f"value-{number}" for number in range(3)}
        for key, value in values.items():
            self.processes.kvcli("put", key, value)
        versions = self.versions(values)
        self.assertEqual(self.processes.kvcli("backup", "all").returncode, 0)
        in_use = self.processes.kvcli("check", "node-1.kvtwist")
        self.assertEqual((in_use.returncode, in_use.stdout), (3, b""), in_use)
        self.stop()
        top = self.processes.directory
        for number in (1, 2, 3):
            (top / f"node-{number}.kvtwist").rename(top / f"old-{number}")
            done = self.processes.kvcli("restore", "all", f"--id=node-{number}")
            self.assertEqual((done.returncode, done.stderr), (0, b""), done)
            self.assert_sound(f"node-{number}.kvtwist")
        (top / "node-3.kvtwist").rename(top / "restored-3")
        for number in (1, 2, 3):
            self.processes.start(number)
        self.processes.nodes[1].wait_for("waiting for .*it is empty, and this node was restored")
        self.processes.nodes[3].kill()
        (top / "node-3.kvtwist").rename(top / "empty-3")
        (top / "restored-3").rename(top / "node-3.kvtwist")
        self.processes.start(3)
        for node in self.processes.nodes.values():
            node.wait_for("founded cluster")
        self.assertEqual(self.versions(values), versions)
        self.stop()
        for number in (1, 2, 3):
            self.assert_sound(f"node-{number}.kvtwist")
        self.flip_a_byte(top / "node-1.kvtwist")
        found = self.processes.kvcli("check", "node-1.kvtwist")
        self.assertEqual((found.returncode, found.stderr), (1, b""), found)
        self.assertIn(b"node-1.kvtwist is damaged: ", found.stdout)

    def versions(self, values: dict[str, str]) -> dict[str, int]:
        """Of each key, which has its value."""
        versions = {}
        for key, value in values.items():
            said = json.loads(self.processes.kvcli("get", key, "--json").stdout)
            self.assertEqual(said["value"], value)
            versions[key] = said["version"]
        return versions

    def stop(self) -> None:
        for node in self.processes.nodes.values():
            node.signal(signal.SIGTERM)
        for node in self.processes.nodes.values():
            node.wait()
            self.assertIn("has stopped", node.output)

    def assert_sound(self, name: str) -> None:
        done = self.processes.kvcli("check", name)
        self.assertEqual((done.returncode, done.stderr), (0, b""), done)

    def flip_a_byte(self, directory: Path) -> None:
        """In the middle of the largest file of data."""
        files = [*directory.glob("*.sst"), *directory.glob("*.log")]
        largest = max(files, key=lambda path: path.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 0x20
        largest.write_bytes(data)

    def test_interrupted(self) -> None:
        """Ctrl-C: not a success, and no half file."""
        self.processes.found()
        self.processes.nodes[2].signal(signal.SIGSTOP)
        command = (*KVCLI, f"--peers={self.processes.peers}", "--timeout=60", "backup", "all")
        program = self.processes.run(command, "kvcli")
        part = self.processes.directory / "all.part"
        program.wait_for_file(part)
        program.signal(signal.SIGINT)
        self.assertEqual((program.wait(), program.output), (130, ""))
        self.assertFalse(part.exists())

    def test_in_memory(self) -> None:
        """Refused, with the reason."""
        self.processes.options = ("--memory",)
        self.processes.found()
        done = self.processes.kvcli("backup", "all")
        self.assertEqual((done.returncode, done.stdout), (4, b""), done)
        self.assertIn(b"in memory is not backed up", done.stderr)
        self.assertFalse((self.processes.directory / "all.part").exists())
