"""What this node knows of itself and of its cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.logger import Logger

from kvtwist.core.address import Address
from kvtwist.core.founding import Founding, FoundingRecord, View
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import HelloRefused, Unavailable
from kvtwist.wire.greeting import Greeting, objection, shown

_log = Logger(namespace="kvtwist.node")


class Cluster:
    """The founding while it lasts, and the topology from then on.

    :param started_ms: when this node was started, by the wall clock.
    :param features: what it says in its greeting that it can do.
    :param record: what this node has founded in an earlier life, if it keeps that.
    :param keep: keeps what was founded, durably, before anybody is told.
    :param restored: the digest of the backup that this node was restored from, if it was.
    :ivar me: this node.
    :ivar topology: ``None`` until the cluster is founded.
    """

    def __init__(
        self,
        me: Member,
        founders: Iterable[Address],
        settings: Settings,
        elapsed_seconds: Callable[[], float],
        started_ms: int,
        features: tuple[str, ...] = (),
        record: FoundingRecord | None = None,
        keep: Callable[[FoundingRecord], None] = lambda _: None,
        restored: str = "",
    ) -> None:
        self.me = me
        self.topology: Topology | None = None
        self._founding = Founding(me, founders, settings, record, restored)
        self._is_back = record is not None
        self._keep = keep
        self._elapsed_seconds = elapsed_seconds
        self._started_at = elapsed_seconds()
        self._started_ms = started_ms
        self._features = features
        self._when_founded: list[Callable[[Topology], None]] = []

    def start(self) -> None:
        """Begin; a node that lists nobody else is a cluster at once."""
        self._look()

    def when_founded(self, notify: Callable[[Topology], None]) -> None:
        """Have *notify* called once there is a topology."""
        self._when_founded.append(notify)

    @property
    def uptime_ms(self) -> int:
        """How long this node has existed."""
        return int((self._elapsed_seconds() - self._started_at) * 1000)

    @property
    def others(self) -> tuple[Address, ...]:
        """The addresses of the other founders."""
        return self._founding.others

    def greeting(self) -> Greeting:
        """How this node introduces itself."""
        return Greeting(
            cluster_id=self.topology.cluster_id if self.topology else "",
            name=self.me.name,
            identity=self.me.identity,
            address=str(self.me.address),
            started_ms=self._started_ms,
            features=self._features,
        )

    def objection(self, theirs: Greeting) -> HelloRefused | None:
        """What this node has against talking to *them*; ``None``: nothing."""
        return objection(self.greeting(), theirs) or self._another_disk(theirs)

    def _another_disk(self, theirs: Greeting) -> HelloRefused | None:
        """A member that has not the disk which has voted for it is a stranger (R11). One that has
        no cluster yet is let in, to be told so when it asks for this one."""
        topology = self.topology
        if topology is None or not topology.settings.durable or not theirs.cluster_id:
            return None
        known = {member.name: member.identity for member in topology.members}
        if known.get(theirs.name, theirs.identity) == theirs.identity:
            return None
        return HelloRefused(
            f"{self.me.name} knows {theirs.name} with another data directory: start it with that "
            "one (--data-dir); it has identity "
            f"{shown(theirs.identity[:8])} now, and had {known[theirs.name][:8]}",
            reason="identity",
        )

    def view(self) -> View:
        """What this node says of the founding."""
        return self._founding.view()

    def heard(self, address: Address, view: View) -> None:
        """Take in what a founder said.

        :raises ConfigurationError: when there is no place for this node in a founded cluster.
        :raises StorageError: when the founding cannot be kept.
        """
        self._founding.answered(address, view)
        self._look()

    def silent(self, address: Address, why: str) -> None:
        """Note why a founder cannot be asked."""
        self._founding.silent(address, why)

    def waiting_for(self) -> tuple[str, ...]:
        """Whom the founding waits for."""
        return self._founding.waiting_for()

    def founded(self) -> Topology:
        """The topology.

        :raises Unavailable: until there is one; it names whom the founding waits for.
        """
        if self.topology is not None:
            return self.topology
        missing = self.waiting_for()
        raise Unavailable(
            f"the cluster is not founded yet: {self.me.name} waits for {', '.join(missing)}",
            waiting_for=missing,
        )

    def _look(self) -> None:
        record = self._founding.record
        if record is None or self.topology is not None:
            return
        if not self._is_back:
            self._keep(record)
        self.topology = record.topology()
        names = ", ".join(member.name for member in self.topology.members)
        how = self._how_it_came_in(self.topology)
        _log.info(
            "{me} {how} cluster {id} of {names}",
            me=self.me.name,
            how=how,
            id=self.topology.cluster_id[:8],
            names=names,
        )
        for notify in self._when_founded:
            notify(self.topology)

    def _how_it_came_in(self, topology: Topology) -> str:
        if self._is_back:
            return "is back in"
        is_founder = topology.member(self.me.name).identity == self.me.identity
        return "founded" if is_founder else "rejoined, with empty memory,"
