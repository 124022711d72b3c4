"""The listening side of a node: connections, and the commands that are not about data."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvtwist import __version__
from kvtwist.errors import HelloRefused
from kvtwist.node.backups import Backups
from kvtwist.node.batches import Batches
from kvtwist.node.budget import Budget
from kvtwist.node.cluster import Cluster
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import Partitions
from kvtwist.node.peers import Peers
from kvtwist.node.post import Post
from kvtwist.node.router import Router
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments, Connection, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.descriptions import write_descriptions
from kvtwist.wire.greeting import Greeting, came_later
from kvtwist.wire.seldom import Seldom
from kvtwist.wire.turn import Turn
from kvtwist.wire.values import write_member, write_topology, write_view

DRAIN_SECONDS_MAX = 2.0
SWEEP_SECONDS = 5.0
QUIET_SECONDS = 0.05
_REFUSALS_REMEMBERED = 100

_log = Logger(namespace="kvtwist.node")


class Server(Factory):
    """Makes the connections that others dial, and answers on them."""

    noisy = False

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        partitions: Partitions,
        peers: Peers,
        router: Router,
        deadlines: Deadlines,
        limits: Limits,
        post: Post,
        turn: Turn | None = None,
    ) -> None:
        self._reactor = reactor
        self._post = post
        self._turn = turn or Turn()
        self._frequent_responder = router.answer_here
        self._cluster = cluster
        self._partitions = partitions
        self._peers = peers
        self._limits = limits
        self._connections: dict[Connection, str] = {}
        self._per_host: Counter[str] = Counter()
        self._budget = Budget(limits.of_all_connections())
        self._seldom = Seldom(_log, deadlines.seconds)
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._refusals: set[str] = set()
        self._deadlines = deadlines
        self._backups = Backups(reactor, router, partitions, limits.backups_max, deadlines.seconds)
        self._responders = responders(
            {
                commands.Hello: self._hello,
                commands.Ping: lambda _, __: {},
                commands.RaftMessages: post.receive,
                **partitions.responders(),
                commands.Found: lambda _, __: write_view(cluster.view()),
                commands.DescribeTopology: lambda _, __: self._topology(),
                commands.Status: lambda _, __: self._status(),
                commands.DescribeReplicas: self._describe,
                **router.responders(),
                **Batches(router, partitions, limits).responders(),
                **self._backups.responders(),
            }
        )

    def buildProtocol(self, addr: object) -> Connection | None:
        """One connection, known until it is lost; none, if there are too many."""
        host = str(getattr(addr, "host", ""))
        if (why := self._too_many(host)) is not None:
            self._seldom.warn(f"{host}: connection refused: {why}")
            return None
        connection = Connection(
            self._deadlines,
            self._responders,
            self._limits.of_connection(),
            self._seldom,
            lambda held_bytes: self._account(connection, host, held_bytes),
            self._turn,
            self._frequent_responder,
        )
        self._connections[connection] = host
        self._per_host[host] += 1
        connection.when_lost(lambda _: self._gone(connection))
        return connection

    def _account(self, connection: Connection, host: str, held_bytes: int) -> None:
        """Count what is held. Not what members bring, which has to come through: their connections
        are few, and each is bounded."""
        counted = 0 if self._post.has_room(connection) else held_bytes
        self._budget.account(connection, host, counted)

    def _too_many(self, host: str) -> str | None:
        limits = self._limits
        if len(self._connections) >= limits.connections_max:
            return f"over connections_max={limits.connections_max}"
        if self._per_host[host] >= limits.connections_per_address_max:
            return f"over connections_per_address_max={limits.connections_per_address_max}"
        return None

    def _gone(self, connection: Connection) -> None:
        host = self._connections.pop(connection, None)
        if host is not None:
            self._budget.account(connection, host, 0)
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    def have_founded(self) -> None:
        """There are members: some of them are here already."""
        for connection in self._connections:
            self._post.met(connection)

    def start(self) -> None:
        """Begin to look for connections that do nothing."""
        self._sweeping.start(SWEEP_SECONDS, now=False)

    def _sweep(self) -> None:
        for connection in list(self._connections):
            connection.sweep(SWEEP_SECONDS)

    async def drain(self) -> None:
        """Close every connection, once what is being worked on has been answered; not for long."""
        if self._sweeping.running:
            self._sweeping.stop()
        await self._quiet()
        closed = [self._closed(connection) for connection in list(self._connections)]
        for gone in closed:
            await gone

    async def _quiet(self) -> None:
        """Wait until nobody has said anything for a moment and nothing is being worked on.

        What is under way to this node is so answered, if only with a refusal: a write whose
        connection is closed instead would be unknown to whoever sent it. Replicas go on talking.
        """
        seen: dict[Connection, int] = {}
        for _ in range(int(DRAIN_SECONDS_MAX / QUIET_SECONDS)):
            await deferLater(self._reactor, QUIET_SECONDS, lambda: None)
            now = {
                connection: connection.reads
                for connection in self._connections
                if not self._post.is_carrier(connection)
            }
            working = any(connection.unanswered for connection in self._connections)
            if now == seen and not working:
                return
            seen = now

    def _closed(self, connection: Connection) -> Deferred[None]:
        """Close it; fires when it is closed, or has been cut off."""
        gone: Deferred[None] = Deferred()

        def is_gone(_: Failure | None = None) -> None:
            if not gone.called:
                gone.callback(None)

        def cut_off() -> None:
            connection.abort()
            is_gone()  # whoever stops has to come to an end

        late = self._reactor.callLater(DRAIN_SECONDS_MAX, cut_off)
        connection.when_lost(is_gone)
        connection.close()

        def closed(result: None) -> None:
            if late.active():
                late.cancel()

        return gone.addCallback(closed)

    # -- commands -----------------------------------------------------------------------------

    def _hello(self, connection: Connection, arguments: Arguments) -> Arguments:
        mine, theirs = self._cluster.greeting(), Greeting.from_arguments(arguments)
        refusal = self._cluster.objection(theirs)
        if refusal is not None:
            self._reactor.callLater(0, connection.close)
            raise self._refused(mine, theirs, refusal)
        connection.greeting = theirs
        self._post.met(connection)
        return mine.arguments()

    def _refused(self, mine: Greeting, theirs: Greeting, refusal: HelloRefused) -> HelloRefused:
        """What to answer. Of two nodes with one name the later one has to go. It is not told so
        here, where anybody can say anything, but by the answer to its own `Hello`."""
        if refusal.reason == "name" and came_later(mine, theirs):
            return HelloRefused(f"{mine.who} came later, and has to go", reason="later")
        if str(refusal) not in self._refusals and len(self._refusals) < _REFUSALS_REMEMBERED:
            self._refusals.add(str(refusal))
            _log.warn("refused a connection: {refusal}", refusal=refusal)
        return refusal

    def _topology(self) -> Arguments:
        topology = self._cluster.founded()
        partitions = range(topology.settings.partitions)
        return write_topology(topology, [self._partitions.leader(each) for each in partitions])

    def _status(self) -> Arguments:
        topology = self._cluster.topology
        me = self._cluster.me
        standing = self._partitions.standing()
        return {
            **write_member(me),
            "software": __version__,
            "uptime_ms": self._cluster.uptime_ms,
            "cluster_id": topology.cluster_id if topology else "",
            "epoch": topology.epoch if topology else 0,
            "key_count": self._partitions.key_count,
            "owned": topology.placement.owned(me.name) if topology else 0,
            "waiting_for": list(self._cluster.waiting_for()),
            "unreachable": self._peers.unreachable(),
            **(standing._asdict() if standing is not None else {}),
        }

    def _describe(self, _: Connection, arguments: Arguments) -> Arguments:
        topology = self._cluster.founded()
        count = min(max(1, arguments["count"]), commands.DESCRIPTIONS_MAX)
        page = self._partitions.describe(arguments["first"], count)
        names = [member.name for member in topology.members]
        return write_descriptions(page.descriptions, page.following, names)
