"""The connections to the other nodes: one kept-up link to each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from kvtwist.core.address import Address
from kvtwist.wire.boxes import BoxLimits
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.link import Link


class Peers:
    """A link to each of *addresses*."""

    def __init__(
        self,
        reactor: Any,
        addresses: Iterable[Address],
        introduce: Callable[[], Greeting],
        chance: Callable[[], float],
        limits: BoxLimits,
    ) -> None:
        self._links = {
            address: Link(reactor, address, introduce, chance, limits=limits)
            for address in addresses
        }

    def link(self, address: Address) -> Link:
        """The link to *address*.

        :raises KeyError: when nobody is known there.
        """
        return self._links[address]

    def links(self) -> tuple[Link, ...]:
        """All of them."""
        return tuple(self._links.values())

    def unreachable(self) -> list[str]:
        """The peers without a connection, for people: address and reason."""
        return [
            f"{link.address} ({link.trouble})" for link in self.links() if link.connection is None
        ]

    def start(self) -> None:
        """Begin to dial everybody."""
        for link in self.links():
            link.start()

    def stop(self) -> Deferred[None]:
        """Hang up; fires when all connections are closed."""
        stopping = DeferredList([link.stop() for link in self.links()], consumeErrors=True)
        return stopping.addCallback(lambda _: None)
