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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kvtwist.core.raft import EntryKind
from kvtwist.core.state.commands import Write, decode
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Put
from kvtwist.storage import logs
from kvtwist.storage.check import check
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.snapshots import outgoing
from kvtwist.storage.states import load_state
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

    def __init__(
        self, path: Path, first: int, *options: str, under: Sequence[str | Path] = ()
    ) -> None:
        program = (sys.executable, "-m", "tests.storage.writer", path, str(first), *options)
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
        directory.check_marks(restored)
    finally:
        directory.close()
    if lost := sorted(done - found):
        problems.append(f"{len(lost)} acknowledged batches are lost: {lost[:10]}")
    if extra := sorted(refused & found):
        problems.append(f"there are batches that were refused: {extra[:10]}")
    return found, problems


def _survey_group(directory: DataDirectory, group: int) -> tuple[set[int], list[str]]:
    """The batches in a group's log, and whether its state is what the log says, no more or less."""
    engine = directory.engine
    restored, state = logs.load(engine, group, 0), load_state(group, engine, engine.get_cached)
    snapshot = outgoing(engine, group)
    assert restored is not None and state is not None and snapshot is not None
    machine = StateMachine(Contents(1))
    digest = machine.digest()
    numbers: set[int] = set()
    problems = []
    for entry in restored.entries:
        if entry.kind is EntryKind.DATA:
            machine.apply(entry.index, entry.data)
            numbers.add(_number(entry.data))
        else:
            machine.skip(entry.index)
        if entry.index == state.machine.applied_index:
            digest = machine.digest()
    if snapshot.digest() != digest:
        problems.append(f"the state of group {group} is not what its log says")
    for number in numbers:
        for operation in (operations(number)[0], operations(number)[2]):
            assert isinstance(operation, Put)
            record = machine.get(operation.key)
            if record is None or record.value != operation.value:
                problems.append(f"half of batch {number} is missing")
    return numbers, problems


def _number(data: bytes) -> int:
    command = decode(data)
    assert isinstance(command, Write)
    return int(command.operations[0].key.partition(b"-")[2])


def kill_many(top: Path, kills: int, seed: int) -> tuple[int, int]:
    """Kill a writer again and again; how many batches were acknowledged, and lost in flight.

    :raises AssertionError: when anything is not as it has to be.
    """
    chance = random.Random(seed)
    acknowledged = in_flight = 0
    for number in range(kills):
        if number % KILLS_PER_STORE == 0:
            path, following = top / f"store-{number}", 1
            done: set[int] = set()
        child = Child(path, following)
        child.listen(chance.randrange(1, LINES_MAX))
        ended = child.kill()
        assert ended == -9, ended
        done |= set(child.said["done"])
        found, problems = survey(path, done, set()) if child.said["begun"] or done else (set(), [])
        assert not problems, (seed, number, problems)
        acknowledged += len(child.said["done"])
        in_flight += len(found) - len(done)
        following = max(found, default=0) + 100
    return acknowledged, in_flight


def main() -> None:
    """A campaign."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = random.randrange(1 << 32)
    with tempfile.TemporaryDirectory(prefix="kvtwist-crashes-") as top:
        acknowledged, in_flight = kill_many(Path(top), kills, seed)
    print(
        f"{kills} kills (seed {seed}): {acknowledged:,} batches were acknowledged, and all are "
        f"there; so are {in_flight:,} that were not yet acknowledged when the process was killed"
    )


if __name__ == "__main__":
    main()
