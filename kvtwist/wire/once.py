"""What a write that may be sent twice carries, so that it is carried out once.

The bytes of ``once`` (`kvtwist.wire.commands`), 32 of them: four numbers of eight, big-endian.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kvtwist.errors import MalformedRequest

_ONCE: Final = Struct(">QQQQ")
ONCE_BYTES: Final = _ONCE.size


class Once(NamedTuple):
    """Which write it is.

    :ivar generation: of the partition, as the sender knows it.
    :ivar session: whose write it is.
    :ivar seq: the write's number in the session: the same, however often it is sent.
    :ivar lowest_unanswered: the seqs below are not sent again: their answers need not be kept.
    """

    generation: int
    session: int
    seq: int
    lowest_unanswered: int


pack_once: Final = _ONCE.pack
"""The bytes; the arguments are the fields of `Once`."""


def names_session(once: bytes) -> bool:
    """Whether it is what a write can carry, if it has the right length."""
    return once[8:16] != b"\0\0\0\0\0\0\0\0"


def unpack_once(data: bytes) -> Once:
    """Read them.

    :raises MalformedRequest: when they are not what a write can carry.
    """
    if len(data) != ONCE_BYTES:
        raise MalformedRequest(f"once: {ONCE_BYTES} bytes are needed, not {len(data)}")
    once = Once._make(_ONCE.unpack(data))
    if not once.session:
        raise MalformedRequest("once: there is no session 0; a write without one has no once")
    return once
