"""What has happened in a run: to be read by people, and to be compared between runs."""

from __future__ import annotations

from collections import Counter, deque
from hashlib import blake2b
from zlib import crc32

from tests.simnodes.clock import Clock

EVENTS_KEPT = 20_000


class Trace:
    """The events of a run.

    :ivar counts: how often each kind of event happened.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hash = blake2b(digest_size=16)
        self._last: deque[tuple[float, str, str, object]] = deque(maxlen=EVENTS_KEPT)
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, who: str, what: object = "") -> None:
        """Something has happened, now. Both texts, and *what* as text, make up the digest."""
        self.counts[kind] += 1
        now = self._clock.now
        self._hash.update(f"{now!r} {kind} {who} {what}\n".encode())
        self._last.append((now, kind, who, what))

    def sent(self, sender: str, to: str, data: bytes) -> None:
        """Bytes were written to a connection."""
        now = self._clock.now
        self._hash.update(f"{now!r} {sender} {to} {crc32(data)}\n".encode())
        self._last.append((now, "write", f"{sender} > {to}", data))

    def show(self, kind: str, who: str, what: object) -> None:
        """For people only: what the bytes say that are written next."""
        self._last.append((self._clock.now, kind, who, what))

    def digest(self) -> str:
        """The same for two runs in which the same happened."""
        return self._hash.hexdigest()

    def last(self, events: int) -> str:
        """The last so many events, a line for each."""
        return "\n".join(
            f"{now:10.5f} {kind:<14} {who:<22} {_shown(what)}"
            for now, kind, who, what in list(self._last)[-events:]
        )


def _shown(what: object) -> str:
    text = _boxes(what) if isinstance(what, bytes) else str(what)
    return text if len(text) <= 300 else text[:297] + "..."


def _boxes(data: bytes) -> str:
    """Bytes of the wire, so that words in them can be read."""
    readable = "".join(chr(each) if 32 <= each < 127 else "." for each in data[:240])
    return f"{len(data)} bytes {readable}"
