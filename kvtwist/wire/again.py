"""Whether a request may be sent again after an error: one rule for all who send.

Nothing has left, or the other end says that nothing was done: yes. A read: yes. A write whose
answer is missing: never, its outcome is unknown (C3). A request that is not acceptable, or whose
condition does not hold: never, that is its answer.
"""

from __future__ import annotations

from twisted.protocols import amp

from kvtwist.errors import KvtwistError, OutcomeUnknown, Refused, VersionMismatch
from kvtwist.wire.commands import WRITES


def may_be_sent_again(command: type[amp.Command], error: KvtwistError) -> bool:
    """Whether nothing can have been done, or doing it twice is no harm."""
    if isinstance(error, OutcomeUnknown):
        return command not in WRITES
    return not isinstance(error, (Refused, VersionMismatch))
