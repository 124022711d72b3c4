"""What a cluster says of itself, and when it is in order again."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from _processes import PeerFailed
from kvtwist.client import Client
from kvtwist.core.address import parse_address
from kvtwist.errors import KvtwistError
from kvtwist.wire import commands
from kvtwist.wire.codec import Values

SETTLED_SECONDS_MAX = 60.0
BALANCED_SECONDS_MAX = 30.0
"""How long to wait for owners to lead again, once all partitions have a leader."""
LOOK_SECONDS = 0.2
QUIET_SECONDS = 1.0
"""For so long it has to look the same."""
ENTRIES_BEHIND_MAX = 100
"""A follower has caught up if it is not further behind: there are always writes under way."""
_REPLICAS_PER_ANSWER = 256
_VOTER_THAT_IS_FOLLOWED, _IS_HEARD, _IS_SENT_ENTRIES = 3, 4, 1


class Cluster:
    """A cluster, seen from outside.

    :ivar partitions: how many there are.
    :ivar leaders: for each partition the number of the node that leads it, from 0.
    """

    def __init__(self, reactor: Any, client: Client, addresses: list[str]) -> None:
        self._reactor = reactor
        self._client = client
        self._addresses = [parse_address(address) for address in addresses]
        self.partitions = 0
        self.leaders: list[int] = []
        self._trouble = ""

    async def settled(self) -> bool:
        """Wait until all nodes agree on who leads each partition, that is its owner, and its
        followers have caught up.

        :returns: whether all of it is so; if not, all partitions have a leader at least.
        :raises PeerFailed: when that does not come in time.
        """
        now = self._reactor.seconds
        began = since = now()
        before: list[int] | None = None
        while True:
            owners, leaders = await self._look()
            if leaders is None or leaders != before:
                before, since = leaders, now()
            waited_seconds = now() - began
            if leaders is not None and now() - since >= QUIET_SECONDS:
                is_balanced = leaders == owners and not await self._replicas_behind()
                if is_balanced or waited_seconds > BALANCED_SECONDS_MAX:
                    self.partitions, self.leaders = len(leaders), leaders
                    return is_balanced
            if waited_seconds > SETTLED_SECONDS_MAX:
                raise PeerFailed(f"not in order after {waited_seconds:.0f} s: {self._trouble}")
            await deferLater(self._reactor, LOOK_SECONDS, lambda: None)

    async def _look(self) -> tuple[list[int], list[int] | None]:
        """Who owns each partition, and who leads it: ``None`` if nodes are silent or disagree."""
        owners: list[int] = []
        found: dict[int, int] = {}
        for node, address in enumerate(self._addresses):
            try:
                answer = await self._client.ask(address, commands.DescribeTopology, {})
            except KvtwistError as error:
                self._trouble = str(error)
                return [], None
            places = [self._place(member["address"]) for member in answer["members"]]
            rows = [[places[one] for one in row] for row in answer["placement"]]
            owners = [row[0] for row in rows]
            # Where a node does not say who leads, it is the owner: a cluster in memory.
            said = answer.get("leaders") or [row[0] + 1 for row in answer["placement"]]
            leaders = [places[one - 1] if one else None for one in said]
            # Of partitions that it has no replica of a node need not know anything.
            held = {at: one for at, one in enumerate(leaders) if node in rows[at]}
            unled = sum(one is None for one in held.values())
            disputed = sum(found.get(at, one) != one for at, one in held.items())
            if unled or disputed:
                self._trouble = (
                    f"{address} knows no leader of {unled} partitions, "
                    f"and another one than others of {disputed}"
                )
                return [], None
            found |= {at: one for at, one in held.items() if one is not None}
        return owners, [found[at] for at in range(len(owners))]

    async def _replicas_behind(self) -> int:
        """How many replicas of partitions have not caught up with their leader."""
        behind = 0
        for address in self._addresses:
            first = 0
            while True:
                wanted = {"first": first, "count": _REPLICAS_PER_ANSWER}
                try:
                    answer = await self._client.ask(address, commands.DescribeReplicas, wanted)
                except KvtwistError:
                    return len(self._addresses)
                behind += _behind(answer)
                if answer["following"] <= first:
                    break
                first = answer["following"]
        return behind

    def _place(self, address: str) -> int:
        return self._addresses.index(parse_address(address))


def _behind(answer: Values) -> int:
    """How many are behind, by what the leaders of an answer to ``DescribeReplicas`` say."""
    followers = zip(
        answer["other_rows"],
        answer["other_flags"],
        answer["sendings"],
        answer["match_indexes"],
        strict=True,
    )
    return sum(
        not flags & _IS_HEARD
        or sending != _IS_SENT_ENTRIES
        or answer["last_indexes"][row] - match > ENTRIES_BEHIND_MAX
        for row, flags, sending, match in followers
        if answer["group_partitions"][row] and flags & 3 == _VOTER_THAT_IS_FOLLOWED
    )
