"""Who leads each partition, as far as this node knows: where a request for it is brought.

A node that has a replica of the partition knows it from there. One that has none remembers what it
was told, and begins with the ring's owner, who mostly leads.

Nothing is brought to a node that is silent. It may be frozen, and what lies in its socket would be
done when it goes on, or not: nobody could say. Another one leads before long.
"""

from __future__ import annotations

from collections.abc import Container

from kvtwist.core.topology import Member, Topology
from kvtwist.node.partitions import Partitions


class Leaders:
    """The guesses of one node.

    :param me: its name.
    """

    def __init__(self, me: str, topology: Topology, partitions: Partitions) -> None:
        self._me = me
        self._topology = topology
        self._partitions = partitions
        self._told: dict[int, str] = {}

    def of(self, number: int, besides: Container[str] = ()) -> Member | None:
        """Who is to be asked about partition *number*; ``None``: nobody is known to lead it.

        :param besides: who cannot be reached, or has said that it does not lead.
        """
        name = self._partitions.leader(number)
        if name is None:
            name = self._guess(number, besides)
        elif name in besides or not self._partitions.is_heard(name or self._me):
            return None  # another one will be known soon
        return self._topology.member(name) if name else None

    def learn(self, number: int, name: str) -> None:
        """Somebody has said who leads."""
        if any(name == each.name for each in self._topology.replicas(number)):
            self._told[number] = name
        else:
            self._told.pop(number, None)

    def _guess(self, number: int, besides: Container[str]) -> str:
        is_heard, told = self._partitions.is_heard, self._told.get(number)
        if told is not None and told not in besides and is_heard(told):
            return told
        names = [each.name for each in self._topology.replicas(number)]
        return next((name for name in names if name not in besides and is_heard(name)), "")
