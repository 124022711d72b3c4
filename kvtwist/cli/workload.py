"""What ``kvcli bench`` is to do, and what became of it. Pure: time and chance are arguments."""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from kvtwist.errors import KvtwistError, NotDone

Chance = Callable[[], float]
"""Draws a number of at least 0 and less than 1."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What to do.

    :ivar read_share: which share of the operations are gets, from 0 to 1; the others are puts.
    :ivar keys: how many keys there are; they are *prefix* and a number that counts from 0.
    :ivar zipf_exponent: how uneven the choice of keys is; ``None``: all are alike.
    :ivar seconds: end after so many; ``None``: do not.
    :ivar count: end after so many operations; ``None``: do not.
    :ivar seed: the same seed gives the same value, operations and keys, in the same order.
    :ivar prepare: whether to write all keys first, if there are gets at all.
    """

    read_share: float = 0.5
    in_flight: int = 64
    value_bytes: int = 100
    keys: int = 10_000
    prefix: bytes = b"bench:"
    zipf_exponent: float | None = None
    seconds: float | None = 10.0
    count: int | None = None
    seed: int = 1
    prepare: bool = True

    @property
    def keys_to_prepare(self) -> int:
        """How many keys are written before the measurement: all, or none."""
        return self.keys if self.prepare and self.read_share > 0 else 0

    def key(self, number: int) -> bytes:
        """The key with that number."""
        return b"%b%d" % (self.prefix, number)

    def value(self) -> bytes:
        """What is written: bytes that nothing can compress."""
        return Random(self.seed).randbytes(self.value_bytes)

    def choice(self, chance: Chance) -> Callable[[], int]:
        """What draws the number of the next key."""
        if self.zipf_exponent is None:
            return uniform(self.keys, chance)
        return zipfian(self.keys, self.zipf_exponent, chance)


def uniform(size: int, chance: Chance) -> Callable[[], int]:
    """Draws numbers below *size*, each as often as any other."""
    return lambda: int(chance() * size)


def zipfian(size: int, exponent: float, chance: Chance) -> Callable[[], int]:
    """Draws numbers below *size*: number i in proportion to 1 / (i + 1) ** exponent.

    The distribution of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010),
    exact rather than by its approximation: 8 bytes for each number, and one bisection per draw. Its
    popular keys are the first ones; a ring's hash scatters them over the partitions.
    """
    weights = (number**-exponent for number in range(1, size + 1))
    cumulative = array("d", accumulate(weights))
    total = cumulative[-1]
    return lambda: bisect(cumulative, chance() * total)


class Histogram:
    """How long things took, as counts in buckets that each are 2 % wider than the one before.

    Its memory is 8 KiB, whatever is added. A percentile is read as the middle of its bucket, which
    nothing in the bucket is further from than 1 % of its value. That holds from 1 us to 1,000 s;
    what lies outside is counted in the first or last bucket.

    :ivar count: how many times were added.
    :ivar seconds_sum: their sum, exact.
    :ivar seconds_max: the longest, exact; 0 if there is none.
    """

    SECONDS_MIN = 1e-6
    SECONDS_MAX = 1e3
    GROWTH = 1.02
    _PER_E = 1 / math.log(GROWTH)
    """Buckets for each factor of e."""
    _LAST = int(math.log(SECONDS_MAX / SECONDS_MIN) * _PER_E)

    def __init__(self) -> None:
        self.count = 0
        self.seconds_sum = 0.0
        self.seconds_max = 0.0
        self._counts = array("q", [0]) * (self._LAST + 1)

    def add(self, seconds: float) -> None:
        """Count one time."""
        self.count += 1
        self.seconds_sum += seconds
        if seconds > self.seconds_max:
            self.seconds_max = seconds
        bucket = 0
        if seconds > self.SECONDS_MIN:
            bucket = int(math.log(seconds / self.SECONDS_MIN) * self._PER_E)
        self._counts[min(bucket, self._LAST)] += 1

    def mean_seconds(self) -> float:
        """The mean, exact; 0 if nothing was added."""
        return self.seconds_sum / self.count if self.count else 0.0

    def percentile_seconds(self, percent: float) -> float:
        """What *percent* of the times do not exceed (nearest rank); 0 if nothing was added."""
        rank = max(1, math.ceil(self.count * percent / 100))
        for bucket, seen in enumerate(accumulate(self._counts)):
            if seen >= rank:
                middle: float = self.SECONDS_MIN * self.GROWTH ** (bucket + 0.5)
                return min(middle, self.seconds_max)
        return 0.0


@dataclass(slots=True)
class Trouble:
    """Operations that failed in the same way.

    :ivar first: what the first one said, in one line.
    :ivar is_unknown: whether they may have been done all the same.
    """

    first: str
    is_unknown: bool
    count: int = 0


class Tally:
    """What became of the operations of one kind.

    :ivar started: how many were sent.
    :ivar latencies: of those that were answered, be the answer that there is no such key.
    :ivar not_found: how many had that answer.
    :ivar troubles: how the others failed, by the name of the exception's class.
    """

    def __init__(self, name: str, writes: bool) -> None:
        self.name = name
        self.started = 0
        self.not_found = 0
        self.latencies = Histogram()
        self.troubles: dict[str, Trouble] = {}
        self._writes = writes

    @property
    def answered(self) -> int:
        """How many were carried out."""
        return self.latencies.count

    @property
    def done(self) -> int:
        """How many were carried out and found their key."""
        return self.answered - self.not_found

    @property
    def not_done(self) -> int:
        """How many were definitely not carried out."""
        return sum(trouble.count for trouble in self.troubles.values() if not trouble.is_unknown)

    @property
    def unknown(self) -> int:
        """How many were sent, and may or may not have been carried out."""
        return sum(trouble.count for trouble in self.troubles.values() if trouble.is_unknown)

    def failed(self, error: KvtwistError) -> None:
        """Count one that ended in *error*. A read that fails is never unknown: it did nothing."""
        is_unknown = self._writes and not isinstance(error, NotDone)
        self._count(type(error).__name__, 1, is_unknown, str(error))

    def abandon(self) -> None:
        """Count those that are still in flight: nobody will wait for their answers."""
        left = self.started - self.answered - self.not_done - self.unknown
        if left:
            said = "there was no answer yet when it was interrupted"
            self._count("Interrupted", left, self._writes, said)

    def _count(self, name: str, count: int, is_unknown: bool, said: str) -> None:
        if name not in self.troubles:
            self.troubles[name] = Trouble(" ".join(said.split()), is_unknown)
        self.troubles[name].count += count
