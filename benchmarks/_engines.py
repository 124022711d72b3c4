"""What the store is measured beside: other ways to make the same bytes durable.

Each has a ``commit`` that is given what waits, and returns when that is on the disk; all but the
bare file are driven by kvtwist's own `Store`, so that what is compared is what a batch costs.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from kvtwist.storage.engine import Batch
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.rocks import RocksEngine

INSTALL = {"lmdb": "pip install lmdb"}


class File(MemoryEngine):
    """A file that is appended to, then ``fdatasync``."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir()
        self._descriptor = os.open(directory / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """Append it, as it is."""
        os.write(self._descriptor, b"".join(key + value for _, key, value in batch.operations))
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class Sqlite(MemoryEngine):
    """SQLite with a write-ahead log that is synced at each commit; a transaction for a batch."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir()
        self._database = sqlite3.connect(
            directory / "database", isolation_level=None, check_same_thread=False
        )
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = full")
        self._database.execute("create table kv (key blob primary key, value blob) without rowid")

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """In one transaction."""
        rows = [(key, value) for _, key, value in batch.operations]
        self._database.execute("begin")
        self._database.executemany("insert or replace into kv values (?, ?)", rows)
        self._database.execute("commit")

    def close(self) -> None:
        """Close it."""
        self._database.close()


class Lmdb(MemoryEngine):
    """LMDB as it comes; a transaction for a batch."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        lmdb: Any = import_module("lmdb")
        self._environment = lmdb.open(str(directory), map_size=1 << 32)

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """In one transaction."""
        with self._environment.begin(write=True) as transaction:
            for _, key, value in batch.operations:
                transaction.put(key, value)

    def close(self) -> None:
        """Close it."""
        self._environment.close()


ENGINES: dict[str, Callable[[Path], Any]] = {
    "kvtwist": RocksEngine,
    "fdatasync": File,
    "sqlite": Sqlite,
    "lmdb": Lmdb,
}


def absent() -> dict[str, str]:
    """Those that are not installed, and what to do about it."""
    missing = {}
    for name, install in INSTALL.items():
        try:
            import_module(name)
        except ImportError:
            missing[name] = install
    return missing
