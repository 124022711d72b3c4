"""The state machine of a partition: what committed entries do to it, and what it can be asked.

In: the entries of the data kind, one after the other (`StateMachine.apply`); of the others, that
they went by (`StateMachine.skip`). Out: an `Answer` for each, a value. Reads change nothing, and
depend on nothing but what was applied.

Rule 1: same entries, same state, to the byte (R17). There is no clock, no chance, no setting, and
no set is walked through.

Rule 2: an entry that is refused is applied all the same: the index moves on, and log time.

Rule 3: an entry that cannot be read stops the replica. `apply` raises, and nothing has changed.

**Log time** is the highest stamp that was applied. A record or session whose time has come counts
as gone from then on, for reads and for writes, on every replica at the same entry; an `Expire`
entry removes what is gone already. So nothing disappears early; how late it does depends on how
often the leader stamps something, and `next_due_ms` says when it should.

**Versions.** Each change takes the next revision. The changes of a batch take one each, in the
order of its operations; what changes nothing takes none. A record that `Expire` removes is a change
too. A record that is due and written again is a new one, with a new ``created``.

What the caller owes: entries in the order of their indexes, none left out; the first generation and
revision the same on every replica.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kvtwist.core.state.answers import (
    Advanced,
    Answer,
    Expired,
    GenerationSet,
    NotWritten,
    SessionClosed,
    SessionOpened,
    WriteAnswer,
    Written,
    WrongGeneration,
)
from kvtwist.core.state.commands import (
    NO_SESSION,
    Advance,
    CloseSession,
    Command,
    Expire,
    LonePut,
    OpenSession,
    SetGeneration,
    Write,
    decode_entry,
)
from kvtwist.core.state.contents import KEYSPACE_BYTES, Contents, stored_key
from kvtwist.core.state.operations import expiry, mismatch, perform
from kvtwist.core.state.outcomes import FAILURES, Changed, Failure, Result
from kvtwist.core.state.records import REVISION_MAX, Record
from kvtwist.core.state.sessions import Session
from kvtwist.core.state.snapshot import Snapshot

SCAN_DUE_MAX = 1024
"""Records that are due which one page of a scan passes over, so that its work is bounded."""


class Page(NamedTuple):
    """A part of a scan.

    :ivar records: (key, record), in byte order.
    :ivar following: the key to go on from; ``None``: this was the end. A page may be empty and
        still not the last.
    """

    records: list[tuple[bytes, Record]]
    following: bytes | None


class StateMachine:
    """One replica's state of a partition.

    :param contents: what it starts with: new, or out of a snapshot.
    """

    __slots__ = ("_contents",)

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    # -- writing ------------------------------------------------------------------------------

    def apply(self, index: int, data: bytes) -> Answer:
        """Apply the entry of the data kind at *index*.

        :raises UnknownKind: when a later release wrote it: this replica must stop.
        :raises MalformedBytes: when it cannot be read: likewise.
        """
        return self.carry_out(index, decode_entry(data))

    def needs(self, command: Command | LonePut) -> list[bytes]:
        """The stored keys whose records *command* will look at.

        If they are not in memory, they have to be there before it is carried out: nothing here
        waits for a disk. What an entry before it changes is at hand anyway.
        """
        match command:
            case LonePut():
                return [command.key]
            case Write():
                asked = (*command.conditions, *command.operations)
                return [stored_key(command.keyspace, each.key) for each in asked]
            case Expire():
                # Log time may move on until then, but not past what the command names.
                return self._contents.due(command.until_ms, command.limit + 1)
            case _:
                return []

    def carry_out(self, index: int, command: Command | LonePut) -> Answer:
        """Apply the entry at *index*, which says *command*."""
        contents = self._contents
        assert index == contents.applied_index + 1, (index, contents.applied_index)
        contents.applied_index = index
        if command.stamp_ms > contents.log_time_ms:
            contents.log_time_ms = command.stamp_ms
        if isinstance(command, LonePut):
            return self._put_alone(command)  # nearly all are
        return _APPLY[type(command)](self, command)

    def skip(self, index: int) -> None:
        """The entry at *index* is Raft's own: it went by."""
        assert index == self._contents.applied_index + 1, (index, self._contents.applied_index)
        self._contents.applied_index = index

    def _write(self, write: Write) -> Answer:
        contents = self._contents
        if write.generation != contents.generation:
            return WrongGeneration(write.generation, contents.generation)
        if write.session == NO_SESSION:
            return self._carry_out(write)
        admitted = contents.sessions.admit(
            write.session, write.seq, write.lowest_unanswered, contents.log_time_ms
        )
        if not isinstance(admitted, Session):
            return admitted
        answer = self._carry_out(write)
        contents.sessions.keep(admitted, write.seq, answer)
        return answer

    def _put_alone(self, put: LonePut) -> Answer:
        """What `_write` does, of which this is the most frequent case."""
        contents = self._contents
        if put.generation != contents.generation:
            return WrongGeneration(put.generation, contents.generation)
        now_ms, session = contents.log_time_ms, None
        if put.session != NO_SESSION:
            admitted = contents.sessions.admit(put.session, put.seq, put.lowest_unanswered, now_ms)
            if not isinstance(admitted, Session):
                return admitted
            session = admitted
        version = contents.revision + 1
        assert version <= REVISION_MAX, "the partition has no revisions left"
        contents.revision = version
        contents.write(put.key, put.value, version, expiry(now_ms, put.ttl_ms))
        answer = Written((Changed(version),))
        if session is not None:
            contents.sessions.keep(session, put.seq, answer)
        return answer

    def _carry_out(self, write: Write) -> WriteAnswer:
        """All operations, or none."""
        contents = self._contents
        keyspace, now_ms, revision = write.keyspace, contents.log_time_ms, contents.revision
        if write.conditions and (failures := self._unmet(write)):
            return NotWritten(failures)
        # A later operation sees the earlier ones here; the records do, when all have succeeded.
        changes: dict[bytes, Record | None] = {}
        results: list[Result] = []
        for index, operation in enumerate(write.operations, len(write.conditions)):
            key = stored_key(keyspace, operation.key)
            seen = changes[key] if key in changes else contents.get(key)
            outcome, is_change, record = perform(operation, index, seen, revision + 1, now_ms)
            if isinstance(outcome, FAILURES):
                return NotWritten((outcome,))
            if is_change:
                revision += 1
                changes[key] = record
            results.append(outcome)
        assert revision <= REVISION_MAX, "the partition has no revisions left"
        contents.revision = revision
        for key, record in changes.items():
            contents.replace(key, record)
        return Written(tuple(results))

    def _unmet(self, write: Write) -> tuple[Failure, ...]:
        """The conditions that do not hold."""
        failures = (
            mismatch(index, each.version, self._contents.get(stored_key(write.keyspace, each.key)))
            for index, each in enumerate(write.conditions)
        )
        return tuple([failure for failure in failures if failure])

    def _open(self, command: OpenSession) -> Answer:
        contents = self._contents
        if command.generation != contents.generation:
            return WrongGeneration(command.generation, contents.generation)
        index = contents.applied_index
        refused = contents.sessions.open(index, command.idle_ms, contents.log_time_ms)
        return refused or SessionOpened(index)

    def _close(self, command: CloseSession) -> Answer:
        contents = self._contents
        if command.generation != contents.generation:
            return WrongGeneration(command.generation, contents.generation)
        refused = contents.sessions.close(command.session, contents.log_time_ms)
        return refused or SessionClosed()

    def _expire(self, command: Expire) -> Answer:
        contents, limit = self._contents, command.limit
        # Never beyond log time: what still counts as there is not removed.
        until_ms = min(command.until_ms, contents.log_time_ms)
        all_sessions = contents.sessions.due(until_ms)
        sessions = all_sessions[:limit]
        contents.sessions.remove(sessions)
        left = limit - len(sessions)
        # One more than there is room for, to see whether more is left.
        keys = contents.due(until_ms, left + 1)
        for key in keys[:left]:
            contents.remove(key)
        removed = len(keys[:left])
        contents.revision += removed
        assert contents.revision <= REVISION_MAX, "the partition has no revisions left"
        is_more = len(all_sessions) > len(sessions) or len(keys) > removed
        return Expired(len(sessions), removed, is_more)

    def _advance(self, command: Advance) -> Answer:
        return Advanced(self._contents.log_time_ms)

    def _set_generation(self, command: SetGeneration) -> Answer:
        contents = self._contents
        if command.generation != contents.generation:
            return WrongGeneration(command.generation, contents.generation)
        contents.generation = command.following
        return GenerationSet(command.following)

    # -- reading ------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Of the partition's membership."""
        return self._contents.generation

    @property
    def revision(self) -> int:
        """The version of the last change."""
        return self._contents.revision

    @property
    def applied_index(self) -> int:
        """The index of the last entry that was applied."""
        return self._contents.applied_index

    @property
    def log_time_ms(self) -> int:
        """The highest stamp that was applied."""
        return self._contents.log_time_ms

    @property
    def key_count(self) -> int:
        """How many keys there are; those that are due count until they are removed."""
        return self._contents.key_count

    @property
    def data_bytes(self) -> int:
        """Keys and values, added up."""
        return self._contents.data_bytes

    @property
    def session_count(self) -> int:
        """How many sessions there are; those that are due count until they are removed."""
        return len(self._contents.sessions)

    def next_due_ms(self) -> int | None:
        """The log time from which on an `Expire` would find something; ``None``: there is nothing.

        It walks through all sessions: for the leader, now and then.
        """
        return self._contents.next_due_ms()

    def get(self, key: bytes, keyspace: int = 0) -> Record | None:
        """The record of *key*, or ``None``."""
        return self._contents.get(stored_key(keyspace, key))

    def scan(
        self, start: bytes = b"", end: bytes | None = None, limit: int = 1000, keyspace: int = 0
    ) -> Page:
        """The records from key *start* on, before key *end*, at most *limit* (at least 1)."""
        assert limit >= 1, limit
        contents = self._contents
        last = _after(keyspace) if end is None else stored_key(keyspace, end)
        records: list[tuple[bytes, Record]] = []
        due = 0
        for stored, record in contents.items(stored_key(keyspace, start), last):
            key = stored[KEYSPACE_BYTES:]
            if len(records) == limit or due == SCAN_DUE_MAX:
                return Page(records, key)
            if record.is_due(contents.log_time_ms):
                due += 1
            else:
                records.append((key, record))
        return Page(records, None)

    def snapshot(self) -> Snapshot:
        """All of it, as it is now, to be sent or stored while entries go on being applied."""
        return Snapshot(self._contents.freeze())

    def digest(self) -> bytes:
        """A hash of all of it: equal on replicas that have applied the same entries."""
        return self.snapshot().digest()


_APPLY: Mapping[type[Command], Callable[[StateMachine, Any], Answer]] = {
    Write: StateMachine._write,
    OpenSession: StateMachine._open,
    CloseSession: StateMachine._close,
    Expire: StateMachine._expire,
    Advance: StateMachine._advance,
    SetGeneration: StateMachine._set_generation,
}


def _after(keyspace: int) -> bytes | None:
    """The first stored key after a keyspace, if there can be one."""
    following = keyspace + 1
    return stored_key(following, b"") if following < 1 << 8 * KEYSPACE_BYTES else None
