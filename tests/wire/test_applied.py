"""The mark that an answer carries: how far partitions had been applied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.applied import join_applied, pack_applied, unpack_applied
from tests.wire.properties import examples

CLUSTER = bytes(range(16))
marks = st.dictionaries(st.integers(0, 65_535), st.integers(0, (1 << 63) - 1), max_size=9)


class AppliedTests(SynchronousTestCase):
    """In and out."""

    def test_format(self) -> None:
        """The format is fixed: else a client of one release shows a node of the next a mark that
        means something else, and reads what is older than its own writes."""
        self.assertEqual(pack_applied(CLUSTER, {}), CLUSTER)
        one = b"\1\2" + b"\0\0\0\0\0\0\3\4"
        self.assertEqual(pack_applied(CLUSTER, {0x0102: 0x0304}), CLUSTER + one)
        other = b"\xff\xff" + b"\x7f" + b"\xff" * 7
        both = {0x0102: 0x0304, 0xFFFF: (1 << 63) - 1}
        self.assertEqual(pack_applied(CLUSTER, both), CLUSTER + one + other)

    @examples(60)
    @given(marks)
    def test_round_trip(self, indexes: dict[int, int]) -> None:
        """Else a node that joins the marks of others to its own says something else than they."""
        self.assertEqual(unpack_applied(CLUSTER, pack_applied(CLUSTER, indexes)), indexes)

    def test_malformed(self) -> None:
        """Else a damaged mark, or one of another cluster's, passes for what has been seen here."""
        mark = pack_applied(CLUSTER, {1: 2, 3: 4})
        whole = {len(mark), len(mark) - 10, len(mark) - 20}
        for end in range(len(mark)):
            if end not in whole:
                self.assertRaises(ValueError, unpack_applied, CLUSTER, mark[:end])
        self.assertRaises(ValueError, unpack_applied, CLUSTER, mark + b"\0")
        self.assertRaises(ValueError, unpack_applied, bytes(16), mark)

    def test_a_partition_twice(self) -> None:
        """Else which of two indexes counts depends on their order: it is the higher one."""
        low, high = pack_applied(b"", {1: 5}), pack_applied(b"", {1: 9})
        for pairs in (low + high, high + low):
            self.assertEqual(unpack_applied(CLUSTER, CLUSTER + pairs), {1: 9})

    def test_joined(self) -> None:
        """The same, for two marks; and none is lost."""
        for first, second in (({1: 5, 2: 1}, {1: 9, 3: 1}), ({1: 9, 3: 1}, {1: 5, 2: 1})):
            indexes = dict(first)
            join_applied(indexes, second)
            self.assertEqual(indexes, {1: 9, 2: 1, 3: 1})
