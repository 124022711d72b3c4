"""How values stand in bytes: what commands, answers, records and snapshots have in common.

Numbers are big-endian and of fixed width; bytes stand after their length. Whatever can be sent or
kept begins with one byte of kind and one of version. So every value has exactly one encoding, and
what was cut off or goes on too long is noticed.

Two things can be wrong with bytes, and a replica that meets either in a committed entry stops:
`UnknownKind`, written by a later release, which this one must not guess at; and `MalformedBytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct, error
from typing import Any, Final, TypeVar

KEY_BYTES_MAX: Final = (1 << 16) - 1
"""The longest key that the formats have room for; nodes are set to take less."""

VALUE_BYTES_MAX: Final = 1 << 30
"""The longest value that the formats have room for; nodes are set to take less."""

T = TypeVar("T")

U64_MAX: Final = (1 << 64) - 1

KIND: Final = Struct(">BB")
"""Kind and version, which come first."""


class MalformedBytes(Exception):
    """These bytes are no encoding of anything."""


class UnknownKind(Exception):
    """Kind or version is not known to this release.

    :ivar kind: the first byte.
    :ivar version: the second.
    """

    def __init__(self, what: str, kind: int, version: int) -> None:
        super().__init__(
            f"{what} of kind {kind}, version {version}, is not known to this release: a later one "
            "wrote it"
        )
        self.kind = kind
        self.version = version


def pack(layout: Struct, *values: int) -> bytes:
    """The bytes of *values*.

    :raises ValueError: when one does not fit.
    """
    try:
        return layout.pack(*values)
    except error as problem:
        raise ValueError(f"{values} do not fit their fields: {problem}") from None


def checked_key(key: bytes) -> bytes:
    """*key*, which fits.

    :raises ValueError: when it is too long.
    """
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"a key has at most {KEY_BYTES_MAX} bytes, not {len(key)}")
    return key


def checked_value(value: bytes) -> bytes:
    """*value*, which fits.

    :raises ValueError: when it is too long.
    """
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
    return value


class Reader:
    """Takes fields off the front of *data*.

    :raises MalformedBytes: from every method, when there is less than it takes (`end`: when there
        is anything left).
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def fields(self, layout: Struct) -> tuple[Any, ...]:
        """The numbers of one layout."""
        try:
            values = layout.unpack_from(self._data, self._at)
        except error:
            raise MalformedBytes(f"cut off after {len(self._data)} bytes") from None
        self._at += layout.size
        return values

    def byte(self) -> int:
        """One byte, as a number."""
        at = self._at
        if at >= len(self._data):
            raise MalformedBytes(f"cut off after {at} bytes")
        self._at = at + 1
        return self._data[at]

    def take(self, length: int) -> bytes:
        """So many bytes."""
        at = self._at
        self._at = end = at + length
        if end > len(self._data):
            raise MalformedBytes(f"cut off after {len(self._data)} bytes, {end} or more expected")
        return self._data[at:end]

    def value(self, length: int) -> bytes:
        """So many bytes, and no more than a value may have."""
        if length > VALUE_BYTES_MAX:
            raise MalformedBytes(f"a value of {length} bytes: {VALUE_BYTES_MAX} are allowed")
        return self.take(length)

    def end(self) -> None:
        """Nothing is left."""
        if self._at != len(self._data):
            raise MalformedBytes(f"{len(self._data) - self._at} bytes too many")


def reader_of(
    what: str, data: bytes, known: Mapping[bytes, Callable[[Reader], T]]
) -> Callable[[Reader], T]:
    """What reads the fields of *data*, by its kind and version.

    :raises MalformedBytes: when there are not even these.
    :raises UnknownKind: when they are not known.
    """
    read = known.get(data[: KIND.size])
    if read is None:
        if len(data) < KIND.size:
            raise MalformedBytes(f"{what} of {len(data)} bytes")
        raise UnknownKind(what, data[0], data[1])
    return read
