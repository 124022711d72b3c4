"""What one end of a connection has to send and its transport has no room for yet. Sans-I/O.

In: boxes, and what the transport says: that it has enough (`Outbox.pause`), that it has nothing
left (`Outbox.resume`). Out: writes. Twisted's transports say nothing in between, so that whoever
gives them all at once never knows how much of it the other end has taken. What waits is therefore
kept here, and handed over a burst at a time: small boxes that wait, up to `BURST_BYTES`, and one
piece of one large box.

Rule 1: what is unread is known to a burst: what waits here, and what was handed over since the
transport was last empty. A peer that goes on reading, if slowly, is seen to do so.

Rule 2: a large box does not keep small ones waiting (where the peer can join fragments), and small
ones do not keep it waiting either: each burst has a piece of it.

Rule 3: nothing is kept for nobody. A request whose caller has given up before its first byte has
left is taken back, and has definitely not been sent; one that has begun goes on to its end, since
the stream must stay in step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Final

from kvtwist.wire.boxes import ASK, COMMAND, Parts
from kvtwist.wire.fragments import FRAGMENT_BYTES_MAX, PIECE_BYTES_MAX, cut

BURST_BYTES: Final = 1 << 16
"""So many bytes of small boxes are handed over at once; Twisted's transports then have enough."""

_ASK_KEY: Final = bytes((0, len(ASK))) + ASK
_COMMAND_KEY: Final = bytes((0, len(COMMAND))) + COMMAND
_HEAD_BYTES: Final = 64
"""Where the tag of a request ends at the latest, if it is one of ours: it is a short number."""


class Outbox:
    """The boxes that wait.

    :param write: hands bytes to the transport, which may call `pause` meanwhile.
    :param can_join: whether the other end joins fragments.

    :ivar is_paused: whether the transport has enough.
    :ivar small_told_bytes: of commands without an answer that wait.
    :ivar large_told_bytes: of large ones.
    :ivar unread_bytes: what waits, what is left of the large box under way, and what the transport
        may still have of the last burst.

    **Invariant:** what waits, waits for the transport: nothing does unless `is_paused`.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        can_join: Callable[[], bool],
    ) -> None:
        self._write = write
        self._can_join = can_join
        self.is_paused = False
        self.unread_bytes = 0
        self.small_told_bytes = 0
        self.large_told_bytes = 0
        # Under the tags of requests, to withdraw them, and under numbers.
        self._small: OrderedDict[bytes | int, bytes] = OrderedDict()
        self._large: OrderedDict[bytes | int, Parts] = OrderedDict()
        self._numbers = count()
        self._waiting_bytes = 0
        self._given_bytes = 0
        self._pieces: Iterator[bytes] | None = None
        self._left_bytes = 0
        self._is_cut = False
        self._writes_piece = False
        self._is_full_of_small = False

    @property
    def has_enough(self) -> bool:
        """Whether so much waits that no more should be made.

        One large box does not count while it is under way: it must not stop what is small. More
        of them do, since there is memory for one, not for as many as a peer can ask for.
        """
        return self._is_full_of_small or self._waiting_bytes > BURST_BYTES

    @property
    def behind_bytes(self) -> int:
        """What is unread besides the one large box that is under way, which may have any size."""
        return self._waiting_bytes + self._given_bytes

    def put(self, box: bytes | Parts) -> None:
        """Send a box as soon as its turn comes."""
        tag = tag_of_request(box)
        key = next(self._numbers) if tag is None else tag
        told_bytes = len(box) if tag is None and is_told(box) else 0
        if len(box) > FRAGMENT_BYTES_MAX:
            self._large[key] = box if isinstance(box, Parts) else Parts([box])
            self.large_told_bytes += told_bytes
        else:
            self._small[key] = bytes(box)
            self.small_told_bytes += told_bytes
        self._waiting_bytes += len(box)
        self.unread_bytes += len(box)
        self._hand_over()

    def withdraw(self, tags: Iterable[bytes]) -> set[bytes]:
        """Take back the requests with these *tags* that wait; the tags of those that did."""
        withdrawn: set[bytes] = set()
        for tag in tags:
            for boxes in (self._small, self._large):
                box = boxes.pop(tag, None)
                if box is not None:
                    self._waiting_bytes -= len(box)
                    self.unread_bytes -= len(box)
                    withdrawn.add(tag)
        return withdrawn

    def wrote(self, size_bytes: int) -> None:
        """So many bytes, written past the outbox, made the transport say that it has enough."""
        self._given_bytes += size_bytes
        self.unread_bytes += size_bytes

    def pause(self) -> None:
        """The transport has enough."""
        if not self.is_paused:
            self.is_paused = True
            self._is_full_of_small = not self._writes_piece

    def resume(self) -> None:
        """The transport has nothing left."""
        self.is_paused = False
        self._is_full_of_small = False
        self._taken()
        self._hand_over()

    def flush(self) -> None:
        """Hand everything over at once, and from now on too: the transport is told to close."""
        while self._burst():
            pass
        self.is_paused = False

    def clear(self) -> set[bytes]:
        """Forget everything; the tags of the requests that waited."""
        unsent = {key for key in (*self._small, *self._large) if isinstance(key, bytes)}
        self._small.clear()
        self._large.clear()
        self.small_told_bytes = self.large_told_bytes = 0
        self._pieces = None
        self._left_bytes = self._waiting_bytes = 0
        self._taken()
        return unsent

    def _hand_over(self) -> None:
        while not self.is_paused and self._burst():
            if not self.is_paused:
                self._taken()

    def _taken(self) -> None:
        """Nothing of what was handed over is unread, or too little to count."""
        self._given_bytes = 0
        self.unread_bytes = self._waiting_bytes + self._left_bytes

    def _burst(self) -> bool:
        """Write what one turn may; whether there was anything."""
        wrote = self._write_small()
        return self._write_piece() or wrote

    def _write_small(self) -> bool:
        if not self._small or (self._left_bytes and not self._is_cut):
            return False  # nothing can go between the pieces of a box that is not cut
        boxes, size_bytes = [], 0
        while self._small and size_bytes <= BURST_BYTES:
            box = self._small.popitem(last=False)[1]
            boxes.append(box)
            size_bytes += len(box)
            if self.small_told_bytes and is_told(box):
                self.small_told_bytes -= len(box)
        self._waiting_bytes -= size_bytes
        self._given_bytes += size_bytes
        self._write(boxes[0] if len(boxes) == 1 else b"".join(boxes))
        return True

    def _write_piece(self) -> bool:
        if not self._left_bytes and not self._begin():
            return False
        assert self._pieces is not None
        piece = next(self._pieces)
        self._left_bytes -= min(PIECE_BYTES_MAX, self._left_bytes)
        if not self._left_bytes:
            self._pieces = None
        self._writes_piece = True
        self._write(piece)
        self._writes_piece = False
        return True

    def _begin(self) -> bool:
        """Begin with the next large box, if there is one."""
        if not self._large:
            return False
        _, box = self._large.popitem(last=False)
        if self.large_told_bytes and is_told(box):
            self.large_told_bytes -= len(box)
        self._waiting_bytes -= len(box)
        self._left_bytes = len(box)
        self._is_cut = self._can_join()
        self._pieces = cut(box) if self._is_cut else _slices(box)
        return True


def _slices(box: Parts) -> Iterator[bytes]:
    """A box for a peer that wants it whole: handed over in parts all the same."""
    return map(b"".join, box.runs(PIECE_BYTES_MAX))


def tag_of_request(box: bytes | Parts) -> bytes | None:
    """The tag of a request as this end writes it; ``None`` for an answer."""
    head = _head(box)
    if not head.startswith(_ASK_KEY):
        return None
    at = len(_ASK_KEY)
    return head[at + 2 : at + 2 + (head[at] << 8 | head[at + 1])]


def is_told(box: bytes | Parts) -> bool:
    """Whether it is a command without an answer, as this end writes it."""
    return _head(box).startswith(_COMMAND_KEY)


def _head(box: bytes | Parts) -> bytes:
    return box if isinstance(box, bytes) else b"".join(next(box.runs(_HEAD_BYTES)))
