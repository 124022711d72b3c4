"""Snapshots between nodes: whoever was away comes back, however much was written meanwhile."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind, Role
from kvtwist.core.raft.messages import AppendRequest, Heartbeat, InstallSnapshot
from kvtwist.core.state.answers import SessionOpened, Written
from kvtwist.core.state.commands import OpenSession, Write, encode
from kvtwist.core.state.contents import stored_key
from kvtwist.core.state.operations import Delete, Increment, Put
from kvtwist.errors import (
    DiskFull,
    KvtwistError,
    MalformedRequest,
    Refused,
    TooLarge,
    Unavailable,
)
from kvtwist.node import arrivals, compaction, departures, outgoing
from kvtwist.node.arrivals import ARRIVALS_MAX, LASTING_SECONDS_MAX, SILENT_SECONDS_MAX
from kvtwist.node.deferreds import DeferredReader
from kvtwist.node.departures import DEPARTURES_MAX
from kvtwist.node.outgoing import PIECE_BYTES_MAX
from kvtwist.storage.engine import Batch
from kvtwist.storage.layout import RECORD
from kvtwist.storage.snapshots import Incoming
from kvtwist.storage.snapshots import outgoing as snapshot_of
from kvtwist.storage.store import Condition
from kvtwist.wire import commands
from tests.node.groups import GENERATION, Group, Line, generations
from tests.storage.simulated import forget

ENTRIES_MAX = 20
GROUP = 2
SEEDS = int(os.environ.get("SEEDS", "4"))
FIRST_SEED = int(os.environ.get("FIRST_SEED", "0"))


def _delete(key: bytes, stamp_ms: int) -> Write:
    return Write(stamp_ms, GENERATION, 0, 0, 0, (Delete(key),))


class SnapshotCase(SynchronousTestCase):
    """A group whose logs are short, whose batches and pieces are small."""

    size = 3
    groups = 1

    def setUp(self) -> None:
        self.patch(compaction, "LOG_ENTRIES_MAX", ENTRIES_MAX)
        self.patch(arrivals, "BATCH_BYTES", 600)
        self.patch(outgoing, "_CUT_BYTES", 200)
        self.begin()

    def begin(self) -> None:
        """Have a new group."""
        self.group = Group(self.size, self.groups)
        self.addCleanup(self.group.cleanup)

    def leave_behind(self, *numbers: int, entries: int = 60) -> None:
        """Kill followers, and write more than the log keeps."""
        self.group.put((b"before", b"1"))
        self.group.run(0.5)
        for number in numbers or (3,):
            self.group.crash(number)
        self.group.run(3.0)  # till they are not waited for
        self.write(entries)
        self.assertGreater(self.log_begin(), 10)

    def write(self, entries: int, at: int = 0, group: int = GROUP) -> None:
        pairs = [(b"key-%d" % each, b"%d" % each * 20) for each in range(at, at + entries)]
        for first in range(0, entries, 10):
            self.group.put(*pairs[first : first + 10], group=group)
            self.group.run(0.1)

    def log_begin(self, number: int | None = None) -> int:
        return self.group.replica(number or self.group.leader()).raft.log.compacted_index

    def views(self, number: int) -> int:
        """How many are open."""
        engine: Any = self.group.nodes[number].directory.engine
        count: int = engine.views
        return count

    def assert_same(self, *numbers: int) -> None:
        """All have the same state, and nothing besides; nobody looks at a store any more."""
        self.group.run(2.0)
        for group in self.group.groups:
            digests = {number: self.group.digest(number, group) for number in numbers}
            self.assertEqual(len(set(digests.values())), 1, digests)
            for number in numbers:
                generation = self.group.replica(number, group).data_generation
                left = generations(self.group.nodes[number].directory.engine, group)
                self.assertLessEqual(left, {generation})
        for number in numbers:
            node = self.group.nodes[number]
            self.assertIsNone(node.failed)
            self.assertEqual(self.views(number), 0)
            self.assertEqual((node.departures.under_way_count, node.arrivals.open_count), (0, 0))


class BackTests(SnapshotCase):
    def test_a_follower_that_was_away(self) -> None:
        """It has everything, reads are linearizable there, and it counts for the majority."""
        self.leave_behind()
        self.group.start(3)
        warned: list[str] = []
        self.patch(self.group.nodes[1].departures._seldom, "warn", warned.append)
        self.group.run(3.0)
        self.assertEqual(warned, [])
        self.assertEqual(self.group.get(3, b"key-59"), b"59" * 20)
        self.assertEqual(self.group.get(3, b"before"), b"1")
        self.assert_same(1, 2, 3)
        self.assertGreater(len(self.group.pieces()), 5)
        self.group.crash(2)
        self.group.put((b"after", b"2"))
        self.assertEqual(self.group.get(3, b"after"), b"2")
        self.group.crash(1)
        self.group.start(2)
        self.group.run(3.0)
        self.assertEqual(self.group.get(3, b"after"), b"2")

    def test_what_it_had_in_memory(self) -> None:
        """R13: a follower that was cut off has records in memory. They go with the state that they
        are of: when it leads, it shows what is in the snapshot."""
        keys = [b"changed", b"removed", b"written again"]
        self.group.put(*[(key, b"before") for key in keys])
        self.group.run(0.5)
        records = self.group.replica(3)._state.records
        self.assertEqual(records.missing([stored_key(0, key) for key in keys]), [])
        records.forget_fetched()
        self.group.cuts |= {(3, other) for other in (1, 2)} | {(other, 3) for other in (1, 2)}
        self.group.run(3.0)
        for key in keys[1:]:
            self.group.propose(partial(_delete, key))
        self.group.put((b"changed", b"after"), (b"written again", b"after"))
        self.write(60)
        self.group.cuts.clear()
        self.group.run(3.0)
        self.assertGreater(len(self.group.pieces(to=3)), 1)
        self.assertIsNot(self.group.replica(3)._state.records, records)
        self.assertTrue(self.group.replica(self.group.leader()).hand_over(3))
        self.group.run(1.0)
        self.assertEqual(self.group.leader(), 3)
        self.assertEqual([self.group.get(3, key) for key in keys], [b"after", None, b"after"])
        self.group.put(*[(key, b"last") for key in keys])
        self.assert_same(1, 2, 3)

    def test_writes_go_on(self) -> None:
        """What is written while the snapshot is under way follows it; one snapshot is enough."""
        self.leave_behind()
        self.group.network.bytes_per_second = 5_000.0
        self.group.start(3)
        for round in range(12):
            self.write(20, at=1000 + 20 * round)
        self.group.run(2.0)
        self.assert_same(1, 2, 3)
        offers = [call for call in self.group.calls if call[2] is commands.OfferSnapshot]
        self.assertEqual(len(offers), 1)

    def test_a_retry_after_it(self) -> None:
        """C2, R13: sessions are in it. A write that is sent again to a leader that has it from a
        snapshot only is not applied twice."""
        opened = self.group.propose(lambda stamp: OpenSession(stamp, GENERATION, 3_600_000))
        assert isinstance(opened, SessionOpened)

        def increment(stamp_ms: int) -> Write:
            return Write(stamp_ms, GENERATION, opened.session, 1, 1, (Increment(b"n", 5),))

        self.leave_behind()
        answer = self.group.propose(increment)
        self.write(60, at=100)
        self.group.start(3)
        self.group.run(3.0)
        self.group.crash(1)
        self.group.chances[2] = 1.0
        self.group.crash(2)
        self.group.start(2)
        self.group.run(3.0)
        self.assertEqual(self.group.leader(), 3)
        again = self.group.propose(increment)
        self.assertIsInstance(answer, Written)
        self.assertEqual(again, answer)
        self.assertEqual(self.group.get(3, b"n"), b"5")

    def test_a_restart_after_it(self) -> None:
        """What it was sent is on its disk: a crash right after loses nothing of it."""
        self.leave_behind()
        self.group.start(3)
        self.group.run_until(lambda: self.log_begin(3) > 0)
        self.group.run_until(lambda: not self.group.replica(3).is_installing)
        generation = self.group.replica(3).data_generation
        self.group.crash(3)
        sent = len(self.group.pieces())
        self.group.start(3)
        self.assertEqual(self.group.replica(3).data_generation, generation)
        self.group.run(3.0)
        self.assertEqual(len(self.group.pieces()), sent)
        self.assertEqual(self.group.get(3, b"key-59"), b"59" * 20)
        self.assert_same(1, 2, 3)

    def test_reads_wait_for_it(self) -> None:
        """A read that is asked for while the state is exchanged sees the new one, and does not look
        into what is being removed."""
        self.leave_behind()
        platter = self.group.platters[3]
        platter.is_cold = True
        self.group.start(3)
        self.group.run_until(lambda: self.group.replica(3)._installing.is_switching)
        early = DeferredReader(stored_key(0, b"before"))
        self.group.replica(3)._reads.confirmed.append((0, [early]))
        self.assertIsNone(self.group.replica(3).apply())  # nothing is loaded that is not durable
        self.assertNoResult(early)
        read = self.group.replica(3).read(b"key-59", 0)
        seen: list[Any] = []
        read.addBoth(seen.append)
        self.group.run(0.001)
        self.assertEqual(seen, [])
        self.group.run(2.0)
        self.assertEqual(bytes(seen[0].value), b"59" * 20)


class CrashTests(SnapshotCase):
    """R13: at whatever moment the follower dies, it has the old state or the new one."""

    def test_at_each_commit(self) -> None:
        """And of what was not synced, its disk may have kept any part."""
        for kept in (0, 1, 3, 1000):
            self.begin()
            self.leave_behind()
            old, cut, installed = self.on_disk(), 0, 0
            while self.dies_after(cut := cut + 1, kept):
                new = self.on_disk()
                if new[:2] == old[:2]:
                    self.assertEqual(new, old)
                elif new[0] == old[0]:
                    self.assertLess((old[1], new[1]), (2, 3))  # what its own log has
                    old = new
                else:
                    self.assertEqual(new[1:], self.group.digest(self.group.leader()))
                    self.write(60)  # it is behind again
                    installed, old = installed + 1, new
            self.assertGreater(cut, 10)
            self.assertGreater(installed, 0)
            self.assert_same(1, 2, 3)
            self.assertEqual(self.group.get(3, b"key-59"), b"59" * 20)

    def dies_after(self, commits: int, kept: int) -> bool:
        """Start node 3, and kill it after so many commits; whether it made as many, at all."""
        platter, clock = self.group.platters[3], self.group.network.clock
        node = self.group.start(3)
        begun, end = platter.commits, clock.seconds() + 8.0
        self.group.run_until(lambda: platter.commits - begun >= commits or clock.seconds() > end)
        self.assertIsNone(node.failed)
        if clock.seconds() > end:
            return False
        self.group.crash(3, kept)
        self.group.run(0.1)
        return True

    def on_disk(self) -> tuple[int, int, bytes]:
        """What node 3 comes back with: generation, index, and digest; nothing else is left."""
        node = self.group.start(3)
        generation = self.group.replica(3).data_generation
        self.assertLessEqual(generations(node.directory.engine), {generation})
        found = generation, *self.group.digest(3)
        self.group.crash(3)
        return found

    def test_the_leader_dies_midway(self) -> None:
        """The next one sends its own, and what the first one sent is removed."""
        self.leave_behind()
        self.group.start(3)
        self.group.run_until(lambda: len(self.group.pieces()) > 3)
        self.group.crash(1)
        self.group.run(5.0)
        self.assertEqual(self.group.leader(), 2)
        self.assertEqual(self.group.get(3, b"key-59"), b"59" * 20)
        self.group.start(1)
        self.assert_same(1, 2, 3)

    def test_it_is_deposed_midway(self) -> None:
        """Its view is closed, and the log is held no more."""
        self.leave_behind()
        self.group.network.bytes_per_second = 2_000.0
        self.group.start(3)
        self.group.run_until(lambda: len(self.group.pieces()) > 3)
        self.assertEqual(self.views(1), 1)
        self.group.cuts |= {(1, 2), (2, 1), (1, 3), (3, 1)}
        self.group.run_until(
            lambda: self.group.replica(1).raft.role is not Role.LEADER, seconds=5.0
        )
        self.group.run(1.5)
        self.assertEqual(self.views(1), 0)
        self.group.cuts.clear()
        self.group.network.bytes_per_second = float("inf")
        self.group.run(40.0)
        self.assert_same(1, 2, 3)
        self.assertEqual(self.group.get(3, b"key-59"), b"59" * 20)

    def test_the_follower_dies_midway(self) -> None:
        """The leader's view is closed."""
        self.leave_behind()
        self.group.start(3)
        self.group.run_until(lambda: len(self.group.pieces()) > 3)
        self.group.crash(3)
        self.group.run(2.0)
        self.assertEqual(self.views(1), 0)
        self.assertEqual(self.group.nodes[1].departures.under_way_count, 0)
        self.assertEqual(self.group.replica(1)._compaction._held, {})


class ManyTests(SnapshotCase):
    size = 5
    groups = 1

    def test_two_followers_at_once(self) -> None:
        """Each gets its own."""
        self.leave_behind(4, 5)
        self.group.start(4)
        self.group.start(5)
        self.group.run_until(lambda: self.group.nodes[1].departures.under_way_count == 2)
        self.group.run(5.0)
        self.assert_same(1, 2, 3, 4, 5)
        self.assertEqual(self.group.get(4, b"key-59"), b"59" * 20)
        self.assertEqual(self.group.get(5, b"key-59"), b"59" * 20)


class ManyGroupsTests(SnapshotCase):
    groups = 6

    def test_so_many_and_no_more(self) -> None:
        """A node that was away takes a few at a time, and comes back in all groups."""
        self.group.crash(3)
        self.group.run(3.0)
        for group in self.group.groups:
            self.write(60, group=group)
        out, coming = [0], [0]
        self.group.start(3)
        end = self.group.network.clock.seconds() + 10.0

        def is_over() -> bool:
            out.append(self.group.nodes[1].departures.under_way_count)
            coming.append(self.group.nodes[3].arrivals.open_count)
            return self.group.network.clock.seconds() > end

        self.group.run_until(is_over)
        self.assertEqual((max(out), max(coming)), (DEPARTURES_MAX, ARRIVALS_MAX))
        for group in self.group.groups:
            self.assertEqual(self.group.get(3, b"key-59", group), b"59" * 20)
        self.assert_same(1, 2, 3)


class LogTests(SnapshotCase):
    """R14: a tail is kept for slow followers, and they stop compaction for a while only."""

    def test_whoever_is_heard_of_is_waited_for(self) -> None:
        """Else a follower that misses a moment, as when its connection is made anew, is sent all of
        a partition; with long values it was so as soon as one entry was lost on the way."""
        self.patch(compaction, "LOG_BYTES_MAX", 1000)
        for number in range(40):
            self.group.cuts = {(1, 3)} if number % 10 < 3 else set()
            self.group.put((b"key-%d" % number, b"x" * 2000))
            self.group.run(0.1)
        self.group.run(5.0)
        self.group.put((b"last", b""))
        self.assertEqual(self.group.calls, [])
        self.assertEqual(self.group.get(3, b"key-39"), b"x" * 2000)
        self.assertLess(self.group.replica(1).raft.last_index - self.log_begin(1), 5)

    def test_but_not_for_ever(self) -> None:
        """A follower that never gets on would fill the leader's memory."""
        slow: Any = self.group.nodes[3].store._writer
        slow._seconds = 1000.0
        lengths = []
        for round in range(14):
            self.write(100, at=100 * round)
            lengths.append(self.group.replica(1).raft.last_index - self.log_begin(1))
        self.assertGreater(max(lengths), 5 * ENTRIES_MAX)
        self.assertLessEqual(max(lengths), compaction.HELD_TIMES * ENTRIES_MAX + 100)
        self.assertGreater(self.log_begin(1), 500)

    def test_whoever_is_silent_is_not(self) -> None:
        """A dead follower's log is short again at once."""
        self.leave_behind()
        self.assertLessEqual(self.group.replica(1).raft.last_index - self.log_begin(1), 30)

    def test_held_while_a_snapshot_is_under_way(self) -> None:
        """Else what follows it is gone when it is there, and the next one is due."""
        self.leave_behind()
        self.group.network.bytes_per_second = 2_000.0
        self.group.start(3)
        self.group.run_until(lambda: len(self.group.pieces()) > 1)
        index = self.group.replica(1).raft.progress()[3].pending_snapshot_index
        self.assertGreater(index, 0)
        self.write(100, at=1000)
        self.assertLessEqual(self.log_begin(1), index)
        self.group.network.bytes_per_second = float("inf")
        self.group.run(5.0)
        self.write(40, at=3000)
        self.assertGreater(self.log_begin(1), index + 50)
        self.assert_same(1, 2, 3)


class BoundTests(SnapshotCase):
    """What a peer can make a node keep is bounded, and what it sends corrupts nothing."""

    size = 3

    def setUp(self) -> None:
        super().setUp()
        self.leave_behind()
        self.stream = self.stream_of(1)
        self.index = self.group.digest(1)[0]
        raft = self.group.replica(1).raft
        self.term = raft.term
        self.group.run(1.0)
        # Nobody but this test says anything to node 3.
        self.group.cuts |= {(1, 3), (2, 3), (3, 1), (3, 2)}
        self.node = self.group.start(3)
        self.before = set(self.node.directory.engine.scan(b"", b"\xff"))
        self.line: Any = Line(1)

    def stream_of(self, number: int) -> list[bytes]:
        with self.group.nodes[number].directory.engine.view() as view:
            snapshot = snapshot_of(view, GROUP)
            assert snapshot is not None
            return list(snapshot.chunks(500))

    def ask(self, command: Any, line: Any = None, **arguments: Any) -> Any:
        respond: Callable[..., Any] = self.node.arrivals.responders()[command]
        done: Deferred[Any] = maybeDeferred(
            respond, line or self.line, {"keyspace": None, **arguments}
        )
        return self.group.network.result_of(done)

    def offer(self, line: Any = None, **changes: Any) -> int:
        said = {
            "group": GROUP,
            "sender": 1,
            "to": 3,
            "term": self.term,
            "index": self.index,
            "snapshot_term": self.term,
            "configuration": Configuration((1, 2, 3)).encode(),
        }
        transfer: int = self.ask(commands.OfferSnapshot, line, **said | changes)["transfer"]
        return transfer

    def piece(self, transfer: int, number: int, piece: bytes, last: bool, line: Any = None) -> Any:
        return self.ask(
            commands.SnapshotPiece, line, transfer=transfer, number=number, piece=piece, last=last
        )

    def pour(self, transfer: int, pieces: list[bytes]) -> None:
        for number, piece in enumerate(pieces):
            self.piece(transfer, number, piece, number == len(pieces) - 1)

    def refused(self, kind: type[KvtwistError], ask: Callable[..., Any], *args: Any) -> str:
        error = self.assertRaises(kind, ask, *args)
        return str(error)

    def assert_untouched(self) -> None:
        """The group's state is what it was, and nothing is left."""
        self.group.run(0.1)
        self.assertEqual(self.node.arrivals.open_count, 0)
        log_begins_at_0 = {
            each for each in self.node.directory.engine.scan(b"", b"\xff") if each[0][:1] != b"h"
        }
        self.assertEqual(log_begins_at_0, {each for each in self.before if each[0][:1] != b"h"})

    def test_a_whole_one(self) -> None:
        """What the tests below change is what matters in them."""
        self.pour(self.offer(), self.stream)
        self.group.run(0.1)
        self.assertEqual(self.group.digest(3)[0], self.index)
        self.assertEqual(self.log_begin(3), self.index)
        self.assertEqual(self.node.arrivals.open_count, 0)

    def test_rubbish(self) -> None:
        """It is refused, and removed."""
        whole = b"".join(self.stream)
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for pieces in (
            [b"nonsense" * 20],
            [*self.stream[:3], b"", b"\xff" * 500],
            self.stream[:-1],
            [*self.stream, b"more"],
            [bytes(flipped)],
            [whole[:-1] + bytes((whole[-1] ^ 1,))],
            [b""],
        ):
            why = self.refused(Refused, self.pour, self.offer(), pieces)
            self.assertIn("not what was announced", why)
            self.assert_untouched()

    def test_a_snapshot_of_another_moment(self) -> None:
        """Its log would begin at an entry that it does not have."""
        transfer = self.offer(index=self.index + 1)
        why = self.refused(Refused, self.pour, transfer, self.stream)
        self.assertIn("was announced", why)
        self.assert_untouched()

    def test_an_offer_that_makes_no_sense(self) -> None:
        """The core is given nothing that it could stumble over."""
        for change in (
            {"configuration": b"x"},
            {"index": 0},
            {"snapshot_term": self.term + 1},
            {"snapshot_term": 0},
        ):
            self.refused(MalformedRequest, lambda change=change: self.offer(**change))
        self.refused(Refused, lambda: self.offer(sender=2))
        self.refused(Refused, lambda: self.offer(group=99))
        self.assert_untouched()

    def test_in_order(self) -> None:
        """A piece twice, too early, too large, or of nobody's transfer."""
        transfer = self.offer()
        self.refused(Refused, self.piece, transfer, 1, self.stream[1], False)
        self.piece(transfer, 0, self.stream[0], False)
        self.refused(Refused, self.piece, transfer, 0, self.stream[0], False)
        self.refused(TooLarge, self.piece, transfer, 1, b"x" * (PIECE_BYTES_MAX + 1), False)
        self.refused(Unavailable, self.piece, transfer + 1, 1, self.stream[1], False)
        self.refused(Unavailable, self.piece, transfer, 1, self.stream[1], False, Line(1))
        for number, piece in enumerate(self.stream[1:], start=1):
            self.piece(transfer, number, piece, piece == self.stream[-1])
        self.assertEqual(self.log_begin(3), self.index)

    def test_two_pieces_at_once(self) -> None:
        """One is in hand; else there is no bound to what is in memory."""
        transfer = self.offer()
        respond: Any = self.node.arrivals.responders()[commands.SnapshotPiece]
        said = {"transfer": transfer, "number": 0, "piece": self.stream[0], "last": False}
        first = respond(self.line, {"keyspace": None, **said})
        self.assertRaises(Refused, respond, self.line, {"keyspace": None, **said})
        self.assertEqual(self.group.network.result_of(first), {})

    def test_silence(self) -> None:
        """Somebody who begins and goes away takes no room."""
        transfer = self.offer()
        self.piece(transfer, 0, self.stream[0], False)
        self.group.run(SILENT_SECONDS_MAX - 1)
        self.piece(transfer, 1, self.stream[1], False)
        self.group.run(SILENT_SECONDS_MAX - 1)
        self.assertEqual(self.node.arrivals.open_count, 1)
        self.group.run(2.0)
        self.refused(Unavailable, self.piece, transfer, 2, self.stream[2], False)
        self.assert_untouched()

    def test_it_does_not_last(self) -> None:
        """Somebody who sends a little in a while, for ever."""
        transfer = self.offer()
        whole = b"".join(self.stream)
        for number in range(int(LASTING_SECONDS_MAX // 20)):
            self.piece(transfer, number, whole[number : number + 1], False)
            self.group.run(20.0)
        why = self.refused(Unavailable, self.piece, transfer, number + 1, b"", False)
        self.assertIn("900 s", why)
        self.assert_untouched()

    def test_it_goes_with_its_connection(self) -> None:
        """A leader that died is not waited for."""
        transfer = self.offer()
        self.piece(transfer, 0, self.stream[0], False)
        self.line.lose()
        self.assert_untouched()

    def test_the_later_leader(self) -> None:
        """One transfer of a group: a later leader's ends an earlier one's, not the other way."""
        first = self.offer()
        self.piece(first, 0, self.stream[0], False)
        second = self.offer(term=self.term + 1)
        self.refused(Unavailable, self.piece, first, 1, self.stream[1], False)
        self.refused(Unavailable, self.offer)
        self.pour(second, self.stream)
        self.assertEqual(self.log_begin(3), self.index)

    def test_not_behind(self) -> None:
        """R13: a snapshot of what is there is not taken, and the leader learns how far it is."""
        self.pour(self.offer(), self.stream)
        generation = self.group.replica(3).data_generation
        said: list[Any] = []
        self.group.replica(3)._send = lambda group, message: said.append(message)
        self.assertEqual(self.offer(), 0)
        self.group.run(0.1)
        self.assertEqual([message.index for message in said], [self.index])
        self.group.replica(3).step(Heartbeat(2, 3, self.term + 1, 0))
        self.assertEqual(self.offer(index=self.index + 9), 0)
        self.group.run(0.1)
        self.assertEqual((said[-1].to, said[-1].term), (1, self.term + 1))
        self.assertEqual(self.group.replica(3).data_generation, generation)

    def append(self, last: int) -> None:
        """A leader's entries come, committed, up to *last*."""
        raft = self.group.replica(3).raft
        at, term = raft.last_index, raft.log.last_term
        entries = tuple(
            Entry(
                index,
                self.term,
                EntryKind.DATA,
                encode(Write(0, GENERATION, 0, 0, 0, (Put(b"other-%d" % index, b"x"),))),
            )
            for index in range(at + 1, last + 1)
        )
        request = AppendRequest(1, 3, self.term, at, term, entries, last)
        self.group.replica(3).step(request)

    def test_it_has_caught_up_meanwhile(self) -> None:
        """R13: what the core does not want is removed, and the state is its own."""
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:-1]):
            self.piece(transfer, number, piece, False)
        self.append(self.index)
        self.group.run(0.5)
        self.piece(transfer, len(self.stream) - 1, self.stream[-1], True)
        self.group.run(0.1)
        engine = self.node.directory.engine
        self.assertEqual(generations(engine), {1})
        self.assertEqual(self.group.digest(3)[0], self.index)
        self.assertEqual(self.group.replica(3).key_count, self.index - 1)
        self.assertFalse(self.group.replica(3).is_installing)

    def test_nobody_waits_for_the_answer(self) -> None:
        """The connection is lost while the core says that it does not want it: it is removed."""
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:-1]):
            self.piece(transfer, number, piece, False)
        self.append(self.index)
        self.group.run(0.5)
        replica = self.group.replica(3)
        respond: Any = self.node.arrivals.responders()[commands.SnapshotPiece]
        said = {"number": len(self.stream) - 1, "piece": self.stream[-1], "last": True}
        done = respond(self.line, {"keyspace": None, "transfer": transfer, **said})
        ended: list[Any] = []
        done.addBoth(ended.append)
        install = replica.install

        def install_and_hang_up(message: InstallSnapshot, incoming: Incoming) -> Deferred[bool]:
            self.node.host.callLater(0, done.cancel)
            return install(message, incoming)

        self.patch(replica, "install", install_and_hang_up)
        self.group.run(0.5)
        self.assertIsInstance(ended[0].value, CancelledError)
        self.assertEqual(generations(self.node.directory.engine), {1})

    def test_the_next_one_right_after(self) -> None:
        """What is removed of one that was not wanted must be gone before the next one comes: it
        fills the same keys, and would have holes."""
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:-1]):
            self.piece(transfer, number, piece, False)
        self.append(self.index)
        self.group.run(0.5)
        self.write(40, at=200)
        self.group.run(0.5)
        self.index, stream = self.group.digest(1)[0], self.stream_of(1)
        ended = self.begin_piece(transfer)
        self.group.run_until(lambda: bool(ended))
        self.pour(self.offer(), stream)
        self.assertEqual(self.group.digest(3), self.group.digest(1))
        self.assertEqual(generations(self.node.directory.engine), {2})

    def test_what_was_being_applied(self) -> None:
        """Entries that wait for the disk when the snapshot comes are in it already: to apply them
        to it once more would make another state."""
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:-1]):
            self.piece(transfer, number, piece, False)
        self.go_cold()
        reader: Any = self.node.store._reader
        reader._seconds = 0.5
        ended = self.begin_piece(transfer)
        self.append(self.index - 1)
        replica = self.group.replica(3)
        self.group.run_until(lambda: replica._installing.is_switching)
        self.assertLess(replica.applied_index, self.index - 1)
        self.assertIn(GROUP, {each.group for each in self.node.replicas._fetching})
        self.append(self.index + 3)
        self.group.run(5.0)
        self.assertEqual(ended, [{}])
        self.assertEqual(replica.applied_index, self.index + 3)
        keys = [key for key, _ in replica._state.records.items()]
        self.assertEqual(sum(key.endswith(b"other-%d" % (self.index + 1)) for key in keys), 1)
        self.assertEqual(sum(b"other" in key for key in keys), 3)
        self.assertEqual(replica.key_count, len(keys))

    def go_cold(self) -> None:
        """Have the node read each record from its disk."""
        self.group.platters[3].is_cold = True
        forget(self.group.replica(3)._state.records)

    def begin_last(self, transfer: int) -> list[Any]:
        """All pieces but the last one, which is begun; what comes of it."""
        for number, piece in enumerate(self.stream[:-1]):
            self.piece(transfer, number, piece, False)
        return self.begin_piece(transfer)

    def begin_piece(self, transfer: int) -> list[Any]:
        """The last one."""
        respond: Any = self.node.arrivals.responders()[commands.SnapshotPiece]
        said = {"number": len(self.stream) - 1, "piece": self.stream[-1], "last": True}
        ended: list[Any] = []
        respond(self.line, {"keyspace": None, "transfer": transfer, **said}).addBoth(ended.append)
        return ended

    def test_a_read_under_which_the_state_is_exchanged(self) -> None:
        """What a read waits for on the disk is gone when its turn comes there: it would say that
        there is no such key."""
        self.append(3)
        self.group.run(0.1)
        replica, reader = self.group.replica(3), DeferredReader(stored_key(0, b"before"))
        self.go_cold()
        slow: Any = self.node.store._reader
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:-1]):
            self.piece(transfer, number, piece, False)
        slow._seconds = 0.5
        ended = self.begin_piece(transfer)
        self.group.run(0.6)
        replica._reads.confirmed.append((3, [reader]))
        replica._changed(replica)
        self.group.run(0.2)
        self.assertIn(GROUP, {each.group for each in self.node.replicas._fetching})
        self.assertEqual(replica.data_generation, 1)
        self.group.run_until(lambda: bool(ended))
        record = self.group.network.result_of(reader)
        self.assertEqual(bytes(record.value), b"1")

    def test_its_connection_is_lost_while_it_is_filled(self) -> None:
        """What comes of a piece that was in hand must not be written after all was removed."""
        slow: Any = self.node.store._reader
        slow._seconds = 0.1
        transfer = self.offer()
        respond: Any = self.node.arrivals.responders()[commands.SnapshotPiece]
        said = {"number": 0, "piece": b"".join(self.stream[:-1]), "last": False}
        ended: list[Any] = []
        respond(self.line, {"keyspace": None, "transfer": transfer, **said}).addBoth(ended.append)
        self.group.run(0.05)
        self.line.lose()
        self.group.run(1.0)
        self.assertIsInstance(ended[0].value, Unavailable)
        self.assert_untouched()

    def test_another_one_meanwhile(self) -> None:
        """It would fill, and first empty, the generation that is being made the group's own."""
        ended = self.begin_last(self.offer())
        self.group.run_until(lambda: self.group.replica(3).is_installing)
        self.refused(Unavailable, lambda: self.offer(index=self.index + 5))
        self.group.run(1.0)
        self.assertEqual(ended, [{}])
        self.assertEqual(self.group.digest(3), self.group.digest(1))
        self.assertGreater(self.offer(index=self.index + 5), 0)

    def test_marks_never_fall(self) -> None:
        """S7: that nothing of the log is durable for a moment is no reason to forget what was."""
        for last in (5, 6):
            self.append(last)
            self.group.run(1.5)
        marks = self.node.directory.marks.known
        self.assertGreaterEqual(marks[GROUP].committed, 5)
        self.pour(self.offer(term=self.term + 1), self.stream)
        self.assertEqual(marks[GROUP].term, self.term + 1)
        self.assertGreaterEqual(marks[GROUP].committed, 5)

    def test_its_connection_is_lost_at_the_last_moment(self) -> None:
        """It is the replica's then, and not to be removed."""
        self.begin_last(self.offer())
        self.group.run_until(lambda: self.group.replica(3).is_installing)
        self.line.lose()
        self.group.run(1.0)
        self.assertEqual(self.log_begin(3), self.index)
        self.assertEqual(generations(self.node.directory.engine), {2})
        self.assertEqual(self.group.digest(3)[0], self.index)

    def test_what_was_to_be_written(self) -> None:
        """Changes of the state that goes, and where its log begins, must not be written over what
        takes its place."""
        self.append(5)
        self.group.run(0.1)
        replica = self.group.replica(3)
        install, base = replica.install, replica.raft.describe(0)

        def install_and_change(message: InstallSnapshot, incoming: Incoming) -> Deferred[bool]:
            replica.has_changes, replica._kept._base = True, base
            self.node.replicas._unsaved[GROUP] = replica
            return install(message, incoming)

        self.patch(replica, "install", install_and_change)
        self.pour(self.offer(), self.stream)
        self.group.run(1.0)
        self.assertEqual(replica.applied_index, self.index)
        self.assertEqual(self.group.digest(3), self.group.digest(1))
        self.group.crash(3)
        self.node = self.group.start(3)
        self.assertEqual(self.log_begin(3), self.index)

    def test_never_by_itself(self) -> None:
        """A message that says that there is a snapshot, and brings none, is passed over: the core
        would take it, and there is nothing to install."""
        raft = self.group.replica(3).raft
        snapshot = self.group.replica(1).raft.describe(self.index)
        self.group.replica(3).step(InstallSnapshot(1, 3, self.term, snapshot))
        self.group.run(0.1)
        self.assertEqual(raft.log.compacted_index, 0)
        self.assert_untouched()

    def test_a_full_disk(self) -> None:
        """It is refused, what was filled is removed once there is room, and it works then."""
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:5]):
            self.piece(transfer, number, piece, False)
        platter = self.group.platters[3]
        platter.trouble = DiskFull("the disk is full")
        pour = self.stream[5] + self.stream[6]
        self.assertRaises(KvtwistError, self.piece, transfer, 5, pour, False)
        self.assertEqual(self.node.arrivals.open_count, 0)
        self.refused(DiskFull, self.offer)
        platter.trouble = None
        self.group.run(3.0)
        self.assertEqual(generations(self.node.directory.engine), set())
        self.pour(self.offer(), self.stream)
        self.assertEqual(self.log_begin(3), self.index)

    def test_full_in_between(self) -> None:
        """What was filled before the disk was full may be lost when it is opened again: what was
        under way then never becomes whole."""
        transfer = self.offer()
        for number, piece in enumerate(self.stream[:5]):
            self.piece(transfer, number, piece, False)
        platter = self.group.platters[3]
        platter.trouble = DiskFull("the disk is full")
        written = self.node.store.write(Batch())
        written.addErrback(lambda failure: failure.trap(KvtwistError))
        self.group.run(0.1)
        self.assertEqual(self.node.arrivals.open_count, 0)
        platter.trouble = None
        self.group.run(3.0)
        self.refused(Unavailable, self.piece, transfer, 5, self.stream[5], False)
        self.pour(self.offer(), self.stream)
        self.assertEqual(self.group.digest(3)[0], self.index)

    def test_full_at_the_last_moment(self) -> None:
        """Whether it is the new state or the old one the disk will show: it must not be removed on
        suspicion."""
        platter, engine = self.group.platters[3], self.node.directory.engine
        ended = self.begin_last(self.offer())
        self.group.run_until(lambda: self.group.replica(3)._installing.is_switching)
        commit = engine.commit

        def commit_and_fail(batch: Any, *, sync: bool) -> None:
            commit(batch, sync=sync)
            platter.trouble = DiskFull("the disk is full, but for this one")
            raise platter.trouble

        self.patch(engine, "commit", commit_and_fail)
        self.group.run(2.0)
        self.assertEqual(ended, [])
        self.patch(engine, "commit", commit)
        platter.trouble = None
        self.group.run(3.0)
        self.assertIsInstance(ended[0].value, Unavailable)
        self.assertIsNone(self.node.failed)
        self.assertEqual(generations(engine), {2})
        self.group.cuts.clear()
        self.group.run(3.0)
        self.assert_same(1, 2, 3)
        self.assertEqual(self.group.get(3, b"key-59"), b"59" * 20)

    def test_stopped(self) -> None:
        """A node that stops waits for no peer."""
        self.offer()
        self.node.arrivals.stop()
        self.assertEqual(self.node.arrivals.open_count, 0)


class ViewTests(SnapshotCase):
    """S5: what pins room on the disk ends, however it ends."""

    def setUp(self) -> None:
        super().setUp()
        self.leave_behind()
        self.group.network.bytes_per_second = 2_000.0

    def send(self) -> None:
        self.group.start(3)
        self.group.run_until(lambda: len(self.group.pieces()) > 3)
        self.assertEqual(self.views(1), 1)

    def test_the_follower_is_silent(self) -> None:
        """Half a minute, no more."""
        self.send()
        self.group.cuts |= {(1, 3)}
        self.group.run(departures.SILENT_SECONDS_MAX - 2)
        self.assertEqual(self.views(1), 1)
        self.group.run(3.0)
        self.assertEqual(self.views(1), 0)

    def test_it_lasts(self) -> None:
        """A quarter of an hour is enough for any partition."""
        self.patch(departures, "LASTING_SECONDS_MAX", 10.0)
        self.send()
        (departure,) = self.group.nodes[1].departures._under_way.values()
        outgoing = departure.outgoing
        assert outgoing is not None
        self.group.network.bytes_per_second = 200.0
        self.group.run(3.0)
        self.assertIs(departure.outgoing, outgoing)
        self.group.run(8.0)
        self.assertIsNone(departure.outgoing)
        self.assertIsNone(outgoing._pieces)

    def test_a_full_disk(self) -> None:
        """Views are given up, since they pin what could make room; later it goes on."""
        self.send()
        platter = self.group.platters[1]
        platter.trouble = DiskFull("the disk is full")
        answer = self.group.replica(1).propose(
            lambda stamp: Write(stamp, GENERATION, 0, 0, 0, (Increment(b"n", 1),))
        )
        answer.addErrback(lambda failure: failure.trap(KvtwistError))
        store = self.group.nodes[1].store
        self.group.run_until(lambda: store.condition is Condition.FULL)
        self.group.run(0.01)
        self.assertIs(self.group.replica(1).raft.role, Role.LEADER)
        self.assertEqual(self.views(1), 0)
        platter.trouble = None
        self.group.network.bytes_per_second = float("inf")
        self.group.run(40.0)
        self.assert_same(1, 2, 3)

    def test_a_stop(self) -> None:
        """The node ends in order, whoever is behind."""
        self.send()
        self.group.nodes[1].departures.stop()
        self.group.run(0.1)
        self.assertEqual(self.views(1), 0)

    def test_damage(self) -> None:
        """S3: what is not what was written is sent to nobody."""
        engine = self.group.nodes[1].directory.engine
        (*_, (key, frame)) = engine.scan(RECORD, bytes((RECORD[0] + 1,)))
        said: list[str] = []
        self.patch(self.group.nodes[1].departures._seldom, "warn", said.append)
        engine._content.put(key, frame[:-1] + b"!")  # type: ignore[attr-defined]
        self.group.network.bytes_per_second = float("inf")
        self.group.start(3)
        self.group.run(3.0)
        self.assertIn("wrong checksum", said[0])
        self.assertEqual(self.views(1), 0)
        self.assertEqual(self.log_begin(3), 0)
        self.assertLessEqual(generations(self.group.nodes[3].directory.engine), {1})

    def test_wanted_no_more(self) -> None:
        """The core wants to find out without it, or wants another one."""
        self.send()
        (departure,) = self.group.nodes[1].departures._under_way.values()
        self.group.replica(1).raft.progress()[3].probe()
        self.group.run(1.1)
        self.assertTrue(departure.is_over)
        self.assertLessEqual(self.views(1), 1)
        self.group.network.bytes_per_second = float("inf")
        self.group.run(5.0)
        self.assert_same(1, 2, 3)


class RefusalTests(SnapshotCase):
    def test_a_node_that_takes_no_more(self) -> None:
        """It is asked again, once a second at most, and it works in the end."""
        self.leave_behind()
        self.patch(arrivals, "ARRIVALS_MAX", 0)
        self.group.start(3)
        self.group.run(5.0)
        offers = [call for call in self.group.calls if call[2] is commands.OfferSnapshot]
        self.assertIn(len(offers), (2, 3, 4, 5, 6))
        self.patch(arrivals, "ARRIVALS_MAX", 1)
        self.group.run(5.0)
        self.assert_same(1, 2, 3)


class RandomTests(SnapshotCase):
    """Crashes, cuts, slow networks and full disks, in any order, under logs that forget at once."""

    groups = 2

    def test_some_seeds(self) -> None:
        """What was acknowledged is everywhere in the end, and everybody has the same."""
        snapshots = writes = 0
        for seed in range(FIRST_SEED, FIRST_SEED + SEEDS):
            try:
                offers, acknowledged = self.run_seed(seed)
            except BaseException:
                print(f"seed {seed}")
                raise
            snapshots, writes = snapshots + offers, writes + acknowledged
        self.assertGreater(snapshots, 2 * SEEDS)
        self.assertGreater(writes, 150 * SEEDS)

    def run_seed(self, seed: int) -> tuple[int, int]:
        """How many snapshots were offered, and writes acknowledged."""
        chance = random.Random(seed)
        self.begin()
        acknowledged: dict[int, set[bytes]] = {group: set() for group in self.group.groups}
        for step in range(40):
            self.act(chance)
            for number in list(self.group.nodes):
                for group in self.group.groups:
                    self.try_to_write(
                        b"%d-%d-%d" % (step, number, group), number, group, acknowledged
                    )
            self.group.run(chance.choice((0.05, 0.5, 1.0, 3.0)))
        self.group.cuts.clear()
        self.group.network.bytes_per_second = float("inf")
        for number, platter in self.group.platters.items():
            platter.trouble = None
            if number not in self.group.nodes:
                self.group.start(number)
        self.group.run(50.0)
        self.assert_same(*self.group.nodes)
        for group, keys in acknowledged.items():
            for number in self.group.nodes:
                records = self.group.replica(number, group)._state.records
                found = {key[4:] for key, _ in records.items()}
                self.assertLessEqual(keys, found)
        offers = sum(call[2] is commands.OfferSnapshot for call in self.group.calls)
        return offers, sum(map(len, acknowledged.values()))

    def act(self, chance: random.Random) -> None:
        """Something happens."""
        group, number = self.group, chance.randint(1, 3)
        what = chance.random()
        if number not in group.nodes:
            group.platters[number].trouble = None  # else it does not start
            group.start(number)
        elif what < 0.35:
            group.crash(number, kept=chance.choice((0, 1, 3, 1000)))
        elif what < 0.5:
            group.cuts ^= {(number, chance.randint(1, 3))}
        elif what < 0.6:
            group.network.bytes_per_second = chance.choice((2e3, 2e4, float("inf")))
        elif what < 0.7:
            platter = group.platters[number]
            platter.trouble = None if platter.trouble else DiskFull("the disk is full")
        else:
            group.cuts.clear()

    def try_to_write(
        self, key: bytes, number: int, group: int, acknowledged: dict[int, set[bytes]]
    ) -> None:
        """If that one leads, as far as it knows."""
        replica = self.group.nodes[number].replicas.all().get(group)
        if replica is None or not replica.leads:
            return
        for count in range(12):
            each = b"%s-%d" % (key, count)
            done = replica.propose(partial(put, each))
            done.addCallback(partial(note, acknowledged[group], each))
            done.addErrback(lambda failure: failure.trap(KvtwistError))


def put(key: bytes, stamp_ms: int) -> Write:
    return Write(stamp_ms, GENERATION, 0, 0, 0, (Put(key, b"x" * 30),))


def note(keys: set[bytes], key: bytes, answer: Any) -> None:
    assert isinstance(answer, Written)
    keys.add(key)
