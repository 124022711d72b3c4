"""Whether all that a node keeps is what was written, and fits together.

For a node that does not run: `check` opens its data directory as it is, and changes nothing in it
but RocksDB's own notes. Every key is read; its checksum is verified, and that it can be decoded as
what its kind says; then that the parts fit: the log has no gaps, the state has as much as it says,
both begin and end where the other does, and no mark is ahead of them.

A store that is damaged is read as far as it can be: where RocksDB finds no way on, the rest of that
group's keys of that kind is passed over, and said to be.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

from kvtwist.core.raft import Configuration, EntryKind, HardState
from kvtwist.core.state.commands import decode
from kvtwist.core.state.contents import KEYSPACE_BYTES
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.records import NEVER
from kvtwist.errors import StorageError, StoreDamaged
from kvtwist.storage import layout, logs, states
from kvtwist.storage.directory import NODE_MARK, check_format, read_node
from kvtwist.storage.engine import View
from kvtwist.storage.frames import opened
from kvtwist.storage.layout import GENERATION_BYTES, generation_of, group_of
from kvtwist.storage.marks import Mark, behind, read_marks
from kvtwist.storage.records import read_record
from kvtwist.storage.rocks import RocksEngine

PROBLEMS_MAX = 20
"""So many are told; all are counted."""
WATCH_KEYS = 4096
"""Whoever watches is told each time that so many keys have been read."""

_TIME_BYTES = 9
_LAST = b"\xff"
_NAMES = {
    layout.STORE: "format",
    layout.NODE: "node",
    layout.HARD: "hard state",
    layout.BASE: "base of the log",
    layout.ENTRY: "entry",
    layout.STATE: "state",
    layout.SESSION: "session",
    layout.ANSWER: "answer",
    layout.RECORD: "record",
    layout.DUE: "expiry",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written, or does not fit.

    :ivar kind: of the key, in words; or what the problem is with.
    :ivar group: whose it is; ``None``: nobody's in particular.
    """

    kind: str
    group: int | None
    what: str


@dataclass(slots=True)
class Data:
    """What was found of one generation of a group's data.

    :ivar expiring: a sum over the records that expire, and over their places in order of time:
        equal if they are the same, so that neither has to be kept in memory.
    """

    records: int = 0
    data_bytes: int = 0
    version_max: int = 0
    sessions: set[int] = field(default_factory=set)
    answers: int = 0
    answered: set[int] = field(default_factory=set)
    expiring: int = 0
    due: int = 0


@dataclass(slots=True)
class Group:
    """What was found of a group.

    :ivar base: index and term of the last entry that is not there any more.
    :ivar entries: how many there are after it.
    :ivar data: by generation; more than one: a snapshot broke off, and the next start removes it.
    """

    base: tuple[int, int] | None = None
    hard_state: HardState = field(default_factory=HardState)
    entries: int = 0
    last: tuple[int, int] | None = None
    header: states.Header | None = None
    data: dict[int, Data] = field(default_factory=dict)

    @property
    def current(self) -> Data:
        """The data that counts."""
        return self.data.get(self.header.generation, Data()) if self.header else Data()

    @property
    def last_index(self) -> int:
        """Of the log."""
        return (self.last or self.base or (0, 0))[0]


@dataclass(slots=True)
class Report:
    """What a check has found.

    :ivar read_bytes: keys, and what stands under them, checksums included.
    :ivar problems: the first of them.
    :ivar problem_count: all of them.
    :ivar is_whole: whether everything could be read. Else what fits what was not looked into.
    """

    keys: int = 0
    read_bytes: int = 0
    groups: dict[int, Group] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    is_whole: bool = True

    def add(self, kind: str, group: int | None, what: object) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(kind, group, str(what)))


Watch: TypeAlias = Callable[[Report], None]
"""Is shown how far a check is."""


def check(directory: Path, watch: Watch = lambda _: None) -> Report:
    """Check a node's data directory.

    :raises StoreLocked: when a node runs on it.
    :raises ConfigurationError: when it is of a later release.
    :raises StoreFailed: when there is none, or it cannot be opened for want of rights.
    """
    try:
        engine = RocksEngine(directory, read_only=True)
    except StoreDamaged as error:
        report = Report(is_whole=False)
        report.add("store", None, error)
        return report
    try:
        format_problem = _format_problem(engine, directory)
        with engine.view() as view:
            report = check_view(view, watch)
        if format_problem is not None:
            report.add("format", None, format_problem)
        _check_directory(report, engine, directory)
        return report
    finally:
        engine.close()


def check_view(view: View, watch: Watch = lambda _: None) -> Report:
    """Check all but what stands beside the store."""
    report = Report()
    walk = _Walk(report)
    for key, frame in _pairs(view, report):
        report.keys += 1
        report.read_bytes += len(key) + len(frame)
        walk.visit(key, frame)
        if report.keys % WATCH_KEYS == 0:
            watch(report)
    if report.is_whole:
        for number, group in sorted(report.groups.items()):
            if number not in walk.broken:
                for what in (*_misfits_of_log(group), *_misfits_of_data(group)):
                    report.add("group", number, what)
    return report


def _format_problem(view: View, directory: Path) -> StorageError | None:
    try:
        check_format(view, directory)
    except StorageError as error:
        return error
    return None


def _check_directory(report: Report, view: View, directory: Path) -> None:
    try:
        marks = read_marks(directory / "marks")
    except FileNotFoundError:
        report.add("marks", None, "the file is missing")
        return
    except (OSError, StorageError) as error:
        report.add("marks", None, error)
        return
    try:
        node = read_node(view, directory)
    except StorageError as error:
        report.add("node", None, error)
        return
    if (0 if node is None else node.life) < marks.get(NODE_MARK, Mark()).term:
        report.add("marks", None, "the node was started more often than its record says")
    for number in behind(marks, _stored_marks(report.groups)):
        if number != NODE_MARK and report.is_whole:
            report.add("marks", number, f"the store is behind {marks[number]}")


def _stored_marks(groups: Mapping[int, Group]) -> dict[int, Mark]:
    return {
        number: Mark(group.hard_state.term, group.hard_state.vote, group.last_index)
        for number, group in groups.items()
    }


def _pairs(view: View, report: Report) -> Iterator[tuple[bytes, bytes]]:
    """All that can be read, in order."""
    boundaries = _boundaries(view)
    start, latest = b"", b""
    while True:
        try:
            for key, frame in view.scan(start, _LAST):
                latest = key
                yield key, frame
            return
        except StorageError as error:
            report.is_whole = False
            at = max(start, latest)
            group = group_of(at) if len(at) > 8 else None
            report.add(_NAMES.get(at[:1], "key"), group, f"from {at[:40].hex()} on: {error}")
            following = bisect_right(boundaries, at)
            if following == len(boundaries):
                return
            start = boundaries[following]


def _boundaries(view: View) -> list[bytes]:
    """Where to try again: at the next group's keys of a kind, or at the next kind's."""
    groups: set[int] = set()
    for kind in (layout.HARD, layout.BASE, layout.STATE):
        with suppress(StorageError):
            groups.update(group_of(key) for key, _ in view.scan(*layout.groups_range(kind)))
    keys = [layout.group_key(kind, group) for kind in _NAMES for group in groups]
    return sorted([*_NAMES, *keys])


class _Walk:
    """Looks at each key.

    :ivar broken: groups of which something cannot be read, so that the rest will not fit.
    """

    def __init__(self, report: Report) -> None:
        self.broken: set[int] = set()
        self._report = report
        self._visit: dict[bytes, tuple[Callable[[int, bytes, bytes], None], range]] = {
            layout.HARD: (self._hard_state, range(9, 10)),
            layout.BASE: (self._base, range(9, 10)),
            layout.ENTRY: (self._entry, range(17, 18)),
            layout.STATE: (self._header, range(9, 10)),
            layout.SESSION: (self._session, range(25, 26)),
            layout.ANSWER: (self._answer, range(33, 34)),
            layout.RECORD: (self._record, range(GENERATION_BYTES + KEYSPACE_BYTES, 1 << 20)),
            layout.DUE: (self._due, range(GENERATION_BYTES + _TIME_BYTES, 1 << 20)),
        }

    def visit(self, key: bytes, frame: bytes) -> None:
        """Look at one key."""
        kind, group = key[:1], group_of(key) if len(key) > 8 else None
        try:
            if key in (layout.STORE, layout.NODE):
                return  # `_check_directory` reads them
            visit, lengths = self._visit.get(kind, (None, range(0)))
            if visit is None or group is None or len(key) not in lengths:
                raise StoreDamaged(f"no key of this store looks like {key[:40].hex()}")
            visit(group, key, frame)
        except (StorageError, MalformedBytes, UnknownKind, ValueError) as error:
            self._report.add(_NAMES.get(kind, "key"), group, error)
            if group is not None:
                self.broken.add(group)

    def _group(self, number: int) -> Group:
        return self._report.groups.setdefault(number, Group())

    def _data(self, number: int, key: bytes) -> Data:
        return self._group(number).data.setdefault(generation_of(key), Data())

    def _hard_state(self, number: int, key: bytes, frame: bytes) -> None:
        self._group(number).hard_state = logs.read_hard_state(key, frame)

    def _base(self, number: int, key: bytes, frame: bytes) -> None:
        base = logs.read_base(key, frame)
        self._group(number).base = base.index, base.term

    def _entry(self, number: int, key: bytes, frame: bytes) -> None:
        group, entry = self._group(number), logs.read_entry(key, frame)
        before, group.last = group.last or group.base, (entry.index, entry.term)
        group.entries += 1
        if entry.kind is EntryKind.DATA:
            decode(entry.data)
        elif entry.kind is EntryKind.CONFIGURATION:
            Configuration.decode(entry.data)
        if before is None or number in self.broken:
            return  # something that goes before it is missing, and is told of
        if entry.index != before[0] + 1:
            raise StoreDamaged(f"entry {entry.index} follows {before[0]}")
        if entry.term < before[1]:
            raise StoreDamaged(f"entry {entry.index} of term {entry.term} follows term {before[1]}")

    def _header(self, number: int, key: bytes, frame: bytes) -> None:
        self._group(number).header = states.read_header(key, frame)

    def _session(self, number: int, key: bytes, frame: bytes) -> None:
        data = self._data(number, key)
        data.sessions.add(states.read_session(key, frame).id)

    def _answer(self, number: int, key: bytes, frame: bytes) -> None:
        data = self._data(number, key)
        session, _, _ = states.read_answer(key, frame)
        data.answers += 1
        data.answered.add(session)

    def _record(self, number: int, key: bytes, frame: bytes) -> None:
        data = self._data(number, key)
        value, version, _, expires_at_ms, _, _ = read_record(key, frame)
        stored = key[GENERATION_BYTES:]
        data.records += 1
        data.data_bytes += len(stored) + len(value)
        data.version_max = max(data.version_max, version)
        if expires_at_ms != NEVER:
            data.expiring += _number_of(expires_at_ms.to_bytes(_TIME_BYTES, "big") + stored)

    def _due(self, number: int, key: bytes, frame: bytes) -> None:
        data = self._data(number, key)
        if opened(key, frame):
            raise StoreDamaged("there is something where nothing belongs")
        data.due += _number_of(key[GENERATION_BYTES:])


def _number_of(due_key: bytes) -> int:
    return int.from_bytes(blake2b(due_key, digest_size=16).digest(), "big")


def _misfits_of_log(group: Group) -> Iterator[str]:
    if group.base is None:
        yield "its log has no base"
        return
    if group.last is not None and group.hard_state.term < group.last[1]:
        yield f"its term is {group.hard_state.term}, its last entry's {group.last[1]}"
    if group.hard_state.commit > group.last_index:
        yield f"committed up to {group.hard_state.commit}, of {group.last_index} entries"
    applied = group.header.applied_index if group.header else 0
    if not group.base[0] <= applied <= group.last_index:
        yield f"its state is at {applied}, its log from {group.base[0]} to {group.last_index}"


def _misfits_of_data(group: Group) -> Iterator[str]:
    header, data = group.header, group.current
    if header is None:
        return
    if data.records != header.key_count:
        yield f"there are {data.records} records, and not {header.key_count}"
    if data.data_bytes != header.data_bytes:
        yield f"its records have {data.data_bytes} bytes, and not {header.data_bytes}"
    if data.version_max > header.revision:
        yield f"a record has version {data.version_max}, the last change {header.revision}"
    if data.expiring != data.due:
        yield "the records that expire are not those that are noted to"
    if strange := data.answered - data.sessions:
        yield f"there are answers of sessions that are not there: {sorted(strange)[:5]}"
    if late := [id for id in data.sessions if id > header.applied_index]:
        yield f"there are sessions that were not opened yet: {sorted(late)[:5]}"
