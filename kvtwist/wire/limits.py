"""What one connection may take of a node: the limits that hold, whatever the other end does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kvtwist.wire.boxes import BoxLimits


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection.

    :ivar boxes: how large a box may be.
    :ivar requests_in_flight_max: requests on one connection that wait for their answer. One more is
        answered with `Overloaded`.
    :ivar request_bytes_in_flight_max: their bytes, added up; a request alone may be larger. At the
        end that asks also a limit on what waits to be sent, wanted or not.
    :ivar answer_bytes_unread_max: bytes of answers that the other end has not taken, besides one of
        any size that is under way. While it does not read, nothing of it is read; past this limit
        the connection is aborted.
    :ivar tell_bytes_unsent_max: bytes of commands without an answer that wait for the other end to
        read; those above 1 MiB are counted apart, and one alone may be larger. Past this limit
        nothing is told.
    :ivar idle_seconds_max: how long a connection may say nothing. Then it is closed.
    :ivar box_bytes_per_second_min: how fast a box that has begun must at least go on. A connection
        that is slower is aborted.
    """

    boxes: BoxLimits = field(default_factory=lambda: BoxLimits.for_values_of(16 << 20))
    requests_in_flight_max: int = 1024
    request_bytes_in_flight_max: int = 64 << 20
    answer_bytes_unread_max: int = 32 << 20
    tell_bytes_unsent_max: int = 4 << 20
    idle_seconds_max: int = 600
    box_bytes_per_second_min: int = 1024


DEFAULT_LIMITS: Final = ConnectionLimits()

VALUE_BYTES_MAX_MAX: Final = 256 << 20
"""The longest value that any node may be set to take; clients read as much."""

MEMBER_BOXES: Final = BoxLimits.for_values_of(VALUE_BYTES_MAX_MAX)
"""What a member takes from another one, whatever its own settings are: an entry that some leader
has taken is in the log for ever, and who refuses it can never go on."""
