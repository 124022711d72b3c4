"""What ``kvcli backup`` says."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from kvtwist import __version__
from kvtwist.cli.backup import backup, failed
from kvtwist.cli.progress import Progress
from kvtwist.cli.show import Printer
from kvtwist.errors import (
    ConfigurationError,
    KvtwistError,
    Overloaded,
    Refused,
    StoreDamaged,
    Unavailable,
)
from kvtwist.storage.backup import BackupReader
from tests.cli.test_check import Terminal
from tests.cli.test_show import Console
from tests.node.test_backups import BackupCase


class SaidTests(BackupCase):
    """To people, and to scripts."""

    size = 3

    def backup(self, as_json: bool = False, terminal: io.StringIO | None = None) -> Console:
        console = Console(self)
        work = backup(
            self.client,
            Printer(as_json),
            self.file,
            overwrite=False,
            created_ms=1234,
            progress=Progress(terminal or io.StringIO()),
        )
        self.assertEqual(self.result(Deferred.fromCoroutine(work)), 0)
        return console

    def test_one_line(self) -> None:
        """How much it was, so that an empty cluster is noticed before the backup is needed."""
        for number in range(5):
            self.put(f"key-{number}", "v")
        console = self.backup()
        size = f"{self.file.stat().st_size:,}"
        said = rf"backup: 5 keys of 4 partitions, {size} bytes, digest [0-9a-f]{{8}}\n$"
        self.assertRegex(console.out, said)
        self.assertEqual(console.err, "")

    def test_json(self) -> None:
        """All of the digest, for a script that keeps a list."""
        self.put("k", "v")
        said: dict[str, Any] = json.loads(self.backup(as_json=True).out)
        with self.file.open("rb") as stream:
            reader = BackupReader(stream)
            for _, _, chunks in reader.partitions():
                list(chunks)
        self.assertEqual(
            said,
            {
                "file": str(self.file),
                "bytes": self.file.stat().st_size,
                "keys": 1,
                "partitions": 4,
                "cluster_id": self.cluster.nodes[1].cluster.founded().cluster_id,
                "digest": reader.digest,
            },
        )
        self.assertEqual(reader.header.cluster_id, said["cluster_id"])
        self.assertEqual((reader.header.created_ms, reader.header.software), (1234, __version__))
        self.assertEqual((reader.header.partitions, reader.header.replicas), (4, 3))

    def test_a_bar(self) -> None:
        """Hours of silence look like a program that hangs; afterwards nothing is left of it."""
        self.put("k", "x" * 3_000_000)
        terminal = Terminal()
        self.backup(terminal=terminal)
        shown = terminal.getvalue().split("\r")
        shares = [int(line[32:37].strip("% ")) for line in shown if line.startswith("[")]
        self.assertEqual(shares, sorted(shares))
        self.assertEqual((shares[0], shares[-1]), (0, 100))
        self.assertGreater(len(set(shares)), 6)
        self.assertEqual(shown[-1], "")

    def test_a_file_that_is_there(self) -> None:
        """It is said before anything is read."""
        self.file.write_bytes(b"old")
        self.assertRaises(ConfigurationError, self.result, self.begin_backup())
        self.assertEqual(self.file.read_bytes(), b"old")

    def test_exit_codes(self) -> None:
        """Nothing was written to the cluster, so no outcome is unknown."""
        cases: list[tuple[KvtwistError | OSError, int]] = [
            (Unavailable("node-2 is away"), 3),
            (Overloaded("many"), 3),
            (StoreDamaged("the stream is damaged"), 3),
            (Refused("in memory"), 4),
            (ConfigurationError("it is there"), 2),
            (OSError(errno.ENOSPC, "No space left on device", str(Path("x"))), 74),
        ]
        for error, code in cases:
            console = Console(self)
            self.assertEqual(failed(Printer(as_json=False), error), code)
            self.assertEqual((console.out, console.err.count("\n")), ("", 1))
            console = Console(self)
            failed(Printer(as_json=True), error)
            self.assertEqual(json.loads(console.out)["error"], type(error).__name__)
