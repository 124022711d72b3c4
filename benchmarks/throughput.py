"""kvtwist beside its peers: operations per second, in one run, in turns.

    python benchmarks/throughput.py [--quick] [--seconds S] [--peer NAME ...] [--out DIR]

``benchmarks/README.md`` says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from _machine import facts
from _options import RESULTS, seconds
from _peers import OURS, PEERS, TITLES, start_kvtwist
from _processes import PeerFailed, Processes, ended_by_signals
from _report import Report
from _run import Run, start_peers
from _workload import FULL, QUICK

HEADING = "Operations per second: kvtwist beside its peers"


def main() -> None:
    """Measure, print the table, write it down."""
    options = parse_options()
    plan = QUICK if options.quick else FULL
    if options.seconds is not None:
        plan = replace(plan, seconds=options.seconds)
    report = Report("throughput", HEADING, TITLES, OURS, plan, facts("go", "redis"))
    try:
        measure(report, options.peer)
    except PeerFailed as reason:
        sys.exit(f"kvtwist failed: {reason}")
    print(report.text())
    for path in report.write(options.out):
        print(f"written: {path}", file=sys.stderr)


def measure(report: Report, peers: list[str]) -> None:
    """Start everything, measure, end everything."""
    with ended_by_signals(), tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        processes = Processes(stack, Path(directory))
        others = {name: PEERS[name] for name in peers}
        Run(report, start_peers(report, processes, start_kvtwist, others)).measure_all()


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="kvtwist beside its peers, operations per second")
    parser.add_argument("--quick", action="store_true", help="some 40 seconds, 100 bytes only")
    parser.add_argument("--seconds", type=seconds, metavar="S", help="for each measurement")
    parser.add_argument(
        "--peer",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="NAME",
        help=f"only these, of {', '.join(PEERS)}",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
