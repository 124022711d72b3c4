"""Situations that runs hardly ever come to, each for the bug that shows there.

Each drives one replica by hand, and raises `Violation` if it does wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from kvtwist.core.raft import Configuration, Entry, HardState, Raft, Restored, Settings
from kvtwist.core.raft.messages import AppendRequest, AppendResponse
from tests.sim.invariants import Violation

_GROUP = Configuration((1, 2, 3))


def _follower(*terms: int) -> Raft:
    """Replica 2, with a durable log of these terms."""
    entries = tuple(Entry(index, term) for index, term in enumerate(terms, start=1))
    hard = HardState(term=max(terms, default=0))
    restored = Restored(_GROUP, hard, entries=entries)
    return Raft(2, Settings(), restored, lambda: 0.5)


def _append(
    leader: int, term: int, prev: tuple[int, int], terms: list[int], commit: int
) -> AppendRequest:
    entries = tuple(Entry(index, each) for index, each in enumerate(terms, start=prev[0] + 1))
    return AppendRequest(leader, 2, term, prev[0], prev[1], entries, commit)


def replaced_before_it_is_durable() -> None:
    """A write of entries is still under way when the next leader replaces and commits them."""
    raft = _follower()
    raft.step(_append(1, 1, (0, 0), [1, 1, 1], commit=0))
    first = raft.ready()
    raft.step(_append(3, 2, (1, 1), [2, 2], commit=3))
    second = raft.ready()
    raft.persisted(first.number)
    handed = list(second.committed)
    while raft.has_ready():
        handed += raft.ready().committed
    if any(entry.index > 1 for entry in handed):
        raise Violation("applied_is_durable", f"{handed} are not on the disk yet")


def stale_tail_behind_a_match() -> None:
    """A follower has a tail of an old term behind the entries that a message is about."""
    raft = _follower(1, 1, 1, 1)
    raft.step(_append(1, 2, (1, 1), [1], commit=4))
    if raft.commit_index > 2:
        raise Violation("commit_told_is_committed", f"{raft.commit_index} are committed, not 2")
    ready = raft.ready()
    raft.persisted(ready.number)
    messages = list(ready.messages)
    while raft.has_ready():
        messages += raft.ready().messages
    for message in messages:
        if isinstance(message, AppendResponse) and message.index > 2:
            raise Violation("acknowledged_is_durable", f"{message}: only 2 are the leader's")


DIRECTED: dict[str, Callable[[], None]] = {
    "ack_covers_a_replaced_tail": replaced_before_it_is_durable,
    "acknowledged_the_whole_log": stale_tail_behind_a_match,
    "commit_past_the_matched_prefix": stale_tail_behind_a_match,
}
"""By the bug that they are for."""
