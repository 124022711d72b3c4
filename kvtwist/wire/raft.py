"""Raft messages as bytes: what ``messages`` of a `kvtwist.wire.commands.RaftMessages` is.

In: messages, each with the id of its group, of many groups. Out: the payloads of as few boxes as
they fit into; and back. A box of no messages is empty.

**The format** (numbers are big-endian; they have 8 bytes, and are less than 2^63, unless another
size stands beside them). A payload is the CRC-32 (4) of all that follows it, and then messages, one
right after the other. A message is its kind and its version (1 each), group, sender, receiver,
term, and then

==  =====================  =========================================================================
 1  `Heartbeat`            commit, round, quiesce (1: 0 or 1)
 2  `HeartbeatResponse`    round
 3  `AppendRequest`        previous index, its term, commit, number of entries (4); then, for each
                           entry, term, kind (1), length (4); then the data of all of them. Their
                           indexes follow the previous one
 4  `AppendResponse`       index, rejected (1: 0 or 1), hint index, hint term
 5  `PreVoteRequest`       last index, last term
 6  `PreVoteResponse`      granted (1: 0 or 1)
 7  `VoteRequest`          last index, last term, transfer (1: 0 or 1)
 8  `VoteResponse`         granted (1: 0 or 1)
 9  `InstallSnapshot`      the snapshot's index and term, the lengths of its configuration (4) and
                           its data (4); then these two
10  `TimeoutNow`           nothing
11  `ReadIndexRequest`     number
12  `ReadIndexResponse`    number, index
13  `HigherTerm`           nothing
==  =====================  =========================================================================

Rule 1: a replica never guesses. A payload that has one message of a kind or version that this
release does not know, or one byte that is not what was written, is refused whole. TCP's own
checksum misses about one damaged segment in 65,536; entries are not looked into again before they
are on a disk with a good checksum.

Rule 2: no bytes make anything but messages or a `MalformedRequest`. What makes no sense in itself
is refused here (entries that go back in term or are of a later term than their leader's, a
configuration that is none), so that a replica is not given it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import fields as fields_of
from operator import attrgetter
from struct import Struct
from typing import Any, Final, TypeAlias
from zlib import crc32

from kvtwist.core.raft.configuration import Configuration
from kvtwist.core.raft.log import Entry, EntryKind
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    Snapshot,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from kvtwist.errors import MalformedRequest
from kvtwist.wire.arguments import NATURAL_MAX
from kvtwist.wire.boxes import VALUE_BYTES_MAX, BoxLimits

ENVELOPE_BYTES_MAX: Final = 1 << 12
"""What a box has besides a payload of `PAYLOAD_BYTES_MAX`, at most."""
_ENVELOPE_PAIRS_MAX: Final = 8
PAYLOAD_BYTES_MAX: Final = (1 << 20) - ENVELOPE_BYTES_MAX
"""A payload is longer only if it is one message; so a box of several is sent whole. No message
begins later in one."""
ENTRIES_MAX: Final = 1 << 16
"""How many entries one message may have."""

Item: TypeAlias = tuple[int, Message]
"""A group's id, and a message of that group."""

_Write: TypeAlias = Callable[[int, Any], bytes]
_Read: TypeAlias = Callable[[bytes, int], tuple[int, Message, int]]

_CHECKSUM_BYTES: Final = 4
_VERSION: Final = 1
_ENTRY_KINDS: Final = {int(kind): kind for kind in EntryKind}
_CONFIGURATION: Final = EntryKind.CONFIGURATION
_TOO_GREAT: Final = "a number is greater than any can be"


def payload_bytes_for(limits: BoxLimits) -> int:
    """How long a payload may be that goes to a peer with these limits.

    The entries in one message have to be held to it too (`Settings.append_bytes_max`), and a single
    one to `entry_bytes_for`: a box over the limits is refused again each time that it is sent.
    """
    return max(1, min(PAYLOAD_BYTES_MAX, entry_bytes_for(limits)))


def entry_bytes_for(limits: BoxLimits) -> int:
    """How much data one entry may have, to fit into a box with these limits."""
    pieces_max = limits.box_pairs_max - _ENVELOPE_PAIRS_MAX
    # The name and the length of each piece have less than 32 bytes.
    room_bytes = limits.box_bytes_max - (limits.box_bytes_max >> 11) - ENVELOPE_BYTES_MAX
    return max(1, min(room_bytes, pieces_max * VALUE_BYTES_MAX - ENVELOPE_BYTES_MAX))


def write_messages(
    items: Iterable[Item], payload_bytes_max: int = PAYLOAD_BYTES_MAX
) -> list[bytes]:
    """The payloads of *items*, in their order; none if there are none.

    :param payload_bytes_max: of a payload that is more than one message; at most
        `PAYLOAD_BYTES_MAX`.
    :raises ValueError: when a message has a number that is negative or has more than 64 bits,
        entries that do not follow its ``prev_index``, or too many of them.
    """
    payloads: list[bytes] = []
    written: list[bytes] = []
    room_bytes = payload_bytes_max - _CHECKSUM_BYTES
    for group, message in items:
        try:
            data = _WRITERS[type(message)](group, message)
        except struct.error as problem:
            kind = type(message).__name__
            raise ValueError(f"{kind} of group {group} does not fit: {problem}") from None
        room_bytes -= len(data)
        if room_bytes < 0 and written:
            payloads.append(_sealed(written))
            written = []
            room_bytes = payload_bytes_max - _CHECKSUM_BYTES - len(data)
        written.append(data)
    if written:
        payloads.append(_sealed(written))
    return payloads


def read_messages(data: bytes) -> list[Item]:
    """The messages in one payload, each with its group's id, in the order of writing.

    :raises MalformedRequest: when they are not exactly what was written, or one of them is of a
        kind that this release does not know; nothing else is raised, whatever *data* is.
    """
    end = len(data)
    if not end:
        return []
    if crc32(memoryview(data)[_CHECKSUM_BYTES:]) != int.from_bytes(data[:_CHECKSUM_BYTES], "big"):
        raise MalformedRequest("Raft messages: the checksum is wrong: they were damaged on the way")
    if end <= _CHECKSUM_BYTES:
        raise MalformedRequest("Raft messages: a checksum of nothing")
    items: list[Item] = []
    at, readers = _CHECKSUM_BYTES, _READERS
    try:
        while at < end:
            if at >= PAYLOAD_BYTES_MAX:
                raise ValueError(f"another one after {PAYLOAD_BYTES_MAX} bytes")
            group, message, at = readers[data[at : at + 2]](data, at)
            items.append((group, message))
    except KeyError:
        raise MalformedRequest(_unknown(data, at)) from None
    except (ValueError, struct.error) as problem:
        raise MalformedRequest(f"Raft messages, at byte {at}: {problem}") from None
    return items


def _sealed(written: list[bytes]) -> bytes:
    body = b"".join(written)
    return crc32(body).to_bytes(_CHECKSUM_BYTES, "big") + body


def _unknown(data: bytes, at: int) -> str:
    """What is not known: the kind of the message there, or that of one of its entries."""
    head = data[at : at + 2]
    if len(head) < 2:
        return f"Raft messages, at byte {at}: cut off"
    what = f"a message of kind {head[0]}, version {head[1]},"
    if head in _READERS:
        what = f"an entry in a message of kind {head[0]}"
    return f"Raft messages: {what} is of no kind that this release knows: a later one wrote it"


# -- each kind: how it is written, and how it is read --------------------------------------------
#
# This is done for every message of every group: one pass over one layout, no call for each field.

_WRITERS: Final[dict[type[Any], _Write]] = {}
_READERS: Final[dict[bytes, _Read]] = {}


def _know(number: int, message: type[Any], write: Callable[..., bytes], read: _Read) -> None:
    _WRITERS[message] = write
    _READERS[bytes((number, _VERSION))] = read


def _know_plain(number: int, message: type[Any], fields: str) -> None:
    """A kind that has nothing but numbers, and ``?`` for one that is a truth value."""
    layout = Struct(">BBQQQQ" + fields)
    pack, unpack, size = layout.pack, Struct(">xxQQQQ" + fields).unpack_from, layout.size
    names = attrgetter(*(each.name for each in fields_of(message)))
    truth_at = Struct(">BBQQQQ" + fields.partition("?")[0]).size if "?" in fields else 0

    def write(group: int, message: Any) -> bytes:
        return pack(number, _VERSION, group, *names(message))

    def read(data: bytes, at: int) -> tuple[int, Message, int]:
        values = unpack(data, at)
        if max(values) > NATURAL_MAX:
            raise ValueError(_TOO_GREAT)
        return values[0], message(*values[1:]), at + size

    def read_truth(data: bytes, at: int) -> tuple[int, Message, int]:
        values = unpack(data, at)
        if data[at + truth_at] > 1 or max(values) > NATURAL_MAX:
            raise ValueError(_TOO_GREAT)
        return values[0], message(*values[1:]), at + size

    _know(number, message, write, read_truth if truth_at else read)


_know_plain(1, Heartbeat, "QQ?")
_know_plain(2, HeartbeatResponse, "Q")
_know_plain(4, AppendResponse, "Q?QQ")
_know_plain(5, PreVoteRequest, "QQ")
_know_plain(6, PreVoteResponse, "?")
_know_plain(7, VoteRequest, "QQ?")
_know_plain(8, VoteResponse, "?")
_know_plain(10, TimeoutNow, "")
_know_plain(11, ReadIndexRequest, "Q")
_know_plain(12, ReadIndexResponse, "QQ")
_know_plain(13, HigherTerm, "")

_APPEND_NUMBER: Final = 3
_APPEND: Final = Struct(">BBQQQQQQQI")
_APPEND_BYTES: Final = _APPEND.size
_ENTRY: Final = Struct(">QBI")
_ENTRY_BYTES: Final = _ENTRY.size
_INSTALL_NUMBER: Final = 9
_INSTALL: Final = Struct(">BBQQQQQQII")
_INSTALL_BYTES: Final = _INSTALL.size


def _write_append(group: int, message: AppendRequest) -> bytes:
    entries, prev_index = message.entries, message.prev_index
    head = _APPEND.pack(
        _APPEND_NUMBER,
        _VERSION,
        group,
        message.sender,
        message.to,
        message.term,
        prev_index,
        message.prev_term,
        message.commit,
        len(entries),
    )
    if not entries:
        return head
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"{len(entries)} entries in one message: {ENTRIES_MAX} are allowed")
    pack = _ENTRY.pack
    heads = [head]
    datas = []
    index = prev_index
    for entry in entries:
        index += 1
        if entry.index != index:
            raise ValueError(f"entry {entry.index} stands where {index} is due")
        data = entry.data
        heads.append(pack(entry.term, entry.kind, len(data)))
        datas.append(data)
    return b"".join(heads + datas)


def _read_append(data: bytes, at: int) -> tuple[int, Message, int]:
    head = _APPEND.unpack_from(data, at)
    _, _, group, sender, to, term, prev_index, prev_term, commit, count = head
    if max(head) > NATURAL_MAX:
        raise ValueError(_TOO_GREAT)
    at += _APPEND_BYTES
    if not count:
        return group, AppendRequest(sender, to, term, prev_index, prev_term, (), commit), at
    if count > ENTRIES_MAX:
        raise ValueError(f"{count} entries in one message: {ENTRIES_MAX} are allowed")
    start, at = at, at + count * _ENTRY_BYTES
    entries: list[Entry] = []
    kinds, index, latest = _ENTRY_KINDS, prev_index, prev_term
    for entry_term, kind, length in _ENTRY.iter_unpack(data[start:at]):
        if entry_term < latest:
            raise ValueError(f"an entry of term {entry_term} after one of term {latest}")
        index += 1
        latest = entry_term
        start, at = at, at + length
        entry_kind = kinds[kind]
        entries.append(Entry(index, entry_term, entry_kind, data[start:at]))
        if entry_kind is _CONFIGURATION:
            Configuration.decode(data[start:at])
    if latest > term:
        raise ValueError(f"an entry of term {latest} from a leader of term {term}")
    if at > len(data):
        raise ValueError("entries are cut off")
    return group, AppendRequest(sender, to, term, prev_index, prev_term, tuple(entries), commit), at


def _write_install(group: int, message: InstallSnapshot) -> bytes:
    snapshot = message.snapshot
    configuration = snapshot.configuration.encode()
    head = _INSTALL.pack(
        _INSTALL_NUMBER,
        _VERSION,
        group,
        message.sender,
        message.to,
        message.term,
        snapshot.index,
        snapshot.term,
        len(configuration),
        len(snapshot.data),
    )
    return head + configuration + snapshot.data


def _read_install(data: bytes, at: int) -> tuple[int, Message, int]:
    head = _INSTALL.unpack_from(data, at)
    _, _, group, sender, to, term, index, snapshot_term, configuration_bytes, data_bytes = head
    if max(head) > NATURAL_MAX:
        raise ValueError(_TOO_GREAT)
    start = at + _INSTALL_BYTES
    data_at = start + configuration_bytes
    at = data_at + data_bytes
    if at > len(data):
        raise ValueError("a snapshot is cut off")
    configuration = Configuration.decode(data[start:data_at])
    snapshot = Snapshot(index, snapshot_term, configuration, data[data_at:at])
    return group, InstallSnapshot(sender, to, term, snapshot), at


_know(_APPEND_NUMBER, AppendRequest, _write_append, _read_append)
_know(_INSTALL_NUMBER, InstallSnapshot, _write_install, _read_install)
