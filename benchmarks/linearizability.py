"""How long the tests' linearizability checker takes: ``python benchmarks/linearizability.py``.

Histories come from random executions of a true register (`tests.linearizability.execution`), the
same in every run. "stale" is the same history with a read that saw a record replaced long before;
"invented" with one that saw a value that nobody wrote.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.linearizability.execution import COUNTING, Workload, execute
from tests.linearizability.history import Kind, Operation
from tests.linearizability.judge import check_key
from tests.linearizability.search import Finding, search
from tests.linearizability.versions import check_versions

MIXED = Workload()
WORKLOADS = {
    "mixed": MIXED,
    "no unknown outcomes": replace(MIXED, unknown=0),
    "20 % unknown outcomes": replace(MIXED, unknown=0.2),
    "removals without version": replace(MIXED, is_removal_told=False),
    "30 clients": replace(MIXED, clients=30),
    "counters": replace(MIXED, mix=COUNTING, values=10),
    "no versions": replace(MIXED, are_versions_told=False),
    "counters, no versions": replace(MIXED, mix=COUNTING, values=10, are_versions_told=False),
}
CHECKS = {"versions": check_versions, "search": search, "both": check_key}


def main() -> None:
    """Print the tables."""
    print("One key, 10 clients, 2 % unknown outcomes where nothing else is said. Seconds.")
    for count in (3000, 20_000):
        print(f"\n{count:,} operations" + "".join(f"{name:>25}" for name in CHECKS))
        for name, workload in WORKLOADS.items():
            history = execute(Random(1), count, workload)
            print_row(name, history)
            if workload.are_versions_told:
                print_row(f"{name}, stale", with_stale_read(history))
            print_row(f"{name}, invented", with_invented_value(history))


def print_row(name: str, history: list[Operation]) -> None:
    """What each check says of *history*, and how long it takes."""
    cells = []
    for check in CHECKS.values():
        begun = perf_counter()
        finding: Finding = check(history)
        cells.append(f"{finding.verdict.value:>18}{perf_counter() - begun:7.2f}")
    print(f"{name:<32}" + "".join(cells))


def with_stale_read(history: list[Operation]) -> list[Operation]:
    """*history*, where a read at three quarters answers what one at one quarter did."""
    early, late = (next_read(history, len(history) * quarter // 4) for quarter in (1, 3))
    stale = replace(history[late], answer=history[early].answer)
    return [*history[:late], stale, *history[late + 1 :]]


def with_invented_value(history: list[Operation]) -> list[Operation]:
    """*history*, where a read at three quarters answers what nobody wrote."""
    late = next_read(history, len(history) * 3 // 4)
    answer = history[late].answer
    assert answer is not None
    wrong = replace(history[late], answer=replace(answer, value=b"invented"))
    return [*history[:late], wrong, *history[late + 1 :]]


def next_read(history: list[Operation], start: int) -> int:
    """The first get from *start* on that has seen a value."""
    return next(
        i
        for i, each in enumerate(history)
        if i >= start and each.kind is Kind.GET and each.answer and each.answer.value
    )


if __name__ == "__main__":
    main()
