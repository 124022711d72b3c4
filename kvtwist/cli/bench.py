"""``kvcli bench``: load from one process, and how the cluster bore it.

The load is a closed loop: a fixed number of operations is in flight, and each answer makes room for
the next operation. So the latencies are those at the highest rate that this many clients reach, and
a cluster that stalls is asked less while it does.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TextIO

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from kvtwist.cli.run import EXIT_OK, EXIT_UNAVAILABLE, EXIT_UNKNOWN, exit_code_of
from kvtwist.cli.show import Printer, counted, json_of, table
from kvtwist.cli.workload import Chance, Histogram, Tally, Workload
from kvtwist.client import Client
from kvtwist.client.table import Table
from kvtwist.core.raft.quorum import majority
from kvtwist.errors import KvtwistError, ManyFailed
from kvtwist.wire.clock import make_monotonic

DRAIN_SECONDS = 1.0
"""How long an interrupted run waits for what is in flight."""
PREPARE_KEYS = 1000
"""Keys written with one ``put_many``: so often the preparation shows progress and can be ended."""
PROGRESS_SECONDS = 1.0
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}


class Load:
    """Runs a workload once, and keeps what became of it.

    :param clock: measures, and counts the time that a run may take.

    :ivar prepared: keys that have been written before the measurement.
    :ivar interrupted: whether the run was ended early.
    :ivar table: the topology; ``None`` until it has been told.
    """

    def __init__(self, client: Client, workload: Workload, clock: IReactorTime) -> None:
        self.workload = workload
        self.gets = Tally("get", writes=False)
        self.puts = Tally("put", writes=True)
        self.prepared = 0
        self.interrupted = False
        self.table: Table | None = None
        self._client = client
        self._clock = clock
        self._began_seconds: float | None = None
        self._ended_seconds: float | None = None
        self._left = math.inf
        self._end_seconds = math.inf
        self._over: Deferred[object] = Deferred()

    @property
    def tallies(self) -> list[Tally]:
        """One for each kind of operation that the workload has."""
        gets = [self.gets] if self.workload.read_share > 0 else []
        return [*gets, self.puts] if self.workload.read_share < 1 else gets

    @property
    def answered(self) -> int:
        """How many operations were carried out."""
        return self.gets.answered + self.puts.answered

    @property
    def failed(self) -> int:
        """How many operations were not done, or may not have been."""
        return sum(tally.not_done + tally.unknown for tally in self.tallies)

    @property
    def has_begun(self) -> bool:
        """Whether anything has been measured."""
        return self.gets.started + self.puts.started > 0

    @property
    def elapsed_seconds(self) -> float:
        """How long the measurement took, or has taken."""
        if self._began_seconds is None:
            return 0.0
        ended = self._ended_seconds
        return (self._clock.seconds() if ended is None else ended) - self._began_seconds

    async def run(self) -> None:
        """Prepare, and measure.

        :raises KvtwistError: when there is no cluster, or a key could not be written beforehand.
        """
        Deferred.fromCoroutine(self._work()).addBoth(self._end)
        await self._over
        self._ended_seconds = self._clock.seconds()
        for tally in self.tallies:
            tally.abandon()

    def interrupt(self) -> None:
        """End early: start nothing more, and soon give up what is in flight."""
        self.interrupted = True
        self._clock.callLater(DRAIN_SECONDS, self._end)

    def _end(self, result: object = None) -> None:
        if not self._over.called:
            self._over.callback(result)

    async def _work(self) -> None:
        self.table = await self._client.topology()
        await self._prepare()
        await self._measure()

    async def _prepare(self) -> None:
        keys, value = self.workload.keys_to_prepare, self.workload.value()
        while self.prepared < keys and not self.interrupted:
            end = min(self.prepared + PREPARE_KEYS, keys)
            numbers = range(self.prepared, end)
            await self._client.put_many({self.workload.key(at): value for at in numbers})
            self.prepared = end

    async def _measure(self) -> None:
        chance = Random(self.workload.seed).random
        choose, value = self.workload.choice(chance), self.workload.value()
        limit = self.workload.seconds
        self._left = math.inf if self.workload.count is None else self.workload.count
        self._began_seconds = self._clock.seconds()
        self._end_seconds = math.inf if limit is None else self._began_seconds + limit
        slots = [self._slot(chance, choose, value) for _ in range(self.workload.in_flight)]
        await gatherResults(map(Deferred.fromCoroutine, slots), consumeErrors=True)

    async def _slot(self, chance: Chance, choose: Callable[[], int], value: bytes) -> None:
        """Send an operation, wait for its end, send the next. It shares the processor with the
        nodes that it measures, so that what it does for each is little."""
        client, key_of, seconds = self._client, self.workload.key, self._clock.seconds
        read_share = self.workload.read_share
        while self._left > 0 and not self.interrupted and (began := seconds()) < self._end_seconds:
            self._left -= 1
            reads = chance() < read_share
            tally = self.gets if reads else self.puts
            tally.started += 1
            try:
                if not reads:
                    await client.put(key_of(choose()), value)
                elif await client.get(key_of(choose())) is None:
                    tally.not_found += 1
            except KvtwistError as error:
                tally.failed(error)
            else:
                tally.latencies.add(seconds() - began)


class Progress:
    """A line on a terminal, written over itself once a second.

    :param stream: the terminal; ``None``: there is nobody to show anything to.
    """

    def __init__(self, load: Load, stream: TextIO | None) -> None:
        self._load = load
        self._stream = stream
        self._width = 0
        self._seen = (0.0, 0)

    def start(self, clock: IReactorTime) -> Callable[[], None]:
        """Begin; what is returned ends it, and wipes the line."""
        if self._stream is None:
            return lambda: None
        again = task.LoopingCall(lambda: self._show(self._text()))
        again.clock = clock
        again.start(PROGRESS_SECONDS)

        def stop() -> None:
            if again.running:
                again.stop()
            self._show("")

        return stop

    def _show(self, text: str) -> None:
        assert self._stream is not None
        self._stream.write(f"\r{text:<{self._width}}" + ("" if text else "\r"))
        self._stream.flush()
        self._width = len(text)

    def _text(self) -> str:
        load = self._load
        if load.interrupted:
            return "interrupted: waiting for the last answers"
        if not load.has_begun:
            of = load.workload.keys_to_prepare
            return f"writing keys: {load.prepared:,} of {of:,}" if of else "reaching the cluster"
        now = (load.elapsed_seconds, load.answered)
        seconds, answered = now[0] - self._seen[0], now[1] - self._seen[1]
        self._seen = now
        failed = f", {load.failed:,} failed" if load.failed else ""
        return f"{_so_far(load)}: {_rate(answered, seconds):,.0f} per second{failed}"


def _so_far(load: Load) -> str:
    """How far a run is, by each of its limits."""
    seconds, count = load.workload.seconds, load.workload.count
    of_seconds = f" of {seconds:g}" if seconds is not None else ""
    of_count = f" of {count:,}" if count is not None else ""
    ended = load.answered + load.failed
    return f"{load.elapsed_seconds:.0f}{of_seconds} s, {ended:,}{of_count} operations"


def _rate(number: int, seconds: float) -> float:
    return number / seconds if seconds > 0 else 0.0


# -- the report -----------------------------------------------------------------------------------


def exit_code(load: Load) -> int:
    """What a script has to know: whether everything was done, and if not, in which way."""
    if any(tally.unknown for tally in load.tallies):
        return EXIT_UNKNOWN
    return EXIT_UNAVAILABLE if load.failed or not load.has_begun else EXIT_OK


def report_object(load: Load) -> dict[str, Any]:
    """The report as JSON has it."""
    workload, seconds = load.workload, load.elapsed_seconds
    return {
        "workload": {
            "read_share": workload.read_share,
            "in_flight": workload.in_flight,
            "value_bytes": workload.value_bytes,
            "keys": workload.keys,
            **json_of("prefix", workload.prefix),
            "zipf_exponent": workload.zipf_exponent,
            "seconds": workload.seconds,
            "count": workload.count,
            "seed": workload.seed,
        },
        **_kept_object(load.table),
        "keys_prepared": load.prepared,
        "interrupted": load.interrupted,
        "seconds": round(seconds, 6),
        "operations_per_second": round(_rate(load.answered, seconds), 1),
        "operations": {tally.name: _tally_object(tally, seconds) for tally in load.tallies},
    }


def _kept_object(table_of: Table | None) -> dict[str, Any]:
    if table_of is None:
        return {}
    return {"durable": table_of.settings.durable, "replicas": _replicas(table_of)}


def _tally_object(tally: Tally, seconds: float) -> dict[str, Any]:
    def counts(is_unknown: bool) -> dict[str, int]:
        troubles = tally.troubles.items()
        return {name: one.count for name, one in troubles if one.is_unknown is is_unknown}

    latencies = _latencies_ms(tally.latencies)
    return {
        "done": tally.done,
        "not_found": tally.not_found,
        "not_done": counts(False),
        "unknown": counts(True),
        "first_errors": {name: trouble.first for name, trouble in tally.troubles.items()},
        "operations_per_second": round(_rate(tally.answered, seconds), 1),
        "latency_ms": {name: round(value, 3) for name, value in latencies.items()} or None,
    }


def _latencies_ms(latencies: Histogram) -> dict[str, float]:
    """The figures by their names; none, if nothing was measured."""
    if not latencies.count:
        return {}
    return {
        "mean": latencies.mean_seconds() * 1e3,
        **{name: latencies.percentile_seconds(at) * 1e3 for name, at in PERCENTILES.items()},
        "max": latencies.seconds_max * 1e3,
    }


def report_lines(load: Load) -> list[str]:
    """The report for people."""
    if not load.has_begun:
        early = "interrupted before anything was measured"
        return [early if load.interrupted else "nothing was measured: the time was too short"]
    seconds = load.elapsed_seconds
    ended = ", interrupted" if load.interrupted else ""
    return [
        _workload_line(load.workload),
        *_kept_lines(load.table),
        f"{counted(load.answered, 'operation')} in {seconds:.2f} s{ended}: "
        f"{_rate(load.answered, seconds):,.0f} per second",
        "",
        *table(
            ("OPERATION", "PER SECOND", "DONE", "NOT FOUND", "NOT DONE", "UNKNOWN"),
            [_counts_row(tally, seconds) for tally in load.tallies],
        ),
        "",
        *table(
            ("LATENCY, MS", "MEAN", *(name.upper() for name in PERCENTILES), "MAX"),
            [_latency_row(tally) for tally in load.tallies],
        ),
        *_trouble_lines(load.tallies),
    ]


def _workload_line(workload: Workload) -> str:
    exponent = workload.zipf_exponent
    choice = "uniform" if exponent is None else f"zipf {exponent:g}"
    return (
        f"{workload.read_share:.0%} gets, {workload.in_flight:,} in flight, "
        f"{counted(workload.keys, 'key')} ({choice}), values of {workload.value_bytes:,} bytes"
    )


def _replicas(table_of: Table) -> int:
    """How many replicas each partition has."""
    return len(table_of.replicas[0]) if table_of.settings.durable else 1


def _kept_lines(table_of: Table | None) -> Iterator[str]:
    """What the cluster does for a put: figures are comparable only where that is alike."""
    if table_of is None:
        return
    replicas = _replicas(table_of)
    if not table_of.settings.durable:
        yield "not durable: values are in the memory of one node"
    elif replicas == 1:
        yield "durable: a put is synced to the disk of one node before it is answered"
    else:
        needed = majority(replicas)
        yield f"durable: a put is synced to {needed} of {replicas} disks before it is answered"


def _counts_row(tally: Tally, seconds: float) -> list[str]:
    numbers = (tally.done, tally.not_found, tally.not_done, tally.unknown)
    rate = _rate(tally.answered, seconds)
    return [tally.name, f"{rate:,.0f}", *(f"{number:,}" for number in numbers)]


def _latency_row(tally: Tally) -> list[str]:
    figures = [f"{value:,.2f}" for value in _latencies_ms(tally.latencies).values()]
    return [tally.name, *(figures or ["-"] * (len(PERCENTILES) + 2))]


def _trouble_lines(tallies: list[Tally]) -> Iterator[str]:
    troubles = [(tally, *item) for tally in tallies for item in tally.troubles.items()]
    if troubles:
        yield ""
    for tally, name, trouble in troubles:
        outcome = "unknown" if trouble.is_unknown else "not done"
        yield f"{tally.name}: {trouble.count:,} {outcome}, {name}; the first: {trouble.first}"


# -- the process ----------------------------------------------------------------------------------


async def bench(load: Load, printer: Printer, clock: IReactorTime, terminal: TextIO | None) -> int:
    """Run *load* and report on it. The exit code.

    :param terminal: where to show how far it is.
    """
    end_progress = Progress(load, terminal).start(clock)
    try:
        await load.run()
    except ManyFailed as error:
        printer.error(f"the keys to read could not be written: {error}")
        return max(map(exit_code_of, error.errors.values()))
    finally:
        end_progress()
    if printer.as_json:
        printer.object(report_object(load))
    else:
        for line in report_lines(load):
            printer.line(line)
    return exit_code(load)


def run_bench(peers: str, timeout_seconds: float, printer: Printer, workload: Workload) -> None:
    """Run *workload*, report on it, and exit."""
    task.react(
        lambda reactor: Deferred.fromCoroutine(
            _run(reactor, peers, timeout_seconds, printer, workload)
        )
    )


async def _run(
    reactor: Any, peers: str, timeout_seconds: float, printer: Printer, workload: Workload
) -> None:
    make_monotonic(reactor)
    terminal = sys.stderr if sys.stderr.isatty() and not printer.as_json else None
    reported: Deferred[None] = Deferred()
    try:
        client = Client(reactor, peers, timeout_seconds=timeout_seconds)
        load = Load(client, workload, reactor)
        end_on_shutdown(reactor, load, reported)
        status = await bench(load, printer, reactor, terminal)
    except KvtwistError as error:
        printer.error(str(error))
        status = exit_code_of(error)
    finally:
        reported.callback(None)
    raise SystemExit(status)


def end_on_shutdown(reactor: Any, load: Load, reported: Deferred[None]) -> None:
    """Have Ctrl-C end *load* early, and the reactor run on until *reported* fires.

    A second Ctrl-C does nothing: it would come within `DRAIN_SECONDS`, and Twisted would print a
    traceback about a reactor that cannot be stopped twice.
    """

    def interrupted() -> Deferred[None]:
        if not reported.called:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            load.interrupt()
        return reported

    reactor.addSystemEventTrigger("before", "shutdown", interrupted)
