"""The mark of an answer: which partitions it has seen, and how far each had been applied.

On the wire (``applied`` in `kvtwist.wire.commands`): the cluster's id in 16 bytes, then, for each
partition, its number in two bytes and the index in eight, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import starmap
from typing import Final

CLUSTER_ID_BYTES: Final = 16
_SEEN: Final = struct.Struct(">HQ")


def pack_applied(cluster_id: bytes, indexes: Mapping[int, int]) -> bytes:
    """The mark for *indexes*: under each partition, how far it had been applied."""
    return b"".join([cluster_id, *starmap(_SEEN.pack, indexes.items())])


def unpack_applied(cluster_id: bytes, mark: bytes) -> dict[int, int]:
    """What *mark* says; the highest index counts, should a partition stand there twice.

    :raises ValueError: when it is malformed, or another cluster's.
    """
    if mark[:CLUSTER_ID_BYTES] != cluster_id:
        raise ValueError("the mark is another cluster's")
    if (len(mark) - CLUSTER_ID_BYTES) % _SEEN.size:
        raise ValueError("the mark is cut off")
    return dict(sorted(_SEEN.iter_unpack(mark[CLUSTER_ID_BYTES:])))


def join_applied(indexes: dict[int, int], others: Mapping[int, int]) -> None:
    """Add *others* to *indexes*; where both know a partition, the higher index counts."""
    for partition, index in others.items():
        indexes[partition] = max(index, indexes.get(partition, 0))
