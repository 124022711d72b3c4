"""The connections to the other nodes: two kept-up links to each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from kvtwist.core.address import Address
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import ConnectionLimits
from kvtwist.wire.link import Link
from kvtwist.wire.turn import Turn


class Peers:
    """Two links to each of *addresses*.

    *Control* carries what must never wait: the founding, signs of life, messages between replicas.
    *Bulk* carries what may be large: forwarded requests, long appends.
    """

    def __init__(
        self,
        reactor: Any,
        addresses: Iterable[Address],
        introduce: Callable[[], Greeting],
        chance: Callable[[], float],
        deadlines: Deadlines,
        limits: ConnectionLimits,
        turn: Turn | None = None,
    ) -> None:
        self._make = partial(
            Link,
            reactor,
            introduce=introduce,
            chance=chance,
            deadlines=deadlines,
            limits=limits,
            turn=turn,
        )
        self._control: dict[Address, Link] = {}
        self._bulk: dict[Address, Link] = {}
        self._running = False
        self.reach(addresses)

    def reach(self, addresses: Iterable[Address]) -> None:
        """Keep up links to *addresses* too."""
        for address in addresses:
            for links in (self._control, self._bulk):
                if address not in links:
                    links[address] = self._make(address)
                    if self._running:
                        links[address].start()

    def bulk(self, address: Address) -> Link:
        """The link to *address* for forwarded requests.

        :raises KeyError: when nobody is known there.
        """
        return self._bulk[address]

    def control_to(self, address: Address) -> Link:
        """The link to *address* for what must not wait.

        :raises KeyError: when nobody is known there.
        """
        return self._control[address]

    def control(self) -> tuple[Link, ...]:
        """The links for what must not wait, one to each peer."""
        return tuple(self._control.values())

    def unreachable(self) -> list[str]:
        """The peers without a connection, for people: address and reason."""
        return [
            f"{link.address} ({link.trouble})" for link in self.control() if link.connection is None
        ]

    def start(self) -> None:
        """Begin to dial everybody."""
        self._running = True
        for link in self._all():
            link.start()

    def stop(self) -> Deferred[None]:
        """Hang up; fires when all connections are closed."""
        self._running = False
        stopping = DeferredList([link.stop() for link in self._all()], consumeErrors=True)
        return stopping.addCallback(lambda _: None)

    def _all(self) -> tuple[Link, ...]:
        return (*self._control.values(), *self._bulk.values())
