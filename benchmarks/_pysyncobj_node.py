"""A node of PySyncObj with its journal; the first one leads, and is its own load generator.

    python benchmarks/_pysyncobj_node.py AT DIRECTORY KEYS_FILE PORT...

AT counts from 0. The first node makes the requests itself, in the loop that drives it: there is no
client of PySyncObj that a measurement could use, and one of ours would only slow it down. It reads
and answers lines as `_load.py` does. The operations come in three ways:

``put``, ``get``
    PySyncObj with its default settings.
``put_fast``, ``get_fast``
    With the settings that are fastest here: one request in flight is sent to the followers at once,
    more are gathered for 1 ms instead of 100.
``put_synced``, ``get_synced``
    The same, and each node syncs its journal before it sends anything that follows from it. As it
    comes PySyncObj never does: what it has acknowledged does not survive the machine.

What it reads by itself may be old. So a get is a command that goes through the log, the one way to
a linearizable read that PySyncObj has.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pysyncobj.syncobj  # type: ignore[import-not-found,unused-ignore]
from pysyncobj import SyncObj, SyncObjConf, replicated  # type: ignore[import-not-found,unused-ignore]
from pysyncobj.transport import TCPTransport  # type: ignore[import-not-found,unused-ignore]

from _workload import Sample, quantile_ms

NEVER = 10**9
SETTING_SECONDS = 0.5
START_SECONDS_MAX = 20.0
PATIENCE_SECONDS = 30.0
"""How much longer than planned a measurement may take."""
IDLE_SECONDS = 0.05
PERIOD_SECONDS = 0.1
"""How long PySyncObj gathers commands, by default."""
BATCH_SECONDS = 0.001


class Transport(TCPTransport):  # type: ignore[misc,unused-ignore]
    """PySyncObj's own, but that the journal may be synced first."""

    def send(self, node: Any, message: Any) -> Any:
        """Send a message."""
        self._syncObj.sync()
        return super().send(node, message)


class Store(SyncObj):  # type: ignore[misc,unused-ignore]
    """A dictionary on each node."""

    def __init__(self, address: str, others: list[str], conf: Any) -> None:
        self.values: dict[bytes, bytes] = {}
        self._is_synced = self._has_unsynced = False
        super().__init__(address, others, conf, transportClass=Transport)
        self._journal = self._SyncObj__raftLog
        self._journal.add = self._noting(self._journal.add)

    @replicated  # type: ignore[untyped-decorator,unused-ignore]
    def put(self, key: bytes, value: bytes) -> None:
        """Write."""
        self.values[key] = value

    @replicated  # type: ignore[untyped-decorator,unused-ignore]
    def get(self, key: bytes) -> bytes | None:
        """Read, where the log has come to."""
        return self.values.get(key)

    @replicated  # type: ignore[untyped-decorator,unused-ignore]
    def set_synced(self, is_synced: bool) -> None:
        """Whether journals are synced, from now on, by all nodes."""
        self._is_synced = is_synced

    def sync(self) -> None:
        """Sync what has been added to the journal since the last time."""
        if self._is_synced and self._has_unsynced:
            self._has_unsynced = False
            self._journal.flush()

    def _noting(self, add: Callable[..., None]) -> Callable[..., None]:
        def noted(*entry: object) -> None:
            self._has_unsynced = True
            add(*entry)

        return noted


class Load:
    """The store under load, by the node that leads."""

    def __init__(self, store: Store, conf: Any, keys: list[bytes]) -> None:
        self._store = store
        self._conf = conf
        self._keys = keys
        self._endless = cycle(keys)

    def answer(self, question: str) -> Sample:
        """What a line asks for."""
        operation, value_bytes, in_flight, seconds = question.split()
        value = b"v" * int(value_bytes)
        keys = self._keys if operation == "fill" else self._endless
        operation, _, way = operation.partition("_")
        self._set_synced(way == "synced")
        if way or operation == "fill":
            self._conf.appendEntriesUseBatch = in_flight != "1"
            self._conf.appendEntriesPeriod = BATCH_SECONDS
        try:
            return self._measure(operation, keys, value, int(in_flight), float(seconds))
        finally:
            self._conf.appendEntriesUseBatch = True
            self._conf.appendEntriesPeriod = PERIOD_SECONDS

    def _set_synced(self, is_synced: bool) -> None:
        """Let it be known to all; the followers know it one period after the leader."""
        if self._store._is_synced == is_synced:
            return
        self._store.set_synced(is_synced)
        end = time.monotonic() + SETTING_SECONDS
        while time.monotonic() < end:
            self._store.doTick(IDLE_SECONDS)

    def _measure(
        self, operation: str, keys: Iterable[bytes], value: bytes, in_flight: int, seconds: float
    ) -> Sample:
        store, clock = self._store, time.monotonic
        remaining = iter(keys)
        latencies: list[float] = []
        under_way = failed = 0
        started = clock()
        end = started + seconds

        def ask() -> None:
            nonlocal under_way
            begun = clock()
            key = next(remaining, None) if begun < end else None
            if key is None:
                return
            under_way += 1

            def answered(_: object, error: int) -> None:
                nonlocal under_way, failed
                under_way -= 1
                if error:
                    failed += 1
                else:
                    latencies.append(clock() - begun)
                ask()

            if operation == "get":
                store.get(key, callback=answered)
            else:
                store.put(key, value, callback=answered)

        for _ in range(in_flight):
            ask()
        patience = min(self._conf.appendEntriesPeriod, IDLE_SECONDS)
        while under_way:
            store.doTick(patience)
            if clock() > end + PATIENCE_SECONDS:
                raise RuntimeError(f"PySyncObj leaves {under_way} requests without an answer")
        taken = clock() - started
        latencies.sort()
        quantiles = quantile_ms(latencies, 0.5), quantile_ms(latencies, 0.99)
        error = "PySyncObj has refused commands" if failed else ""
        return Sample(len(latencies), taken, failed, error, *quantiles)


def main(at: str, directory: str, keys_file: str, *ports: str) -> None:
    """Run the node; the first one answers questions until nobody asks any more."""
    mine = int(at)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    # Its followers complain of what their leader sends twice, line by line; that is not measured.
    logging.getLogger("pysyncobj").addHandler(logging.NullHandler())
    pysyncobj.syncobj.PIPE_NOTIFIER_ENABLED = False  # it wakes a thread; there is none to wake
    files = Path(directory) / f"pysyncobj-{mine}"
    conf = SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,
        journalFile=f"{files}.journal",
        fullDumpFile=f"{files}.dump",
        connectionRetryTime=0.2,
        # It is spared the rewriting of its journal, and elections while others are measured.
        logCompactionMinEntries=NEVER,
        logCompactionMinTime=NEVER,
        raftMinTimeout=NEVER if mine else 0.4,
        raftMaxTimeout=2 * NEVER if mine else 1.4,
        connectionTimeout=2 * NEVER,
        leaderFallbackTimeout=NEVER,
    )
    others = addresses[:mine] + addresses[mine + 1 :]
    store = Store(addresses[mine], others, conf)
    if mine:
        while True:
            store.doTick(IDLE_SECONDS)
    load = Load(store, conf, Path(keys_file).read_bytes().split())
    questions: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(questions,), daemon=True).start()
    end = time.monotonic() + START_SECONDS_MAX
    while not (store._isLeader() and store.isReady() and all(map(_connected(store), others))):
        store.doTick(IDLE_SECONDS)
        if time.monotonic() > end:
            sys.exit("PySyncObj elects nobody")
    while True:
        try:
            question = questions.get_nowait()
        except Empty:
            store.doTick(IDLE_SECONDS)
            continue
        if not question:
            return
        print(json.dumps(asdict(load.answer(question))), flush=True)


def _connected(store: Store) -> Callable[[str], bool]:
    return lambda address: any(
        node.address == address and store.isNodeConnected(node) for node in store.otherNodes
    )


def _read(questions: SimpleQueue[str]) -> None:
    for question in sys.stdin:
        questions.put(question)
    questions.put("")


if __name__ == "__main__":
    main(*sys.argv[1:])
