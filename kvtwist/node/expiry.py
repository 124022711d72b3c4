"""The leader's part in expiry: when something is due, an entry is proposed that removes it.

Nothing is lost while that waits: what is due counts as gone for every entry and read that comes
after (`kvtwist.core.state.machine`). It is for memory and disk, and for the versions that watchers
of a key will see.
"""

from __future__ import annotations

from typing import Protocol

from kvtwist.core.state.answers import Answer, Expired
from kvtwist.core.state.commands import Expire, encode
from kvtwist.errors import KvtwistError
from kvtwist.node.waiting import Writer

EXPIRY_TICKS = 20
"""So often a replica looks whether something is due; each group at a tick of its own."""


class Leading(Protocol):
    """What leads a group, or does not: `kvtwist.node.replica.Replica`."""

    @property
    def leads(self) -> bool:
        """Whether it does."""

    def next_due_ms(self) -> int | None:
        """The log time at which something is due next."""

    def stamp_ms(self) -> int:
        """Log time now."""

    def offer(self, entry: bytes, writer: Writer) -> KvtwistError | None:
        """Propose an entry; why not, if it was not even proposed."""


class Expiry:
    """Has what is due in one group removed. It waits for its own entries: a `Writer`."""

    __slots__ = ("_has_more", "_is_under_way", "_replica")

    def __init__(self, replica: Leading) -> None:
        self._replica = replica
        self._is_under_way = False
        self._has_more = False

    def tick(self, number: int) -> None:
        """Time passes; every `EXPIRY_TICKS`, or as long as there is more than one entry takes, it
        is looked whether something is due.

        :param number: of the tick.
        """
        if self._is_under_way or not (self._has_more or number % EXPIRY_TICKS == 0):
            return
        self._has_more = False
        replica = self._replica
        if not replica.leads:
            return
        due_ms = replica.next_due_ms()
        if due_ms is None:
            return
        # A leader that has not applied all of the log may see what is gone already: no harm.
        stamp_ms = replica.stamp_ms()
        if due_ms <= stamp_ms:
            refused = replica.offer(encode(Expire(stamp_ms, stamp_ms)), self)
            self._is_under_way = refused is None

    def applied(self, answer: Answer) -> None:
        """It was removed, or as much as one entry removes."""
        self._is_under_way = False
        self._has_more = isinstance(answer, Expired) and answer.is_more

    def lost(self, error: KvtwistError) -> None:
        """Nobody can say whether it will be; who leads then will see."""
        self._is_under_way = False
