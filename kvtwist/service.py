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
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from kvtwist.core.address import LOOPBACK, Address
from kvtwist.core.founding import Founding, FoundingRecord
from kvtwist.core.topology import Member, Settings, Topology, check_name
from kvtwist.errors import ConfigurationError, KvtwistError, Unavailable
from kvtwist.node.cluster import Cluster
from kvtwist.node.durable import DurablePartitions
from kvtwist.node.founder import Founder, Hopeless
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import MemoryPartitions, Partitions
from kvtwist.node.peers import Peers
from kvtwist.node.post import Post
from kvtwist.node.router import Router
from kvtwist.node.server import Server
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.opening import OpenStorage, Storage, open_storage
from kvtwist.wire.clock import elapsed_clock
from kvtwist.wire.connection import Connection
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
    :ivar settings: fixed for the whole cluster: the same at every founder. ``durable`` says
        whether data is kept on disk.
    :ivar limits: this node's own.
    :ivar data_dir: where, if it is; by default ``NAME.kvtwist`` in the current directory.
    """

    name: str
    listen: Address
    advertise: Address | None = None
    founders: tuple[Address, ...] = ()
    settings: Settings = field(default_factory=Settings)
    limits: Limits = field(default_factory=Limits)
    data_dir: Path | None = None

    @property
    def kept_in(self) -> Path:
        """The data directory of a node that has one."""
        return self.data_dir or Path(f"{self.name}.kvtwist")

    @property
    def dialled(self) -> Address:
        """Where others dial this node. On a wildcard, that is only this machine's own loopback."""
        if self.advertise is not None:
            return self.advertise
        return Address(LOOPBACK, self.listen.port) if self.listen.is_wildcard else self.listen


class Node(Service):
    """A node.

    It is built when it is started, since who it is stands in its data directory.

    :param reactor: what it runs on; everything in it is given this one.
    :param hopeless: called with the reason when the node can never come into its cluster, or cannot
        go on, after which it is of no use. By default it says so in the log and stops itself.
    :param identity: 32 hexadecimal digits, of a new node; new for each life of one that keeps
        nothing on disk.
    :param chance: numbers from 0 to 1, for jitter.
    :param wall_seconds: the wall clock; read once.
    :param open_storage: opens the data directory of a node that has one.
    :raises ConfigurationError: when the configuration contradicts itself.

    :ivar cluster: once it is started; so are the others.
    """

    cluster: Cluster
    peers: Peers
    server: Server

    def __init__(
        self,
        reactor: Any,
        config: NodeConfig,
        hopeless: Hopeless | None = None,
        identity: str | None = None,
        chance: Callable[[], float] = random.random,
        wall_seconds: Callable[[], float] = time.time,
        open_storage: OpenStorage = open_storage,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._port: IListeningPort | None = None
        self._hopeless: Hopeless | None = hopeless or self._stop_myself
        self._identity = identity or secrets.token_hex(16)
        self._chance = chance
        self._wall_seconds = wall_seconds
        self._open_storage = open_storage
        if not config.settings.durable:
            # Else it may have been founded: then its founders are only addresses to dial.
            Founding(self._member(self._identity), self._founders, config.settings)

    @property
    def _founders(self) -> tuple[Address, ...]:
        return self._config.founders or (self._config.dialled,)

    def _member(self, identity: str) -> Member:
        return Member(check_name(self._config.name), identity, self._config.dialled)

    def privilegedStartService(self) -> None:
        """Listen.

        :raises ConfigurationError: when the address cannot be listened on.
        """
        self._listen()
        super().privilegedStartService()

    def startService(self) -> None:
        """Open the data directory, dial the peers and take part in the founding.

        :raises ConfigurationError: when the data directory is not this node's.
        :raises StorageError: when it cannot be used.
        """
        self._listen()
        super().startService()
        self._build()
        _log.info("{me} listens on {address}", me=self._config.name, address=self._config.listen)
        self._router.start()
        self._warn()
        try:
            self.cluster.start()
        except KvtwistError as error:
            self._partitions.stop(error)
            raise
        self.server.start()
        self.peers.start()
        self._founder.start()

    def _build(self) -> None:
        """Make every object of the node, once, and tell each of those that it needs."""
        reactor, config, chance = self._reactor, self._config, self._chance
        elapsed_seconds = elapsed_clock(reactor)
        deadlines = Deadlines(reactor, elapsed_seconds)
        limits = config.limits.of_connection()
        turn = Turn()
        storage = None
        if config.settings.durable:
            storage = self._open_storage(reactor, config.kept_in, config.name, self._identity)
            self._check(storage.directory)
        self.cluster = Cluster(
            self._member(storage.directory.record.identity if storage else self._identity),
            self._founders,
            config.settings,
            elapsed_seconds,
            int(self._wall_seconds() * 1000),
            features(limits.boxes),
            *(_kept(storage.directory) if storage else ()),
        )
        self.peers = Peers(
            reactor, self.cluster.others, self.cluster.greeting, chance, deadlines, limits, turn
        )
        post = Post(config.name, self.peers)
        self._partitions = self._make_partitions(storage, post, turn, elapsed_seconds)
        self._router = Router(
            reactor,
            self.cluster,
            self._partitions,
            self.peers,
            config.limits,
            elapsed_seconds,
            chance,
        )
        self._founder = Founder(reactor, self.cluster, self.peers, self._give_up)
        self.server = Server(
            reactor,
            self.cluster,
            self._partitions,
            self.peers,
            self._router,
            deadlines,
            config.limits,
            post,
            turn,
        )
        self.cluster.when_founded(self._reach_members)
        self.cluster.when_founded(self._partitions.start)
        self.cluster.when_founded(lambda _: self.server.have_founded())

    def _check(self, directory: DataDirectory) -> None:
        try:
            directory.check_partitions(self._config.settings.partitions)
        except ConfigurationError:
            directory.close()
            raise

    def _make_partitions(
        self,
        storage: Storage | None,
        post: Post,
        turn: Turn,
        elapsed_seconds: Callable[[], float],
    ) -> Partitions:
        if storage is None:
            return MemoryPartitions(
                self._config.name, lambda: secrets.randbits(FIRST_REVISION_BITS)
            )
        return DurablePartitions(
            self._reactor,
            self._config.name,
            storage.directory,
            storage.store,
            post,
            turn,
            self._give_up,
            elapsed_seconds,
            self._chance,
        )

    def stopService(self) -> Deferred[None]:
        """Have others lead, take no new connections and requests, answer what is being worked on,
        hang up (T11)."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._founder.stop()
        await self._partitions.hand_over()
        self._router.stop()
        if self._port is not None:
            port, self._port = self._port, None
            await _finished(port.stopListening())
        await self.server.drain()
        await self._partitions.stop(Unavailable(f"{self._config.name} is stopping"))
        await self.peers.stop()
        _log.info("{me} has stopped", me=self._config.name)

    def _listen(self) -> None:
        if self._port is not None:
            return
        address = self._config.listen
        try:
            self._port = self._reactor.listenTCP(
                address.port, _Entrance(self), backlog=1024, interface=address.host
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

    def _give_up(self, error: KvtwistError) -> None:
        """Tell, once, that there is no hope."""
        hopeless, self._hopeless = self._hopeless, None
        if hopeless is not None:
            hopeless(error)

    def _stop_myself(self, error: KvtwistError) -> None:
        _log.critical("{me} stops: {error}", me=self._config.name, error=error)
        if self.parent is not None:
            self.disownServiceParent()
        else:
            self.stopService()


class _Entrance(Factory):
    """Where others come in: the server of a node, which is not there yet when it listens."""

    noisy = False

    def __init__(self, node: Node) -> None:
        self._node = node

    def buildProtocol(self, addr: object) -> Connection | None:
        """One connection."""
        return self._node.server.buildProtocol(addr)


def _kept(
    directory: DataDirectory,
) -> tuple[FoundingRecord | None, Callable[[FoundingRecord], None], str]:
    """What the founding has to know of a data directory."""
    record = directory.record
    return record.founding, directory.found, record.restored.digest if record.restored else ""


async def _finished(result: Deferred[None] | None) -> None:
    if result is not None:
        await result
