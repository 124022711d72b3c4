"""Does to the cluster what the schedule says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests.chaos.cluster import Cluster
from tests.chaos.network import Network
from tests.chaos.outages import Condition
from tests.chaos.schedule import FREEZES, KILLS, NETWORK, Fault, Kind, Schedule, isolation

_LOOK_SECONDS = 0.05
_TARGET_SECONDS_MAX = 5.0
"""So long somebody may be looked for who leads."""
STOP_SECONDS_MAX = 15.0
START_SECONDS_MAX = 20.0

Leaders = Callable[[], Awaitable[tuple[int, ...]]]
"""Asks the cluster which node leads each partition; 0: nobody knows."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A fault as it came to pass. Times are on the history's clock."""

    fault: Fault
    nodes: tuple[int, ...]
    began: float
    ended: float


class Faults:
    """Lets the faults of a schedule happen.

    :param clock: the history's.
    :param say: is told of each fault when it begins.
    :ivar happened: so far, those that are over.
    :ivar conditions: how the cluster was meanwhile.
    :ivar skipped: faults for which there was no target: nobody led, or only nodes that were down.
    :ivar stops_seconds: how long each node that was told to stop took.
    :ivar starts_seconds: how long each node took to be part of the cluster again.
    :ivar problems: what the cluster did wrong meanwhile: a node that would not stop, or start.
    """

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float],
        cluster: Cluster,
        network: Network | None,
        leaders: Leaders,
        say: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._say = say
        self._cluster = cluster
        self._network = network
        self._leaders = leaders
        self.happened: list[Happened] = []
        self.conditions: list[Condition] = []
        self.skipped: Counter[Kind] = Counter()
        self.stops_seconds: list[float] = []
        self.starts_seconds: list[float] = []
        self.problems: list[str] = []
        self._starting: set[int] = set()

    async def run(self, schedule: Schedule, began: float) -> None:
        """All of it; *began* is when the load did. Each track is one thing after another."""
        self._note()
        tracks = (
            [fault for fault in schedule if fault.kind not in NETWORK],
            [fault for fault in schedule if fault.kind in NETWORK],
        )
        running = [Deferred.fromCoroutine(self._track(track, began)) for track in tracks]
        await gatherResults(running, consumeErrors=True)

    async def _track(self, track: list[Fault], began: float) -> None:
        for fault in track:
            await self._pause(began + fault.at_seconds - self._clock())
            await self._one(fault)

    async def _one(self, fault: Fault) -> None:
        nodes = await self._targets(fault)
        end = self._clock() + _TARGET_SECONDS_MAX
        while fault.partitions and not nodes and self._clock() < end:
            await self._pause(_LOOK_SECONDS)
            nodes = await self._targets(fault)
        if not nodes and not fault.cuts:
            self.skipped[fault.kind] += 1
            return
        began = self._clock()
        who = ", ".join(map(str, nodes)) or " ".join(f"{a}>{b}" for a, b in sorted(fault.cuts))
        self._say(f"{began:7.2f} s  {fault.kind.value}: {who}")
        if fault.kind in NETWORK:
            await self._cut(fault, nodes)
        elif fault.kind in FREEZES:
            await self._freeze(fault, nodes)
        elif fault.kind in KILLS:
            await self._kill(fault, nodes)
        elif fault.kind is Kind.RESTART:
            await self._restart(nodes[0], fault.seconds)
        else:
            await self._roll(nodes, fault.seconds)
        self.happened.append(Happened(fault, nodes, began, self._clock()))

    async def _targets(self, fault: Fault) -> tuple[int, ...]:
        """The nodes that it happens to."""
        if not fault.partitions:
            return fault.nodes
        leaders = await self._leaders()
        led = {leaders[partition] for partition in fault.partitions if leaders}
        return tuple(node for node in sorted(led) if node and self._cluster.is_up(node))

    async def _cut(self, fault: Fault, nodes: tuple[int, ...]) -> None:
        assert self._network is not None, "the schedule is for a network of our own"
        alone = (isolation(node, self._cluster.numbers) for node in nodes)
        self._network.cut(fault.cuts.union(*alone))
        self._note()
        await self._pause(fault.seconds)
        self._network.cut(())
        self._note()

    async def _freeze(self, fault: Fault, nodes: tuple[int, ...]) -> None:
        for node in nodes:
            self._cluster.freeze(node)
        self._note()
        await self._pause(fault.seconds)
        for node in nodes:
            self._cluster.thaw(node)
        self._note()

    async def _kill(self, fault: Fault, nodes: tuple[int, ...]) -> None:
        self._starting.update(nodes)
        for node in nodes:
            self._cluster.kill(node)
        self._note()
        if fault.kind is Kind.KILL_AGAIN:
            for node in nodes:
                self._cluster.start(node)
            await self._pause(fault.seconds)
            for node in nodes:
                self._cluster.kill(node)
        else:
            await self._pause(fault.seconds)
        for node in nodes:
            self._cluster.start(node)
        await self._in_service(nodes)

    async def _restart(self, node: int, seconds: float) -> None:
        began = self._clock()
        self._starting.add(node)
        self._note()
        self._cluster.stop(node)
        if not await self._until(lambda: self._cluster.has_stopped(node), STOP_SECONDS_MAX):
            self.problems.append(f"node-{node} did not stop within {STOP_SECONDS_MAX:g} s")
            self._cluster.kill(node)
        self.stops_seconds.append(self._clock() - began)
        await self._pause(seconds)
        self._cluster.start(node)
        await self._in_service((node,))

    async def _roll(self, nodes: tuple[int, ...], pause_seconds: float) -> None:
        for node in nodes:
            await self._restart(node, 0.0)
            await self._pause(pause_seconds)

    async def _in_service(self, nodes: tuple[int, ...]) -> None:
        """Wait until they are part of the cluster again; a node's own word for it."""
        began = self._clock()
        for node in nodes:
            is_in_service = partial(self._cluster.is_in_service, node)
            if not await self._until(is_in_service, START_SECONDS_MAX):
                self.problems.append(f"node-{node} did not start within {START_SECONDS_MAX:g} s")
            self.starts_seconds.append(self._clock() - began)
            self._starting.discard(node)
            self._note()

    def _note(self) -> None:
        """The condition that the cluster is in now."""
        numbers = self._cluster.numbers
        up = (each for each in numbers if self._cluster.is_up(each) and each not in self._starting)
        cuts = self._network.cuts if self._network is not None else frozenset()
        self.conditions.append(Condition(self._clock(), frozenset(up), cuts))

    async def _until(self, condition: Callable[[], bool], seconds_max: float) -> bool:
        end = self._clock() + seconds_max
        while not condition():
            if self._clock() > end:
                return False
            await self._pause(_LOOK_SECONDS)
        return True

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._reactor, max(0.0, seconds), lambda: None)
