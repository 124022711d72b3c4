"""Processes that write to a store and are killed, and what they leave.

``python -m tests.storage.crashes [KILLS]`` is a campaign: it kills so many, 200 by default, and
says how many batches were acknowledged meanwhile.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from kvtwist.core.groups import META
from kvtwist.core.raft import Entry, EntryKind
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Put
from kvtwist.core.state.snapshot import restore
from kvtwist.storage import logs
from kvtwist.storage.check import check
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.snapshots import outgoing
from tests.storage.writer import IDENTITY, NAME, PARTITIONS, operations, place

CHECKOUT = Path(__file__).resolve().parents[2]
LINES_MAX = 600
SECONDS_MAX = 60.0
"""A writer that has not ended by then is killed: whatever waits for it fails, and does not hang."""

KILLS_PER_STORE = 10


class Child:
    """A writer.

    :ivar said: numbers by what was said of them.
    """

    def __init__(self, path: Path, first: int, *options: str, under: Sequence[str] = ()) -> None:
        program = (sys.executable, "-m", "tests.storage.writer", str(path), str(first), *options)
        self._process = subprocess.Popen(
            (*under, *program), cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.said: dict[str, list[int]] = {
            what: [] for what in ("done", "unknown", "refused", "read", "begun")
        }
        self.failure = ""
        self._watchdog = threading.Timer(SECONDS_MAX, self._kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def listen(self, lines: int | None = None, until: str = "") -> bool:
        """Take so many lines, or until one begins so; whether it came to that."""
        assert self._process.stdout is not None
        while lines is None or lines > 0:
            line = self._process.stdout.readline().decode()
            if not line.endswith("\n"):
                return False
            what, _, rest = line.strip().partition(" ")
            if what == "failed":
                self.failure = rest
            else:
                self.said[what].append(int(rest or 0))
            if until and what == until:
                return True
            lines = None if lines is None else lines - 1
        return True

    def kill(self) -> int:
        """Kill it, take what it has said before that, and see how it ended."""
        self._kill()
        return self.ended()

    def _kill(self) -> None:
        """Itself, and not what it runs under: that would let it go on."""
        for pid in self.said["begun"] or [self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ended(self) -> int:
        """It ends by itself: likewise."""
        self.listen()
        _, errors = self._process.communicate()
        self._watchdog.cancel()
        assert b"Traceback" not in errors and b"Unhandled" not in errors, errors.decode()
        return self._process.returncode


def survey(path: Path, done: set[int], refused: set[int]) -> tuple[set[int], list[str]]:
    """Which batches a store has, and what is wrong with it."""
    problems = [str(problem) for problem in check(path).problems]
    directory = DataDirectory(path, RocksEngine, NAME, IDENTITY)
    try:
        found: set[int] = set()
        restored = {}
        groups = [place(number) for number in range(PARTITIONS)]
        for group in groups:
            numbers, troubles = _survey_group(directory, group)
            found |= numbers
            problems += troubles
            state = logs.load(directory.engine, group, 0)
            assert state is not None
            restored[group] = state
        meta = logs.load(directory.engine, META, 0)
        assert meta is not None
        directory.check_marks(restored | {META: meta})
    finally:
        directory.close()
    if lost := sorted(done - found):
        problems.append(f"{len(lost)} acknowledged batches are lost: {lost[:10]}")
    if extra := sorted(refused & found):
        problems.append(f"there are batches that were refused: {extra[:10]}")
    return found, problems


def _survey_group(directory: DataDirectory, group: int) -> tuple[set[int], list[str]]:
    """The batches that a group has, and what is wrong with them."""
    engine = directory.engine
    restored, snapshot = logs.load(engine, group, 0), outgoing(engine, group)
    assert restored is not None and snapshot is not None
    problems = []
    if restored.compacted_index == 0:
        replayed = StateMachine(Contents(1))
        _apply(replayed, restored.entries, snapshot.applied_index)
        if snapshot.digest() != replayed.digest():
            problems.append(f"the state of group {group} is not what its log says")
    machine = StateMachine(restore(snapshot.chunks()))
    _apply(machine, restored.entries, restored.compacted_index + len(restored.entries))
    numbers: set[int] = set()
    for key, _ in machine.scan(limit=1 << 30).records:
        what, _, digits = key.partition(b"-")
        if what != b"shared":
            numbers.add(int(digits))
    for number in numbers:
        first, _, second = operations(number)
        for half in (first, second):
            record = machine.get(half.key)
            if not isinstance(half, Put) or record is None or record.value != half.value:
                problems.append(f"half of batch {number} is missing")
    return numbers, problems


def _apply(machine: StateMachine, entries: Iterable[Entry], until: int) -> None:
    """Apply what the machine does not have yet of them, up to an index."""
    for entry in entries:
        if not machine.applied_index < entry.index <= until:
            continue
        if entry.kind is EntryKind.DATA:
            machine.apply(entry.index, entry.data)
        else:
            machine.skip(entry.index)


def kill_many(top: Path, kills: int, seed: int) -> tuple[int, int, int]:
    """Kill a writer again and again, with a new store now and then.

    Returns how many batches were acknowledged, how many more are there, and how many groups have
    compacted their logs.

    :raises AssertionError: when anything is not as it has to be.
    """
    chance = random.Random(seed)
    acknowledged = more = compacted = 0
    for begin in range(0, kills, KILLS_PER_STORE):
        path = top / f"store-{begin}"
        options = ("compact",) if begin // KILLS_PER_STORE % 2 else ()
        done: set[int] = set()
        found: set[int] = set()
        for _ in range(min(KILLS_PER_STORE, kills - begin)):
            child = Child(path, max(found, default=0) + 100, *options)
            child.listen(chance.randrange(1, LINES_MAX))
            ended = child.kill()
            assert ended == -9, ended
            done |= set(child.said["done"])
            found, problems = survey(path, done, set())
            assert not problems, (seed, path.name, problems)
        compacted += _compacted(path)
        acknowledged += len(done)
        more += len(found) - len(done)
    return acknowledged, more, compacted


def _compacted(path: Path) -> int:
    groups = check(path).groups.values()
    return sum(group.base is not None and group.base[0] > 0 for group in groups)


def main() -> None:
    """A campaign."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = random.randrange(1 << 32)
    with tempfile.TemporaryDirectory(prefix="kvtwist-crashes-") as top:
        acknowledged, more, compacted = kill_many(Path(top), kills, seed)
    print(
        f"{kills} kills (seed {seed}): {acknowledged:,} batches were acknowledged, and all are "
        f"there; so are {more:,} that were not yet acknowledged when the process was killed; "
        f"{compacted} logs were compacted"
    )


if __name__ == "__main__":
    main()
