"""Who has which partition, as a node told it."""

from __future__ import annotations

from dataclasses import dataclass

from kvtwist.core.address import Address
from kvtwist.core.ring import partition_of
from kvtwist.core.topology import Member, Settings
from kvtwist.errors import OutcomeUnknown
from kvtwist.wire.codec import Values
from kvtwist.wire.values import read_member, read_settings


@dataclass(frozen=True, slots=True)
class Table:
    """A topology as the client needs it: it computes only the partition, the rest it was told.

    :ivar replicas: for each partition its members, owner first.
    """

    cluster_id: str
    epoch: int
    settings: Settings
    members: tuple[Member, ...]
    replicas: tuple[tuple[Member, ...], ...]

    @classmethod
    def from_answer(cls, answer: Values) -> Table:
        """From the answer to `kvtwist.wire.commands.DescribeTopology`.

        :raises KvtwistError: when it contradicts itself.
        """
        members = tuple(read_member(said) for said in answer["members"])
        settings = read_settings(answer)
        rows = answer["placement"]
        if len(rows) != settings.partitions or any(
            at >= len(members) for row in rows for at in row
        ):
            raise OutcomeUnknown("the node's table of partitions contradicts itself")
        replicas = tuple(tuple(members[at] for at in row) for row in rows)
        return cls(answer["cluster_id"], answer["epoch"], settings, members, replicas)

    def partition_of(self, key: bytes) -> int:
        """The partition that *key* belongs to."""
        return partition_of(key, self.settings.partitions)

    def owner_address(self, key: bytes) -> Address:
        """Where *key*'s owner is dialled."""
        return self.replicas[self.partition_of(key)][0].address
