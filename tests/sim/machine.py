"""The state machine of the members: the real one, and what a client of it says and hears.

One tick is `TICK_MS` of log time.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from kvtwist.core.raft import Entry, EntryKind
from kvtwist.core.state.answers import (
    Answer,
    NotWritten,
    Written,
)
from kvtwist.core.state.commands import Advance, OpenSession, Write, encode
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Delete, Increment, Operation, Put
from kvtwist.core.state.outcomes import (
    Changed,
    Counted,
    Failure,
    Mismatch,
    Result,
    Unchanged,
)
from kvtwist.core.state.snapshot import Restore
from tests.linearizability.history import ABSENT, Kind

TICK_MS = 100
GENERATION = 1

__all__ = [
    "Answer",
    "Machine",
    "Request",
    "Said",
    "opening",
    "passing",
    "said",
    "writing",
]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants done to a key; fields as in `tests.linearizability.history`."""

    kind: Kind
    key: bytes
    value: bytes | None = None
    version: int | None = None
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What a client is told of it."""

    done: bool = True
    version: int | None = None
    value: bytes | None = None


class Machine:
    """One member's state.

    :param contents: from a snapshot; else it is a new partition's.
    """

    __slots__ = ("state",)

    def __init__(self, contents: Contents | None = None) -> None:
        self.state = StateMachine(Contents(GENERATION) if contents is None else contents)

    @property
    def applied(self) -> int:
        """The last entry that was applied."""
        return self.state.applied_index

    def apply(self, entry: Entry) -> Answer | None:
        """Apply the next entry; those that are Raft's own have no answer."""
        if entry.kind is EntryKind.DATA:
            return self.state.apply(entry.index, entry.data)
        self.state.skip(entry.index)
        return None

    def read(self, key: bytes) -> Said:
        """What is under *key*."""
        record = self.state.get(key)
        return Said(version=ABSENT) if record is None else Said(True, record.version, record.value)

    def encode(self) -> bytes:
        """All of it."""
        return b"".join(self.state.snapshot().chunks())

    @classmethod
    def decode(cls, data: bytes) -> Machine:
        """From `encode`; nothing is a new one."""
        if not data:
            return cls()
        restore = Restore()
        restore.feed(data)
        return cls(restore.finish())

    def digest(self) -> bytes:
        """The same for the same state."""
        return blake2b(self.state.digest(), digest_size=8).digest()


def opening(stamp_ms: int, idle_ms: int) -> bytes:
    """An entry that opens a session."""
    return encode(OpenSession(stamp_ms, GENERATION, idle_ms))


def passing(stamp_ms: int) -> bytes:
    """An entry that does nothing but take a place in the log."""
    return encode(Advance(stamp_ms))


def writing(stamp_ms: int, request: Request, session: int, seq: int, mark: int) -> bytes:
    """An entry that does what *request* says; in no session if that is 0."""
    operation = _operation(request)
    return encode(Write(stamp_ms, GENERATION, session, seq, mark, (operation,)))


def _operation(request: Request) -> Operation:
    key, value, version = request.key, request.value, request.version
    match request.kind:
        case Kind.DELETE:
            return Delete(key, version)
        case Kind.INCREMENT:
            return Increment(key, request.amount)
        case Kind.PUT_IF_ABSENT:
            version = ABSENT
    assert value is not None, request
    return Put(key, value, version=version)


def said(answer: Answer) -> Said | None:
    """What *answer* says of the one operation of its write; ``None``: it was refused."""
    match answer:
        case Written((result,)):
            return _result(result)
        case NotWritten((failure, *_)):
            return _failure(failure)
    return None


def _result(result: Result) -> Said:
    match result:
        case Changed(version):
            return Said(True, version)
        case Counted(version, number):
            return Said(True, version, b"%d" % number)
        case Unchanged():
            return Said(False, ABSENT)
    raise ValueError(result)


def _failure(failure: Failure) -> Said:
    if isinstance(failure, Mismatch):
        return Said(False, failure.version, failure.value)
    return Said(False, failure.version)
