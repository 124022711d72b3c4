"""What one end of a connection reads, from bytes to who takes each box.

In: chunks of the stream. A box that is an answer goes to the `Calls` made at this end, a request to
the `Work`; fragments are joined first. While nothing more can be answered boxes wait here. A stream
that is no AMP, or says nothing, ends the connection. What is held of all that is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvtwist.wire.boxes import (
    ANSWER,
    BOX_BYTES,
    COMMAND,
    ERROR,
    Box,
    BoxLimits,
    BoxReader,
    FramingError,
    size_bytes,
)
from kvtwist.wire.calls import Calls
from kvtwist.wire.fragments import FRAGMENT, Joiner
from kvtwist.wire.sending import CORKED_BYTES_MAX, Sending
from kvtwist.wire.work import Work

SENSELESS_BOXES_MAX: Final = 100
"""Boxes that are neither request nor answer, or a request to an end that only asks: passed over,
or refused, up to so many on one connection."""


class Intake:
    """The reading side of a connection.

    :param answers: whether this end does anything for its peer.
    :param drop: ends the connection: why, and more of it for the log.

    :ivar reader: cuts the stream into boxes.
    :ivar joiner: joins those that are fragments.
    """

    def __init__(
        self,
        limits: BoxLimits,
        calls: Calls,
        work: Work,
        sending: Sending,
        answers: bool,
        drop: Callable[[str, str], None],
    ) -> None:
        self.reader = BoxReader(limits)
        self.joiner = Joiner(limits)
        self._calls = calls
        self._work = work
        self._sending = sending
        self._answers = answers
        self._drop = drop
        self._is_over = False
        self._senseless = 0
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

    def set_limits(self, limits: BoxLimits) -> None:
        """Have other limits hold from now on."""
        self.reader.limits = self.joiner.reader.limits = limits

    def read(self, data: bytes) -> None:
        """Take in boxes of all kinds."""
        try:
            boxes = self.reader.feed(data)
        except FramingError as error:
            self._drop("it does not speak our protocol: is it a kvtwist node?", str(error))
            return
        if self._sending.is_full:
            self._lay_by(boxes)
        else:
            self._take(boxes)

    def take_waiting(self) -> None:
        """Take the boxes that wait, until no more can be answered."""
        boxes, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._take(boxes)

    def clear(self) -> None:
        """Let go of everything; nothing more can be read."""
        self._is_over = True
        self._waiting, self._waiting_bytes = [], 0
        self.reader.clear()
        self.joiner.reader.clear()

    def _take(self, boxes: list[Box]) -> None:
        sending = self._sending
        for at, box in enumerate(boxes):
            self._box_received(box)
            if self._is_over:
                return
            if sending.corked_bytes > CORKED_BYTES_MAX:
                sending.uncork()
                if sending.is_full:
                    self._lay_by(boxes[at + 1 :])
                    return

    def _lay_by(self, boxes: list[Box]) -> None:
        if not self._is_over:
            self._waiting += boxes
            self._waiting_bytes += sum(map(size_bytes, boxes)) + BOX_BYTES * len(boxes)

    def _box_received(self, box: Box) -> None:
        if (tag := box.get(ANSWER)) is not None:
            self._calls.answered(tag, box)
        elif (tag := box.get(ERROR)) is not None:
            self._calls.failed(tag, box)
        elif (name := box.get(COMMAND)) is None:
            self._senseless_received()
        elif name == FRAGMENT:
            self._fragment_received(box)
        else:
            self._work.received(name, box)
            if not self._answers:  # but refuses, and its refusals are not bounded otherwise
                self._senseless_received()

    def _fragment_received(self, fragment: Box) -> None:
        """Join it; what it completes is treated like a box that came whole."""
        try:
            whole = self.joiner.feed(fragment)
        except FramingError as error:
            self._drop("it sends fragments that make no box", str(error))
            return
        if whole is not None:
            self._box_received(whole)

    def _senseless_received(self) -> None:
        self._senseless += 1
        if self._senseless > SENSELESS_BOXES_MAX:
            self._drop("it sends boxes that say nothing, or requests to an end that only asks", "")
