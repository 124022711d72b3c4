"""The most frequent entry has a way of its own through the state machine: nobody can tell."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.commands import (
    WHOSE,
    Advance,
    Command,
    Expire,
    LonePut,
    OpenSession,
    SetGeneration,
    Write,
    decode,
    decode_entry,
    encode,
    encode_put,
)
from kvtwist.core.state.contents import Contents, stored_key
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Delete, Put
from tests.core.state import strategies
from tests.wire.properties import examples

stamps = st.integers(0, 60)
puts = st.builds(
    Put,
    st.sampled_from([b"", b"a", b"b"]),
    st.sampled_from([b"", b"v", b"a longer value"]),
    st.sampled_from([0, 0, 0, 5, 30, 2**64 - 1]),
)
lone_puts = st.builds(
    lambda stamp, generation, session, seq, lowest, put, keyspace: Write(
        stamp, generation, session, seq, lowest, (put,), (), keyspace
    ),
    stamps,
    st.sampled_from([1, 1, 1, 1, 2]),
    st.sampled_from([0, 0, 1, 1, 2, 9]),
    st.integers(0, 4),
    st.integers(0, 3),
    puts,
    st.sampled_from([0, 0, 0, 1, 2**32 - 1]),
)
others = st.one_of(
    st.builds(OpenSession, stamps, st.just(1), st.sampled_from([10, 1000])),
    st.builds(Expire, stamps, stamps, st.integers(1, 3)),
    st.builds(Advance, stamps),
    st.builds(
        lambda stamp, key: Write(stamp, 1, 0, 0, 0, (Delete(key),)), stamps, st.sampled_from([b"a"])
    ),
    st.builds(SetGeneration, stamps, st.just(1), st.just(2)),
)
rows: st.SearchStrategy[list[Command]] = st.lists(
    st.one_of(lone_puts, lone_puts, lone_puts, others), max_size=20
)


class LonePutTests(SynchronousTestCase):
    """A write of one unconditional put, in its short form."""

    @given(rows)
    @examples(200)
    def test_same_state(self, commands: list[Command]) -> None:
        """R17: else replicas of two releases, or of two minds, part: answer for answer, to the
        byte. The general way is carried out beside it."""
        commands = [OpenSession(0, 1, 1000), OpenSession(0, 1, 20), *commands]
        general, short = StateMachine(Contents(1)), StateMachine(Contents(1))
        for index, command in enumerate(commands, start=1):
            self.assertEqual(
                short.apply(index, encode(command)), general.carry_out(index, command), command
            )
            self.assertEqual(short.digest(), general.digest(), command)
        for what in ("data_bytes", "key_count", "revision", "log_time_ms"):
            self.assertEqual(getattr(short, what), getattr(general, what))
        self.assertEqual(short.next_due_ms(), general.next_due_ms())

    @given(lone_puts)
    @examples(60)
    def test_taken(self, write: Write) -> None:
        """Else none of it is ever used; and it needs the same record."""
        machine, lone = StateMachine(Contents(1)), decode_entry(encode(write))
        assert isinstance(lone, LonePut)
        self.assertEqual(lone.key, stored_key(write.keyspace, write.operations[0].key))
        self.assertEqual(machine.needs(lone), machine.needs(write))

    @given(strategies.commands | lone_puts)
    @examples(150)
    def test_nothing_else_is(self, command: Command) -> None:
        """Else a condition is passed over."""
        entry = decode_entry(encode(command))
        if isinstance(entry, LonePut):
            assert isinstance(command, Write)
            (put,) = command.operations
            assert isinstance(put, Put)
            self.assertEqual((put.version, command.conditions), (None, ()))
            self.assertEqual((entry.value, entry.ttl_ms), (put.value, put.ttl_ms))
        else:
            self.assertEqual(entry, command)

    @given(lone_puts, st.data())
    @examples(200)
    def test_damage(self, write: Write, data: st.DataObject) -> None:
        """Else a replica skips, or guesses at, what another one stops at: the same bytes are
        refused, with the same error."""
        whole = bytearray(encode(write))
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(0, 255))
        cut = bytes(whole[: data.draw(st.sampled_from([len(whole), at]))])
        longer = cut + data.draw(st.sampled_from([b"", b"", b"x"]))
        general, short = StateMachine(Contents(1)), StateMachine(Contents(1))
        try:
            answer = general.carry_out(1, decode(longer))
        except (MalformedBytes, UnknownKind) as error:
            self.assertRaises(type(error), short.apply, 1, longer)
        else:
            self.assertEqual(short.apply(1, longer), answer)
            self.assertEqual(short.digest(), general.digest())

    def test_every_head(self) -> None:
        """The same for each byte of the numbers, whatever it is changed to."""
        whole = encode(Write(3, 1, 0, 0, 0, (Put(b"k", b"v" * 300),)))
        for at in range(len(whole) - 301):
            for byte in range(256):
                changed = whole[:at] + bytes((byte,)) + whole[at + 1 :]
                try:
                    expected = StateMachine(Contents(1)).carry_out(1, decode(changed))
                except (MalformedBytes, UnknownKind) as error:
                    self.assertRaises(type(error), decode_entry, changed)
                else:
                    entry = decode_entry(changed)
                    self.assertEqual(StateMachine(Contents(1)).carry_out(1, entry), expected)

    def test_one_that_was_due(self) -> None:
        """What takes the place of a record that is due is a new one."""
        for again_ms, created in ((4, 1), (5, 2)):
            machine = StateMachine(Contents(1))
            for index, put in enumerate((Put(b"k", b"v", 5), Put(b"k", b"w")), start=1):
                stamp_ms = 0 if index == 1 else again_ms
                machine.apply(index, encode(Write(stamp_ms, 1, 0, 0, 0, (put,))))
            record = machine.get(b"k")
            assert record is not None
            self.assertEqual((record.version, record.created), (2, created))

    @given(
        strategies.u64,
        st.tuples(strategies.u64, strategies.u64, strategies.u64, strategies.u64),
        strategies.data,
        strategies.data,
    )
    @examples(60)
    def test_encoding(
        self, stamp_ms: int, whose: tuple[int, int, int, int], key: bytes, value: bytes
    ) -> None:
        """Else an entry says something else than the request, or for somebody else."""
        write = Write(stamp_ms, *whose, (Put(key, value),))
        self.assertEqual(encode_put(stamp_ms, WHOSE.pack(*whose), key, value), encode(write))

    def test_the_last_revision(self) -> None:
        """Else versions begin anew, and old ones match (R17)."""
        last = (1 << 63) - 1
        write = Write(0, 1, 0, 0, 0, (Put(b"k", b"v"),))
        machine = StateMachine(Contents(1, last - 1))
        machine.apply(1, encode(write))
        self.assertEqual(machine.revision, last)
        self.assertRaises(AssertionError, machine.apply, 2, encode(replace(write, stamp_ms=1)))
