"""The file of a backup: written piece by piece, and read only if it is what was written.

The format is in ``docs/backup.md``, and never changes within `FORMAT`::

    file  =  magic  format  h  (p  d*  e)*  t
    piece =  kind (1 byte), CRC-32 of kind, length and payload (4), length (4), payload

*h* is the header, as JSON; *p* begins a partition, *d* has a part of its stream, which is
`kvtwist.core.state.snapshot`'s, *e* ends it; *t*, the last piece, has counts and a digest of all
that is before it. The digest is the backup's name, too: founders compare it (S6).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Protocol
from zlib import crc32

from kvtwist.core.topology import Settings
from kvtwist.errors import ConfigurationError, StoreDamaged

FORMAT = 1
PIECE_BYTES_MAX = 1 << 20

_MAGIC = b"kvtwist backup\n"
_HEAD = Struct(">cII")
_PARTITION = Struct(">IQ")
_END = Struct(">Q")
_TRAILER = Struct(">IQ32s")
_HEADER, _BEGIN, _DATA, _ENDED, _LAST = b"h", b"p", b"d", b"e", b"t"
_CHECKSUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class BackupHeader:
    """What a backup says of itself.

    :ivar cluster_id: of the cluster that it was made of.
    :ivar partitions: how many there are; a restored cluster has as many.
    :ivar replicas: as the cluster had it; a restored one may have another number; so with
        ``tokens_per_member``.
    :ivar created_ms: when it was begun, by the wall clock, in ms since 1970.
    :ivar software: the kvtwist version that wrote it.
    """

    cluster_id: str
    partitions: int
    replicas: int
    tokens_per_member: int
    created_ms: int
    software: str

    def settings(self) -> Settings:
        """The cluster's settings.

        :raises ConfigurationError: when they are impossible.
        """
        return Settings(self.partitions, self.replicas, self.tokens_per_member, durable=True)


class BackupWriter:
    """Writes a backup: the header at once, then partitions from 0 on, each whole, then `finish`.

    :ivar stream_bytes: of all partitions, so far.
    """

    def __init__(self, stream: BinaryIO, header: BackupHeader) -> None:
        self.stream_bytes = 0
        self._stream = stream
        self._header = header
        self._digest = _digest()
        self._partitions = 0
        self._checked = _Checked()
        self._write(_MAGIC + bytes((FORMAT,)))
        self._piece(_HEADER, json.dumps(asdict(header), sort_keys=True).encode())

    def begin(self, number: int, applied_index: int) -> None:
        """Begin a partition."""
        assert number == self._partitions, (number, self._partitions)
        self._checked = _Checked()
        self._piece(_BEGIN, _PARTITION.pack(number, applied_index))

    def add(self, chunk: bytes) -> None:
        """Add to its stream."""
        self._checked.feed(chunk)
        for at in range(0, len(chunk), PIECE_BYTES_MAX):
            self._piece(_DATA, chunk[at : at + PIECE_BYTES_MAX])

    def end(self) -> None:
        """Its stream is complete.

        :raises StoreDamaged: when it is not.
        """
        if not self._checked.is_whole:
            raise StoreDamaged(f"the stream of partition {self._partitions} is cut off or damaged")
        self._piece(_ENDED, _END.pack(self._checked.stream_bytes))
        self.stream_bytes += self._checked.stream_bytes
        self._partitions += 1

    def finish(self) -> str:
        """All partitions are there. The digest, in hexadecimal digits."""
        assert self._partitions == self._header.partitions, self._partitions
        digest = self._digest.digest()
        self._piece(_LAST, _TRAILER.pack(self._partitions, self.stream_bytes, digest))
        return digest.hex()

    def _piece(self, kind: bytes, payload: bytes) -> None:
        self._write(_HEAD.pack(kind, _crc(kind, payload), len(payload)) + payload)

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._stream.write(data)


class Readable(Protocol):
    """As much of a file as is needed to read a backup."""

    def read(self, count: int, /) -> bytes:
        """The next *count* bytes; fewer only at the end."""


class BackupReader:
    """Reads a backup.

    :raises ConfigurationError: when it is none, or of a later format.
    :raises StoreDamaged: when it is not what was written; so does all that is read.

    :ivar header: what it says of itself.
    :ivar digest: once all of it was read, and not before.
    """

    def __init__(self, stream: Readable) -> None:
        self.digest = ""
        self._stream = stream
        self._stream_bytes = 0
        self._hash = _digest()
        start = self._read(len(_MAGIC) + 1)
        if start[:-1] != _MAGIC:
            raise ConfigurationError("this is no backup of kvtwist's")
        if start[-1] != FORMAT:
            raise ConfigurationError(
                f"this backup is of format {start[-1]}; this release knows {FORMAT}: "
                "use a later kvtwist"
            )
        self.header = _header(self._expect(_HEADER))

    def partitions(self) -> Iterator[tuple[int, int, Iterator[bytes]]]:
        """For each partition its number, its applied index, and its stream, to be read before the
        next one is asked for. The last one has been read well only when this ends."""
        for number in range(self.header.partitions):
            begun = self._unpack(_PARTITION, self._expect(_BEGIN))
            if begun[0] != number:
                raise StoreDamaged(f"partition {begun[0]} stands where {number} belongs")
            yield number, begun[1], self._chunks(number)
        digest = self._hash.digest()
        if self._expect(_LAST) != _TRAILER.pack(self.header.partitions, self._stream_bytes, digest):
            raise StoreDamaged("the backup's digest is not its own")
        if self._stream.read(1):
            raise StoreDamaged("the backup goes on after its end")
        self.digest = digest.hex()

    def _chunks(self, number: int) -> Iterator[bytes]:
        stream_bytes = 0
        while True:
            kind, payload = self._next()
            if kind == _DATA:
                stream_bytes += len(payload)
                yield payload
            elif kind == _ENDED and self._unpack(_END, payload) == (stream_bytes,):
                self._stream_bytes += stream_bytes
                return
            else:
                raise StoreDamaged(f"the stream of partition {number} breaks off")

    def _expect(self, kind: bytes) -> bytes:
        found, payload = self._next()
        if found != kind:
            raise StoreDamaged(f"the backup has a piece {found!r} where {kind!r} belongs")
        return payload

    def _next(self) -> tuple[bytes, bytes]:
        kind, checksum, length = _HEAD.unpack(self._read(_HEAD.size))
        if length > PIECE_BYTES_MAX:
            raise StoreDamaged(f"the backup has a piece of {length:,} bytes: it is damaged")
        payload = self._read(length)
        if checksum != _crc(kind, payload):
            raise StoreDamaged("a piece of the backup has a wrong checksum: it is damaged")
        return kind, payload

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise StoreDamaged("the backup is cut off")
        self._hash.update(data)
        return data

    @staticmethod
    def _unpack(form: Struct, payload: bytes) -> tuple[int, ...]:
        if len(payload) != form.size:
            raise StoreDamaged("a piece of the backup is of the wrong length")
        return form.unpack(payload)


def verify(stream: Readable) -> tuple[BackupHeader, str]:
    """Read all of a backup; its header and its digest.

    :raises ConfigurationError, StoreDamaged: as `BackupReader` does.
    """
    reader = BackupReader(stream)
    for _, _, chunks in reader.partitions():
        for _ in chunks:
            pass
    return reader.header, reader.digest


class _Checked:
    """Follows a partition's stream, which ends in a checksum of its own.

    :ivar stream_bytes: how long it is.
    """

    def __init__(self) -> None:
        self.stream_bytes = 0
        self._hash = _digest()
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next part."""
        self.stream_bytes += len(chunk)
        if len(chunk) < _CHECKSUM_BYTES:
            chunk = self._tail + chunk
        else:
            self._hash.update(self._tail)
        self._hash.update(memoryview(chunk)[:-_CHECKSUM_BYTES])
        self._tail = chunk[-_CHECKSUM_BYTES:]

    @property
    def is_whole(self) -> bool:
        """Whether what has come is a stream, from its beginning to its end."""
        return self._tail == self._hash.digest()


def _header(payload: bytes) -> BackupHeader:
    try:
        header = BackupHeader(**json.loads(payload))
        header.settings()
    except (ValueError, TypeError, ConfigurationError) as error:
        raise StoreDamaged(f"the backup's header makes no sense: {error}") from error
    return header


def _crc(kind: bytes, payload: bytes) -> int:
    return crc32(payload, crc32(kind + len(payload).to_bytes(4, "big")))


def _digest() -> blake2b:
    return blake2b(digest_size=_CHECKSUM_BYTES)


# -- the file -------------------------------------------------------------------------------------


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file that is there, whole and durable, when the context ends well; else it never was (S4).

    :raises ConfigurationError: when there is something already, and it is not to be overwritten;
        or somebody else is at it.
    :raises OSError: when it cannot be written.
    """
    _check_place(path, overwrite)
    part = path.with_name(f"{path.name}.part")
    with _created(part) as stream:
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            _check_place(path, overwrite)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    sync_directory(path.parent)


def _created(part: Path) -> BinaryIO:
    try:
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise ConfigurationError(
            f"{part} is there: another backup is at work, or was broken off; then remove it"
        ) from None
    return open(descriptor, "wb")


def _check_place(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise ConfigurationError(f"{path} is a directory: name a file")
    if not overwrite and os.path.lexists(path):
        raise ConfigurationError(
            f"{path} is there already: name another file, or use --force to overwrite it"
        )


def sync_directory(path: Path) -> None:
    """Make what was made, renamed or removed in *path* durable."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
