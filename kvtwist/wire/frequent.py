"""The most frequent boxes, read and written where they lie in the stream.

Nearly everything that a cluster is asked are `Get` and `Put`, and nearly everything that its nodes
tell each other are `RaftMessages`; and nearly all of these boxes have one form: the pairs that our
client and our node write, in their order. To make a dictionary of each
and to go through the declared arguments costs several times what these functions do, which only
cut and join. The bytes are `kvtwist.wire.codec`'s; the property tests hold them to it.

The law: a reader here takes a box that is *exactly* of its form, complete and valid, or says
``None``. Whatever else it is (other pairs, another order, a large value, half a box, nonsense), the
`kvtwist.wire.boxes.BoxReader` and the codec read it, and say what there is to be said.

In a box, each key and each value stands after its length in two bytes; ``\\0\\0`` ends it. Values
are those that stand in one pair: up to `kvtwist.wire.boxes.VALUE_BYTES_MAX`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from kvtwist.wire.applied import CLUSTER_ID_BYTES
from kvtwist.wire.boxes import ANSWER, ASK, COMMAND
from kvtwist.wire.commands import Get, Put, RaftMessages
from kvtwist.wire.once import ONCE_BYTES

PAIRS_MAX: Final = 6
"""As many pairs has the longest of these boxes."""
APPLIED_BYTES: Final = 26
"""The length of ``applied`` (`kvtwist.wire.commands`)."""

GET: Final[bytes] = Get.commandName
PUT: Final[bytes] = Put.commandName
RAFT: Final[bytes] = RaftMessages.commandName

_DIGITS_MAX: Final = 18
"""Decimal numbers of so many digits are in the bounds of `kvtwist.wire.arguments.Natural`."""

Request: TypeAlias = tuple[bytes, bytes, "bytes | None", "bytes | None", bytes, int]
"""Tag, key, value (``None``: it is a `Get`), ``once`` if it has one, the digits of its
``timeout_ms``, and where the box ends."""
Answer: TypeAlias = tuple[bytes, int, "bytes | None", int]
"""Tag, version, value (``None``: it has none), and where the box ends."""
Messages: TypeAlias = tuple[bytes, bytes, bool, int]
"""The arguments of a `RaftMessages`: cluster, messages and willing; and where the box ends."""


def _name(name: bytes) -> bytes:
    """A pair's key, after its length."""
    return bytes((0, len(name))) + name


def _heads(name: bytes) -> list[bytes]:
    """What stands before a short value, for each length: looked up faster than written."""
    return [_name(name) + bytes((0, size)) for size in range(256)]


ASK_HEADS: Final = _heads(ASK)
ANSWER_HEADS: Final = _heads(ANSWER)
_VERSION_HEADS: Final = _heads(b"version")
_GET: Final = _name(COMMAND) + _name(GET) + _name(b"key")
_PUT: Final = _name(COMMAND) + _name(PUT) + _name(b"key")
_VALUE: Final = _name(b"value")
_ONCE: Final = _name(b"once") + bytes((0, ONCE_BYTES))
_APPLIED: Final = _name(b"applied") + bytes((0, APPLIED_BYTES))
_END: Final = b"\0\0"
_RAFT: Final = _name(COMMAND) + _name(RAFT) + _name(b"cluster") + bytes((0, CLUSTER_ID_BYTES))
_MESSAGES: Final = _name(b"messages")
_WILLING: Final = _name(b"willing") + _name(b"True") + _END
_UNWILLING: Final = _name(b"willing") + _name(b"False") + _END

# A short value's length is below 256: its first byte, which is zero, is compared with the name.
_ASK_SHORT: Final = _name(ASK) + b"\0"
_ANSWER_SHORT: Final = _name(ANSWER) + b"\0"
_VERSION_SHORT: Final = _name(b"version") + b"\0"
_TIMEOUT_SHORT: Final = _name(b"timeout_ms") + b"\0"

# From the start of a pair to the start of its value.
_TO_ASK_TAG: Final = len(_ASK_SHORT) + 1
_TO_ANSWER_TAG: Final = len(_ANSWER_SHORT) + 1
_TO_VERSION: Final = len(_VERSION_SHORT) + 1
_TO_TIMEOUT: Final = len(_TIMEOUT_SHORT) + 1
_TO_KEY: Final = len(_GET) + 2
_TO_VALUE: Final = len(_VALUE) + 2
_TO_APPLIED: Final = len(_APPLIED)
_TO_ONCE: Final = len(_ONCE)
_TO_CLUSTER: Final = len(_RAFT)
_TO_MESSAGES: Final = len(_MESSAGES) + 2
assert len(_GET) == len(_PUT)
_NAME_BYTES: Final = len(GET)
assert len(PUT) == _NAME_BYTES


# -- the asking end -------------------------------------------------------------------------------


def request_end(timeout_ms: int) -> bytes:
    """What a request ends with; a client's requests mostly have the same."""
    digits = b"%d" % timeout_ms
    return _TIMEOUT_SHORT + bytes((len(digits),)) + digits + _END


def get_body(key: bytes, end: bytes) -> bytes:
    """A `Get`, after its tag."""
    return b"".join((_GET, len(key).to_bytes(2, "big"), key, end))


def put_body(key: bytes, value: bytes, end: bytes, once: bytes | None = None) -> bytes:
    """A `Put`, after its tag."""
    key_size, value_size = len(key).to_bytes(2, "big"), len(value).to_bytes(2, "big")
    if once is not None:
        return b"".join((_PUT, key_size, key, _VALUE, value_size, value, _ONCE, once, end))
    return b"".join((_PUT, key_size, key, _VALUE, value_size, value, end))


def read_answer(stream: bytes, at: int) -> Answer | None:
    """The answer to a `Get` or `Put` that begins at *at*."""
    try:
        tag_at = at + _TO_ANSWER_TAG
        tag_end = tag_at + stream[tag_at - 1]
        version_at = tag_end + _TO_VERSION
        version_end = version_at + stream[version_at - 1]
        digits = stream[version_at:version_end]
        value, value_end = None, version_end
        value_at = version_end + _TO_VALUE
        if stream[version_end : value_at - 2] == _VALUE:
            value_end = value_at + (stream[value_at - 2] << 8 | stream[value_at - 1])
            value = stream[value_at:value_end]
    except IndexError:  # it goes on after what there is, or is something else
        return None
    end = value_end + _TO_APPLIED + APPLIED_BYTES + 2
    if (
        stream[at : tag_at - 1] != _ANSWER_SHORT
        or stream[tag_end : version_at - 1] != _VERSION_SHORT
        or not digits.isdigit()
        or len(digits) > _DIGITS_MAX
        or stream[value_end : value_end + _TO_APPLIED] != _APPLIED
        or stream[end - 2 : end] != _END
    ):
        return None
    return stream[tag_at:tag_end], int(digits), value, end


# -- the answering end ----------------------------------------------------------------------------


def read_request(stream: bytes, at: int) -> Request | None:
    """The `Get` or `Put` that begins at *at*."""
    try:
        tag_at = at + _TO_ASK_TAG
        tag_end = tag_at + stream[tag_at - 1]
        key_at = tag_end + _TO_KEY
        key_end = key_at + (stream[key_at - 2] << 8 | stream[key_at - 1])
        command = stream[tag_end : key_at - 2]
        value, once, value_end = None, None, key_end
        value_at = key_end + _TO_VALUE
        if command == _PUT and stream[key_end : value_at - 2] == _VALUE:
            value_end = value_at + (stream[value_at - 2] << 8 | stream[value_at - 1])
            value = stream[value_at:value_end]
            once_at = value_end + _TO_ONCE
            if stream[value_end:once_at] == _ONCE:
                value_end = once_at + ONCE_BYTES
                once = stream[once_at:value_end]
        elif command != _GET:
            return None
        digits_at = value_end + _TO_TIMEOUT
        digits_end = digits_at + stream[digits_at - 1]
    except IndexError:  # it goes on after what there is, or is something else
        return None
    digits = stream[digits_at:digits_end]
    end = digits_end + 2
    if (
        stream[at : tag_at - 1] != _ASK_SHORT
        or stream[value_end : digits_at - 1] != _TIMEOUT_SHORT
        or not digits.isdigit()
        or len(digits) > _DIGITS_MAX
        or stream[digits_end:end] != _END
    ):
        return None
    return stream[tag_at:tag_end], stream[key_at:key_end], value, once, digits, end


def read_messages(stream: bytes, at: int) -> Messages | None:
    """The `RaftMessages` that begins at *at*."""
    cluster_at = at + _TO_CLUSTER
    cluster_end = cluster_at + CLUSTER_ID_BYTES
    messages_at = cluster_end + _TO_MESSAGES
    if (
        len(stream) < messages_at
        or stream[at:cluster_at] != _RAFT
        or stream[cluster_end : messages_at - 2] != _MESSAGES
    ):
        return None
    messages_end = messages_at + (stream[messages_at - 2] << 8 | stream[messages_at - 1])
    end = messages_end + len(_WILLING)
    is_willing = stream[messages_end:end] == _WILLING
    if not is_willing:
        end = messages_end + len(_UNWILLING)
        if stream[messages_end:end] != _UNWILLING:
            return None
    return stream[cluster_at:cluster_end], stream[messages_at:messages_end], is_willing, end


def value_bytes(request: Request) -> int:
    """What its values take: as much as `kvtwist.wire.boxes.size_bytes` counts of its box."""
    tag, key, value, once, digits, _ = request
    size = len(tag) + _NAME_BYTES + len(key) + len(digits)
    if value is None:
        return size
    return size + len(value) + (0 if once is None else ONCE_BYTES)


def command_name(value: bytes | None) -> bytes:
    """Which command a request with *value* is."""
    return GET if value is None else PUT


def put_answer(version: int, applied: bytes) -> bytes:
    """The answer to a `Put`, after its tag."""
    digits = b"%d" % version
    return b"".join((_VERSION_HEADS[len(digits)], digits, _APPLIED, applied, _END))


def get_answer(version: int, value: bytes, applied: bytes) -> bytes:
    """The answer to a `Get` that found *value*, after its tag."""
    digits, size = b"%d" % version, len(value).to_bytes(2, "big")
    head = _VERSION_HEADS[len(digits)]
    return b"".join((head, digits, _VALUE, size, value, _APPLIED, applied, _END))


def nothing_answer(applied: bytes) -> bytes:
    """The answer to a `Get` that found nothing, after its tag."""
    return put_answer(0, applied)
