"""Large boxes in pieces: cut at one end, joined at the other, sans-I/O.

A box of 16 MiB in one row of bytes keeps everything else on its connection waiting, and has both
ends handle it in one go. Between peers that can join them (`FEATURE` in the greeting), such a box
travels as a row of `kvtwist.wire.commands.Fragment`s, each of at most `FRAGMENT_BYTES_MAX` with all
that belongs to it. Other boxes may go between them; another large one may not.

In: the bytes of a box. Out: the bytes of its fragments; and at the other end, out of the fragments
as boxes, the same box as if it had come whole.

Rule 1: what is joined is held to the same limits as any box. The pieces go through a `BoxReader` as
they come, so that a box over its limits is read to its end without being kept, and no turn has to
take the whole of it apart.

Rule 2: fragments that are out of order, empty, within each other, or end elsewhere than their box
does are no mistake of a request's but of the stream: a `FramingError`, and nothing more is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvtwist.wire.arguments import piece_name
from kvtwist.wire.boxes import (
    COMMAND,
    LARGE_BYTES,
    VALUE_BYTES_MAX,
    Box,
    BoxLimits,
    BoxReader,
    FramingError,
    OversizedBox,
    Parts,
    pair,
)
from kvtwist.wire.commands import Fragment

FEATURE: Final = "fragments"
"""What a peer that can join fragments says among the features of its greeting."""
FRAGMENT_BYTES_MAX: Final = LARGE_BYTES
"""A box that is longer is cut; no fragment is longer, as a box."""
PIECE_BYTES_MAX: Final = 15 * VALUE_BYTES_MAX
"""How much of the cut box one fragment carries: full AMP values, and room for their names."""

FRAGMENT: Final = Fragment.commandName
_NUMBER: Final = b"number"
_LAST: Final = b"last"
_PIECE: Final = b"piece"
_HEADER: Final = pair(COMMAND, FRAGMENT)
_END: Final = b"\0\0"


def cut(box: bytes | Parts, piece_bytes_max: int = PIECE_BYTES_MAX) -> Iterator[bytes]:
    """The fragments of a box; each is made, and its part of the box copied, when it is asked for.

    :param box: its bytes, at least one.
    """
    parts = box if isinstance(box, Parts) else Parts([box])
    last = (len(parts) - 1) // piece_bytes_max
    for number, piece in enumerate(parts.runs(piece_bytes_max)):
        yield _fragment(Parts(piece), number, number == last)


def _fragment(piece: Parts, number: int, is_last: bool) -> bytes:
    pieces: list[bytes | memoryview] = [
        _HEADER,
        pair(_NUMBER, b"%d" % number),
        pair(_LAST, b"True" if is_last else b"False"),
    ]
    for at, value in enumerate(piece.runs(VALUE_BYTES_MAX), start=1):
        name = _name(at)
        pieces += (bytes((0, len(name))), name, sum(map(len, value)).to_bytes(2, "big"), *value)
    pieces.append(_END)
    return b"".join(pieces)


def _name(number: int) -> bytes:
    """Where part *number* of a piece stands in its box (`kvtwist.wire.arguments.Blob`)."""
    return _PIECE if number == 1 else piece_name(_PIECE, number)


class Joiner:
    """Joins the fragments that come in on one connection.

    :param limits: how large a joined box may be.

    :ivar read_bytes: how much of boxes has come in fragments in all.

    **Invariant:** at most one box has begun, and no more of it is held than a `BoxReader` holds.
    """

    def __init__(self, limits: BoxLimits) -> None:
        self.reader = BoxReader(limits)
        self.read_bytes = 0
        self._number = 0

    def feed(self, fragment: Box) -> Box | None:
        """Take the next fragment; return the whole box if it was the last.

        :raises FramingError: when it does not continue what came before.
        """
        try:
            return self._feed(fragment)
        except FramingError:
            self.reader.clear()  # which takes nothing any more
            raise

    def _feed(self, fragment: Box) -> Box | None:
        if isinstance(fragment, OversizedBox):
            raise FramingError(f"a fragment is over {fragment.setting}={fragment.limit}")
        if fragment.get(_NUMBER) != b"%d" % self._number:
            raise FramingError(f"the next fragment is number {self._number}, and another came")
        last = fragment.get(_LAST)
        if last not in (b"True", b"False"):
            raise FramingError("a fragment does not say whether it is the last")
        boxes = self._read(fragment)
        if last == b"False":
            if boxes:
                raise FramingError("a box ended before its last fragment")
            self._number += 1
            return None
        self._number = 0
        if len(boxes) != 1 or self.reader.is_inside_box:
            raise FramingError("the last fragment does not end one box")
        if boxes[0].get(COMMAND) == FRAGMENT:
            raise FramingError("there is a fragment inside a fragment")
        return boxes[0]

    def _read(self, fragment: Box) -> list[Box]:
        """What the fragment completes. Its parts are read one by one: to join them is to copy."""
        part = fragment.get(_PIECE)
        if not part:
            raise FramingError("a fragment is empty")
        boxes: list[Box] = []
        number = 1
        while part is not None:
            boxes += self.reader.feed(part)
            self.read_bytes += len(part)
            number += 1
            part = fragment.get(_name(number))
        return boxes
