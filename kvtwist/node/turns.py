"""What a replica and the turn that drives it (`kvtwist.node.replicas`) say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from kvtwist.core.state.records import Stored
from kvtwist.storage.marks import Mark
from kvtwist.storage.states import StoredState


class Needed(NamedTuple):
    """What has to be read before the next entry can be carried out, or a read done: records; or the
    whole state, when a snapshot has taken the place of the one in memory."""

    keys: tuple[bytes, ...] = ()
    is_state: bool = False


Found: TypeAlias = dict[bytes, Stored | None] | StoredState | None
"""What was read: records, or the state."""


@dataclass(slots=True, unsafe_hash=True)
class Written:
    """What of a replica is in a batch that is being committed.

    :ivar ready: the number of its Ready; ``None``: nothing of one is in it.
    :ivar state: the number of its state machine's changes; ``None``: none are in it.
    :ivar applied: the entry that these changes go up to.
    :ivar sync: whether the commit must be durable.
    :ivar mark: to be raised with it, when term or vote have changed.
    :ivar is_switch: whether a snapshot takes the place of log and state.
    """

    ready: Final[int | None]
    state: Final[int | None]
    applied: Final[int]
    sync: Final[bool]
    mark: Final[Mark | None]
    is_switch: Final[bool]

    def __init__(
        self,
        ready: int | None = None,
        state: int | None = None,
        applied: int = 0,
        sync: bool = False,
        mark: Mark | None = None,
        is_switch: bool = False,
    ) -> None:
        self.ready = ready
        self.state = state
        self.applied = applied
        self.sync = sync
        self.mark = mark
        self.is_switch = is_switch
