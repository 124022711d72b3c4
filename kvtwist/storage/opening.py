"""Opens a node's storage: the real one, or another that keeps the same contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.store import Store
from kvtwist.storage.worker import Thread


@dataclass(frozen=True, slots=True)
class Storage:
    """A node's open data directory, and the store in it."""

    directory: DataDirectory
    store: Store


OpenStorage: TypeAlias = Callable[[Any, Path, str, str], Storage]
"""Takes the reactor, the path, the node's name, and an identity for a new directory."""


def open_storage(reactor: Any, path: Path, name: str, new_identity: str) -> Storage:
    """RocksDB in a directory, with two threads.

    :raises ConfigurationError, StorageError: as `DataDirectory` does.
    """
    from kvtwist.storage.rocks import RocksEngine  # it takes long to import: not for memory nodes

    directory = DataDirectory(path, RocksEngine, name, new_identity)
    writer, reader = Thread(reactor, "kvtwist-writer"), Thread(reactor, "kvtwist-reader")
    return Storage(directory, Store(reactor, directory.engine, writer, reader, directory.marks))
