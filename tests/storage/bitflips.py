"""Random bits of a store's files fall over: ``python -m tests.storage.bitflips [COUNT [SEED]]``.

For each: copy a store, flip one bit of one of its files, open it as a node does, load all groups,
read all that there is. Every answer has to be right, or a definite error. That is done in other
processes, as a store that is damaged enough might take its process with it.

A file is drawn, whatever its size, then a bit of it: the small ones say how the large ones are to
be read. Those that hold data are drawn more often than those that only people read. Two stores take
turns: one that was closed, whose data is in tables, and one as a crash leaves it, whose data is in
the write-ahead log.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, rmtree

from kvtwist.core.raft import Configuration, Entry, EntryKind, HardState, Ready, Snapshot
from kvtwist.core.state.commands import Command, OpenSession, Write, encode
from kvtwist.core.state.operations import Put
from kvtwist.errors import KvtwistError
from kvtwist.storage import logs
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import Batch, Engine
from kvtwist.storage.marks import Mark
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.snapshots import outgoing
from kvtwist.storage.states import load_state, new_state

GROUPS = (1, 2, 3)
KEYS = 80
NAME, IDENTITY = "a", "1" * 32
CHECKOUT = Path(__file__).resolve().parents[2]
PER_PROCESS = 50
DATA_WEIGHT = 8
SECONDS_MAX = 20

AT_OPEN, AT_READ, NO_EFFECT = "refused at open", "refused at a read", "without effect"
EARLY = "no end of opening"
"""The process died, or had to be killed, before anything was served: no error that could be told,
and no wrong answer either."""

WRONG, ODD, DIED = "WRONG ANSWER", "ANOTHER EXCEPTION", "THE PROCESS DIED"
BAD = (WRONG, ODD, DIED)


# -- the stores -----------------------------------------------------------------------------------


def make_stores(top: Path) -> None:
    """``closed`` and ``crashed``, the same in other files."""
    directory = DataDirectory(top / "closed", RocksEngine, NAME, IDENTITY)
    for group in GROUPS:
        _fill(directory.engine, group)
        directory.marks.raise_to({group: Mark(2, 1, KEYS + 1)})
    copytree(top / "closed", top / "crashed")
    directory.close()


def commands(group: int) -> list[Command]:
    """What was written to a group."""
    chance = random.Random(group)
    return [
        OpenSession(0, 1, 1000),
        *(
            Write(0, 1, 1, seq, 1, (Put(b"key-%d" % seq, chance.randbytes(seq * 10), seq % 3),))
            for seq in range(1, KEYS + 1)
        ),
    ]


def _fill(engine: Engine, group: int) -> None:
    state = new_state(group, engine, engine.get_cached, 1, 0)
    batch, written = Batch(), 0
    logs.save_base(batch, group, Snapshot(0, 0, Configuration((1,))))
    for index, command in enumerate(commands(group), start=1):
        entry = Entry(index, 2, EntryKind.DATA, encode(command))
        written = logs.save(batch, group, Ready(1, HardState(2, 1, index), None, (entry,)), written)
        state.records.missing(state.machine.needs(command))
        state.machine.carry_out(index, command)
        state.note(index, command)
        changes, number = state.take_batch()
        batch.extend(changes)
        engine.commit(batch, sync=False)
        state.committed(number)
        batch = Batch()
    engine.commit(batch, sync=True)


# -- one flip -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of one file."""

    seed: int
    store: str
    file: str
    bit: int


def draw(top: Path, seed: int) -> Flip:
    """The flip that *seed* stands for."""
    chance = random.Random(seed)
    store = ("closed", "crashed")[seed % 2]
    files = sorted(path for path in (top / store).iterdir() if path.stat().st_size)
    weights = [DATA_WEIGHT if path.suffix in (".sst", ".log") else 1 for path in files]
    (path,) = chance.choices(files, weights)
    return Flip(seed, store, path.name, chance.randrange(path.stat().st_size * 8))


def outcome(top: Path, flip: Flip, expected: dict[int, tuple[object, ...]]) -> Iterator[str]:
    """What comes of it; before that, that the store has been opened, if it has."""
    copy = top / f"copy-{flip.seed}"
    copytree(top / flip.store, copy)
    try:
        path = copy / flip.file
        data = bytearray(path.read_bytes())
        data[flip.bit // 8] ^= 1 << flip.bit % 8
        path.write_bytes(data)
        yield from _opened(copy, expected)
    finally:
        rmtree(copy)


def _opened(path: Path, expected: dict[int, tuple[object, ...]]) -> Iterator[str]:
    try:
        directory = DataDirectory(path, RocksEngine, NAME, IDENTITY)
    except KvtwistError:
        yield AT_OPEN
        return
    try:
        try:
            restored = {}
            for group in GROUPS:
                found = logs.load(directory.engine, group, 0)
                if found is not None:
                    restored[group] = found
            directory.check_marks(restored)
            states = {group: load_state(group, directory.engine, never) for group in GROUPS}
        except KvtwistError:
            yield AT_OPEN
            return
        yield "opened"
        right = all(restored.get(group) == expected[group][0] for group in GROUPS)
        for group, state in states.items():
            right = right and state is not None and state.generation == 1
            try:
                right = right and facts(directory.engine, group)[1:] == expected[group][1:]
            except KvtwistError:
                yield AT_READ
                return
        yield NO_EFFECT if right else WRONG
    finally:
        directory.close()


def never(key: bytes) -> None:
    """Nothing is looked up here."""


def facts(engine: Engine, group: int) -> tuple[object, ...]:
    """All that can be read of a group: log, stream, and each record by itself."""
    snapshot = outgoing(engine, group)
    assert snapshot is not None
    state = load_state(group, engine, engine.get_cached)
    assert state is not None
    keys = [bytes(4) + b"key-%d" % seq for seq in range(1, KEYS + 2)]
    found = state.records.fetch(engine, keys)
    return logs.load(engine, group, 0), snapshot.digest(), tuple(found.items())


# -- many -----------------------------------------------------------------------------------------


def work(top: Path, seeds: range) -> None:
    """In a process of its own: a line before each flip, and one for all that is known of it."""
    engine = RocksEngine(top / "expected")
    expected = {group: facts(engine, group) for group in GROUPS}
    engine.close()
    for seed in seeds:
        flip = draw(top, seed)
        signal.alarm(SECONDS_MAX)  # ends the process, whatever it is in
        print(f"{seed}\tbegun", flush=True)
        try:
            for said in outcome(top, flip, expected):
                print(f"{seed}\t{said}", flush=True)
        except Exception as error:
            print(f"{seed}\t{ODD}: {error!r}", flush=True)


def run(top: Path, count: int, first: int = 0) -> dict[Flip, str]:
    """The outcome of each."""
    make_stores(top)
    copytree(top / "closed", top / "expected")
    results: dict[Flip, str] = {}
    following = first
    while following < first + count:
        until = min(following + PER_PROCESS, first + count)
        program = (sys.executable, "-m", "tests.storage.bitflips", str(top))
        done = subprocess.run(
            (*program, str(following), str(until)), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
        )
        said: dict[int, list[str]] = {}
        for line in done.stdout.splitlines():
            number, _, what = line.partition("\t")
            said.setdefault(int(number), []).append(what)
        for seed, whats in said.items():
            last = whats[-1]
            if last in ("begun", "opened"):
                last = f"{EARLY if last == 'begun' else DIED}: {done.returncode}"
            results[draw(top, seed)] = last
        assert said, f"nothing was done: {done.returncode}"
        following = max(said) + 1
    return results


def table(results: dict[Flip, str]) -> str:
    """Files by outcome."""
    kinds = (AT_OPEN, AT_READ, NO_EFFECT, EARLY, *BAD)
    counts: dict[str, Counter[str]] = {}
    for flip, what in results.items():
        name = f"{flip.store}: {_family(flip.file)}"
        counts.setdefault(name, Counter())[
            next(kind for kind in kinds if what.startswith(kind))
        ] += 1
    counts = dict(sorted(counts.items()))
    counts["all"] = sum(counts.values(), Counter())
    lines = [" " * 32 + "".join(f"{kind:>19}" for kind in kinds)]
    for name, each in counts.items():
        lines.append(f"{name:<32}" + "".join(f"{each[kind]:>19}" for kind in kinds))
    return "\n".join(lines)


def _family(name: str) -> str:
    path = Path(name)
    return f"*{path.suffix}" if path.suffix in (".sst", ".log") else name.partition("-")[0]


def bad(results: dict[Flip, str]) -> list[tuple[Flip, str]]:
    """What must not be."""
    return [each for each in results.items() if each[1].startswith(BAD)]


def main() -> None:
    """Do so many, and say what came of them."""
    if len(sys.argv) == 4:
        work(Path(sys.argv[1]), range(int(sys.argv[2]), int(sys.argv[3])))
        return
    count, first = (*map(int, sys.argv[1:]), *(1000, 0)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory(prefix="kvtwist-flips-") as top:
        results = run(Path(top), count, first)
    print(table(results))
    for flip, what in results.items():
        if what.startswith((EARLY, *BAD)):
            print(flip, what)
    sys.exit(1 if bad(results) else 0)


if __name__ == "__main__":
    main()
