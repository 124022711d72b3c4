"""Snapshots in a store: one moment's state goes out, and comes in whole or not at all."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import rmtree

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, HardState, Ready
from kvtwist.core.raft import Snapshot as Base
from kvtwist.core.state.commands import Command, OpenSession, Write
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.operations import Increment, Put
from kvtwist.errors import StoreDamaged
from kvtwist.storage import logs
from kvtwist.storage.engine import Batch, Engine
from kvtwist.storage.layout import (
    RECORD,
    SESSION,
    generation_range,
)
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.snapshots import Incoming, outgoing, remove_orphans
from kvtwist.storage.states import Header, StoredState, load_state, new_state, save_header
from tests.storage.test_states import GROUP, apply_all, commands_of, put, small
from tests.wire.properties import examples

VOTERS = Configuration((1, 2, 3))
END = b"\xff" * 9


def contents_of(engine: Engine) -> list[tuple[bytes, bytes]]:
    """All that is in it."""
    return list(engine.scan(b"", END))


def chunks_of(engine: Engine, chunk_bytes: int = 100) -> list[bytes]:
    """The group's snapshot."""
    with engine.view() as view:
        snapshot = outgoing(view, GROUP)
        assert snapshot is not None
        return list(snapshot.chunks(chunk_bytes))


class Receiver:
    """A replica that has something of its own already, and notes every batch that is committed.

    :ivar committed: each with whether it was synced.
    """

    def __init__(self, *commands: Command, log_entries: int = 3) -> None:
        self.engine = MemoryEngine()
        self.committed: list[tuple[Batch, bool]] = []
        self.state = new_state(GROUP, self.engine, self.engine.get_cached, 1, 0)
        batch = Batch()
        logs.save_base(batch, GROUP, Base(0, 0, VOTERS))
        data = tuple(Entry(index, 1, EntryKind.NOOP, b"") for index in range(1, log_entries + 1))
        logs.save(batch, GROUP, Ready(1, HardState(1, 2, len(commands)), None, data), 0)
        self.commit(batch, sync=True)
        for index, command in enumerate(commands, start=1):
            needed = self.state.machine.needs(command)
            self.state.records.missing(needed)
            self.state.machine.carry_out(index, command)
            self.state.note(index, command)
            batch, number = self.state.take_batch()
            self.commit(batch, sync=False)
            self.state.committed(number)

    def commit(self, batch: Batch, *, sync: bool) -> None:
        self.committed.append((batch, sync))
        self.engine.commit(batch, sync=sync)

    def fill(self, incoming: Incoming, chunks: Iterable[bytes]) -> None:
        """All but the switch."""
        for chunk in chunks:
            for batch in incoming.feed(chunk):
                self.commit(batch, sync=False)
        for batch in incoming.finish():
            self.commit(batch, sync=False)

    def install(self, incoming: Incoming, index: int) -> Batch:
        """The switch; Raft has an entry after the snapshot too."""
        after = Entry(index + 1, 5, EntryKind.NOOP, b"")
        ready = Ready(1, HardState(5, 3, index), Base(index, 4, VOTERS), (after,), must_sync=True)
        batch = Batch()
        assert incoming.install(batch, ready, self.state) == index + 1
        self.commit(batch, sync=True)
        return batch

    def receive(self, chunks: Iterable[bytes], index: int, batch_bytes: int = 200) -> Batch:
        incoming = Incoming(GROUP, self.state.generation, index, batch_bytes)
        self.fill(incoming, chunks)
        return self.install(incoming, index)


def loaded(engine: Engine) -> StoredState:
    """What a node that starts finds."""
    engine.commit(remove_orphans(engine), sync=False)
    state = load_state(GROUP, engine, engine.get_cached)
    assert state is not None
    return state


def busy() -> list[Command]:
    """Something of everything, at index 9."""
    return [
        OpenSession(0, 1, 1000),
        OpenSession(0, 1, 50),
        put(b"a", b"1", 40),
        put(b"b", b"x" * 300),
        put(b"c", b""),
        Write(0, 1, 1, 1, 1, (Put(b"a", b"2", 70), Increment(b"n", 1))),
        Write(0, 1, 1, 5, 1, (Put(b"q", b"cas", 0, 77),)),
        Write(0, 1, 2, 1, 0, (Increment(b"n", 5),)),
        put(b"d", b"4"),
    ]


class OutgoingTests(SynchronousTestCase):
    @examples(40)
    @given(commands_of, st.integers(1, 300))
    def test_it_is_the_stream_of_the_machine_in_memory(
        self, commands: list[Command], chunk_bytes: int
    ) -> None:
        """R17: else the digests of a replica on disk and of one in memory could not be compared."""
        node = small(*commands)
        expected = list(apply_all(commands).snapshot().chunks(chunk_bytes))
        self.assertEqual(chunks_of(node.engine, chunk_bytes), expected)

    def test_a_group_that_is_not_there(self) -> None:
        """Nothing is to be sent; an empty partition would be another thing."""
        self.assertIsNone(outgoing(MemoryEngine(), GROUP))

    def test_it_is_of_one_moment(self) -> None:
        """R13: sessions of one moment with records of another would apply a retry twice."""
        node = small(*busy())
        expected = b"".join(chunks_of(node.engine))
        with node.engine.view() as view:
            snapshot = outgoing(view, GROUP)
            assert snapshot is not None
            chunks = snapshot.chunks(50)
            sent = [next(chunks)]
            for index, command in enumerate(busy()[5:], start=10):
                node.carry_out(index, command)
                node.close()
            sent += chunks
        self.assertEqual(b"".join(sent), expected)
        self.assertNotEqual(b"".join(chunks_of(node.engine)), expected)

    @examples(60)
    @given(st.data())
    def test_damage_is_not_sent(self, data: st.DataObject) -> None:
        """S3: a replica must not hand its damaged record to the others."""
        node = small(*busy())
        kept = [pair for pair in contents_of(node.engine) if pair[0][:1] != b"x"]
        key, frame = data.draw(st.sampled_from(kept))
        bit = data.draw(st.integers(0, len(frame) * 8 - 1))
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        batch = Batch()
        batch.put(key, bytes(damaged))
        node.engine.commit(batch, sync=False)
        self.assertRaises(StoreDamaged, chunks_of, node.engine)

    def test_a_record_that_has_gone_is_noticed(self) -> None:
        """A partition that has silently lost a key must not be multiplied."""
        node = small(*busy())
        key, _ = next(node.engine.scan(*generation_range(RECORD, GROUP, 1)))
        batch = Batch()
        batch.delete(key)
        node.engine.commit(batch, sync=False)
        self.assertRaises(StoreDamaged, chunks_of, node.engine)

    def test_records_are_read_as_they_are_asked_for(self) -> None:
        """A partition larger than memory is sent all the same."""
        node = small(*(put(b"%03d" % number, b"v" * 100) for number in range(100)))
        engine = Counting(node.engine)
        snapshot = outgoing(engine, GROUP)
        assert snapshot is not None
        for number, _ in zip(range(1, 50), snapshot.chunks(200), strict=False):
            self.assertLessEqual(engine.scanned, 2 * number)


class Counting(MemoryEngine):
    """Counts the pairs that were read."""

    def __init__(self, other: MemoryEngine) -> None:
        super().__init__()
        self._content = other._content
        self.scanned = 0

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().scan(start, end):
            self.scanned += 1
            yield pair


class IncomingTests(SynchronousTestCase):
    @examples(40)
    @given(commands_of, st.integers(1, 300), st.integers(1, 500))
    def test_it_is_the_state_that_was_sent(
        self, commands: list[Command], chunk_bytes: int, batch_bytes: int
    ) -> None:
        """R13: data, applied index, sessions, log time; loaded again it is the same to the byte,
        and does the same from then on."""
        receiver = Receiver(put(b"old", b"1", 5))
        sent = apply_all(commands)
        receiver.receive(sent.snapshot().chunks(chunk_bytes), len(commands), batch_bytes)
        state = loaded(receiver.engine)
        self.assertEqual(state.machine.digest(), sent.digest())
        self.assertEqual(state.machine.data_bytes, sent.data_bytes)
        self.assertEqual(state._contents.due(10**6, 99), sent._contents.due(10**6, 99))
        again = Write(900, 1, 1, 1, 0, (Increment(b"a", 1),))
        state.records.missing(state.machine.needs(again))
        index = len(commands) + 1
        self.assertEqual(state.machine.carry_out(index, again), sent.carry_out(index, again))

    def test_log_and_hard_state_go_with_it(self) -> None:
        """R13: a log that does not fit the state would be applied twice, or not at all."""
        receiver = Receiver(put(b"old", b"1"), put(b"old", b"2"), log_entries=15)
        receiver.receive(chunks_of(small(*busy()).engine), 9)
        restored = logs.load(receiver.engine, GROUP, 9)
        assert restored is not None
        self.assertEqual((restored.compacted_index, restored.compacted_term), (9, 4))
        self.assertEqual(restored.hard_state, HardState(5, 3, 9))
        self.assertEqual([entry.index for entry in restored.entries], [10])

    def test_a_crash_at_any_time_leaves_one_state_or_the_other(self) -> None:
        """R13: whichever batch was the last to reach the disk: the old state with the old log, or
        the new with the new, and no key of the other one."""
        receiver = Receiver(put(b"old", b"1", 5), OpenSession(0, 1, 9))
        before = len(receiver.committed)
        old, old_digest = contents_of(receiver.engine), receiver.state.machine.digest()
        switch = receiver.receive(chunks_of(small(*busy()).engine), 9, 60)
        new, new_digest = contents_of(receiver.engine), apply_all(busy()).digest()
        self.assertGreater(len(receiver.committed), before + 5)
        for crash in range(before, len(receiver.committed) + 1):
            engine = MemoryEngine()
            for batch, sync in receiver.committed[:crash]:
                engine.commit(batch, sync=sync)
            digest = loaded(engine).machine.digest()
            is_new = crash == len(receiver.committed)
            self.assertEqual(digest, new_digest if is_new else old_digest)
            self.assertEqual(contents_of(engine), new if is_new else old)
        self.assertEqual([sync for _, sync in receiver.committed[before:]].count(True), 1)
        self.assertLess(switch.size_bytes, 1000)

    def test_one_after_the_other(self) -> None:
        """A replica that falls behind again and again gets a snapshot each time."""
        receiver = Receiver()
        for length in (3, 6, 9):
            receiver.receive(chunks_of(small(*busy()[:length]).engine), length)
            receiver.state = loaded(receiver.engine)
            self.assertEqual(receiver.state.machine.digest(), apply_all(busy()[:length]).digest())
        self.assertEqual(receiver.state.generation, 4)

    def test_after_one_that_broke_off(self) -> None:
        """What the first try left must not show in the second."""
        receiver = Receiver(put(b"old", b"1"))
        broken = Incoming(GROUP, 1, 9, 50)
        for chunk in chunks_of(small(put(b"ghost", b"1" * 90), *busy()).engine)[:-2]:
            for batch in broken.feed(chunk):
                receiver.commit(batch, sync=False)
        self.assertTrue(list(receiver.engine.scan(*generation_range(RECORD, GROUP, 2))))
        receiver.receive(chunks_of(small(*busy()).engine), 9)
        self.assertEqual(loaded(receiver.engine).machine.digest(), apply_all(busy()).digest())

    @examples(80)
    @given(st.data())
    def test_damage_and_cuts_change_nothing(self, data: st.DataObject) -> None:
        """S3: a stream that is not what was sent is refused, and leaves nothing behind."""
        receiver = Receiver(put(b"old", b"1", 5))
        before = contents_of(receiver.engine)
        stream = b"".join(chunks_of(small(*busy()).engine))
        at = data.draw(st.integers(0, len(stream) - 1))
        if data.draw(st.booleans()):
            stream = stream[:at]
        else:
            bit = data.draw(st.integers(0, 7))
            stream = stream[:at] + bytes((stream[at] ^ 1 << bit,)) + stream[at + 1 :]
        incoming = Incoming(GROUP, 1, 9, 50)
        chunks = [stream[start : start + 64] for start in range(0, len(stream), 64)]
        with self.assertRaises((MalformedBytes, UnknownKind)):
            receiver.fill(incoming, chunks)
        receiver.commit(incoming.discard(), sync=False)
        self.assertEqual(contents_of(receiver.engine), before)

    def test_another_snapshot_than_was_announced(self) -> None:
        """It would be put under a log that goes on elsewhere."""
        for index in (8, 10):
            incoming = Incoming(GROUP, 1, index)
            for chunk in chunks_of(small(*busy()).engine):
                incoming.feed(chunk)
            self.assertRaises(MalformedBytes, incoming.finish)

    def test_one_that_is_behind(self) -> None:
        """R13: what was acknowledged after it would be lost."""
        receiver = Receiver(*busy())
        incoming = Incoming(GROUP, 1, 3)
        receiver.fill(incoming, chunks_of(small(*busy()[:3]).engine))
        self.assertRaises(AssertionError, receiver.install, incoming, 3)

    def test_it_holds_one_batch_and_one_chunk(self) -> None:
        """A partition larger than memory is received all the same."""
        node = small(*(put(b"%04d" % number, b"v" * 100, 1 + number) for number in range(500)))
        receiver = Receiver()
        incoming = Incoming(GROUP, 1, 500, 1000)
        largest = total = 0
        for chunk in chunks_of(node.engine, 700):
            for batch in incoming.feed(chunk):
                largest = max(largest, batch.size_bytes)
                total += batch.size_bytes
                receiver.commit(batch, sync=False)
            held = incoming._restore._held_bytes + incoming._filling._batch.size_bytes
            self.assertLess(held, 2000)
        self.assertLess(largest, 1000 + 300)
        self.assertGreater(total, 50_000)
        for batch in incoming.finish():
            receiver.commit(batch, sync=False)
        receiver.install(incoming, 500)
        self.assertEqual(chunks_of(receiver.engine), chunks_of(node.engine))

    def test_many_sessions_are_spread_over_batches(self) -> None:
        """Clients by the thousand must not make the batch that switches large."""
        writes = [Write(0, 1, 1, seq, 0, (Put(b"a", b"v"),)) for seq in range(50)]
        opens = [OpenSession(0, 1, 1000) for _ in range(50)]
        node = small(*opens, *writes)
        receiver = Receiver()
        switch = receiver.receive(chunks_of(node.engine), 100, 500)
        self.assertLess(switch.size_bytes, 1000)
        sizes = [batch.size_bytes for batch, _ in receiver.committed[1:]]
        self.assertGreater(len(sizes), 5)
        self.assertEqual(loaded(receiver.engine).machine.session_count, 50)


class OrphanTests(SynchronousTestCase):
    def test_only_what_is_nobodys_goes(self) -> None:
        """Groups side by side, some with remains before or after their own, one with nothing but
        those: a crash during a snapshot must not take room for ever, nor a neighbour's data."""
        engine = MemoryEngine()
        for group, generation, current in (
            (1, 1, True), (1, 2, False), (2, 7, True), (2, 6, False), (2, 8, False),
            (3, 2, False), (4, 1, True), (2**64 - 2, 2, False),
        ):  # fmt: skip
            batch = Batch()
            for kind in (RECORD, SESSION):
                start, _ = generation_range(kind, group, generation)
                batch.put(start + b"key", b"current" if current else b"orphan")
            if current:
                save_header(batch, group, Header(generation, 1, 0, 0, 0, 0, 1))
            engine.commit(batch, sync=False)
        own = [pair for pair in contents_of(engine) if pair[1] != b"orphan"]
        engine.commit(remove_orphans(engine), sync=False)
        self.assertEqual(contents_of(engine), own)
        self.assertFalse(remove_orphans(engine))

    def test_it_is_cheap(self) -> None:
        """It is done at each start, whatever the size of the store."""
        node = small(*(put(b"%03d" % number, b"v", 5) for number in range(300)))
        engine = Counting(node.engine)
        remove_orphans(engine)
        self.assertLess(engine.scanned, 10)


class RocksTests(SynchronousTestCase):
    def test_from_one_disk_to_another(self) -> None:
        """The same with the real engine, its views, and a thread that reads them."""
        top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, top)
        source, target = RocksEngine(top / "source"), RocksEngine(top / "target")
        self.addCleanup(source.close)
        self.addCleanup(target.close)
        for key, value in contents_of(small(*busy()).engine):
            batch = Batch()
            batch.put(key, value)
            source.commit(batch, sync=False)
        receiver = Receiver(put(b"old", b"1", 5))
        for batch, _ in receiver.committed:
            target.commit(batch, sync=True)
        receiver.engine = target  # type: ignore[assignment]
        incoming = Incoming(GROUP, 1, 9, 100)
        with source.view() as view:
            snapshot = outgoing(view, GROUP)
            assert snapshot is not None
            chunks = snapshot.chunks(50)
            batch = Batch()
            batch.delete_range(b"", END)
            source.commit(batch, sync=False)
            receiver.fill(incoming, on_a_thread(lambda: next(chunks, None)))
        receiver.install(incoming, 9)
        target.reopen()
        self.assertEqual(loaded(target).machine.digest(), apply_all(busy()).digest())
        self.assertEqual(list(target.scan(*generation_range(RECORD, GROUP, 1))), [])


def on_a_thread(job: Callable[[], bytes | None]) -> Iterator[bytes]:
    """What *job* returns, each time called on a new thread, until it is ``None``."""
    while True:
        found: list[bytes | None] = []
        thread = threading.Thread(target=lambda: found.append(job()))  # noqa: B023
        thread.start()
        thread.join()
        if found[0] is None:
            return
        yield found[0]
