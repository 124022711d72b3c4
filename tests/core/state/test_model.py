"""The state machine beside the model: any entries, in any order, as often as one likes.

Three machines take the same entries: one all of them, one is replaced by what comes out of its
snapshot now and then, and the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state import ordered, sessions
from kvtwist.core.state.answers import (
    Answer,
    BelowMark,
    BeyondWindow,
    NotWritten,
    SessionOpened,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    Written,
    WrongGeneration,
    decode_answer,
    encode_answer,
)
from kvtwist.core.state.commands import (
    Advance,
    CloseSession,
    Command,
    Condition,
    Expire,
    OpenSession,
    SetGeneration,
    Write,
)
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Delete, Get, Increment, Operation, Put
from kvtwist.core.state.records import Record
from tests.core.state.machines import GENERATION, new
from tests.core.state.model import Model

FIRST_REVISION = 3
ANSWERS_MAX, SESSIONS_MAX, KEPT_MAX = 3, 4, 5
KEYS = [b"", b"a", b"a\0", b"b", b"\xff"]

keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"1", b"-7", b"07", b"x", b"%d" % (2**63 - 1)])
# How far from the version that the key has then (`Replicas.near`); mostly it is that one.
versions = st.sampled_from([0, 0, 0, 1, -1])
times_ms = st.integers(0, 12)
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, keys, values, st.sampled_from([0, 0, 1, 5, 20]), st.none() | versions),
    st.builds(Delete, keys, st.none() | versions),
    st.builds(Increment, keys, st.sampled_from([1, -1, 2**63 - 1])),
    st.builds(Get, keys),
)
batches = st.lists(operations, min_size=1, max_size=4).map(tuple)
conditions = st.lists(st.builds(Condition, keys, versions), max_size=3).map(tuple)
keyspaces = st.sampled_from([0, 0, 0, 1])


Part = TypeVar("Part", Operation, Condition)


class Replicas(RuleBasedStateMachine):
    """Entries for all three.

    :cvar met: what the answers were, of all runs (X1).
    """

    met: ClassVar[Counter[type[Answer]]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.steady = new(FIRST_REVISION)
        self.reborn = new(FIRST_REVISION)
        self.model = Model(GENERATION, FIRST_REVISION, ANSWERS_MAX, SESSIONS_MAX, KEPT_MAX)
        self.opened: list[int] = []
        self.seqs: Counter[int] = Counter()
        self.sent: list[Write] = []
        self.open(idle_ms=500, after_ms=0)

    def feed(self, command: Command) -> Answer:
        """One entry, to all three: the same answer, and again as bytes."""
        expected = self.model.apply(command)
        for machine in (self.steady, self.reborn):
            answer = machine.feed(command)
            assert answer == expected, (command, answer, expected)
            assert decode_answer(encode_answer(answer)) == answer
        self.met[type(expected)] += 1
        return expected

    def stamp(self, after_ms: int) -> int:
        """Mostly later than the latest, sometimes a leader that is behind."""
        return max(0, self.model.now + after_ms - 2)

    def near(self, part: Part, keyspace: int = 0) -> Part:
        """The same, with a version that is the key's, or near it."""
        distance = getattr(part, "version", None)
        if distance is None:
            return part
        record = self.model.see(keyspace, part.key)
        version = max(0, (record.version if record else 0) + distance)
        return replace(part, version=version)

    @rule(batch=batches, given=conditions, keyspace=keyspaces, after_ms=times_ms)
    def write(
        self,
        batch: tuple[Operation, ...],
        given: tuple[Condition, ...],
        keyspace: int,
        after_ms: int,
    ) -> None:
        self.feed(
            Write(
                self.stamp(after_ms),
                self.model.generation,
                0,
                0,
                0,
                tuple(self.near(each, keyspace) for each in batch),
                tuple(self.near(each, keyspace) for each in given),
                keyspace,
            )
        )

    @rule(idle_ms=st.sampled_from([1, 20, 500, 500]), after_ms=times_ms)
    def open(self, idle_ms: int, after_ms: int) -> None:
        answer = self.feed(OpenSession(self.stamp(after_ms), self.model.generation, idle_ms))
        if isinstance(answer, SessionOpened):
            self.opened.append(answer.session)

    @rule(
        which=st.integers(0, 9),
        unanswered=st.integers(0, 4),
        batch=batches,
        given=conditions,
        after_ms=st.integers(0, 4),
    )
    def next_in_session(
        self,
        which: int,
        unanswered: int,
        batch: tuple[Operation, ...],
        given: tuple[Condition, ...],
        after_ms: int,
    ) -> None:
        """The client's next write; the last few before it are unanswered."""
        session = self.opened[-1 - which % min(3, len(self.opened))]
        self.seqs[session] += 1
        seq = self.seqs[session]
        lowest = max(0, seq - unanswered)
        write = Write(
            self.stamp(after_ms),
            self.model.generation,
            session,
            seq,
            lowest,
            tuple(map(self.near, batch)),
            tuple(map(self.near, given)),
        )
        self.sent.append(write)
        self.feed(write)

    @rule(batch=batches)
    def burst(self, batch: tuple[Operation, ...]) -> None:
        """All clients write, and none has been answered."""
        for session in list(self.model.sessions):
            self.seqs[session] += 1
            seq, mark = self.seqs[session], self.model.sessions[session].mark
            batch = tuple(map(self.near, batch))
            write = Write(self.model.now, self.model.generation, session, seq, mark, batch)
            self.sent.append(write)
            self.feed(write)

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 1000), is_recent=st.booleans(), is_routed_anew=st.booleans())
    def again(self, which: int, is_recent: bool, is_routed_anew: bool) -> None:
        """C2: a retry, or a copy that was under way for long. It never changes a record, if the
        first one was applied: whatever was sent is applied once at most."""
        write = self.sent[-1 - which % (min(4, len(self.sent)) if is_recent else len(self.sent))]
        if is_routed_anew:
            write = replace(write, generation=self.model.generation)
        was_applied = (write.session, write.seq) in self.model.applied
        before = self.model.revision, self.contents(self.steady)
        answer = self.feed(write)
        if was_applied:
            assert (self.steady.revision, self.contents(self.steady)) == before
            assert not isinstance(answer, BeyondWindow), answer

    @rule(which=st.integers(0, 9), lowest=st.integers(0, 6), seq=st.integers(0, 9))
    def wild(self, which: int, lowest: int, seq: int) -> None:
        """A client that makes no sense of its numbers harms nobody but itself."""
        session = self.opened[which % len(self.opened)]
        put = Put(b"wild", b"%d" % seq)
        write = Write(self.model.now, self.model.generation, session, seq, lowest, (put,))
        self.sent.append(write)
        self.feed(write)

    @rule(session=st.sampled_from([2**64 - 1, 10_000]))
    def never_opened(self, session: int) -> None:
        """C6."""
        put = Put(b"a", b"never")
        self.feed(Write(self.model.now, self.model.generation, session, 1, 1, (put,)))

    @rule(which=st.integers(0, 9))
    def close(self, which: int) -> None:
        session = self.opened[which % len(self.opened)]
        self.feed(CloseSession(self.model.now, self.model.generation, session))

    @rule(after_ms=times_ms)
    def advance(self, after_ms: int) -> None:
        self.feed(Advance(self.stamp(after_ms)))

    @rule(after_ms=times_ms, until_ms=times_ms, limit=st.integers(0, 3))
    def expire(self, after_ms: int, until_ms: int, limit: int) -> None:
        self.feed(Expire(self.stamp(after_ms), self.stamp(until_ms), limit))

    @rule(ahead=st.integers(1, 2), is_old=st.booleans())
    def set_generation(self, ahead: int, is_old: bool) -> None:
        generation = self.model.generation
        self.feed(SetGeneration(self.model.now, generation - is_old, generation + ahead))

    @rule()
    def skip(self) -> None:
        for machine in (self.steady, self.reborn):
            machine.skip(machine.applied_index + 1)
        self.model.index += 1

    @rule(chunk_bytes=st.sampled_from([1, 50, 10_000]))
    def be_reborn(self, chunk_bytes: int) -> None:
        """R13: one of the replicas gets a snapshot, and goes on from it."""
        self.reborn = self.reborn.reborn(chunk_bytes)

    @rule(limit=st.integers(1, 4), start=keys, end=st.none() | keys, keyspace=keyspaces)
    def scan(self, limit: int, start: bytes, end: bytes | None, keyspace: int) -> None:
        expected = [
            key
            for space, key in sorted(self.model.records)
            if space == keyspace
            and start <= key
            and (end is None or key < end)
            and self.model.see(space, key)
        ]
        found: list[bytes] = []
        following: bytes | None = start
        while following is not None:
            page = self.steady.scan(following, end, limit, keyspace)
            assert len(page.records) <= limit
            found += [key for key, _ in page.records]
            following = page.following
        assert found == expected, (found, expected)

    def contents(self, machine: StateMachine) -> list[tuple[bytes, Record]]:
        """All there is to see, of both keyspaces."""
        return [*machine.scan().records, *machine.scan(keyspace=1).records]

    @invariant()
    def replicas_are_equal(self) -> None:
        """R17, to the byte."""
        assert self.steady.digest() == self.reborn.digest()

    @invariant()
    def machine_is_like_model(self) -> None:
        for machine in (self.steady, self.reborn):
            assert machine.revision == self.model.revision
            assert machine.applied_index == self.model.index
            assert machine.log_time_ms == self.model.now
            assert machine.generation == self.model.generation
            assert machine.key_count == len(self.model.records)
            assert machine.session_count == len(self.model.sessions)
            assert machine.data_bytes == sum(
                4 + len(key) + len(record.value) for (_, key), record in self.model.records.items()
            )
            for keyspace in (0, 1):
                for key in [*KEYS, b"wild"]:
                    assert as_record(self.model, keyspace, key) == machine.get(key, keyspace)
        due = [record.expires for record in self.model.records.values() if record.expires]
        due += [session.used + session.idle for session in self.model.sessions.values()]
        assert self.steady.next_due_ms() == min(due, default=None)

    @invariant()
    def applied_once(self) -> None:
        """C2, of the model: else the machine would be compared with something wrong."""
        assert len(set(self.model.applied)) == len(self.model.applied)

    @invariant()
    def answers_are_bounded(self) -> None:
        for session in self.steady._contents.sessions._sessions.values():
            assert len(session.answers) <= ANSWERS_MAX
            assert all(session.mark <= seq < session.mark + ANSWERS_MAX for seq in session.answers)


def as_record(model: Model, keyspace: int, key: bytes) -> Record | None:
    """The model's record, as the machine gives it."""
    record = model.see(keyspace, key)
    if record is None:
        return None
    return Record(record.value, record.version, record.created, record.expires or 0)


class ModelTests(SynchronousTestCase):
    """With bounds so small that they are met (X3)."""

    def test_beside_model(self) -> None:
        """Whatever is committed, in whatever order, the machine does what was promised, the same
        on every replica, and a write that is sent twice is applied once (C2, C6, R13, R17)."""
        self.patch(sessions, "ANSWERS_MAX", ANSWERS_MAX)
        self.patch(sessions, "SESSIONS_MAX", SESSIONS_MAX)
        self.patch(sessions, "KEPT_MAX", KEPT_MAX)
        self.patch(ordered, "LEAF_KEYS_MAX", 2)
        self.patch(ordered, "LEAF_KEYS_MIN", 1)
        Replicas.met.clear()
        run_state_machine_as_test(
            Replicas, settings=settings(deadline=None, max_examples=150, stateful_step_count=40)
        )
        for answer in (
            Written,
            NotWritten,
            BelowMark,
            BeyondWindow,
            UnknownSession,
            WrongGeneration,
            TooManyAnswers,
            TooManySessions,
        ):
            self.assertGreater(Replicas.met[answer], 0, f"{answer.__name__} was not met (X1)")
