"""State machines of partitions in a node's store.

Everything that applied entries have changed is put into one batch with the index of the last of
them: so the store always shows the state at some entry, and after a crash the log is applied again
from there. Such a batch need not be synced: what it says is in the log as well, and the log is.

A group's data stands in a *generation*. A snapshot fills another one, and one small batch then
makes that the group's own (R13).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kvtwist.core.state.answers import (
    NotWritten,
    WriteAnswer,
    Written,
    decode_answer,
    encode_answer,
)
from kvtwist.core.state.commands import CloseSession, Command, Expire, LonePut, OpenSession
from kvtwist.core.state.commands import Write as WriteCommand
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.records import Record
from kvtwist.core.state.sessions import Session, Sessions
from kvtwist.errors import StoreDamaged
from kvtwist.storage.engine import Batch, View
from kvtwist.storage.frames import opened, sealed
from kvtwist.storage.layout import (
    ANSWER,
    BASE,
    ENTRY,
    GENERATION_BYTES,
    HARD,
    PER_GENERATION,
    SESSION,
    STATE,
    generation_prefix,
    generation_range,
    group_key,
    group_of,
)
from kvtwist.storage.recent import GROUP_BYTES_MAX
from kvtwist.storage.records import Cached, StoredDue, StoredRecords, Write

_VERSION = 1
_STATE: Final = struct.Struct(">B7Q")
_SESSION: Final = struct.Struct(">BQQQ")
FIRST_GENERATION = 1


class Header(NamedTuple):
    """What of a group's state does not stand under keys of its own.

    :ivar generation: that the data stands in.
    :ivar partition_generation: of the partition's membership; this and what follows are as in
        `Contents`.
    """

    generation: int
    partition_generation: int
    revision: int
    applied_index: int
    log_time_ms: int
    data_bytes: int
    key_count: int


class StoredState:
    """A group's state machine, and what of it is not in the store yet.

    :ivar machine: entries are carried out on it; then `note` them here.
    :ivar records: where its records are; see there for what has to be fetched first.
    :ivar generation: that the data stands in.
    """

    def __init__(
        self,
        group: int,
        generation: int,
        contents: Contents,
        records: StoredRecords,
        write: Write,
    ) -> None:
        self.machine = StateMachine(contents)
        self.records = records
        self.generation = generation
        self._group = group
        self._contents = contents
        self._write = write
        self._touched: dict[int, set[int]] = {}
        self._saved = {session.id: set(session.answers) for session in contents.sessions.freeze()}
        self._is_expired = False

    def note(self, index: int, command: Command | LonePut) -> None:
        """The entry at *index*, which says *command*, was carried out."""
        if isinstance(command, LonePut) and not command.session:
            return  # nearly all are
        match command:
            case LonePut() | WriteCommand() if command.session:
                self._touched.setdefault(command.session, set()).add(command.seq)
            case OpenSession():
                self._touched.setdefault(index, set())
            case CloseSession():
                self._touched.setdefault(command.session, set())
            case Expire():
                self._is_expired = True

    def read(self, key: bytes) -> Record | None:
        """What is under a stored key, which is not missing, at the log time."""
        return self._contents.get(key)

    def take_batch(self) -> tuple[Batch, int]:
        """All changes since the last time, and a number for `committed`."""
        self._save_sessions()
        self._save_state()
        number = self.records.taken()
        return self._write.take(), number

    def committed(self, number: int) -> None:
        """The batches up to *number* are in the engine."""
        self.records.committed(number)

    def _save_state(self) -> None:
        contents = self._contents
        header = Header(
            self.generation,
            contents.generation,
            contents.revision,
            contents.applied_index,
            contents.log_time_ms,
            contents.data_bytes,
            contents.key_count,
        )
        save_header(self._write.batch, self._group, header)

    # -- sessions -----------------------------------------------------------------------------

    def _save_sessions(self) -> None:
        sessions = self._contents.sessions
        touched, self._touched = self._touched, {}
        if self._is_expired:
            self._is_expired = False
            for id in self._saved.keys() - set(sessions.ids()):
                touched.setdefault(id, set())
        for id, seqs in touched.items():
            session = sessions.find(id)
            if session is None:
                self._forget(id)
            else:
                self._save(session, seqs)

    def _forget(self, id: int) -> None:
        saved = self._saved.pop(id, None)
        if saved is not None:
            self._write.batch.delete(self._session_key(id))
            answers = answers_prefix(self._group, self.generation, id)
            for seq in saved:
                self._write.batch.delete(answers + seq.to_bytes(8, "big"))

    def _save(self, session: Session, seqs: set[int]) -> None:
        batch, saved = self._write.batch, self._saved.setdefault(session.id, set())
        answers = answers_prefix(self._group, self.generation, session.id)
        _put_session(batch, self._session_key(session.id), session)
        for seq in [seq for seq in saved if seq < session.mark]:
            saved.discard(seq)
            batch.delete(answers + seq.to_bytes(8, "big"))
        for seq in sorted(seqs):
            answer = session.answers.get(seq)
            if answer is not None and seq not in saved:
                saved.add(seq)
                _put_answer(batch, answers + seq.to_bytes(8, "big"), answer)

    def _session_key(self, id: int) -> bytes:
        return session_key(self._group, self.generation, id)


def new_state(
    group: int,
    view: View,
    cached: Cached,
    partition_generation: int,
    revision: int,
    recent_bytes_max: int = GROUP_BYTES_MAX,
) -> StoredState:
    """The state of a group that has none yet."""
    write = Write()
    records = StoredRecords(write, cached, view, group, FIRST_GENERATION, 0, recent_bytes_max)
    due = StoredDue(write, view, group, FIRST_GENERATION)
    contents = Contents(partition_generation, revision, records, due)
    return StoredState(group, FIRST_GENERATION, contents, records, write)


def load_state(
    group: int, view: View, cached: Cached, recent_bytes_max: int = GROUP_BYTES_MAX
) -> StoredState | None:
    """The state of a group as the store has it; ``None``: it has none.

    :param recent_bytes_max: how much of its records is kept in memory.
    :raises StoreDamaged: when it cannot be read as what was written.
    """
    header = load_header(group, view)
    if header is None:
        return None
    write, generation = Write(), header.generation
    count = header.key_count
    records = StoredRecords(write, cached, view, group, generation, count, recent_bytes_max)
    due = StoredDue(write, view, group, generation)
    contents = Contents(header.partition_generation, header.revision, records, due)
    contents.applied_index = header.applied_index
    contents.log_time_ms = header.log_time_ms
    contents.data_bytes = header.data_bytes
    contents.sessions = Sessions(load_sessions(view, group, generation))
    return StoredState(group, generation, contents, records, write)


def load_header(group: int, view: View) -> Header | None:
    """The group's own record; ``None``: it has no state here.

    :raises StoreDamaged: when it cannot be read as what was written.
    """
    key = group_key(STATE, group)
    frame = view.get(key)
    return None if frame is None else read_header(key, frame)


def read_header(key: bytes, frame: bytes) -> Header:
    """A group's own record, likewise."""
    payload = opened(key, frame)
    if len(payload) != _STATE.size or payload[0] != _VERSION:
        raise StoreDamaged(f"the state of group {group_of(key)} is cut off, or of a later format")
    return Header._make(_STATE.unpack(payload)[1:])


def save_header(batch: Batch, group: int, header: Header) -> None:
    """Put a group's own record into *batch*."""
    key = group_key(STATE, group)
    batch.put(key, sealed(key, _STATE.pack(_VERSION, *header)))


def save_sessions(group: int, generation: int, sessions: Iterable[Session]) -> Iterator[Batch]:
    """One batch for each of *sessions*, with its answers."""
    for session in sessions:
        batch = Batch()
        answers = answers_prefix(group, generation, session.id)
        _put_session(batch, session_key(group, generation, session.id), session)
        for seq, answer in session.answers.items():
            _put_answer(batch, answers + seq.to_bytes(8, "big"), answer)
        yield batch


def remove_generation(batch: Batch, group: int, generation: int) -> None:
    """Put into *batch* that the data of a generation goes."""
    for kind in PER_GENERATION:
        batch.delete_range(*generation_range(kind, group, generation))


def remove_group(batch: Batch, group: int) -> None:
    """Put into *batch* that all there is of a group goes, its log too."""
    for kind in (HARD, BASE, STATE):
        batch.delete(group_key(kind, group))
    for kind in (ENTRY, *PER_GENERATION):
        batch.delete_range(group_key(kind, group), group_key(kind, group + 1))


def session_key(group: int, generation: int, id: int) -> bytes:
    """Where a session stands."""
    return generation_prefix(SESSION, group, generation) + id.to_bytes(8, "big")


def answers_prefix(group: int, generation: int, id: int) -> bytes:
    """Where the answers stand that a session keeps: the seq of each follows, in eight bytes."""
    return generation_prefix(ANSWER, group, generation) + id.to_bytes(8, "big")


def _put_session(batch: Batch, key: bytes, session: Session) -> None:
    head = _SESSION.pack(_VERSION, session.idle_ms, session.expires_at_ms, session.mark)
    batch.put(key, sealed(key, head))


def _put_answer(batch: Batch, key: bytes, answer: WriteAnswer) -> None:
    batch.put(key, sealed(key, encode_answer(answer)))


def load_sessions(view: View, group: int, generation: int) -> Iterator[Session]:
    """The sessions of a generation, by id.

    :raises StoreDamaged: when they cannot be read as what was written.
    """
    found: dict[int, Session] = {}
    for key, frame in view.scan(*generation_range(SESSION, group, generation)):
        session = read_session(key, frame)
        found[session.id] = session
    for key, frame in view.scan(*generation_range(ANSWER, group, generation)):
        id, seq, answer = read_answer(key, frame)
        owner = found.get(id)
        if owner is None:
            raise StoreDamaged("an answer of a session that is not there")
        owner.answers[seq] = answer
    return iter(found.values())


def read_session(key: bytes, frame: bytes) -> Session:
    """A session, without its answers.

    :raises StoreDamaged: when it cannot be read as what was written.
    """
    payload = opened(key, frame)
    if len(payload) != _SESSION.size or payload[0] != _VERSION:
        raise StoreDamaged("a session is cut off, or of a later format")
    _, idle_ms, expires_at_ms, mark = _SESSION.unpack(payload)
    return Session(int.from_bytes(key[GENERATION_BYTES:], "big"), idle_ms, expires_at_ms, mark)


def read_answer(key: bytes, frame: bytes) -> tuple[int, int, WriteAnswer]:
    """A session's id, a seq, and the answer to it that the session keeps.

    :raises StoreDamaged: when it cannot be read as what was written.
    """
    payload, rest = opened(key, frame), key[GENERATION_BYTES:]
    try:
        answer = decode_answer(payload)
    except (MalformedBytes, UnknownKind) as error:
        raise StoreDamaged(f"an answer that a session keeps: {error}") from error
    if not isinstance(answer, Written | NotWritten):
        raise StoreDamaged(f"{answer} is no answer that a session keeps")
    return int.from_bytes(rest[:8], "big"), int.from_bytes(rest[8:], "big"), answer
