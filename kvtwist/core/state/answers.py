"""The answers: what became of an applied entry, and their bytes for the wire and for snapshots.

::

    Answer
    +-- Written             the operations took place
    +-- NotWritten          a condition did not hold, or an operation could not: nothing took place
    +-- SessionOpened
    +-- SessionClosed
    +-- Expired
    +-- Advanced
    +-- GenerationSet
    +-- Refused             nothing was looked at, and nothing took place
        +-- WrongGeneration     sent for another membership than the partition's
        +-- UnknownSession      never opened, closed, or expired
        +-- BelowMark           the session has said that this seq was answered
        +-- BeyondWindow        too far above the session's lowest unanswered seq
        +-- TooManyAnswers      kept for all sessions together: it would be applied later
        +-- TooManySessions

`Refused` speaks of this entry. A retry that is refused says nothing about the attempts before it:
of `UnknownSession`, `BelowMark` and `BeyondWindow` the client makes "unknown" (C6); after
`WrongGeneration` it sends the same seq again, for the generation named, and after `TooManyAnswers`
later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, TypeAlias

from kvtwist.core.state.fields import KIND, MalformedBytes, Reader, pack, reader_of
from kvtwist.core.state.outcomes import (
    Failure,
    Result,
    encode_outcome,
    read_failure,
    read_result,
)


@dataclass(slots=True, unsafe_hash=True)
class Written:
    """The write took place.

    :ivar results: one for each operation.
    """

    results: Final[tuple[Result, ...]]

    def __init__(self, results: tuple[Result, ...]) -> None:
        self.results = results


@dataclass(frozen=True, slots=True)
class NotWritten:
    """Nothing of the write took place.

    :ivar failures: every condition that did not hold; or else the first operation that could not
        be carried out.
    """

    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """There is a new session.

    :ivar session: its id.
    """

    session: int


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is gone."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What was due is gone, or some of it.

    :ivar is_more: whether something is left that was due: another entry is needed.
    """

    sessions: int
    records: int
    is_more: bool


@dataclass(frozen=True, slots=True)
class Advanced:
    """Log time may have moved on."""

    log_time_ms: int


@dataclass(frozen=True, slots=True)
class GenerationSet:
    """The partition's generation is a new one."""

    generation: int


@dataclass(frozen=True, slots=True)
class WrongGeneration:
    """The entry was for another generation.

    :ivar carried: the one it was for.
    :ivar own: the partition's.
    """

    carried: int
    own: int


@dataclass(frozen=True, slots=True)
class UnknownSession:
    """There is no such session now. It is never started anew (C6)."""

    session: int


@dataclass(frozen=True, slots=True)
class BelowMark:
    """The session has said that it has the answer to this seq, so it was forgotten.

    :ivar mark: the lowest unanswered seq.
    """

    seq: int
    mark: int


@dataclass(frozen=True, slots=True)
class BeyondWindow:
    """So far above the mark that more answers would be kept than may be. Well-made clients wait.

    :ivar mark: the lowest unanswered seq.
    """

    seq: int
    mark: int


@dataclass(frozen=True, slots=True)
class TooManyAnswers:
    """The partition keeps as many answers as it may, of all sessions together.

    :ivar limit: how many (`kvtwist.core.state.sessions.KEPT_MAX`).
    """

    limit: int


@dataclass(frozen=True, slots=True)
class TooManySessions:
    """The partition has as many sessions as it may.

    :ivar limit: how many.
    """

    limit: int


WriteAnswer: TypeAlias = Written | NotWritten
"""What is kept for a retry."""

Refused: TypeAlias = (
    WrongGeneration | UnknownSession | BelowMark | BeyondWindow | TooManyAnswers | TooManySessions
)

Answer: TypeAlias = (
    WriteAnswer | SessionOpened | SessionClosed | Expired | Advanced | GenerationSet | Refused
)

_COUNT: Final = Struct(">B")
_FAILURES = Struct(">H")
_ONE = Struct(">Q")
_TWO = Struct(">QQ")
_EXPIRED = Struct(">IIB")

_WRITTEN: Final = KIND.pack(1, 1)
_NOT_WRITTEN = KIND.pack(2, 1)
_EXPIRED_KIND = KIND.pack(3, 1)

# The others are nothing but their numbers.
_NUMBERS: Mapping[type[Answer], Struct] = {
    SessionOpened: _ONE,
    SessionClosed: Struct(""),
    Advanced: _ONE,
    GenerationSet: _ONE,
    WrongGeneration: _TWO,
    UnknownSession: _ONE,
    BelowMark: _TWO,
    BeyondWindow: _TWO,
    TooManySessions: _ONE,
    TooManyAnswers: _ONE,
}
_KIND_OF: Mapping[type[Answer], bytes] = {
    SessionOpened: KIND.pack(4, 1),
    SessionClosed: KIND.pack(5, 1),
    Advanced: KIND.pack(6, 1),
    GenerationSet: KIND.pack(7, 1),
    WrongGeneration: KIND.pack(16, 1),
    UnknownSession: KIND.pack(17, 1),
    BelowMark: KIND.pack(18, 1),
    BeyondWindow: KIND.pack(19, 1),
    TooManySessions: KIND.pack(20, 1),
    TooManyAnswers: KIND.pack(21, 1),
}


def encode_answer(answer: Answer) -> bytes:
    """The answer's bytes.

    :raises ValueError: when a field is out of bounds.
    """
    match answer:
        case Written(results):
            pieces = [_WRITTEN, pack(_COUNT, len(results))]
            for result in results:
                pieces += encode_outcome(result)
            return b"".join(pieces)
        case NotWritten(failures):
            pieces = [_NOT_WRITTEN, pack(_FAILURES, len(failures))]
            for failure in failures:
                pieces += encode_outcome(failure)
            return b"".join(pieces)
        case Expired(sessions, records, is_more):
            return _EXPIRED_KIND + pack(_EXPIRED, sessions, records, is_more)
        case _:
            kind, layout = _KIND_OF[type(answer)], _NUMBERS[type(answer)]
            return kind + pack(layout, *(getattr(answer, name) for name in answer.__slots__))


def decode_answer(data: bytes) -> Answer:
    """The answer of these bytes.

    :raises UnknownKind: when a later release wrote them.
    :raises MalformedBytes: when they are no answer's encoding.
    """
    read = reader_of("an answer", data, _READ)
    reader = Reader(data, KIND.size)
    answer = read(reader)
    reader.end()
    return answer


def _read_written(reader: Reader) -> Written:
    return Written(tuple([read_result(reader) for _ in range(reader.byte())]))


def _read_not_written(reader: Reader) -> NotWritten:
    (count,) = reader.fields(_FAILURES)
    return NotWritten(tuple([read_failure(reader) for _ in range(count)]))


def _read_expired(reader: Reader) -> Expired:
    sessions, records, is_more = reader.fields(_EXPIRED)
    if is_more > 1:
        raise MalformedBytes(f"a truth of {is_more}")
    return Expired(sessions, records, bool(is_more))


def _reader_of(answer: type[Any]) -> Callable[[Reader], Answer]:
    layout = _NUMBERS[answer]
    return lambda reader: answer(*reader.fields(layout))


_READ: Mapping[bytes, Callable[[Reader], Answer]] = {
    _WRITTEN: _read_written,
    _NOT_WRITTEN: _read_not_written,
    _EXPIRED_KIND: _read_expired,
    **{kind: _reader_of(answer) for answer, kind in _KIND_OF.items()},
}
