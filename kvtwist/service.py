"""The composition root: builds every object of a node once, and orders its start and stop.

`Node` is an ordinary Twisted service. ``twistd kvnode`` runs one; so can any Twisted program::

    node = Node(reactor, NodeConfig(name="node-1", listen=parse_address(":8001")))
    node.setServiceParent(application)
"""

from __future__ import annotations

import errno
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from kvtwist.core.address import LOOPBACK, Address
from kvtwist.core.topology import Member, Settings, Topology, check_name
from kvtwist.errors import ConfigurationError
from kvtwist.node.cluster import Cluster
from kvtwist.node.founder import Founder, Hopeless
from kvtwist.node.limits import Limits
from kvtwist.node.peers import Peers
from kvtwist.node.router import Router
from kvtwist.node.server import Server
from kvtwist.node.store import Store
from kvtwist.wire.clock import elapsed_clock
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import features
from kvtwist.wire.turn import Turn

FIRST_REVISION_BITS = 52
"""A partition in memory starts to count at a random number of so many bits. Versions of a node's
former life then match nothing, and stay exact in JSON, whose numbers end at 53 bits."""

_log = Logger(namespace="kvtwist.node")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node is started with.

    :ivar name: its ``--id``.
    :ivar listen: where it listens.
    :ivar advertise: where others dial it; by default where it listens.
    :ivar founders: the addresses of all nodes of the cluster, this one included; by default this
        one alone.
    :ivar settings: fixed for the whole cluster: the same at every founder.
    :ivar limits: this node's own.
    """

    name: str
    listen: Address
    advertise: Address | None = None
    founders: tuple[Address, ...] = ()
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)

    @property
    def dialled(self) -> Address:
        """Where others dial this node. On a wildcard, that is only this machine's own loopback."""
        if self.advertise is not None:
            return self.advertise
        return Address(LOOPBACK, self.listen.port) if self.listen.is_wildcard else self.listen


class Node(Service):
    """A node.

    :param reactor: what it runs on; everything in it is given this one.
    :param hopeless: called with the reason when the node can never come into its cluster, after
        which it is of no use. By default it says so in the log and stops itself.
    :param identity: 32 hexadecimal digits, new for each life of a node that keeps nothing on disk.
    :param chance: numbers from 0 to 1, for jitter.
    :param wall_seconds: the wall clock; read once.
    :raises ConfigurationError: when the configuration contradicts itself.
    """

    def __init__(
        self,
        reactor: Any,
        config: NodeConfig,
        hopeless: Hopeless | None = None,
        identity: str | None = None,
        chance: Callable[[], float] = random.random,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._port: IListeningPort | None = None
        me = Member(check_name(config.name), identity or secrets.token_hex(16), config.dialled)
        elapsed_seconds = elapsed_clock(reactor)
        deadlines = Deadlines(reactor, elapsed_seconds)
        limits = config.limits.of_connection()
        turn = Turn()
        self._hopeless: Hopeless | None = hopeless or self._stop_myself
        self.cluster = Cluster(
            me,
            config.founders or (me.address,),
            config.settings,
            elapsed_seconds,
            int(wall_seconds() * 1000),
            features(limits.boxes),
        )
        store = Store(lambda: secrets.randbits(FIRST_REVISION_BITS))
        self.peers = Peers(
            reactor, self.cluster.others, self.cluster.greeting, chance, deadlines, limits, turn
        )
        self._router = Router(
            reactor, self.cluster, store, self.peers, config.limits, elapsed_seconds, chance
        )
        self._founder = Founder(reactor, self.cluster, self.peers, self._give_up)
        self.server = Server(
            reactor,
            self.cluster,
            store,
            self.peers,
            self._router,
            deadlines,
            config.limits,
            turn,
        )
        self.cluster.when_founded(self._reach_members)

    def privilegedStartService(self) -> None:
        """Listen.

        :raises ConfigurationError: when the address cannot be listened on.
        """
        self._listen()
        super().privilegedStartService()

    def startService(self) -> None:
        """Dial the peers and take part in the founding."""
        self._listen()
        super().startService()
        self._router.start()
        self._warn()
        self.cluster.start()
        self.server.start()
        self.peers.start()
        self._founder.start()

    def stopService(self) -> Deferred[None]:
        """Take no new connections and requests, answer what is being worked on, hang up."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._founder.stop()
        self._router.stop()
        if self._port is not None:
            port, self._port = self._port, None
            await _finished(port.stopListening())
        await self.server.drain()
        await self.peers.stop()
        _log.info("{me} has stopped", me=self._config.name)

    def _listen(self) -> None:
        if self._port is not None:
            return
        address = self._config.listen
        try:
            self._port = self._reactor.listenTCP(
                address.port, self.server, backlog=1024, interface=address.host
            )
        except CannotListenError as error:
            why = getattr(error.socketError, "strerror", None) or str(error.socketError)
            in_use = getattr(error.socketError, "errno", None) == errno.EADDRINUSE
            mend = (
                "stop whatever has that port (another node?), or choose another --addr"
                if in_use
                else "choose an --addr that this machine has"
            )
            raise ConfigurationError(f"cannot listen on {address}: {why}: {mend}") from error
        _log.info("{me} listens on {address}", me=self._config.name, address=address)

    def _warn(self) -> None:
        listen = self._config.listen
        if not listen.is_loopback:
            _log.warn(
                "whoever can reach {listen} can read and write everything: "
                "there is no authentication yet",
                listen=listen,
            )
        if listen.is_wildcard and self._config.dialled.is_loopback:
            _log.warn(
                "others are told to dial {dialled}, which only this machine can: "
                "use --advertise=HOST:PORT",
                dialled=self._config.dialled,
            )

    def _reach_members(self, topology: Topology) -> None:
        """The founding record, not ``--peers``, says who the others are."""
        me = self.cluster.me.address
        self.peers.reach(each.address for each in topology.members if each.address != me)

    def _give_up(self, error: ConfigurationError) -> None:
        """Tell, once, that there is no hope."""
        hopeless, self._hopeless = self._hopeless, None
        if hopeless is not None:
            hopeless(error)

    def _stop_myself(self, error: ConfigurationError) -> None:
        _log.critical("{me} stops: {error}", me=self._config.name, error=error)
        if self.parent is not None:
            self.disownServiceParent()
        else:
            self.stopService()


async def _finished(result: Deferred[None] | None) -> None:
    if result is not None:
        await result
