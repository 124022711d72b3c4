"""The listening side of a node: connections, and the commands that are not about data."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvtwist import __version__
from kvtwist.errors import ConfigurationError, HelloRefused
from kvtwist.node.cluster import Cluster
from kvtwist.node.founder import Hopeless
from kvtwist.node.peers import Peers
from kvtwist.node.router import Router
from kvtwist.node.store import Store
from kvtwist.wire import commands
from kvtwist.wire.boxes import BoxLimits
from kvtwist.wire.connection import Arguments, Connection, Responders
from kvtwist.wire.greeting import Greeting, is_the_intruder, objection, same_name_elsewhere
from kvtwist.wire.values import write_member, write_topology, write_view

DRAIN_SECONDS_MAX = 2.0
_DRAIN_LOOK_SECONDS = 0.02
_REFUSALS_REMEMBERED = 100

_log = Logger(namespace="kvtwist.node")


class Server(Factory):
    """Makes the connections that others dial, and answers on them.

    :param hopeless: called with the reason when this node has to give way to another of its name.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        store: Store,
        peers: Peers,
        router: Router,
        limits: BoxLimits,
        hopeless: Hopeless,
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._store = store
        self._peers = peers
        self._limits = limits
        self._hopeless = hopeless
        self._connections: set[Connection] = set()
        self._refusals: set[str] = set()
        self._responders: Responders = {
            commands.Hello: self._hello,
            commands.Ping: lambda _, __: {},
            commands.Found: lambda _, __: write_view(cluster.view()),
            commands.DescribeTopology: lambda _, __: write_topology(cluster.founded()),
            commands.Status: lambda _, __: self._status(),
            **router.responders(),
        }

    def buildProtocol(self, addr: object) -> Connection:
        """One connection, known until it is lost."""
        connection = Connection(self._reactor, self._responders, self._limits)
        connection.when_made(self._connections.add)
        connection.when_lost(lambda _: self._connections.discard(connection))
        return connection

    async def drain(self) -> None:
        """Close every connection, once what is being worked on has been answered; not for long."""
        for _ in range(int(DRAIN_SECONDS_MAX / _DRAIN_LOOK_SECONDS)):
            if not any(connection.unanswered for connection in self._connections):
                break
            await deferLater(self._reactor, _DRAIN_LOOK_SECONDS, lambda: None)
        closed = [self._closed(connection) for connection in list(self._connections)]
        for gone in closed:
            await gone

    def _closed(self, connection: Connection) -> Deferred[None]:
        gone: Deferred[None] = Deferred()
        connection.when_lost(lambda _: gone.callback(None))
        connection.close()
        cut_off = self._reactor.callLater(DRAIN_SECONDS_MAX, connection.abort)

        def lost(result: Failure | None) -> Failure | None:
            if cut_off.active():
                cut_off.cancel()
            return result

        return gone.addBoth(lost)

    # -- commands -----------------------------------------------------------------------------

    def _hello(self, connection: Connection, arguments: Arguments) -> Arguments:
        mine, theirs = self._cluster.greeting(), Greeting.from_arguments(arguments)
        refusal = objection(mine, theirs)
        if refusal is not None:
            self._reactor.callLater(0, connection.close)
            raise self._refused(mine, theirs, refusal)
        connection.greeting = theirs
        return mine.arguments()

    def _refused(self, mine: Greeting, theirs: Greeting, refusal: HelloRefused) -> HelloRefused:
        if same_name_elsewhere(mine, theirs) and is_the_intruder(mine, theirs):
            self._hopeless(
                ConfigurationError(
                    f"the name {mine.name} is already used by the node at {theirs.address}: "
                    f"start the node at {mine.address} with another --id"
                )
            )
            return HelloRefused(f"{mine.who} is giving way: its name is yours", reason="leaving")
        if str(refusal) not in self._refusals and len(self._refusals) < _REFUSALS_REMEMBERED:
            self._refusals.add(str(refusal))
            _log.warn("refused a connection: {refusal}", refusal=refusal)
        return refusal

    def _status(self) -> Arguments:
        topology = self._cluster.topology
        me = self._cluster.me
        return {
            **write_member(me),
            "software": __version__,
            "uptime_ms": self._cluster.uptime_ms,
            "cluster_id": topology.cluster_id if topology else "",
            "epoch": topology.epoch if topology else 0,
            "keys": self._store.keys,
            "owned": topology.placement.owned(me.name) if topology else 0,
            "waiting_for": list(self._cluster.waiting_for()),
            "unreachable": self._peers.unreachable(),
        }
