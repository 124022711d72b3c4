"""Routing, as whole nodes do it over the simulated network."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.errors import (
    NotLeader,
    OutcomeUnknown,
    Refused,
    TooLarge,
    Unavailable,
)
from kvtwist.node.limits import Limits
from kvtwist.wire import commands
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.link import Link
from tests.cluster import CLIENT_IP, PORT, SimulatedCluster, ip_of


class RoutingTests(SynchronousTestCase):
    """One node is asked; another owns the key."""

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(limits=Limits(key_bytes_max=64, value_bytes_max=100_000))
        self.cluster.found()
        host = self.cluster.network.host(CLIENT_IP)
        address = Address(ip_of(1), PORT)
        self.link = Link(host, address, Greeting, lambda: 0.5, Deadlines(host))
        self.link.start()
        self.cluster.run(0.1)
        self.mine = self.cluster.key_of(1).encode()
        self.others = self.cluster.key_of(2).encode()

    def ask(self, command: type[amp.Command], **arguments: Any) -> Deferred[Any]:
        """Ask node-1, and no other."""
        return self.link.call(command, arguments, timeout_seconds=10.0)

    def result(self, command: type[amp.Command], **arguments: Any) -> Any:
        """What node-1 answers, apart from how far the partition has been applied."""
        answer = self.cluster.network.result_of(self.ask(command, **arguments))
        self.assertEqual(len(answer.pop("applied")), 26)
        return answer

    def test_applied(self) -> None:
        """Else a client cannot tell a node what it has seen already, and reads its own writes only
        by luck: the mark names cluster and partition and grows with each change."""
        topology = self.cluster.nodes[1].cluster.founded()
        marks = []
        for key in (self.mine, self.others):
            for command, more in ((commands.Put, {"value": b"v"}), (commands.Get, {})):
                asking = self.ask(command, key=key, **more)
                answer = self.cluster.network.result_of(asking)
                place = topology.partition_of(key).to_bytes(2, "big")
                self.assertEqual(answer["applied"][:18], bytes.fromhex(topology.cluster_id) + place)
                marks.append(int.from_bytes(answer["applied"][18:], "big"))
                self.assertEqual(marks[-1], answer["version"])
        again = self.cluster.network.result_of(self.ask(commands.Put, key=self.mine, value=b"w"))
        self.assertEqual(int.from_bytes(again["applied"][18:], "big"), marks[0] + 1)

    def test_forwarded(self) -> None:
        """Else a stock client that knows one node reaches only a third of its keys."""
        for key, leader in ((self.mine, None), (self.others, "node-2")):
            version = self.result(commands.Put, key=key, value=b"v")["version"]
            self.assertEqual(
                self.result(commands.Get, key=key),
                {"version": version, "value": b"v", "leader": leader},
            )
        keys = [
            self.cluster.network.result_of(self.cluster.client().status(address))["key_count"]
            for address in self.cluster.addresses
        ]
        self.assertEqual(keys, [1, 1, 0])

    def test_every_command_is_forwarded(self) -> None:
        """Else compare-and-set or delete works only at the owner."""
        version = self.result(commands.CompareAndSet, key=self.others, value=b"a", version=0)[
            "version"
        ]
        seen = self.result(commands.CompareAndSet, key=self.others, value=b"b", version=0)
        wanted = {"done": False, "version": version, "value": b"a", "leader": "node-2"}
        self.assertEqual(seen, wanted)
        seen = self.result(commands.Delete, key=self.others, version=version + 1)
        self.assertEqual(seen, wanted)
        self.assertTrue(self.result(commands.Delete, key=self.others, version=version)["done"])
        self.assertFalse(self.result(commands.Delete, key=self.others)["done"])

    def test_at_most_one_hop(self) -> None:
        """Else two nodes that disagree about the owner pass a request to and fro."""
        asking = self.ask(commands.Get, key=self.others, forwarded=True)
        error = self.assertRaises(NotLeader, self.cluster.network.result_of, asking)
        self.assertEqual((error.leader, error.epoch), ("node-2", 1))

    def test_owner_down(self) -> None:
        """Else a user does not learn which node to look at, or waits past the request's time."""
        self.cluster.crash(2)
        started = self.cluster.network.clock.seconds()
        for command, more in ((commands.Get, {}), (commands.Put, {"value": b"v"})):
            asking = self.ask(command, key=self.others, timeout_ms=700, **more)
            error = self.assertRaises(Unavailable, self.cluster.network.result_of, asking)
            self.assertEqual(error.waiting_for, ("node-2",))
            self.assertIn("node-2 at 10.0.0.2:8001 leads partition", str(error))
            self.assertIn("connection refused", str(error))
        took = self.cluster.network.clock.seconds() - started
        self.assertLess(took, 1.6)
        self.assertEqual(self.result(commands.Get, key=self.mine)["version"], 0)

    def test_owner_back_in_time(self) -> None:
        """Else a restart that takes a moment fails requests that had time to wait."""
        self.cluster.crash(2)
        self.cluster.run(2)
        asking = self.ask(commands.Put, key=self.others, value=b"v", timeout_ms=5000)
        self.cluster.run(1)
        self.cluster.start(2)
        self.assertGreater(self.cluster.network.result_of(asking)["version"], 0)

    def test_a_write_whose_answer_is_lost_is_not_sent_again(self) -> None:
        """C3: else an increment, or a put over a newer value, happens twice."""
        with self.cluster.network.cut(ip_of(1), ip_of(2)):
            asking = self.ask(commands.Put, key=self.others, value=b"v", timeout_ms=1000)
            error = self.assertRaises(OutcomeUnknown, self.cluster.network.result_of, asking)
        self.assertIn("its fate is unknown", str(error))
        self.cluster.run(10)
        client = self.cluster.client()
        first = self.cluster.network.result_of(client.get(self.others))
        self.cluster.run(10)
        self.assertEqual(self.cluster.network.result_of(client.get(self.others)), first)

    def test_a_write_lost_with_the_connection_is_unknown(self) -> None:
        """C1: else a write that was applied is reported as not done."""
        asking = self.ask(commands.Put, key=self.others, value=b"v", timeout_ms=5000)
        self.cluster.run(0.0015)
        self.cluster.crash(2)
        self.assertRaises(OutcomeUnknown, self.cluster.network.result_of, asking)

    def test_a_read_lost_with_the_connection_is_asked_again(self) -> None:
        """Else a restart of the owner fails reads that could have waited."""
        asking = self.ask(commands.Get, key=self.others, timeout_ms=5000)
        self.cluster.run(0.0015)
        self.cluster.crash(2)
        self.cluster.start(2)
        self.assertEqual(self.cluster.network.result_of(asking)["version"], 0)

    def test_a_frozen_owner(self) -> None:
        """Every operation ends by its deadline, also when the owner is stopped, not dead."""
        self.cluster.network.host(ip_of(2)).freeze()
        reading = self.ask(commands.Get, key=self.others, timeout_ms=1000)
        error = self.assertRaises(Unavailable, self.cluster.network.result_of, reading, 2.0)
        self.assertEqual(error.waiting_for, ("node-2",))
        writing = self.ask(commands.Put, key=self.others, value=b"v", timeout_ms=1000)
        self.assertRaises(OutcomeUnknown, self.cluster.network.result_of, writing, 2.0)

    def test_limits(self) -> None:
        """Limits hold at the byte, say their setting's name, and the connection lives on."""
        self.result(commands.Put, key=b"k" * 64, value=b"v" * 100_000)
        for setting, limit, arguments in (
            ("key_bytes_max", 64, {"key": b"k" * 65, "value": b""}),
            ("value_bytes_max", 100_000, {"key": b"k", "value": b"v" * 100_001}),
        ):
            asking = self.ask(commands.Put, **arguments)
            error = self.assertRaises(TooLarge, self.cluster.network.result_of, asking)
            self.assertEqual(
                (error.setting, error.limit, error.actual), (setting, limit, limit + 1)
            )
            self.assertIn(f"{setting}={limit:,}", str(error))
        asking = self.ask(commands.Put, key=b"k", value=b"v" * 10_000_000)
        error = self.assertRaises(TooLarge, self.cluster.network.result_of, asking)
        self.assertEqual(error.setting, "box_bytes_max")
        self.assertEqual(self.result(commands.Get, key=self.mine)["version"], 0)

    def test_keyspaces_are_reserved(self) -> None:
        """Else data written into a keyspace of today lands in the wrong place tomorrow."""
        self.assertEqual(self.result(commands.Get, key=b"k", keyspace=0)["version"], 0)
        asking = self.ask(commands.Get, key=b"k", keyspace=1)
        self.assertRaises(Refused, self.cluster.network.result_of, asking)

    def test_empty_key_and_value(self) -> None:
        """Empty is not missing."""
        version = self.result(commands.Put, key=b"", value=b"")["version"]
        read = self.result(commands.Get, key=b"")
        self.assertEqual((read["version"], read["value"]), (version, b""))

    def test_versions_of_a_former_life_match_nothing(self) -> None:
        """Else a compare-and-set with a version from before a restart overwrites new data."""
        version = self.result(commands.Put, key=self.others, value=b"v")["version"]
        self.cluster.crash(2)
        self.cluster.start(2)
        self.cluster.run(2)
        self.result(commands.Put, key=self.others, value=b"new")
        seen = self.result(commands.CompareAndSet, key=self.others, value=b"x", version=version)
        self.assertFalse(seen["done"])

    def test_stopping_node_drains(self) -> None:
        """T11: a node that is stopped answers what it works on, and refuses what comes after."""
        reading = self.ask(commands.Get, key=self.others)
        self.cluster.run(0.0015)
        stopping = self.cluster.nodes[1].stopService()
        after = self.ask(commands.Get, key=self.mine)
        self.assertEqual(self.cluster.network.result_of(reading)["version"], 0)
        error = self.assertRaises(Unavailable, self.cluster.network.result_of, after)
        self.assertIn("node-1 is stopping", str(error))
        self.cluster.network.result_of(stopping)
        self.assertEqual(self.cluster.network.host(ip_of(1)).ports, {})
        self.cluster.run(1)
        self.assertIsNone(self.link.connection)
        self.assertEqual(self.link.trouble, "connection refused")
