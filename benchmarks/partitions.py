"""How throughput changes with the number of partitions, and of replicas.

    python benchmarks/partitions.py [--seconds S] [--rounds N] [--in-flight N]
                                    [--directory DIR] [--out DIR]

``benchmarks/README.md`` says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median

from _consensus_peers import ConsensusPeer
from _machine import facts
from _nodes import Nodes
from _options import RESULTS, progress, seconds
from _peers import python_generator
from _picture import LinearScale, Panel, draw
from _processes import PeerFailed, Processes, ended_by_signals
from _report import footer
from _workload import KEYS, OPERATIONS, Cell, Sample

PARTITIONS = (16, 32, 64, 256)
REPLICAS = (1, 3, 5)
NODES = {1: 3, 3: 3, 5: 5}
"""How many nodes there are, by the number of replicas."""
VALUE_BYTES = 100
_WIDTH = 14
_TITLE = "Operations per second, by partitions and replicas"
_SUBTITLE = (
    "One client and all nodes on one machine, on disk, a new cluster for each figure; median. "
    "Three nodes; five for five replicas."
)


@dataclass(slots=True)
class Findings:
    """The figures of one run.

    :ivar samples: by operation, partitions and replicas, one for each round that worked.
    :ivar troubles: clusters that did not work, and why.
    """

    facts: Mapping[str, str]
    options: argparse.Namespace
    samples: dict[tuple[str, int, int], list[Sample]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)

    def per_second(self, operation: str, partitions: int, replicas: int) -> float | None:
        """The median of the rounds, if there is any figure."""
        samples = self.samples.get((operation, partitions, replicas))
        return median(sample.per_second for sample in samples) if samples else None

    def lines(self) -> Iterator[str]:
        """For people."""
        titles = [_title(replicas) for replicas in REPLICAS]
        for operation in OPERATIONS:
            yield f"{operation}, op/s".ljust(20) + "".join(each.rjust(_WIDTH) for each in titles)
            for partitions in PARTITIONS:
                figures = (self.per_second(operation, partitions, each) for each in REPLICAS)
                row = "".join(
                    ("-" if figure is None else f"{figure:,.0f}").rjust(_WIDTH)
                    for figure in figures
                )
                yield f"{partitions:>5} partitions".ljust(20) + row
            yield ""
        yield (
            f"{self.options.in_flight} in flight, {VALUE_BYTES}-byte values, {KEYS:,} keys; three "
            f"nodes, five for five replicas. Median of {self.options.rounds} rounds of "
            f"{self.options.seconds:g} s each, in turns, each with a new cluster."
        )
        speeds = [[sample.per_second for sample in each] for each in self.samples.values()]
        spread = median((max(each) - min(each)) / median(each) for each in speeds)
        yield f"Spread between rounds, (max - min) / median: {spread:.0%} at the median."
        failed = sum(sample.failed for each in self.samples.values() for sample in each)
        yield from (f"{failed:,} operations failed" for _ in range(failed > 0))
        yield from self.troubles
        yield from (f"{fact}: {value}" for fact, value in self.facts.items())

    def data(self) -> dict[str, object]:
        """For programs, single rounds included."""
        return {
            "unit": "operations per second",
            "machine": dict(self.facts),
            "rounds": self.options.rounds,
            "seconds_per_measurement": self.options.seconds,
            "in_flight": self.options.in_flight,
            "value_bytes": VALUE_BYTES,
            "troubles": self.troubles,
            "results": [
                {
                    "operation": operation,
                    "partitions": partitions,
                    "replicas": replicas,
                    "nodes": NODES[replicas],
                    "per_second": round(median(sample.per_second for sample in samples)),
                    "rounds": [round(sample.per_second) for sample in samples],
                    "servers_cpu_us": [round(sample.servers_cpu_us, 1) for sample in samples],
                    "p99_ms": [round(sample.p99_ms, 3) for sample in samples],
                    "failed": sum(sample.failed for sample in samples),
                }
                for (operation, partitions, replicas), samples in sorted(self.samples.items())
            ],
        }

    def picture(self) -> str:
        """The speeds as bars, in SVG."""
        panels = [
            Panel(
                f"{operation}, {VALUE_BYTES}-byte values, {self.options.in_flight} in flight, op/s",
                {
                    f"{partitions} partitions": {
                        str(each): self.per_second(operation, partitions, each) for each in REPLICAS
                    }
                    for partitions in PARTITIONS
                },
            )
            for operation in OPERATIONS
        ]
        titles = {str(each): _title(each) for each in REPLICAS}
        return draw(_TITLE, _SUBTITLE, titles, panels, footer(self.facts), LinearScale)


def _title(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"


def main() -> None:
    """Measure, print, write."""
    options = parse_options()
    findings = Findings(facts(), options)
    measure(findings, options)
    if not findings.samples:
        sys.exit(f"kvtwist failed: {findings.troubles}")
    text = "\n".join(findings.lines())
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    contents = {
        "partitions.txt": text + "\n",
        "partitions.json": json.dumps(findings.data(), indent=1) + "\n",
        "partitions.svg": findings.picture(),
    }
    for name, content in contents.items():
        (options.out / name).write_text(content, encoding="utf-8")
        print(f"written: {options.out / name}", file=sys.stderr)


def measure(findings: Findings, options: argparse.Namespace) -> None:
    """A new cluster for each figure, and another one begins in each round."""
    configurations = list(product(PARTITIONS, REPLICAS))
    with ended_by_signals():
        for number in range(options.rounds):
            first = number * len(configurations) // options.rounds
            for partitions, replicas in configurations[first:] + configurations[:first]:
                where = f"round {number + 1} of {options.rounds}, {partitions} partitions"
                where += f", {_title(replicas)}"
                progress(where)
                try:
                    samples = measured(partitions, replicas, options)
                except PeerFailed as reason:
                    findings.troubles.append(f"{where}: {reason}")
                    continue
                for operation, sample in samples.items():
                    key = operation, partitions, replicas
                    findings.samples.setdefault(key, []).append(sample)
    progress("")


def measured(partitions: int, replicas: int, options: argparse.Namespace) -> dict[str, Sample]:
    """Each operation, in one cluster. All keys are put at first, which warms it up."""
    with ExitStack() as stack:
        top = tempfile.TemporaryDirectory(prefix="kvtwist-", dir=options.directory)
        processes = Processes(stack, Path(stack.enter_context(top)))
        settings = (f"--partitions={partitions}", f"--replicas={replicas}")
        nodes = Nodes(processes, NODES[replicas], settings)
        load = python_generator(processes, "kvtwist", nodes.ports)
        cluster = ConsensusPeer({"kvtwist": (load, "")}, nodes.running)
        cluster.fill(VALUE_BYTES)
        return {
            operation: cluster.measure(
                "kvtwist", Cell(VALUE_BYTES, options.in_flight, operation), options.seconds
            )
            for operation in OPERATIONS
        }


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Throughput, by partitions and replicas")
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, metavar="S", help="for each measurement (2)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="(3)")
    parser.add_argument("--in-flight", type=int, default=64, metavar="N", help="requests (64)")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where nodes keep their data")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
