"""Who leads: the ring's owner, where nothing is in the way; and somebody else, when this node goes.

Load is spread, and a client finds its leader at the first guess, when each group is led by its
owner. So a leader that is not the owner hands over (dissertation, 3.10), once the owner has been
heard without a pause for a while, would lead, and has nearly the whole log. It tries few at a time,
and where it did not work, or the leadership came back, it waits longer each time: a node that is up
and down must not take its groups' leadership along (no flapping).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from kvtwist.core.groups import Group
from kvtwist.node.replica import Replica

LOOK_TICKS: Final = 10
STEADY_TICKS: Final = 40
"""So long the owner must have been heard without a pause."""
AT_ONCE_MAX: Final = 8
"""Groups handed over at one look."""
PATIENCE_LOOKS_MAX: Final = 128


class Heard(Protocol):
    """Who is heard: `kvtwist.node.post.Post`."""

    def heard_for_ticks(self, name: str) -> int:
        """For how long *name* has been heard without a pause; 0: not now, or it would not lead."""


class Leadership:
    """Decides what this node hands over. :param name: this node's."""

    def __init__(self, name: str, heard: Heard) -> None:
        self._name = name
        self._heard = heard
        self._looks = 0
        self._next_look: dict[int, int] = {}
        self._patience: dict[int, int] = {}

    def look(self, led: Iterable[tuple[Group, Replica]]) -> None:
        """Hand over what this node leads and the owner should; to be called every `LOOK_TICKS`."""
        self._looks += 1
        at_once = AT_ONCE_MAX
        for group, replica in led:
            if group.owner == self._name:
                self._patience.pop(group.id, None)
                continue
            if not at_once or self._looks < self._next_look.get(group.id, 0):
                continue
            if self._heard.heard_for_ticks(group.owner) < STEADY_TICKS:
                continue
            owner = group.replica_of(group.owner)
            if owner is not None and replica.hand_over(owner):
                at_once -= 1
                patience = self._patience.get(group.id, 2)
                self._next_look[group.id] = self._looks + patience
                self._patience[group.id] = min(2 * patience, PATIENCE_LOOKS_MAX)

    def leave(self, led: Iterable[tuple[Group, Replica]]) -> None:
        """Hand over all that this node leads to whoever is closest: this node goes (T11), or cannot
        write (S2)."""
        for group, replica in led:
            heirs = [
                each
                for each in replica.closest_followers()
                if self._heard.heard_for_ticks(group.member_of(each) or "")
            ]
            for heir in heirs:
                if replica.hand_over(heir):
                    break
