"""The operations on one key: what each does to the record that it sees, and its bytes.

In: an operation, the record seen (``None``: no such key, or one that is due), the version that a
change would get, the log time. Out: an `Effect`, a value. Nothing here holds records or counts
versions; that is `kvtwist.core.state.machine`'s part. This is the one place that says what an
operation does.

The conditional ones need no types of their own: compare-and-set is a `Put` with a version, and
put-if-absent is a `Put` with the version `ABSENT`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

from kvtwist.core.state.fields import (
    U64_MAX,
    Reader,
    UnknownKind,
    checked_key,
    checked_value,
    pack,
)
from kvtwist.core.state.outcomes import (
    Changed,
    Counted,
    Failure,
    Found,
    Mismatch,
    NotANumber,
    OutOfRange,
    Result,
    Unchanged,
)
from kvtwist.core.state.records import ABSENT, NEVER, Record

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Put:
    """Write *value* under *key*.

    :ivar ttl_ms: the record counts as absent so long after it was written; 0: it stays, whatever
        was there before.
    :ivar version: only if this is the key's version (`ABSENT`: only if there is no such key);
        ``None``: whatever is there.
    """

    key: bytes
    value: bytes
    ttl_ms: int = 0
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove *key*. A missing one is no change, and no failure unless *version* says otherwise.

    :ivar version: as in `Put`.
    """

    key: bytes
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Increment:
    """Add *by* to the number under *key*; a missing key is 0.

    The number is a decimal int64 in its shortest form. When the record expires stays as it is.
    """

    key: bytes
    by: int = 1


@dataclass(frozen=True, slots=True)
class Get:
    """See what is under *key*, after the operations before it in the same batch."""

    key: bytes


Operation: TypeAlias = Put | Delete | Increment | Get


class Effect(NamedTuple):
    """What an operation comes to.

    :ivar outcome: for the client. A `Failure` leaves nothing of the whole write.
    :ivar is_change: whether it takes a version. Then *record* is what is now under the key, or
        ``None``: nothing.
    """

    outcome: Result | Failure
    is_change: bool = False
    record: Record | None = None


def mismatch(index: int, expected: int, seen: Record | None) -> Mismatch | None:
    """Why a condition on a version does not hold, if it does not."""
    if (ABSENT if seen is None else seen.version) == expected:
        return None
    if seen is None:
        return Mismatch(index, ABSENT, None)
    return Mismatch(index, seen.version, seen.value)


def perform(
    operation: Operation, index: int, seen: Record | None, version: int, now_ms: int
) -> Effect:
    """What *operation* comes to.

    :param index: its place in the write, which a failure names.
    :param seen: what is under its key.
    :param version: of the change, if it is one.
    :param now_ms: the log time.
    """
    return _PERFORM[type(operation)](operation, index, seen, version, now_ms)


def expiry(now_ms: int, ttl_ms: int) -> int:
    """When a record that is written now expires."""
    return min(now_ms + ttl_ms, U64_MAX) if ttl_ms else NEVER


def _put(put: Put, index: int, seen: Record | None, version: int, now_ms: int) -> Effect:
    if put.version is not None and (failed := mismatch(index, put.version, seen)):
        return Effect(failed)
    created = version if seen is None else seen.created
    record = Record(put.value, version, created, expiry(now_ms, put.ttl_ms))
    return Effect(Changed(version), True, record)


def _delete(delete: Delete, index: int, seen: Record | None, version: int, now_ms: int) -> Effect:
    if delete.version is not None and (failed := mismatch(index, delete.version, seen)):
        return Effect(failed)
    return Effect(Unchanged()) if seen is None else Effect(Changed(version), True, None)


def _increment(
    increment: Increment, index: int, seen: Record | None, version: int, now_ms: int
) -> Effect:
    if seen is None:
        number, created, expires_at_ms = 0, version, NEVER
    else:
        found = number_of(seen.value)
        if found is None:
            return Effect(NotANumber(index, seen.version))
        number, created, expires_at_ms = found, seen.created, seen.expires_at_ms
    number += increment.by
    if not INT64_MIN <= number <= INT64_MAX:
        return Effect(OutOfRange(index, ABSENT if seen is None else seen.version))
    record = Record(b"%d" % number, version, created, expires_at_ms)
    return Effect(Counted(version, number), True, record)


def _get(get: Get, index: int, seen: Record | None, version: int, now_ms: int) -> Effect:
    return Effect(Found(ABSENT, None) if seen is None else Found(seen.version, seen.value))


_PERFORM: Mapping[type[Operation], Callable[[Any, int, Record | None, int, int], Effect]] = {
    Put: _put,
    Delete: _delete,
    Increment: _increment,
    Get: _get,
}


def number_of(value: bytes) -> int | None:
    """The int64 that *value* is the shortest decimal form of, if it is one."""
    if len(value) > len(str(INT64_MIN)):
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    # `int` takes more than we do: spaces, underscores, leading zeros, a plus.
    return number if INT64_MIN <= number <= INT64_MAX and b"%d" % number == value else None


# -- as bytes -------------------------------------------------------------------------------------

_PUT = Struct(">HIQ")
_PUT_AT = Struct(">HIQQ")
_KEY = Struct(">H")
_DELETE_AT = Struct(">HQ")
_INCREMENT = Struct(">Hq")


def encode_operation(operation: Operation) -> list[bytes]:
    """The operation's bytes, in pieces; a value is one of them, as it is.

    :raises ValueError: when a field is out of bounds.
    """
    key = checked_key(operation.key)
    size = len(key)
    match operation:
        case Put(_, value, ttl_ms, version):
            length = len(checked_value(value))
            if version is None:
                return [b"\x01", pack(_PUT, size, length, ttl_ms), key, value]
            return [b"\x02", pack(_PUT_AT, size, length, ttl_ms, version), key, value]
        case Delete(_, version):
            if version is None:
                return [b"\x03", pack(_KEY, size), key]
            return [b"\x04", pack(_DELETE_AT, size, version), key]
        case Increment(_, by):
            return [b"\x05", pack(_INCREMENT, size, by), key]
        case Get():
            return [b"\x06", pack(_KEY, size), key]


def read_operation(reader: Reader) -> Operation:
    """The next operation of a write.

    :raises UnknownKind: when there is no such operation in this release.
    """
    match reader.byte():
        case 1:
            size, length, ttl_ms = reader.fields(_PUT)
            return Put(reader.take(size), reader.value(length), ttl_ms)
        case 2:
            size, length, ttl_ms, version = reader.fields(_PUT_AT)
            return Put(reader.take(size), reader.value(length), ttl_ms, version)
        case 3:
            return Delete(reader.take(*reader.fields(_KEY)))
        case 4:
            size, version = reader.fields(_DELETE_AT)
            return Delete(reader.take(size), version)
        case 5:
            size, by = reader.fields(_INCREMENT)
            return Increment(reader.take(size), by)
        case 6:
            return Get(reader.take(*reader.fields(_KEY)))
        case kind:
            raise UnknownKind("an operation", kind, 0)
