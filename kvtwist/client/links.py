"""The client's connections: one link per node, made when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList

from kvtwist.core.address import Address
from kvtwist.errors import NotSent
from kvtwist.wire.boxes import BoxLimits
from kvtwist.wire.connection import Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting, features
from kvtwist.wire.limits import DEFAULT_LIMITS, VALUE_BYTES_MAX_MAX
from kvtwist.wire.link import Link
from kvtwist.wire.turn import Turn

LIMITS = replace(DEFAULT_LIMITS, boxes=BoxLimits.for_values_of(VALUE_BYTES_MAX_MAX))
"""A client reads values as long as any node may be set to take."""


class Links:
    """Links to the nodes that the client was given, and to those that it has learnt of.

    :ivar cluster_id: of the cluster that the client belongs to; empty until it has got to know it.
    :ivar is_stopped: whether it was closed.
    """

    def __init__(
        self,
        reactor: Any,
        given: Iterable[Address],
        chance: Callable[[], float],
        deadlines: Deadlines,
    ) -> None:
        self._reactor = reactor
        self.cluster_id = ""
        self._chance = chance
        self._deadlines = deadlines
        self._turn = Turn()
        self.is_stopped = False
        self._links: dict[Address, Link] = {}
        for address in given:
            self.to(address)

    def to(self, address: Address) -> Link:
        """The link to *address*; it begins to dial if it is new.

        :raises NotSent: when the client was closed.
        """
        link = self._links.get(address)
        if link is not None:
            return link
        if self.is_stopped:
            raise NotSent("the client is closed")
        link = Link(
            self._reactor,
            address,
            self._introduce,
            self._chance,
            self._deadlines,
            limits=LIMITS,
            turn=self._turn,
        )
        self._links[address] = link
        link.on_change(self._changed)
        link.start()
        return link

    async def any(self, seconds: float, silent: Collection[Link | None] = ()) -> Link:
        """A link that is up; the first that comes up, if there is none.

        :param silent: are taken only if no other is up.
        :raises NotSent: after *seconds*; it says what the trouble is with each.
        """
        up = [link for link in self._links.values() if link.connection is not None]
        if up:
            up = [link for link in up if link not in silent] or up
            return up[int(self._chance() * len(up)) % len(up)]
        if self.is_stopped:
            raise NotSent("the client is closed")
        return await self._first(seconds)

    def pin(self, cluster_id: str) -> None:
        """From now on talk to nodes of this cluster only.

        Who was greeted before we knew it, and belongs to another one or to none yet, is greeted
        again, and refuses us if it is a stranger.

        :raises NotSent: when it is another one than before: a client never changes clusters.
        """
        if self.cluster_id == cluster_id:
            return
        if self.cluster_id:
            raise NotSent(
                f"this client belongs to cluster {self.cluster_id[:8]}, "
                f"and a node answered for cluster {cluster_id[:8]}: check --peers"
            )
        self.cluster_id = cluster_id
        for link in self._links.values():
            self._changed(link)

    def stop(self) -> Deferred[None]:
        """Hang up; fires when all connections are closed."""
        self.is_stopped = True
        stopping = DeferredList([link.stop() for link in self._links.values()], consumeErrors=True)
        return stopping.addCallback(lambda _: None)

    async def _first(self, seconds: float) -> Link:
        links = list(self._links.values())
        waiting: list[Deferred[Connection]] = [link.when_connected(seconds) for link in links]
        try:
            result: Any = await DeferredList(waiting, fireOnOneCallback=True, consumeErrors=True)
        finally:
            for waiter in waiting:
                waiter.addErrback(lambda _: None)
                waiter.cancel()
        if isinstance(result, tuple):
            return links[result[1]]
        if any(failure.check(CancelledError) for _, failure in result):
            raise CancelledError()  # a list of Deferreds keeps that to itself
        troubles = ", ".join(f"{link.address} ({link.trouble})" for link in links)
        raise NotSent(
            f"no node can be reached: {troubles}",
            waiting_for=[str(link.address) for link in links],
        )

    def _changed(self, link: Link) -> None:
        """A node that belongs to no cluster yet refuses nobody; but we belong to one."""
        greeting = link.connection.greeting if link.connection is not None else None
        if self.cluster_id and greeting is not None and greeting.cluster_id != self.cluster_id:
            link.hang_up(
                f"it does not belong to cluster {self.cluster_id[:8]} (yet): check --peers"
            )

    def _introduce(self) -> Greeting:
        return Greeting(cluster_id=self.cluster_id, features=features(LIMITS.boxes))
