"""The settings of a group's replicas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How a replica behaves. Ticks are whatever the caller makes them; the same for all replicas.

    :ivar election_timeout_ticks: a leader that has not been heard of for so long is challenged, and
        one that has not heard of a majority for so long steps down. Each replica waits longer by a
        random part of as much again (paper, 5.2).
    :ivar stall_ticks: a leader whose own write takes so long steps down (R8).
    :ivar heartbeat_ticks: between two heartbeats of a leader.
    :ivar append_bytes_max: of the entries in one `AppendRequest`; a single one may be larger.
    :ivar inflight_messages_max: `AppendRequest`s under way to one replica.
    :ivar inflight_bytes_max: of the entries in them.
    :ivar uncommitted_bytes_max: of entries that a leader has taken and not committed; proposals
        that would go over it are dropped, unless there are no others (R16).
    :ivar apply_bytes_max: of the entries in one `Ready.committed`; a single one may be larger.
    :ivar promotion_lag_entries_max: how far behind a learner may be when it is made a voter (R10).
    :ivar pre_vote: ask before an election (dissertation, 9.6; R7).
    :ivar check_quorum: a leader without a majority steps down, and nobody who has heard of a leader
        lately votes another one in (dissertation, 4.2.3 and 6.2; R8).
    :ivar lease_reads: answer reads without asking, while a majority cannot have elected another
        leader yet (dissertation, 6.4.1). It trusts the replicas' clocks to run equally fast (R6).
    :ivar lease_drift_ticks: by how much the lease is shorter than the election timeout; one tick at
        least, for replicas' ticks do not come at the same moments.
    :ivar eager_commit: tell the others at once what is committed; else with the next entries, or at
        the next tick. That is half the messages of a busy group, and followers apply a tick later.
    :ivar narrow_reads: have reads confirmed by just as many voters as make a majority, those who
        answered last; if one of them is gone, by all others at the next heartbeat.
    :ivar quiesce_after_ticks: a group in which nothing has happened for so long falls silent; 0:
        never. The caller has to look after its leader then: see `Raft.suspect`.
    """

    election_timeout_ticks: int = 10
    stall_ticks: int = 10
    heartbeat_ticks: int = 2
    append_bytes_max: int = 1 << 19
    inflight_messages_max: int = 64
    inflight_bytes_max: int = 1 << 22
    uncommitted_bytes_max: int = 1 << 26
    apply_bytes_max: int = 1 << 20
    promotion_lag_entries_max: int = 64
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    lease_drift_ticks: int = 2
    eager_commit: bool = True
    narrow_reads: bool = False
    quiesce_after_ticks: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_timeout_ticks:
            raise ValueError("heartbeats must be more frequent than elections")
        if self.lease_reads and not self.check_quorum:
            raise ValueError("leases need check_quorum: else a new leader is elected within one")
        if not 0 < self.lease_drift_ticks < self.election_timeout_ticks:
            raise ValueError("lease_drift_ticks is a part of election_timeout_ticks")
        for name in (
            "append_bytes_max",
            "inflight_messages_max",
            "inflight_bytes_max",
            "uncommitted_bytes_max",
            "apply_bytes_max",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        for name in ("quiesce_after_ticks", "promotion_lag_entries_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is at least 0")
