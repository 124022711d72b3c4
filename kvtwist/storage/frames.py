"""Checksums around what is kept.

RocksDB has checksums of its own, of its blocks and of its log. These are the application's: they
also cover the way in between, and the key, so that a value that turns up under another key is
noticed as well.

A frame is: format (1 byte), CRC-32 of key and payload (4, big-endian), length of the payload (4),
the payload.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from kvtwist.errors import StoreDamaged

_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BII")
_HEAD_BYTES: Final = _HEAD.size
_checksum: Final = crc32  # what is imported is looked up each time where this is compiled
PAYLOAD_BYTES_MAX: Final = (1 << 32) - 1


def sealed(key: bytes, payload: bytes) -> bytes:
    """*payload* in a frame, to be kept under *key*."""
    return _HEAD.pack(_FORMAT, _checksum(payload, _checksum(key)), len(payload)) + payload


def opened(key: bytes, frame: bytes) -> bytes:
    """The payload of what was kept under *key*.

    :raises StoreDamaged: when it is not what was sealed; it must not be used (S3).
    """
    if len(frame) < _HEAD_BYTES:
        raise StoreDamaged(f"the record {_shown(key)} is cut off: the disk has damaged it")
    form, checksum, length = _HEAD.unpack_from(frame)
    payload = frame[_HEAD_BYTES:]
    if form != _FORMAT or length != len(payload) or checksum != _checksum(payload, _checksum(key)):
        raise StoreDamaged(
            f"the record {_shown(key)} has a wrong checksum: the disk has damaged it"
        )
    return payload


def _shown(key: bytes) -> str:
    return key[:40].hex()
