"""Values: each is written once only, and some are long.

The log of a partition that takes long values is soon longer than what a node keeps; so a replica
that was away for some seconds is sent a snapshot. A history has their names only; a padding that is
not as it was written is told like another value, which nobody has written.
"""

from __future__ import annotations

from random import Random

PADDED_PARTITIONS = 2
"""In the first ones some values are long."""
PADDED_SHARE = 0.5
_PADDING_BYTES = (8 << 10, 96 << 10)
_PAD = b"."


def padded(name: bytes, random: Random) -> bytes:
    """A long value of that name."""
    size_bytes = random.randrange(*_PADDING_BYTES)
    return b"%s,%d,%s" % (name, size_bytes, _PAD * size_bytes)


def name_of(value: bytes | None) -> bytes | None:
    """The name of a value, long or not."""
    if value is None or b"," not in value:
        return value
    name, size_bytes, padding = value.split(b",", 2)
    is_whole = size_bytes.isdigit() and padding == _PAD * int(size_bytes)
    return name if is_whole else b"damaged: " + value[:100]
