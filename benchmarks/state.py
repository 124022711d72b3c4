"""What a partition's state machine costs, alone: ``python benchmarks/state.py``.

No network, no disk, no Raft: how many committed entries one core applies in a second, and how fast
a partition is turned into a snapshot and back. Each figure is the median of the rounds, in CPU
time, so that other work on the same cores shows less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from statistics import median
from time import process_time

from _machine import facts
from kvtwist.core.state.commands import NO_SESSION, OpenSession, Write, encode
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Get, Increment, Operation, Put
from kvtwist.core.state.snapshot import restore

ROUNDS = 5
ENTRIES = 50_000
KEYS = 100_000
VALUE = bytes(100)
UNANSWERED = 64


def main() -> None:
    """Print the table."""
    random = Random(1)
    keys = [b"user:%011d" % random.randrange(10**11) for _ in range(KEYS)]
    puts = [(Put(key, VALUE),) for key in keys]
    expiring = [(Put(key, VALUE, 60_000),) for key in keys]
    print("entries of one operation on 16-byte keys, 100-byte values        entries/s   us each")
    show("put, all keys new", lambda: (StateMachine(Contents(1)), entries(puts)))
    show("put, all keys there", lambda: (filled(puts), entries(puts, KEYS)))
    show("put in a session, 64 unanswered", lambda: (filled(puts), entries(puts, KEYS, True)))
    show("put with a time to live", lambda: (filled(expiring), entries(expiring, KEYS)))
    counters = [(Increment(key),) for key in keys[:1000] * (ENTRIES // 1000)]
    show("increment", lambda: (StateMachine(Contents(1)), entries(counters)))
    batches = [
        (Get(key), Put(key, VALUE), Put(other, VALUE))
        for key, other in zip(keys, reversed(keys), strict=True)
    ]
    show("batch of one get and two puts", lambda: (filled(puts), entries(batches, KEYS)))
    show_snapshot(filled(puts), f"{KEYS:,} records of 100 bytes")
    large = [(Put(b"%d" % number, bytes(1 << 20)),) for number in range(64)]
    show_snapshot(filled(large), "64 records of 1 MiB")
    print(f"\nMedian of {ROUNDS} rounds, CPU time of one process.")
    for name in ("date", "kvtwist", "cpu", "cores", "load before", "python"):
        print(f"{name}: {facts()[name]}")


def entries(
    writes: Sequence[tuple[Operation, ...]], after: int = 0, is_in_session: bool = False
) -> list[bytes]:
    """The data of `ENTRIES` entries, which follow *after* others."""
    session = after + 1 if is_in_session else NO_SESSION
    data = [encode(OpenSession(after, 1, 1 << 40))] if is_in_session else []
    for number in range(ENTRIES):
        seq, lowest = (number, max(0, number - UNANSWERED)) if is_in_session else (0, 0)
        data.append(encode(Write(after + number, 1, session, seq, lowest, writes[number])))
    return data


def filled(writes: Sequence[tuple[Operation, ...]]) -> StateMachine:
    """A machine that has applied all of them."""
    machine = StateMachine(Contents(1))
    for index, operations in enumerate(writes, 1):
        machine.apply(index, encode(Write(index, 1, NO_SESSION, 0, 0, operations)))
    return machine


def show(title: str, prepare: Callable[[], tuple[StateMachine, list[bytes]]]) -> None:
    """A line on entries."""
    seconds = []
    for _ in range(ROUNDS):
        machine, data = prepare()
        seconds.append(taken(lambda m=machine, d=data: apply_all(m, d)))  # type: ignore[misc]
    each = median(seconds) / ENTRIES
    print(f"{title:<62}{1 / each:>12,.0f}{each * 1e6:>10.1f}")


def apply_all(machine: StateMachine, data: Iterable[bytes]) -> None:
    """One after the other, as a replica does."""
    for index, entry in enumerate(data, machine.applied_index + 1):
        machine.apply(index, entry)


def show_snapshot(machine: StateMachine, title: str) -> None:
    """Lines on one machine's snapshot."""
    chunks = list(machine.snapshot().chunks())
    megabytes = sum(map(len, chunks)) / 1e6
    freezing = median(taken(machine.snapshot) for _ in range(ROUNDS))
    encoding = median(taken(lambda: list(machine.snapshot().chunks())) for _ in range(ROUNDS))
    restoring = median(taken(lambda: restore(chunks)) for _ in range(ROUNDS))
    hashing = median(taken(machine.digest) for _ in range(ROUNDS))
    print(f"\nsnapshot of {title}, {megabytes:.0f} MB")
    print(f"  {'a consistent view':<20}{freezing * 1e6:>10,.0f} us")
    for name, seconds in (("encode", encoding), ("digest", hashing), ("restore", restoring)):
        print(f"  {name:<20}{megabytes / seconds:>10,.0f} MB/s{seconds * 1e3:>10,.0f} ms")


def taken(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    begun = process_time()
    work()
    return process_time() - begun


if __name__ == "__main__":
    main()
