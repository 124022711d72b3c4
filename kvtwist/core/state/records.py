"""A record: what is stored under a key, and its bytes in a store or a snapshot."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from kvtwist.core.state.fields import MalformedBytes, Reader, UnknownKind, checked_value, pack

REVISION_MAX: Final = (1 << 63) - 1
ABSENT: Final = 0
"""The version that a condition gives to a key that must not exist."""

NEVER: Final = 0
"""The ``expires_at_ms`` of a record that stays."""

RECORD_FORMAT: Final = 1

_HEADER: Final = Struct(">BBQQQQ")
_FIELDS = Struct(">BQQQQ")

HEADER_BYTES: Final = _HEADER.size

Stored: TypeAlias = tuple[bytes, int, int, int, int, int]
"""A record as it is kept: the fields of a `Record` in a plain tuple.

The garbage collector lets go of plain tuples that hold no containers, but not of their subclasses:
with 500,000 records, a full collection takes 1 ms instead of 340.
"""


class Record(NamedTuple):
    """What is stored under a key. (A named tuple: it is made for each read and write.)

    :ivar version: the partition's revision when it was written.
    :ivar created: the version at which the key was made; the same as *version* until it is written
        again.
    :ivar expires_at_ms: the log time from which on the record counts as absent; 0: never.
    :ivar lease: 0: none. Nothing grants leases yet; there is room for them, since formats stay.
    :ivar flags: eight bits; none has a meaning yet.

    **Invariant:** 1 <= created <= version <= the partition's revision.
    """

    value: bytes
    version: int
    created: int
    expires_at_ms: int = NEVER
    lease: int = 0
    flags: int = 0

    def is_due(self, now_ms: int) -> bool:
        """Whether the record counts as absent at this log time."""
        return NEVER != self.expires_at_ms <= now_ms


def encode_header(record: Record) -> bytes:
    """All of the record but its value, which follows as it is."""
    return pack(
        _HEADER,
        RECORD_FORMAT,
        record.flags,
        record.version,
        record.created,
        record.expires_at_ms,
        record.lease,
    )


def encode_record(record: Record) -> bytes:
    """The record's bytes.

    :raises ValueError: when a field is out of bounds.
    """
    return encode_header(record) + checked_value(record.value)


def encode_fields(stored: Stored) -> bytes:
    """`encode_record` of fields that are in their bounds: one is made for each write."""
    value, version, created, expires_at_ms, lease, flags = stored
    head = _HEADER.pack(RECORD_FORMAT, flags, version, created, expires_at_ms, lease)
    return head + value


def decode_fields(data: bytes) -> Stored:
    """The fields of `decode_record`; one is read for each read.

    :raises MalformedBytes, UnknownKind: likewise.
    """
    if len(data) >= HEADER_BYTES:
        fields: tuple[int, int, int, int, int, int] = _HEADER.unpack_from(data)
        form, flags, version, created, expires_at_ms, lease = fields
        if form == RECORD_FORMAT and 1 <= created <= version <= REVISION_MAX:
            return data[HEADER_BYTES:], version, created, expires_at_ms, lease, flags
    return decode_record(data)[:]  # which says what is wrong


def decode_record(data: bytes, at: int = 0) -> Record:
    """The record that *data* has from *at* to its end.

    :raises MalformedBytes: when it is cut off or too long.
    :raises UnknownKind: when a later release wrote it.
    """
    reader = Reader(data, at)
    if (format := reader.byte()) != RECORD_FORMAT:
        raise UnknownKind("a record", format, 0)
    flags, version, created, expires_at_ms, lease = reader.fields(_FIELDS)
    if not 1 <= created <= version <= REVISION_MAX:
        raise MalformedBytes(f"a record of version {version}, created at {created}")
    value = reader.value(len(data) - at - HEADER_BYTES)
    return Record(value, version, created, expires_at_ms, lease, flags)
