"""What durable writes cost, beside others that make the same bytes durable:
``python benchmarks/storage.py``.

Then what a million keys take: to open, of memory, of the disk.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from statistics import median
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from _engines import ENGINES, absent
from _machine import facts
from kvtwist.core.state.contents import stored_key
from kvtwist.core.state.records import Record, encode_record
from kvtwist.storage.engine import Batch
from kvtwist.storage.frames import sealed
from kvtwist.storage.layout import RECORD, generation_prefix
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.states import Header, load_state, save_header
from kvtwist.storage.store import Store
from kvtwist.storage.worker import Thread

IN_FLIGHT = (1, 64, 256)
ROUNDS = 5
KEYS = 1_000_000
VALUE_BYTES = 100
KEY_BYTES = 16
GROUP = 1
TITLES = {
    "kvtwist": "kvtwist",
    "fdatasync": "bare fdatasync",
    "sqlite": "SQLite",
    "lmdb": "LMDB",
}
PEERS = ("fdatasync", "sqlite", "lmdb")
_RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    :ivar p99_ms: how long 99 of 100 writes took at most.
    """

    per_second: float
    batches_per_second: float
    p99_ms: float


Samples = dict[tuple[str, int], list[Sample]]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="The store: durable writes, and a million keys.")
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement (0.7)")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"to open the store with ({KEYS:,})")
    parser.add_argument("--directory", type=Path, help="where to write; its disk is measured")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="where the results go")
    parser.add_argument("--reopen", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reopen:
        print(json.dumps(reopened(arguments.reopen)))
        return
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, arguments)))


async def run(reactor: Any, arguments: argparse.Namespace) -> None:
    """All of it."""
    about = facts()
    missing = absent()
    names = [name for name in ENGINES if name not in missing]
    samples: Samples = {}
    with tempfile.TemporaryDirectory(prefix="kvtwist-", dir=arguments.directory) as top:
        for round in range(ROUNDS):
            for in_flight in IN_FLIGHT:
                for turn in range(len(names)):
                    name = names[(turn + round) % len(names)]  # another one begins in each round
                    directory = Path(top) / f"{name}-{in_flight}-{round}"
                    sample = await measured(reactor, name, directory, in_flight, arguments.seconds)
                    samples.setdefault((name, in_flight), []).append(sample)
        keys = million(Path(top) / "million", arguments.keys)
    text = "\n".join(lines(samples, names, missing, keys, about, arguments))
    print(text)
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "storage.txt").write_text(text + "\n")
    found = data(samples, names, missing, keys, about, arguments)
    (arguments.out / "storage.json").write_text(json.dumps(found, indent=1) + "\n")


# -- durable writes -------------------------------------------------------------------------------


async def measured(
    reactor: Any, name: str, directory: Path, in_flight: int, seconds: float
) -> Sample:
    """So many callers, each of which writes its next record when its last one is durable."""
    engine = ENGINES[name](directory)
    gc.collect()
    if name == "fdatasync":
        sample = bare(engine, in_flight, seconds)
        engine.close()
        return sample
    store = Store(reactor, engine, Thread(reactor, "writer"), Thread(reactor, "reader"))
    latencies: list[float] = []
    records = _records()
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < end:
            batch = Batch()
            batch.put(*next(records))
            await store.write(batch)
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    callers = [Deferred.fromCoroutine(caller()) for _ in range(in_flight)]
    for each in callers:
        await each
    taken = time.perf_counter() - begun
    commits = store.commits
    await store.close()
    return _sample(latencies, commits, taken)


def bare(engine: Any, in_flight: int, seconds: float) -> Sample:
    """The disk alone: no threads, nobody who waits, as many records in each write as could be."""
    latencies: list[float] = []
    records = _records()
    commits = 0
    begun = time.perf_counter()
    while (before := time.perf_counter()) < begun + seconds:
        batch = Batch()
        for _ in range(in_flight):
            batch.put(*next(records))
        engine.commit(batch, sync=True)
        commits += 1
        latencies += [time.perf_counter() - before] * in_flight
    return _sample(latencies, commits, time.perf_counter() - begun)


def _sample(latencies: list[float], commits: int, seconds: float) -> Sample:
    p99 = sorted(latencies)[len(latencies) * 99 // 100]
    return Sample(len(latencies) / seconds, commits / seconds, p99 * 1000)


def _records() -> Iterator[tuple[bytes, bytes]]:
    """Key and frame of records under random keys, as a replica writes them."""
    chance = random.Random(1)
    prefix = generation_prefix(RECORD, GROUP, 1)
    version = 0
    while True:
        version += 1
        key = prefix + stored_key(0, chance.randbytes(KEY_BYTES))
        yield (
            key,
            sealed(key, encode_record(Record(chance.randbytes(VALUE_BYTES), version, version))),
        )


# -- a million keys -------------------------------------------------------------------------------


def million(directory: Path, count: int) -> dict[str, float]:
    """What so many keys take."""
    engine = RocksEngine(directory)
    begun = time.perf_counter()
    batch = Batch()
    for number, record in zip(range(count), _records(), strict=False):
        batch.put(*record)
        if number % 1000 == 999:
            engine.commit(batch, sync=False)
            batch = Batch()
    save_header(
        batch, GROUP, Header(1, 1, count, 1, 0, count * (4 + KEY_BYTES + VALUE_BYTES), count)
    )
    engine.commit(batch, sync=True)
    filling = time.perf_counter() - begun
    crashed = copytree(directory, directory.with_suffix(".crashed"))
    engine.compact(b"", b"\xff")
    engine.close()
    engine = RocksEngine(directory)
    size = engine.size_bytes()
    engine.close()
    found = _reopened_elsewhere(directory)
    return {
        "keys": count,
        "filled_seconds": filling,
        "disk_bytes_per_byte": size / (count * (KEY_BYTES + VALUE_BYTES)),
        "crashed_reopen_seconds": _reopened_elsewhere(crashed)["reopen_seconds"],
        **found,
    }


def _reopened_elsewhere(directory: Path) -> dict[str, float]:
    program = (sys.executable, __file__, "--reopen", str(directory))
    done = subprocess.run(program, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def reopened(directory: Path) -> dict[str, float]:
    """In a process of its own: how long it takes, and what it takes of memory."""
    before = _resident_bytes()
    begun = time.perf_counter()
    engine = RocksEngine(directory)
    state = load_state(GROUP, engine, engine.get_cached)
    assert state is not None
    seconds = time.perf_counter() - begun
    opened_bytes = _resident_bytes() - before
    begun = time.perf_counter()
    count = sum(1 for _ in engine.scan(b"", b"\xff"))
    scanning = time.perf_counter() - begun
    assert count == state.machine.key_count + 1, count
    read_bytes = _resident_bytes() - before
    engine.close()
    return {
        "reopen_seconds": seconds,
        "opened_bytes": opened_bytes,
        "scan_seconds": scanning,
        "scanned_bytes": read_bytes,
    }


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


# -- what comes of it -----------------------------------------------------------------------------


def per_second(samples: Samples, name: str, in_flight: int) -> float:
    """The median of the rounds."""
    return median(sample.per_second for sample in samples[name, in_flight])


def lines(
    samples: Samples,
    names: list[str],
    missing: dict[str, str],
    keys: dict[str, float],
    about: dict[str, str],
    arguments: argparse.Namespace,
) -> Iterator[str]:
    """For people."""
    yield f"durable writes of {VALUE_BYTES}-byte values, a second"
    yield "in flight".ljust(12) + "".join(TITLES[name].rjust(16) for name in names)
    for in_flight in IN_FLIGHT:
        figures = (f"{per_second(samples, name, in_flight):16,.0f}" for name in names)
        yield f"{in_flight:<12}" + "".join(figures)
    for title, form, of in (
        ("commits a second", "16,.0f", lambda sample: sample.batches_per_second),
        ("99 of 100 are durable within, ms", "16.2f", lambda sample: sample.p99_ms),
    ):
        yield f"\n{title}"
        for in_flight in IN_FLIGHT:
            medians = (median(map(of, samples[name, in_flight])) for name in names)
            yield f"{in_flight:<12}" + "".join(format(each, form) for each in medians)
    yield "\nkvtwist's writes a second over the peer's"
    for in_flight in IN_FLIGHT:
        ours = per_second(samples, "kvtwist", in_flight)
        ratios = (ours / per_second(samples, name, in_flight) for name in names[1:])
        yield f"{in_flight:<12}" + " " * 16 + "".join(f"{each:16.2f}" for each in ratios)
    yield f"\n{keys['keys']:,} keys of {KEY_BYTES} bytes with values of {VALUE_BYTES}"
    yield (
        f"  opened in {keys['reopen_seconds'] * 1000:.0f} ms, "
        f"after a crash in {keys['crashed_reopen_seconds'] * 1000:.0f} ms; "
        f"read in {keys['scan_seconds']:.1f} s"
    )
    yield (
        f"  memory: {keys['opened_bytes'] / 1e6:.0f} MB when open, "
        f"{keys['scanned_bytes'] / 1e6:.0f} MB when all were read"
    )
    yield f"  disk, compacted: {keys['disk_bytes_per_byte']:.2f} bytes for each of key and value"
    yield f"\nMedian of {ROUNDS} rounds of {arguments.seconds:g} s each, in turns."
    yield from (f"without {TITLES[name]}: {install}" for name, install in missing.items())
    yield f"Spread between rounds, (max - min) / median: {_spread(samples):.0%} at the median."
    yield from (f"{fact}: {value}" for fact, value in about.items())


def _spread(samples: Samples) -> float:
    speeds = [[sample.per_second for sample in each] for each in samples.values()]
    return median((max(each) - min(each)) / median(each) for each in speeds)


def data(
    samples: Samples,
    names: list[str],
    missing: dict[str, str],
    keys: dict[str, float],
    about: dict[str, str],
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """For programs: single rounds included."""
    return {
        "unit": "durable writes per second; a write is one record",
        "machine": about,
        "seconds_per_measurement": arguments.seconds,
        "value_bytes": VALUE_BYTES,
        "absent": missing,
        "results": [
            {
                "in_flight": in_flight,
                "per_second": {name: round(per_second(samples, name, in_flight)) for name in names},
                "ratios": {
                    name: round(
                        per_second(samples, "kvtwist", in_flight)
                        / per_second(samples, name, in_flight),
                        3,
                    )
                    for name in PEERS
                    if name in names
                },
                "rounds": {
                    name: [
                        {
                            "per_second": round(sample.per_second),
                            "commits_per_second": round(sample.batches_per_second),
                            "p99_ms": round(sample.p99_ms, 3),
                        }
                        for sample in samples[name, in_flight]
                    ]
                    for name in names
                },
            }
            for in_flight in IN_FLIGHT
        ],
        "keys": keys,
    }


if __name__ == "__main__":
    main()
