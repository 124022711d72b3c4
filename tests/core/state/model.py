"""What a partition's state machine should do, in the plainest words: everything is copied, walked
through and kept for ever, nothing is fast, and nothing is shared with the real one but its words.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field, replace

from kvtwist.core.state.answers import (
    Advanced,
    Answer,
    BelowMark,
    BeyondWindow,
    Expired,
    GenerationSet,
    NotWritten,
    SessionClosed,
    SessionOpened,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    Written,
    WrongGeneration,
)
from kvtwist.core.state.commands import (
    Advance,
    CloseSession,
    Command,
    Expire,
    OpenSession,
    SetGeneration,
    Write,
)
from kvtwist.core.state.operations import Delete, Get, Increment, Operation, Put
from kvtwist.core.state.outcomes import (
    Changed,
    Counted,
    Found,
    Mismatch,
    NotANumber,
    OutOfRange,
    Unchanged,
)

DAY_MS = 86_400_000


@dataclass
class ModelRecord:
    """Under a key."""

    value: bytes
    version: int
    created: int
    expires: int | None


@dataclass
class ModelSession:
    """Of a client."""

    idle: int
    used: int
    mark: int = 0
    answered: dict[int, Answer] = field(default_factory=dict)


class Failed(Exception):
    """Nothing of the write is to stay."""


class Model:
    """A partition.

    :ivar applied: every (session, seq) that was ever applied.
    """

    def __init__(
        self, generation: int, revision: int, answers_max: int, sessions_max: int, kept_max: int
    ) -> None:
        self.generation = generation
        self.revision = revision
        self.answers_max = answers_max
        self.sessions_max = sessions_max
        self.kept_max = kept_max
        self.index = 0
        self.now = 0
        self.records: dict[tuple[int, bytes], ModelRecord] = {}
        self.sessions: dict[int, ModelSession] = {}
        self.applied: list[tuple[int, int]] = []

    def see(self, keyspace: int, key: bytes) -> ModelRecord | None:
        """The record, unless its time has come."""
        record = self.records.get((keyspace, key))
        if record and record.expires is not None and record.expires <= self.now:
            return None
        return record

    def living(self, session: int) -> ModelSession | None:
        """The session, unless its time has come."""
        found = self.sessions.get(session)
        return found if found and found.used + found.idle > self.now else None

    def apply(self, command: Command) -> Answer:
        """The next entry."""
        self.index += 1
        self.now = max(self.now, command.stamp_ms)
        match command:
            case Advance():
                return Advanced(self.now)
            case Expire():
                return self.expire(min(command.until_ms, self.now), command.limit)
            case _ if command.generation != self.generation:
                return WrongGeneration(command.generation, self.generation)
            case SetGeneration():
                self.generation = command.following
                return GenerationSet(command.following)
            case OpenSession():
                if len(self.sessions) == self.sessions_max:
                    return TooManySessions(self.sessions_max)
                self.sessions[self.index] = ModelSession(min(command.idle_ms, DAY_MS), self.now)
                return SessionOpened(self.index)
            case CloseSession():
                if not self.living(command.session):
                    return UnknownSession(command.session)
                del self.sessions[command.session]
                return SessionClosed()
            case Write():
                return self.write(command) if command.session else self.carry_out(command)

    def write(self, write: Write) -> Answer:
        """A write of a session."""
        session, seq = self.living(write.session), write.seq
        if session is None:
            return UnknownSession(write.session)
        session.used = self.now
        session.mark = max(session.mark, write.lowest_unanswered)
        if seq < session.mark:
            return BelowMark(seq, session.mark)
        if seq in session.answered:
            return valueless(session.answered[seq])
        if seq - session.mark >= self.answers_max:
            return BeyondWindow(seq, session.mark)
        if self.kept() >= self.kept_max:
            return TooManyAnswers(self.kept_max)
        self.applied.append((write.session, seq))
        session.answered[seq] = self.carry_out(write)
        return session.answered[seq]

    def kept(self) -> int:
        """All answers that somebody may still ask for, and their parts."""
        answers = [
            answer
            for session in self.sessions.values()
            for seq, answer in session.answered.items()
            if seq >= session.mark
        ]
        parts = [answer.results for answer in answers if isinstance(answer, Written)]
        failures = [answer.failures for answer in answers if isinstance(answer, NotWritten)]
        return len(answers) + sum(map(len, parts)) + sum(map(len, failures))

    def carry_out(self, write: Write) -> Answer:
        """All of it, or none of it."""
        before = copy.deepcopy(self.records), self.revision
        unmet = []
        for index, condition in enumerate(write.conditions):
            record = self.see(write.keyspace, condition.key)
            if (record.version if record else 0) != condition.version:
                unmet.append(unlike(index, record))
        if unmet:
            return NotWritten(tuple(unmet))
        results = []
        try:
            for index, operation in enumerate(write.operations):
                where = len(write.conditions) + index
                results.append(self.operate(write.keyspace, operation, where))
        except Failed as failed:
            self.records, self.revision = before
            return NotWritten((failed.args[0],))
        return Written(tuple(results))

    def operate(
        self, keyspace: int, operation: Operation, index: int
    ) -> Changed | Counted | Found | Unchanged:
        """One operation."""
        record = self.see(keyspace, operation.key)
        found = record.version if record else 0
        match operation:
            case Get():
                return Found(found, record.value if record else None)
            case Put() | Delete() if operation.version not in (None, found):
                raise Failed(unlike(index, record))
            case Put():
                expires = self.now + operation.ttl_ms if operation.ttl_ms else None
                return Changed(self.set(keyspace, operation.key, operation.value, expires))
            case Delete() if record is None:
                return Unchanged()
            case Delete():
                del self.records[keyspace, operation.key]
                self.revision += 1
                return Changed(self.revision)
            case Increment():
                return self.increment(keyspace, operation, index)

    def increment(self, keyspace: int, operation: Increment, index: int) -> Counted:
        """Add to a number."""
        record = self.see(keyspace, operation.key)
        found = record.version if record else 0
        text = record.value if record else b"0"
        if not re.fullmatch(rb"0|-?[1-9][0-9]*", text) or not is_int64(int(text)):
            raise Failed(NotANumber(index, found))
        number = int(text) + operation.by
        if not is_int64(number):
            raise Failed(OutOfRange(index, found))
        expires = record.expires if record else None
        return Counted(self.set(keyspace, operation.key, str(number).encode(), expires), number)

    def set(self, keyspace: int, key: bytes, value: bytes, expires: int | None) -> int:
        """Write; the new version."""
        record = self.see(keyspace, key)
        self.revision += 1
        created = record.created if record else self.revision
        self.records[keyspace, key] = ModelRecord(value, self.revision, created, expires)
        return self.revision

    def expire(self, until: int, limit: int) -> Answer:
        """One at a time, the longest due first."""
        sessions = records = 0
        while True:
            due_sessions = sorted(
                (session.used + session.idle, id)
                for id, session in self.sessions.items()
                if session.used + session.idle <= until
            )
            due_records = sorted(
                (record.expires, name)
                for name, record in self.records.items()
                if record.expires is not None and record.expires <= until
            )
            if sessions + records == limit or not (due_sessions or due_records):
                return Expired(sessions, records, bool(due_sessions or due_records))
            if due_sessions:
                del self.sessions[due_sessions[0][1]]
                sessions += 1
            else:
                del self.records[due_records[0][1]]
                self.revision += 1
                records += 1


def is_int64(number: int) -> bool:
    """Whether 64 bits are enough."""
    return -(2**63) <= number < 2**63


def unlike(index: int, record: ModelRecord | None) -> Mismatch:
    """A version that was not the one asked for."""
    return Mismatch(index, record.version, record.value) if record else Mismatch(index, 0, None)


def valueless(answer: Answer) -> Answer:
    """What is told a second time."""
    match answer:
        case Written(results):
            return Written(
                tuple(
                    replace(each, value=None) if isinstance(each, Found) else each
                    for each in results
                )
            )
        case NotWritten(failures):
            return NotWritten(
                tuple(
                    replace(each, value=None) if isinstance(each, Mismatch) else each
                    for each in failures
                )
            )
        case _:
            return answer
