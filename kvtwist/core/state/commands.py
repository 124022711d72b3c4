"""The commands: what a committed entry of the data kind can ask of a partition, and its bytes.

A command has one encoding: kind, version, then its fields. A kind or version that is not in the
table here was written by a later release: `decode` raises `UnknownKind`, and the replica stops
rather than skip what others apply. So a new kind is proposed only when every member can read it,
and a kind's fields never change: they get a new version.

**Stamps.** Every command carries ``stamp_ms``, the log time that its leader gave it
(`kvtwist.core.state.logtime`).

**Generation.** What a client asks for carries the partition's generation that it was sent for, and
is refused at any other (C5). What the leader proposes by itself holds at every generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final, TypeAlias

from kvtwist.core.state.fields import (
    KIND,
    VALUE_BYTES_MAX,
    MalformedBytes,
    Reader,
    checked_key,
    pack,
    reader_of,
)
from kvtwist.core.state.operations import Operation, encode_operation, read_operation

NO_SESSION: Final = 0
"""The session of a write that has none. It is applied as often as it is committed."""

OPERATIONS_MAX: Final = 128
"""Conditions, and operations, of one write: its work is bounded, and so is its kept answer."""


EXPIRED_PER_ENTRY = 1024
"""What one `Expire` removes at most, unless it says otherwise: some milliseconds of work."""


@dataclass(frozen=True, slots=True)
class Condition:
    """That the version of *key* is *version*; `ABSENT`: that there is no such key."""

    key: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Write:
    """Operations that take place together, or not at all, if all conditions hold before them.

    One operation alone is a write too. The operations see those before them.

    :ivar stamp_ms: log time, from the leader.
    :ivar generation: of the partition, as the client knew it.
    :ivar session: whose write it is, or `NO_SESSION`.
    :ivar seq: the number that the client gave it, one more for each of its writes. A retry has the
        same one.
    :ivar lowest_unanswered: all lower seqs have been answered, and are not sent again.
    """

    stamp_ms: int
    generation: int
    session: int
    seq: int
    lowest_unanswered: int
    operations: tuple[Operation, ...]
    conditions: tuple[Condition, ...] = ()
    keyspace: int = 0


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Begin a session, whose id is the index of this entry.

    :ivar idle_ms: it expires when it has written nothing for so long. (In the entry, since every
        replica has to use the same.)
    """

    stamp_ms: int
    generation: int
    idle_ms: int


@dataclass(frozen=True, slots=True)
class CloseSession:
    """End a session: its client will not write again."""

    stamp_ms: int
    generation: int
    session: int


@dataclass(frozen=True, slots=True)
class Expire:
    """Remove what is due: sessions, then records, the longest due first.

    :ivar until_ms: the log time up to which; never beyond the machine's own.
    :ivar limit: of sessions and records together. The answer says whether more are left.
    """

    stamp_ms: int
    until_ms: int
    limit: int = EXPIRED_PER_ENTRY


@dataclass(frozen=True, slots=True)
class Advance:
    """Nothing but its stamp: log time moves on although nobody writes."""

    stamp_ms: int


@dataclass(frozen=True, slots=True)
class SetGeneration:
    """The partition's membership has changed: requests sent for the one before are refused.

    :ivar generation: the one before.
    :ivar following: higher.
    """

    stamp_ms: int
    generation: int
    following: int


@dataclass(slots=True, unsafe_hash=True)
class LonePut:
    """A `Write` of one unconditional `Put` and nothing else: nearly all that is written.

    It says the same, and does the same, at a fraction of the cost.

    :ivar key: as it is stored: `kvtwist.core.state.contents.stored_key`.
    """

    stamp_ms: Final[int]
    generation: Final[int]
    session: Final[int]
    seq: Final[int]
    lowest_unanswered: Final[int]
    key: Final[bytes]
    value: Final[bytes]
    ttl_ms: Final[int]

    def __init__(
        self,
        stamp_ms: int,
        generation: int,
        session: int,
        seq: int,
        lowest_unanswered: int,
        key: bytes,
        value: bytes,
        ttl_ms: int,
    ) -> None:
        self.stamp_ms = stamp_ms
        self.generation = generation
        self.session = session
        self.seq = seq
        self.lowest_unanswered = lowest_unanswered
        self.key = key
        self.value = value
        self.ttl_ms = ttl_ms


Command: TypeAlias = Write | OpenSession | CloseSession | Expire | Advance | SetGeneration

_WRITE: Final = Struct(">QQIQQQBB")
_CONDITION = Struct(">HQ")
_THREE = Struct(">QQQ")
_EXPIRE = Struct(">QQI")
_ADVANCE = Struct(">Q")

# The same, from the first byte of a `LonePut` to its key, without kind and keyspace; and its end.
_LONE_PUT: Final = Struct(">2xQQ4xQQQ3sHIQ")
_LONE_PUT_END: Final = Struct(">3sHIQ")
_LONE_PUT_BYTES: Final = _LONE_PUT.size
_KEYSPACE_AT: Final = 18
_KEYSPACE_END: Final = 22
_GENERATION_BYTES: Final = 8
_ALONE: Final = bytes((0, 1, 1))
"""No condition; one operation; which is an unconditional put."""

WHOSE: Final = Struct(">QQQQ")
"""Whose a write is: generation, session, seq, lowest unanswered seq."""

_WRITE_KIND: Final = KIND.pack(1, 1)
_OPEN_KIND = KIND.pack(2, 1)
_CLOSE_KIND = KIND.pack(3, 1)
_EXPIRE_KIND = KIND.pack(4, 1)
_ADVANCE_KIND = KIND.pack(5, 1)
_GENERATION_KIND = KIND.pack(6, 1)


def encode(command: Command) -> bytes:
    """The command's bytes.

    :raises ValueError: when a field is out of bounds.
    """
    match command:
        case Write():
            return b"".join(_pieces(command))
        case OpenSession(stamp_ms, generation, idle_ms):
            return _OPEN_KIND + pack(_THREE, stamp_ms, generation, idle_ms)
        case CloseSession(stamp_ms, generation, session):
            return _CLOSE_KIND + pack(_THREE, stamp_ms, generation, session)
        case Expire(stamp_ms, until_ms, limit):
            return _EXPIRE_KIND + pack(_EXPIRE, stamp_ms, until_ms, limit)
        case Advance(stamp_ms):
            return _ADVANCE_KIND + pack(_ADVANCE, stamp_ms)
        case SetGeneration(stamp_ms, generation, following):
            if following <= generation:
                raise ValueError(f"generation {following} does not follow {generation}")
            return _GENERATION_KIND + pack(_THREE, stamp_ms, generation, following)


def decode(data: bytes) -> Command:
    """The command of these bytes.

    :raises UnknownKind: when a later release wrote them.
    :raises MalformedBytes: when they are no command's encoding.
    """
    read = reader_of("a command", data, _READ)
    reader = Reader(data, KIND.size)
    command = read(reader)
    reader.end()
    return command


def encode_put(stamp_ms: int, whose: bytes, key: bytes, value: bytes) -> bytes:
    """What `encode` makes of a `Write` of one unconditional `Put`, in keyspace 0, that stays.

    :param whose: laid out by `WHOSE`.
    :param key, value: short enough.
    """
    return b"".join(
        (
            _WRITE_KIND,
            stamp_ms.to_bytes(8, "big"),
            whose[:_GENERATION_BYTES],
            b"\0\0\0\0",
            whose[_GENERATION_BYTES:],
            _LONE_PUT_END.pack(_ALONE, len(key), len(value), 0),
            key,
            value,
        )
    )


def decode_entry(data: bytes) -> Command | LonePut:
    """`decode`, but a `Write` that is a `LonePut` comes as one."""
    if data[:2] != _WRITE_KIND or len(data) < _LONE_PUT_BYTES:
        return decode(data)
    fields: tuple[int, int, int, int, int, bytes, int, int, int] = _LONE_PUT.unpack_from(data)
    stamp_ms, generation, session, seq, lowest, what, size, length, ttl_ms = fields
    value_at = _LONE_PUT_BYTES + size
    if what != _ALONE or value_at + length != len(data) or length > VALUE_BYTES_MAX:
        return decode(data)
    key = data[_KEYSPACE_AT:_KEYSPACE_END] + data[_LONE_PUT_BYTES:value_at]
    return LonePut(stamp_ms, generation, session, seq, lowest, key, data[value_at:], ttl_ms)


def _pieces(write: Write) -> list[bytes]:
    conditions, operations = write.conditions, write.operations
    if len(conditions) > OPERATIONS_MAX or len(operations) > OPERATIONS_MAX:
        raise ValueError(
            f"a write has at most {OPERATIONS_MAX} conditions and as many operations, not "
            f"{len(conditions)} and {len(operations)}"
        )
    head = pack(
        _WRITE,
        write.stamp_ms,
        write.generation,
        write.keyspace,
        write.session,
        write.seq,
        write.lowest_unanswered,
        len(conditions),
        len(operations),
    )
    pieces = [_WRITE_KIND, head]
    for condition in conditions:
        key = checked_key(condition.key)
        pieces += (pack(_CONDITION, len(key), condition.version), key)
    for operation in operations:
        pieces += encode_operation(operation)
    return pieces


def _read_write(reader: Reader) -> Write:
    (stamp_ms, generation, keyspace, session, seq, lowest, condition_count, operation_count) = (
        reader.fields(_WRITE)
    )
    if condition_count > OPERATIONS_MAX or operation_count > OPERATIONS_MAX:
        raise MalformedBytes(f"{condition_count} conditions and {operation_count} operations")
    conditions: tuple[Condition, ...] = ()
    if condition_count:
        conditions = tuple([_read_condition(reader) for _ in range(condition_count)])
    operations = tuple([read_operation(reader) for _ in range(operation_count)])
    return Write(stamp_ms, generation, session, seq, lowest, operations, conditions, keyspace)


def _read_condition(reader: Reader) -> Condition:
    size, version = reader.fields(_CONDITION)
    return Condition(reader.take(size), version)


def _read_generation(reader: Reader) -> SetGeneration:
    command = SetGeneration(*reader.fields(_THREE))
    if command.following <= command.generation:
        raise MalformedBytes(f"generation {command.following} after {command.generation}")
    return command


_READ: Mapping[bytes, Callable[[Reader], Command]] = {
    _WRITE_KIND: _read_write,
    _OPEN_KIND: lambda reader: OpenSession(*reader.fields(_THREE)),
    _CLOSE_KIND: lambda reader: CloseSession(*reader.fields(_THREE)),
    _EXPIRE_KIND: lambda reader: Expire(*reader.fields(_EXPIRE)),
    _ADVANCE_KIND: lambda reader: Advance(*reader.fields(_ADVANCE)),
    _GENERATION_KIND: _read_generation,
}
