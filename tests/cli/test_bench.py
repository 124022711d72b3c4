"""``kvcli bench``: its pure parts, and whole runs against a cluster in virtual time."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from random import Random
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.cli.bench import (
    DRAIN_SECONDS,
    PREPARE_KEYS,
    Load,
    bench,
    end_on_shutdown,
    report_lines,
    report_object,
    run_bench,
)
from kvtwist.cli.main import cli
from kvtwist.cli.show import Printer
from kvtwist.cli.workload import Histogram, Tally, Workload, uniform, zipfian
from kvtwist.client import Client, Record
from kvtwist.errors import KvtwistError, NoAnswer, TooLarge, Unavailable
from kvtwist.node.limits import Limits
from tests.cluster import CLIENT_IP, PORT, SimulatedCluster, ip_of
from tests.simulated import LATENCY_SECONDS, Host

quickly = settings(deadline=None, max_examples=60)

sizes = st.integers(1, 50)
exponents = st.floats(0, 3)
chances = st.floats(0, 1, exclude_max=True)
times = st.floats(1e-6, 1e3)
LARGEST_CHANCE = math.nextafter(1.0, 0.0)


class UniformTests(SynchronousTestCase):
    """Keys that are all alike."""

    @quickly
    @given(sizes)
    def test_every_number_as_often(self, size: int) -> None:
        """Else the load leaves out keys, and with them maybe a node."""
        even = iter([(step + 0.5) / (4 * size) for step in range(4 * size)])
        draw = uniform(size, lambda: next(even))
        self.assertEqual(Counter(draw() for _ in range(4 * size)), dict.fromkeys(range(size), 4))


class ZipfTests(SynchronousTestCase):
    """Keys of which a few are popular."""

    @quickly
    @given(sizes, exponents)
    def test_frequencies(self, size: int, exponent: float) -> None:
        """Else figures cannot be compared with what others measure with a zipfian load. The chances
        are a grid, so that each count is the exact expectation, give or take one."""
        draws = 2000
        even = iter([(step + 0.5) / draws for step in range(draws)])
        draw = zipfian(size, exponent, lambda: next(even))
        seen = Counter(draw() for _ in range(draws))
        total = math.fsum((number + 1) ** -exponent for number in range(size))
        for number in range(size):
            expected = draws * (number + 1) ** -exponent / total
            self.assertLessEqual(abs(seen[number] - expected), 1.001, number)

    @quickly
    @given(sizes, exponents, chances)
    @example(10, 0.99, LARGEST_CHANCE)
    @example(3, 0.0, LARGEST_CHANCE)
    @example(1, 0.99, 0.0)
    def test_bounds(self, size: int, exponent: float, chance: float) -> None:
        """A key that was never written would look like a lost one."""
        self.assertIn(zipfian(size, exponent, lambda: chance)(), range(size))

    def test_ycsb_default(self) -> None:
        """Written down: with 10,000 keys and 0.99 the first key gets about a tenth of the load."""
        even = iter([(step + 0.5) / 20_000 for step in range(20_000)])
        draw = zipfian(10_000, 0.99, lambda: next(even))
        seen = Counter(draw() for _ in range(20_000))
        self.assertEqual(seen[0], round(20_000 * 0.097806))
        self.assertEqual(sum(seen[number] for number in range(100)), round(20_000 * 0.517839))


class HistogramTests(SynchronousTestCase):
    """Latencies."""

    @quickly
    @given(st.lists(times, min_size=1, max_size=300), st.sampled_from(["50", "90", "99", "99.9"]))
    @example([1e-6], "50")
    @example([1e3], "99")
    def test_percentiles(self, seconds: list[float], percent: str) -> None:
        """Promised: an error of at most 1 %, at any size of the latencies."""
        histogram = filled(seconds)
        rank = math.ceil(Fraction(percent) * len(seconds) / 100)
        exact = sorted(seconds)[rank - 1]
        read = histogram.percentile_seconds(float(percent))
        self.assertLessEqual(abs(read - exact), 0.01 * exact)
        self.assertLessEqual(read, histogram.seconds_max)

    @quickly
    @given(st.lists(times, min_size=1))
    def test_exact_figures(self, seconds: list[float]) -> None:
        """Count, mean and maximum are no estimates."""
        histogram = filled(seconds)
        self.assertEqual((histogram.count, histogram.seconds_max), (len(seconds), max(seconds)))
        mean = math.fsum(seconds) / len(seconds)
        self.assertAlmostEqual(histogram.mean_seconds() / mean, 1.0)

    def test_times_out_of_range(self) -> None:
        """A clock that stands still, or a timeout of days, must not end a long run."""
        histogram = filled([0.0, 1e-9, 1e9])
        self.assertEqual((histogram.count, histogram.seconds_max), (3, 1e9))
        self.assertLess(histogram.percentile_seconds(50), 1.02e-6)
        self.assertGreater(histogram.percentile_seconds(99), 0.99e3)

    def test_no_time(self) -> None:
        """A run in which everything failed still has a report."""
        self.assertEqual(Histogram().percentile_seconds(50), 0.0)
        self.assertEqual(Histogram().mean_seconds(), 0.0)

    def test_memory(self) -> None:
        """Else a run of a night ends for lack of it."""
        chance = Random(1).random
        histogram = filled(10 ** (chance() * 12 - 7) for _ in range(20_000))
        self.assertLess(sum(map(sys.getsizeof, vars(histogram).values())), 9000)


class TallyTests(SynchronousTestCase):
    """What became of the operations."""

    def test_failed_writes(self) -> None:
        """Whoever reads "not done" trusts that nothing was written."""
        tally = Tally("put", writes=True)
        for error in (Unavailable("a"), TooLarge("b"), NoAnswer("c"), KvtwistError("d")):
            tally.failed(error)
        self.assertEqual((tally.not_done, tally.unknown, tally.done), (2, 2, 0))

    def test_failed_reads(self) -> None:
        """A read changes nothing, so that there is nothing unknown about it."""
        tally = Tally("get", writes=False)
        tally.failed(NoAnswer("no answer"))
        self.assertEqual((tally.not_done, tally.unknown), (1, 0))

    def test_first_of_each_kind(self) -> None:
        """Thousands of errors are shown as one line for each kind: how many, and what the first
        one said."""
        tally = Tally("put", writes=True)
        for at in range(1000):
            tally.failed(Unavailable(f"number\n {at}"))
            tally.failed(TooLarge(f"large {at}"))
        troubles = {name: (one.count, one.first) for name, one in tally.troubles.items()}
        expected = {"Unavailable": (1000, "number 0"), "TooLarge": (1000, "large 0")}
        self.assertEqual(troubles, expected)

    def test_abandoned(self) -> None:
        """A put in flight at the end may have been done: leaving it out would hide that."""
        for writes, expected in ((True, (0, 6)), (False, (6, 0))):
            tally = Tally("any", writes)
            tally.started = 10
            tally.latencies.add(0.1)
            tally.latencies.add(0.1)
            tally.failed(Unavailable())
            tally.failed(Unavailable())
            tally.abandon()
            not_done, unknown = expected
            self.assertEqual((tally.not_done, tally.unknown), (not_done + 2, unknown))
            tally.abandon()
            self.assertEqual(tally.not_done + tally.unknown, 8)


class Watched(Client):
    """A client that notes what is asked of it."""

    def __init__(self, reactor: Any, peers: list[str], timeout_seconds: float) -> None:
        super().__init__(reactor, peers, timeout_seconds=timeout_seconds, chance=lambda: 0.5)
        self.asked: list[tuple[str, bytes]] = []
        self.values: set[bytes] = set()
        self.many: list[int] = []
        self.in_flight = 0
        self.in_flight_max = 0

    def get(self, key: bytes | str) -> Deferred[Record | None]:
        """Read."""
        return self.noted("get", key, super().get(key))

    def put(self, key: bytes | str, value: bytes | str) -> Deferred[int]:
        """Write."""
        assert isinstance(value, bytes)
        self.values.add(value)
        return self.noted("put", key, super().put(key, value))

    def put_many(self, mapping: Any) -> Deferred[Any]:
        """Write several."""
        self.many.append(len(mapping))
        return super().put_many(mapping)

    def noted(self, name: str, key: bytes | str, answer: Deferred[Any]) -> Deferred[Any]:
        """Count *answer* as in flight until it is there."""
        assert isinstance(key, bytes)
        self.asked.append((name, key))
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

        def ended(result: Any) -> Any:
            self.in_flight -= 1
            return result

        return answer.addBoth(ended)


class ClusterTestCase(SynchronousTestCase):
    """Three nodes in virtual time, and a run against them."""

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(limits=Limits(value_bytes_max=1000))
        self.cluster.found()
        self.host = self.cluster.network.host(CLIENT_IP)
        self.output, self.errors = StringIO(), StringIO()
        self.patch(sys, "stdout", self.output)
        self.patch(sys, "stderr", self.errors)
        self.terminal = StringIO()
        self.client = self.new_client()

    def new_client(self, timeout_seconds: float = 1.0) -> Watched:
        """Another client, which knows all nodes."""
        peers = [f"{ip_of(number)}:{PORT}" for number in (1, 2, 3)]
        return Watched(self.host, peers, timeout_seconds)

    def load(self, **wanted: Any) -> Load:
        """A run that is short unless it is told otherwise."""
        defaults: dict[str, Any] = {"in_flight": 4, "keys": 20, "seconds": None, "seed": 7}
        return Load(self.client, Workload(**(defaults | wanted)), self.host)

    def begin(self, load: Load, as_json: bool = False, terminal: bool = False) -> Deferred[int]:
        """Run *load*, and report."""
        printer, shown = Printer(as_json), self.terminal if terminal else None
        return Deferred.fromCoroutine(bench(load, printer, self.host, shown))

    def result(self, work: Deferred[int], seconds: float = 60.0) -> int:
        """Let time pass until the report is there; the exit code."""
        status: int = self.cluster.network.result_of(work, seconds)
        return status

    def run_to_end(self, load: Load, as_json: bool = False) -> int:
        """Both."""
        return self.result(self.begin(load, as_json))

    def assert_between(self, actual: float, low: float, high: float) -> None:
        """Both ends are in."""
        self.assertGreaterEqual(actual, low)
        self.assertLessEqual(actual, high)

    def printed(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        self.assertEqual(self.output.getvalue().count("\n"), 1)
        said: dict[str, Any] = json.loads(self.output.getvalue())
        return said


class LoadTests(ClusterTestCase):
    """What is sent, and for how long."""

    def test_count(self) -> None:
        """``--count`` is exact, however many are in flight."""
        for in_flight in (1, 7, 100):
            load = self.load(count=50, in_flight=in_flight)
            self.assertEqual(self.run_to_end(load), 0)
            self.assertEqual((load.gets.done + load.puts.done, load.failed), (50, 0))

    def test_in_flight(self) -> None:
        """The figure that latencies must be read with: never more, and not fewer."""
        self.run_to_end(self.load(count=100, in_flight=9, read_share=0))
        self.assertEqual((self.client.in_flight_max, self.client.in_flight), (9, 0))

    def test_seconds(self) -> None:
        """``--seconds`` ends the run, and what is then in flight is waited for."""
        load = self.load(seconds=3.0, read_share=0)
        began = self.host.seconds()
        self.run_to_end(load)
        self.assert_between(load.elapsed_seconds, 3.0, 3.1)
        self.assert_between(self.host.seconds() - began, 3.0, 3.2)
        self.assertEqual(load.puts.done, load.puts.started)

    def test_seconds_and_count(self) -> None:
        """Whichever comes first ends the run."""
        soon, late = self.load(seconds=0.5, count=10**9), self.load(seconds=1000.0, count=10)
        self.run_to_end(soon)
        self.run_to_end(late)
        self.assert_between(soon.elapsed_seconds, 0.5, 0.6)
        self.assertEqual(late.answered, 10)

    def test_latencies(self) -> None:
        """What is reported is what passed between request and answer: here twice the network's
        latency, since a client goes straight to the owner and nodes take no time."""
        self.run_to_end(self.load(count=20, in_flight=20))  # every link is up from here on
        load = self.load(count=200, prepare=False)
        self.run_to_end(load)
        for tally in (load.gets, load.puts):
            self.assertAlmostEqual(tally.latencies.mean_seconds(), 2 * LATENCY_SECONDS)
            self.assertAlmostEqual(tally.latencies.seconds_max, 2 * LATENCY_SECONDS)
        expected = 4 / (2 * LATENCY_SECONDS)
        self.assertAlmostEqual(load.answered / load.elapsed_seconds / expected, 1.0)

    def test_gets_find_their_keys(self) -> None:
        """Reading keys that are not there measures something else."""
        load = self.load(count=100, read_share=1, keys=PREPARE_KEYS + 3)
        self.assertEqual(self.run_to_end(load), 0)
        self.assertEqual((load.gets.done, load.gets.not_found), (100, 0))
        self.assertEqual(self.client.many, [PREPARE_KEYS, 3])
        self.assertEqual({name for name, _ in self.client.asked}, {"get"})

    def test_no_prepare(self) -> None:
        """``--no-prepare`` leaves the keys alone; a get that finds nothing was carried out."""
        load = self.load(count=30, read_share=1, prepare=False)
        self.assertEqual(self.run_to_end(load), 0)
        self.assertEqual((load.gets.done, load.gets.not_found, load.failed), (0, 30, 0))
        self.assertEqual(self.client.many, [])

    def test_puts_need_no_preparation(self) -> None:
        """It would only take time."""
        load = self.load(count=30, read_share=0)
        self.run_to_end(load)
        self.assertEqual((self.client.many, load.puts.done), ([], 30))

    def test_mixed(self) -> None:
        """``--read-share`` is kept."""
        load = self.load(count=2000, read_share=0.2)
        self.run_to_end(load)
        self.assert_between(load.gets.done, 350, 450)
        self.assertEqual(load.gets.done + load.puts.done, 2000)

    def test_keys_and_values(self) -> None:
        """Only keys with the prefix are touched: a cluster with data can be measured."""
        self.run_to_end(self.load(count=400, read_share=0, keys=5, prefix=b"p:", value_bytes=77))
        self.assertEqual({key for _, key in self.client.asked}, {b"p:%d" % at for at in range(5)})
        self.assertEqual([len(value) for value in self.client.values], [77])

    def test_zipf(self) -> None:
        """``--distribution zipf`` has popular keys; ``uniform`` has none."""
        self.run_to_end(self.load(count=500, read_share=0, zipf_exponent=1.5))
        skewed = Counter(self.client.asked)
        self.client = self.new_client()
        self.run_to_end(self.load(count=500, read_share=0))
        even = Counter(self.client.asked)
        self.assertGreater(skewed["put", b"bench:0"], 150)
        self.assertLess(max(even.values()), 60)

    def test_seed(self) -> None:
        """The same seed asks the same again; another one does not."""
        asked = []
        for seed in (1, 1, 2):
            self.client = self.new_client()
            self.run_to_end(self.load(count=100, seed=seed))
            asked.append((self.client.asked, self.client.values))
        self.assertEqual(asked[0], asked[1])
        self.assertNotEqual(asked[0], asked[2])


class TroubleTests(ClusterTestCase):
    """Clusters that do not do what is asked of them."""

    def test_crashed_before(self) -> None:
        """Errors are counted and do not end the run; exit 3 says that some were not done."""
        self.cluster.crash(2)
        load = self.load(seconds=2.0, prepare=False, in_flight=8)
        self.assertEqual(self.run_to_end(load), 3)
        self.assertGreater(load.answered, 0)
        self.assertGreater(load.gets.not_done, 0)
        self.assertGreater(load.puts.not_done, 0)
        self.assertEqual(load.puts.unknown, 0)
        self.assertRegex(self.output.getvalue(), r"\nput: \d+ not done, Unavailable; the first: .*")
        self.assertEqual(self.output.getvalue().count("Unavailable"), 2)
        self.assertEqual(self.errors.getvalue(), "")

    def test_crashed_meanwhile(self) -> None:
        """What was in flight to a node that dies may have been done: exit 5, and counted so."""
        load = self.load(seconds=2.0, read_share=0, in_flight=30)
        work = self.begin(load, as_json=True)
        self.cluster.run(0.3)
        self.cluster.crash(2)
        self.assertEqual(self.result(work), 5)
        puts = self.printed()["operations"]["put"]
        self.assertEqual(list(puts["unknown"]), ["NoAnswer"])
        self.assertEqual(sum(puts["unknown"].values()), load.puts.unknown)
        self.assertGreater(load.puts.unknown, 0)
        self.assertEqual(list(puts["not_done"]), ["Unavailable"])
        self.assertIn("lost", puts["first_errors"]["NoAnswer"])
        self.assertEqual(puts["done"] + load.failed, load.puts.started)

    def test_times_of_failures(self) -> None:
        """A timeout is no latency: it would hide how fast the others were."""
        self.cluster.crash(2)
        load = self.load(seconds=2.0, prepare=False)
        self.run_to_end(load)
        self.assertLess(load.puts.latencies.seconds_max, 1.0)
        self.assertEqual(load.puts.latencies.count + load.puts.not_done, load.puts.started)

    def test_refused(self) -> None:
        """A value over the limit: the error that names the setting, once."""
        load = self.load(count=40, read_share=0, value_bytes=1001)
        self.assertEqual(self.run_to_end(load), 3)
        self.assertEqual(load.puts.not_done, 40)
        self.assertEqual(self.output.getvalue().count("value_bytes_max"), 1)

    def test_preparation_fails(self) -> None:
        """Measuring gets of keys that are not there would mislead; the exit code tells why, as it
        does for a single put."""
        self.assertEqual(self.run_to_end(self.load(count=10, value_bytes=1001)), 4)
        self.cluster.crash(2)
        self.assertEqual(self.run_to_end(self.load(count=10)), 3)
        self.assertEqual(self.output.getvalue(), "")
        self.assertEqual(self.errors.getvalue().count("the keys to read could not be written"), 2)
        self.assertIn("20 of 20 keys failed", self.errors.getvalue())

    def test_no_cluster(self) -> None:
        """Told after one timeout: not with a report that counts nothing but errors."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        work = self.begin(self.load(seconds=100.0))
        self.assertRaises(Unavailable, self.result, work, 2.1)


class InterruptionTests(ClusterTestCase):
    """Ctrl-C."""

    def test_results_so_far(self) -> None:
        """They are printed, and quickly."""
        load = self.load(seconds=1000.0)
        work = self.begin(load)
        self.cluster.run(1.0)
        load.interrupt()
        self.assertEqual(self.result(work, 0.05), 0)
        self.assertGreater(load.answered, 1000)
        self.assertIn(", interrupted: ", self.output.getvalue())

    def test_a_node_that_is_silent(self) -> None:
        """It delays the report by a second, not by a timeout, and what it was asked to write is
        counted as unknown. An answer that comes later changes nothing."""
        self.client = self.new_client(timeout_seconds=10.0)
        load = self.load(seconds=1000.0, in_flight=20)
        work = self.begin(load)
        self.cluster.run(0.5)
        silent = self.cluster.network.host(ip_of(2))
        silent.freeze()
        self.cluster.run(0.5)
        load.interrupt()
        self.assertEqual(self.result(work, DRAIN_SECONDS + 0.05), 5)
        self.assertEqual((load.gets.not_done + load.puts.unknown, self.client.in_flight), (20, 20))
        self.assertIn("unknown, Interrupted; the first: ", self.output.getvalue())
        asked = len(self.client.asked)
        silent.thaw()
        self.cluster.run(10.0)
        self.assertEqual((self.client.in_flight, len(self.client.asked)), (0, asked))

    def test_during_the_preparation(self) -> None:
        """Nothing was measured: no empty table, and no exit code that says all is well."""
        load = self.load(count=10, keys=100_000)
        work = self.begin(load)
        self.cluster.run(0.02)
        load.interrupt()
        self.assertEqual(self.result(work), 3)
        self.assertLess(load.prepared, 50_000)
        self.assertEqual(self.output.getvalue(), "interrupted before anything was measured\n")

    def test_shutdown_waits_for_the_report(self) -> None:
        """Else the reactor is gone, and the process with it, before anything is printed."""
        handled: list[Any] = []
        self.patch(signal, "signal", lambda *given: handled.append(given))
        load, reported, reactor = self.load(seconds=1000.0), Deferred[None](), Ending(self.host)
        end_on_shutdown(reactor, load, reported)
        work = self.begin(load)
        work.addCallback(lambda _: reported.callback(None))
        self.cluster.run(1.0)
        stopping = reactor.triggers["before", "shutdown"]()
        self.assertTrue(load.interrupted)
        self.assertNoResult(stopping)
        self.assertEqual(handled, [(signal.SIGINT, signal.SIG_IGN)])
        self.cluster.run(0.1)
        self.assertIn(", interrupted: ", self.output.getvalue())
        self.successResultOf(stopping)

    def test_shutdown_after_the_report(self) -> None:
        """The usual end is no interruption."""
        load, reported, reactor = self.load(count=1), Deferred[None](), Ending(self.host)
        end_on_shutdown(reactor, load, reported)
        reported.callback(None)
        self.successResultOf(reactor.triggers["before", "shutdown"]())
        self.assertFalse(load.interrupted)


class ProcessTests(ClusterTestCase):
    """What the process ends with."""

    def status_of(self, peers: str) -> int:
        """Run ``kvcli bench`` on the client's host; the status it would exit with."""
        mains: list[Callable[[Any], Deferred[None]]] = []
        self.patch(sys.modules["kvtwist.cli.bench"], "make_monotonic", lambda _: None)
        self.patch(task, "react", mains.append)
        run_bench(peers, 1.0, Printer(as_json=False), Workload(count=10, keys=5))
        ended = mains[0](Ending(self.host))
        code = self.assertRaises(SystemExit, self.cluster.network.result_of, ended).code
        assert isinstance(code, int)
        return code

    def test_done(self) -> None:
        """A script goes on."""
        self.assertEqual(self.status_of(f"{ip_of(1)}:{PORT}"), 0)
        self.assertIn("10 operations in ", self.output.getvalue())

    def test_unreachable(self) -> None:
        """One line says why."""
        self.assertEqual(self.status_of(f"{ip_of(9)}:{PORT}"), 3)
        self.assertRegex(self.errors.getvalue(), r"^kvcli: .*connection refused.*\n$")

    def test_peers_that_cannot_be_read(self) -> None:
        """The same, with the status for a wrong command line."""
        self.assertEqual(self.status_of("nonsense"), 2)
        self.assertEqual(self.errors.getvalue().count("\n"), 1)


class Ending:
    """A reactor that also knows of its end."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.triggers: dict[tuple[str, str], Callable[[], Deferred[None]]] = {}

    def addSystemEventTrigger(
        self, phase: str, event: str, call: Callable[[], Deferred[None]]
    ) -> None:
        """Keep it."""
        self.triggers[phase, event] = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


class ReportTests(ClusterTestCase):
    """What is printed."""

    def test_text(self) -> None:
        """The whole of it: virtual time gives the same figures each time."""
        self.run_to_end(self.load(count=20, in_flight=20))  # every link is up from here on
        self.output.truncate(0)
        self.output.seek(0)
        self.run_to_end(self.load(count=2400, read_share=0.25, zipf_exponent=0.99))
        self.assertEqual(
            self.output.getvalue(),
            "25% gets, 4 in flight, 20 keys (zipf 0.99), values of 100 bytes\n"
            "not durable: values are in the memory of one node\n"
            "2,400 operations in 1.20 s: 2,000 per second\n"
            "\n"
            "OPERATION  PER SECOND   DONE  NOT FOUND  NOT DONE  UNKNOWN\n"
            "get               544    653          0         0        0\n"
            "put             1,456  1,747          0         0        0\n"
            "\n"
            "LATENCY, MS  MEAN   P50   P90   P99  P99.9   MAX\n"
            "get          2.00  1.99  1.99  1.99   1.99  2.00\n"
            "put          2.00  1.99  1.99  1.99   1.99  2.00\n",
        )

    def test_what_a_put_means(self) -> None:
        """Figures of a cluster that syncs nothing, or to one disk, would be held against those of
        one that syncs to a majority."""
        for durable, replicas, line in (
            (False, 3, "not durable: values are in the memory of one node"),
            (True, 1, "durable: a put is synced to the disk of one node before it is answered"),
            (True, 3, "durable: a put is synced to 2 of 3 disks before it is answered"),
            (True, 4, "durable: a put is synced to 3 of 4 disks before it is answered"),
        ):
            load = self.load(count=4)
            self.run_to_end(load)
            assert load.table is not None
            settings = replace(load.table.settings, durable=durable)
            row = (load.table.members[0],) * replicas
            load.table = replace(load.table, settings=settings, replicas=(row,))
            self.assertEqual(report_lines(load)[1], line)
            said = report_object(load)
            self.assertEqual(
                (said["durable"], said["replicas"]), (durable, replicas if durable else 1)
            )

    def test_no_time_for_anything(self) -> None:
        """The same for a time that is over at once."""
        self.assertEqual(self.run_to_end(self.load(seconds=1e-300)), 3)
        said = "nothing was measured: the time was too short\n"
        self.assertEqual(self.output.getvalue(), said)

    def test_json(self) -> None:
        """One object with every figure, for programs."""
        load = self.load(count=300, read_share=1, prefix=b"\xff:")
        self.assertEqual(self.run_to_end(load, as_json=True), 0)
        said = self.printed()
        self.assertEqual(said["workload"]["prefix_base64"], "/zo=")
        self.assertEqual(said["workload"]["count"], 300)
        self.assertEqual((said["interrupted"], said["keys_prepared"]), (False, 20))
        self.assertEqual(list(said["operations"]), ["get"])
        gets = said["operations"]["get"]
        figures = ["p50", "p90", "p99", "p99.9", "max"]
        self.assertEqual(list(gets["latency_ms"]), ["mean", *figures])
        rising = [gets["latency_ms"][name] for name in figures]
        self.assertEqual(rising, sorted(rising))
        self.assertEqual((gets["done"], gets["not_found"]), (300, 0))
        self.assertEqual((gets["not_done"], gets["unknown"], gets["first_errors"]), ({}, {}, {}))
        self.assertAlmostEqual(said["operations_per_second"] * said["seconds"], 300, delta=1)

    def test_json_without_an_answer(self) -> None:
        """``null`` for latencies that there are none of: a 0 would be taken for a fast cluster."""
        self.run_to_end(self.load(count=4, read_share=0, value_bytes=1001), as_json=True)
        puts = self.printed()["operations"]["put"]
        self.assertEqual((puts["latency_ms"], puts["not_done"]), (None, {"TooLarge": 4}))

    def test_progress(self) -> None:
        """On a terminal one line, written over once a second and wiped in the end."""
        load = self.load(seconds=3.5, read_share=0)
        self.result(self.begin(load, terminal=True))
        first, *lines, wiped, end = self.terminal.getvalue().split("\r")[1:]
        self.assertEqual(first, "reaching the cluster")
        self.assertEqual(len(lines), 3)
        for at, line in enumerate(lines, start=1):
            self.assertRegex(line, rf"^{at} of 3.5 s, [\d,]+ operations: [12],\d+ per second *$")
        self.assertEqual((wiped.strip(), end), ("", ""))
        self.assertEqual(len(wiped), len(lines[-1]))
        self.assertNotIn("\n", self.terminal.getvalue())

    def test_progress_of_preparation_and_failures(self) -> None:
        """What one wants to know while it lasts."""
        self.client = self.new_client(timeout_seconds=3.0)
        load = self.load(seconds=12.0, count=10**6, keys=5000, in_flight=8)
        work = self.begin(load, terminal=True)
        silent = self.cluster.network.host(ip_of(2))
        while not load.prepared:
            self.cluster.run(LATENCY_SECONDS)
        silent.freeze()
        self.cluster.run(1.5)
        silent.thaw()
        self.cluster.run(1.0)
        self.cluster.crash(2)
        self.cluster.run(4.0)
        load.interrupt()
        self.result(work)
        shown = self.terminal.getvalue()
        self.assertRegex(shown, r"\rwriting keys: [1-4],000 of 5,000 *\r")
        self.assertRegex(
            shown, r"\r\d of 12 s, [\d,]+ of 1,000,000 operations: [\d,]+ per second, \d+ failed"
        )
        self.assertIn(" operations: 0 per second", shown)  # of the last second, not of the run
        self.assertIn("\rinterrupted: waiting for the last answers", shown)

    def test_no_terminal(self) -> None:
        """A log file is no place for a progress bar."""
        self.run_to_end(self.load(count=10))
        self.assertEqual(self.errors.getvalue(), "")


class CommandLineTests(SynchronousTestCase):
    """Options."""

    def setUp(self) -> None:
        self.runs: list[tuple[Any, ...]] = []
        self.patch(sys.modules["kvtwist.cli.bench"], "run_bench", lambda *a: self.runs.append(a))

    def invoke(self, *arguments: str) -> Result:
        """Run ``kvcli``."""
        return CliRunner().invoke(cli, arguments)

    def workload(self, *arguments: str) -> Workload:
        """What ``kvcli bench`` makes of *arguments*."""
        done = self.invoke("bench", *arguments)
        self.assertEqual((done.exit_code, done.output), (0, ""))
        workload: Workload = self.runs.pop()[3]
        return workload

    def test_defaults(self) -> None:
        """As the help says them."""
        self.assertEqual(
            self.workload(),
            Workload(
                read_share=0.5,
                in_flight=64,
                value_bytes=100,
                keys=10_000,
                prefix=b"bench:",
                zipf_exponent=None,
                seconds=10.0,
                count=None,
                seed=1,
                prepare=True,
            ),
        )

    def test_options(self) -> None:
        """Each does what it is for."""
        given = (
            "--workload=mixed --read-share=0.9 --in-flight=5 --value-bytes=0 --keys=3 --prefix=x "
            "--distribution=zipf --zipf-exponent=1.2 --seconds=2.5 --count=9 --seed=4 --no-prepare"
        )
        self.assertEqual(
            self.workload(*given.split()),
            Workload(0.9, 5, 0, 3, b"x", 1.2, 2.5, 9, 4, prepare=False),
        )

    def test_workloads_and_limits(self) -> None:
        """Names stand for shares; a count alone has no time limit beside it."""
        self.assertEqual(self.workload("--workload=get").read_share, 1.0)
        self.assertEqual(self.workload("--workload=put").read_share, 0.0)
        self.assertEqual(self.workload("--distribution=zipf").zipf_exponent, 0.99)
        self.assertIsNone(self.workload("--count=5").seconds)
        self.assertEqual(self.workload("--count=5", "--seconds=3").seconds, 3.0)

    def test_options_before_the_command(self) -> None:
        """``--peers``, ``--timeout`` and ``--json`` work as everywhere."""
        self.invoke("--peers=:1,:2", "--timeout=2", "bench", "--json")
        peers, timeout_seconds, printer, _ = self.runs.pop()
        self.assertEqual((peers, timeout_seconds, printer.as_json), (":1,:2", 2.0, True))

    def test_usage(self) -> None:
        """Options that cannot be meant are refused, not passed over: exit 2."""
        for wrong in (
            ("--workload=put", "--read-share=0.5"),
            ("--zipf-exponent=1",),
            ("--seconds=0",),
            ("--seconds=nan",),
            ("--seconds=inf",),
            ("--count=0",),
            ("--in-flight=0",),
            ("--keys=0",),
            ("--read-share=1.1",),
            ("--read-share=nan",),
            ("--distribution=zipf", "--zipf-exponent=nan"),
            ("--workload=scan",),
        ):
            self.assertEqual(self.invoke("bench", *wrong).exit_code, 2, wrong)
        self.assertEqual(self.runs, [])

    def test_help(self) -> None:
        """It teaches by examples, and warns of what is overwritten."""
        said = self.invoke("bench", "--help").output
        self.assertIn("kvcli bench --workload=get --in-flight=256 --seconds=30\n", said)
        self.assertIn("OVERWRITTEN", said)


def filled(seconds: Any) -> Histogram:
    """A histogram of *seconds*."""
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram
