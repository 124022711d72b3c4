"""Boxes: the format is stock AMP's to the byte, and no stream makes the reader's memory grow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Box,
    BoxLimits,
    BoxReader,
    FramingError,
    OversizedBox,
    write_box,
)
from tests.wire.loopback import WIDE_OPEN, cut_at, pieces
from tests.wire.properties import examples

MIB = 1 << 20
END = b"\0\0"

keys = st.binary(min_size=1, max_size=12) | st.binary(min_size=250, max_size=KEY_BYTES_MAX)
values = st.binary(max_size=40) | st.integers(VALUE_BYTES_MAX - 2, VALUE_BYTES_MAX).map(
    lambda size: b"v" * size
)
any_box = st.dictionaries(keys, values, min_size=1, max_size=5)
any_boxes = st.lists(any_box, max_size=4)
places = st.lists(st.integers(0, 1 << 20), max_size=12)
amp_like = st.lists(
    st.sampled_from([b"\0\0", b"\0\1", b"\0\2", b"\0", b"\1", b"\xff", b"a", b"_ask", b"\1\0"]),
    max_size=40,
).map(b"".join)

thoroughly = examples(80)


def pair(key: bytes, value: bytes) -> bytes:
    """One pair as it stands in a box."""
    return len(key).to_bytes(2, "big") + key + len(value).to_bytes(2, "big") + value


def pair_of(size: int) -> bytes:
    """One pair that takes *size* bytes in a box, 5 or more."""
    return pair(b"k", b"v" * (size - 5))


class StockReader:
    """Reads with ``twisted.protocols.amp``, and hangs up when that does."""

    def __init__(self) -> None:
        self.boxes: list[dict[bytes, bytes]] = []
        self.hung_up = False
        self._protocol = amp.BinaryBoxProtocol(self)
        self._protocol.makeConnection(self)

    def feed(self, chunks: Iterable[bytes]) -> None:
        """Take chunks."""
        for chunk in chunks:
            if not self.hung_up:
                self._protocol.dataReceived(chunk)

    # IBoxReceiver, and as much of a transport as is used

    def startReceivingBoxes(self, _: object) -> None: ...

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        self.boxes.append(dict(box))

    def loseConnection(self) -> None:
        self.hung_up = True


def read(chunks: Iterable[bytes], limits: BoxLimits = WIDE_OPEN) -> list[Box]:
    """The boxes in a stream."""
    reader = BoxReader(limits)
    return [box for chunk in chunks for box in reader.feed(chunk)]


class StockTests(SynchronousTestCase):
    """What one side writes the other reads, ours or Twisted's."""

    @thoroughly
    @given(any_boxes, places)
    def test_stock_reads_ours(self, boxes: list[dict[bytes, bytes]], cuts: list[int]) -> None:
        """Else the ten-line program with ``twisted.protocols.amp`` cannot talk to a node."""
        stream = b"".join(write_box(box) for box in boxes)
        self.assertEqual(amp.parseString(stream), boxes)
        stock = StockReader()
        stock.feed(cut_at(stream, cuts))
        self.assertEqual(stock.boxes, boxes)

    @thoroughly
    @given(any_boxes, places)
    def test_we_read_stock(self, boxes: list[dict[bytes, bytes]], cuts: list[int]) -> None:
        """Else a node misreads stock clients, depending on how the network cut their bytes."""
        stream = b"".join(amp.AmpBox(box).serialize() for box in boxes)
        self.assertEqual(read(cut_at(stream, cuts)), boxes)

    @thoroughly
    @given(any_boxes, st.integers(1, 9))
    def test_we_read_ours_in_small_chunks(self, boxes: list[dict[bytes, bytes]], size: int) -> None:
        """Else requests break on slow links, where bytes come in twos and threes."""
        small = [{key: value[:40] for key, value in box.items()} for box in boxes]
        stream = b"".join(write_box(box) for box in small)
        self.assertEqual(read(pieces(size)(stream)), small)

    @examples(200)
    @given(amp_like | st.binary(max_size=64))
    @example(b"\0\1a\0\0\0\1a\0\1b\0\0\1\0")
    def test_any_stream_means_the_same_to_both(self, stream: bytes) -> None:
        """Else a proxy or a filter in front of a node sees other requests than the node does."""
        stock = StockReader()
        stock.feed(pieces(1)(stream))
        boxes: list[Box] = []
        reader = BoxReader(WIDE_OPEN)
        try:
            for byte in pieces(1)(stream):
                boxes += reader.feed(byte)
        except FramingError:
            self.assertTrue(stock.hung_up)
        else:
            self.assertFalse(stock.hung_up)
        self.assertEqual(boxes, stock.boxes)


class LengthTests(SynchronousTestCase):
    """The ends of AMP's lengths."""

    def test_keys(self) -> None:
        """Else a key at AMP's limit is lost, or one past it breaks every request after it."""
        for size in (1, KEY_BYTES_MAX):
            box = {b"k" * size: b"v"}
            self.assertEqual(read([write_box(box)]), [box])
        for size in (0, KEY_BYTES_MAX + 1):
            self.assertRaises(ValueError, write_box, {b"k" * size: b"v"})

    def test_values(self) -> None:
        """Else empty values cannot be stored, or one too long breaks every request after it."""
        for size in (0, 1, 255, 256, VALUE_BYTES_MAX):
            box = {b"k": b"v" * size}
            self.assertEqual(read([write_box(box)]), [box])
        self.assertRaises(ValueError, write_box, {b"k": b"v" * (VALUE_BYTES_MAX + 1)})

    def test_key_that_stands_twice(self) -> None:
        """Else a node and stock AMP disagree about what such a request asks for."""
        stream = pair(b"k", b"first") + pair(b"j", b"") + pair(b"k", b"last") + END
        self.assertEqual(read([stream]), [{b"k": b"last", b"j": b""}])
        self.assertEqual(read([stream]), amp.parseString(stream))

    def test_empty_box(self) -> None:
        """T4: else two zero bytes put the stream out of step; and we never send such a box."""
        stream = END + pair(b"k", b"v") + END + END
        self.assertEqual(read([stream]), [{}, {b"k": b"v"}, {}])
        self.assertEqual(read(pieces(1)(stream)), [{}, {b"k": b"v"}, {}])
        self.assertRaises(ValueError, write_box, {})

    def test_incomplete_box(self) -> None:
        """Else a request cut short by a crash is carried out with half of its arguments."""
        stream = write_box({b"a": b"1", b"b": b"2"})
        for end in range(len(stream)):
            self.assertEqual(read([stream[:end]]), [])


class FramingTests(SynchronousTestCase):
    """Streams that are not AMP."""

    def test_long_key(self) -> None:
        """Else a web browser at the port keeps a connection for ever; the error says what it is."""
        for stream in (b"\1\0", b"\xff\xff", b"GET / HTTP/1.1\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"):
            error = self.assertRaises(FramingError, BoxReader(WIDE_OPEN).feed, stream)
            self.assertIn("AMP", str(error))
            self.assertNotIn("\n", str(error))

    def test_long_key_in_a_box(self) -> None:
        """The same, in the middle of a box and over a limit."""
        for limits in (WIDE_OPEN, BoxLimits(5, 1)):
            reader = BoxReader(limits)
            self.assertEqual(reader.feed(pair(b"k", b"v" * 99)), [])
            self.assertEqual(reader.feed(b"\1"), [])
            self.assertRaises(FramingError, reader.feed, b"\0")

    def test_nothing_is_taken_after_it(self) -> None:
        """Else what an attacker hides behind garbage is carried out while the connection closes."""
        for start in (b"", pair(b"k", b"v")):
            reader = BoxReader(WIDE_OPEN)
            reader.feed(start)
            self.assertRaises(FramingError, reader.feed, b"\xff\xff" * 9)
            taken: list[Box] = []
            for _ in range(3):
                try:
                    taken += reader.feed(END + write_box({COMMAND: b"Put"}))
                except FramingError:
                    continue
            self.assertEqual(taken, [])

    @examples(80)
    @given(amp_like | st.binary(max_size=600), places, st.integers(0, 40), st.integers(0, 4))
    def test_random_bytes(
        self, stream: bytes, cuts: list[int], bytes_max: int, pairs_max: int
    ) -> None:
        """Else garbage at the port fills the log with tracebacks, or stops the node."""
        reader = BoxReader(BoxLimits(bytes_max, pairs_max))
        for chunk in cut_at(stream, cuts):
            try:
                reader.feed(chunk)
            except FramingError:
                return


class LimitTests(SynchronousTestCase):
    """T5: boxes that are too large."""

    def over(self, stream: bytes, limits: BoxLimits, cut: int = 1 << 20) -> OversizedBox:
        """The oversized box in a stream that has one, then a box in step."""
        over, after = read(pieces(cut)(stream + pair(b"in", b"step") + END), limits)
        assert isinstance(over, OversizedBox)
        self.assertEqual(after, {b"in": b"step"})
        self.assertNotIsInstance(after, OversizedBox)
        return over

    def test_bytes(self) -> None:
        """Else the limit that people set is not the one in force."""
        limits = BoxLimits(box_bytes_max=100, box_pairs_max=10)
        for size in (99, 100):
            (box,) = read([pair_of(40) + pair_of(size - 40) + END], limits)
            self.assertNotIsInstance(box, OversizedBox)
        over = self.over(pair_of(40) + pair_of(61) + END, limits)
        self.assertEqual((over.setting, over.limit, over.actual), ("box_bytes_max", 100, 101))

    def test_pairs(self) -> None:
        """Else the limit that people set is not the one in force."""
        limits = BoxLimits(box_bytes_max=1000, box_pairs_max=3)
        for number in (2, 3):
            (box,) = read([pair_of(9) * number + END], limits)
            self.assertNotIsInstance(box, OversizedBox)
        over = self.over(pair_of(9) * 4 + END, limits)
        self.assertEqual((over.setting, over.limit, over.actual), ("box_pairs_max", 3, 4))

    def test_limits_are_for_each_box(self) -> None:
        """Else a long-lived connection refuses everything after its first few requests."""
        limits = BoxLimits(box_bytes_max=20, box_pairs_max=2)
        box = pair_of(10) + pair_of(10) + END
        for stream in (box * 50, (pair_of(21) + END + box) * 50):
            boxes = read([stream], limits)
            self.assertEqual(
                [isinstance(box, OversizedBox) for box in boxes],
                [False] * 50 if len(boxes) == 50 else [True, False] * 50,
            )

    def test_envelope_is_kept(self) -> None:
        """Else the sender of a value that is too large waits for its time limit, and is told
        nothing of the limit. Stock AMP sorts a box's keys, others do not: all orders are met."""
        limits = BoxLimits(box_bytes_max=120, box_pairs_max=50)
        envelope = {COMMAND: b"Put", ASK: b"1f"}
        parts = [pair(key, value) for key, value in envelope.items()]
        filler = pair(b"value", b"x" * 100)
        for stream in (
            parts[0] + parts[1] + filler + filler,
            filler + filler + parts[0] + parts[1],
            parts[1] + filler + parts[0] + filler,
            filler + parts[0] + filler + parts[1],
            filler + parts[1] + parts[0] + filler,
        ):
            for cut in (1, 7, 1 << 20):
                self.assertEqual(self.over(stream + END, limits, cut), envelope)

    def test_envelope_key_that_crosses_the_limit(self) -> None:
        """Else one request in a hundred that are too large is never answered."""
        ask = pair(ASK, b"7")
        for limits in (
            BoxLimits(box_bytes_max=30 + len(ask) - 1, box_pairs_max=9),
            BoxLimits(box_bytes_max=900, box_pairs_max=1),
        ):
            self.assertEqual(self.over(pair_of(30) + ask + END, limits), {ASK: b"7"})

    def test_envelope_of_answers(self) -> None:
        """Else a client that is sent too large an answer waits for its time limit."""
        limits = BoxLimits(box_bytes_max=20, box_pairs_max=50)
        for envelope in ({ANSWER: b"2"}, {ERROR: b"2", ERROR_CODE: b"REFUSED"}):
            parts = b"".join(pair(key, value) for key, value in envelope.items())
            self.assertEqual(self.over(pair_of(50) + parts + END, limits), envelope)

    def test_nothing_else_is_kept(self) -> None:
        """Else the limit does not bound memory: what may be kept is named, and is short."""
        limits = BoxLimits(box_bytes_max=70_000, box_pairs_max=50)
        long = b"x" * 256
        for early, late in ((long, b""), (b"", long)):
            stream = b"".join(
                (
                    pair(COMMAND, early) + pair(ERROR_DESCRIPTION, b"1") + pair(b"key", b"1"),
                    pair_of(65_000) * 2,
                    pair(ASK, late) + pair(ERROR_DESCRIPTION, b"2") + pair(b"trace", b"2"),
                )
            )
            self.assertEqual(
                self.over(stream + END, limits), {ASK: b""} if early else {COMMAND: b""}
            )

    @thoroughly
    @given(
        st.lists(st.tuples(st.sampled_from([b"a", ASK, COMMAND]), st.binary(max_size=9))),
        places,
        st.integers(0, 60),
        st.integers(0, 6),
    )
    def test_chunks_do_not_matter(
        self, pairs: list[tuple[bytes, bytes]], cuts: list[int], bytes_max: int, pairs_max: int
    ) -> None:
        """Else whether a request is refused depends on how the network cut its bytes."""
        limits = BoxLimits(bytes_max, pairs_max)
        content = b"".join(pair(key, value) for key, value in pairs)
        stream = content + END + pair_of(5) + END
        at_once, cut = read([stream], limits), read(cut_at(stream, cuts), limits)
        self.assertEqual(at_once, cut)
        self.assertEqual([type(box) for box in at_once], [type(box) for box in cut])
        self.assertEqual(
            isinstance(at_once[0], OversizedBox),
            len(content) > bytes_max or len(pairs) > pairs_max,
        )

    def test_limits_for_values(self) -> None:
        """Else a value at the limit that people set is refused, or one a little over it by the
        name of a limit that nobody set."""
        for value_bytes_max in (0, 1, 1000, MIB, 16 * MIB):
            sizes = [VALUE_BYTES_MAX] * (value_bytes_max // VALUE_BYTES_MAX)
            sizes.append(value_bytes_max % VALUE_BYTES_MAX)
            values = b"".join(
                pair(b"%s.%d" % (name, number), b"v" * size)
                for name in (b"value", b"trace")
                for number, size in enumerate(sizes)
            )
            rest = pair(COMMAND, b"CompareAndSet") + pair(ASK, b"1") + pair(b"key", b"k" * 4096)
            (box,) = read([rest + values + END], BoxLimits.for_values_of(value_bytes_max))
            self.assertNotIsInstance(box, OversizedBox)
            over = [values * 2 + pair_of(60_000) * 5 + END]
            (box,) = read(over, BoxLimits.for_values_of(value_bytes_max))
            self.assertIsInstance(box, OversizedBox)


class MemoryTests(SynchronousTestCase):
    """T5: one peer with one box that never ends drove a stock server to 878 MiB."""

    limits = BoxLimits(box_bytes_max=200_000, box_pairs_max=1000)

    def peak_bytes(self, chunks: Iterable[bytes]) -> int:
        """How much memory the reader takes at most, while it is fed *chunks* of a single box."""
        reader = BoxReader(self.limits)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for chunk in chunks:
            self.assertEqual(reader.feed(chunk), [])
        _, peak = tracemalloc.get_traced_memory()
        return peak

    def test_endless_box(self) -> None:
        """Else whoever reaches the port can stop the node by filling its memory."""
        chunk = pair(b"k", b"v" * 65_531)
        self.assertEqual(len(chunk), 64 << 10)
        self.assertLess(self.peak_bytes([chunk] * 1024), MIB)

    def test_endless_box_in_odd_chunks(self) -> None:
        """The same, when each chunk ends somewhere within a pair."""
        stream = pair(b"key", b"v" * 40_000) * 100
        self.assertLess(self.peak_bytes(pieces(65_536)(stream)), MIB)

    def test_endless_box_of_tiny_pairs(self) -> None:
        """The same, with as many pairs as there can be: each costs more than its bytes."""
        chunk = b"".join(pair(b"%x" % number, b"") for number in range(2048))
        self.assertLess(self.peak_bytes([chunk] * 8), MIB)

    def test_endless_envelope(self) -> None:
        """The same, with the keys that are kept."""
        chunk = b"".join(
            pair(key, b"%d" % number * size)
            for number in range(10)
            for key in (ASK, COMMAND, ANSWER, ERROR, ERROR_CODE, ERROR_DESCRIPTION)
            for size in (1, 255, 9999)
        )
        self.assertLess(self.peak_bytes([chunk] * 40), 3 * MIB // 2)

    def test_what_is_left_is_small(self) -> None:
        """Else a thousand such connections, each with its box not ended, fill the memory."""
        readers = [BoxReader(self.limits) for _ in range(50)]
        chunk = pair(b"k", b"v" * 65_531) * 4
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for reader in readers:
            reader.feed(chunk)
        held, _ = tracemalloc.get_traced_memory()
        self.assertLess(held, 50 * 4096)
