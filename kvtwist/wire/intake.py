"""What one end of a connection has read: bytes, boxes, fragments, and boxes that wait.

In: chunks of the stream. Out: boxes, large ones joined; or nothing for now, while no more is to be
taken. What is held of all that is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvtwist.wire.boxes import BOX_BYTES, Box, BoxLimits, BoxReader, size_bytes
from kvtwist.wire.fragments import Joiner


class Intake:
    """The reading side of a connection.

    :ivar reader: cuts the stream into boxes.
    :ivar joiner: joins those that are fragments.
    """

    def __init__(self, limits: BoxLimits) -> None:
        self.reader = BoxReader(limits)
        self.joiner = Joiner(limits)
        self._waiting: list[Box] = []
        self._waiting_bytes = 0

    @property
    def has_waiting(self) -> bool:
        """Whether boxes wait to be taken."""
        return bool(self._waiting)

    @property
    def held_bytes(self) -> int:
        """What is kept: boxes that have begun, and those that wait."""
        return self.reader.held_bytes + self.joiner.reader.held_bytes + self._waiting_bytes

    def lay_by(self, boxes: Sequence[Box]) -> None:
        """Have *boxes* wait, behind those that do."""
        self._waiting += boxes
        self._waiting_bytes += sum(map(size_bytes, boxes)) + BOX_BYTES * len(boxes)

    def laid_by(self) -> list[Box]:
        """Those that wait, in their order; they wait no longer."""
        boxes, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return boxes

    def clear(self) -> None:
        """Let go of everything; nothing more can be read."""
        self.laid_by()
        self.reader.clear()
        self.joiner.reader.clear()
