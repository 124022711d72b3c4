"""Links: they greet, watch, and dial again, whatever is at the other end; and they stop clean."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from weakref import ref

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvtwist.core.address import Address
from kvtwist.errors import HelloRefused, KvtwistError, NoAnswer, NotSent, Refused
from kvtwist.wire.commands import PROTOCOL_VERSION, Get, Hello, Ping, RaftMessages
from kvtwist.wire.connection import Arguments, Connection, Responder, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.link import DEFAULT_TIMES, Link, LinkTimes
from tests.simulated import LATENCY_SECONDS, Host, Network

HERE, THERE, ELSEWHERE = "10.0.0.1", "10.0.0.2", "10.0.0.3"
PORT = 8001
ADDRESS = Address(THERE, PORT)
CLUSTER = "c" * 32
NODE = Greeting(cluster_id=CLUSTER, name="node-2", identity="b" * 32, address=str(ADDRESS))

HTTP_WORDS = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


class Peer(Factory):
    """A node, as far as a link sees it, listening on a host.

    :ivar hello: what it answers to a `Hello`.
    :ivar met: when each connection was made.
    :ivar heard: the greetings that were said to it.
    """

    noisy = False

    def __init__(self, host: Host) -> None:
        self.host = host
        self.hello: Callable[[Greeting], Any] = lambda _: NODE.arguments()
        self.connections: list[Connection] = []
        self.met: list[float] = []
        self.heard: list[Greeting] = []
        self._port = host.listenTCP(PORT, self)

    def buildProtocol(self, addr: object) -> Connection:
        def hello(_: Connection, said: Arguments) -> Any:
            self.heard.append(Greeting.from_arguments(said))
            return self.hello(self.heard[-1])

        table: dict[Any, Responder] = {Hello: hello, Ping: lambda _, __: {}}
        connection = Connection(Deadlines(self.host), responders(table))
        self.connections.append(connection)
        self.met.append(self.host.seconds())
        return connection

    def close(self) -> None:
        """Listen no more, and hang up."""
        self._port.stopListening()
        for connection in self.connections:
            connection.close()


class Stranger(Factory):
    """Something else that listens at the port.

    :param greeting: what it says first.
    :param answer: what it says to whatever it is told; then it hangs up.
    """

    noisy = False

    def __init__(self, greeting: bytes = b"", answer: bytes = b"") -> None:
        self.greeting = greeting
        self.answer = answer
        self.met = 0

    def buildProtocol(self, addr: object) -> Protocol:
        self.met += 1
        return _Strange(self)


class _Strange(Protocol):
    transport: Any

    def __init__(self, stranger: Stranger) -> None:
        self._stranger = stranger

    def connectionMade(self) -> None:
        if self._stranger.greeting:
            self.transport.write(self._stranger.greeting)

    def dataReceived(self, data: bytes) -> None:
        if self._stranger.answer:
            self.transport.write(self._stranger.answer)
            self.transport.loseConnection()


class LinkTestCase(SynchronousTestCase):
    """One link, from one host to another.

    :ivar troubles: when `Link.trouble` changed, and to what.
    """

    times = DEFAULT_TIMES

    def setUp(self) -> None:
        self.network = Network()
        self.here = self.network.host(HERE)
        self.there = self.network.host(THERE)
        self.chance = 0.5
        self.mine = Greeting()
        self.troubles: list[tuple[float, str]] = []
        self.link = self.make_link()

    def make_link(self, host: Host | None = None, address: Address = ADDRESS) -> Link:
        """A link, watched."""
        reactor = host or self.here
        link = Link(
            reactor,
            address,
            lambda: self.mine,
            lambda: self.chance,
            Deadlines(reactor),
            times=self.times,
        )
        link.on_change(
            lambda changed: self.troubles.append((self.network.clock.seconds(), changed.trouble))
        )
        return link

    def connected(self) -> Connection:
        """The link's connection, which has to be there."""
        assert self.link.connection is not None, self.link.trouble
        self.assertEqual((self.link.trouble, self.link.refused), ("", None))
        self.assertEqual(self.network.result_of(self.link.call(Ping, {}, 1.0)), {})
        return self.link.connection

    def assert_stops(self) -> None:
        """Stopping ends, and leaves nothing behind."""
        stopped: list[Any] = []
        self.link.stop().addBoth(stopped.append)
        self.network.run(1.0)
        self.assertEqual(stopped, [None])
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertIsNone(self.link.connection)
        self.failureResultOf(self.link.call(Ping, {}, 1.0), NotSent)
        before = len(self.troubles)
        self.network.run(30.0)
        self.assertEqual(len(self.troubles), before)


class DialTests(LinkTestCase):
    """Until there is a connection."""

    def test_connects(self) -> None:
        """Else nothing works."""
        peer = Peer(self.there)
        self.mine = Greeting(name="node-1", address="10.0.0.1:8001", started_ms=7)
        self.assertTrue(self.link.is_fresh)
        self.assertEqual(self.link.trouble, "not tried yet")
        self.network.run(1.0)
        self.assertEqual(peer.met, [])
        self.link.start()
        self.network.run(0.1)
        self.assertEqual(self.connected().greeting, NODE)
        self.assertEqual(peer.heard, [self.mine])
        self.assertFalse(self.link.is_fresh)
        self.assertEqual([trouble for _, trouble in self.troubles], [""])

    def test_not_before_the_greeting(self) -> None:
        """Else requests go to a node of another cluster, before it is known to be one."""
        peer = Peer(self.there)
        answer: Deferred[Arguments] = Deferred()
        peer.hello = lambda _: answer
        self.link.start()
        self.network.run(0.5)
        self.assertIsNone(self.link.connection)
        self.failureResultOf(self.link.call(Get, {"key": b"k"}, 1.0), NotSent)
        answer.callback(NODE.arguments())
        self.network.run(0.1)
        self.connected()

    def test_refused_then_listening(self) -> None:
        """Else nodes have to be started in the right order, each before those that dial it."""
        self.link.start()
        self.network.run(5.0)
        self.assertEqual(self.link.trouble, "connection refused")
        self.assertFalse(self.link.is_fresh)
        Peer(self.there)
        self.network.run(self.times.redial_max_seconds + 0.1)
        self.connected()

    def delays(self, since: float = 0.0) -> list[float]:
        """The delays between attempts that were refused, which take two latencies each."""
        at = [when for when, trouble in self.troubles if when >= since and trouble]
        return [later - earlier - 2 * LATENCY_SECONDS for earlier, later in pairwise(at)]

    def test_backoff(self) -> None:
        """T9: else a node that is down is dialled a thousand times a second by all the others, or
        found again only after a minute."""
        self.link.start()
        self.network.run(20.0)
        delays = self.delays()
        jitter = 0.5 * self.times.redial_min_seconds
        self.assertGreater(delays[0], self.times.redial_min_seconds)
        self.assertLess(delays[0], 0.2)
        for earlier, later in pairwise(delays):
            self.assertGreaterEqual(later, earlier - 1e-9)
            self.assertLessEqual(later, 2 * earlier)
        self.assertAlmostEqual(max(delays), self.times.redial_max_seconds + jitter)
        self.assertGreater(delays.count(max(delays)), 5)

    def test_jitter(self) -> None:
        """T9: else the links to a node that was restarted all dial it in the same instant."""
        ends = []
        for chance in (0.0, 0.3, 1.0):
            self.setUp()
            self.chance = chance
            self.link.start()
            self.network.run(20.0)
            ends.append(self.delays()[-1] - self.times.redial_max_seconds)
        for end, chance in zip(ends, (0.0, 0.3, 1.0), strict=True):
            self.assertAlmostEqual(end, chance * self.times.redial_min_seconds)

    def test_backoff_starts_anew_after_a_greeting(self) -> None:
        """T9: else a node that was down for long is, after its next short absence, found late."""
        self.link.start()
        self.network.run(20.0)
        peer = Peer(self.there)
        self.network.run(2.0)
        self.connected()
        lost_at = self.network.clock.seconds()
        peer.close()
        self.network.run(1.0)
        delays = self.delays(since=lost_at)
        self.assertLess(delays[0], 2 * self.times.redial_min_seconds)
        self.assertGreater(len(delays), 3)

    def test_backoff_does_not_start_anew_after_a_refusal(self) -> None:
        """T9: else a node that does not belong here dials the others twenty times a second, for
        ever: a connection alone is no success."""
        peer = Peer(self.there)

        def refuse(_: Greeting) -> Any:
            raise HelloRefused("go away", reason="cluster")

        peer.hello = refuse
        self.link.start()
        self.network.run(30.0)
        last = peer.met[-1] - peer.met[-2]
        self.assertGreater(last, self.times.redial_max_seconds)

    def test_nobody_answers_the_dial(self) -> None:
        """Else a host that drops packets is waited for as long as TCP does, for minutes."""
        self.link.start()
        with self.network.cut(HERE, THERE):
            self.network.run(self.times.dial_timeout_seconds + 0.01)
            self.assertEqual(self.link.trouble, "no answer to the dial")
        Peer(self.there)
        self.network.run(self.times.redial_max_seconds)
        self.connected()


class DroppedTests(LinkTestCase):
    """A connection that this side has dropped, and whose loss has not been noticed yet."""

    def test_is_gone_at_once(self) -> None:
        """Else who sends again at once what was not sent, as a node that forwards does, gets the
        same connection again and again, without a pause in which its loss could be noticed."""
        Peer(self.there)
        self.link.start()
        self.network.run(0.1)
        self.connected().drop("for a test")
        self.assertEqual((self.link.connection, self.link.trouble), (None, "for a test"))
        self.assertNoResult(self.link.when_connected(1.0))
        self.network.run(1.0)
        self.connected()

    def test_is_gone_before_its_calls_fail(self) -> None:
        """The same, when the connection is lost."""
        Peer(self.there)
        self.link.start()
        self.network.run(0.1)
        seen: list[Any] = []
        call = self.connected().call(Get, {"key": b"k"}, 1.0)
        call.addErrback(lambda _: seen.append(self.link.connection))
        self.connected_quietly().connectionLost(Failure(ConnectionLost()))
        self.assertEqual(seen, [None])
        self.assertEqual(self.link.connection, None)

    def connected_quietly(self) -> Connection:
        """The connection, without a ping."""
        assert self.link.connection is not None
        return self.link.connection


class GreetingTests(LinkTestCase):
    """Who is there does not greet as it should."""

    def test_mute(self) -> None:
        """Else a node that hangs, but whose kernel still accepts connections, is waited for for
        ever."""
        peer = Peer(self.there)
        peer.hello = lambda _: Deferred()
        self.link.start()
        self.network.run(self.times.hello_timeout_seconds + 0.2)
        self.assertIsNone(self.link.connection)
        self.assertEqual(self.link.trouble, "no answer within 1 s")
        self.assertFalse(self.link.is_fresh)
        self.network.run(10.0)
        self.assertGreater(len(peer.met), 3)
        still = [connection for connection in peer.connections if connection.connected]
        self.assertLessEqual(len(still), 1)
        peer.hello = lambda _: NODE.arguments()
        self.network.run(3.0)
        self.connected()

    def test_refused(self) -> None:
        """Else a node that does not belong here does not say so, nor why; and one that is let in
        later stays outside."""
        peer = Peer(self.there)

        def refuse(_: Greeting) -> Any:
            raise HelloRefused("node-2 belongs to cluster d4: check --peers", reason="cluster")

        peer.hello = refuse
        self.link.start()
        self.network.run(0.5)
        refused = self.link.refused
        assert refused is not None
        self.assertEqual(refused.reason, "cluster")
        self.assertEqual(self.link.trouble, "node-2 belongs to cluster d4: check --peers")
        self.network.run(5.0)
        self.assertGreater(len(peer.met), 3)
        self.assertIsNotNone(self.link.refused)
        self.assertFalse(any(connection.connected for connection in peer.connections[:-1]))
        peer.hello = lambda _: NODE.arguments()
        self.network.run(2.0)
        self.connected()

    def test_refusal_is_forgotten(self) -> None:
        """Else a node gives up for a reason that is not there any more."""
        peer = Peer(self.there)

        def refuse(_: Greeting) -> Any:
            raise HelloRefused("go away", reason="name")

        peer.hello = refuse
        self.link.start()
        self.network.run(0.5)
        self.assertIsNotNone(self.link.refused)
        peer.close()
        self.network.run(2.0)
        self.assertIsNone(self.link.refused)
        self.assertEqual(self.link.trouble, "connection refused")

    def test_we_refuse(self) -> None:
        """Else a node of an older release, which does not look at greetings, mixes two clusters."""
        peer = Peer(self.there)
        self.mine = Greeting(cluster_id="d" * 32, name="node-1", address="10.0.0.1:8001")
        self.link.start()
        self.network.run(0.5)
        refused = self.link.refused
        assert refused is not None
        self.assertEqual(refused.reason, "cluster")
        self.assertIsNone(self.link.connection)
        self.assertFalse(peer.connections[0].connected)

    def test_introduced_anew(self) -> None:
        """Else a node that has been founded goes on telling its peers that it has no cluster."""
        peer = Peer(self.there)
        self.link.start()
        self.network.run(0.5)
        self.mine = Greeting(cluster_id=CLUSTER)
        peer.connections[0].close()
        self.network.run(0.5)
        self.assertEqual([said.cluster_id for said in peer.heard], ["", CLUSTER])
        self.connected()

    def test_other_errors(self) -> None:
        """Else an answer that is no greeting ends the link, or keeps a connection that no greeting
        was said on."""
        peer = Peer(self.there)
        newer = NODE.arguments() | {
            "version_min": PROTOCOL_VERSION + 1, "version_max": PROTOCOL_VERSION + 1,
        }  # fmt: skip
        self.link.start()
        for answer in (Refused("not today"), ZeroDivisionError(), newer):

            def hello(_: Greeting, answer: Any = answer) -> Any:
                if isinstance(answer, Exception):
                    raise answer
                return answer

            peer.hello = hello
            met = len(peer.met)
            self.network.run(3.0)
            self.assertGreater(len(peer.met), met + 1)
            self.assertIsNone(self.link.connection)
            self.assertNotEqual(self.link.trouble, "")
        self.flushLoggedErrors(ZeroDivisionError)
        peer.hello = lambda _: NODE.arguments()
        self.network.run(2.0)
        self.connected()

    def test_lost_while_greeting(self) -> None:
        """Else a node that dies at the wrong moment is never dialled again."""
        peer = Peer(self.there)
        peer.hello = lambda _: Deferred()
        self.link.start()
        self.network.run(0.1)
        peer.connections[0].close()
        peer.hello = lambda _: NODE.arguments()
        self.network.run(1.0)
        self.connected()
        self.assertEqual(len(peer.met), 2)
        self.assertNotEqual(self.troubles[0][1], "")

    def test_something_else_at_the_port(self) -> None:
        """Else who writes the wrong port into --peers reads "connection lost", and looks at the
        network; or the node does not survive it."""
        for stranger in (
            Stranger(greeting=HTTP_WORDS),
            Stranger(answer=HTTP_WORDS),
            Stranger(greeting=b"SSH-2.0-OpenSSH_9.2\r\n"),
            Stranger(greeting=bytes(range(255, 0, -1))),
        ):
            self.setUp()
            self.there.listenTCP(PORT, stranger)
            with capturedLogs():
                self.link.start()
                self.network.run(5.0)
            self.assertIn("our protocol", self.link.trouble)
            self.assertGreater(stranger.met, 3)
            self.assertLess(stranger.met, 20)
            self.assert_stops()

    def test_something_that_hangs_up(self) -> None:
        """The same, for what says nothing that could be told from a node."""
        self.there.listenTCP(PORT, Stranger(answer=b"\0\0"))
        self.link.start()
        self.network.run(3.0)
        self.assertIsNone(self.link.connection)
        self.assertIn("connection", self.link.trouble)
        self.assert_stops()


class WatchTests(LinkTestCase):
    """While there is a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.peer = Peer(self.there)
        self.link.start()
        self.network.run(0.5)
        self.first = self.connected()

    def test_quiet_is_not_dead(self) -> None:
        """Else connections that nobody uses are hung up on and dialled again and again."""
        self.network.run(300.0)
        self.assertIs(self.connected(), self.first)
        self.assertEqual(len(self.peer.met), 1)

    def test_lost(self) -> None:
        """Else a restarted node is not found again."""
        self.peer.connections[0].close()
        self.network.run(0.02)
        self.assertIsNone(self.link.connection)
        self.assertEqual(self.link.trouble, "it closed the connection")
        self.network.run(0.5)
        self.assertIsNot(self.connected(), self.first)

    def test_crashed(self) -> None:
        """The same, for a node that was killed: its kernel resets the connection."""
        asked = self.link.call(Ping, {}, 5.0)
        self.network.crash(THERE)
        self.network.run(0.02)
        self.failureResultOf(asked, NoAnswer)
        self.assertIsNone(self.link.connection)
        self.there = self.network.host(THERE)
        Peer(self.there)
        self.network.run(1.0)
        self.connected()

    def test_silent(self) -> None:
        """T8: else a node whose cable is pulled stays "connected" for minutes, and each request to
        it waits for its time limit."""
        worst = (self.times.pings_unheard_max + 2) * self.times.ping_interval_seconds
        with self.network.cut(HERE, THERE):
            asked = self.link.call(Ping, {}, 60.0)
            with capturedLogs() as events:
                self.network.run(worst)
            self.assertIsNone(self.link.connection)
            self.failureResultOf(asked, NoAnswer)
            warned = [event for event in events if event["log_level"] == LogLevel.warn]
            self.assertEqual(len(warned), 1)
            self.assertIn("node-2", warned[0]["line"])
            self.network.run(60.0)
            self.assertIsNone(self.link.connection)
            self.assertEqual(self.link.trouble, "no answer to the dial")
        self.network.run(3.0)
        self.assertIsNot(self.connected(), self.first)

    def test_silent_is_said(self) -> None:
        """Else the reason that people see for a silent node is a sentence about Twisted's
        transports, "aborted locally", which sounds like a fault of their own."""
        with self.network.cut(HERE, THERE):
            self.network.run(20.0)
        said = [trouble for _, trouble in self.troubles if trouble]
        self.assertEqual(said[0], "it does not answer any more")

    def test_not_silent_too_soon(self) -> None:
        """Else a short disturbance costs every request in flight."""
        with self.network.cut(HERE, THERE):
            self.network.run((self.times.pings_unheard_max - 1) * self.times.ping_interval_seconds)
            self.assertIs(self.link.connection, self.first)
        self.network.run(2.0)
        self.assertIs(self.connected(), self.first)

    def test_frozen_and_thawed_ourselves(self) -> None:
        """T1, W7: else a process that was stopped for a while takes all its peers for dead when it
        goes on, though it is itself that was not there."""
        self.here.freeze()
        self.network.run(60.0)
        self.here.thaw()
        self.network.run(2.0)
        self.assertIs(self.connected(), self.first)

    def test_slow_but_speaking(self) -> None:
        """Else a node that is busy with something large, and does not answer pings, is hung up on
        though its bytes keep coming."""
        stuck = self.peer.connections[0]
        self.peer.hello = lambda _: NODE.arguments()
        stuck.dataReceived = lambda data: None  # type: ignore[method-assign]
        for _ in range(30):
            transport: Any = stuck.transport
            transport.write(b"\0\0")
            self.network.run(1.0)
        self.assertIs(self.link.connection, self.first)

    def test_hang_up(self) -> None:
        """Else a caller that has found out that a connection is of no use has no way to say so."""
        asked = self.link.call(Ping, {}, 5.0)
        self.link.hang_up("it is of no use")
        self.assertIsNone(self.link.connection)
        self.assertEqual(self.link.trouble, "it is of no use")
        self.network.run(0.02)
        self.failureResultOf(asked, NoAnswer)
        self.assertEqual(self.link.trouble, "it is of no use")
        self.network.run(0.5)
        self.assertIsNot(self.connected(), self.first)
        self.link.stop()
        self.network.run(0.5)
        self.link.hang_up("there is no connection")
        self.assertIsNone(self.link.connection)

    def test_told(self) -> None:
        """Else those who wait for a peer to come or go never learn of it."""
        told: list[tuple[bool, str]] = []
        self.link.on_change(lambda link: told.append((link.connection is not None, link.trouble)))
        self.peer.connections[0].close()
        self.network.run(1.0)
        self.assertEqual(told, [(False, "it closed the connection"), (True, "")])


class StopTests(LinkTestCase):
    """T11: stopping, at any moment: else a node does not end, or goes on dialling in its grave."""

    def test_before_start(self) -> None:
        """A link that was never used."""
        self.assert_stops()

    def test_while_dialling(self) -> None:
        """Somebody is dialled who does not answer."""
        with self.network.cut(HERE, THERE):
            self.link.start()
            self.network.run(0.3)
            self.assert_stops()

    def test_while_waiting_to_dial_again(self) -> None:
        """Between two attempts."""
        self.link.start()
        self.network.run(5.5)
        self.assert_stops()

    def test_while_greeting(self) -> None:
        """The other end has not answered the `Hello` yet."""
        peer = Peer(self.there)
        peer.hello = lambda _: Deferred()
        self.link.start()
        self.network.run(0.3)
        self.assertEqual(len(peer.heard), 1)
        self.assert_stops()
        self.assertEqual(len(peer.met), 1)

    def test_greeted_after_all(self) -> None:
        """The answer to the `Hello` is under way when the link stops."""
        peer = Peer(self.there)
        self.link.start()
        while not peer.heard:
            self.network.run(LATENCY_SECONDS / 2)
        self.assertIsNone(self.link.connection)
        self.assert_stops()

    def test_while_connected(self) -> None:
        """The usual case."""
        peer = Peer(self.there)
        self.link.start()
        self.network.run(2.5)
        self.connected()
        self.assert_stops()
        self.assertFalse(peer.connections[0].connected)
        self.assertEqual(len(peer.met), 1)

    def test_with_calls_in_flight(self) -> None:
        """They end, as not answered."""
        peer = Peer(self.there)
        self.link.start()
        self.network.run(0.5)
        with self.network.cut(HERE, THERE):
            asked = self.link.call(Ping, {}, 60.0)
            self.link.stop()
            self.network.run(1.0)
            self.failureResultOf(asked, NoAnswer)
        self.network.run(1.0)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertFalse(peer.connections[0].connected)

    def test_with_somebody_waiting(self) -> None:
        """Who waits for a connection is told at once that there will be none."""
        self.link.start()
        self.network.run(1.0)
        waiting = self.link.when_connected(60.0)
        self.assert_stops()
        self.failureResultOf(waiting, NotSent)

    def test_while_settling(self) -> None:
        """Who waits for the first attempt is told."""
        with self.network.cut(HERE, THERE):
            self.link.start()
            settled = self.link.when_settled(60.0)
            self.network.run(0.1)
            self.assert_stops()
            self.assertIsNone(self.successResultOf(settled))

    def test_twice(self) -> None:
        """A second signal."""
        Peer(self.there)
        self.link.start()
        self.network.run(0.5)
        self.link.stop()
        self.assert_stops()
        self.assert_stops()


class WaitingTests(LinkTestCase):
    """For a connection, or for the first attempt to end."""

    def test_when_connected(self) -> None:
        """Else requests fail that had only to wait until the node is back."""
        self.link.start()
        waiting = [self.link.when_connected(30.0) for _ in range(3)]
        self.network.run(2.0)
        for one in waiting:
            self.assertNoResult(one)
        Peer(self.there)
        self.network.run(2.0)
        connection = self.connected()
        for one in waiting:
            self.assertIs(self.successResultOf(one), connection)
        self.assertIs(self.successResultOf(self.link.when_connected(1.0)), connection)

    def test_time_is_up(self) -> None:
        """T7: else a request to a node that is down waits for ever, and does not say for what."""
        self.link.start()
        long, short = self.link.when_connected(30.0), self.link.when_connected(2.0)
        self.network.run(2.1)
        error = self.failureResultOf(short, NotSent).value
        self.assertEqual(str(error), f"{ADDRESS} cannot be reached: connection refused")
        self.assertNoResult(long)
        Peer(self.there)
        self.network.run(2.0)
        self.assertIs(self.successResultOf(long), self.connected())

    def test_nothing_is_kept(self) -> None:
        """T5: else a node whose peer is down for a week grows with each request that waited."""
        self.link.start()
        waiting = [self.link.when_connected(0.5) for _ in range(10)]
        kept = [ref(one) for one in waiting]
        self.network.run(1.0)
        for one in waiting:
            self.failureResultOf(one, NotSent)
        waiting.clear()
        del one
        gc.collect()
        self.assertEqual([one() for one in kept], [None] * 10)

    def test_given_up(self) -> None:
        """Else whoever gives up waiting breaks the link for those that still wait."""
        self.link.start()
        gone, stays = self.link.when_connected(30.0), self.link.when_connected(30.0)
        gone.cancel()
        self.failureResultOf(gone, NotSent, CancelledError)
        Peer(self.there)
        self.network.run(2.0)
        self.assertIs(self.successResultOf(stays), self.connected())
        self.assert_stops()

    def test_call_without_connection(self) -> None:
        """Else a caller believes that its write may have been done."""
        error = self.failureResultOf(self.link.call(Ping, {}, 1.0), NotSent).value
        self.assertIn("not tried yet", str(error))
        self.link.start()
        self.network.run(1.0)
        error = self.failureResultOf(self.link.call(Ping, {}, 1.0), NotSent).value
        self.assertIn("connection refused", str(error))

    def test_tell_without_connection(self) -> None:
        """Else Raft takes messages for sent that are not, or talks to a node before it is known
        to be the right one."""
        said = {"cluster": b"c" * 16, "messages": b""}
        written: list[bytes] = []
        self.network.overhear = lambda wire, data: written.append(data)
        self.assertFalse(self.link.tell(RaftMessages, said))
        peer = Peer(self.there)
        answer: Deferred[Arguments] = Deferred()
        peer.hello = lambda _: answer
        self.link.start()
        self.network.run(0.1)
        self.assertFalse(self.link.tell(RaftMessages, said))
        answer.callback(NODE.arguments())
        self.network.run(0.1)
        self.connected()
        self.assertNotIn(b"RaftMessages", b"".join(written))
        self.assertTrue(self.link.tell(RaftMessages, said))
        self.network.run(0.1)
        self.assertIn(b"RaftMessages", b"".join(written))
        peer.close()
        self.network.run(0.1)
        self.assertFalse(self.link.tell(RaftMessages, said))
        self.assert_stops()

    def test_settled(self) -> None:
        """Else a client takes a node for down that it has not tried yet."""
        settled = self.link.when_settled(30.0)
        self.link.start()
        self.assertNoResult(settled)
        self.network.run(0.1)
        self.assertIsNone(self.successResultOf(settled))
        self.assertIsNone(self.link.connection)
        self.assertIsNone(self.successResultOf(self.link.when_settled(30.0)))

    def test_settled_well(self) -> None:
        """The same, when the node is there."""
        Peer(self.there)
        settled = self.link.when_settled(30.0)
        self.link.start()
        self.network.run(0.1)
        self.assertIsNone(self.successResultOf(settled))
        self.connected()
        self.assert_stops()

    def test_not_settled_in_time(self) -> None:
        """Else a command line waits for a host that drops packets before it asks another."""
        with self.network.cut(HERE, THERE):
            self.link.start()
            settled = self.link.when_settled(0.5)
            self.network.run(0.6)
            self.assertIsNone(self.successResultOf(settled))
            self.assertTrue(self.link.is_fresh)


class OtherTimesTests(LinkTestCase):
    """A link that is given other times."""

    times = LinkTimes(
        dial_timeout_seconds=0.2,
        hello_timeout_seconds=0.3,
        redial_min_seconds=0.01,
        redial_max_seconds=0.1,
        ping_interval_seconds=0.1,
        pings_unheard_max=2,
    )

    def test_times(self) -> None:
        """Else the times that people set are not the ones in force."""
        self.link.start()
        with self.network.cut(HERE, THERE):
            self.network.run(0.21)
            self.assertEqual(self.link.trouble, "no answer to the dial")
        peer = Peer(self.there)
        peer.hello = lambda _: Deferred()
        self.network.run(0.6)
        self.assertEqual(self.link.trouble, "no answer within 0.3 s")
        peer.hello = lambda _: NODE.arguments()
        self.network.run(0.6)
        self.connected()
        with self.network.cut(HERE, THERE), capturedLogs():
            self.network.run(0.5)
            self.assertIsNone(self.link.connection)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class Names:
    """A name service.

    :ivar known: name to IP address.
    :ivar asked: how often a name was asked for.
    :ivar is_stuck: whether it does not answer.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.asked = 0
        self.is_stuck = False

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> _Resolution:
        self.asked += 1
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if hostName in self.known:
            address = IPv4Address("TCP", self.known[hostName], portNumber)
            resolutionReceiver.addressResolved(address)
        if not self.is_stuck:
            resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IReactorPluggableNameResolver)
class NamingHost(Host):
    """A host that knows a name service."""

    def __init__(self, network: Network, ip: str) -> None:
        super().__init__(network, ip)
        self.names = Names()

    @property
    def nameResolver(self) -> Names:
        return self.names

    def installNameResolver(self, resolver: Any) -> Names:
        raise AssertionError("nobody asked for another name service")


class NameTests(LinkTestCase):
    """T12: an address with a name in it."""

    def setUp(self) -> None:
        super().setUp()
        self.naming = NamingHost(self.network, HERE)
        self.names = self.naming.names
        self.link = self.make_link(self.naming, Address("kv.example", PORT))

    def test_unknown_at_first(self) -> None:
        """Else a node that boots before its name service does not start, or never finds its
        peers."""
        Peer(self.there)
        self.link.start()
        self.network.run(5.0)
        self.assertEqual(self.link.trouble, "its name cannot be resolved")
        self.assertGreater(self.names.asked, 3)
        error = self.failureResultOf(self.link.call(Ping, {}, 1.0), KvtwistError).value
        self.assertEqual(
            str(error), "kv.example:8001 cannot be reached: its name cannot be resolved"
        )
        self.names.known["kv.example"] = THERE
        self.network.run(1.5)
        self.connected()

    def test_moved(self) -> None:
        """Else a node that comes back under another IP address is looked for where it was."""
        self.names.known["kv.example"] = THERE
        peer = Peer(self.there)
        self.link.start()
        self.network.run(1.0)
        self.connected()
        self.names.known["kv.example"] = ELSEWHERE
        elsewhere = Peer(self.network.host(ELSEWHERE))
        peer.close()
        self.network.run(1.0)
        self.connected()
        self.assertEqual(len(elsewhere.met), 1)
        self.assert_stops()

    def test_stop_while_unknown(self) -> None:
        """Else such a node cannot be stopped."""
        self.link.start()
        self.network.run(3.0)
        self.assert_stops()

    def test_stop_while_resolving(self) -> None:
        """The same, while the name service does not answer."""
        self.names.is_stuck = True
        self.link.start()
        self.network.run(3.0)
        self.assertIsNone(self.link.connection)
        self.assert_stops()
