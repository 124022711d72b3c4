"""How long each partition took no write, and how much of that was in good times.

An *outage* is the time between two acknowledged writes of a partition, one after the other, as its
clients saw them: from when the one answer came to when the other did. So it is never shorter than
the clients' pace; the load's beginning and end count as answers.

Times are *good* for a partition while one of its replicas, the same one all the time, is up, hears
a majority of the replicas and is heard by it, and reaches the clients. Then somebody has to lead
within a few election timeouts (R9), whatever else is going on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from kvtwist.core.ring import partition_of
from tests.chaos.schedule import CLIENTS, Pair
from tests.linearizability.history import Kind, Operation

Span = tuple[float, float]


class Condition(NamedTuple):
    """How the cluster was from some time on: the nodes that served, and what was cut."""

    at: float
    up: frozenset[int]
    cuts: frozenset[Pair]


@dataclass(frozen=True, slots=True)
class Outage:
    """One of a partition. ``began`` is on the history's clock."""

    partition: int
    began: float
    seconds: float

    def meets(self, began: float, ended: float) -> bool:
        """Whether some of it was between these times."""
        return began < self.began + self.seconds and ended > self.began


def longest(
    operations: Iterable[Operation], whole: Span, spans: Sequence[Sequence[Span]]
) -> list[Outage]:
    """The longest outage of each partition, or the longest part of one that is within a span.

    :param whole: when the load began and ended.
    :param spans: of each partition.
    """
    answers: list[list[float]] = [[*whole] for _ in spans]
    for each in operations:
        if each.kind is not Kind.GET and each.is_answered:
            assert each.returned is not None
            if whole[0] < each.returned < whole[1]:
                answers[partition_of(each.key, len(spans))].append(each.returned)
    return [
        _longest(partition, sorted(answers[partition]), those)
        for partition, those in enumerate(spans)
    ]


def _longest(partition: int, answers: list[float], spans: Sequence[Span]) -> Outage:
    found = Outage(partition, answers[0], 0.0)
    for before, after in pairwise(answers):
        if after - before <= found.seconds:
            continue
        for began, ended in spans:
            began, ended = max(began, before), min(ended, after)
            if ended - began > found.seconds:
                found = Outage(partition, began, ended - began)
    return found


def good_times(
    replicas: Sequence[int], conditions: Sequence[Condition], ended: float
) -> list[Span]:
    """When times were good for a partition; spans of different replicas may overlap.

    :param replicas: the nodes that have one.
    :param conditions: one after the other, the last one until *ended*.
    """
    return [
        span for replica in replicas for span in _good_times(replica, replicas, conditions, ended)
    ]


def without_stalls(conditions: Sequence[Condition], stalls: Iterable[Span]) -> list[Condition]:
    """*conditions*, with nobody up while this process itself was held up: nobody was there to see,
    and the nodes are likely to have been held up as well."""
    told = list(conditions)
    for began, ended in stalls:
        before = [each for each in told if each.at <= ended]
        if not before:
            continue
        told = [
            *(each for each in told if each.at < began),
            Condition(began, frozenset(), frozenset()),
            before[-1]._replace(at=ended),
            *(each for each in told if each.at > ended),
        ]
    return told


def _good_times(
    replica: int, replicas: Sequence[int], conditions: Sequence[Condition], ended: float
) -> Iterator[Span]:
    since: float | None = None
    for condition in conditions:
        is_good = _is_good(replica, replicas, condition)
        if since is None and is_good:
            since = condition.at
        elif since is not None and not is_good:
            yield since, condition.at
            since = None
    if since is not None:
        yield since, ended


def _is_good(replica: int, replicas: Sequence[int], condition: Condition) -> bool:
    def is_whole(other: int) -> bool:
        return not {(replica, other), (other, replica)} & condition.cuts

    if replica not in condition.up or not is_whole(CLIENTS):
        return False
    met = sum(each in condition.up and is_whole(each) for each in replicas)
    return met > len(replicas) // 2
