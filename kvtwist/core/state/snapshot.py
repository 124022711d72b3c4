"""Snapshots: the contents of a partition as a stream of bytes, and back.

::

    stream   =  magic  header  session*  record*  checksum
    header   =  generation, revision, applied index, log time; how many sessions, how many records
    session  =  id, idle time, expiry, mark, how many answers;  (seq, length, answer)*
    record   =  length of the stored key, length of the record;  key  record
    checksum =  BLAKE2b-256 of all before it

Sessions stand in the order of their ids, answers of their seqs, records of their keys, each once: a
state has one stream, so that its checksum is the state's digest too. What replicas have to agree on
is what a snapshot moves (R13), by construction.

The stream is cut into chunks anywhere. Records and sessions are encoded as chunks are asked for,
from a frozen view: a snapshot takes the memory of what changes meanwhile, and one chunk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from hashlib import blake2b
from struct import Struct
from typing import TypeAlias, TypeVar

from kvtwist.core.state.answers import (
    NotWritten,
    WriteAnswer,
    Written,
    decode_answer,
    encode_answer,
)
from kvtwist.core.state.commands import NO_SESSION
from kvtwist.core.state.contents import KEYSPACE_BYTES, Contents, View
from kvtwist.core.state.fields import (
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    MalformedBytes,
    UnknownKind,
)
from kvtwist.core.state.records import (
    HEADER_BYTES,
    REVISION_MAX,
    Record,
    decode_record,
    encode_header,
)
from kvtwist.core.state.sessions import (
    ANSWERS_MAX,
    SESSIONS_MAX,
    Session,
    Sessions,
)

CHUNK_BYTES = 256 << 10

_MAGIC = b"kvtwist state"
_KIND, _VERSION = 1, 1
_HEAD = Struct(">13sBB")
_HEADER = Struct(">QQQQIQ")
_SESSION = Struct(">QQQQH")
_ANSWER = Struct(">QI")
_LENGTHS = Struct(">II")

_CHECKSUM_BYTES = 32
_ANSWER_BYTES_MAX = 1 << 16


class Snapshot:
    """A partition's contents at one moment."""

    __slots__ = ("_view",)

    def __init__(self, view: View) -> None:
        self._view = view

    @property
    def applied_index(self) -> int:
        """The index of the last entry in it."""
        return self._view.applied_index

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The stream, in chunks of *chunk_bytes*, the last two shorter. Can be had again."""
        checksum = _checksum()
        for chunk in _cut(self._pieces(), chunk_bytes):
            checksum.update(chunk)
            yield chunk
        yield from _cut(iter([checksum.digest()]), chunk_bytes)

    def digest(self) -> bytes:
        """The checksum at the stream's end."""
        checksum = _checksum()
        for chunk in _cut(self._pieces(), CHUNK_BYTES):
            checksum.update(chunk)
        return checksum.digest()

    def _pieces(self) -> Iterator[bytes]:
        view = self._view
        yield _HEAD.pack(_MAGIC, _KIND, _VERSION)
        yield _HEADER.pack(
            view.generation,
            view.revision,
            view.applied_index,
            view.log_time_ms,
            len(view.sessions),
            len(view.records),
        )
        for session in view.sessions:
            yield from _session_pieces(session)
        for key, stored in view.records:
            record = Record._make(stored)
            yield _LENGTHS.pack(len(key), HEADER_BYTES + len(record.value)) + key
            yield encode_header(record)
            yield record.value


def _session_pieces(session: Session) -> Iterator[bytes]:
    yield _SESSION.pack(
        session.id, session.idle_ms, session.expires_at_ms, session.mark, len(session.answers)
    )
    for seq in sorted(session.answers):
        answer = encode_answer(session.answers[seq])
        yield _ANSWER.pack(seq, len(answer)) + answer


def _cut(pieces: Iterator[bytes], chunk_bytes: int) -> Iterator[bytes]:
    """The pieces joined to chunks of *chunk_bytes*; the last one may be shorter."""
    assert chunk_bytes >= 1, chunk_bytes
    gathered: list[bytes | memoryview] = []
    room = chunk_bytes
    for piece in pieces:
        if len(piece) < room:
            gathered.append(piece)
            room -= len(piece)
            continue
        # A view, so that a long value is copied once, into its chunks.
        rest = memoryview(piece)
        while len(rest) >= room:
            gathered.append(rest[:room])
            yield b"".join(gathered)
            rest = rest[room:]
            gathered, room = [], chunk_bytes
        gathered.append(rest)
        room -= len(rest)
    if room < chunk_bytes:
        yield b"".join(gathered)


class Restore:
    """Makes contents out of a snapshot's stream, whose chunks come one at a time.

    Nothing is there before `finish` has returned it: what is damaged or cut off raises, and leaves
    whatever the replica had as it was. A `Restore` that has raised is of no more use.

    :param contents: empty ones, which are filled meanwhile, and are worth nothing before `finish`
        has returned them: so a partition goes to a disk that is larger than memory. By default
        others, in memory.
    """

    __slots__ = ("_checksum", "_chunks", "_held_bytes", "_parser", "_result", "_tail", "_wanted")

    def __init__(self, contents: Contents | None = None) -> None:
        self._parser = _parse(Contents(0) if contents is None else contents)
        self._wanted = next(self._parser)
        self._result: tuple[Contents, bytes] | None = None
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._checksum = _checksum()
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk.

        :raises MalformedBytes: when this can be no snapshot's.
        :raises UnknownKind: when a later release made it; or it is damaged just so.
        """
        if self._result is not None and chunk:
            raise MalformedBytes("the snapshot goes on after its end")
        self._hash(chunk)
        # Joined only when there is enough: a long value comes in many chunks.
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        if self._held_bytes >= self._wanted:
            self._parse_held()

    def finish(self) -> Contents:
        """All chunks have been fed.

        :raises MalformedBytes: when the snapshot was cut off, or its checksum is not its own.
        """
        if self._result is None:
            raise MalformedBytes(f"the snapshot is cut off: {self._wanted} bytes were expected")
        contents, checksum = self._result
        if checksum != self._checksum.digest():
            raise MalformedBytes("the snapshot is damaged: its checksum is not its own")
        return contents

    def _hash(self, chunk: bytes) -> None:
        """Hash all but the last bytes, which may be the checksum."""
        if len(chunk) < _CHECKSUM_BYTES:
            chunk = self._tail + chunk
        else:
            self._checksum.update(self._tail)
        self._checksum.update(memoryview(chunk)[:-_CHECKSUM_BYTES])
        self._tail = chunk[-_CHECKSUM_BYTES:]

    def _parse_held(self) -> None:
        data = b"".join(self._chunks)
        at = 0
        while (end := at + self._wanted) <= len(data):
            piece = data[at:end]
            at = end
            try:
                self._wanted = self._parser.send(piece)
            except StopIteration as done:
                self._result = done.value
                break
        self._chunks = [data[at:]]
        self._held_bytes = len(data) - at
        if self._result is not None and self._held_bytes:
            raise MalformedBytes(f"{self._held_bytes} bytes after the snapshot's end")


def restore(chunks: Iterable[bytes]) -> Contents:
    """The contents of a whole stream.

    :raises MalformedBytes: when it is damaged or cut off.
    :raises UnknownKind: when a later release made it; or it is damaged just so.
    """
    restoring = Restore()
    for chunk in chunks:
        restoring.feed(chunk)
    return restoring.finish()


_Parsed = TypeVar("_Parsed")

_Parser: TypeAlias = Generator[int, bytes, _Parsed]
"""Yields how many bytes it wants next, and is sent just those."""


def _parse(contents: Contents) -> _Parser[tuple[Contents, bytes]]:
    """The contents, filled, and the checksum that stands behind them."""
    magic, kind, version = _HEAD.unpack((yield _HEAD.size))
    if magic != _MAGIC:
        raise MalformedBytes("this is no snapshot")
    if (kind, version) != (_KIND, _VERSION):
        raise UnknownKind("a snapshot", kind, version)
    (generation, revision, applied_index, log_time_ms, session_count, record_count) = (
        _HEADER.unpack((yield _HEADER.size))
    )
    if revision > REVISION_MAX:
        raise MalformedBytes(f"a revision of {revision}")
    contents.generation = generation
    contents.revision = revision
    contents.applied_index = applied_index
    contents.log_time_ms = log_time_ms
    contents.sessions = Sessions((yield from _parse_sessions(session_count, applied_index)))
    yield from _parse_records(contents, record_count)
    return contents, (yield _CHECKSUM_BYTES)


def _parse_sessions(count: int, id_max: int) -> _Parser[list[Session]]:
    if count > SESSIONS_MAX:
        raise MalformedBytes(f"{count} sessions")
    sessions: list[Session] = []
    latest = NO_SESSION
    for _ in range(count):
        id, idle_ms, expires_at_ms, mark, answer_count = _SESSION.unpack((yield _SESSION.size))
        if not latest < id <= id_max:
            raise MalformedBytes(f"session {id} after {latest}, of at most {id_max}")
        session = Session(id, idle_ms, expires_at_ms, mark)
        session.answers = yield from _parse_answers(answer_count, mark)
        sessions.append(session)
        latest = id
    return sessions


def _parse_answers(count: int, mark: int) -> _Parser[dict[int, WriteAnswer]]:
    answers: dict[int, WriteAnswer] = {}
    latest = mark - 1
    for _ in range(count):
        seq, length = _ANSWER.unpack((yield _ANSWER.size))
        if not latest < seq < mark + ANSWERS_MAX or not 0 < length <= _ANSWER_BYTES_MAX:
            raise MalformedBytes(f"an answer of {length} bytes to {seq}, after {latest}")
        answer = decode_answer((yield length))
        if not isinstance(answer, Written | NotWritten):
            raise MalformedBytes(f"{answer} is no answer to a write")
        answers[seq] = answer
        latest = seq
    return answers


def _parse_records(contents: Contents, count: int) -> _Parser[None]:
    latest = b""
    for _ in range(count):
        key_bytes, record_bytes = _LENGTHS.unpack((yield _LENGTHS.size))
        if not (
            KEYSPACE_BYTES <= key_bytes <= KEYSPACE_BYTES + KEY_BYTES_MAX
            and HEADER_BYTES <= record_bytes <= HEADER_BYTES + VALUE_BYTES_MAX
        ):
            raise MalformedBytes(f"a key of {key_bytes} bytes, a record of {record_bytes}")
        both = yield key_bytes + record_bytes
        key = both[:key_bytes]
        record = decode_record(both, key_bytes)
        if key <= latest or record.version > contents.revision:
            raise MalformedBytes(f"{key!r} of version {record.version} after {latest!r}")
        contents.put(key, record)
        latest = key


def _checksum() -> blake2b:
    return blake2b(digest_size=_CHECKSUM_BYTES)
