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

from collections.abc import Mapping
from dataclasses import dataclass

KEY_BYTES_MAX = 255
VALUE_BYTES_MAX = 65535

ASK = b"_ask"
COMMAND = b"_command"
ANSWER = b"_answer"
ERROR = b"_error"
ERROR_CODE = b"_error_code"
ERROR_DESCRIPTION = b"_error_description"

_ENVELOPE = frozenset((ASK, COMMAND, ANSWER, ERROR, ERROR_CODE))
_ENVELOPE_VALUE_BYTES_MAX = 255


class FramingError(Exception):
    """The stream is not AMP; nothing after this point can be understood."""


class Box(dict[bytes, bytes]):
    """One AMP box. A key that stands twice has its last value, as in stock AMP."""

    __slots__ = ()


class OversizedBox(Box):
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
        box_bytes_max = 2 * value_bytes_max + (1 << 18)
        return cls(box_bytes_max, 256 + box_bytes_max // VALUE_BYTES_MAX)


class BoxReader:
    """Cuts a stream into boxes.

    **Invariant:** between two calls of `feed` at most one box is incomplete, and at most one of its
    pairs is held as undecoded bytes.
    """

    def __init__(self, limits: BoxLimits) -> None:
        self._limits = limits
        self._rest = b""
        self._start_box()

    def feed(self, data: bytes) -> list[Box]:
        """Take the next chunk; return the boxes that it completed.

        :raises FramingError: when a key is longer than AMP allows: this is no AMP stream.
        """
        stream = self._rest + data if self._rest else data
        end = len(stream)
        boxes: list[Box] = []
        at = 0
        while at + 2 <= end:
            key_bytes = (stream[at] << 8) | stream[at + 1]
            if key_bytes == 0:
                at += 2
                boxes.append(self._box)
                self._start_box()
                continue
            if key_bytes > KEY_BYTES_MAX:
                raise FramingError(
                    f"a key of {key_bytes} bytes (AMP allows {KEY_BYTES_MAX}): is this AMP at all?"
                )
            value_at = at + 2 + key_bytes + 2
            if value_at > end:
                break
            pair_end = value_at + ((stream[value_at - 2] << 8) | stream[value_at - 1])
            if pair_end > end:
                break
            self._add(stream[at + 2 : value_at - 2], stream[value_at:pair_end], pair_end - at)
            at = pair_end
        self._rest = stream[at:]
        return boxes

    def _start_box(self) -> None:
        self._box = Box()
        self._pairs = 0
        self._bytes = 0

    def _add(self, key: bytes, value: bytes, size_bytes: int) -> None:
        self._pairs += 1
        self._bytes += size_bytes
        box = self._box
        if isinstance(box, OversizedBox):
            if _is_envelope(key, value):
                box[key] = value
            return
        if self._bytes > self._limits.box_bytes_max:
            self._go_over("box_bytes_max", self._limits.box_bytes_max, self._bytes, key, value)
        elif self._pairs > self._limits.box_pairs_max:
            self._go_over("box_pairs_max", self._limits.box_pairs_max, self._pairs, key, value)
        else:
            box[key] = value

    def _go_over(self, setting: str, limit: int, actual: int, key: bytes, value: bytes) -> None:
        over = OversizedBox(setting, limit, actual)
        pairs = [*self._box.items(), (key, value)]
        over.update(pair for pair in pairs if _is_envelope(*pair))
        self._box = over


def _is_envelope(key: bytes, value: bytes) -> bool:
    return key in _ENVELOPE and len(value) <= _ENVELOPE_VALUE_BYTES_MAX


def write_box(box: Mapping[bytes, bytes]) -> bytes:
    """The bytes of *box*.

    :raises ValueError: when a key or value does not fit AMP's lengths, or the box is empty.
    """
    if not box:
        raise ValueError("an empty box says nothing: AMP forbids it")
    pieces: list[bytes] = []
    for key, value in box.items():
        if not 1 <= len(key) <= KEY_BYTES_MAX:
            raise ValueError(f"an AMP key has 1 to {KEY_BYTES_MAX} bytes, not {len(key)}")
        if len(value) > VALUE_BYTES_MAX:
            raise ValueError(f"an AMP value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
        pieces += (len(key).to_bytes(2, "big"), key, len(value).to_bytes(2, "big"), value)
    pieces.append(b"\0\0")
    return b"".join(pieces)
