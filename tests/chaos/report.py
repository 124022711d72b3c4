"""All the figures of a run, and whether it was worth anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.faults import Happened
from tests.chaos.outages import Outage
from tests.chaos.schedule import Schedule
from tests.linearizability.history import Kind, Operation, Outcome

FAULTS_SHARE_MIN = 0.8
"""So many of the scheduled faults must have found a target."""
STALLS_SHARE_MAX = 0.1
"""So much of the time this process, and with it all clients, may have stood still."""
SNAPSHOT_SECONDS = 120.0
"""A run so long must have seen a replica take a snapshot."""


@dataclass(slots=True)
class Report:
    """One run.

    ``operations`` counts by kind and outcome, such as ``"put: answered"``. ``answered_per_second``
    is over the time of the faults. ``faults`` counts what happened, ``skipped`` what found no
    target. ``outages_seconds`` has each partition's longest, ``outages_in_good_times_seconds`` what
    of one was in good times (`outages`). ``stops_seconds`` and ``starts_seconds`` have each stop
    after SIGTERM, and each start until the node was part of the cluster. ``errors`` counts what
    clients were told, by name, ``visit_errors`` what visitors were, who never try again.
    ``network``: why it was not cut, if so. ``stalls_seconds``: how long the
    campaign's own process was held up. ``snapshots`` counts those that replicas have taken.

    ``problems`` is what the cluster or its clients did wrong, ``wrong`` what the history shows,
    ``too_little`` why the run has shown nothing (X1).
    """

    seed: int
    seconds: float
    nodes: int
    clients: int
    partitions: int
    network: str
    operations: dict[str, int] = field(default_factory=dict)
    answered_per_second: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    visit_errors: dict[str, int] = field(default_factory=dict)
    error_examples: dict[str, str] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    outages_seconds: list[float] = field(default_factory=list)
    outages_in_good_times_seconds: list[float] = field(default_factory=list)
    longest_outage: str = ""
    longest_in_good_times: str = ""
    recovery_seconds: float | None = None
    stops_seconds: list[float] = field(default_factory=list)
    starts_seconds: list[float] = field(default_factory=list)
    stalls_seconds: list[float] = field(default_factory=list)
    snapshots: int = 0
    judged: str = ""
    remains: str = ""
    problems: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    too_little: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``PASSED``, ``FAILED`` or ``INVALID``."""
        if self.problems or self.wrong:
            return "FAILED"
        return "INVALID" if self.too_little else "PASSED"

    def count(self, outcome: Outcome) -> int:
        """How many operations of any kind ended so."""
        end = f": {outcome.value}"
        return sum(count for name, count in self.operations.items() if name.endswith(end))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        outcomes = {outcome.value: self.count(outcome) for outcome in Outcome}
        return {"verdict": self.verdict, "outcomes": outcomes, **asdict(self)}

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(outcome):,} {outcome.value}" for outcome in Outcome)
        lines = [
            f"seed {self.seed}, {self.seconds:g} s, {self.nodes} nodes, {self.clients} clients, "
            f"{self.partitions} partitions, network: {self.network}",
            f"operations: {counts}; {self.answered_per_second:.0f} answered a second",
            *(f"  {name:<32} {count:>8,}" for name, count in sorted(self.operations.items())),
            "clients were told:" if self.errors else "clients were told of no error",
            *self._told(self.errors),
            "visitors were told:" if self.visit_errors else "visitors were told of no error",
            *self._told(self.visit_errors),
            f"faults: {sum(self.faults.values())}",
            *(f"  {count:>6,} {name}" for name, count in sorted(self.faults.items())),
            *(f"  {count:>6,} skipped: {name}" for name, count in sorted(self.skipped.items())),
            f"no write of a partition: {_spread(self.outages_seconds)}{self.longest_outage}",
            f"  in good times: {_spread(self.outages_in_good_times_seconds)}"
            f"{self.longest_in_good_times}",
            f"stops after SIGTERM: {_spread(self.stops_seconds)}",
            f"starts: {_spread(self.starts_seconds)}",
            f"after the last fault all partitions took writes within {self.recovery_seconds} s",
            *(f"this process was held up for {each:.1f} s" for each in self.stalls_seconds),
            f"snapshots that replicas have taken: {self.snapshots}",
            f"checked: {self.judged}",
            f"on the disks: {self.remains}",
            *(f"PROBLEM {problem}" for problem in self.problems),
            *(f"WRONG {wrong}" for wrong in self.wrong),
            *(f"TOO LITTLE {little}" for little in self.too_little),
            self.verdict,
        ]
        return "\n".join(lines)

    def _told(self, errors: dict[str, int]) -> list[str]:
        return [
            f"  {count:>6,} {name}, first: {self.error_examples[name][:160]}"
            for name, count in sorted(errors.items())
        ]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "not measured"
    ordered = sorted(seconds)
    middle = ordered[len(ordered) // 2]
    return f"{ordered[-1]:.2f} s at the worst of {len(ordered)}, {middle:.2f} s median"


def counted(operations: Iterable[Operation]) -> dict[str, int]:
    """Operations by kind and outcome; conditions that did not hold apart."""
    counts: Counter[str] = Counter()
    for each in operations:
        failed = each.answer is not None and not each.answer.done
        counts[f"{each.kind.value}{' (failed)' if failed else ''}: {each.outcome.value}"] += 1
    return dict(counts)


def told(outages: Iterable[Outage], happened: Iterable[Happened]) -> str:
    """When the worst of *outages* was, and which faults it met."""
    worst = max(outages, key=lambda each: each.seconds)
    met = ", ".join(
        each.fault.kind.value for each in happened if worst.meets(each.began, each.ended)
    )
    return f" (partition {worst.partition} from {worst.began:.1f} s on; {met or 'no fault then'})"


def too_little(
    report: Report, schedule: Schedule, operations: Iterable[Operation], per_second_min: float
) -> list[str]:
    """X1: what must have happened, and has not."""
    little = []
    if report.answered_per_second < per_second_min:
        little.append(f"{report.answered_per_second:.0f} operations a second: {per_second_min:g}")
    happened, scheduled = sum(report.faults.values()), len(schedule)
    if happened < FAULTS_SHARE_MIN * scheduled or not happened:
        little.append(f"{happened} faults: {FAULTS_SHARE_MIN:.0%} of {scheduled}")
    little += [
        f"no {kind}"
        for kind in {fault.kind.value for fault in schedule}
        if kind not in report.faults
    ]
    written = Counter(each.kind for each in operations if each.is_change)
    kinds = {each.kind for each in operations} - {Kind.GET}
    little += [f"no {kind.value} was done" for kind in kinds if not written[kind]]
    if sum(report.stalls_seconds) > STALLS_SHARE_MAX * report.seconds:
        little.append(f"held up for {sum(report.stalls_seconds):.0f} s: {STALLS_SHARE_MAX:.0%}")
    if report.seconds >= SNAPSHOT_SECONDS and not report.snapshots:
        little.append("no snapshot was taken")
    if not any(" (failed): answered" in name for name in report.operations):
        little.append("no condition failed")
    return little
