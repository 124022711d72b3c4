"""One run, from founding to verdict."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, gatherResults
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall, deferLater

from kvtwist.client.client import Client
from kvtwist.core.address import parse_address
from kvtwist.core.ring import partition_of
from kvtwist.errors import StorageError
from kvtwist.wire import commands
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Faults, Happened
from tests.chaos.load import History, Keys, Worker, read_all
from tests.chaos.network import Network
from tests.chaos.outages import Span, good_times, longest, without_stalls
from tests.chaos.remains import survey
from tests.chaos.report import Report, counted, told, too_little
from tests.chaos.schedule import Schedule
from tests.chaos.verdict import wrong_with
from tests.linearizability.history import Kind, Operation

RECOVERY_SECONDS_MAX = 30.0
END_SECONDS_MAX = 20.0
"""An operation ends by its deadline of 5 s: this is far more."""
STOP_SECONDS_MAX = 15.0
OUTAGE_SECONDS_MAX = 10.0
"""In good times. An election takes one or two seconds; a busy machine is allowed for."""
KEYS_PER_PARTITION = 2
_WATCH_SECONDS = 0.2
_STALL_SECONDS_MIN = 1.0
_INTERRUPTIONS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be.

    ``pace``: operations a second of each client in each partition. ``per_second_min``: with fewer
    answers it is invalid. ``options``: of every node, besides ``--partitions``.
    """

    seed: int
    seconds: float
    nodes: int
    clients: int
    partitions: int
    pace: float
    per_second_min: float
    schedule: Schedule
    options: tuple[str, ...] = ()
    no_network: str = ""


class Campaign:
    """A run, on a cluster that is founded.

    :param say: is told of each fault when it begins.
    :ivar history: of all that the clients did, in seconds from about when the load began.
    :ivar report: complete after `judge`.
    """

    def __init__(
        self,
        reactor: Any,
        plan: Plan,
        cluster: Cluster,
        network: Network | None,
        say: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._plan = plan
        self._cluster = cluster
        self._network = network
        self._keys = Keys.of(plan.partitions, KEYS_PER_PARTITION)
        self._control = Client(reactor, cluster.peers, timeout_seconds=1.0)
        origin = time.monotonic()
        self._clock = lambda: time.monotonic() - origin
        self.history = History(self._clock)
        self._faults = Faults(reactor, self._clock, cluster, network, self._leaders, say)
        self._began = self._ended = 0.0
        self._looked = 0.0
        self._stalls: list[Span] = []
        self._rows: tuple[tuple[int, ...], ...] = ()
        self.report = Report(
            plan.seed,
            plan.seconds,
            plan.nodes,
            plan.clients,
            plan.partitions,
            plan.no_network or "namespaces",
        )
        self._problems = self.report.problems

    async def run(self) -> None:
        """Load and faults, recovery, the last reads, the end of all nodes."""
        plan = self._plan
        table = await self._control.topology()
        self._rows = tuple(tuple(_number(each.name) for each in row) for row in table.replicas)
        workers = [self._worker(number) for number in range(1, plan.clients + 1)]
        watch: LoopingCall = LoopingCall(self._look)
        watch.clock = self._reactor
        self._looked = self._clock()
        watch.start(_WATCH_SECONDS)
        working = gatherResults(
            [Deferred.fromCoroutine(worker.run()) for worker in workers], consumeErrors=True
        )
        self._began = self._clock()
        await self._faults.run(plan.schedule, self._began)
        await self._sleep(self._began + plan.seconds - self._clock())
        self._ended = self._clock()
        await self._recover()
        for worker in workers:
            worker.end()
        try:
            await working.addTimeout(END_SECONDS_MAX, self._reactor)
        except TimeoutError:
            self._problems.append(f"some operations did not end within {END_SECONDS_MAX:g} s")
        unread = await read_all(
            self._reactor, self._cluster.peers, self._keys, self.history, RECOVERY_SECONDS_MAX
        )
        self._problems += [f"{key!r} could not be read in the end" for key in unread]
        for worker in workers:
            await worker.close()
        await self._control.close()
        watch.stop()
        self._cluster.look()

    def stop(self) -> None:
        """The end of all nodes, and what they have left. This waits: nothing else is going on."""
        self._problems += self._cluster.stop_all(STOP_SECONDS_MAX)
        self._problems += self._cluster.ended_unasked
        self._problems += self._faults.problems
        self._problems += self._cluster.troubles()
        self.report.snapshots = self._cluster.snapshots()
        try:
            remains = survey(self._cluster.data_directories())
        except StorageError as error:
            self._problems.append(f"what is left cannot be looked at: {error}")
        else:
            self.report.remains = str(remains)
            self._problems += remains.problems

    def judge(self) -> Report:
        """The report: counts, outages, and what the checker says."""
        report, plan = self.report, self._plan
        operations = self.history.recorder.operations()
        report.operations = counted(operations)
        answered = sum(
            each.is_answered and self._began < (each.returned or 0) < self._ended
            for each in operations
        )
        report.answered_per_second = answered / max(1e-9, self._ended - self._began)
        report.errors = dict(self.history.errors)
        report.visit_errors = dict(self.history.visit_errors)
        report.error_examples = dict(self.history.examples)
        happened = self._faults.happened
        report.faults = dict(Counter(each.fault.kind.value for each in happened))
        report.skipped = {kind.value: n for kind, n in self._faults.skipped.items()}
        report.stops_seconds = _rounded(self._faults.stops_seconds)
        report.starts_seconds = _rounded(self._faults.starts_seconds)
        self._measure_outages(operations, happened)
        began = time.monotonic()
        report.wrong = wrong_with(operations, plan.partitions)
        report.judged = (
            f"{len(operations):,} operations on {len(self._keys.all)} keys, "
            f"{time.monotonic() - began:.1f} s"
        )
        report.too_little = too_little(report, plan.schedule, operations, plan.per_second_min)
        return report

    def _measure_outages(self, operations: tuple[Operation, ...], happened: list[Happened]) -> None:
        report, whole = self.report, (self._began, self._ended)
        measured = longest(operations, whole, [[whole]] * self._plan.partitions)
        report.stalls_seconds = _rounded([ended - began for began, ended in self._stalls])
        conditions = without_stalls(self._faults.conditions, self._stalls)
        good = [good_times(row, conditions, self._ended) for row in self._rows]
        in_good_times = longest(operations, whole, good)
        report.outages_seconds = _rounded([each.seconds for each in measured])
        report.outages_in_good_times_seconds = _rounded([each.seconds for each in in_good_times])
        report.longest_outage = told(measured, happened)
        report.longest_in_good_times = told(in_good_times, happened)
        self._problems += [
            f"partition {each.partition} took no write for {each.seconds:.1f} s from "
            f"{each.began:.1f} s on, though a majority of its replicas was well"
            for each in in_good_times
            if each.seconds > OUTAGE_SECONDS_MAX
        ]

    def _worker(self, number: int) -> Worker:
        random = Random(f"client {self._plan.seed} {number}")
        peers, pace = self._cluster.peers, self._plan.pace
        name = f"c{number}"
        return Worker(self._reactor, name, peers, self._keys, self.history, random, pace)

    async def _leaders(self) -> tuple[int, ...]:
        """The node that leads each partition, as most of those say who know; 0: nobody does.

        The owner, where nodes do not tell leaders.
        """
        up = [number for number in self._cluster.numbers if self._cluster.is_up(number)]
        asked = [
            self._control.ask(
                parse_address(self._cluster.peers[number - 1]), commands.DescribeTopology, {}
            )
            for number in up
        ]
        answers: Any = await DeferredList(asked, consumeErrors=True)
        votes: list[Counter[int]] = [Counter() for _ in range(self._plan.partitions)]
        for answer in (answer for is_told, answer in answers if is_told):
            numbers = [0, *(_number(member["name"]) for member in answer["members"])]
            owners = [row[0] + 1 for row in answer["placement"]]
            for vote, leader in zip(votes, answer.get("leaders") or owners, strict=True):
                vote.update([numbers[leader]] if leader else [])
        return tuple(vote.most_common(1)[0][0] if vote else 0 for vote in votes)

    def _look(self) -> None:
        """Whether a node has ended; and whether this process itself was held up."""
        self._cluster.look()
        now = self._clock()
        if now - self._looked > _STALL_SECONDS_MIN:
            self._stalls.append((self._looked, now))
        self._looked = now

    async def _recover(self) -> None:
        """Take back everything; then every partition takes a write."""
        if self._network is not None:
            self._network.cut(())
        self._cluster.look()
        self._cluster.heal()
        began, first = self._clock(), len(self.history.recorder)
        while missing := self._without_write(first):
            if self._clock() - began > RECOVERY_SECONDS_MAX:
                listed = ", ".join(map(str, sorted(missing)))
                self._problems.append(
                    f"partitions {listed} took no write within {RECOVERY_SECONDS_MAX:g} s after "
                    "everything was healed"
                )
                return
            await self._sleep(_WATCH_SECONDS)
        self.report.recovery_seconds = round(self._clock() - began, 2)

    def _without_write(self, first: int) -> set[int]:
        """Partitions with no acknowledged write among the operations from *first* on."""
        partitions = self._plan.partitions
        written = {
            partition_of(each.key, partitions)
            for each in self.history.recorder.operations()[first:]
            if each.kind is not Kind.GET and each.is_answered
        }
        return {*range(partitions)} - written

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, max(0.0, seconds), lambda: None)


def _rounded(seconds: list[float]) -> list[float]:
    return [round(each, 3) for each in seconds]


def _number(name: str) -> int:
    return int(name.removeprefix("node-"))


def run_to_end(reactor: Any, work: Callable[[], Any]) -> None:
    """Run the reactor until the coroutine *work* is done.

    What interrupts it is noted by handlers that raise nothing, before the reactor starts and while
    it runs: what a handler raises while it starts is logged, and the interruption lost. To hold
    signals back meanwhile would not do: another thread may take them, and the main one acts then.

    :raises KeyboardInterrupt: when a signal has stopped the reactor.
    """
    ends: list[Any] = []
    interruptions: list[int] = []
    is_begun = False

    def stop() -> None:
        with suppress(ReactorNotRunning):  # it is being stopped already
            reactor.stop()

    def interrupt(number: int, _: object) -> None:
        interruptions.append(number)
        if is_begun:
            reactor.callFromThread(stop)

    def begin() -> None:
        nonlocal is_begun
        for number in _INTERRUPTIONS:
            signal.signal(number, interrupt)  # the reactor has set its own
        is_begun = True
        if interruptions:
            stop()
            return
        done = Deferred.fromCoroutine(work())
        done.addBoth(ends.append)
        done.addCallback(lambda _: stop())

    before = {number: signal.signal(number, interrupt) for number in _INTERRUPTIONS}
    reactor.callWhenRunning(begin)
    reactor.run()
    for number, handler in before.items():
        signal.signal(number, handler)
    if not ends or interruptions:
        raise KeyboardInterrupt
    if ends[0] is not None:
        ends[0].raiseException()
