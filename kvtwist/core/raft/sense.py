"""Which messages cannot have been sent by anybody who keeps to Raft; seen before anything is done.

A replica that went on with one of these would break a promise that it has given. So each is refused
while the replica is still as it was: it can be passed over, like one that was lost, and all else
goes on. What fails later, with the message half taken in, is no such thing: it is a mistake of this
program, and the replica must not be used again.

Not everything that is wrong can be seen: an acknowledgement of what was never written looks like
any other. Who may speak for a replica is the caller's to check.
"""

from __future__ import annotations

from typing import Final

from kvtwist.core.raft.messages import AppendRequest, Heartbeat, InstallSnapshot, Message
from kvtwist.core.raft.state import NOBODY, State

_FROM_LEADERS: Final = frozenset((AppendRequest, Heartbeat, InstallSnapshot))


class Senseless(ValueError):
    """A message that may not come. Nothing has been done."""


def check(state: State, message: Message) -> None:
    """See that a message of this term, or a later one, may be taken in.

    :raises Senseless: when it may not.
    """
    kind = type(message)
    if kind not in _FROM_LEADERS:
        return
    if message.term == state.term and state.leading is not None:
        return  # who leads takes nothing from others who say that they do
    if message.term == state.term and state.leader not in (NOBODY, message.sender):
        raise Senseless(
            f"replica {message.sender} and replica {state.leader} both lead term {state.term} "
            "(paper, 5.2: Election Safety)"
        )
    if isinstance(message, AppendRequest):
        _check_append(state, message)


def _check_append(state: State, request: AppendRequest) -> None:
    """What is committed here is in the log of every later leader (paper, 5.4: Leader Completeness);
    and what follows it goes on from there."""
    index, term = request.prev_index, request.prev_term
    log = state.log
    _check_committed(state, index, term)
    for entry in request.entries:
        index += 1
        if entry.index != index or entry.term < term:
            raise Senseless(f"entry {entry.index} of term {entry.term} follows one of term {term}")
        term = entry.term
        if index <= log.commit_index:
            _check_committed(state, index, term)


def _check_committed(state: State, index: int, term: int) -> None:
    log = state.log
    if log.compacted_index <= index <= log.commit_index and not log.has(index, term):
        raise Senseless(f"entry {index} is of term {log.term_at(index)} here, and committed")
