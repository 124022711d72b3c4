"""The client's connections: one link per node, made when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from kvtwist.core.address import Address
from kvtwist.errors import NotSent
from kvtwist.wire.connection import Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.link import Link


class Links:
    """Links to the nodes that the client was given, and to those that it has learnt of.

    :param cluster_id: gives the id of the cluster that the client has got to know, or nothing.
    """

    def __init__(
        self,
        reactor: Any,
        given: Iterable[Address],
        cluster_id: Callable[[], str],
        chance: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._cluster_id = cluster_id
        self._chance = chance
        self._deadlines = Deadlines(reactor)
        self._other_cluster: Callable[[], None] = lambda: None
        self.is_stopped = False
        self._links: dict[Address, Link] = {}
        for address in given:
            self.to(address)

    def on_other_cluster(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when a node refuses us because it is of another cluster."""
        self._other_cluster = notify

    def to(self, address: Address) -> Link:
        """The link to *address*; it begins to dial if it is new.

        :raises NotSent: when the client was closed.
        """
        link = self._links.get(address)
        if link is not None:
            return link
        if self.is_stopped:
            raise NotSent("the client is closed")
        link = Link(self._reactor, address, self._introduce, self._chance, self._deadlines)
        self._links[address] = link
        link.on_change(self._changed)
        link.start()
        return link

    def known(self, address: Address) -> Link | None:
        """The link to *address*, if there is one."""
        return self._links.get(address)

    async def any(self, seconds: float) -> Link:
        """A link that is up; the first that comes up, if there is none.

        :raises NotSent: after *seconds*; it says what the trouble is with each.
        """
        up = [link for link in self._links.values() if link.connection is not None]
        if up:
            return up[int(self._chance() * len(up)) % len(up)]
        if self.is_stopped:
            raise NotSent("the client is closed")
        return await self._first(seconds)

    def stop(self) -> Deferred[None]:
        """Hang up; fires when all connections are closed."""
        self.is_stopped = True
        stopping = DeferredList([link.stop() for link in self._links.values()], consumeErrors=True)
        return stopping.addCallback(lambda _: None)

    async def _first(self, seconds: float) -> Link:
        links = list(self._links.values())
        waiting: list[Deferred[Connection]] = [link.when_connected(seconds) for link in links]
        result: Any = await DeferredList(waiting, fireOnOneCallback=True, consumeErrors=True)
        for waiter in waiting:
            waiter.cancel()
        if isinstance(result, tuple):
            return links[result[1]]
        troubles = ", ".join(f"{link.address} ({link.trouble})" for link in links)
        raise NotSent(
            f"no node can be reached: {troubles}",
            waiting_for=[str(link.address) for link in links],
        )

    def _introduce(self) -> Greeting:
        return Greeting(cluster_id=self._cluster_id())

    def _changed(self, link: Link) -> None:
        if link.refused is not None and link.refused.reason == "cluster":
            self._other_cluster()
