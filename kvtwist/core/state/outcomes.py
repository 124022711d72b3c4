"""What an operation did, or why it could not: the parts that the answer to a write is made of.

::

    Result      what one operation of a write did
    +-- Changed         the key has a new version, or is gone
    +-- Unchanged       there was nothing to delete
    +-- Counted         the key has a new version and this number
    +-- Found           what a get found
    Failure     why nothing of a write was done
    +-- Mismatch        a condition on a version did not hold; what was seen (C4)
    +-- NotANumber      what was to be incremented is no decimal int64
    +-- OutOfRange      the sum would be no int64

A ``value`` of ``None`` beside a ``version`` that is not 0 is one that was not kept: the answer is
given for a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct
from typing import Final, TypeAlias, TypeVar

from kvtwist.core.state.fields import MalformedBytes, Reader, UnknownKind, checked_value, pack


@dataclass(slots=True, unsafe_hash=True)
class Changed:
    """The change was made.

    :ivar version: its version: the key's, unless the key is gone.
    """

    version: Final[int]

    def __init__(self, version: int) -> None:
        self.version = version


@dataclass(frozen=True, slots=True)
class Unchanged:
    """There was no such key to delete."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The number was incremented.

    :ivar version: the key's new version.
    :ivar number: what it is now. This is kept for a retry: it is small, and all that was asked.
    """

    version: int
    number: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a get inside a batch found.

    :ivar version: 0: no such key.
    """

    version: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A condition on a version did not hold.

    :ivar index: whose: the place among the write's conditions followed by its operations.
    :ivar version: what was seen; 0: no such key.
    """

    index: int
    version: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class NotANumber:
    """What was to be incremented is not the decimal form of an int64.

    :ivar index: as in `Mismatch`.
    :ivar version: of what was seen.
    """

    index: int
    version: int


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """The sum would be no int64.

    :ivar index: as in `Mismatch`.
    :ivar version: of what was seen.
    """

    index: int
    version: int


Result: TypeAlias = Changed | Unchanged | Counted | Found
Failure: TypeAlias = Mismatch | NotANumber | OutOfRange
Outcome: TypeAlias = Result | Failure

FAILURES = (Mismatch, NotANumber, OutOfRange)
_Part = TypeVar("_Part", bound=Outcome)

_CHANGED: Final = Struct(">Q")
_COUNTED = Struct(">Qq")
_FOUND = Struct(">QB")
_MISMATCH = Struct(">HQB")
_AT = Struct(">HQ")
_LENGTH: Final = Struct(">I")


def without_values(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    """The same, without what may be large; the very same, if there is no such thing."""
    for part in parts:
        if isinstance(part, (Found, Mismatch)) and part.value is not None:
            return tuple(map(_without_value, parts))
    return parts


def _without_value(part: _Part) -> _Part:
    return replace(part, value=None) if isinstance(part, (Found, Mismatch)) else part


def encode_outcome(outcome: Outcome) -> list[bytes]:
    """The outcome's bytes, in pieces.

    :raises ValueError: when a field is out of bounds.
    """
    match outcome:
        case Changed(version):
            return [b"\x01", pack(_CHANGED, version)]
        case Unchanged():
            return [b"\x02"]
        case Counted(version, number):
            return [b"\x03", pack(_COUNTED, version, number)]
        case Found(version, value):
            return [b"\x04", pack(_FOUND, version, value is not None), *_encode_value(value)]
        case Mismatch(index, version, value):
            head = pack(_MISMATCH, index, version, value is not None)
            return [b"\x11", head, *_encode_value(value)]
        case NotANumber(index, version):
            return [b"\x12", pack(_AT, index, version)]
        case OutOfRange(index, version):
            return [b"\x13", pack(_AT, index, version)]


def read_result(reader: Reader) -> Result:
    """The next of a write's results."""
    match reader.byte():
        case 1:
            return Changed(*reader.fields(_CHANGED))
        case 2:
            return Unchanged()
        case 3:
            return Counted(*reader.fields(_COUNTED))
        case 4:
            version, has_value = reader.fields(_FOUND)
            return Found(version, _read_value(reader, version, has_value))
        case kind:
            raise UnknownKind("a result", kind, 0)


def read_failure(reader: Reader) -> Failure:
    """The next of a write's failures."""
    match reader.byte():
        case 0x11:
            index, version, has_value = reader.fields(_MISMATCH)
            return Mismatch(index, version, _read_value(reader, version, has_value))
        case 0x12:
            return NotANumber(*reader.fields(_AT))
        case 0x13:
            return OutOfRange(*reader.fields(_AT))
        case kind:
            raise UnknownKind("a failure", kind, 0)


def _encode_value(value: bytes | None) -> list[bytes]:
    return [] if value is None else [pack(_LENGTH, len(value)), checked_value(value)]


def _read_value(reader: Reader, version: int, has_value: int) -> bytes | None:
    if has_value > 1 or (has_value and not version):
        raise MalformedBytes(f"a value of version {version}, marked {has_value}")
    return reader.value(*reader.fields(_LENGTH)) if has_value else None
