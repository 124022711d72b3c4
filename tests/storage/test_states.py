"""State machines in a store: what a node has after a crash is what the log says it is."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.commands import (
    Advance,
    CloseSession,
    Command,
    Condition,
    Expire,
    OpenSession,
    Write,
    decode_entry,
    encode,
)
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Delete, Increment, Operation, Put
from kvtwist.errors import StoreDamaged
from kvtwist.storage.engine import NOT_CACHED, Batch, NotCached
from kvtwist.storage.layout import ANSWER, RECORD, STATE, generation_range, group_key
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.recent import GROUP_BYTES_MAX, OVERHEAD_BYTES, RECORD_BYTES_MAX
from kvtwist.storage.states import StoredState, load_state, new_state, remove_generation
from tests.wire.properties import examples

GROUP = 5
KEYS = [b"a", b"b", b"c", b"d"]

_operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Put, st.sampled_from(KEYS), st.binary(max_size=3), st.sampled_from([0, 0, 5, 50])),
    st.builds(Delete, st.sampled_from(KEYS)),
    st.builds(Increment, st.sampled_from(KEYS), st.integers(-5, 5)),
    st.builds(Put, st.sampled_from(KEYS), st.just(b"cas"), st.just(0), st.integers(0, 9)),
)
_stamps = st.integers(0, 200)


def _write(stamp: int, session: int, seq: int, low: int, operations: list[Operation]) -> Write:
    return Write(stamp, 1, session, seq, low, tuple(operations))


_writes: st.SearchStrategy[Command] = st.builds(
    _write,
    _stamps,
    st.sampled_from([0, 0, 0, 1, 1, 2, 9]),
    st.integers(0, 5),
    st.integers(0, 3),
    st.lists(_operations, min_size=1, max_size=3),
)
_commands: st.SearchStrategy[Command] = st.one_of(
    _writes,
    _writes,
    _writes,
    _writes,
    st.builds(OpenSession, _stamps, st.just(1), st.sampled_from([10, 1000])),
    st.builds(CloseSession, _stamps, st.just(1), st.integers(1, 4)),
    st.builds(Expire, _stamps, _stamps, st.integers(1, 3)),
    st.builds(Advance, _stamps),
)

commands_of: st.SearchStrategy[list[Command]] = st.lists(_commands, min_size=8, max_size=25).map(
    lambda commands: [OpenSession(0, 1, 1000), OpenSession(0, 1, 20), *commands]
)
"""Rows of commands, at the front of which are two sessions for them."""


class Node:
    """A store and a state machine in it, driven as a node drives them.

    :param forgetful: whether the engine's memory has a key; else it has to be fetched.
    :param recent_bytes_max: of records that are kept in memory before the engine is asked.
    """

    def __init__(
        self, forgetful: Callable[[], bool], recent_bytes_max: int = GROUP_BYTES_MAX
    ) -> None:
        self.engine = MemoryEngine()
        self.forgetful = forgetful
        self.under_way: list[tuple[Batch, int]] = []
        self.fetched = 0
        self.recent_bytes_max = recent_bytes_max
        self.state = new_state(GROUP, self.engine, self.cached, 1, 0, recent_bytes_max)

    def cached(self, key: bytes) -> bytes | NotCached | None:
        return NOT_CACHED if self.forgetful() else self.engine.get_cached(key)

    def carry_out(self, index: int, command: Command, is_last: bool = True) -> object:
        """Carry *command* out.

        :param is_last: nothing is left to be carried out then, for now.
        """
        state, entry = self.state, decode_entry(encode(command))
        needed = state.machine.needs(entry)
        while missing := state.records.missing(needed):
            self.fetched += len(missing)
            state.records.have_fetched(state.records.fetch(self.engine, missing))
        answer = state.machine.carry_out(index, entry)
        state.note(index, entry)
        if is_last:
            state.records.forget_fetched()
        return answer

    def take(self) -> None:
        """Hand a batch to the disk."""
        self.under_way.append(self.state.take_batch())

    def commit(self) -> None:
        """The disk has done the first of them."""
        if self.under_way:
            batch, number = self.under_way.pop(0)
            self.engine.commit(batch, sync=False)
            self.state.committed(number)

    def restart(self) -> int:
        """Lose what is not committed; how far the state has got."""
        self.under_way.clear()
        bytes_max = self.recent_bytes_max
        self.state = load_state(GROUP, self.engine, self.cached, bytes_max) or new_state(
            GROUP, self.engine, self.cached, 1, 0, bytes_max
        )
        return self.state.machine.applied_index

    def close(self) -> None:
        """Hand over everything, and wait."""
        self.take()
        while self.under_way:
            self.commit()


def apply_all(commands: list[Command]) -> StateMachine:
    """What the commands make, in memory."""
    machine = StateMachine(Contents(1))
    for index, command in enumerate(commands, start=1):
        machine.apply(index, encode(command))
    return machine


def small(*commands: Command) -> Node:
    """A node that has carried these out, and written each at once."""
    node = Node(lambda: False)
    for index, command in enumerate(commands, start=1):
        node.carry_out(index, command)
        node.close()
    return node


def put(key: bytes, value: bytes, ttl_ms: int = 0) -> Write:
    return Write(0, 1, 0, 0, 0, (Put(key, value, ttl_ms),))


class StoredStateTests(SynchronousTestCase):
    @examples(100)
    @given(
        st.lists(_commands, min_size=10, max_size=30),
        st.randoms(use_true_random=False),
        st.sampled_from([0, 4 * OVERHEAD_BYTES, GROUP_BYTES_MAX]),
    )
    def test_it_is_the_machine_in_memory(
        self, commands: list[Command], chance: random.Random, recent_bytes_max: int
    ) -> None:
        """Whatever has to be fetched, however late the disk is, whenever the node crashes: the
        same answers, and the same state to the byte."""
        commands = [OpenSession(0, 1, 1000), OpenSession(0, 1, 20), *commands]
        expected = StateMachine(Contents(1))
        answers = [
            expected.apply(index, encode(command)) for index, command in enumerate(commands, 1)
        ]
        node = Node(lambda: chance.random() < 0.5, recent_bytes_max)
        index = 0
        while index < len(commands):
            is_last = chance.random() < 0.5
            answer = node.carry_out(index + 1, commands[index], is_last)
            self.assertEqual(answer, answers[index])
            index += 1
            if chance.random() < 0.5:
                node.take()
            if chance.random() < 0.4:
                node.commit()
            if chance.random() < 0.05:
                index = node.restart()
        node.close()
        self.assertEqual(node.state.machine.digest(), expected.digest())
        self.assertEqual(node.restart(), len(commands))
        self.assertEqual(node.state.machine.digest(), expected.digest())
        self.assertEqual(node.state.machine.data_bytes, expected.data_bytes)
        self.assertEqual(node.state.machine.key_count, expected.key_count)
        self.assertEqual(node.state.machine.next_due_ms(), expected.next_due_ms())

    def test_what_is_not_in_memory_is_fetched(self) -> None:
        """A partition may be larger than the node's memory."""
        node = Node(lambda: True, recent_bytes_max=0)
        node.carry_out(1, put(b"a", b"1"))
        node.close()
        node.carry_out(2, Write(0, 1, 0, 0, 0, (Increment(b"a", 1),), (Condition(b"b", 0),)))
        self.assertEqual(node.fetched, 3)

    def test_what_is_under_way_is_not_fetched(self) -> None:
        """The engine still has what was there before: a lost update."""
        node = Node(lambda: True, recent_bytes_max=0)
        node.carry_out(1, put(b"a", b"1"))
        node.take()
        node.carry_out(2, Write(0, 1, 0, 0, 0, (Increment(b"a", 1),)))
        node.take()
        node.commit()
        node.carry_out(3, Write(0, 1, 0, 0, 0, (Increment(b"a", 1),)))
        self.assertEqual(node.state.machine.get(b"a").value, b"3")  # type: ignore[union-attr]
        self.assertEqual(node.fetched, 1)

    def test_what_was_fetched_is_forgotten_when_it_is_changed(self) -> None:
        """While more is waited for, a record may be fetched, changed and committed: what was
        fetched is out of date then, and whoever is shown it reads what was overwritten."""
        node = Node(lambda: True, recent_bytes_max=0)
        node.carry_out(1, put(b"a", b"1"))
        node.close()
        node.carry_out(2, Write(0, 1, 0, 0, 0, (Increment(b"a", 1),)), is_last=False)
        node.close()
        node.carry_out(3, Write(0, 1, 0, 0, 0, (Increment(b"a", 1),)))
        self.assertEqual(node.state.machine.get(b"a").value, b"3")  # type: ignore[union-attr]

    def test_a_group_that_is_not_there(self) -> None:
        """It has no state; an empty one would be another thing."""
        self.assertIsNone(load_state(GROUP, MemoryEngine(), lambda _: None))

    def test_kept_answers_go_with_the_mark(self) -> None:
        """Else a long session would fill the disk."""
        writes = [Write(0, 1, 1, seq, seq, (Put(b"a", b"v"),)) for seq in range(50)]
        node = small(OpenSession(0, 1, 1000), *writes)
        self.assertEqual(len(list(node.engine.scan(*generation_range(ANSWER, GROUP, 1)))), 1)
        gone = small(OpenSession(0, 1, 1000), *writes, CloseSession(0, 1, 1))
        self.assertEqual(len(list(gone.engine.scan(*generation_range(ANSWER, GROUP, 1)))), 0)

    def test_a_generation_is_removed_whole(self) -> None:
        """What a snapshot has replaced gives its room back."""
        node = small(OpenSession(0, 1, 9), Write(0, 1, 1, 0, 0, (Put(b"a", b"v", 5),)))
        batch = Batch()
        remove_generation(batch, GROUP, 1)
        node.engine.commit(batch, sync=False)
        left = [key for key, _ in node.engine.scan(b"", b"\xff")]
        self.assertEqual(left, [group_key(STATE, GROUP)])


class RecentTests(SynchronousTestCase):
    """What was changed or looked at is kept in memory: that must never show what is not there."""

    def setUp(self) -> None:
        self.node = Node(lambda: False)
        self.index = 0

    def apply(self, *commands: Command) -> None:
        """Carry them out, and write what they have changed."""
        for command in commands:
            self.index += 1
            self.node.carry_out(self.index, command)
        self.node.close()

    def read(self, key: bytes) -> tuple[bytes, int, int] | None:
        """Value, version and created, as a reader is shown them."""
        stored_key, records = bytes(4) + key, self.node.state.records
        self.assertEqual(records.missing([stored_key]), [])
        found = self.node.state.read(stored_key)
        records.forget_fetched()
        return None if found is None else (found.value, found.version, found.created)

    def test_it_is_asked_before_the_engine(self) -> None:
        """Each write needs the record before it, and an engine is slow to find it."""
        asked: list[bytes] = []
        self.node.engine.get_cached = asked.append  # type: ignore[assignment, method-assign]
        self.apply(put(b"a", b"1"), put(b"a", b"2"))
        self.read(b"a")
        self.read(b"b")
        self.read(b"b")
        self.assertEqual([key[-1:] for key in asked], [b"a", b"b"])

    def test_what_was_changed(self) -> None:
        """Whoever reads is shown what was written last, not what was there at the last read."""
        self.apply(put(b"a", b"1"))
        self.read(b"a")
        self.apply(put(b"a", b"2"))
        self.assertEqual(self.read(b"a"), (b"2", 2, 1))

    def test_what_was_not_there(self) -> None:
        """A key that was missing can be written."""
        self.assertIsNone(self.read(b"a"))
        self.apply(put(b"a", b"1"))
        self.assertEqual(self.read(b"a"), (b"1", 1, 1))

    def test_what_was_removed(self) -> None:
        """What was deleted stays deleted, and what is written again is made anew."""
        self.apply(put(b"a", b"1"))
        self.apply(Write(0, 1, 0, 0, 0, (Delete(b"a"),)))
        self.assertIsNone(self.read(b"a"))
        self.apply(put(b"a", b"2"))
        self.assertEqual(self.read(b"a"), (b"2", 3, 3))
        self.assertEqual(self.node.state.machine.key_count, 1)

    def test_what_has_expired(self) -> None:
        """It counts as gone when its time has come, and is gone when an entry has removed it."""
        self.apply(put(b"a", b"1", ttl_ms=5))
        self.assertEqual(self.read(b"a"), (b"1", 1, 1))
        self.apply(Advance(5))
        self.assertIsNone(self.read(b"a"))
        self.apply(Expire(5, 5))
        self.assertIsNone(self.read(b"a"))
        self.assertEqual(self.node.state.machine.key_count, 0)
        self.apply(put(b"a", b"2"))
        self.assertEqual(self.read(b"a"), (b"2", 3, 3))

    def test_while_the_disk_is_slow(self) -> None:
        """Changes of which the engine has only the first are read all the same."""
        for index, value in enumerate([b"1", b"2", b"3"], start=1):
            self.node.carry_out(index, put(b"a", value))
            self.node.take()
            self.assertEqual(self.read(b"a"), (value, index, 1))
        for _ in range(3):
            self.node.commit()
            self.assertEqual(self.read(b"a"), (b"3", 3, 1))

    def test_a_value_that_is_too_large(self) -> None:
        """It is not kept; nor is the one before it."""
        large = bytes(RECORD_BYTES_MAX)
        self.apply(put(b"a", b"1"))
        self.apply(put(b"a", large))
        self.assertEqual(self.read(b"a"), (large, 2, 1))
        self.apply(put(b"a", b"3"))
        self.assertEqual(self.read(b"a"), (b"3", 3, 1))

    def test_what_was_never_written(self) -> None:
        """S2: after a full disk the store is read anew, and what was in memory of the old state is
        gone with it: it was never acknowledged, and may never have happened."""
        self.apply(put(b"a", b"1"))
        self.node.carry_out(2, put(b"a", b"2"))
        self.node.take()
        self.assertEqual(self.read(b"a"), (b"2", 2, 1))
        self.assertEqual(self.node.restart(), 1)
        self.assertEqual(self.read(b"a"), (b"1", 1, 1))


class DamageTests(SynchronousTestCase):
    """S3: any changed bit is found when it is read, and never served."""

    @examples(80)
    @given(st.data())
    def test_any_changed_bit(self, data: st.DataObject) -> None:
        """In the state, a session, an answer, a record: loading or fetching says so."""
        node = small(OpenSession(0, 1, 9), Write(0, 1, 1, 0, 0, (Put(b"a", b"value"),)))
        kept = list(node.engine.scan(b"", b"\xff"))
        key, frame = data.draw(st.sampled_from(kept))
        bit = data.draw(st.integers(0, len(frame) * 8 - 1))
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        batch = Batch()
        batch.put(key, bytes(damaged))
        node.engine.commit(batch, sync=False)

        def use() -> StoredState | None:
            state = load_state(GROUP, node.engine, node.cached)
            assert state is not None
            state.records.missing([bytes(4) + b"a"])
            return state

        self.assertRaises(StoreDamaged, use)

    def test_a_record_in_another_place(self) -> None:
        """A good record under the wrong key is damage."""
        node = small(put(b"a", b"1"), put(b"b", b"2"))
        (first, _), (_, frame) = node.engine.scan(*generation_range(RECORD, GROUP, 1))
        batch = Batch()
        batch.put(first, frame)
        node.engine.commit(batch, sync=False)
        state = load_state(GROUP, node.engine, node.cached)
        assert state is not None
        self.assertRaises(StoreDamaged, state.records.missing, [bytes(4) + b"a"])
