"""Commands, answers and records as bytes: one encoding for each value, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.answers import (
    Advanced,
    Answer,
    BelowMark,
    BeyondWindow,
    Expired,
    GenerationSet,
    NotWritten,
    SessionClosed,
    SessionOpened,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    Written,
    WrongGeneration,
    decode_answer,
    encode_answer,
)
from kvtwist.core.state.commands import (
    OPERATIONS_MAX,
    Advance,
    CloseSession,
    Command,
    Condition,
    Expire,
    OpenSession,
    SetGeneration,
    Write,
    decode,
    encode,
)
from kvtwist.core.state.fields import KEY_BYTES_MAX, MalformedBytes, UnknownKind
from kvtwist.core.state.operations import Delete, Get, Increment, Operation, Put
from kvtwist.core.state.outcomes import (
    Changed,
    Counted,
    Found,
    Mismatch,
    NotANumber,
    Outcome,
    OutOfRange,
    Unchanged,
)
from kvtwist.core.state.records import (
    Record,
    decode_fields,
    decode_record,
    encode_fields,
    encode_record,
)
from tests.core.state import strategies
from tests.wire.properties import examples

# What has been written once is read for ever: a vector here may be added, never changed.
COMMANDS = {
    Write(
        1, 2, 3, 5, 4, (Put(b"k", b"v", 6), Put(b"k", b"", 0, 7)), (Condition(b"c", 8),), 9
    ): "0101 0000000000000001 0000000000000002 00000009 0000000000000003 0000000000000005"
    "0000000000000004 01 02 0001 0000000000000008 63"
    "01 0001 00000001 0000000000000006 6b 76"
    "02 0001 00000000 0000000000000000 0000000000000007 6b",
    Write(
        0, 0, 0, 0, 0, (Delete(b"k"), Delete(b"k", 1), Increment(b"k", -1), Get(b""))
    ): "0101 0000000000000000 0000000000000000 00000000 0000000000000000 0000000000000000"
    "0000000000000000 00 04 03 0001 6b  04 0001 0000000000000001 6b"
    "05 0001 ffffffffffffffff 6b  06 0000",
    OpenSession(1, 2, 3): "0201 0000000000000001 0000000000000002 0000000000000003",
    CloseSession(1, 2, 3): "0301 0000000000000001 0000000000000002 0000000000000003",
    Expire(1, 2, 3): "0401 0000000000000001 0000000000000002 00000003",
    Advance(1): "0501 0000000000000001",
    SetGeneration(1, 2, 3): "0601 0000000000000001 0000000000000002 0000000000000003",
}
ANSWERS = {
    Written(
        (Changed(1), Unchanged(), Counted(2, -1), Found(3, b"v"), Found(4, None), Found(0, None))
    ): "0101 06 01 0000000000000001 02 03 0000000000000002 ffffffffffffffff"
    "04 0000000000000003 01 00000001 76 04 0000000000000004 00 04 0000000000000000 00",
    NotWritten(
        (Mismatch(1, 2, b"v"), Mismatch(1, 2, None), NotANumber(3, 4), OutOfRange(5, 6))
    ): "0201 0004 11 0001 0000000000000002 01 00000001 76 11 0001 0000000000000002 00"
    "12 0003 0000000000000004 13 0005 0000000000000006",
    Expired(1, 2, True): "0301 00000001 00000002 01",
    SessionOpened(1): "0401 0000000000000001",
    SessionClosed(): "0501",
    Advanced(1): "0601 0000000000000001",
    GenerationSet(1): "0701 0000000000000001",
    WrongGeneration(1, 2): "1001 0000000000000001 0000000000000002",
    UnknownSession(1): "1101 0000000000000001",
    BelowMark(1, 2): "1201 0000000000000001 0000000000000002",
    BeyondWindow(1, 2): "1301 0000000000000001 0000000000000002",
    TooManySessions(1): "1401 0000000000000001",
    TooManyAnswers(1): "1501 0000000000000001",
}
RECORDS = {
    Record(b"v", 2, 1, 3, 4, 5): "01 05 0000000000000002 0000000000000001 0000000000000003"
    "0000000000000004 76",
}

Codec = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]
COMMAND: Codec = (encode, decode)
ANSWER: Codec = (encode_answer, decode_answer)
RECORD: Codec = (encode_record, decode_record)
FIELDS: Codec = (encode_fields, decode_fields)
"""The same of a record's fields, as they are in a store."""

records = st.builds(
    lambda value, numbers, expires, lease, flags: Record(
        value, max(numbers), min(numbers), expires, lease, flags
    ),
    strategies.data,
    st.tuples(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1)),
    strategies.u64,
    strategies.u64,
    st.integers(0, 255),
)


class EncodingTests(SynchronousTestCase):
    """Every format alike."""

    def assert_read_or_refused(self, codec: Codec, data: bytes) -> None:
        """*data* is refused, or it is the one encoding of what it is read as."""
        to_bytes, of_bytes = codec
        try:
            value = of_bytes(data)
        except (MalformedBytes, UnknownKind):
            return
        self.assertEqual(to_bytes(value), data, value)

    def assert_survives_damage(self, codec: Codec, value: Any, change: int) -> None:
        """The value comes back; whatever is cut off or changed does not pass for it."""
        to_bytes, of_bytes = codec
        data = to_bytes(value)
        self.assertEqual(of_bytes(data), value)
        for length in range(len(data)):
            self.assert_read_or_refused(codec, data[:length])
        for at in range(len(data)):
            damaged = bytearray(data)
            damaged[at] ^= change
            self.assert_read_or_refused(codec, bytes(damaged))
        self.assert_read_or_refused(codec, data + b"\0")

    def test_vectors(self) -> None:
        """Else a log, a snapshot or a peer of an earlier release could not be read any more."""
        for codec, vectors in ((COMMAND, COMMANDS), (ANSWER, ANSWERS), (RECORD, RECORDS)):
            to_bytes, of_bytes = codec
            for value, digits in vectors.items():
                data = bytes.fromhex(digits)
                self.assertEqual(to_bytes(value).hex(" "), data.hex(" "), value)
                self.assertEqual(of_bytes(data), value)

    def test_vectors_have_every_kind(self) -> None:
        """Else a kind that was added later could change unnoticed."""
        outcomes = [
            outcome
            for answer in ANSWERS
            if isinstance(answer, Written | NotWritten)
            for outcome in (answer.results if isinstance(answer, Written) else answer.failures)
        ]
        operations = [each for one in COMMANDS if isinstance(one, Write) for each in one.operations]
        for vectors, every in (
            (COMMANDS, Command),
            (ANSWERS, Answer),
            (operations, Operation),
            (outcomes, Outcome),
        ):
            self.assertEqual({type(value) for value in vectors}, set(get_args(every)))

    @examples(150)
    @given(strategies.commands, st.integers(1, 255))
    def test_commands(self, command: object, change: int) -> None:
        """Else replicas could read one entry in two ways."""
        self.assert_survives_damage(COMMAND, command, change)

    @examples(150)
    @given(strategies.answers, st.integers(1, 255))
    def test_answers(self, answer: object, change: int) -> None:
        """Else a client could be told something that did not happen."""
        self.assert_survives_damage(ANSWER, answer, change)

    @examples(50)
    @given(records, st.integers(1, 255))
    def test_records(self, record: Record, change: int) -> None:
        """Else what comes out of a store could be something that never went in."""
        self.assert_survives_damage(RECORD, record, change)
        self.assert_survives_damage(FIELDS, record, change)
        self.assertEqual(encode_fields(record), encode_record(record))

    def test_fields_that_no_record_has(self) -> None:
        """Else a damaged record is served (S3): whichever way it is read."""
        for version, created in ((0, 0), (1, 0), (1, 2), (1 << 63, 1)):
            data = encode_fields((b"v", version, created, 0, 0, 0))
            for read in (decode_record, decode_fields):
                self.assertRaises(MalformedBytes, read, data)

    @examples(300)
    @given(st.binary(max_size=80))
    def test_anything(self, data: bytes) -> None:
        """Whatever bytes there are, a definite error or a value: never another exception."""
        for codec in (COMMAND, ANSWER, RECORD, FIELDS):
            self.assert_read_or_refused(codec, data)
        for kind in range(8):
            self.assert_read_or_refused(COMMAND, bytes([kind, 1]) + data)
            self.assert_read_or_refused(ANSWER, bytes([kind, 1]) + data)

    def test_unknown_kind(self) -> None:
        """A later release's entry stops the replica, whatever its version, and says what it was.
        Skipped, the replica would hold something else than the others."""
        later = [b"\x07\x01", b"\x00\x01", b"\xff\xff", b"\x01\x00", b"\x01\x02", b"\x05\xff"]
        for data in later:
            with self.assertRaises(UnknownKind) as raised:
                decode(data + b"whatever follows")
            self.assertEqual((raised.exception.kind, raised.exception.version), tuple(data))
            self.assertIn("later", str(raised.exception))

    def test_unknown_operation(self) -> None:
        """One operation of a batch that is not known stops the replica as well."""
        data = encode(Write(0, 0, 0, 0, 0, (Get(b""),)))
        self.assertEqual(data[-3:], b"\x06\0\0")
        for kind in (0, 7, 255):
            self.assertRaises(UnknownKind, decode, data[:-3] + bytes([kind]) + b"\0\0")

    def test_unknown_record_format(self) -> None:
        """A record of a later release is not taken for one of this."""
        data = encode_record(Record(b"", 1, 1))
        self.assertRaises(UnknownKind, decode_record, b"\x02" + data[1:])

    def test_out_of_bounds(self) -> None:
        """What does not fit is refused before it is proposed, not cut to size."""
        long = bytes(KEY_BYTES_MAX + 1)
        many = (Get(b""),) * (OPERATIONS_MAX + 1)
        for command in (
            Write(0, 0, 0, 0, 0, (Get(long),)),
            Write(0, 0, 0, 0, 0, (), (Condition(long, 0),)),
            Write(0, 0, 0, 0, 0, many),
            Write(0, 0, 0, 0, 0, (), (Condition(b"", 0),) * (OPERATIONS_MAX + 1)),
            Write(0, 0, 0, 0, 0, (Increment(b"", 2**63),)),
            Write(0, 0, 0, 0, 0, (Put(b"", b"", -1),)),
            Write(-1, 0, 0, 0, 0, ()),
            Write(0, 0, 0, 0, 0, (), keyspace=2**32),
            Advance(2**64),
            SetGeneration(0, 5, 5),
        ):
            self.assertRaises(ValueError, encode, command)
        at_most = Write(0, 0, 0, 0, 0, (Get(long[1:]), *many[2:]))
        self.assertEqual(decode(encode(at_most)), at_most)

    def test_too_many_parts(self) -> None:
        """An entry with more operations than are allowed is malformed: its work has no bound."""
        data = bytearray(encode(Write(0, 0, 0, 0, 0, (Get(b""),) * OPERATIONS_MAX)))
        at = data.index(bytes([0, OPERATIONS_MAX, 6]))
        for parts in (data[:at] + b"\0\x81", data[:at] + b"\x81\0"):
            self.assertRaisesRegex(MalformedBytes, "129", decode, bytes(parts + data[at + 2 :]))

    def test_impossible_records(self) -> None:
        """A record that no partition can have written is damaged."""
        for record in (Record(b"", 1, 2), Record(b"", 1, 0), Record(b"", 2**63, 1)):
            self.assertRaises(MalformedBytes, decode_record, encode_record(record))

    def test_generation_must_grow(self) -> None:
        """An entry that would set the generation back is malformed, not applied."""
        data = encode(SetGeneration(0, 5, 6))
        self.assertRaises(MalformedBytes, decode, data[:-1] + b"\x05")
