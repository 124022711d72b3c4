"""A node's store under load, to be killed: ``python -m tests.storage.writer DIRECTORY FIRST``,
followed by ``compact`` for a log that is compacted all the time, and else not at all, and by
``no-sync`` for a store that does not sync.

It writes numbered batches through store and replicas, as a node does, without end. On its standard
output it says, a line each: ``begun PID`` once it has started; ``done N``, ``unknown N``,
``refused N`` of each batch; ``read N`` when one that was done could be read again; ``failed WHY``
before it ends by itself.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.python.failure import Failure

from kvtwist.core.address import Address
from kvtwist.core.groups import group_of
from kvtwist.core.state.answers import Answer, Written
from kvtwist.core.state.commands import NO_SESSION, Command, Write
from kvtwist.core.state.operations import Operation, Put
from kvtwist.core.state.records import Record
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import KvtwistError, OutcomeUnknown
from kvtwist.node import compaction
from kvtwist.node.durable import DurablePartitions
from kvtwist.node.post import Post
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import Batch
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.store import Store
from kvtwist.storage.worker import Thread
from kvtwist.wire.turn import Turn

PARTITIONS = 4
IN_FLIGHT = 16
NAME, IDENTITY = "a", "1" * 32
READ_EVERY = 50
RETRY_SECONDS = 0.05
FAILED = 3


def operations(number: int) -> tuple[Operation, ...]:
    """What batch *number* does: two keys of its own, one for it and its neighbours."""
    value = random.Random(number).randbytes(10 + number % 50 * 20)
    return (
        Put(b"first-%d" % number, value),
        Put(b"shared-%d" % (number % 100), b"%d" % number),
        Put(b"second-%d" % number, value),
    )


def place(number: int) -> int:
    """The group that batch *number* is written to."""
    return group_of(number % PARTITIONS)


class Writer:
    """Keeps so many batches in flight."""

    def __init__(self, path: Path, engine: type[RocksEngine], first: int) -> None:
        self._clock = cast(Any, reactor)
        directory = DataDirectory(path, engine, NAME, IDENTITY)
        threads = (Thread(reactor, "writer"), Thread(reactor, "reader"))
        store = Store(self._clock, directory.engine, *threads, directory.marks)
        self._partitions = DurablePartitions(
            self._clock,
            NAME,
            directory,
            store,
            Post(NAME, cast(Any, None)),  # there is nobody else
            Turn(),
            self._failed,
            time.monotonic,
            random.random,
        )
        self._following = first

    def start(self) -> None:
        """Begin."""
        me = Member(NAME, IDENTITY, Address("127.0.0.1", 1))
        self._partitions.start(Topology("0" * 32, 1, [me], Settings(partitions=PARTITIONS)))
        say(f"begun {os.getpid()}")
        for _ in range(IN_FLIGHT):
            self._write()

    def _write(self) -> None:
        number, self._following = self._following, self._following + 1

        def stamped(stamp_ms: int) -> Command:
            return Write(stamp_ms, 1, NO_SESSION, 0, 0, operations(number))

        try:
            written = self._partitions._replicas.replica(place(number)).propose(stamped)
        except KeyError:
            return  # it is over
        written.addCallbacks(self._done, self._not_done, (number,), {}, (number,))

    def _done(self, answer: Answer, number: int) -> None:
        assert isinstance(answer, Written), answer
        say(f"done {number}")
        if number % READ_EVERY == 0:
            self._read(number)
        self._write()

    def _not_done(self, failure: Failure, number: int) -> None:
        failure.trap(KvtwistError)
        say(f"{'unknown' if failure.check(OutcomeUnknown) else 'refused'} {number}")
        self._read(READ_EVERY)
        self._clock.callLater(RETRY_SECONDS, self._write)

    def _read(self, number: int) -> None:
        """Whether or not the disk is full, what is there can be read."""
        try:
            read = self._partitions._replicas.replica(place(number)).read(b"first-%d" % number, 0)
        except KeyError:
            return
        read.addCallbacks(_was_read, lambda _: None, (number,))

    def _failed(self, why: KvtwistError) -> None:
        say(f"failed {why}")
        os._exit(FAILED)


def _was_read(record: Record | None, number: int) -> None:
    if record is not None:
        say(f"read {number}")


class NoSync(RocksEngine):
    """What a careless store would do."""

    def commit(self, batch: Batch, *, sync: bool) -> None:
        super().commit(batch, sync=False)


def say(line: str) -> None:
    """Not by ``write``, which is the system call that tests have fail."""
    os.writev(1, [line.encode() + b"\n"])


def main() -> None:
    """Until it is killed."""
    path, first = Path(sys.argv[1]), int(sys.argv[2])
    compaction.LOG_ENTRIES_MAX = 20 if "compact" in sys.argv[3:] else 1 << 60
    compaction.LOG_BYTES_MAX = 1 << 60
    engine = NoSync if "no-sync" in sys.argv[3:] else RocksEngine
    writer = Writer(path, engine, first)
    cast(Any, reactor).callWhenRunning(writer.start)
    cast(Any, reactor).run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
