"""The simulated world itself: time, network, disk. A kind world finds nothing."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, HardState, Message, Snapshot
from kvtwist.core.raft.messages import Heartbeat, InstallSnapshot
from tests.sim.disk import Disk, Write
from tests.sim.network import SHAPES, Network, has_connected_majority
from tests.sim.plan import Disks, Links
from tests.sim.schedule import TICK, Schedule

GROUP = Configuration((1, 2, 3))


class ScheduleTests(SynchronousTestCase):
    """Virtual time."""

    def test_order(self) -> None:
        """By moment, then by when it was planned: anything else depends on the machine."""
        schedule, seen = Schedule(), list[str]()
        schedule.after(5, seen.append, "c")
        schedule.after(1, seen.append, "a")
        schedule.after(5, seen.append, "d")
        schedule.after(2, seen.append, "b")
        schedule.after(6, seen.append, "later")
        schedule.run_until(5)
        self.assertEqual((seen, schedule.now), (["a", "b", "c", "d"], 5))


class NetworkTests(SynchronousTestCase):
    """What happens to messages."""

    def network(self, links: Links) -> Network:
        """One whose messages are gathered in ``self.arrived``, and reports in ``self.told``."""
        self.schedule = Schedule()
        self.arrived: list[Message] = []
        self.told: list[bool] = []

        def deliver(message: Message) -> bool:
            self.arrived.append(message)
            return True

        return Network(
            self.schedule, Random(1), links, deliver, lambda _, told: self.told.append(told)
        )

    def heartbeats(self, network: Network, count: int) -> list[int]:
        """The terms of those that arrive, of heartbeats of terms 1, 2, ... from 1 to 2."""
        for term in range(1, count + 1):
            network.send(Heartbeat(1, 2, term, 0))
        self.schedule.run_until(1000 * TICK)
        return [message.term for message in self.arrived]

    def test_loss(self) -> None:
        """About as many as it says."""
        arrived = self.heartbeats(self.network(Links(loss=0.3)), 1000)
        self.assertTrue(600 < len(arrived) < 800, len(arrived))

    def test_duplication_and_reordering(self) -> None:
        """Some come twice, and some behind later ones."""
        arrived = self.heartbeats(self.network(Links(duplication=0.1, late=0.1)), 1000)
        self.assertEqual(set(arrived), set(range(1, 1001)))
        self.assertTrue(1050 < len(arrived) < 1200, len(arrived))
        self.assertNotEqual(arrived, sorted(arrived))

    def test_cut_is_directed(self) -> None:
        """What is under way on a link that is cut is lost; the way back is open."""
        network = self.network(Links())
        network.send(Heartbeat(1, 2, 7, 0))
        network.cut = frozenset({(1, 2)})
        network.send(Heartbeat(2, 1, 8, 0))
        self.schedule.run_until(TICK)
        self.assertEqual([message.term for message in self.arrived], [8])

    def test_snapshots_are_reported(self) -> None:
        """Their sender learns what became of each, or it would wait for ever (R14)."""
        network = self.network(Links())
        network.cut = frozenset({(1, 2)})
        for receiver in (2, 3):
            network.send(InstallSnapshot(1, receiver, 1, Snapshot(1, 1, GROUP)))
        self.schedule.run_until(10 * TICK)
        self.assertEqual(sorted(self.told), [False, True])

    def test_shapes(self) -> None:
        """R9: every shape cuts something off five members, and nobody from itself."""
        for name, shape in SHAPES.items():
            for seed in range(20):
                cut = shape((1, 2, 3, 4, 5), Random(seed))
                self.assertTrue(cut, name)
                self.assertFalse({(each, each) for each in range(6)} & cut, name)

    def test_connected_majority(self) -> None:
        """R9: who must elect, and who need not."""
        both = frozenset({(1, 2), (2, 1)})
        self.assertTrue(has_connected_majority((1, 2, 3), both))
        self.assertFalse(has_connected_majority((1, 2), both))
        self.assertFalse(has_connected_majority((1, 2), frozenset({(1, 2)})))
        ring = frozenset((a, b) for a in range(5) for b in range(5) if (a - b) % 5 not in (0, 1, 4))
        self.assertFalse(has_connected_majority(tuple(range(5)), ring))


class DiskTests(SynchronousTestCase):
    """What a crash leaves (S1, R1)."""

    def disk(self, keeps_unsynced: float, seed: int = 0) -> Disk:
        """One with a write that is synced and two that are not."""
        self.schedule = Schedule()
        self.synced: list[bool] = []
        disks = Disks(sync_moments=10, keeps_unsynced=keeps_unsynced)
        disk = Disk(self.schedule, Random(seed), disks, GROUP)
        disk.start()
        disk.write(Write(HardState(1, 1), entries=(Entry(1, 1), Entry(2, 1))))
        disk.sync(self.synced.append)
        self.schedule.run_until(20)
        disk.write(Write(HardState(2, 2), entries=(Entry(2, 2),)))
        disk.write(Write(entries=(Entry(3, 2),)))
        return disk

    def test_unsynced_is_lost(self) -> None:
        """All of it, and nothing else."""
        disk = self.disk(keeps_unsynced=0.0)
        self.assertEqual((disk.written.hard_state.term, disk.written.last_index), (2, 3))
        self.assertTrue(disk.crash())
        self.assertEqual(disk.written.hard_state, HardState(1, 1))
        self.assertEqual([entry.term for entry in disk.written.entries], [1, 1])

    def test_unsynced_may_survive(self) -> None:
        """A first part of it, whole writes only: never the second without the first."""
        left = set()
        for seed in range(40):
            disk = self.disk(keeps_unsynced=1.0, seed=seed)
            disk.crash()
            image = disk.written
            left.add((image.hard_state.term, tuple(entry.term for entry in image.entries)))
        self.assertEqual(left, {(1, (1, 1)), (2, (1, 2)), (2, (1, 2, 2))})

    def test_sync_covers_what_was_written_before_it_began(self) -> None:
        """And not what came while it was under way: an acknowledgement would be early."""
        disk = self.disk(keeps_unsynced=0.0)
        disk.sync(self.synced.append)
        disk.write(Write(entries=(Entry(4, 2),)))
        self.schedule.run_until(40)
        self.assertEqual((self.synced, disk.durable.last_index), ([True, True], 3))

    def test_failed_sync(self) -> None:
        """It says so, and has made nothing durable."""
        disk = self.disk(keeps_unsynced=0.0)
        disk.fails = True
        disk.sync(self.synced.append)
        self.schedule.run_until(40)
        self.assertEqual((self.synced, disk.durable.hard_state.term), ([True, False], 1))

    def test_sync_of_a_former_life(self) -> None:
        """One that was under way at the crash tells the next life nothing."""
        disk = self.disk(keeps_unsynced=0.0)
        disk.sync(self.synced.append)
        disk.crash()
        disk.start()
        disk.write(Write(HardState(9, 0)))
        self.schedule.run_until(60)
        self.assertEqual((self.synced, disk.durable.hard_state.term), ([True], 1))

    def test_snapshot_and_compaction(self) -> None:
        """R13: a snapshot takes the place of everything; a compaction leaves the tail."""
        disk = self.disk(keeps_unsynced=0.0)
        disk.write(Write(compacted=Snapshot(1, 1, GROUP, b"two"), applied=2))
        image = disk.written
        self.assertEqual((image.compacted_index, image.last_index), (1, 3))
        self.assertEqual((image.state_index, image.state, image.applied), (2, b"two", 2))
        disk.write(Write(snapshot=Snapshot(9, 2, GROUP, b"nine"), entries=(Entry(10, 2),)))
        self.assertEqual((image.compacted_index, image.last_index), (9, 10))
        self.assertEqual((image.state_index, image.state, image.applied), (9, b"nine", 9))
