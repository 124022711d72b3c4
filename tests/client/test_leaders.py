"""A client finds who leads: at the first guess, or by what the next answer teaches."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from kvtwist.core.groups import group_of
from kvtwist.core.ring import partition_of
from kvtwist.node.router import Router
from kvtwist.wire.commands import Get, Put
from kvtwist.wire.connection import Arguments
from tests.cluster import ip_of
from tests.durable import DurableCase


class LeaderCase(DurableCase):
    """Three nodes; node-1 leads what it does not own, or is gone."""

    size = 3

    def setUp(self) -> None:
        super().setUp()
        self.forwarded: list[str] = []
        forward = Router.forward

        def noted(
            router: Router, command: type[amp.Command], arguments: Arguments, *rest: Any
        ) -> Any:
            self.forwarded.append(command.__name__)
            return forward(router, command, arguments, *rest)

        self.patch(Router, "forward", noted)
        self.key = self.cluster.key_of(1)
        self.group = group_of(partition_of(self.key.encode(), self.partitions))

    def led_by(self, number: int) -> bool:
        return self.replicas(number).replica(self.group).leads

    def move(self, number: int) -> None:
        """Have another node lead the partition of the key, against the ring."""
        for node in self.cluster.nodes.values():
            partitions: Any = node._partitions
            self.patch(partitions._leadership, "look", lambda led: None)
        replica = self.replicas(1).replica(self.group)
        partitions = self.cluster.nodes[1]._partitions
        heir = partitions._groups[self.group].replica_of(f"node-{number}")
        self.assertTrue(replica.hand_over(heir))
        self.cluster.run(1.0)
        self.assertTrue(self.led_by(number))


class LearningTests(LeaderCase):
    """A wrong guess costs one hop, once."""

    def test_a_new_client_knows_at_once(self) -> None:
        """The table says who leads, whoever owns it."""
        self.put(self.key, "v")
        self.move(2)
        self.client = self.cluster.client(3)
        self.put(self.key, "w")
        self.assertEqual(self.get(self.key), b"w")
        self.assertEqual(self.forwarded, [])

    def test_an_old_client_learns(self) -> None:
        """Else all that it asks costs two hops until it is started again."""
        self.put(self.key, "v")
        self.move(2)
        for _ in range(5):
            self.put(self.key, "w")
        self.assertEqual(self.forwarded, [Put.__name__])

    def test_reads_teach_too(self) -> None:
        """The same for a program that only reads."""
        self.get(self.key)
        self.move(2)
        for _ in range(5):
            self.get(self.key)
        self.assertEqual(self.forwarded, [Get.__name__])

    def test_ordinary_requests_teach_too(self) -> None:
        """Those that have no short way."""
        version = self.put(self.key, "v")
        self.move(2)
        for _ in range(5):
            version = self.result(self.client.compare_and_set(self.key, "w", version))
        self.assertEqual(len(self.forwarded), 1)

    def test_leader_killed(self) -> None:
        """The caller of a client does not notice; what follows goes straight to the new leader."""
        self.put(self.key, "v")
        self.cluster.crash(1)
        started = self.cluster.network.clock.seconds()
        self.put(self.key, "w")
        self.assertLess(self.cluster.network.clock.seconds() - started, 2.0)
        self.forwarded.clear()
        for _ in range(5):
            self.put(self.key, "x")
        self.assertLessEqual(len(self.forwarded), 1)

    def test_leader_frozen(self) -> None:
        """SIGSTOP: the connection stands, and nobody answers on it; writes go on elsewhere."""
        self.put(self.key, "v")
        self.cluster.network.host(ip_of(1)).freeze()
        started = self.cluster.network.clock.seconds()
        writes: list[Deferred[int]] = [self.client.put(self.key, f"{at}") for at in range(5)]
        for write in writes:
            self.result(write)
        self.put(self.key, "last")
        self.assertLess(self.cluster.network.clock.seconds() - started, 2.5)
        self.assertEqual(self.get(self.key), b"last")

    def test_back_at_the_owner(self) -> None:
        """Leadership goes back to the owner, and the client follows it there."""
        self.put(self.key, "v")
        self.cluster.crash(1)
        self.put(self.key, "w")
        self.restart(1)
        self.cluster.run(5.0)
        self.assertTrue(self.led_by(1))
        self.put(self.key, "x")
        self.forwarded.clear()
        for _ in range(5):
            self.put(self.key, "y")
        self.assertEqual(self.forwarded, [])
