"""Whether a request may be sent again after an error: one rule for all who send.

Nothing has left, or the other end says that nothing was done: yes. A read: yes. A write whose
answer is missing: its outcome is unknown, and only the client that has numbered it in a session may
send it again; without a session nobody may, and a node that passes it on never may (C3). A request
that is not acceptable, or that finds what it cannot be done to: never, that is its answer. One that
says the wrong thing of its session or generation: not as it is, and only its sender can change it.
"""

from __future__ import annotations

from twisted.protocols import amp

from kvtwist.errors import (
    KvtwistError,
    NotANumber,
    OutcomeUnknown,
    Refused,
    SessionRefused,
    VersionMismatch,
    WrongGeneration,
)
from kvtwist.wire.commands import WRITES

UNFIT = (VersionMismatch, NotANumber)
"""What the partition itself answers, having looked at what is there: for good."""


def may_be_sent_again(
    command: type[amp.Command], error: KvtwistError, is_once: bool = False
) -> bool:
    """Whether the same can be sent again: nothing can have been done, or twice is no harm.

    :param is_once: whether it carries a session, and it is the client that asks.
    """
    if isinstance(error, OutcomeUnknown):
        return is_once or command not in WRITES
    if isinstance(error, SessionRefused):
        return error.reason == "too_many_answers"
    return not isinstance(error, (Refused, WrongGeneration, *UNFIT))
