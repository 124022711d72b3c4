"""What runs are made of: clocks, hosts, connections, disks. If these are wrong, so is all else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import DiskFull, StoreFailed
from kvtwist.storage.engine import Batch
from kvtwist.storage.marks import Mark
from tests.simnodes.clock import Clock
from tests.simnodes.disk import Disk, Engine, Worker, failed, full
from tests.simnodes.network import Host, Network
from tests.simnodes.plan import Disks, Links
from tests.simnodes.trace import Trace

HERE, THERE = "10.0.0.1", "10.0.0.2"


class WorldCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.network = Network(self.clock, Random(1), self.trace, Links())
        self.host = self.network.boot(HERE)
        self.happened: list[Any] = []

    def note(self, what: object) -> None:
        self.happened.append((what, self.clock.now))


class TimerTests(WorldCase):
    """As Twisted's reactors have them."""

    def test_order(self) -> None:
        """Of two at one moment the one that was set first: a run has one order only."""
        for what in "ab":
            self.host.callLater(2.0, self.note, what)
        self.host.callLater(1.0, self.note, "c")
        self.clock.run_until(5.0)
        self.assertEqual(self.happened, [("c", 1.0), ("a", 2.0), ("b", 2.0)])

    def test_cancelled_reset_and_put_off(self) -> None:
        """Timeouts that go off though they were cancelled would be found as bugs of the node."""
        cancelled, sooner, later = (self.host.callLater(2.0, self.note, what) for what in "abc")
        cancelled.cancel()
        sooner.reset(1.0)
        later.delay(1.0)
        self.assertFalse(cancelled.active())
        self.assertRaises(AlreadyCancelled, cancelled.cancel)
        self.clock.run_until(5.0)
        self.assertEqual(self.happened, [("b", 1.0), ("c", 3.0)])
        self.assertRaises(AlreadyCalled, later.cancel)

    def test_clocks_differ(self) -> None:
        """A fast clock's timers go off early."""
        fast = self.network.boot(THERE, clock_rate=1.25)
        began = fast.seconds()
        fast.callLater(1.0, self.note, "fast")
        self.clock.run_until(2.0)
        self.assertEqual(self.happened, [("fast", 0.8)])
        self.assertAlmostEqual(fast.seconds() - began, 2.5)

    def test_frozen(self) -> None:
        """What is late comes when the host goes on, and not before."""
        self.host.callLater(1.0, self.note, "late")
        self.host.freeze()
        self.clock.run_until(3.0)
        self.assertEqual(self.happened, [])
        self.host.thaw()
        self.assertEqual(self.happened, [("late", 3.0)])

    def test_slow(self) -> None:
        """One thing after the other, in their order."""
        self.host.slow_seconds = 0.5
        for what in "abc":
            self.host.callLater(1.0, self.note, what)
        self.clock.run_until(9.0)
        self.assertEqual(self.happened, [("a", 1.0), ("b", 1.5), ("c", 2.0)])

    def test_dead(self) -> None:
        """Nothing of a killed process runs."""
        self.host.callLater(1.0, self.note, "ghost")
        self.host.die("killed")
        self.clock.run_until(3.0)
        self.assertEqual(self.happened, [])


class Ear(Protocol):
    def __init__(self, heard: list[Any]) -> None:
        self.heard = heard

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.heard.append(type(reason.value).__name__)


class Ends(Factory):
    """Makes ends of connections, and tells of each."""

    noisy = False

    def __init__(self, heard: list[Any], made: Callable[[Ear], None] = lambda end: None) -> None:
        self._heard = heard
        self._made = made

    def buildProtocol(self, addr: object) -> Ear:
        end = Ear(self._heard)
        self._made(end)
        return end

    def startedConnecting(self, connector: object) -> None:
        """Nothing."""

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._heard.append(type(reason.value).__name__)


class ConnectionTests(WorldCase):
    """As TCP has them."""

    def setUp(self) -> None:
        super().setUp()
        self.there = self.network.boot(THERE)
        self.heard_here: list[Any] = []
        self.heard_there: list[Any] = []
        self.mine, self.theirs = self.connected(self.host, self.there)

    def connected(self, host: Host, to: Host) -> tuple[Any, Any]:
        ends: list[Any] = []

        to.ports[1] = Ends(self.heard_there, lambda end: ends.append(end))
        host.connectTCP(
            to.ip, 1, Ends(self.heard_here, lambda end: ends.insert(0, end)), timeout=1.0
        )
        self.run_for(2.0)
        return (ends[0].transport, ends[1].transport) if len(ends) == 2 else (None, None)

    def run_for(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def test_in_order(self) -> None:
        """However late each of them is."""
        self.network.links = Links(late=0.5, late_seconds=1.0)
        sent = [b"%d" % number for number in range(50)]
        for each in sent:
            self.mine.write(each)
        self.run_for(5.0)
        self.assertEqual(self.heard_there, sent)

    def test_nobody_overtakes(self) -> None:
        """What comes behind a packet that is late is as late, and the late one is not early."""
        self.network.links = Links(late=1.0, late_seconds=100.0)
        self.mine.write(b"late")
        self.network.links = Links()
        self.mine.write(b"behind")
        self.run_for(0.5)
        self.assertEqual(self.heard_there, [])
        self.run_for(100.0)
        self.assertEqual(self.heard_there, [b"late", b"behind"])

    def test_a_cut_holds_up(self) -> None:
        """In its direction only; once it is healed everything is there, in order."""
        self.network.cut = frozenset({(HERE, THERE)})
        self.mine.write(b"1")
        self.mine.write(b"2")
        self.theirs.write(b"back")
        self.run_for(1.0)
        self.assertEqual((self.heard_there, self.heard_here), ([], [b"back"]))
        self.network.cut = frozenset()
        self.run_for(3.0)
        self.assertEqual(self.heard_there, [b"1", b"2"])

    def test_no_new_connection_through_a_cut(self) -> None:
        """Not even through one in one direction: the other end's answer does not arrive."""
        for cut in ((HERE, THERE), (THERE, HERE)):
            self.network.cut = frozenset({cut})
            self.heard_here.clear()
            self.connected(self.host, self.there)
            self.assertEqual(self.heard_here, ["TimeoutError"])

    def test_half_open(self) -> None:
        """Nothing arrives, and nobody is told."""
        self.mine.is_dead = True
        self.mine.write(b"lost")
        self.theirs.write(b"heard")
        self.run_for(60.0)
        self.assertEqual((self.heard_there, self.heard_here), ([], [b"heard"]))

    def test_reset(self) -> None:
        """Told at the end that it arrives at."""
        self.mine.reset_soon()
        self.run_for(1.0)
        self.assertEqual(self.heard_here, ["ConnectionLost"])

    def test_killed(self) -> None:
        """What was sent arrives, and then the end."""
        self.mine.write(b"last")
        self.host.die("killed")
        self.run_for(1.0)
        self.assertEqual(self.heard_there, [b"last", "ConnectionDone"])

    def test_power_lost(self) -> None:
        """Nobody is told until the machine runs again, and is asked."""
        self.host.die("power")
        self.theirs.write(b"hello?")
        self.run_for(5.0)
        self.assertEqual(self.heard_there, [])
        self.network.boot(HERE)
        self.theirs.write(b"hello?")
        self.run_for(1.0)
        self.assertEqual(self.heard_there, ["ConnectionLost"])

    def test_dialling(self) -> None:
        """A process that is not there is refused by its machine, if that runs."""
        for how, expected in (("killed", "ConnectionRefusedError"), ("power", "TimeoutError")):
            self.heard_here.clear()
            self.there.die(how)
            self.host.connectTCP(THERE, 1, Ends(self.heard_here), timeout=1.0)
            self.run_for(2.0)
            self.assertEqual(self.heard_here[-1], expected)
            self.there = self.network.boot(THERE)

    def test_bandwidth(self) -> None:
        """A lot takes its time."""
        self.network.links = Links(bytes_per_second=1000.0)
        self.mine.write(b"x" * 1000)
        self.run_for(0.9)
        self.assertEqual(self.heard_there, [])
        self.run_for(0.2)
        self.assertEqual(len(self.heard_there), 1)


class DiskTests(WorldCase):
    """A crash never leaves more than what was written, in its order, and never less than what was
    synced."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = Disk(Random(2), Disks())

    def write(self, key: bytes, sync: bool) -> None:
        batch = Batch()
        batch.put(key, b"v")
        self.disk.write(batch)
        self.disk.commit(sync)

    def kept(self) -> list[bytes]:
        return [key for key, _ in self.disk.synced.scan(b"", b"\xff")]

    def commit(self) -> None:
        self.write(b"k", sync=True)
        self.disk.raise_to({1: Mark(1)})

    def test_crash(self) -> None:
        """Each first part of what was not synced is what is left sometimes, and nothing else is."""
        seen = set()
        for _ in range(100):
            self.disk = Disk(self.disk._random, Disks())
            self.write(b"0", sync=True)
            for key in (b"1", b"2", b"3"):
                self.write(key, sync=False)
            self.disk.crash()
            seen.add(b"".join(self.kept()))
        self.assertEqual(seen, {b"0", b"01", b"012", b"0123"})

    def test_a_sync_is_of_all_before(self) -> None:
        """As of a write-ahead log."""
        self.write(b"0", sync=False)
        self.write(b"1", sync=True)
        self.disk.crash()
        self.assertEqual(self.kept(), [b"0", b"1"])

    def test_a_commit_under_way(self) -> None:
        """It is there or not, with its marks or without; marks without it are never."""
        seen = set()
        for _ in range(200):
            disk = self.disk = Disk(self.disk._random, Disks())
            worker = disk._writer = Worker(self.host, lambda: 1.0)

            worker.do(self.commit)
            disk.crash()
            seen.add((bool(self.kept()), bool(disk.marks)))
        self.assertEqual(seen, {(False, False), (True, False), (True, True)})

    def test_trouble(self) -> None:
        """S1, S2: what fails may be there all the same, later."""
        for trouble, kind in ((failed(), StoreFailed), (full(), DiskFull)):
            seen = set()
            for _ in range(50):
                self.disk = Disk(self.disk._random, Disks())
                self.disk.trouble = trouble
                self.assertRaises(kind, self.write, b"k", True)
                self.disk.trouble = None
                self.disk.crash()
                seen.add(bool(self.kept()))
            self.assertEqual(seen, {True, False})

    def test_what_was_full_is_opened_again(self) -> None:
        """S8: the engine then has what the disk has."""
        for _ in range(50):
            self.disk = Disk(self.disk._random, Disks())
            engine = Engine(self.disk)
            self.disk.trouble = full()
            batch = Batch()
            batch.put(b"k", b"v")
            self.assertRaises(DiskFull, engine.commit, batch, sync=True)
            seen = engine.get(b"k")
            self.disk.trouble = None
            engine.reopen()
            self.assertEqual(seen is not None, bool(self.disk.unsynced))
            self.assertEqual(engine.get(b"k"), seen)

    def test_worker(self) -> None:
        """One job after the other; a dead host hears of none, a frozen one later."""
        worker = Worker(self.host, lambda: 1.0)
        for what in "ab":
            worker.do(partial(str, what)).addCallback(self.note)
        self.clock.run_until(1.5)
        self.assertEqual(self.happened, [("a", 1.0)])
        self.host.freeze()
        self.clock.run_until(5.0)
        self.host.thaw()
        self.assertEqual(self.happened, [("a", 1.0), ("b", 5.0)])
        worker.do(lambda: self.note("written by a ghost"))
        self.host.die("killed")
        self.clock.run_until(9.0)
        self.assertEqual(len(self.happened), 2)
