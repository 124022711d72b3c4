"""Whom to ask for a key: the leader of its partition, as far as a node has told.

The first guess is the ring's owner, who mostly leads. A node that is asked for what another one
leads passes the request on, and says who that is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from kvtwist.client.links import Links
from kvtwist.client.table import Table
from kvtwist.core.ring import partition_of
from kvtwist.errors import NotSent, OutcomeUnknown
from kvtwist.wire import commands
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.codec import Values
from kvtwist.wire.connection import Connection
from kvtwist.wire.link import Link


class Leaders:
    """Finds the node to ask.

    :param seconds: the clock.

    :ivar table: as a node told it; ``None`` while nobody has.
    :ivar links: for each partition the link to its leader, as far as that is known.
    :ivar on_table: called with a table that is new.
    """

    def __init__(self, links: Links, seconds: Callable[[], float]) -> None:
        self._all_links = links
        self._seconds = seconds
        self.table: Table | None = None
        self.links: list[Link] = []
        self.on_table: Callable[[Table], None] = lambda table: None

    def frequent_connection(self, key: bytes) -> Connection | None:
        """The connection to the leader for *key*, if there is one and a key so long is frequent."""
        links = self.links
        if not links or len(key) > VALUE_BYTES_MAX:
            return None
        return links[partition_of(key, len(links))].connection

    def connected(self, key: bytes) -> Link | None:
        """The link to the leader for *key*, if it is connected."""
        links = self.links
        if not links:
            return None
        link = links[partition_of(key, len(links))]
        return link if link.connection is not None else None

    async def link_for(
        self, key: bytes, seconds: float, silent: Collection[Link | None] = ()
    ) -> Link:
        """The leader's link if it is up, or may soon be; else any that is.

        :param silent: are taken only if there is no other: they were asked before, in vain.
        :raises NotSent: after *seconds*.
        """
        end = self._seconds() + seconds
        table = self.table or await self.learn(seconds)
        link = self.links[table.partition_of(key)]
        if link.is_fresh:
            await link.when_settled(max(0.0, end - self._seconds()))
        if link.connection is not None and link not in silent:
            return link
        return await self._all_links.any(max(0.0, end - self._seconds()), silent)

    async def learn(self, seconds: float) -> Table:
        """Ask any node for the table. Nothing of a request has left if that fails.

        :raises NotDone: when it was not told within *seconds*.
        """
        link = await self._all_links.any(seconds)
        try:
            answer = await link.call(commands.DescribeTopology, {}, seconds)
            table = Table.from_answer(answer)
        except OutcomeUnknown as error:
            link.hang_up("it did not answer")
            raise NotSent(f"{link.address} did not tell who owns what: {error}") from error
        self._all_links.pin(table.cluster_id)
        addresses = map(table.leader_address, range(len(table.replicas)))
        self.links = [self._all_links.to(address) for address in addresses]
        self.table = table
        self.on_table(table)
        return table

    async def settled(self, seconds: float) -> None:
        """Give the first attempts to reach the leaders a chance."""
        for link in dict.fromkeys(self.links):
            if link.is_fresh:
                await link.when_settled(seconds)

    def forget(self) -> None:
        """The table is not true any more."""
        self.table = None
        self.links = []

    def taught(self, key: bytes, answer: Values) -> None:
        """A wrong guess teaches: the node that answered has asked the leader."""
        name, table = answer.get("leader"), self.table
        leader = table.member(name) if name and table is not None else None
        if leader is not None and table is not None and not self._all_links.is_stopped:
            self.links[table.partition_of(key)] = self._all_links.to(leader.address)
