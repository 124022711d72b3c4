"""What stopped nodes have left on their disks: each sound in itself, and all of one opinion.

Every replica's committed entries are laid side by side: at one index there is one entry. Then every
replica's state is brought, with these entries, to the last index that is known to be committed: it
must be the same everywhere, to the byte (R17).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kvtwist.core.raft import Entry, EntryKind
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.snapshot import restore
from kvtwist.storage import logs
from kvtwist.storage.check import check
from kvtwist.storage.engine import View
from kvtwist.storage.layout import BASE, group_of, groups_range
from kvtwist.storage.rocks import RocksEngine
from kvtwist.storage.snapshots import outgoing


@dataclass(slots=True)
class Remains:
    """What was found, and compared.

    ``states`` counts the replicas whose state was compared with another one's, ``behind`` those
    that could not be brought so far, since the entries they lack are in nobody's log any more.
    """

    replicas: int = 0
    entries: int = 0
    states: int = 0
    behind: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.replicas} replicas, {self.entries:,} committed entries; the states of "
            f"{self.states} were compared, {self.behind} were too far behind"
        )


@dataclass(slots=True)
class _Replica:
    node: str
    committed: int
    entries: tuple[Entry, ...]
    machine: StateMachine | None


def survey(directories: Sequence[Path]) -> Remains:
    """Look at the data directories of all nodes; none of them may run.

    :raises StorageError: when one cannot be opened.
    """
    unsound = [
        f"{path.name}: {problem}" for path in directories for problem in check(path).problems
    ]
    if unsound:
        return Remains(problems=unsound)
    with ExitStack() as stack:
        views: dict[str, View] = {}
        for path in directories:
            engine = RocksEngine(path, read_only=True)
            stack.callback(engine.close)
            views[path.name] = engine
        return compare(views)


def compare(views: Mapping[str, View]) -> Remains:
    """Lay what the nodes have side by side."""
    remains = Remains()
    groups = {group_of(key) for view in views.values() for key, _ in view.scan(*groups_range(BASE))}
    for group in sorted(groups):
        _compare(remains, group, views)
    return remains


def _compare(remains: Remains, group: int, views: Mapping[str, View]) -> None:
    found = (_replica(node, view, group) for node, view in views.items())
    replicas = [each for each in found if each is not None]
    remains.replicas += len(replicas)
    log: dict[int, tuple[Entry, str]] = {}
    for replica in replicas:
        for entry in replica.entries:
            if entry.index > replica.committed:
                break
            other, node = log.setdefault(entry.index, (entry, replica.node))
            if other != entry:
                remains.problems.append(
                    f"group {group}: {replica.node} and {node} have committed other entries at "
                    f"{entry.index}: {entry} and {other}"
                )
    remains.entries += len(log)
    end = max((replica.committed for replica in replicas), default=0)
    digests: dict[bytes, list[str]] = {}
    for replica in replicas:
        if replica.machine is None:
            continue
        if _catch_up(replica.machine, log, end):
            digests.setdefault(replica.machine.digest(), []).append(replica.node)
        else:
            remains.behind += 1
    if sum(map(len, digests.values())) > 1:
        remains.states += sum(map(len, digests.values()))
    if len(digests) > 1:
        remains.problems.append(
            f"group {group}: at {end} the states differ: "
            + ", ".join(f"{digest.hex()[:8]} {nodes}" for digest, nodes in digests.items())
        )


def _replica(node: str, view: View, group: int) -> _Replica | None:
    snapshot = outgoing(view, group)
    applied = snapshot.applied_index if snapshot is not None else 0
    restored = logs.load(view, group, applied)
    if restored is None:
        return None
    machine = StateMachine(restore(snapshot.chunks())) if snapshot is not None else None
    committed = max(applied, restored.hard_state.commit)
    return _Replica(node, committed, restored.entries, machine)


def _catch_up(machine: StateMachine, log: Mapping[int, tuple[Entry, str]], end: int) -> bool:
    """Whether *log* has all that *machine* lacks up to *end*; then it is applied."""
    missing = range(machine.applied_index + 1, end + 1)
    if any(index not in log for index in missing):
        return False
    for index in missing:
        entry = log[index][0]
        if entry.kind is EntryKind.DATA:
            machine.apply(index, entry.data)
        else:
            machine.skip(index)
    return True
