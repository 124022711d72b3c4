"""Backups of real nodes."""

from __future__ import annotations

import os
import signal

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
        self.assertIn(b"all: 1 key of 64 partitions", done.stdout)
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
        self.processes.nodes[2].kill()
        done = self.processes.kvcli("backup", "all", "--force")
        self.assertEqual(done.returncode, 3, done)
        self.assertIn(b"node-2", done.stderr)
        self.assertEqual((top / "all").read_bytes(), kept)
        self.assertEqual(set(os.listdir(top)), before)

    def test_interrupted(self) -> None:
        """Ctrl-C: not a success, and no half file."""
        self.processes.found()
        self.processes.nodes[2].signal(signal.SIGSTOP)
        command = (*KVCLI, f"--peers={self.processes.peers}", "--timeout=60", "backup", "all")
        program = self.processes.run(command, "kvcli")
        part = self.processes.directory / "all.part"
        while not part.exists():
            self.assertIsNone(program._process.poll(), program.output)
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
