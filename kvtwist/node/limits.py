"""What a node takes in. Each is a setting of its own; over it a definite error names it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kvtwist.errors import ConfigurationError
from kvtwist.wire.boxes import BoxLimits
from kvtwist.wire.limits import VALUE_BYTES_MAX_MAX, ConnectionLimits

HELD_BYTES_DEFAULT = 256 << 20
"""Enough for a dozen of the longest values at once, and what a small machine can do without."""


def _setting(default: int, meaning: str) -> int:
    value: int = field(default=default, metadata={"meaning": meaning})
    return value


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings; each field's ``meaning`` is its help text.

    What they do to a connection is `kvtwist.wire.limits.ConnectionLimits`'s.
    """

    key_bytes_max: int = _setting(4 << 10, "The longest key.")
    value_bytes_max: int = _setting(16 << 20, "The longest value.")
    keys_per_request_max: int = _setting(10_000, "Keys in one request for many.")
    box_bytes_max: int = _setting(0, "The largest AMP box. 0: as the longest value needs.")
    box_pairs_max: int = _setting(0, "The most pairs in a box. 0: as the largest box needs.")
    requests_in_flight_max: int = _setting(1024, "Requests of one connection worked on at once.")
    request_bytes_in_flight_max: int = _setting(64 << 20, "Their bytes, added up.")
    answer_bytes_unread_max: int = _setting(
        32 << 20, "Answers kept for a peer that does not read; over it, it is cut off."
    )
    tell_bytes_unsent_max: int = _setting(
        4 << 20, "Raft messages kept for a peer that does not read; over it, none are sent."
    )
    held_bytes_max: int = _setting(
        0,
        "Bytes held for all connections: unfinished boxes, requests, answers. "
        "0: 256 MiB, or four of the largest boxes.",
    )
    backups_max: int = _setting(
        4, "Partitions read for backups at once; each pins room on the disk."
    )
    idle_seconds_max: int = _setting(600, "How long a connection may be silent.")
    box_bytes_per_second_min: int = _setting(1024, "How fast a box that has begun must go on.")
    connections_max: int = _setting(4096, "Connections in all.")
    connections_per_address_max: int = _setting(1024, "Connections from one IP address.")

    def __post_init__(self) -> None:
        if self.value_bytes_max > VALUE_BYTES_MAX_MAX:
            raise ConfigurationError(
                f"value_bytes_max={self.value_bytes_max} does not work: clients read values of up "
                f"to {VALUE_BYTES_MAX_MAX} bytes"
            )
        box_bytes_max = self.of_connection().boxes.box_bytes_max
        if 0 < self.held_bytes_max < box_bytes_max:
            raise ConfigurationError(
                f"held_bytes_max={self.held_bytes_max} does not work: one box may have "
                f"{box_bytes_max} bytes (see box_bytes_max, value_bytes_max)"
            )

    def of_all_connections(self) -> int:
        """How many bytes may be held for all of them together."""
        box_bytes_max = self.of_connection().boxes.box_bytes_max
        return self.held_bytes_max or max(HELD_BYTES_DEFAULT, 4 * box_bytes_max)

    def of_connection(self) -> ConnectionLimits:
        """The limits of one connection."""
        boxes = BoxLimits.for_values_of(self.value_bytes_max)
        if self.box_bytes_max:
            boxes = BoxLimits.of_bytes(self.box_bytes_max)
        if self.box_pairs_max:
            boxes = replace(boxes, box_pairs_max=self.box_pairs_max)
        return ConnectionLimits(
            boxes=boxes,
            requests_in_flight_max=self.requests_in_flight_max,
            request_bytes_in_flight_max=self.request_bytes_in_flight_max,
            answer_bytes_unread_max=self.answer_bytes_unread_max,
            tell_bytes_unsent_max=self.tell_bytes_unsent_max,
            idle_seconds_max=self.idle_seconds_max,
            box_bytes_per_second_min=self.box_bytes_per_second_min,
        )
