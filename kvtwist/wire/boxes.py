"""AMP boxes as bytes: a sans-I/O reader and a writer.

The format is stock AMP's, byte for byte: a box is a row of pairs, a pair is key and value, each
after its length in two bytes, big-endian; a zero length in place of a key ends the box. Keys have
1 to 255 bytes, values 0 to 65,535.

In: chunks of a stream, cut anywhere. Out: boxes, complete ones only.

Rule 1: memory stays bounded whatever the peer sends. A box past its limits is still read to its
end, so that the stream stays in step, but only what is needed to answer it is kept
(`OversizedBox`).

Rule 2: a stream that is not AMP is over. After a `FramingError` the reader takes nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

KEY_BYTES_MAX: Final = 255
VALUE_BYTES_MAX: Final = 65535

ASK: Final = b"_ask"
COMMAND: Final = b"_command"
ANSWER: Final = b"_answer"
ERROR: Final = b"_error"
ERROR_CODE: Final = b"_error_code"
ERROR_DESCRIPTION: Final = b"_error_description"

_ENVELOPE: Final = frozenset((ASK, COMMAND, ANSWER, ERROR, ERROR_CODE))
_ENVELOPE_VALUE_BYTES_MAX: Final = 255

Box: TypeAlias = dict[bytes, bytes]
"""One AMP box. A key that stands twice has its last value, as in stock AMP."""


LARGE_BYTES: Final = 1 << 20
"""A longer box is large: it is handed over, and sent where that is possible, in parts."""

BOX_BYTES: Final = 512
"""What a box takes in memory besides its values, roughly: a stream of 64 KiB may have thousands."""


def size_bytes(box: Box) -> int:
    """How much the values of a box take."""
    return sum(map(len, box.values()))


class Parts:
    """The bytes of a large box, not joined: to join them takes as long, and as much memory, again.

    :ivar parts: one after the other.
    """

    __slots__ = ("_size_bytes", "parts")

    def __init__(self, parts: Sequence[bytes | memoryview]) -> None:
        self.parts = parts
        self._size_bytes = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size_bytes

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)

    def runs(self, size_bytes: int) -> Iterator[list[bytes | memoryview]]:
        """Cut anew: runs of so many bytes each, the last one of what is left; nothing is copied."""
        run: list[bytes | memoryview] = []
        room = size_bytes
        for part in self.parts:
            view = memoryview(part)
            while len(view) >= room:
                run.append(view[:room])
                yield run
                view, run, room = view[room:], [], size_bytes
            if view:
                run.append(view)
                room -= len(view)
        if run:
            yield run


class FramingError(Exception):
    """The stream is not AMP; nothing after this point can be understood."""


class OversizedBox(dict[bytes, bytes]):
    """What is left of a box that went over a limit: its envelope (command, tag), and the limit."""

    __slots__ = ("actual", "limit", "setting")

    def __init__(self, setting: str, limit: int, actual: int) -> None:
        super().__init__()
        self.setting = setting
        self.limit = limit
        self.actual = actual


@dataclass(frozen=True, slots=True)
class BoxLimits:
    """How large a box may be.

    :ivar box_bytes_max: keys, values and their lengths, added up.
    :ivar box_pairs_max: pairs in one box.
    """

    box_bytes_max: int
    box_pairs_max: int

    @classmethod
    def for_values_of(cls, value_bytes_max: int) -> BoxLimits:
        """Limits that let a value of *value_bytes_max* through, with one as large beside it.

        Twice the value, so that a value a little over *its* limit is refused by that limit's own
        name, and a quarter of a mebibyte for everything else.
        """
        return cls.of_bytes(2 * value_bytes_max + (1 << 18))

    @classmethod
    def of_bytes(cls, box_bytes_max: int) -> BoxLimits:
        """Limits with as many pairs as the largest values need, and some."""
        return cls(box_bytes_max, 256 + box_bytes_max // VALUE_BYTES_MAX)


class BoxReader:
    """Cuts a stream into boxes.

    :ivar limits: how large a box may be; what is larger is read, and not kept.
    :ivar boxes: how many boxes have been completed in all.

    **Invariant:** between two calls of `feed` at most one box is incomplete, and at most one of its
    pairs is held as undecoded bytes.
    """

    __slots__ = ("_box", "_box_bytes", "_over", "_pairs", "_rest", "boxes", "limits")

    def __init__(self, limits: BoxLimits) -> None:
        self.limits = limits
        self._rest = b""
        self._box: Box = {}
        self._pairs = 0
        self._box_bytes = 0
        self._over = False
        self.boxes = 0

    @property
    def is_inside_box(self) -> bool:
        """Whether a box has begun and not ended."""
        return bool(self._pairs or self._rest)

    @property
    def held_bytes(self) -> int:
        """How much of that box is kept."""
        kept = 0 if isinstance(self._box, OversizedBox) else self._box_bytes
        return kept + len(self._rest)

    def clear(self) -> None:
        """Let go of that box; the reader is of no use afterwards."""
        self._over = True
        self._rest = b""
        self._box = {}
        self._pairs = self._box_bytes = 0

    def feed(self, data: bytes) -> list[Box]:
        """Take the next chunk; return the boxes that it completed.

        :raises FramingError: when a key is longer than AMP allows: this is no AMP stream.
        """
        if self._over:
            raise FramingError("the stream is over: it was no AMP before")
        stream = self._rest + data if self._rest else data
        end = len(stream)
        boxes: list[Box] = []
        box, at = self._box, 0
        while at + 2 <= end:
            key_bytes = stream[at + 1]
            if stream[at]:
                self._over = True
                raise FramingError(
                    f"a key of {stream[at] << 8 | key_bytes} bytes (AMP allows {KEY_BYTES_MAX}): "
                    "is this AMP at all?"
                )
            key_at = at + 2
            if key_bytes == 0:
                boxes.append(box)
                self._pairs = self._box_bytes = 0
                box = self._box = {}
                at = key_at
                continue
            key_end = key_at + key_bytes
            value_at = key_end + 2
            if value_at > end:
                break
            pair_end = value_at + (stream[key_end] << 8 | stream[key_end + 1])
            if pair_end > end:
                break
            self._pairs += 1
            self._box_bytes += pair_end - at
            box[stream[key_at:key_end]] = stream[value_at:pair_end]
            if self._pairs > self.limits.box_pairs_max or (
                self._box_bytes > self.limits.box_bytes_max
            ):
                box = self._box = self._envelope_of(box)
            at = pair_end
        self.boxes += len(boxes)
        self._rest = stream[at:]
        return boxes

    def _envelope_of(self, box: Box) -> OversizedBox:
        """What is kept of a box that is too large; called for each pair that it still gets."""
        if isinstance(box, OversizedBox):
            over = box
        elif self._box_bytes > self.limits.box_bytes_max:
            over = OversizedBox("box_bytes_max", self.limits.box_bytes_max, self._box_bytes)
        else:
            over = OversizedBox("box_pairs_max", self.limits.box_pairs_max, self._pairs)
        kept = {key: value for key, value in box.items() if _is_envelope(key, value)}
        over.clear()
        over.update(kept)
        return over


def _is_envelope(key: bytes, value: bytes) -> bool:
    return key in _ENVELOPE and len(value) <= _ENVELOPE_VALUE_BYTES_MAX


def pair(key: bytes, value: bytes) -> bytes:
    """The bytes of one pair.

    :raises ValueError: when key or value does not fit AMP's lengths.
    """
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise ValueError(f"an AMP key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(f"an AMP value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
    return b"%b%b%b%b" % (len(key).to_bytes(2, "big"), key, len(value).to_bytes(2, "big"), value)


def write_box(box: Mapping[bytes, bytes]) -> bytes:
    """The bytes of *box*.

    :raises ValueError: when a key or value does not fit AMP's lengths, or the box is empty.
    """
    if not box:
        raise ValueError("an empty box says nothing: AMP forbids it")
    return b"".join([*(pair(key, value) for key, value in box.items()), b"\0\0"])
