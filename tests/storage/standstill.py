"""A process that waits for its disk on a thread, and how long its main thread stands still.

``python -m tests.storage.standstill commit|get DIRECTORY`` says two durations in seconds: of the
shortest commit (or look-up), and the longest that the main thread came to nothing while they were
under way. Run it under something that makes the disk slow.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kvtwist.storage.engine import Batch
from kvtwist.storage.rocks import RocksEngine

TIMES = 2
STEP_SECONDS = 0.001


def committing(engine: RocksEngine, number: int, size_bytes: int) -> None:
    """Commit so many bytes, synced."""
    batch = Batch()
    batch.put(b"%d" % number, os.urandom(size_bytes))
    engine.commit(batch, sync=True)


def getting(engine: RocksEngine, number: int) -> None:
    """Get what was committed under a number."""
    assert engine.get(b"%d" % number) is not None


def longest_gap(act: Callable[[int], None], times: int) -> tuple[list[float], float]:
    """How long each of *times* acts on a thread takes, and the longest that this thread comes to
    nothing meanwhile."""
    lasted: list[float] = []

    def work() -> None:
        for number in range(times):
            start = time.monotonic()
            act(number)
            lasted.append(time.monotonic() - start)

    thread = threading.Thread(target=work)
    longest, last = 0.0, time.monotonic()
    thread.start()
    while thread.is_alive():
        time.sleep(STEP_SECONDS)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert len(lasted) == times
    return lasted, longest


def main() -> None:
    """Not closed in the end, which would sync once more."""
    what, engine = sys.argv[1], RocksEngine(Path(sys.argv[2]))

    def act(number: int) -> None:
        if what == "get":
            getting(engine, number)
        else:
            committing(engine, number, 100)

    lasted, gap = longest_gap(act, TIMES)
    print(min(lasted), gap, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
