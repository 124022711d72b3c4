"""How a snapshot takes the place of what a replica has.

::

    NOTHING --install--> ARRIVED --the core takes it--> SWITCHING --durable, loaded--> NOTHING
                         ARRIVED --the core does not want it--> NOTHING

From ARRIVED on another one may not be filled; while SWITCHING nothing is applied and nothing is
read, since what the state in memory refers to goes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from kvtwist.core.raft import Raft, Ready, Senseless
from kvtwist.core.raft.messages import InstallSnapshot
from kvtwist.errors import KvtwistError, Unavailable
from kvtwist.storage.engine import Batch
from kvtwist.storage.snapshots import Incoming
from kvtwist.storage.states import StoredState


@dataclass(slots=True)
class _Arrived:
    """One whose data is in the store, in a generation of its own.

    :ivar kept: fires with whether it was taken; if not, what was filled is to be removed.
    :ivar is_switching: the core has taken it.
    :ivar is_durable: what makes it the group's own is durable, but not loaded.
    """

    incoming: Incoming
    kept: Deferred[bool]
    is_switching: bool = False
    is_durable: bool = False


class Installing:
    """Of one replica."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._arrived: _Arrived | None = None

    @property
    def is_free(self) -> bool:
        """Whether there is none."""
        return self._arrived is None

    @property
    def is_switching(self) -> bool:
        """Whether the state in memory is a thing of the past."""
        return self._arrived is not None and self._arrived.is_switching

    @property
    def is_durable(self) -> bool:
        """Whether the new state is to be loaded."""
        return self._arrived is not None and self._arrived.is_durable

    def is_wanted(self, message: InstallSnapshot) -> bool:
        """Whether the core would take it, as far as can be said before its data is here (R13)."""
        snapshot, log = message.snapshot, self._raft.log
        return (
            message.term >= self._raft.term
            and snapshot.index > log.commit_index
            and not log.has(snapshot.index, snapshot.term)
        )

    def install(self, message: InstallSnapshot, incoming: Incoming) -> Deferred[bool]:
        """All data is here: give the message to the core. `take` has to follow."""
        assert self._arrived is None, "one at a time"
        kept: Deferred[bool] = Deferred()
        self._arrived = _Arrived(incoming, kept)
        with suppress(Senseless):  # then it is not wanted
            self._raft.step(message)
        return kept

    def take(self, batch: Batch, ready: Ready | None, replaced: StoredState) -> int | None:
        """Put into *batch* what makes it the group's own, with all of *ready*; or, when the core
        did not want it, say so.

        :returns: the last entry in the log's place; ``None``: it was not taken, or there is none.
        """
        arrived = self._arrived
        if ready is not None and ready.snapshot is not None:
            assert arrived is not None and not arrived.is_switching, "a snapshot without its data"
            arrived.is_switching = True
            return arrived.incoming.install(batch, ready, replaced)
        if arrived is not None and not arrived.is_switching:
            self._arrived = None
            arrived.kept.callback(False)
        return None

    def durable(self) -> None:
        """What `take` has put into a batch is durable."""
        assert self._arrived is not None
        self._arrived.is_durable = True

    def loaded(self) -> None:
        """The new state has taken the place of the old one."""
        arrived, self._arrived = self._arrived, None
        assert arrived is not None and arrived.is_durable
        arrived.kept.callback(True)

    def give_up(self, why: KvtwistError) -> None:
        """The replica is over. Whether the snapshot is its state now the store will show."""
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            arrived.kept.errback(Unavailable(str(why)))
