"""What a leader does for replicas that are behind what its log has compacted.

It is told by `kvtwist.node.departures` what becomes of the snapshots that they are sent, tells the
core, and has the log held meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from kvtwist.core.raft import Raft, Role
from kvtwist.core.raft.messages import InstallSnapshot
from kvtwist.core.raft.progress import Sending
from kvtwist.errors import Unavailable
from kvtwist.node.compaction import Compaction


class Followers:
    """Of one replica: `kvtwist.node.departures.Source`.

    :param changed: called whenever there may be something to be done for the replica.
    """

    def __init__(
        self, group: int, raft: Raft, compaction: Compaction, changed: Callable[[], None]
    ) -> None:
        self.group = group
        self._raft = raft
        self._compaction = compaction
        self._changed = changed
        self._is_over = False

    def give_up(self) -> None:
        """The replica is over."""
        self._is_over = True

    def wants_snapshot(self, to: int) -> int:
        """The term in which this replica leads, if *to* needs a snapshot of it; else 0."""
        progress = self._raft.progress().get(to)
        if self._is_over or self._raft.role is not Role.LEADER or progress is None:
            return 0
        return self._raft.term if progress.sending is Sending.SNAPSHOT else 0

    def hold(self, to: int, index: int | None = None) -> None:
        """Compact nothing after *index*, by default nothing more at all, for the sake of *to*."""
        self._compaction.hold(to, self._raft.log.compacted_index if index is None else index)

    def release(self, to: int) -> None:
        """Hold the log for *to* no more than for anybody else."""
        self._compaction.release(to)

    def send_snapshot(self, to: int, index: int) -> InstallSnapshot:
        """Tell the core that *to* is sent what is applied up to *index*; what is to be said to it.

        The core says the same, but that message goes nowhere: its place is behind the data.

        :raises Unavailable: when the log does not know that place any more.
        """
        raft = self._raft
        try:
            snapshot = raft.describe(index)
        except ValueError as error:
            raise Unavailable(f"the log was compacted meanwhile: {error}") from error
        raft.send_snapshot(to, snapshot)
        self._changed()
        return InstallSnapshot(raft.replica, to, raft.term, snapshot)

    def snapshot_sent(self, to: int, delivered: bool) -> None:
        """Tell the core how that went."""
        self._raft.snapshot_sent(to, delivered)
        self._changed()
