"""Fragments: any box, cut anywhere, comes out the same; and nonsense is refused without growing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.boxes import (
    ASK,
    COMMAND,
    VALUE_BYTES_MAX,
    Box,
    BoxLimits,
    BoxReader,
    FramingError,
    OversizedBox,
    write_box,
)
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Fragment, Put
from kvtwist.wire.fragments import FRAGMENT, FRAGMENT_BYTES_MAX, PIECE_BYTES_MAX, Joiner, cut
from kvtwist.wire.greeting import Greeting, features
from tests.wire.loopback import WIDE_OPEN, cut_at
from tests.wire.properties import examples
from tests.wire.test_boxes import StockReader, any_box, places

MIB = 1 << 20
SMALL = write_box({ASK: b"1", COMMAND: b"Get", b"key": b"some key"})


def large_box(size: int = 3 * MIB) -> Box:
    """A request with a value of that size, not the same anywhere."""
    value = b"".join(b"%8d" % number for number in range(size // 8 + 1))[:size]
    (box,) = BoxReader(WIDE_OPEN).feed(
        codec_of(Put).write_request(b"7", {"key": b"k", "value": value})
    )
    return box


def boxes_of(fragments: Iterable[bytes]) -> Iterator[Box]:
    """The fragments as they are read."""
    reader = BoxReader(WIDE_OPEN)
    for fragment in fragments:
        yield from reader.feed(fragment)


def joined(boxes: Iterable[Box], joiner: Joiner | None = None) -> list[Box]:
    """What the fragments make."""
    joiner = joiner or Joiner(WIDE_OPEN)
    return [whole for box in boxes if (whole := joiner.feed(box)) is not None]


def a_fragment(number: int = 0, last: bool = True, piece: bytes = SMALL) -> Box:
    """One fragment."""
    said = {b"number": b"%d" % number, b"last": b"True" if last else b"False", b"piece": piece}
    return {COMMAND: FRAGMENT} | said


class CutTests(SynchronousTestCase):
    """What is sent."""

    @examples(80)
    @given(any_box, st.integers(1, 200_000), places)
    def test_the_same_box(self, box: Box, piece_bytes_max: int, chunks: list[int]) -> None:
        """Else a value is damaged on its way to its owner, for some lengths and some networks."""
        stream = b"".join(cut(write_box(box), max(piece_bytes_max, len(write_box(box)) // 50)))
        reader = BoxReader(WIDE_OPEN)
        fragments = [one for chunk in cut_at(stream, chunks) for one in reader.feed(chunk)]
        self.assertEqual(joined(fragments), [box])

    @examples(20)
    @given(st.lists(any_box, min_size=2, max_size=4), st.integers(1000, 200_000))
    def test_one_after_the_other(self, boxes: list[Box], piece_bytes_max: int) -> None:
        """Else only the first large value of a connection arrives."""
        fragments = [one for box in boxes for one in cut(write_box(box), piece_bytes_max)]
        self.assertEqual(joined(boxes_of(fragments)), boxes)

    def test_lengths(self) -> None:
        """Else a fragment is itself longer than what may be sent at once; or a value whose length
        fits exactly loses its last byte, or is followed by a fragment that is empty."""
        for size in (PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1):
            for times in (1, 3):
                data = bytes(times * size)
                fragments = list(cut(data))
                pieces = [codec_of(Fragment).read_arguments(box) for box in boxes_of(fragments)]
                self.assertEqual(b"".join(each["piece"] for each in pieces), data)
                self.assertEqual([each["number"] for each in pieces], [*range(len(pieces))])
                self.assertEqual(
                    [each["last"] for each in pieces], [False] * (len(pieces) - 1) + [True]
                )
                self.assertEqual(len(pieces), -(-len(data) // PIECE_BYTES_MAX))
                self.assertLessEqual(max(map(len, fragments)), FRAGMENT_BYTES_MAX)

    def test_stock_amp_reads_fragments(self) -> None:
        """Else the protocol is not what its command classes say, and nobody but us can join."""
        box = large_box()
        stock = StockReader()
        stock.feed(cut(write_box(box)))
        said = [amp._stringsToObjects(one, Fragment.arguments, None) for one in stock.boxes]
        self.assertTrue(all(one[COMMAND] == b"Fragment" and ASK not in one for one in stock.boxes))
        self.assertEqual(b"".join(one["piece"] for one in said), write_box(box))

    def test_stock_amp_writes_fragments(self) -> None:
        """The same, the other way round."""
        data = write_box(large_box())
        half = len(data) // 2
        made = [
            dict(Fragment.makeArguments({"number": at, "last": at == 1, "piece": piece}, None))
            for at, piece in enumerate((data[:half], data[half:]))
        ]
        self.assertEqual(joined(made), [large_box()])


class LimitTests(SynchronousTestCase):
    """Rule 1: what is joined is held to the limits of boxes."""

    def test_bytes(self) -> None:
        """Else a value that is refused when it comes whole is taken in fragments, or the other way
        round; and whoever sent it is not told."""
        box = large_box()
        size = len(write_box(box)) - len(b"\0\0")
        for limit in (size - 1, size, size + 1):
            limits = BoxLimits(box_bytes_max=limit, box_pairs_max=1000)
            (whole,) = joined(boxes_of(cut(write_box(box))), Joiner(limits))
            if limit < size:
                assert isinstance(whole, OversizedBox)
                self.assertEqual((whole.setting, whole.limit), ("box_bytes_max", limit))
                self.assertEqual(whole, {ASK: b"7", COMMAND: b"Put"})
            else:
                self.assertEqual(whole, box)

    def test_pairs(self) -> None:
        """The same, for the number of its pairs."""
        box = large_box()
        for limit in (len(box) - 1, len(box), len(box) + 1):
            limits = BoxLimits(box_bytes_max=1 << 30, box_pairs_max=limit)
            (whole,) = joined(boxes_of(cut(write_box(box))), Joiner(limits))
            self.assertEqual(isinstance(whole, OversizedBox), limit < len(box))

    def test_oversized_is_not_kept(self) -> None:
        """T5: else a box without end fills the memory, fragment by fragment."""
        joiner = Joiner(BoxLimits.for_values_of(MIB))
        piece = write_box({b"k": b"v" * VALUE_BYTES_MAX})[:-2]
        joiner.feed(a_fragment(0, last=False, piece=SMALL[:-2]))
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(1, 1000):
            joiner.feed(a_fragment(number, last=False, piece=piece))
        held, _ = tracemalloc.get_traced_memory()
        self.assertLess(held, 3 * MIB)
        self.assertLess(joiner.reader.held_bytes, VALUE_BYTES_MAX + 100)
        whole = joiner.feed(a_fragment(1000, piece=b"\0\0"))
        self.assertIsInstance(whole, OversizedBox)
        self.assertEqual(whole, {ASK: b"1", COMMAND: b"Get"})

    def test_said_only_if_a_fragment_fits(self) -> None:
        """Else a node with a small limit cuts off whoever sends it a large value, instead of saying
        which limit it is over."""
        for limit in (FRAGMENT_BYTES_MAX - 1, FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MAX + 1):
            joins = Greeting(features=features(BoxLimits(limit, 1000))).joins_fragments
            self.assertEqual(joins, limit >= FRAGMENT_BYTES_MAX)
        (first, *_) = boxes_of(cut(bytes(2 * MIB)))
        common = 2
        self.assertFalse(Greeting(features=features(BoxLimits(MIB, 20))).joins_fragments)
        self.assertTrue(Greeting(features=features(BoxLimits(MIB, 32))).joins_fragments)
        self.assertLessEqual(len(first) + common, 32)


class NonsenseTests(SynchronousTestCase):
    """Rule 2: T5: fragments that make no box."""

    def refused(self, *fragments: Box) -> str:
        """The fragments but the last are taken; at that one the stream is over."""
        joiner = Joiner(WIDE_OPEN)
        for fragment in fragments[:-1]:
            self.assertIsNone(joiner.feed(fragment))
        error = self.assertRaises(FramingError, joiner.feed, fragments[-1])
        self.assertEqual(joiner.reader.held_bytes, 0)
        self.assertRaises(FramingError, joiner.feed, a_fragment())
        self.assertEqual(joiner.reader.held_bytes, 0)
        return str(error)

    def test_order(self) -> None:
        """Else a value is stored whose parts have changed places."""
        first = a_fragment(0, last=False, piece=SMALL[:5])
        for number in (0, 2, 3):
            self.assertIn("number 1", self.refused(first, a_fragment(number, piece=SMALL[5:])))
        self.assertIn("number 0", self.refused(a_fragment(1)))

    def test_another_large_box_between(self) -> None:
        """Else the parts of two values are mixed."""
        self.refused(a_fragment(0, last=False, piece=SMALL[:5]), a_fragment(0))

    def test_empty(self) -> None:
        """Else a peer sends fragments for ever that bring nothing."""
        self.assertIn("empty", self.refused(a_fragment(piece=b"")))
        nothing = a_fragment()
        del nothing[b"piece"]
        self.assertIn("empty", self.refused(nothing))

    def test_inside_a_fragment(self) -> None:
        """Else fragments within fragments within fragments are joined, each level with memory of
        its own, until the stack is full."""
        within = write_box(a_fragment())
        self.assertIn("inside a fragment", self.refused(a_fragment(piece=within)))

    def test_ends_elsewhere(self) -> None:
        """Else what follows is read as the beginning of another request."""
        for fragments in (
            [a_fragment(piece=SMALL[:-1])],
            [a_fragment(piece=SMALL + b"\0")],
            [a_fragment(piece=SMALL + SMALL)],
            [a_fragment(last=False)],
            [a_fragment(0, last=False, piece=SMALL[:5]), a_fragment(1, False, SMALL[5:])],
        ):
            self.refused(*fragments)

    def test_no_box(self) -> None:
        """Else what is not AMP is waited for to its end."""
        self.refused(a_fragment(piece=b"\xff\xff"))

    def test_malformed(self) -> None:
        """Else a fragment that says nothing of its place is taken for the next one."""
        for name, value in ((b"number", b"00"), (b"number", b"-0"), (b"last", b"true")):
            self.refused(a_fragment() | {name: value})
        for name in (b"number", b"last"):
            lacking = a_fragment()
            del lacking[name]
            self.refused(lacking)

    def test_oversized(self) -> None:
        """Else a part of a value is left out, and nobody notices."""
        over = OversizedBox("box_bytes_max", 1, 2)
        over[COMMAND] = FRAGMENT
        self.refused(over)
