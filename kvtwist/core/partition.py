"""The state machine of one partition: its keys, their records and their versions.

In: one operation at a time. Out: a value that says what was done and what was seen. The caller
serialises the operations; the machine itself knows neither time nor chance.

**Versions.** The partition counts its changes in a 63-bit *revision*, +1 per change. A record's
version is the revision at which it was written, so a key that is deleted and made again gets a
version higher than any it ever had: no tombstones, and no ABA problem for compare-and-set.
"""

from __future__ import annotations

from typing import NamedTuple

from kvtwist.core.state.operations import INT64_MAX, INT64_MIN, number_of
from kvtwist.core.state.outcomes import Counted, NotANumber, OutOfRange
from kvtwist.core.state.records import ABSENT, REVISION_MAX

__all__ = ["ABSENT", "REVISION_MAX", "Conditional", "Partition", "Record"]


class Record(NamedTuple):
    """What is stored under a key."""

    value: bytes
    version: int


class Conditional(NamedTuple):
    """What became of an operation that has a condition.

    ``version`` is the version of the change when ``done``; else the version seen (0: no such key).
    ``seen`` is the record as it was before the operation.
    """

    done: bool
    version: int
    seen: Record | None


class Partition:
    """The records of one partition.

    :param revision: where to start counting. A partition whose memory does not outlive its process
        starts at a random high number, so that versions from a former life match nothing.

    **Invariant:** every record's version is between 1 and ``revision``, and no two are equal.
    """

    __slots__ = ("_records", "revision")

    def __init__(self, revision: int = 0) -> None:
        if not 0 <= revision < REVISION_MAX:
            raise ValueError(f"a revision is between 0 and 2^63 - 2, not {revision}")
        self.revision = revision
        self._records: dict[bytes, Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: bytes) -> Record | None:
        """The record of *key*, or ``None``."""
        return self._records.get(key)

    def put(self, key: bytes, value: bytes) -> int:
        """Write *value* under *key*, whatever was there. Returns the new version."""
        version = self._next_revision()
        self._records[key] = Record(value, version)
        return version

    def delete(self, key: bytes, version: int | None = None) -> Conditional:
        """Remove *key*; only at *version*, if one is given. A missing key is no change."""
        seen = self._records.get(key)
        if seen is None or (version is not None and seen.version != version):
            return _not_done(seen)
        removed_at = self._next_revision()
        del self._records[key]
        return Conditional(True, removed_at, seen)

    def compare_and_set(self, key: bytes, value: bytes, version: int) -> Conditional:
        """Write *value* only if the key's version is *version* (0: only if there is no key)."""
        seen = self._records.get(key)
        if (ABSENT if seen is None else seen.version) != version:
            return _not_done(seen)
        return Conditional(True, self.put(key, value), seen)

    def increment(self, key: bytes, by: int) -> Counted | NotANumber | OutOfRange:
        """Add *by* to the number under *key*; a missing key is 0. Else what is there stays."""
        seen = self._records.get(key)
        found = 0 if seen is None else number_of(seen.value)
        if found is None:
            assert seen is not None
            return NotANumber(0, seen.version)
        number = found + by
        if not INT64_MIN <= number <= INT64_MAX:
            return OutOfRange(0, ABSENT if seen is None else seen.version)
        return Counted(self.put(key, b"%d" % number), number)

    def _next_revision(self) -> int:
        assert self.revision < REVISION_MAX, "the partition has no revisions left"
        self.revision += 1
        return self.revision


def _not_done(seen: Record | None) -> Conditional:
    return Conditional(False, ABSENT if seen is None else seen.version, seen)
