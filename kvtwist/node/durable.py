"""The data of a node that keeps it on disk: it has a replica of each group that it is listed for.

A partition of the ring is a Raft group (`kvtwist.core.groups`). A write is proposed by its leader,
synced by a majority, applied, and then answered; a read is confirmed by a majority, and sees what
was applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols import amp

from kvtwist.core.groups import META, Group, group_of, groups_of
from kvtwist.core.state.commands import NO_SESSION, WHOSE, encode_put
from kvtwist.core.topology import Topology
from kvtwist.errors import DiskFull, KvtwistError, NotLeader, Unavailable
from kvtwist.node.arrivals import Arrivals
from kvtwist.node.departures import Departures
from kvtwist.node.description import Page, Standing, page, standing
from kvtwist.node.leadership import Leadership
from kvtwist.node.loading import Loading
from kvtwist.node.meta import Meta
from kvtwist.node.operations import answer_to, proposal, seen
from kvtwist.node.outgoing import Outgoing, opened
from kvtwist.node.post import Post
from kvtwist.node.replica import Replica
from kvtwist.node.replicas import Replicas
from kvtwist.node.waiting import Reader, ShortReader, ShortWriter, Writer
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.states import load_state
from kvtwist.storage.store import Condition, Store
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments, Connection, Responder, Unanswered
from kvtwist.wire.once import names_session, unpack_once
from kvtwist.wire.turn import Turn

LEAVING_SECONDS_MAX: Final = 1.0
"""How long a node that stops waits for others to lead what it led."""
_LOOK_SECONDS: Final = 0.02


class DurablePartitions:
    """`kvtwist.node.partitions.Partitions` on disk.

    :param post: carries messages to the other nodes.
    :param wire_turn: the node's connections share it.
    :param failed: called, once, when the node cannot go on.
    :param chance: numbers from 0 to 1, for election timeouts.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        directory: DataDirectory,
        store: Store,
        post: Post,
        wire_turn: Turn,
        failed: Callable[[KvtwistError], None],
        seconds: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._name = name
        self._directory = directory
        self._store = store
        self._seconds = seconds
        self._loading = Loading(name, directory, chance)
        self._reactor = reactor
        self._post = post
        self._leadership = Leadership(name, post)
        self._departures = Departures(reactor, store, post.bulk_to, seconds)
        self._arrivals = Arrivals(reactor, store, self._target, seconds)
        self._replicas = Replicas(
            reactor, store, post, wire_turn, self._replica, failed, self._look
        )
        self._failed = failed
        self._meta: Meta | None = None
        self._is_running = False
        self._groups: Mapping[int, Group] = {}
        store.on_full(self._leave)
        store.on_reopened(self._is_writable)

    @property
    def key_count(self) -> int:
        """How many keys there are, in all partitions that it has a replica of."""
        replicas = self._replicas.all()
        return sum(each.key_count for group, each in replicas.items() if group != META)

    def start(self, topology: Topology) -> None:
        """Load the replicas that this node has, or begin them.

        It waits for the disk, once.

        :raises StorageError: when the store cannot be read as what was written.
        :raises ConfigurationError: when the cluster is known to have another topology.
        """
        self._groups = groups_of(topology)
        held = self._loading.load(self._groups)
        self._meta = self._checked_meta(topology)
        self._replicas.start(held)
        self._departures.start()
        self._post.begin(topology, self._groups, self._replicas.step, self._silent)
        self._is_running = True

    def stop(self, why: KvtwistError) -> Deferred[None]:
        """Answer nobody any more, and close the store."""
        if self._is_running:
            self._is_running = False
            self._departures.stop()
            self._arrivals.stop()
            self._replicas.stop(why)
        return self._store.close()

    def applied(self, number: int) -> int:
        """The index of the last entry that is applied."""
        return self._replicas.replica(group_of(number)).applied_index

    def leads(self, number: int) -> bool:
        """Whether this node leads the partition, as far as it knows."""
        replica = self._replicas.all().get(group_of(number))
        return replica is not None and replica.leads

    def leader(self, number: int) -> str | None:
        """Who leads the partition, as far as the replica here knows; empty: it knows nobody;
        ``None``: there is no replica here."""
        group = group_of(number)
        replica = self._replicas.all().get(group)
        if replica is None:
            return None
        return self._groups[group].member_of(replica.raft.leader) or ""

    def is_heard(self, name: str) -> bool:
        """Whether there were signs of life of *name* within an election timeout."""
        return name == self._name or self._post.is_heard(name)

    def apply(
        self, number: int, command: type[amp.Command], arguments: Arguments
    ) -> Deferred[Arguments]:
        """Carry *command* out, durably.

        Fails with `NotLeader` when another one has to: nothing was proposed.
        """
        replica = self._leading(number)
        if command is commands.Get:
            return replica.read(arguments["key"], arguments["keyspace"] or 0).addCallback(seen)
        self._check_room()
        generation = replica.generation
        proposed = replica.propose(proposal(command, arguments, generation))
        return proposed.addCallback(lambda answer: answer_to(command, answer, generation))

    def begin(
        self, number: int, key: bytes, value: bytes | None, once: bytes | None, place: bytes
    ) -> Unanswered | None:
        """Begin with it, if this node leads and can write."""
        replica = self._replicas.all().get(group_of(number))
        if replica is None or not replica.leads:
            return None
        if value is None:
            reader = ShortReader(key, replica, place)
            return reader if replica.ask(reader) is None else None
        if self._store.condition is not Condition.OPEN or (once and not names_session(once)):
            return None
        writer = ShortWriter(replica, place)
        return writer if _offer(replica, key, value, once, writer) is None else None

    def write(
        self, number: int, key: bytes, value: bytes, once: bytes | None, writer: Writer
    ) -> None:
        """Propose it.

        :raises NotLeader: when another one has to.
        """
        if once is not None:
            unpack_once(once)  # which says what is wrong with it
        replica = self._leading(number)
        self._check_room()
        refused = _offer(replica, key, value, once, writer)
        if refused is not None:
            raise refused

    def read(self, number: int, reader: Reader) -> None:
        """Have it confirmed; likewise."""
        refused = self._leading(number).ask(reader)
        if refused is not None:
            raise refused

    def _check_room(self) -> None:
        if self._store.condition is not Condition.OPEN:
            raise DiskFull(f"{self._name} cannot write: {self._store.trouble}")

    def _leading(self, number: int) -> Replica:
        """The replica of the partition here, if it leads.

        :raises NotLeader: when it does not.
        :raises Unavailable: when this node has no replicas any more.
        """
        if not self._replicas.all():
            raise Unavailable(f"{self._name} cannot serve: {self._store.trouble}")
        replica = self._replicas.all().get(group_of(number))
        if replica is None or not replica.leads:
            leader = self.leader(number) or ""
            raise NotLeader(f"{self._name} does not lead partition {number}", leader=leader)
        return replica

    def outgoing(self, number: int) -> Deferred[Outgoing]:
        """All of a partition at one moment, after all that was answered before."""
        replica = self._leading(number)
        if self._store.condition is not Condition.OPEN:
            raise DiskFull(f"{self._name} cannot be backed up: {self._store.trouble}")
        return replica.settled().addCallback(lambda _: opened(self._store, replica.group))

    def on_full(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when the disk is full."""
        self._store.on_full(notify)

    def describe(self, first: int, count: int) -> Page:
        """The replicas of groups *first* and up, as they are."""
        replicas = self._replicas.all()
        return page(replicas, self._groups, self._post.is_heard, first, count)

    def standing(self) -> Standing:
        """How this node does as a whole."""
        return standing(self._replicas.all(), self._store)

    def responders(self) -> Mapping[type[amp.Command], Responder]:
        """Of the commands that bring snapshots."""
        return self._arrivals.responders()

    def _target(self, connection: Connection, group: int, sender: int, to: int) -> Replica:
        """The replica here that the member at the other end wants to send a snapshot to."""
        self._post.check(connection, group, sender, to)
        replica = self._replicas.all().get(group)
        if replica is None:
            raise Unavailable(f"{self._name} cannot take a snapshot: {self._store.trouble}")
        return replica

    # -- who leads ------------------------------------------------------------------------------

    def _led(self) -> Iterator[tuple[Group, Replica]]:
        for id, replica in self._replicas.all().items():
            if replica.leads:
                yield self._groups[id], replica

    def _look(self) -> None:
        if self._meta is not None:
            self._meta.look()
        if self._post.is_willing:
            self._leadership.look(self._led())

    def _silent(self, name: str) -> None:
        """That node is silent: what it led may need another leader."""
        for id, replica in self._replicas.all().items():
            if replica.raft.leader == self._groups[id].replica_of(name):
                replica.suspect()

    def _leave(self) -> None:
        """Nothing can be written here: others should lead (S2)."""
        self._post.is_willing = False
        self._leadership.leave(self._led())

    def _is_writable(self) -> None:
        self._post.is_willing = True

    async def hand_over(self) -> None:
        """This node stops: have others lead what it leads, and wait for that, not for long."""
        self._leave()
        for _ in range(int(LEAVING_SECONDS_MAX / _LOOK_SECONDS)):
            if not any(not replica.is_alone for _, replica in self._led()):
                return
            await deferLater(self._reactor, _LOOK_SECONDS, lambda: None)

    # -- the meta group -------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Of the topology that the meta group is known to have; 0: it is not known yet."""
        return self._meta.epoch if self._meta is not None else 0

    def _checked_meta(self, topology: Topology) -> Meta:
        meta = Meta(topology, lambda: self._replicas.all().get(META), self._failed)
        engine = self._directory.engine
        state = load_state(META, engine, engine.get_cached)
        if state is not None:
            meta.check_kept(state, engine)
        return meta

    def _replica(self, id: int, changed: Callable[[Replica], None]) -> Replica:
        raft, state = self._loading.replica(self._groups[id])
        replica = Replica(
            id,
            raft,
            state,
            raft.last_index,
            self._seconds,
            changed,
            self._post.send,
            self._departures.wanted,
        )
        changed(replica)
        return replica


def _offer(
    replica: Replica, key: bytes, value: bytes, once: bytes | None, writer: Writer
) -> KvtwistError | None:
    """Have a put applied; why not, if it was not proposed."""
    whose = WHOSE.pack(replica.generation, NO_SESSION, 0, 0) if once is None else once
    return replica.offer(encode_put(replica.stamp_ms(), whose, key, value), writer)
