"""Versions across the keys of a partition: a promise beyond linearizability.

A partition counts its changes, and a record's version is the count. So within a partition no two
changes have the same version, and a change that begins after something of a version was answered,
on whatever key, has a higher one. A partition that lost its count, say by a snapshot without it,
may still look right on each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.linearizability.history import Operation


class Clash(NamedTuple):
    """Two operations on one partition whose versions contradict each other."""

    earlier: Operation
    later: Operation


def check_revisions(
    operations: Iterable[Operation], partition_of: Callable[[bytes], int]
) -> list[Clash]:
    """What breaks the order of versions in any partition; nothing, if all is well.

    For each change that is wrong there is one clash, with one operation that shows it.
    """
    partitions: dict[int, list[Operation]] = {}
    for each in operations:
        if each.answer is not None and each.answer.version:
            partitions.setdefault(partition_of(each.key), []).append(each)
    return [clash for those in partitions.values() for clash in _clashes(those)]


def _clashes(operations: list[Operation]) -> list[Clash]:
    clashes = []
    makers: dict[int, Operation] = {}
    events: list[tuple[float, int, int]] = []
    for index, each in enumerate(operations):
        version = _version(each)
        if each.is_change:
            maker = makers.setdefault(version, each)
            if maker is not each:
                clashes.append(Clash(maker, each))
            events.append((each.invoked, 0, index))
        events.append((_returned(each), 1, index))
    highest: Operation | None = None
    for _, is_return, index in sorted(events):
        each = operations[index]
        if is_return:
            if highest is None or _version(each) > _version(highest):
                highest = each
        elif highest is not None and _version(each) <= _version(highest):
            clashes.append(Clash(highest, each))
    return clashes


def _version(operation: Operation) -> int:
    assert operation.answer is not None
    assert operation.answer.version is not None
    return operation.answer.version


def _returned(operation: Operation) -> float:
    assert operation.returned is not None
    return operation.returned
