"""What is measured: the same keys, values and requests in flight for everybody."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

KEYS = 10_000
KEYS_PER_BATCH = 100
OPERATIONS = ("put", "get")
_SEED = 20240229


def keys() -> list[bytes]:
    """The keys in the order in which they are used: random, and in every run the same.

    They are the keys that ``redis-benchmark -r 10000`` makes up.
    """
    names = [b"key:%012d" % number for number in range(KEYS)]
    random.Random(_SEED).shuffle(names)
    return names


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table: an operation under one load.

    :ivar operation: ``put`` or ``get``.
    :ivar in_flight: requests that are under way at any time.
    """

    value_bytes: int
    in_flight: int
    operation: str

    @property
    def batches_in_flight(self) -> int:
        """How many calls of `KEYS_PER_BATCH` keys are under way instead: 1, 4 and 16.

        One alone still waits for the slowest node; very many would measure a queue.
        """
        return max(1, self.in_flight // 16)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything is measured.

    :ivar rounds: how often each cell is measured for everybody; the median counts.
    :ivar seconds: the length of each of these measurements.
    :ivar warm_up_rounds: how many rounds more there are, before them, that do not count.
    """

    rounds: int
    seconds: float
    warm_up_rounds: int = 0
    value_bytes: tuple[int, ...] = (16, 100, 10_000)
    in_flight: tuple[int, ...] = (1, 64, 256)

    def cells(self, value_bytes: int) -> list[Cell]:
        """The cells with values of this size, in order."""
        return [Cell(value_bytes, *rest) for rest in product(self.in_flight, OPERATIONS)]


FULL = Plan(rounds=5, seconds=0.7)
QUICK = Plan(rounds=3, seconds=0.25, value_bytes=(100,))


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement saw.

    :ivar operations: keys that were put or got, and answered.
    :ivar seconds: from the first request to the last answer.
    :ivar failed: operations that ended with an error; they are not counted above.
    :ivar error: the last of these errors.
    :ivar p50_ms: how long half of the operations took at most; 0 where nobody looked.
    :ivar p99_ms: how long 99 of 100 took at most.
    :ivar servers_cpu_us: processor time of all servers, for each operation.
    :ivar client_cpu_us: that of the load generator.
    """

    operations: int
    seconds: float
    failed: int = 0
    error: str = ""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    servers_cpu_us: float = 0.0
    client_cpu_us: float = 0.0

    @property
    def per_second(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


def quantile_ms(latencies: list[float], share: float) -> float:
    """How long that *share* of them took at most, in ms; 0 if there are none.

    :param latencies: in seconds, sorted.
    """
    at = min(int(len(latencies) * share), len(latencies) - 1)
    return latencies[at] * 1000 if latencies else 0.0
