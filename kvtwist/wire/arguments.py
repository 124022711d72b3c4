"""The types of the commands' arguments: `amp.Argument`s that bound and check what they read.

All of them are stock AMP underneath: whoever uses the command classes with
``twisted.protocols.amp`` reads and writes them without knowing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from twisted.protocols import amp

from kvtwist.wire.boxes import VALUE_BYTES_MAX

NATURAL_MAX = (1 << 63) - 1
INT64_MIN = -NATURAL_MAX - 1
_NATURAL_DIGITS_MAX = 19

BLOBS_MAX = 1 << 20
_MISSING = (1 << 32) - 1
"""What stands for the length of a blob that is missing."""

Row = tuple[int, ...]


class Natural(amp.Argument):
    """A whole number from 0 to 2^63 - 1, in decimal digits."""

    def fromString(self, inString: bytes) -> int:
        """Read it; digits are counted first, since reading very many takes very long (T4)."""
        if not 1 <= len(inString) <= _NATURAL_DIGITS_MAX or not inString.isdigit():
            raise ValueError("not a whole number from 0 to 2^63 - 1")
        return _checked_natural(int(inString))

    def toString(self, inObject: int) -> bytes:
        """Write it."""
        return b"%d" % _checked_natural(inObject)


def _checked_natural(number: int) -> int:
    if not isinstance(number, int):
        raise TypeError(f"a whole number is needed here, not {type(number).__name__}")
    if not 0 <= number <= NATURAL_MAX:
        raise ValueError(f"{number} is not a whole number from 0 to 2^63 - 1")
    return number


class Int64(amp.Argument):
    """A whole number from -2^63 to 2^63 - 1, in decimal digits."""

    def fromString(self, inString: bytes) -> int:
        """Read it; digits are counted first (T4)."""
        digits = inString[1:] if inString[:1] == b"-" else inString
        if not 1 <= len(digits) <= _NATURAL_DIGITS_MAX or not digits.isdigit():
            raise ValueError("not a whole number from -2^63 to 2^63 - 1")
        return _checked_int64(int(inString))

    def toString(self, inObject: int) -> bytes:
        """Write it."""
        return b"%d" % _checked_int64(inObject)


def _checked_int64(number: int) -> int:
    if not isinstance(number, int):
        raise TypeError(f"a whole number is needed here, not {type(number).__name__}")
    if not INT64_MIN <= number <= NATURAL_MAX:
        raise ValueError(f"{number} is not a whole number from -2^63 to 2^63 - 1")
    return number


class Blob(amp.Argument):
    """Bytes of any length.

    AMP's values end at 65,535 bytes, so longer ones stand in several pairs of the same box: the
    first under the argument's own name, the next under ``NAME.2``, ``NAME.3``, ... Each piece but
    the last is full, so short values look exactly like ``amp.String``.
    """

    def toBox(
        self, name: bytes, strings: MutableMapping[bytes, bytes], objects: Mapping[str, Any], _: Any
    ) -> None:
        """Put the value's pieces into the box *strings*."""
        value = objects.get(name.decode())
        if value is None:
            if self.optional:
                return
            raise ValueError(f"{name.decode()} is missing")
        data = self.to_bytes(value)
        strings[name] = data[:VALUE_BYTES_MAX]
        for number, at in enumerate(range(VALUE_BYTES_MAX, len(data), VALUE_BYTES_MAX), start=2):
            strings[piece_name(name, number)] = data[at : at + VALUE_BYTES_MAX]

    def fromBox(
        self, name: bytes, strings: Mapping[bytes, bytes], objects: MutableMapping[str, Any], _: Any
    ) -> None:
        """Join the pieces in the box *strings*, once."""
        first = strings.get(name)
        if first is None:
            if not self.optional:
                raise ValueError(f"{name.decode()} is missing")
            objects[name.decode()] = None
            return
        objects[name.decode()] = self.from_bytes(joined(name, first, strings))

    def to_bytes(self, value: Any) -> bytes:
        """The value as bytes; subclasses encode here."""
        if not isinstance(value, bytes):
            raise TypeError(f"bytes are needed here, not {type(value).__name__}")
        return value

    def from_bytes(self, data: bytes) -> Any:
        """The bytes as a value; subclasses decode here."""
        return data


def joined(name: bytes, first: bytes, strings: Mapping[bytes, bytes]) -> bytes:
    """The whole value whose first piece is *first*.

    :raises ValueError: when a piece is missing, or short before the last: the rest would be lost.
    """
    if len(first) < VALUE_BYTES_MAX and piece_name(name, 2) not in strings:
        return first
    pieces = [first]
    while (piece := strings.get(piece_name(name, len(pieces) + 1))) is not None:
        pieces.append(piece)
    prefix = name + b"."
    if sum(key.startswith(prefix) for key in strings) != len(pieces) - 1:
        raise ValueError("a piece of it is missing")
    if any(len(piece) != VALUE_BYTES_MAX for piece in pieces[:-1]):
        raise ValueError("a piece of it is cut off")
    return first if len(pieces) == 1 else b"".join(pieces)


def piece_name(name: bytes, number: int) -> bytes:
    """The key of a piece; the first is 1, and stands under the name itself."""
    return b"%s.%d" % (name, number)


class Rows(Blob):
    """A table of small numbers (0 to 65,535), each row as long as the others.

    On the wire: the row length and then all numbers, each in two bytes, big-endian.
    """

    def to_bytes(self, value: Sequence[Row]) -> bytes:
        """Pack the rows."""
        width = len(value[0]) if value else 0
        if any(len(row) != width for row in value):
            raise ValueError("the rows differ in length")
        numbers = [number for row in value for number in row]
        return struct.pack(f">H{len(numbers)}H", width, *numbers)

    def from_bytes(self, data: bytes) -> tuple[Row, ...]:
        """Unpack the rows."""
        if len(data) < 2 or len(data) % 2:
            raise ValueError("the table is cut off")
        width, *numbers = struct.unpack(f">{len(data) // 2}H", data)
        if not numbers:
            return ()
        if width == 0 or len(numbers) % width:
            raise ValueError("the table's rows are not whole")
        return tuple(tuple(numbers[at : at + width]) for at in range(0, len(numbers), width))


class Numbers(Blob):
    """A list of whole numbers from 0 to 2^63 - 1, each in eight bytes, big-endian."""

    def to_bytes(self, value: Sequence[int]) -> bytes:
        """Pack them."""
        try:
            data = struct.pack(f">{len(value)}q", *value)
        except struct.error as error:
            for number in value:
                _checked_natural(number)
            raise ValueError(f"the numbers cannot be packed: {error}") from error
        if value:
            _checked_natural(min(value))
        return data

    def from_bytes(self, data: bytes) -> tuple[int, ...]:
        """Unpack them."""
        if len(data) % 8:
            raise ValueError("the list of numbers is cut off")
        numbers = struct.unpack(f">{len(data) // 8}q", data)
        if numbers:
            _checked_natural(min(numbers))
        return numbers


class Blobs(Blob):
    """A list of bytes of any length, some of which may be missing (``None``).

    On the wire, all big-endian: how many there are, in four bytes; the length of each, in four
    bytes (2^32 - 1 for a missing one); then the bytes of all, one after the other. The lengths
    stand together so that either end packs and unpacks them at once.
    """

    def to_bytes(self, value: Sequence[bytes | None]) -> bytes:
        """Pack them."""
        there: Sequence[Any] = value
        try:
            lengths = [*map(len, there)]
        except TypeError:  # some are missing, or are no bytes
            lengths = [_MISSING if blob is None else len(blob) for blob in value]
            there = [blob for blob in value if blob is not None]
        head = struct.pack(f">{len(lengths) + 1}I", len(lengths), *lengths)
        return b"".join((head, *there))

    def from_bytes(self, data: bytes) -> Sequence[bytes | None]:
        """Unpack them."""
        count = int.from_bytes(data[:4], "big")
        if count > BLOBS_MAX:
            raise ValueError(f"the list has more than {BLOBS_MAX} members")
        start = 4 + 4 * count
        if len(data) < start:
            raise ValueError("the list of bytes is cut off")
        lengths = struct.unpack_from(f">{count}I", data, 4)
        blobs = _cut(data, start, lengths)
        if blobs is not None:
            return blobs
        blobs = _cut(data, start, [0 if size == _MISSING else size for size in lengths])
        if blobs is None:
            raise ValueError("the list of bytes is cut off, or too long")
        pairs = zip(lengths, blobs, strict=True)
        return [None if length == _MISSING else blob for length, blob in pairs]


def _cut(data: bytes, start: int, lengths: Sequence[int]) -> list[bytes] | None:
    """The pieces of *data* with these lengths from *start* on, if they end where it ends."""
    ends = [*accumulate(lengths, initial=start)]
    if ends[-1] != len(data):
        return None
    return [data[at:end] for at, end in pairwise(ends)]
