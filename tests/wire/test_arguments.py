"""Arguments: what they accept, what they refuse, and that stock AMP reads and writes them too."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.arguments import (
    BLOBS_MAX,
    INT64_MIN,
    NATURAL_MAX,
    Blob,
    Blobs,
    Int64,
    Natural,
    Numbers,
    Row,
    Rows,
)
from kvtwist.wire.boxes import VALUE_BYTES_MAX, BoxReader, write_box
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import DescribeTopology, Get, Put
from tests.wire.loopback import WIDE_OPEN
from tests.wire.properties import examples

MIB = 1 << 20
PIECE = VALUE_BYTES_MAX
SIZES = (0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1, 16 * MIB)

Carry = Callable[[Mapping[bytes, bytes]], dict[bytes, bytes]]


class _Sample(amp.Command):
    """One of each."""

    arguments = [  # noqa: RUF012
        (b"number", Natural()),
        (b"data", Blob()),
        (b"table", Rows()),
        (b"maybe_number", Natural(optional=True)),
        (b"maybe_data", Blob(optional=True)),
        (b"maybe_table", Rows(optional=True)),
    ]


class _PlainPut(amp.Command):
    """`Put`, as somebody writes it who has only Twisted."""

    commandName = b"Put"
    arguments = [(b"key", amp.String()), (b"value", amp.String())]  # noqa: RUF012
    response = [(b"version", amp.Integer())]  # noqa: RUF012


def by_our_boxes(box: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """A box, sent and received."""
    (received,) = BoxReader(WIDE_OPEN).feed(write_box(box))
    return received


def by_stock_boxes(box: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """A box, sent and received by ``twisted.protocols.amp``."""
    received: dict[bytes, bytes]
    (received,) = amp.parseString(amp.AmpBox(box).serialize())
    return received


def by_both(box: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """A box, sent by one and received by the other."""
    passed_on: amp.AmpBox
    (passed_on,) = amp.parseString(write_box(box))
    data: bytes = passed_on.serialize()
    (received,) = BoxReader(WIDE_OPEN).feed(data)
    return received


def put(value: bytes) -> dict[bytes, bytes]:
    """The box of a `Put`."""
    box: dict[bytes, bytes] = Put.makeArguments({"key": b"k", "value": value}, None)
    return box


class NaturalTests(SynchronousTestCase):
    """Whole numbers."""

    def test_range(self) -> None:
        """Else a version, which may be any 63-bit number, cannot be said or changes on its way."""
        for number in (0, 1, 9, 10, 65_536, 1 << 32, NATURAL_MAX - 1, NATURAL_MAX):
            text = Natural().toString(number)
            self.assertEqual(text, str(number).encode())
            self.assertEqual(Natural().fromString(text), number)
        self.assertEqual(NATURAL_MAX, 2**63 - 1)

    def test_out_of_range(self) -> None:
        """Else a number that a 64-bit field on a disk cannot hold gets as far as the store."""
        for number in (-1, -(2**63), 2**63, 2**64, 10**19, 10**100):
            self.assertRaises(ValueError, Natural().toString, number)
            self.assertRaises(ValueError, Natural().fromString, str(number).encode())

    def test_only_digits(self) -> None:
        """Else two implementations of the protocol read different numbers from the same bytes."""
        for text in (
            b"", b" ", b"1 ", b" 1", b"1\n", b"+1", b"-0", b"1_0", b"1.0", b"1e3", b"0x1f", b"1\0",
            b"None", b"True", "١٢".encode(), "\uff11".encode(), "²".encode(), b"\xb2", b"\xff" * 19,
        ):  # fmt: skip
            self.assertRaises(ValueError, Natural().fromString, text)

    def test_very_many_digits(self) -> None:
        """T4: else one small request keeps the node busy for as long as it takes to read 60,000
        digits, a time that grows with their square."""
        limit = sys.get_int_max_str_digits()
        self.addCleanup(sys.set_int_max_str_digits, limit)
        sys.set_int_max_str_digits(0)  # a host program may do so
        digits = b"9" * 60_000
        started = time.process_time()
        for _ in range(500):
            self.assertRaises(ValueError, Natural().fromString, digits)
        self.assertLess(time.process_time() - started, 0.5)

    def test_no_number(self) -> None:
        """Else a mistake of the caller's is sent, and blamed on the other end."""
        for thing in ("1", b"1", [1], 1.5, object()):
            wrong: Any = thing
            self.assertRaises(TypeError, Natural().toString, wrong)

    @examples(80)
    @given(st.binary(max_size=24) | st.text("0123456789", max_size=24).map(str.encode))
    def test_random_bytes(self, text: bytes) -> None:
        """Else a malformed number is not answered as one."""
        try:
            number = Natural().fromString(text)
        except ValueError:
            return
        self.assertEqual(number, int(text))
        self.assertEqual(Natural().toString(number), text.lstrip(b"0") or b"0")


class Int64Tests(SynchronousTestCase):
    """Whole numbers that may be negative."""

    def test_range(self) -> None:
        """Else a counter, which may be any int64, cannot be said or changes on its way."""
        for number in (INT64_MIN, INT64_MIN + 1, -10, -1, 0, 1, 10, NATURAL_MAX):
            text = Int64().toString(number)
            self.assertEqual(text, str(number).encode())
            self.assertEqual(Int64().fromString(text), number)
        self.assertEqual(INT64_MIN, -(2**63))

    def test_out_of_range(self) -> None:
        """Else a number that a log entry cannot hold gets as far as the log."""
        for number in (INT64_MIN - 1, NATURAL_MAX + 1, 10**19, -(10**100)):
            self.assertRaises(ValueError, Int64().toString, number)
            self.assertRaises(ValueError, Int64().fromString, str(number).encode())

    def test_only_digits(self) -> None:
        """Else two implementations of the protocol read different numbers from the same bytes;
        and T4: a malformed number costs nothing, and is answered as one."""
        for text in (
            b"", b"-", b"--1", b"1-", b" 1", b"- 1", b"+1", b"1_0", b"1.0", b"-0x1", b"\xb2",
            b"-" + b"9" * 60_000,
        ):  # fmt: skip
            self.assertRaises(ValueError, Int64().fromString, text)
        wrong: Any = "1"
        self.assertRaises(TypeError, Int64().toString, wrong)


class BlobTests(SynchronousTestCase):
    """Bytes of any length."""

    def assert_round_trip(self, carry: Carry) -> None:
        for size in SIZES:
            value = (b"%09d" % size * (size // 9 + 1))[:size]
            said = Put.parseArguments(carry(put(value)), None)
            self.assertTrue(said["value"] == value, f"{size} bytes came out as another value")
            self.assertEqual(said["key"], b"k")

    def test_round_trip(self) -> None:
        """Else values of some length come back changed, or cannot be stored."""
        self.assert_round_trip(by_our_boxes)

    def test_round_trip_through_stock_amp(self) -> None:
        """Else stock AMP, which writes a box's pairs in the order of their keys (``value.10``
        before ``value.2``), cannot send or read large values with our command classes."""
        self.assert_round_trip(by_stock_boxes)

    def test_round_trip_through_both(self) -> None:
        """The same, with ours at one end."""
        self.assert_round_trip(by_both)

    def test_pieces(self) -> None:
        """The format is fixed: else releases cannot read each other's large values."""
        for size in SIZES:
            box = put(b"v" * size)
            del box[b"key"]
            expected = {b"value": min(size, PIECE)}
            for number in range(2, -(-size // PIECE) + 1):
                expected[b"value.%d" % number] = min(PIECE, size - (number - 1) * PIECE)
            self.assertEqual({name: len(piece) for name, piece in box.items()}, expected)

    def test_short_values_are_plain_strings(self) -> None:
        """Else a program that has Twisted but not our command classes cannot put and get."""
        for value in (b"", b"\0\xff", b"v" * PIECE):
            plain = _PlainPut.makeArguments({"key": b"k", "value": value}, None)
            self.assertEqual(dict(plain), dict(put(value)))
            self.assertEqual(Put.parseArguments(plain, None)["value"], value)

    def test_pieces_that_do_not_fit(self) -> None:
        """Else a value of which a piece was lost, or cut off, is stored without it."""
        full = b"v" * PIECE
        for box in (
            {b"value": b"short", b"value.2": b"x"},
            {b"value": full, b"value.3": b"x"},
            {b"value": full, b"value.2": b"short", b"value.3": b"x"},
            {b"value": full, b"value.2": full, b"value.4": b"x"},
            {b"value": full, b"value.1": b"x"},
            {b"value": full, b"value.02": b"x"},
        ):
            said: dict[bytes, bytes] = {b"key": b"k", **box}
            self.assertRaises(ValueError, Put.parseArguments, said, None)
            self.assertRaises(ValueError, codec_of(Put).read_arguments, said)
        self.assertRaises(ValueError, Put.parseArguments, {b"key": b"k", b"value.2": b"x"}, None)

    def test_pieces_of_another_argument(self) -> None:
        """Else arguments whose names begin alike are taken for pieces of each other."""
        full = b"v" * PIECE
        box = {b"key": b"k", b"value": full, b"values": b"x", b"value2": b"x", b"valuer.2": b"x"}
        for said in (Put.parseArguments(box, None), codec_of(Put).read_arguments(box)):
            self.assertEqual((said["key"], said["value"]), (b"k", full))

    def test_parsing_leaves_the_box_alone(self) -> None:
        """Else a request cannot be parsed, then passed on."""
        box = put(b"v" * 70_000)
        before = dict(box)
        Put.parseArguments(box, None)
        self.assertEqual(box, before)

    def test_not_bytes(self) -> None:
        """Else a mistake of the caller's is sent as something that it is not."""
        for thing in ("text", 7, [b"v"], bytearray(b"v")):
            self.assertRaises(TypeError, put, thing)


class OptionalTests(SynchronousTestCase):
    """What may be missing, and what may not."""

    needed: dict[str, Any] = {"number": 1, "data": b"", "table": ()}  # noqa: RUF012

    def test_optional_missing(self) -> None:
        """Else stock clients, which leave out what they do not need, are refused."""
        for given_ in ({}, {"maybe_number": None, "maybe_data": None, "maybe_table": None}):
            box = _Sample.makeArguments(self.needed | given_, None)
            self.assertEqual(set(box), {b"number", b"data", b"table"})
            said = _Sample.parseArguments(by_our_boxes(box), None)
            self.assertEqual(
                said,
                self.needed | {"maybe_number": None, "maybe_data": None, "maybe_table": None},
            )

    def test_optional_present(self) -> None:
        """Else 0 and empty values, which are not nothing, are lost."""
        present = {"maybe_number": 0, "maybe_data": b"", "maybe_table": ()}
        box = _Sample.makeArguments(self.needed | present, None)
        self.assertEqual(_Sample.parseArguments(by_our_boxes(box), None), self.needed | present)

    def test_needed_missing(self) -> None:
        """Else half a request is carried out; and the error has to say which argument it is."""
        box = _Sample.makeArguments(self.needed, None)
        for name in self.needed:
            rest = {key: value for key, value in box.items() if key != name.encode()}
            error = self.assertRaises((KeyError, ValueError), _Sample.parseArguments, rest, None)
            self.assertIn(name, str(error))

    def test_needed_not_given(self) -> None:
        """Else a caller's mistake is sent, and blamed on the other end."""
        for name in self.needed:
            rest = {key: value for key, value in self.needed.items() if key != name}
            error = self.assertRaises((KeyError, ValueError), _Sample.makeArguments, rest, None)
            self.assertIn(name, str(error))

    def test_unknown_names_are_passed_over(self) -> None:
        """Else a node refuses the requests of the next release, which says more."""
        said = Get.parseArguments({b"key": b"k", b"consistency": b"stale"}, None)
        self.assertEqual(said["key"], b"k")
        self.assertNotIn("consistency", said)


def tables(width: st.SearchStrategy[int]) -> st.SearchStrategy[list[Row]]:
    """Tables with rows of one length."""
    numbers = st.integers(0, 65_535)
    return width.flatmap(
        lambda columns: st.lists(st.tuples(*[numbers] * columns), min_size=0, max_size=20)
    )


class RowsTests(SynchronousTestCase):
    """Tables: what says which member has which partition."""

    @examples(80)
    @given(tables(st.integers(1, 7)))
    def test_round_trip(self, table: list[Row]) -> None:
        """Else clients send requests to nodes that do not have the key."""
        box = {b"table": b""}
        Rows().toBox(b"table", box, {"table": table}, None)
        said: dict[str, Any] = {}
        Rows().fromBox(b"table", by_both(box), said, None)
        self.assertEqual(said["table"], tuple(table))

    def test_format(self) -> None:
        """The format is fixed: else releases read each other's tables wrongly."""
        self.assertEqual(Rows().to_bytes([(1, 258), (65_535, 0)]), b"\0\2\0\1\1\2\xff\xff\0\0")
        self.assertEqual(Rows().to_bytes([]), b"\0\0")

    def test_large_table(self) -> None:
        """Else a cluster with very many partitions cannot tell anybody its table."""
        table = [(row % 65_536, 1, 2, 3, 4) for row in range(16_384)]
        answer: dict[str, Any] = {
            "cluster_id": "c", "epoch": 1, "partitions": 16_384, "replicas": 5,
            "tokens_per_member": 1, "durable": False, "members": [], "placement": table,
        }  # fmt: skip
        box = by_both(DescribeTopology.makeResponse(answer, None))
        self.assertEqual(DescribeTopology.parseResponse(box, None)["placement"], tuple(table))

    def test_cannot_be_written(self) -> None:
        """Else a table leaves that means another one."""
        self.assertRaises(ValueError, Rows().to_bytes, [(1, 2), (3,)])
        self.assertRaises(ValueError, Rows().to_bytes, [(1,), ()])
        for number in (-1, 65_536):
            self.assertRaises((ValueError, struct.error), Rows().to_bytes, [(number,)])

    def test_malformed(self) -> None:
        """Else a damaged table is used, and keys are looked for where they are not."""
        for data in (b"", b"\0", b"\0\1\0", b"\0\0\0\1", b"\0\2\0\1", b"\0\2\0\1\0\2\0\3"):
            self.assertRaises(ValueError, Rows().from_bytes, data)

    @examples(80)
    @given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda rest: b"\0\2" + rest))
    def test_random_bytes(self, data: bytes) -> None:
        """Else a malformed table is not reported as one."""
        try:
            table = Rows().from_bytes(data)
        except ValueError:
            return
        self.assertEqual(len({len(row) for row in table} - {0}), 1 if table else 0)
        if table:
            self.assertEqual(Rows().to_bytes(table), data)


class NumbersTests(SynchronousTestCase):
    """Lists of whole numbers: the versions of many keys."""

    @examples(80)
    @given(st.lists(st.integers(0, NATURAL_MAX), max_size=30))
    def test_round_trip(self, numbers: list[int]) -> None:
        """Else the versions of keys written together come back changed."""
        data = Numbers().to_bytes(numbers)
        self.assertEqual(Numbers().from_bytes(data), tuple(numbers))
        self.assertEqual(data, b"".join(number.to_bytes(8, "big") for number in numbers))

    def test_out_of_range(self) -> None:
        """Else a list leaves that the other end refuses, with everything else in the answer."""
        for number in (-1, 1 << 63, 1 << 64):
            self.assertRaises((ValueError, struct.error), Numbers().to_bytes, [1, number])
        for data in (b"\x80" + bytes(7), b"\xff" * 8, bytes(8) + b"\xff" * 8):
            self.assertRaises(ValueError, Numbers().from_bytes, data)

    @examples(80)
    @given(st.binary(max_size=40))
    def test_random_bytes(self, data: bytes) -> None:
        """Else a damaged list is read as other versions, or is not reported as damaged."""
        try:
            numbers = Numbers().from_bytes(data)
        except ValueError:
            return
        self.assertEqual(Numbers().to_bytes(numbers), data)


class BlobsTests(SynchronousTestCase):
    """Lists of bytes: keys and values of requests for many."""

    @examples(80)
    @given(st.lists(st.none() | st.binary(max_size=20) | st.just(b"v" * 70_000), max_size=9))
    def test_round_trip(self, blobs: list[bytes | None]) -> None:
        """Else a value is stored under its neighbour's key; nothing and empty are two things."""
        box: dict[bytes, bytes] = {}
        Blobs().toBox(b"values", box, {"values": blobs}, None)
        said: dict[str, Any] = {}
        Blobs().fromBox(b"values", by_both(box), said, None)
        self.assertEqual(said["values"], blobs)

    def test_format(self) -> None:
        """The format is fixed: else releases read each other's lists wrongly."""
        lengths = b"\0\0\0\2\xff\xff\xff\xff\0\0\0\0\0\0\0\1"
        self.assertEqual(Blobs().to_bytes([b"ab", None, b"", b"c"]), b"\0\0\0\4" + lengths + b"abc")
        self.assertEqual(Blobs().to_bytes([b"ab"]), b"\0\0\0\1\0\0\0\2ab")
        self.assertEqual(Blobs().to_bytes([]), bytes(4))

    def test_malformed(self) -> None:
        """Else a list that was cut off is stored in part, with its last value shortened."""
        for blobs in ([b"abc", None, b"de"], [b"abc", b"de"], [None, None], [b""], []):
            whole = Blobs().to_bytes(blobs)
            self.assertEqual(Blobs().from_bytes(whole), blobs)
            for end in range(len(whole)):
                self.assertRaises(ValueError, Blobs().from_bytes, whole[:end])
            self.assertRaises(ValueError, Blobs().from_bytes, whole + b"\0")
        for data in (b"\0\0\0\1\xff\xff\xff\xfe", b"\0\0\0\1\x7f\xff\xff\xff" + bytes(100)):
            self.assertRaises(ValueError, Blobs().from_bytes, data)

    def test_very_many(self) -> None:
        """T5: else a box of a few megabytes becomes a list of hundreds of them."""
        for count in (BLOBS_MAX + 1, (1 << 32) - 1):
            data = count.to_bytes(4, "big") + bytes(4 * (BLOBS_MAX + 1))
            error = self.assertRaises(ValueError, Blobs().from_bytes, data)
            self.assertIn(str(BLOBS_MAX), str(error))

    def test_not_bytes(self) -> None:
        """Else a mistake of the caller's is sent as something that it is not."""
        for thing in ("text", 7, ["text"], [b"k", 7]):
            wrong: Any = thing
            self.assertRaises(TypeError, Blobs().to_bytes, wrong)

    @examples(80)
    @given(
        st.integers(0, 4),
        st.lists(st.sampled_from([b"\0", b"\0\0\0", b"\1", b"\xff" * 4, b"ab"])).map(b"".join),
    )
    def test_random_bytes(self, count: int, rest: bytes) -> None:
        """Else a damaged list is not reported as damaged."""
        data = count.to_bytes(4, "big") + rest
        try:
            blobs = Blobs().from_bytes(data)
        except ValueError:
            return
        self.assertEqual(Blobs().to_bytes(blobs), data)
