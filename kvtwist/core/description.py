"""A replica of a Raft group, as its node describes it to whoever asks. Values only.

`kvtwist.node.description` makes them, `kvtwist.wire.descriptions` carries them, and
`kvtwist.core.health` says what they come to.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Sending

NOBODY = 0


@dataclass(frozen=True, slots=True)
class Following:
    """What a leader knows of another replica.

    :ivar match: the last entry that it is known to have.
    :ivar is_heard: whether it was heard of within the last election timeout, or the one before.
    :ivar sending: how entries are sent to it.
    :ivar snapshot_index: of the snapshot that is on its way to it; 0: none is.
    """

    match: int
    is_heard: bool
    sending: Sending
    snapshot_index: int = 0

    @property
    def has_told(self) -> bool:
        """Whether it has told this leader what it has; one that is away since before the election
        has not, and may have nearly all."""
        return self.match > 0 or self.sending is not Sending.PROBE


@dataclass(frozen=True, slots=True)
class Other:
    """Another replica in the configuration of the one that is described.

    :ivar member: whose it is; empty: that is not known.
    :ivar following: ``None``, unless the one that is described leads.
    """

    replica: int
    member: str
    is_voter: bool = True
    following: Following | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """A replica, as its node describes it.

    :ivar partition: ``None``: the group is no partition's.
    :ivar replica: its id.
    :ivar leader: the id of the replica that it takes for the leader; `NOBODY`: it knows none.
    :ivar has_confirmed: whether it has committed an entry of its current term.
    :ivar others: the rest of its configuration.
    """

    group: int
    partition: int | None
    replica: int
    role: Role = Role.FOLLOWER
    term: int = 0
    leader: int = NOBODY
    commit: int = 0
    applied: int = 0
    last: int = 0
    compacted: int = 0
    is_quiescent: bool = False
    is_voter: bool = True
    has_confirmed: bool = False
    key_count: int = 0
    data_bytes: int = 0
    others: tuple[Other, ...] = ()

    def lag(self, other: Other) -> int | None:
        """How many entries of a leader *other* does not have yet; ``None``: that is not known."""
        known = other.following
        return max(0, self.last - known.match) if known is not None and known.has_told else None
