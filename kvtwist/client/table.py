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
    :ivar leaders: for each partition who leads it, as far as the node knew.
    """

    cluster_id: str
    epoch: int
    settings: Settings
    members: tuple[Member, ...]
    replicas: tuple[tuple[Member, ...], ...]
    leaders: tuple[Member | None, ...] = ()

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
        said = answer["leaders"] or (0,) * len(rows)
        if len(said) != len(rows) or max(said) > len(members):
            raise OutcomeUnknown("the node's list of leaders contradicts itself")
        leaders = tuple(members[at - 1] if at else None for at in said)
        return cls(answer["cluster_id"], answer["epoch"], settings, members, replicas, leaders)

    def partition_of(self, key: bytes) -> int:
        """The partition that *key* belongs to."""
        return partition_of(key, self.settings.partitions)

    def leader_address(self, partition: int) -> Address:
        """Where to ask for a partition: at its leader's, or its owner's, who mostly leads."""
        leader = self.leaders[partition] if self.leaders else None
        return (leader or self.replicas[partition][0]).address

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)
