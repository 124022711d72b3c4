"""Who writes while nodes fail: puts at a fixed rate to every partition, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from kvtwist.client import Client, Record
from kvtwist.core.ring import partition_of
from kvtwist.errors import NotDone

KEYS_PER_PARTITION = 256
"""So many, so that no later write of the same key hides soon that one was lost."""


class Writer:
    """Writes to one partition, and does not wait for earlier writes.

    Each put writes a number of its own. Since versions count a partition's changes, a put that
    begins after another one was acknowledged has a higher version; one that has not says that an
    acknowledged write is gone.

    :ivar longest_seconds: between two writes that were acknowledged, since `begin`.
    :ivar lost: acknowledged writes that are known to be lost.
    """

    def __init__(self, client: Client, seconds: Callable[[], float], keys: Sequence[bytes]) -> None:
        self._client = client
        self._seconds = seconds
        self.keys = keys
        self._next_key = cycle(keys)
        self._numbers = count(1)
        self._written: dict[bytes, tuple[int, int]] = {}
        self._highest_version = 0
        self._last_seconds = 0.0
        self.longest_seconds = 0.0
        self.acknowledged = self.refused = self.unknown = self.lost = 0
        self.under_way = 0
        self.last_error = ""

    def begin(self) -> None:
        """Look for the longest gap from now on; one that is open counts from its beginning."""
        self.longest_seconds = 0.0

    def gap_seconds(self) -> float:
        """The longest gap since `begin`, the one included that may be open."""
        return max(self.longest_seconds, self._seconds() - self._last_seconds)

    def put(self) -> None:
        """Begin the next write."""
        key, number = next(self._next_key), next(self._numbers)
        self.under_way += 1
        writing = self._client.put(key, b"%d" % number)
        given = key, number, self._highest_version
        writing.addCallbacks(self._done, self._failed, given)

    def check(self, key: bytes, record: Record | None) -> None:
        """Count *key*'s last acknowledged write as lost if it was not read again, nor a later one.

        :param record: what was read, when no write was under way any more.
        """
        if key not in self._written:
            return
        version, number = self._written[key]
        found = (0, b"") if record is None else (record.version, record.value)
        if found[0] < version or (found[0] == version and found[1] != b"%d" % number):
            self.lost += 1

    def _done(self, version: int, key: bytes, number: int, version_before: int) -> None:
        now = self._seconds()
        self.longest_seconds = max(self.longest_seconds, now - self._last_seconds)
        self._last_seconds = now
        self.under_way -= 1
        self.acknowledged += 1
        if version <= version_before:
            self.lost += 1
        self._highest_version = max(self._highest_version, version)
        self._written[key] = max((version, number), self._written.get(key, (0, 0)))

    def _failed(self, failure: Failure) -> None:
        self.under_way -= 1
        self.last_error = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"
        if failure.check(NotDone):
            self.refused += 1
        else:
            self.unknown += 1


class Writers:
    """One writer for each partition, all at the same rate, evenly spread.

    :ivar late_seconds: how late a put began at most: how far the figures can be wrong.
    """

    def __init__(self, reactor: Any, client: Client, partitions: int, every_seconds: float) -> None:
        keys = partition_keys(partitions)
        self.each = [Writer(client, reactor.seconds, mine) for mine in keys]
        self._turns = cycle(self.each)
        self._reactor = reactor
        self._interval = every_seconds / partitions
        self._last_seconds = 0.0
        self._calls = LoopingCall.withCount(self._put)
        self._calls.clock = reactor
        self.late_seconds = 0.0

    def start(self) -> None:
        """Begin to write."""
        self._last_seconds = self._reactor.seconds()
        self._calls.start(self._interval)

    def stop(self) -> None:
        """Begin no more writes."""
        self._calls.stop()

    @property
    def waiting(self) -> int:
        """How many partitions no write to which has been acknowledged yet."""
        return sum(not writer.acknowledged for writer in self.each)

    @property
    def under_way(self) -> int:
        """How many writes have not ended."""
        return sum(writer.under_way for writer in self.each)

    def _put(self, due: int) -> None:
        now = self._reactor.seconds()
        self.late_seconds = max(self.late_seconds, now - self._last_seconds - self._interval)
        self._last_seconds = now
        for _ in range(min(due, 2 * len(self.each))):
            next(self._turns).put()


def partition_keys(partitions: int) -> list[list[bytes]]:
    """For each partition as many keys as a `Writer` has."""
    found: list[list[bytes]] = [[] for _ in range(partitions)]
    missing = partitions
    for key in _names():
        mine = found[partition_of(key, partitions)]
        if len(mine) < KEYS_PER_PARTITION:
            mine.append(key)
            missing -= len(mine) == KEYS_PER_PARTITION
            if not missing:
                break
    return found


def _names() -> Iterator[bytes]:
    return (b"outage:%d" % number for number in count())
