"""Records that are kept in memory: what is there now, or nothing; and never more than so much."""

from __future__ import annotations

import sys
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.records import Stored
from kvtwist.storage.engine import NOT_CACHED
from kvtwist.storage.recent import (
    GROUP_BYTES_MAX,
    NODE_BYTES_MAX,
    OVERHEAD_BYTES,
    RECORD_BYTES_MAX,
    Recent,
    bytes_of_group,
)
from tests.wire.properties import examples

FEW = 8 * (OVERHEAD_BYTES + 2)
"""Four records of two bytes in each half."""

_keys = st.sampled_from([b"%d" % number for number in range(9)])
_sizes = st.one_of(
    st.none(), st.sampled_from([0, 1, 1, 1, 300, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1])
)
_steps = st.lists(st.tuples(_keys, st.one_of(st.just("find"), _sizes)), max_size=60)


def record(version: int, size: int = 1) -> Stored:
    return bytes(size), version, 1, 0, 0, 0


def kept(recent: Recent) -> dict[bytes, Stored | None]:
    return {**recent._older, **recent._newer}


class RecentTests(SynchronousTestCase):
    @examples(300)
    @given(_steps, st.sampled_from([0, 1, 700, FEW, 20_000]))
    def test_what_is_there_or_nothing(
        self, steps: list[tuple[bytes, object]], bytes_max: int
    ) -> None:
        """Whatever came and went: never a record that was replaced, never one that is gone, and
        never more bytes than it may have, or a node's memory would be full one day."""
        recent, now = Recent(bytes_max), dict[bytes, Stored | None]()
        for version, (key, what) in enumerate(steps, start=1):
            if what == "find":
                found = recent.find(key)
                self.assertTrue(found is NOT_CACHED or found == now[key])
            else:
                assert what is None or isinstance(what, int)
                now[key] = None if what is None else record(version, what)
                recent.put(key, now[key])
            sizes = [
                OVERHEAD_BYTES + len(key) + len(stored[0] if stored else b"")
                for key, stored in kept(recent).items()
            ]
            self.assertLessEqual(sum(sizes), bytes_max)
            self.assertEqual(len(sizes), len(recent._older) + len(recent._newer))
            self.assertLess(max(sizes, default=0), RECORD_BYTES_MAX + 1)

    def test_what_is_used_stays(self) -> None:
        """Else whoever writes many keys once would have those read from the engine each time that
        all others ask for."""
        recent = Recent(FEW)
        recent.put(b"used", record(1))
        for number in range(100):
            recent.put(b"%d" % (number % 50), record(number + 2))
            self.assertEqual(recent.find(b"used"), record(1))
        self.assertIs(recent.find(b"1"), NOT_CACHED)

    def test_so_many_and_no_fewer(self) -> None:
        """Half of it at least is there: else it is of no use."""
        recent = Recent(FEW)
        for number in range(100):
            recent.put(b"%d" % (number % 4), record(number + 1))
        self.assertEqual(len(kept(recent)), 4)
        for number in range(5):
            recent.put(b"%d" % number, record(200 + number))
        self.assertEqual(len(kept(recent)), 5)

    def test_a_large_value_takes_the_place_of_a_small_one(self) -> None:
        """It is not kept; what was kept before must not stand for it, in whichever half it is."""
        for others in (0, 4):
            recent = Recent(FEW)
            recent.put(b"k", record(1))
            for number in range(others):
                recent.put(b"%d" % number, record(number + 2))
            self.assertIs(b"k" in recent._older, others == 4)
            recent.put(b"k", record(9, RECORD_BYTES_MAX))
            self.assertIs(recent.find(b"k"), NOT_CACHED)

    def test_all_groups_of_a_node(self) -> None:
        """A node with many partitions has no more memory than one with few."""
        for groups in (1, 2, 16, 17, 256, 5000):
            self.assertLessEqual(groups * bytes_of_group(groups), NODE_BYTES_MAX)
            self.assertLessEqual(bytes_of_group(groups), GROUP_BYTES_MAX)
        self.assertGreater(bytes_of_group(256), 500 * OVERHEAD_BYTES)
        self.assertEqual(bytes_of_group(0), GROUP_BYTES_MAX)

    def test_what_a_record_takes(self) -> None:
        """What is counted is what there is: a bound that counts values alone is none, for short
        ones."""
        recent, count = Recent(1 << 24), 10_000
        tracemalloc.start()
        try:
            for number in range(count):
                key = b"key-%012d" % number
                # Numbers of their own, as they are when they were read.
                recent.put(key, (bytes(100), 1 << 40 | number, 1 << 41 | number, 1 << 42, 0, 0))
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(len(recent._newer), count)
        self.assertLess(taken / count, OVERHEAD_BYTES + 16 + 100)
        self.assertGreater(taken / count, OVERHEAD_BYTES / 2, sys.version)
