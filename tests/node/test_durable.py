"""Nodes that keep their data: nothing that was acknowledged is lost, whatever happens to them."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from kvtwist.core.address import Address
from kvtwist.core.groups import group_of
from kvtwist.core.ring import partition_of
from kvtwist.core.topology import Settings
from kvtwist.errors import (
    DiskFull,
    KvtwistError,
    NotDone,
    OutcomeUnknown,
    StoreDamaged,
    StoreFailed,
    Unavailable,
    VersionMismatch,
)
from kvtwist.node.compaction import LOG_BYTES_MAX, LOG_ENTRIES_MAX
from kvtwist.node.replicas import TICK_SECONDS
from kvtwist.storage.engine import Batch
from kvtwist.storage.layout import (
    ENTRY,
    RECORD,
    entry_key,
    generation_prefix,
    generation_range,
)
from kvtwist.storage.states import load_header
from tests.cluster import ip_of
from tests.durable import PARTITIONS, DurableCase
from tests.storage.simulated import Platter


class OperationTests(DurableCase):
    """What the commands do is what they do in memory."""

    def test_each_command(self) -> None:
        """A program that was tried on a cluster in memory runs on one with disks."""
        version = self.put("k", "1")
        self.assertEqual(self.get("k"), b"1")
        swapped = self.result(self.client.compare_and_set("k", "2", version))
        self.assertGreater(swapped, version)
        seen = self.failureResultOf(self.ended(self.client.compare_and_set("k", "3", version)))
        self.assertIsInstance(seen.value, VersionMismatch)
        self.assertEqual((seen.value.version, seen.value.value), (swapped, b"2"))
        self.assertTrue(self.result(self.client.delete("k")))
        self.assertFalse(self.result(self.client.delete("k")))
        self.assertIsNone(self.get("k"))
        again = self.result(self.client.compare_and_set("k", "new", 0))
        self.assertGreater(again, swapped)

    def ended(self, deferred: Deferred[Any]) -> Deferred[Any]:
        self.cluster.run(3.0)
        return deferred

    def test_many_keys(self) -> None:
        """Each key for itself, in one box, over all partitions."""
        wanted = {f"key-{number}": f"value-{number}" for number in range(50)}
        versions = self.result(self.client.put_many(wanted))
        self.assertEqual(set(versions), set(wanted))
        found = self.result(self.client.get_many([*wanted, "absent"]))
        self.assertEqual(
            {key: record and record.value.decode() for key, record in found.items()},
            {**wanted, "absent": None},
        )

    def test_large_values(self) -> None:
        """A value is an entry of the log, and a record, whole."""
        large = "x" * (3 << 20)
        self.put("k", large)
        self.assertEqual(self.get("k"), large.encode())
        self.cluster.crash(1)
        self.restart()
        self.assertEqual(self.get("k"), large.encode())

    def test_what_is_not_in_memory(self) -> None:
        """Data may be larger than memory: records are fetched when they are needed."""
        self.cluster.go_cold(1)
        for number in range(10):
            self.put(f"key-{number}", "1")
            version = self.result(self.client.get(f"key-{number}")).version
            self.result(self.client.compare_and_set(f"key-{number}", "2", version))
        self.assertEqual(self.get("key-3"), b"2")


class RestartTests(DurableCase):
    def test_a_killed_node_has_everything(self) -> None:
        """`kill -9` loses nothing acknowledged, however little of the rest is kept."""
        for kept in (0, 1, 2, 1000):
            for number in range(20):
                self.put(f"key-{number}", f"{kept}")
            self.cluster.crash(1, kept)
            self.restart()
            for number in range(20):
                self.assertEqual(self.get(f"key-{number}"), b"%d" % kept)

    def test_killed_under_load(self) -> None:
        """What was answered is there; what was not may be, whole."""
        answered: dict[str, str] = {}
        for life in range(10):
            puts = {f"key-{number}": f"{life}-{number}" for number in range(30)}
            for key, value in puts.items():
                done: Deferred[Any] = self.client.put(key, value)
                done.addCallback(partial(_note, answered, key, value))
                done.addErrback(lambda failure: failure.trap(KvtwistError))
            self.cluster.run(0.002 + 0.0007 * life)
            before = dict(answered)
            self.cluster.crash(1, kept=life % 3)
            self.restart()
            self.client = self.cluster.client()
            for key, value in before.items():
                found = self.get(key)
                self.assertIn(found, (value.encode(), puts[key].encode()))
        self.assertGreater(len(answered), 10)

    def test_what_a_crash_left_of_a_snapshot(self) -> None:
        """A generation that is nobody's takes room for ever."""
        self.put("k", "v")
        platter, group = self.cluster.platters[1], group_of(0)
        orphan = Batch()
        orphan.put(generation_prefix(RECORD, group, 9) + b"left", b"behind")
        self.cluster.crash(1)
        platter.synced.commit(orphan, sync=True)
        self.restart()
        self.assertEqual(list(platter.synced.scan(*generation_range(RECORD, group, 9))), [])
        self.assertEqual(self.get("k"), b"v")

    def test_versions_go_on(self) -> None:
        """A version that was seen before a restart never names another value after it."""
        before = self.put("k", "1")
        self.cluster.crash(1)
        self.restart()
        self.assertGreater(self.put("k", "2"), before)

    def test_stopped_in_order(self) -> None:
        """A stop closes the store; nothing is lost by it either."""
        self.put("k", "v")
        self.result(self.cluster.nodes[1].stopService())
        self.restart()
        self.assertEqual(self.get("k"), b"v")

    def test_nothing_is_answered_before_its_sync(self) -> None:
        """R1: an acknowledgement is a promise."""
        self.put("warm", "up")
        done = self.client.put("k", "v")
        platter = self.cluster.platters[1]
        while not done.called:
            self.cluster.run(0.0001)
        self.assertTrue(
            any(b"v" in frame for _, frame in platter.synced.scan(ENTRY, bytes((ENTRY[0] + 1,))))
        )

    def test_a_log_does_not_grow_for_ever(self) -> None:
        """It is on the disk, and in memory."""
        platter = self.cluster.platters[1]
        for _ in range(3 * PARTITIONS * LOG_ENTRIES_MAX // 500):
            wanted = {f"key-{number}": "v" for number in range(500)}
            self.result(self.client.put_many(wanted))
        self.cluster.run(1.0)
        self.result(self.client.put_many(wanted))  # what removes entries is synced with others
        for partition in range(PARTITIONS):
            group = group_of(partition)
            kept = list(platter.synced.scan(entry_key(group, 0), entry_key(group, 1 << 40)))
            self.assertLessEqual(len(kept), LOG_ENTRIES_MAX + 1)
            raft = self.replicas().replica(group).raft
            self.assertGreater(raft.log.compacted_index, LOG_ENTRIES_MAX // 2)
            self.assertLessEqual(raft.last_index - raft.log.compacted_index, LOG_ENTRIES_MAX + 1)
        self.cluster.crash(1)
        self.restart()
        self.assertEqual(self.get("key-7"), b"v")

    def test_a_log_of_large_values(self) -> None:
        """It is bounded by bytes, too."""
        for number in range(20):
            self.put("k", f"{number}" * (LOG_BYTES_MAX // 4))
        self.cluster.run(1.0)
        log = next(
            replica.raft.log
            for replica in (self.replicas().replica(group_of(at)) for at in range(PARTITIONS))
            if replica.raft.last_index > 10
        )
        self.assertLess(log.last_index - log.compacted_index, 8)


class SavingTests(DurableCase):
    """What was applied is in the log already: it is written into the state when that is cheap."""

    partitions = 1

    def saved_index(self) -> int:
        """How far the state in the store is."""
        header = load_header(group_of(0), self.cluster.platters[1].synced)
        assert header is not None
        return header.applied_index

    def test_with_the_next_batch(self) -> None:
        """A commit for each write, and not another one after it: else half of what a disk can do is
        spent on what a crash would not miss."""
        store = self.cluster.nodes[1]._partitions._store  # type: ignore[attr-defined]
        before = store.commits
        start = self.cluster.network.clock.seconds()
        for number in range(200):
            self.put("k", f"{number}")
        ticks = (self.cluster.network.clock.seconds() - start) / TICK_SECONDS
        self.assertLessEqual(store.commits - before, 200 + ticks + 1)
        applied = self.replicas().replica(group_of(0)).applied_index
        self.assertEqual(self.saved_index(), applied - 1, "all but what came with the last one")

    def test_when_nothing_follows(self) -> None:
        """Else it is applied anew after each restart, and the log is never compacted."""
        self.put("k", "v")
        self.assertLess(self.saved_index(), self.replicas().replica(group_of(0)).applied_index)
        self.cluster.run(2 * TICK_SECONDS)
        commits = self.cluster.nodes[1]._partitions._store.commits  # type: ignore[attr-defined]
        platter = self.cluster.platters[1]
        platter.crash(kept=len(platter.unsynced))
        self.assertEqual(self.saved_index(), self.replicas().replica(group_of(0)).applied_index)
        self.assertEqual(self.get("k"), b"v")
        self.cluster.run(20 * TICK_SECONDS)
        after = self.cluster.nodes[1]._partitions._store.commits  # type: ignore[attr-defined]
        self.assertEqual(after, commits, "and once is enough")

    def test_killed_before_it_is_saved(self) -> None:
        """R1: what was answered is there, although neither the state nor the commit index was
        written: the log has it."""
        for number in range(20):
            self.put("k", f"{number}")
            self.cluster.crash(1)
            self.restart()
            self.assertEqual(self.get("k"), b"%d" % number)


class DiskTests(DurableCase):
    """S1, S2, S8: what a node does when its disk does not."""

    def outcome(self, deferred: Deferred[Any]) -> BaseException:
        ended: list[Any] = []
        deferred.addBoth(ended.append)
        self.cluster.run(10.0)
        error: BaseException = ended[0].value
        return error

    def test_after_a_failed_sync_the_node_ends(self) -> None:
        """S1: one clear line, and nobody is told that it was done."""
        self.put("k", "1")
        self.cluster.run(1.0)
        self.cluster.platters[1].trouble = StoreFailed("fdatasync: Input/output error")
        error = self.outcome(self.client.put("k", "2"))
        self.assertIsInstance(error, OutcomeUnknown)
        why = self.cluster.hopeless["node-1"]
        self.assertIn("Input/output error", str(why))

    def test_changes_that_cannot_be_taken_end_the_node(self) -> None:
        """A state that is not what it should be: the node ends, and does not go on without what
        ticks and saves."""
        self.put("k", "v")
        replica = self.replicas().replica(group_of(partition_of(b"k", PARTITIONS)))

        def broken(_: Batch) -> None:
            raise ValueError("a count below 0")

        replica.take_changes = broken  # type: ignore[assignment, method-assign]
        self.client.put("k", "w").addErrback(lambda _: None)
        self.cluster.run(1.0)
        self.assertIn("node-1", self.cluster.hopeless)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_full_disk(self) -> None:
        """S2: reads go on, writes get a definite error; with room again it serves, without a
        restart, and has everything."""
        self.put("k", "1")
        self.put("other", "1")
        self.cluster.run(1.0)
        platter = self.cluster.platters[1]
        platter.trouble = DiskFull("the disk is full")
        self.assertIsInstance(self.outcome(self.client.put("other", "2")), OutcomeUnknown)
        refused = self.outcome(self.client.put("k", "2"))
        self.assertIsInstance(refused, NotDone)
        self.assertIn("full", str(refused))
        self.assertEqual(self.get("k"), b"1")
        platter.trouble = None
        self.cluster.run(5.0)
        self.assertEqual(self.get("k"), b"1")
        self.put("k", "3")
        self.assertEqual(self.get("k"), b"3")
        self.assertEqual(self.cluster.hopeless, {})

    def test_made_again_it_is_another_one(self) -> None:
        """R5: a replica that is made anew in the same life of its node must not use the numbers of
        its reads again: an old answer would confirm a new read."""
        group = group_of(partition_of(b"k", PARTITIONS))
        before = self.replicas().replica(group).raft._state.read_number
        platter = self.cluster.platters[1]
        platter.trouble = DiskFull("the disk is full")
        self.outcome(self.client.put("k", "1"))
        platter.trouble = None
        self.cluster.run(5.0)
        self.assertGreater(
            self.replicas().replica(group).raft._state.read_number >> 32, before >> 32
        )

    def test_a_read_under_which_the_store_is_opened_again(self) -> None:
        """S8: the old handle is closed, and says so; that is no reason to end the node."""
        self.put("k", "1")
        self.cluster.run(1.0)
        platter = self.cluster.platters[1]
        self.cluster.go_cold(1)
        platter.trouble = DiskFull("the disk is full")
        self.outcome(self.client.put("other", "2"))
        platter.read_trouble = RuntimeError("closed")
        self.outcome(self.client.get("k"))
        self.assertEqual(self.cluster.hopeless, {})
        platter.trouble = platter.read_trouble = None
        self.cluster.run(5.0)
        self.assertEqual(self.get("k"), b"1")
        platter.read_trouble = RuntimeError("broken")
        self.outcome(self.client.get("k"))
        self.assertIn("broken", str(self.cluster.hopeless["node-1"]))

    def test_a_store_that_has_gone_back(self) -> None:
        """S7: a copy from yesterday is refused; it has forgotten what others count on."""
        self.put("k", "1")
        self.cluster.run(3.0)
        self.put("k", "2")
        self.cluster.run(3.0)
        self.put("k", "3")
        platter = self.cluster.platters[1]
        self.cluster.crash(1)
        group = group_of(partition_of(b"k", PARTITIONS))
        entries = list(platter.synced.scan(entry_key(group, 0), entry_key(group, 1 << 40)))
        for key, _ in entries[-2:]:
            platter.synced._content.remove(key)
        error = self.assertRaises(StoreDamaged, self.cluster.start_node, 1)
        self.assertIn("has gone back", str(error))


class SeveralNodesTests(DurableCase):
    size = 3
    partitions = 16

    def test_forwarding_and_restarts(self) -> None:
        """Each node has its partitions, and only those; all come back after all were killed."""
        wanted = {f"key-{number}": f"{number}" for number in range(30)}
        for key, value in wanted.items():
            self.result(self.cluster.client(1).put(key, value))
        for number in (1, 2, 3):
            self.cluster.crash(number)
        for number in (3, 1, 2):
            self.cluster.start_node(number)
        self.cluster.run(3.0)
        self.client = self.cluster.client(2)
        for key, value in wanted.items():
            self.assertEqual(self.get(key), value.encode())

    def test_back_without_the_others(self) -> None:
        """Alone it answers nothing that only a majority knows, and says so; two are enough."""
        key = self.cluster.key_of(2)
        self.put(key, "v")
        for number in (1, 2, 3):
            self.cluster.crash(number)
        self.restart(2)
        self.client = self.cluster.client(2)
        error = self.assertRaises(Unavailable, self.get, key)
        self.assertIn("no majority of", str(error))
        self.restart(3)
        self.assertEqual(self.get(key), b"v")

    def test_an_empty_disk_is_not_who_it_was(self) -> None:
        """R11: its promises are lost; it must not make others."""
        self.cluster.crash(2)
        self.cluster.platters[2].cleanup()
        self.cluster.platters[2] = Platter()
        self.cluster.start_node(2)
        self.cluster.run(3.0)
        self.assertIn("another data directory", str(self.cluster.hopeless["node-2"]))

    def test_a_memory_node_is_refused(self) -> None:
        """It would forget what the cluster counts on."""
        self.cluster.crash(2)
        self.cluster.start_node(2, settings=Settings(partitions=self.partitions))
        self.cluster.run(3.0)
        self.assertIn("without --memory", str(self.cluster.hopeless["node-2"]))

    def test_another_address(self) -> None:
        """In this release an address is part of the founding: it says so."""
        self.cluster.crash(2)
        listen = Address(ip_of(9), 8001)
        error = self.assertRaises(KvtwistError, self.cluster.start_node, 2, listen=listen)
        self.assertIn("knows node-2 at", str(error))


def _note(answered: dict[str, str], key: str, value: str, _: object) -> None:
    answered[key] = value
