"""What a member tells those around it: who looks on, and who has asked it for something."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from kvtwist.core.raft import Entry, Ready, Snapshot
from tests.sim.machine import Answer

if TYPE_CHECKING:
    from tests.sim.member import Member

Reply = Callable[[object], None]
"""Is given an `Answer`, a `Said`, a `Dropped` (nothing was done), or a `Lost`."""


class Lost(Enum):
    """Why there is no answer."""

    NOT_DONE = "another entry is in its place, or the read was not confirmed"
    UNKNOWN = "a snapshot has taken its place"


class Watch(Protocol):
    """Who looks on: see `tests.sim.invariants`."""

    def started(self, member: Member) -> None:
        """It has started, perhaps again."""

    def took(self, member: Member, ready: Ready) -> None:
        """It has taken a Ready, and done nothing of it yet."""

    def stepped(self, member: Member, took: bool) -> None:
        """It has done everything that there was to be done; whether that was anything."""

    def synced(self, member: Member) -> None:
        """More of what it has written is durable."""

    def applied(self, member: Member, entry: Entry, answer: Answer | None) -> None:
        """Its state machine has applied an entry."""

    def described(self, member: Member, snapshot: Snapshot) -> None:
        """It has made a snapshot."""

    def installed(self, member: Member, snapshot: Snapshot) -> None:
        """It has taken over a snapshot."""

    def asked(self, member: Member, context: bytes) -> None:
        """A read has been asked for."""

    def failed(self, member: Member) -> None:
        """Its disk has failed, and so has the member."""
