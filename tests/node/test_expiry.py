"""What is due is removed, once, by whoever leads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import attempts
from kvtwist.core.state.answers import Expired
from kvtwist.core.state.commands import Command, Expire, decode
from kvtwist.errors import DiskFull, KvtwistError, NotLeader, OutcomeUnknown
from kvtwist.node.expiry import EXPIRY_TICKS, Expiry
from kvtwist.node.waiting import Writer
from tests.durable import DurableCase


class Group:
    """A replica that leads, or does not."""

    def __init__(self) -> None:
        self.leads = True
        self.due_ms: int | None = 1000
        self.log_time_ms = 5000
        self.refused: KvtwistError | None = None
        self.offered: list[Command] = []
        self.writers: list[Writer] = []

    def next_due_ms(self) -> int | None:
        return self.due_ms

    def stamp_ms(self) -> int:
        return self.log_time_ms

    def offer(self, entry: bytes, writer: Writer) -> KvtwistError | None:
        if self.refused is None:
            self.offered.append(decode(entry))
            self.writers.append(writer)
        return self.refused


class ExpiryTests(SynchronousTestCase):
    """When an entry is proposed."""

    def setUp(self) -> None:
        self.group = Group()
        self.expiry = Expiry(self.group)

    def look(self) -> int:
        """How many entries one look has brought."""
        before = len(self.group.offered)
        for number in range(1, EXPIRY_TICKS + 1):
            self.expiry.tick(number)
        return len(self.group.offered) - before

    def test_due(self) -> None:
        """Else sessions stay for ever, until there is room for no others."""
        self.assertEqual(self.look(), 1)
        self.assertEqual(self.group.offered, [Expire(stamp_ms=5000, until_ms=5000)])

    def test_nothing_due(self) -> None:
        """Else each group writes an entry each second, and never rests."""
        for due_ms in (None, 5001):
            self.group.due_ms = due_ms
            self.assertEqual(self.look(), 0)

    def test_not_the_leader(self) -> None:
        """Nobody else's clock counts."""
        self.group.leads = False
        self.assertEqual(self.look(), 0)

    def test_one_at_a_time(self) -> None:
        """Else a slow disk is given the same work again and again."""
        self.assertEqual([self.look(), self.look()], [1, 0])
        self.group.writers[0].applied(Expired(1, 0, is_more=False))
        self.group.due_ms = 6000
        self.assertEqual(self.look(), 0)
        self.group.log_time_ms = 6000
        self.assertEqual(self.look(), 1)

    def test_more_than_one_entry_takes(self) -> None:
        """Else a great number that is due at once is gone only after minutes."""
        self.look()
        for _ in range(3):
            self.group.writers[-1].applied(Expired(1024, 0, is_more=True))
            self.expiry.tick(1)
        self.assertEqual(len(self.group.offered), 4)
        self.group.writers[-1].applied(Expired(7, 0, is_more=False))
        self.expiry.tick(1)
        self.assertEqual(len(self.group.offered), 4)

    def test_lost(self) -> None:
        """Else nothing expires any more after the first change of leaders."""
        self.look()
        self.group.writers[0].lost(OutcomeUnknown())
        self.assertEqual(self.look(), 1)

    def test_refused(self) -> None:
        """The same when it was not even proposed."""
        for self.group.refused in (NotLeader(), DiskFull()):
            self.assertEqual(self.look(), 0)
        self.group.refused = None
        self.assertEqual(self.look(), 1)


class SessionTests(DurableCase):
    """Sessions that nobody uses, on three nodes."""

    size = 3

    def sessions(self) -> dict[int, int]:
        """How many each node knows."""
        return {
            number: sum(
                replica._state.machine.session_count
                for replica in self.replicas(number).all().values()
            )
            for number in self.cluster.nodes
        }

    def test_idle(self) -> None:
        """Else each client that comes and goes leaves sessions on all replicas, for ever."""
        self.patch(attempts, "IDLE_MS", 3000)
        for number in range(8):
            self.put(f"key-{number}", "x")
        self.cluster.run(0.5)
        self.assertEqual(self.sessions(), dict.fromkeys((1, 2, 3), 4))
        for _ in range(5):
            self.cluster.run(1.0)
            self.put("key-0", "x")
        self.cluster.run(0.5)
        self.assertEqual(self.sessions(), dict.fromkeys((1, 2, 3), 1))
        self.cluster.run(5.0)
        self.assertEqual(self.sessions(), dict.fromkeys((1, 2, 3), 0))
        self.put("key-0", "y")
        self.assertEqual(self.get("key-0"), b"y")

    def test_another_leader(self) -> None:
        """Else sessions outlive the leader under which they were opened."""
        self.patch(attempts, "IDLE_MS", 3000)
        for number in range(8):
            self.put(f"key-{number}", "x")
        self.cluster.crash(1)
        self.cluster.run(10.0)
        self.assertEqual(self.sessions(), {2: 0, 3: 0})

    def test_a_full_disk(self) -> None:
        """S2: nothing is written that nobody has asked for while there is no room."""
        self.patch(attempts, "IDLE_MS", 1000)
        self.put("key-0", "x")
        for platter in self.cluster.platters.values():
            platter.trouble = DiskFull("the disk is full")
        self.cluster.run(5.0)
        self.assertEqual(self.cluster.hopeless, {})
        for platter in self.cluster.platters.values():
            platter.trouble = None
        self.cluster.run(10.0)
        self.assertEqual(self.sessions(), dict.fromkeys((1, 2, 3), 0))
        self.put("key-0", "y")
