"""Where everything stands in a node's store: the keys. What stands there is in a frame, always.

Each key begins with one byte that says what it is, then, for what belongs to a Raft group, the
group's id in eight bytes, big-endian::

    F                                    the format of the store
    N                                    the node: its name, its identity, its boots
    h group                              hard state
    b group                              base of the log: what was compacted
    l group index                        an entry of the log
    s group                              the state machine, apart from what follows
    e group generation session           a session
    a group generation session seq       an answer that the session keeps
    d group generation keyspace key      a record
    x group generation time keyspace key a record that expires then

*generation* is that of the data on this disk, which a snapshot that is installed raises (R13): it
has nothing to do with the partition's, and is no business of any other replica's.

This is a format: it never changes within `FORMAT`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

FORMAT: Final = 2
"""Of the whole store. A node refuses to open another one. Format 1 was that of partitions with one
replica each: its groups have the ids of today's, and other members."""

STORE: Final = b"F"
NODE: Final = b"N"
HARD: Final = b"h"
BASE: Final = b"b"
ENTRY: Final = b"l"
STATE: Final = b"s"
SESSION: Final = b"e"
ANSWER: Final = b"a"
RECORD: Final = b"d"
DUE: Final = b"x"

PER_GENERATION: Final = (SESSION, ANSWER, RECORD, DUE)
"""The kinds that a snapshot replaces by another generation."""

GENERATION_BYTES: Final = 17
"""How long a `generation_prefix` is."""

_OF_GROUP: Final = Struct(">cQ")
_OF_GROUP_AND: Final = Struct(">cQQ")


def group_key(kind: bytes, group: int) -> bytes:
    """The one key of its kind that *group* has."""
    return _OF_GROUP.pack(kind, group)


def entry_key(group: int, index: int) -> bytes:
    """Of an entry of the log; also the end of a range that has all before it."""
    return _OF_GROUP_AND.pack(ENTRY, group, index)


def generation_prefix(kind: bytes, group: int, generation: int) -> bytes:
    """What the keys of a kind begin with in one generation of a group's data."""
    return _OF_GROUP_AND.pack(kind, group, generation)


def generation_range(kind: bytes, group: int, generation: int) -> tuple[bytes, bytes]:
    """The range that has all keys of a kind in one generation, and none else."""
    return (
        generation_prefix(kind, group, generation),
        generation_prefix(kind, group, generation + 1),
    )


def groups_range(kind: bytes) -> tuple[bytes, bytes]:
    """The range that has the keys of a kind of all groups."""
    return kind, bytes((kind[0] + 1,))


def group_of(key: bytes) -> int:
    """The group that a key belongs to."""
    return int.from_bytes(key[1:9], "big")


def generation_of(key: bytes) -> int:
    """The generation that a key of `PER_GENERATION` belongs to."""
    return int.from_bytes(key[9:GENERATION_BYTES], "big")
