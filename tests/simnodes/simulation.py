"""A run: a whole cluster and its clients from their first moment to their end, out of one number.

Four parts: the *founding*; *chaos*, with the plan's faults; *recovery*, in which every partition
must serve within `RECOVERY_SECONDS` of the last fault; and the *last round*, after which all
replicas must be the same and every key is read once more.
"""

from __future__ import annotations

import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure as TwistedFailure
from zope.interface import provider

from kvtwist.client import Client
from kvtwist.core.address import Address
from kvtwist.errors import KvtwistError
from kvtwist.node.replica import Replica
from tests.linearizability.history import ABSENT, Kind, Operation
from tests.simnodes.clients import ClientProcess
from tests.simnodes.clock import Clock
from tests.simnodes.faults import VISITOR_IP, Nemesis
from tests.simnodes.history import GRACE_SECONDS, History
from tests.simnodes.invariants import Inspector
from tests.simnodes.judging import judge
from tests.simnodes.keys import keys_of, one_in_each
from tests.simnodes.ledger import Ledger, Violation
from tests.simnodes.machine import PORT, Machine
from tests.simnodes.network import Network
from tests.simnodes.plan import Plan, draw
from tests.simnodes.stock import StockProcess
from tests.simnodes.surroundings import lowered, uncollected
from tests.simnodes.trace import Trace
from tests.simnodes.watching import watched

FOUNDING_SECONDS = 10.0
RECOVERY_SECONDS = 8.0
SETTLING_SECONDS = 15.0
STEP_SECONDS = 0.05
VISITOR_SECONDS = 3.0
SILENCE_SECONDS = 2.0


class Failure(Exception):
    """A run has found something.

    :ivar seed: that does so again.
    :ivar invariant: what does not hold.
    """

    def __init__(self, plan: Plan, invariant: str, wrong: str, trace: Trace) -> None:
        super().__init__(f"seed {plan.seed}: {wrong}")
        self.plan = plan
        self.seed = plan.seed
        self.invariant = invariant
        self.wrong = wrong
        self.trace = trace

    def alone(self) -> Failure:
        """Itself, without what holds on to the run."""
        cause = self.__cause__
        why = traceback.format_exception(cause) if cause is not None else []
        alone = Failure(self.plan, self.invariant, self.wrong, self.trace)
        alone.add_note("".join(why))
        return alone


@dataclass(frozen=True, slots=True)
class Report:
    """What has happened in a run.

    :ivar counts: of faults, operations and the like, by name.
    :ivar digest: the same for two runs in which the same happened.
    """

    seed: int
    digest: str
    counts: Counter[str] = field(default_factory=Counter)


class Simulation:
    """One run.

    :ivar recovery_seconds: how long it took after the last fault until every partition served.
    """

    recovery_seconds = 0.0

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = random = Random(f"run {plan.seed}")
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.network = Network(self.clock, random, self.trace, plan.links)
        founders = [Address(f"10.0.0.{number}", PORT) for number in range(1, plan.nodes + 1)]
        self.machines = [
            Machine(
                number,
                plan,
                self.network,
                self.trace,
                founders,
                self._clock_rate(),
                self._wrong,
                self._gone,
            )
            for number in range(1, plan.nodes + 1)
        ]
        self.ledger = Ledger({each.name: each.disk for each in self.machines})
        self.inspector = Inspector(self.ledger, self.trace)
        self.history = History(self.clock, self.trace)
        self.history.acknowledged = self.inspector.acknowledged
        self.keys = keys_of(plan)
        self.counters = self.keys[plan.keys :]
        self.peers = [str(each) for each in founders]
        self.clients: list[ClientProcess | StockProcess] = [
            self._client(number) for number in range(plan.clients)
        ]
        for number in range(plan.stock_clients):
            name, ip = f"s{number}", f"10.0.2.{number + 1}"
            self.clients.append(
                StockProcess(
                    name,
                    ip,
                    plan,
                    self.network,
                    self.history,
                    self.keys[: plan.keys],
                    self.counters,
                    founders,
                )
            )
        self.nemesis = Nemesis(
            plan,
            self.clock,
            random,
            self.trace,
            self.network,
            self.machines,
            self.clients,
            self.history,
            self.inspector,
        )
        self._logged: list[str] = []

    def _clock_rate(self) -> float:
        return 1 + self.plan.clock_error * (2 * self.random.random() - 1)

    def _client(self, number: int) -> ClientProcess:
        plan = self.plan
        return ClientProcess(
            f"c{number}",
            f"10.0.1.{number + 1}",
            plan,
            self.network,
            self.history,
            self.keys[: plan.keys],
            self.counters,
            self.peers,
            plan.timeouts_seconds[number % len(plan.timeouts_seconds)],
            self._clock_rate(),
        )

    def _wrong(self, invariant: str, what: str) -> None:
        self.inspector.wrong(invariant, what)

    def _gone(self, name: str) -> None:
        self.inspector.gone(name)

    # -- time -----------------------------------------------------------------------------------

    def _run_for(self, seconds: float) -> None:
        self._run_until(lambda: False, seconds)

    def _run_until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Run until something holds, for so long at most; whether it does."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            if holds():
                return True
            self.clock.run_until(min(end, self.clock.now + STEP_SECONDS))
            self._look()
        return holds()

    def _look(self) -> None:
        """See whether anything is wrong that cannot be raised where it is found."""
        if self.inspector.violation is not None:
            raise self.inspector.violation
        if self._logged:
            raise Violation("nothing_unexpected_is_logged", self._logged[0])
        if self.history.bugs:
            raise Violation("clients_raise_what_they_say", self.history.bugs[0])
        if overdue := self.history.overdue():
            raise Violation("every_operation_ends", f"still waiting: {overdue[:3]}")

    # -- the run --------------------------------------------------------------------------------

    def run(self) -> Report:
        """All of it.

        :raises Failure: when something does not hold.
        """
        try:
            with watched(self.inspector), lowered(self.plan), self._listening():
                self._founding()
                self._chaos()
                self._recovery()
                self._last_round()
                self._look()
        except Violation as violation:
            violation = self.inspector.violation or violation
            raise Failure(self.plan, violation.invariant, str(violation), self.trace) from violation
        except Exception as error:
            known = self.inspector.violation
            name = known.invariant if known else "no_exception"
            wrong = str(known) if known else f"no_exception: {type(error).__name__}: {error}"
            raise Failure(self.plan, name, wrong, self.trace) from error
        return Report(self.plan.seed, self.trace.digest(), self._counts())

    def _founding(self) -> None:
        for machine in self.machines:
            self.clock.after(0.5 * self.random.random(), lambda _, one=machine: one.start())
        if not self._run_until(self._is_founded, FOUNDING_SECONDS):
            raise Violation("founded_in_time", f"not within {FOUNDING_SECONDS} s")

    def _is_founded(self) -> bool:
        return all(each.is_up and each.node.cluster.topology for each in self.machines)

    def _chaos(self) -> None:
        for client in self.clients:
            client.start()
        self.nemesis.begin()
        self._run_for(self.plan.chaos_seconds)
        self.nemesis.stop()
        if self.plan.falls_silent:
            self._rest()
            self._run_for(SILENCE_SECONDS)
        if not self.plan.heals:
            self.nemesis.send_away()

    def _recovery(self) -> None:
        """Each partition serves a write and a read, soon, and whoever asks."""
        self.host = self.network.boot(VISITOR_IP)
        self.visitor = Client(
            self.host, self.peers, timeout_seconds=VISITOR_SECONDS, chance=self.random.random
        )
        began = self.clock.now
        self._have_done([Kind.PUT, Kind.GET], one_in_each(self.plan.partitions))
        self.recovery_seconds = self.clock.now - began
        self.nemesis.heal()

    def _have_done(self, kinds: list[Kind], keys: list[bytes]) -> None:
        """Have the visitor do *kinds*, one after the other, with all *keys* at the same time."""
        end = self.clock.now + RECOVERY_SECONDS

        async def do_all(key: bytes) -> None:
            for kind in kinds:
                await self._until_done(kind, key, end)

        doing = gatherResults([Deferred.fromCoroutine(do_all(key)) for key in keys], True)
        results: list[Any] = []
        doing.addBoth(results.append)
        if not self._run_until(lambda: bool(results), RECOVERY_SECONDS + 2 * VISITOR_SECONDS):
            raise Violation("every_operation_ends", "a visitor's request does not end")
        if isinstance(results[0], TwistedFailure):
            failure = results[0]
            if isinstance(failure.value, FirstError):
                failure = failure.value.subFailure
            failure.raiseException()

    async def _until_done(self, kind: Kind, key: bytes, end: float) -> None:
        history, trouble = self.history, "not tried"
        while self.clock.now < end:
            deadline = self.clock.now + VISITOR_SECONDS + GRACE_SECONDS
            value = history.new_value(self.random, 20) if kind is Kind.PUT else None
            asked = {} if value is None else {"value": value}
            ticket = history.begin("visitor", kind, key, deadline, **asked)
            try:
                if value is not None:
                    answer: dict[str, Any] = {"version": await self.visitor.put(key, value)}
                else:
                    answer = _seen(await self.visitor.get(key))
            except KvtwistError as error:
                history.failed(ticket, key, error)
                trouble = str(error)
                await deferLater(self.host, 0.1, lambda: None)
            else:
                history.answered(ticket, kind, key, **answer)
                return
        raise Violation("every_partition_serves", f"{key!r} is not served again: {trouble}")

    def _last_round(self) -> None:
        """All that was asked ends; all replicas become the same; all keys are read once more."""
        self._run_for(1.0)
        self._rest()
        self._have_done([Kind.GET], self.keys)
        if not self._run_until(self._are_same, SETTLING_SECONDS):
            raise Violation("everybody_catches_up", self._differences())
        for name, one in self._replicas():
            self.inspector.same_digest(name, one)
        judge(self.history.operations(), self.plan, self.counters)

    def _rest(self) -> None:
        """Have nobody ask for anything any more."""
        for client in self.clients:
            client.rest()
        self._run_until(lambda: not self.history.open_count, 2 * max(self.plan.timeouts_seconds))

    def _replicas(self) -> Iterator[tuple[str, Replica]]:
        for machine in self.machines:
            for replica in self.inspector.present(machine.name):
                yield machine.name, replica

    def _are_same(self) -> bool:
        return not self._differences()

    def _differences(self) -> str:
        found: dict[int, set[int]] = {}
        shown = []
        for name, one in self._replicas():
            found.setdefault(one.group, set()).add(one.applied_index)
            shown.append(f"{name} group {one.group}: {one.applied_index}")
        return ", ".join(shown) if any(len(those) > 1 for those in found.values()) else ""

    # -- around it ------------------------------------------------------------------------------

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear what is logged: a failure there is a bug that somebody has caught."""

        @provider(ILogObserver)
        def hear(event: Any) -> None:
            if "log_failure" in event:
                failure = event["log_failure"]
                self._logged.append(f"{event.get('log_format')}: {failure.getTraceback()}")

        globalLogPublisher.addObserver(hear)
        try:
            yield
        finally:
            globalLogPublisher.removeObserver(hear)

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        counts["runs"] = 1
        counts["events"] = self.clock.done
        counts["virtual seconds"] = round(self.clock.now)
        counts["recovery: ms"] = round(1000 * self.recovery_seconds)
        counts[f"recovery: within {2 ** math.ceil(math.log2(self.recovery_seconds))} s"] = 1
        counts["runs with a minority away at the end"] = self.nemesis.is_minority_away
        counts["runs with nodes that lack groups"] = self.plan.nodes > self.plan.replicas
        counts["snapshots installed"] = self.trace.counts["installed"]
        for name, count in self.nemesis.counts.items():
            counts[f"fault: {name}"] = count
        for name, count in self.history.ends.items():
            counts[f"operation: {name}"] = count
        for name, count in self.network.counts.items():
            counts[f"network: {name}"] = count
        for machine in self.machines:
            counts["starts of nodes"] += machine.life
            for name, count in machine.disk.counts.items():
                counts[f"disk: {name}"] += count
        counts["entries"] = sum(each.highest for each in self.ledger.groups.values())
        counts["leaders"] = sum(len(each.leaders) for each in self.ledger.groups.values())
        return counts

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What clients have seen."""
        return self.history.operations()


def _seen(record: Any) -> dict[str, Any]:
    if record is None:
        return {"version": ABSENT, "value": None}
    return {"version": record.version, "value": bytes(record.value)}


def run(seed: int) -> Report:
    """The run of *seed*.

    :raises Failure: as `Simulation.run` does.
    """
    failure: Failure | None = None
    with uncollected():
        try:
            return Simulation(draw(seed)).run()
        except Failure as found:
            failure = found.alone()
    raise failure
