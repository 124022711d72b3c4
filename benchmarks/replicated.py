"""kvtwist beside others that keep each write on the disks of a majority: one run, in turns.

    python benchmarks/replicated.py [--quick] [--seconds S] [--rounds N] [--peer NAME ...]
                                    [--directory DIR] [--out DIR]

``benchmarks/README.md`` says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from _consensus_peers import OURS, PEERS, TITLES, start_kvtwist
from _machine import facts
from _options import RESULTS, seconds
from _processes import PeerFailed, Processes, ended_by_signals
from _report import Report, rounded
from _run import Run, start_peers
from _workload import Cell, Plan

HEADING = "Operations per second on three replicas, on disk: kvtwist beside its peers"
VALUE_BYTES = 100
_ROW_WIDTH = 45
AIMS = {
    ("put", 1): {"etcd": 0.7, "pysyncobj": 5.0},
    ("put", 64): {"etcd": 1.5, "pysyncobj": 5.0},
    ("put", 256): {"etcd": 1.5, "pysyncobj": 5.0},
    ("get", 1): {"etcd": 2.0},
    ("get", 64): {"etcd": 2.0},
    ("get", 256): {"etcd": 2.0},
}
"""What kvtwist should at least reach, as a multiple of the peer: by operation and in flight."""
FIGURES = {
    "p50_ms": ("half are answered within, ms", ".2f"),
    "p99_ms": ("99 of 100 within, ms", ".2f"),
    "servers_cpu_us": ("CPU of servers, us each", ".0f"),
    "client_cpu_us": ("CPU of the client, us each", ".0f"),
}
"""What a `Sample` has besides, and how it is shown."""


class ReplicatedReport(Report):
    """What `replicated.py` has found."""

    def more_blocks(self, value_bytes: int) -> Iterator[str]:
        """Latencies, processor time, and what is aimed at."""
        for figure, (title, form) in FIGURES.items():
            yield self.table(title, value_bytes, self.series, form, partial(self.median, figure))
        yield "\n".join(self._aims(value_bytes))

    def median(self, figure: str, series: str, cell: Cell) -> float | None:
        """The median of one of `FIGURES` over the rounds; ``None`` for 0, which nobody measured."""
        values = [getattr(sample, figure) for sample in self.samples.get((series, cell), ())]
        return (median(values) or None) if values else None

    def result(self, cell: Cell) -> dict[str, object]:
        """Latencies and processor time too."""
        more = {
            figure: {name: rounded(self.median(figure, name, cell), 3) for name in self.series}
            for figure in FIGURES
        }
        return super().result(cell) | more

    def _aims(self, value_bytes: int) -> Iterator[str]:
        """How kvtwist stands beside what it should reach."""
        for cell in self.plan.cells(value_bytes):
            for peer in self.peers:
                aim = AIMS[cell.operation, cell.in_flight].get(peer.partition("-")[0])
                ratio = self.ratio("kvtwist", peer, cell)
                if aim is not None and ratio is not None:
                    row = f"{cell.in_flight:>5} in flight, {cell.operation}, {self.titles[peer]}"
                    is_reached = "" if ratio >= aim else "  missed"
                    yield f"{row:<{_ROW_WIDTH}}{ratio:8.2f} of {aim:.1f} aimed at{is_reached}"


def main() -> None:
    """Measure, print the tables, write them down."""
    options = parse_options()
    plan = Plan(options.rounds, options.seconds, warm_up_rounds=1, value_bytes=(VALUE_BYTES,))
    if options.quick:
        plan = Plan(1, 0.5, value_bytes=(VALUE_BYTES,))
    report = ReplicatedReport("replicated", HEADING, TITLES, OURS, plan, facts("go", "etcd"))
    try:
        measure(report, options.peer, options.directory)
    except PeerFailed as reason:
        sys.exit(f"kvtwist failed: {reason}")
    print(report.text())
    for path in report.write(options.out):
        print(f"written: {path}", file=sys.stderr)


def measure(report: Report, peers: list[str], directory: Path | None) -> None:
    """Start everything, measure, end everything."""
    with ended_by_signals(), ExitStack() as stack:
        top = tempfile.TemporaryDirectory(prefix="kvtwist-", dir=directory)
        processes = Processes(stack, Path(stack.enter_context(top)))
        others = {name: PEERS[name] for name in peers}
        Run(report, start_peers(report, processes, start_kvtwist, others)).measure_all()


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="kvtwist beside etcd and PySyncObj, replicated")
    parser.add_argument("--quick", action="store_true", help="one short round, to see it run")
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="S", help="for each measurement (2)"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="that count (5)")
    parser.add_argument(
        "--peer",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="NAME",
        help=f"only these, of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="where all keep their data; its disk counts"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
