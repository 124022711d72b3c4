"""What one end of a connection sends, from a box to its transport.

A box goes one of three ways: it is held back while a `Turn` is open, and then joined with what else
the turn has brought; it is written; or, where the transport has enough, it waits in the `Outbox`.

**Invariant:** boxes leave in the order in which they were written, apart from what `Outbox` says of
large ones; after `end` nothing leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvtwist.wire.boxes import Parts
from kvtwist.wire.fragments import FRAGMENT_BYTES_MAX
from kvtwist.wire.outbox import Outbox, tag_of_request
from kvtwist.wire.straight import write_straight
from kvtwist.wire.turn import Turn

CORKED_BYTES_MAX: Final = 1 << 16
"""Answers are joined up to so many bytes; then they go to the transport, which says when it has
enough."""


class Sending:
    """The writing side of a connection.

    :param can_join: whether the other end joins fragments.
    :param unread_bytes_max: how much may wait, besides one large box under way; ``None`` for an end
        that only asks, whose calls in flight are bounded.
    :param overrun: called when more waits.
    :param uncorked: called when what was held back has been sent.

    :ivar outbox: what the transport has no room for.
    :ivar corked_bytes: how much is held back.
    :ivar is_full: whether so much waits that no more requests should be read, or none can be
        answered. While it lasts, never so at an end that only asks: else two ends could wait for
        each other.
    """

    def __init__(
        self,
        turn: Turn,
        can_join: Callable[[], bool],
        unread_bytes_max: int | None,
        overrun: Callable[[], None],
        uncorked: Callable[[], None],
    ) -> None:
        self._turn = turn
        self.outbox = Outbox(self._hand_over, can_join)
        self._unread_bytes_max = unread_bytes_max
        self._overrun = overrun
        self._uncorked = uncorked
        self._transport: Any = None
        self._corked: list[Any] = []
        self._corked_told_bytes = [0, 0]  # of small boxes, of large ones
        self.corked_bytes = 0
        self.is_full = False

    def begin(self, transport: Any) -> None:
        """From now on boxes can leave."""
        self._transport = transport

    def end(self) -> set[bytes]:
        """From now on none can; what waits is forgotten. The tags of the requests among it, of
        which nothing has left."""
        self._transport = None
        self.is_full = True
        unsent = self.outbox.clear()
        unsent.update(tag for box in self._corked if (tag := tag_of_request(box)) is not None)
        self._corked.clear()
        self._corked_told_bytes = [0, 0]
        self.corked_bytes = 0
        return unsent

    def has_room_for(self, answer: bytes | Parts) -> bool:
        """Whether *answer* can wait too, if it has to."""
        limit, behind_bytes = self._unread_bytes_max, self.outbox.behind_bytes
        if self.outbox.is_paused:
            behind_bytes += self.corked_bytes  # which will have to wait there too
        return limit is None or not behind_bytes or behind_bytes + len(answer) <= limit

    def write(self, data: bytes | Parts) -> None:
        """Send a box, at the end of the turn if there is one."""
        if not self._turn.is_open:
            self._send(data)
            return
        if not self._corked:
            self._turn.holds_back(self)
        self._corked.append(data)
        self.corked_bytes += len(data)

    def tell(self, data: bytes | Parts, unsent_bytes_max: int) -> bool:
        """Send a box that has no answer, unless more than *unsent_bytes_max* of such boxes wait.

        Large ones are counted by themselves: while one waits, small ones can go. One that is alone
        may have any size.
        """
        is_large = len(data) > FRAGMENT_BYTES_MAX
        outbox = self.outbox
        unsent_bytes = outbox.large_told_bytes if is_large else outbox.small_told_bytes
        unsent_bytes += self._corked_told_bytes[is_large]
        if unsent_bytes and unsent_bytes + len(data) > unsent_bytes_max:
            return False
        if not self.has_room_for(data):
            return False
        self.write(data)
        if self._turn.is_open:
            self._corked_told_bytes[is_large] += len(data)
        return True

    def uncork(self) -> None:
        """Send what was held back in this turn."""
        corked, self._corked = self._corked, []
        self._corked_told_bytes = [0, 0]
        size_bytes, self.corked_bytes = self.corked_bytes, 0
        if not corked:
            return
        if size_bytes <= FRAGMENT_BYTES_MAX and not self.outbox.is_paused:
            # Only here, at a turn's end: what is written outside of one the transport joins.
            data = write_straight(self._transport, b"".join(corked))
            if data:
                self._send(data)
        else:
            # A large one must not take the others with it, and each that waits can be withdrawn.
            for each in corked:
                self._send(each)
        self._uncorked()

    def pause(self) -> None:
        """The transport has enough; it says so at every write that it has no room for."""
        self.outbox.pause()
        self._rest()

    def resume(self) -> bool:
        """The transport has nothing left: send what waits. Whether requests can be read again."""
        self.outbox.resume()
        if not self.is_full or self.outbox.has_enough or self._transport is None:
            return False
        self.is_full = False
        return True

    def flush(self) -> None:
        """Hand everything to the transport, which is about to be told to close."""
        self.uncork()
        self.outbox.flush()

    def _hand_over(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send(self, data: bytes | Parts) -> None:
        transport, outbox = self._transport, self.outbox
        if transport is None:
            return
        if outbox.is_paused or len(data) > FRAGMENT_BYTES_MAX:
            self._queue(data)
            return
        transport.write(data)
        if self.outbox.is_paused:
            outbox.wrote(len(data))

    def _queue(self, data: bytes | Parts) -> None:
        outbox, limit = self.outbox, self._unread_bytes_max
        was_behind = outbox.behind_bytes
        outbox.put(data)
        self._rest()
        # One answer alone may be over the limit: so large are the values that the node takes.
        if limit is not None and was_behind and outbox.behind_bytes > limit:
            self._overrun()

    def _rest(self) -> None:
        is_bounded = self._unread_bytes_max is not None
        if is_bounded and not self.is_full and self.outbox.has_enough:
            self.is_full = True
            if self._transport is not None:
                self._transport.pauseProducing()
