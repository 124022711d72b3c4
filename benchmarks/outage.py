"""How long partitions take no writes when the node that leads them is killed, or frozen.

    python benchmarks/outage.py [--kills N] [--freezes N] [--every-ms MS]
                                [--directory DIR] [--out DIR]

``benchmarks/README.md`` says what is measured and how to read it.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from _cluster import Cluster
from _machine import facts
from _nodes import Nodes
from _options import RESULTS, progress
from _processes import PeerFailed, Processes, ended_by_signals
from _workload import quantile_ms
from _writers import Writers
from kvtwist.client import Client
from kvtwist.errors import KvtwistError
from kvtwist.wire.clock import make_monotonic

NODES = 3
KILLED_SECONDS = 3.0
FROZEN_SECONDS = 5.0
PAUSE_SECONDS_MAX = 0.5
"""Before each outage a random part of it passes, so that it meets any phase of heartbeats."""
DRAIN_SECONDS_MAX = 30.0
KEYS_PER_READ = 200
AIMS_MS = {"killed": {"p50": 1000.0, "p99": 2000.0}, "frozen": {"p99": 2500.0}}
TITLES = {"killed": "kill -9", "frozen": "SIGSTOP"}


@dataclass(slots=True)
class Outages:
    """What was seen of one kind of outage; gaps are in seconds.

    :ivar led: for each partition that the node led, the longest gap until all was as before.
    :ivar away: the same, but only while the node was away.
    :ivar others: of the partitions that it did not lead, until all was as before.
    :ivar recovered: from the outage's end until all was as before.
    :ivar unbalanced: outages after which the owners did not get all of their partitions back in
        time; the next one began nevertheless.
    """

    count: int = 0
    led: list[float] = field(default_factory=list)
    away: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    recovered: list[float] = field(default_factory=list)
    unbalanced: int = 0


class Run:
    """One cluster, its writers, and what is done to it."""

    def __init__(self, reactor: Any, nodes: Nodes, client: Client, every_seconds: float) -> None:
        self._reactor = reactor
        self._nodes = nodes
        self._client = client
        self._cluster = Cluster(reactor, client, nodes.addresses)
        self._every_seconds = every_seconds
        self._chance = random.Random(1)
        self._victims = 0
        self.writers: Writers
        self.outages: dict[str, Outages] = {}

    async def make(self, counts: Mapping[str, int]) -> None:
        """All outages, and then look whether everything is there.

        :raises PeerFailed: when the cluster does not come back, or data is lost.
        """
        await self._cluster.settled()
        partitions = self._cluster.partitions
        self.writers = Writers(self._reactor, self._client, partitions, self._every_seconds)
        self.writers.start()
        try:
            await self._written()
            self.writers.late_seconds = 0.0
            for kind, count in counts.items():
                if count:
                    self.outages[kind] = Outages()
                for number in range(count):
                    progress(f"{TITLES[kind]}, {number + 1} of {count}")
                    await self._outage(kind, self.outages[kind])
        finally:
            self.writers.stop()
        progress("reading everything back")
        await self._read_back()
        progress("")

    async def _written(self) -> None:
        """Wait until each partition has been written to: gaps count from a write to the next."""
        end = self._reactor.seconds() + DRAIN_SECONDS_MAX
        while waiting := self.writers.waiting:
            if self._reactor.seconds() > end:
                raise PeerFailed(f"{waiting} partitions take no writes at all")
            await self._sleep(0.1)

    async def _outage(self, kind: str, seen: Outages) -> None:
        leaders = self._cluster.leaders
        victim = self._next_victim(leaders)
        await self._sleep(self._chance.uniform(0, PAUSE_SECONDS_MAX))
        for writer in self.writers.each:
            writer.begin()
        process = self._nodes.running[victim]
        if kind == "killed":
            process.kill()
            await self._sleep(KILLED_SECONDS)
            process.wait()
        else:
            process.send_signal(signal.SIGSTOP)
            await self._sleep(FROZEN_SECONDS)
        led = [w for w, at in zip(self.writers.each, leaders, strict=True) if at == victim]
        seen.away += [writer.gap_seconds() for writer in led]
        if kind == "killed":
            self._nodes.start_again(victim)
        else:
            process.send_signal(signal.SIGCONT)
        began = self._reactor.seconds()
        seen.unbalanced += not await self._cluster.settled()
        seen.recovered.append(self._reactor.seconds() - began)
        seen.led += [writer.gap_seconds() for writer in led]
        seen.others += [writer.gap_seconds() for writer in self.writers.each if writer not in led]
        seen.count += 1

    def _next_victim(self, leaders: list[int]) -> int:
        """In turns, of those that lead."""
        leading = sorted(set(leaders))
        self._victims += 1
        return leading[self._victims % len(leading)]

    async def _read_back(self) -> None:
        end = self._reactor.seconds() + DRAIN_SECONDS_MAX
        while self.writers.under_way:
            if self._reactor.seconds() > end:
                raise PeerFailed(f"{self.writers.under_way} writes have neither answer nor error")
            await self._sleep(0.1)
        for writer in self.writers.each:
            for at in range(0, len(writer.keys), KEYS_PER_READ):
                keys = writer.keys[at : at + KEYS_PER_READ]
                for key, record in (await self._client.get_many(keys)).items():
                    writer.check(key, record)

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds, lambda: None)


class Findings:
    """A run's figures, for people and for programs."""

    def __init__(self, run: Run, about: Mapping[str, str], every_ms: float) -> None:
        self._run = run
        self._facts = about
        self._every_ms = every_ms

    @property
    def lost(self) -> int:
        """Acknowledged writes that are gone."""
        return sum(writer.lost for writer in self._run.writers.each)

    def lines(self) -> Iterator[str]:
        """The table, and what one must know to read it."""
        yield "longest gap between acknowledged writes to a partition, ms"
        heads = ("partitions", "p50", "p99", "worst")
        yield " " * 44 + "".join(head.rjust(12) for head in heads)
        for kind, seen in self._run.outages.items():
            title = f"{TITLES[kind]} of its leader, {seen.count} times"
            yield _row(title, seen.led)
            yield _row("    of these, while the node was away", seen.away)
            yield _row("    partitions that others led", seen.others)
        yield ""
        for kind, seen in self._run.outages.items():
            figures = summary(seen.led)
            for name, aim in AIMS_MS.get(kind, {}).items():
                is_reached = "" if figures[name] <= aim else "  missed"
                row = f"{TITLES[kind]}, {name}"
                yield f"{row:<44}{figures[name]:12,.0f} of {aim:,.0f} ms at most{is_reached}"
        writers = self._run.writers.each
        yield ""
        yield f"acknowledged writes lost: {self.lost}"
        yield (
            f"{sum(w.acknowledged for w in writers):,} writes acknowledged, "
            f"{sum(w.refused for w in writers):,} not done, "
            f"{sum(w.unknown for w in writers):,} of unknown outcome; to {len(writers)} "
            f"partitions, one every {self._every_ms:g} ms to each"
        )
        yield f"A write began {self._run.writers.late_seconds * 1000:.0f} ms late at most."
        for kind, seen in self._run.outages.items():
            recovered = summary(seen.recovered)
            yield (
                f"{TITLES[kind]}: all was as before {recovered['p50']:,.0f} ms after its end at "
                f"the median, {recovered['worst']:,.0f} at most; {seen.unbalanced} times not quite"
            )
        errors = {writer.last_error for writer in writers if writer.last_error}
        yield from (f"an error: {error}" for error in sorted(errors)[:3])
        yield from (f"{fact}: {value}" for fact, value in self._facts.items())

    def data(self) -> dict[str, object]:
        """All of it, single gaps included."""
        writers = self._run.writers.each
        return {
            "unit": "ms",
            "machine": dict(self._facts),
            "every_ms": self._every_ms,
            "partitions": len(writers),
            "lost": self.lost,
            "acknowledged": sum(writer.acknowledged for writer in writers),
            "not_done": sum(writer.refused for writer in writers),
            "unknown": sum(writer.unknown for writer in writers),
            "late_ms": round(self._run.writers.late_seconds * 1000),
            "outages": {
                kind: {
                    "count": seen.count,
                    "unbalanced": seen.unbalanced,
                    **{
                        name: summary(gaps) | {"gaps": [round(gap * 1000) for gap in gaps]}
                        for name, gaps in (
                            ("led", seen.led),
                            ("away", seen.away),
                            ("others", seen.others),
                            ("recovered", seen.recovered),
                        )
                    },
                }
                for kind, seen in self._run.outages.items()
            },
        }


def summary(gaps: list[float]) -> dict[str, float]:
    """Quantiles in ms, of gaps in seconds."""
    gaps = sorted(gaps)
    shares = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
    return {name: round(quantile_ms(gaps, share)) for name, share in shares.items()}


def _row(title: str, gaps: list[float]) -> str:
    figures = summary(gaps).values()
    return f"{title:<44}{len(gaps):12,}" + "".join(f"{figure:12,.0f}" for figure in figures)


def main() -> None:
    """Measure, print, write down."""
    options = parse_options()
    about = facts()
    # The nodes are outside of the reactor, which ends by itself when a signal comes.
    with ended_by_signals(), ExitStack() as stack:
        top = tempfile.TemporaryDirectory(prefix="kvtwist-", dir=options.directory)
        processes = Processes(stack, Path(stack.enter_context(top)))
        nodes = Nodes(processes, NODES, ("--replicas=3",))

        def run(reactor: Any) -> Deferred[None]:
            make_monotonic(reactor)
            return Deferred.fromCoroutine(measure(reactor, nodes, options, about))

        task.react(run)


async def measure(
    reactor: Any, nodes: Nodes, options: argparse.Namespace, about: Mapping[str, str]
) -> None:
    """All of it. What was seen before something went wrong is printed, but not kept.

    :raises SystemExit: when something is wrong.
    """
    client = Client(reactor, nodes.addresses)
    run = Run(reactor, nodes, client, options.every_ms / 1000)
    trouble = ""
    try:
        await run.make({"killed": options.kills, "frozen": options.freezes})
    except (PeerFailed, KvtwistError) as reason:
        trouble = f"{nodes.log_ends()}\nkvtwist failed: {reason}"
    await client.close()
    if not run.outages:
        sys.exit(trouble)
    findings = Findings(run, about, options.every_ms)
    text = "\n".join(findings.lines())
    print(text)
    if trouble:
        sys.exit(trouble)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "outage.txt").write_text(text + "\n")
    (options.out / "outage.json").write_text(json.dumps(findings.data(), indent=1) + "\n")
    print(f"written: {options.out / 'outage.txt'}", file=sys.stderr)
    if findings.lost:
        sys.exit("acknowledged writes are lost")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How long partitions take no writes")
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="kill -9 (30)")
    parser.add_argument("--freezes", type=int, default=15, metavar="N", help="SIGSTOP (15)")
    parser.add_argument(
        "--every-ms", type=float, default=50.0, metavar="MS", help="a put to each partition (50)"
    )
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where nodes keep their data")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
