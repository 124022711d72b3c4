"""The connections between nodes: two to each peer, each for its own traffic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.errors import NoAnswer, NotSent
from kvtwist.node.peers import Peers
from kvtwist.service import Node
from kvtwist.wire.commands import (
    CompareAndSet,
    Delete,
    Found,
    Get,
    GetMany,
    Hello,
    Ping,
    Put,
    PutMany,
)
from kvtwist.wire.connection import Arguments, Connection, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.link import Link
from tests.cluster import CLIENT_IP, PORT, SimulatedCluster, ip_of
from tests.simulated import LATENCY_SECONDS, Network

Command = type[amp.Command]
DATA = {Get, Put, Delete, CompareAndSet, GetMany, PutMany}


class TrafficTests(SynchronousTestCase):
    """Which connection carries what, in whole clusters.

    :ivar asked: what was asked on each connection that a node has dialled.
    """

    def setUp(self) -> None:
        self.asked: dict[Connection, list[Command]] = defaultdict(list)
        call = Connection.call

        def noted(
            connection: Connection, command: Command, arguments: Arguments, seconds: float
        ) -> Deferred[Arguments]:
            if connection.transport.getHost().host != CLIENT_IP:
                self.asked[connection].append(command)
            return call(connection, command, arguments, seconds)

        self.patch(Connection, "call", noted)
        self.cluster = SimulatedCluster()
        self.cluster.found()

    def busy(self) -> None:
        """Have each node forward all kinds of requests to each other one."""
        host = self.cluster.network.host(CLIENT_IP)
        for address in self.cluster.addresses:
            link = Link(host, address, Greeting, lambda: 0.5, Deadlines(host))
            link.start()
            self.result(link.when_connected(1.0))
            for owner in (1, 2, 3):
                self.forwarded(link, self.cluster.key_of(owner).encode())
            self.result(link.stop())

    def forwarded(self, link: Link, key: bytes) -> None:
        """Send one of each kind of request."""
        arguments: dict[Command, Arguments] = {
            Put: {"key": key, "value": b"v"},
            Get: {"key": key},
            CompareAndSet: {"key": key, "value": b"w", "version": 0},
            Delete: {"key": key},
            PutMany: {"keys": [key], "values": [b"v"]},
            GetMany: {"keys": [key]},
        }
        self.assertEqual({*arguments}, DATA)
        for command, said in arguments.items():
            self.result(link.call(command, said, 5.0))

    def result(self, deferred: Deferred[Any]) -> Any:
        """The result of *deferred*."""
        return self.cluster.network.result_of(deferred)

    def ends(self, connection: Connection) -> tuple[str, str]:
        """From where to where a connection goes."""
        transport = connection.transport
        return transport.getHost().host, transport.getPeer().host

    def test_two_connections_to_each_peer(self) -> None:
        """Else nodes dial each other once more at each request, or share what must be apart."""
        self.busy()
        pairs = sorted(self.ends(connection) for connection in self.asked)
        ips = [ip_of(number) for number in (1, 2, 3)]
        expected = [(one, other) for one in ips for other in ips if one != other for _ in range(2)]
        self.assertEqual(pairs, expected)

    def assert_apart(self) -> None:
        """Forwarded requests went over the bulk connections, and nothing else but signs of life;
        none went over the control connections."""
        control = {link.connection for node in self.nodes() for link in node.peers.control()}
        bulk = {*self.asked} - control
        self.assertEqual((len(control), len(bulk)), (6, 6))
        for connection, said in self.asked.items():
            if connection in control:
                self.assertEqual({*said} - {Hello, Found, Ping}, set())
            else:
                self.assertEqual({*said} - {Hello, Ping}, DATA)

    def nodes(self) -> list[Node]:
        """The nodes that are running."""
        return [*self.cluster.nodes.values()]

    def test_apart(self) -> None:
        """Else a large value that is forwarded delays the signs of life of every group, and a
        healthy node is taken for dead."""
        self.busy()
        self.assert_apart()

    def test_founding(self) -> None:
        """The same, for the founding: it must not wait for forwarded requests either."""
        for node in self.nodes():
            for link in node.peers.control():
                assert link.connection is not None
                self.assertIn(Found, self.asked[link.connection])
                bulk = node.peers.bulk(link.address).connection
                assert bulk is not None
                self.assertNotIn(Found, self.asked[bulk])

    def test_greeted_first(self) -> None:
        """Else a node talks to a stranger before it knows that it is one."""
        self.busy()
        for said in self.asked.values():
            self.assertEqual((said[0], said.count(Hello)), (Hello, 1))

    def test_pings(self) -> None:
        """T8: else a peer that is dead stays connected for minutes, on the connection that nobody
        has looked at."""
        before = {connection: len(said) for connection, said in self.asked.items()}
        self.cluster.run(10.0)
        self.assertEqual(len(before), 12)
        for connection, count in before.items():
            self.assertGreaterEqual(self.asked[connection][count:].count(Ping), 9)
            self.assertEqual({*self.asked[connection][count:]}, {Ping})

    def test_crash_and_return(self) -> None:
        """Else a node that was restarted is forwarded to, but not seen, or the other way round."""
        self.cluster.crash(2)
        self.cluster.run(1.0)
        for number in (1, 3):
            (trouble,) = self.cluster.nodes[number].peers.unreachable()
            self.assertEqual(trouble, "10.0.0.2:8001 (connection refused)")
        self.cluster.start(2)
        self.cluster.run(2.0)
        for node in self.nodes():
            self.assertEqual(node.peers.unreachable(), [])
        for connection in [*self.asked]:
            if not connection.connected or self.ends(connection)[0] == ip_of(2):
                del self.asked[connection]
        self.cluster.run(2.0)
        self.busy()
        self.assert_apart()

    def test_stopped_cluster(self) -> None:
        """T11: else a process that embeds a node cannot end, or its tests find a dirty reactor."""
        self.busy()
        stopping = [node.stopService() for node in self.cluster.nodes.values()]
        for stopped in stopping:
            self.result(stopped)
        self.cluster.run(10 * LATENCY_SECONDS)
        self.assertEqual([wire for wire in self.cluster.network.wires if wire.open], [])
        self.assertEqual(self.cluster.network.clock.getDelayedCalls(), [])


class PeersTests(SynchronousTestCase):
    """`Peers` alone, and two listeners that do nothing by themselves.

    Each test ends with the same question: is anything left?
    """

    def setUp(self) -> None:
        self.network = Network()
        self.host = self.network.host("10.0.9.9")
        self.addresses = [Address(ip_of(number), PORT) for number in (1, 2)]
        self.late: list[Deferred[Arguments]] = []
        self.made: list[Connection] = []
        self.deadlines = Deadlines(self.host)
        self.peers = Peers(
            self.host, self.addresses, Greeting, lambda: 0.5, self.deadlines, DEFAULT_LIMITS
        )

    def listen(self, number: int, mute: bool = False) -> None:
        """Have somebody listen, who greets unless he is mute."""

        def hello(_: Connection, __: Arguments) -> Arguments | Deferred[Arguments]:
            return wait(_, __) if mute else Greeting().arguments()

        def wait(_: Connection, __: Arguments) -> Deferred[Arguments]:
            self.late.append(Deferred())
            return self.late[-1]

        table = responders({Hello: hello, Ping: lambda _, __: {}, Get: wait})

        class Listening(Factory):
            noisy = False

            def buildProtocol(factory, _: object) -> Connection:  # noqa: N805
                self.made.append(Connection(Deadlines(self.network.host(ip_of(number))), table))
                return self.made[-1]

        self.network.host(ip_of(number)).listenTCP(PORT, Listening())

    def assert_nothing_left(self) -> None:
        """Stop, and look for connections and timers."""
        self.network.result_of(self.peers.stop(), 5.0)
        self.network.run(10 * LATENCY_SECONDS)
        self.assertEqual([wire for wire in self.network.wires if wire.open], [])
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        made = len(self.made)
        self.network.run(60.0)
        self.assertEqual(len(self.made), made, "dialled again after the stop")

    def test_two_links_each(self) -> None:
        """Else forwarded requests and signs of life share one connection after all."""
        control = {link.address: link for link in self.peers.control()}
        self.assertEqual([*control], self.addresses)
        for address in self.addresses:
            self.assertIs(self.peers.bulk(address), self.peers.bulk(address))
            self.assertIsNot(self.peers.bulk(address), control[address])
            self.assertEqual(self.peers.bulk(address).address, address)
        self.assertRaises(KeyError, self.peers.bulk, Address("10.9.9.9", PORT))

    def test_unreachable(self) -> None:
        """Else a user is not told which node to look at, or is told of one that is well."""
        self.assertEqual(
            self.peers.unreachable(), [f"{address} (not tried yet)" for address in self.addresses]
        )
        self.listen(1)
        self.peers.start()
        self.network.run(0.5)
        self.assertEqual(self.peers.unreachable(), ["10.0.0.2:8001 (connection refused)"])
        self.listen(2)
        self.network.run(2.0)
        self.assertEqual(self.peers.unreachable(), [])
        self.network.crash(ip_of(1))
        self.network.run(0.5)
        self.assertEqual(self.peers.unreachable(), ["10.0.0.1:8001 (connection refused)"])
        self.assert_nothing_left()

    def test_stop_before_start(self) -> None:
        """T11: else a node whose start failed cannot be stopped."""
        self.assert_nothing_left()

    def test_stop_at_any_moment(self) -> None:
        """T11: else a node that is stopped while it dials, greets or has just been greeted leaves
        a connection or a timer behind, which keeps the process from ending."""
        for tenths in range(60):
            self.setUp()
            self.listen(1)
            self.listen(2, mute=True)
            self.peers.start()
            self.network.run(tenths * LATENCY_SECONDS / 10)
            self.assert_nothing_left()

    def test_stop_while_nobody_listens(self) -> None:
        """The same, between two attempts to dial."""
        for seconds in (0.0005, 0.003, 0.02, 0.1, 1.0, 5.0):
            self.setUp()
            self.peers.start()
            self.network.run(seconds)
            self.assert_nothing_left()

    def test_stop_while_nobody_answers_the_dial(self) -> None:
        """The same, while an attempt is under way that nobody answers."""
        with self.network.cut("10.0.9.9", ip_of(1)):
            self.peers.start()
            self.network.run(0.5)
            self.assert_nothing_left()

    def test_stop_when_all_is_quiet(self) -> None:
        """The same, after a while."""
        self.listen(1)
        self.listen(2)
        self.peers.start()
        self.network.run(30.0)
        self.assertEqual(len(self.made), 4)
        self.assert_nothing_left()

    def test_stop_with_requests_under_way(self) -> None:
        """C1: else whoever waits for an answer waits for ever; what was sent is unknown, and what
        was not is not done."""
        self.listen(1)
        self.peers.start()
        self.network.run(0.5)
        there, nowhere = (self.peers.bulk(address) for address in self.addresses)
        ends: list[Any] = []
        sent = there.call(Get, {"key": b"k"}, 5.0)
        waiting = nowhere.when_connected(5.0)
        settling = nowhere.when_settled(5.0)
        for deferred in (sent, waiting, settling):
            deferred.addBoth(ends.append)
        self.network.run(0.01)
        self.assertEqual((len(self.late), len(ends)), (1, 1))
        self.assert_nothing_left()
        kinds = sorted(type(end.value).__name__ for end in ends if end is not None)
        self.assertEqual(kinds, sorted([NoAnswer.__name__, NotSent.__name__]))

    def test_nothing_starts_after_the_stop(self) -> None:
        """Else a request that comes in while a node stops leaves something behind."""
        self.listen(1)
        self.peers.start()
        self.network.run(0.5)
        stopped = self.peers.stop()
        link = self.peers.bulk(self.addresses[0])
        calls: list[Callable[[], Deferred[Any]]] = [
            lambda: link.call(Get, {"key": b"k"}, 5.0),
            lambda: link.when_connected(5.0),
        ]
        self.network.result_of(stopped)
        for call in calls:
            self.assertRaises(NotSent, self.network.result_of, call(), 6.0)
        self.assert_nothing_left()
