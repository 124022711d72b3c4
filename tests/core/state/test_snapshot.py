"""Snapshots: everything is in them, whole or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.commands import CloseSession, Expire, SetGeneration
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Delete, Get, Increment, Put
from kvtwist.core.state.snapshot import CHUNK_BYTES, Restore, restore
from tests.core.state.machines import GENERATION, Fed, new
from tests.wire.properties import examples


def full() -> Fed:
    """A machine that has something of everything."""
    machine = new(revision=100)
    one, two = machine.open(idle_ms=50), machine.open(idle_ms=5000)
    machine.do(Put(b"a", b"1"), Put(b"b", b"", ttl_ms=40), Increment(b"n"), stamp_ms=10)
    machine.do(Put(b"a", b"other"), keyspace=5)
    machine.write(one, 1, 1, Put(b"c", b"3"), Get(b"a"))
    machine.write(two, 9, 8, Put(b"c", b"", version=1))
    machine.write(two, 11, 8, Increment(b"a", 2), Delete(b"none"))
    machine.feed(SetGeneration(20, GENERATION, 8))
    machine.skip(machine.applied_index + 1)
    return machine


def stream_of(machine: StateMachine) -> bytes:
    """The whole of its snapshot."""
    return b"".join(machine.snapshot().chunks())


class SnapshotTests(SynchronousTestCase):
    """Encode and restore."""

    def test_everything_comes_back(self) -> None:
        """R13: whatever is left out of a snapshot, replicas part over it later."""
        machine = full()
        reborn = machine.reborn()
        for name in (
            "generation", "revision", "applied_index", "log_time_ms", "key_count", "data_bytes",
            "session_count",
        ):  # fmt: skip
            self.assertEqual(getattr(reborn, name), getattr(machine, name), name)
        self.assertEqual(reborn.next_due_ms(), machine.next_due_ms())
        for keyspace in (0, 5):
            self.assertEqual(reborn.scan(keyspace=keyspace), machine.scan(keyspace=keyspace))
        self.assertEqual(reborn.digest(), machine.digest())
        for stamp_ms in (49, 50, 60):
            expire = Expire(stamp_ms, stamp_ms)
            self.assertEqual(reborn.feed(expire), machine.feed(expire))
            self.assertEqual(reborn.digest(), machine.digest())

    def test_new_machine(self) -> None:
        """A partition that nobody has used moves too."""
        self.assertEqual(new().reborn().digest(), new().digest())

    @examples(40)
    @given(st.integers(1, 700), st.lists(st.integers(0, 60), max_size=8))
    def test_any_cut(self, chunk_bytes: int, sizes: list[int]) -> None:
        """The stream may be sent in pieces of any size, and arrive in others."""
        machine = full()
        chunks = list(machine.snapshot().chunks(chunk_bytes))
        self.assertLessEqual(max(map(len, chunks)), chunk_bytes)
        stream = b"".join(chunks)
        self.assertEqual(stream, stream_of(machine))
        restoring = Restore()
        for size in sizes:
            restoring.feed(stream[:size])
            stream = stream[size:]
        restoring.feed(stream)
        self.assertEqual(StateMachine(restoring.finish()).digest(), machine.digest())

    def test_large_values(self) -> None:
        """A value far longer than a chunk is spread over many, and comes back whole."""
        machine = new()
        value = bytes(range(256)) * (4 * CHUNK_BYTES // 256)
        machine.do(Put(b"a", b"small"), Put(b"b", value), Put(b"c", b""), Put(b"d", value[1:]))
        chunks = list(machine.snapshot().chunks())
        self.assertEqual({len(chunk) for chunk in chunks[:-2]}, {CHUNK_BYTES})
        reborn = Fed(restore(chunks))
        self.assertEqual(reborn.scan(), machine.scan())

    def test_damage(self) -> None:
        """A bit that fell over, anywhere, is noticed, and never restored."""
        stream = stream_of(full())
        for at in range(len(stream)):
            for change in (1, 0x80, 0xFF):
                damaged = bytearray(stream)
                damaged[at] ^= change
                with self.assertRaises((MalformedBytes, UnknownKind), msg=f"byte {at}"):
                    restore([bytes(damaged)])

    def test_cut_off(self) -> None:
        """A stream that ended early, anywhere, is not taken for a smaller partition."""
        stream = stream_of(full())
        for length in range(len(stream)):
            with self.assertRaises(MalformedBytes, msg=f"{length} bytes"):
                restore([stream[:length]])

    def test_too_long(self) -> None:
        """Nor one with something behind its end, whether in the same chunk or in another."""
        stream = stream_of(full())
        restoring = Restore()
        self.assertRaises(MalformedBytes, restoring.feed, stream + b"\0")
        restoring = Restore()
        restoring.feed(stream)
        self.assertRaises(MalformedBytes, restoring.feed, b"\0")
        restore([stream, b""])

    def test_later_release(self) -> None:
        """A snapshot of a later release is named as such, not called damaged."""
        stream = stream_of(new())
        at = len(b"kvtwist state")
        self.assertEqual(stream[at : at + 2], b"\1\1")
        with self.assertRaises(UnknownKind) as raised:
            restore([stream[:at] + b"\1\2" + stream[at + 2 :]])
        self.assertEqual(raised.exception.version, 2)

    def test_consistent_while_changing(self) -> None:
        """A snapshot that takes a while is of the moment it was asked for: half old, half new
        would be a state that never was."""
        machine = new()
        session = machine.open()
        for number in range(3000):
            machine.do(Put(b"%04d" % number, b"old"))
        machine.write(session, 1, 1, Increment(b"n"))
        expected = machine.digest()
        chunks = machine.snapshot().chunks(1000)
        # Sessions stand at the front of the stream: they change before it has begun.
        machine.write(session, 1, 1, Increment(b"n"))
        machine.write(session, 2, 2, Increment(b"n"), stamp_ms=5)
        machine.open()
        sent = [next(chunks)]
        for number in range(0, 3000, 2):
            machine.do(Put(b"%04d" % number, b"new"), Delete(b"%04d" % (number + 1)))
            machine.do(Put(b"%04d+" % number, b"more", ttl_ms=1))
        machine.feed(CloseSession(0, GENERATION, session))
        sent += chunks
        self.assertEqual(StateMachine(restore(sent)).digest(), expected)
        self.assertNotEqual(machine.digest(), expected)

    def test_digest_sees_everything(self) -> None:
        """Two replicas that differ in anything have different digests, or nobody would notice."""
        digests = {full().digest()}
        for change in (
            lambda machine: machine.do(Put(b"a", b"2")),
            lambda machine: machine.pass_to(21),
            lambda machine: machine.skip(machine.applied_index + 1),
            lambda machine: machine.open(),
            lambda machine: machine.feed(SetGeneration(20, 8, 9)),
        ):
            machine = full()
            change(machine)
            digests.add(machine.digest())
        for name in ("revision", "generation", "log_time_ms"):
            machine = full()
            setattr(machine._contents, name, getattr(machine._contents, name) + 1)
            digests.add(machine.digest())
        for name in ("mark", "idle_ms", "expires_at_ms"):
            machine = full()
            session = machine._contents.sessions._sessions[2]
            setattr(session, name, getattr(session, name) - 1)
            digests.add(machine.digest())
        machine = full()
        del machine._contents.sessions._sessions[2].answers[9]
        digests.add(machine.digest())
        self.assertEqual(len(digests), 13)

    def test_digest_is_of_the_state(self) -> None:
        """It does not depend on the way that led there, nor on whether it was asked before."""
        one, two = new(), new()
        one.do(Put(b"b", b"1"), Put(b"a", b"2"))
        two.do(Put(b"x", b"1"), Put(b"a", b"2"))
        two._contents.remove(b"\0\0\0\0x")
        two._contents.put(b"\0\0\0\0b", one._contents.get(b"\0\0\0\0b"))  # type: ignore[arg-type]
        self.assertEqual(one.digest(), two.digest())
        self.assertEqual(one.digest(), one.digest())
