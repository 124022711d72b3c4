"""The topology: the versioned map of the cluster.

In: the members, the settings, an epoch. Out: for every key its partition, and for every partition
its owner and replicas. A topology is a value; a changed cluster is a new topology with a higher
epoch. Two nodes that hold the same topology compute the same placement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kvtwist.core.address import Address
from kvtwist.core.placement import Placement, place
from kvtwist.core.ring import TOKENS_PER_MEMBER_DEFAULT, Ring, partition_of
from kvtwist.errors import ConfigurationError

PARTITIONS_DEFAULT = 16
"""For three to five nodes. Each partition is a Raft group, and the more there are the fewer writes
share a message and a turn: `benchmarks/results/partitions.svg` is the curve."""
PARTITIONS_MAX = 4096
REPLICAS_DEFAULT = 3
REPLICAS_MAX = 64
TOKENS_PER_MEMBER_MAX = 4096

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_])?")


def check_name(name: str) -> str:
    """Return *name* if a member can have it.

    Names stand in file names, log lines and lists of names, hence letters, digits, ``.``, ``_``
    and ``-`` only.

    :raises ConfigurationError: when it is empty, too long or has other characters.
    """
    if not name:
        raise ConfigurationError("--id is empty: give every node a name of its own, as --id=node-1")
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"--id={name!r} cannot be a node's name: use 1 to 64 letters, digits, '.', '_' or '-', "
            "with a letter or digit first and no '.' or '-' last"
        )
    return name


@dataclass(frozen=True, slots=True)
class Member:
    """A node that belongs to the cluster.

    :ivar name: its ``--id``; its tokens on the ring derive from it.
    :ivar identity: random, 32 hexadecimal digits; says *which life* of the name this is.
    :ivar address: where others dial it.
    """

    name: str
    identity: str
    address: Address


@dataclass(frozen=True, slots=True)
class Settings:
    """What is fixed for the whole cluster at its founding.

    :ivar partitions: Q, a power of two.
    :ivar replicas: how many members stand in a partition's list of replicas, owner included.
    :ivar tokens_per_member: virtual nodes of each member on the ring.
    :ivar durable: whether data is kept on disk.
    """

    partitions: int = PARTITIONS_DEFAULT
    replicas: int = REPLICAS_DEFAULT
    tokens_per_member: int = TOKENS_PER_MEMBER_DEFAULT
    durable: bool = False

    def __post_init__(self) -> None:
        q = self.partitions
        if not 1 <= q <= PARTITIONS_MAX or q & (q - 1):
            raise ConfigurationError(
                f"--partitions={q} does not work: it is a power of two from 1 to {PARTITIONS_MAX}"
            )
        for name, number, most in (
            ("--replicas", self.replicas, REPLICAS_MAX),
            ("tokens_per_member", self.tokens_per_member, TOKENS_PER_MEMBER_MAX),
        ):
            if not 1 <= number <= most:
                raise ConfigurationError(f"{name}={number} does not work: it is 1 to {most}")


class Topology:
    """Members, settings and the placement that follows from them.

    :ivar epoch: its version; the founding is epoch 1.
    :ivar members: sorted by name.
    """

    __slots__ = ("_by_name", "cluster_id", "epoch", "members", "placement", "ring", "settings")

    def __init__(
        self, cluster_id: str, epoch: int, members: Iterable[Member], settings: Settings
    ) -> None:
        self.cluster_id = cluster_id
        self.epoch = epoch
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self.settings = settings
        self._by_name = {member.name: member for member in self.members}
        self.ring = Ring(self._by_name, settings.tokens_per_member)
        self.placement: Placement = place(self.ring, settings.partitions, settings.replicas)

    def partition_of(self, key: bytes) -> int:
        """The partition that *key* belongs to."""
        return partition_of(key, self.settings.partitions)

    def member(self, name: str) -> Member:
        """The member called *name*.

        :raises KeyError: when there is none.
        """
        return self._by_name[name]

    def owner(self, partition: int) -> Member:
        """The member that owns *partition*."""
        return self._by_name[self.placement.replicas[partition][0]]

    def replicas(self, partition: int) -> tuple[Member, ...]:
        """The members meant to hold *partition*, its owner first."""
        return tuple(self._by_name[name] for name in self.placement.replicas[partition])
