"""The network between whole nodes and clients: slow, late, cut, half dead.

What runs on a `Host` takes it for its reactor: timers by a clock of its own, which may be fast or
slow, TCP to the others. As over TCP nothing is lost, repeated or reordered within a connection that
lives; but it may be late, it may be held up by a cut until that is healed, the connection may be
reset, and a connection may be *half open*: nothing arrives any more, and nobody is told.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from twisted.internet.error import (
    CannotListenError,
    ConnectionDone,
)
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from zope.interface import implementer

from tests.simnodes.clock import Clock, Timer
from tests.simnodes.lines import Dial, Line, Port
from tests.simnodes.plan import Links
from tests.simnodes.trace import Trace

Cut: TypeAlias = frozenset[tuple[str, str]]
"""Directed links, as (from, to), on which nothing passes."""


class Network:
    """All hosts, and what is between them.

    :ivar cut: where nothing passes now.
    :ivar links: how all connections are treated now.
    """

    def __init__(self, clock: Clock, random: Random, trace: Trace, links: Links) -> None:
        self.clock = clock
        self.random = random
        self.trace = trace
        self.links = links
        self.cut: Cut = frozenset()
        self.counts: Counter[str] = Counter()
        self._hosts: dict[str, Host] = {}
        self._ever: list[Host] = []
        self._delays: dict[tuple[str, str], float] = {}

    def boot(self, ip: str, clock_rate: float = 1.0) -> Host:
        """A host, new; whatever ran at that address before is gone already."""
        before = self._hosts.get(ip)
        assert before is None or not before.is_alive
        host = self._hosts[ip] = Host(self, ip, clock_rate)
        self._ever.append(host)
        return host

    def known(self, ip: str) -> Host | None:
        """The host with that address, if it was ever booted."""
        return self._hosts.get(ip)

    def passes(self, sender: str, to: str) -> bool:
        """Whether anything passes from one host to another."""
        return not self.cut or (sender, to) not in self.cut

    def delay_seconds(self, sender: str, to: str) -> float:
        """How long the next packet takes."""
        pair, random, links = (sender, to), self.random, self.links
        base = self._delays.get(pair)
        if base is None:
            # Each link has its own length, for the whole run.
            base = self._delays[pair] = links.delay_seconds * (0.5 + random.random())
        seconds = base * (1 + random.random())
        if links.late and random.random() < links.late:
            self.counts["late packets"] += 1
            seconds += links.late_seconds * random.random()
        return seconds

    def lines(self, ip: str, other: str) -> list[Line]:
        """The connections between two hosts, each by its end at *ip*."""
        host = self._hosts.get(ip)
        found = list(host.lines) if host is not None and host.is_alive else []
        return [line for line in found if line.other.host.ip == other]


@implementer(IReactorTime, IReactorTCP)
class Host:
    """A reactor.

    :param clock_rate: how many seconds its clock counts in a true one.
    :ivar slow_seconds: how long it takes over each thing that it does; 0: none.
    """

    def __init__(self, network: Network, ip: str, clock_rate: float) -> None:
        self.network = network
        self.ip = ip
        self.is_alive = True
        self.is_frozen = False
        self.slow_seconds = 0.0
        self.answers_strangers = True
        self.ports: dict[int, Any] = {}
        self.lines: dict[Line, None] = {}
        self._clock = network.clock
        self._rate = clock_rate
        self._born = network.clock.now
        self._busy_until = 0.0
        self._late: deque[Callable[[], Any]] = deque()
        self._ended: list[Line] = []

    # IReactorTime

    def seconds(self) -> float:
        return 1000.0 + (self._clock.now - self._born) * self._rate

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> Timer:
        call = (lambda: callable(*args, **kwargs)) if args or kwargs else callable
        return Timer(self.seconds() + delay, call, self.seconds, self._plan)

    def getDelayedCalls(self) -> list[Timer]:
        return []

    def _plan(self, timer: Timer) -> None:
        true_seconds = self._born + (timer.planned - 1000.0) / self._rate
        self._clock.at(max(self._clock.now, true_seconds), self.run, timer.go_off)

    def run(self, call: Callable[[], Any]) -> None:
        """Do *call* now; when the host can, if it is slow or frozen; never, if it is dead."""
        if self.is_frozen or not self.is_alive:
            # What the dead had planned is kept too: were it let go of, parts of it would run.
            self._late.append(call)
        else:
            if not self.slow_seconds:
                call()
                return
            now = self._clock.now
            when = max(now, self._busy_until)
            self._busy_until = when + self.slow_seconds
            if when == now:
                call()
            else:
                self._clock.at(when, self._run_in_its_turn, call)

    def _run_in_its_turn(self, call: Callable[[], Any]) -> None:
        if self.is_frozen or not self.is_alive:
            self._late.append(call)
        else:
            call()

    def freeze(self) -> None:
        """Stop running, as by SIGSTOP: the kernel still takes connections and bytes."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Go on, with everything that is late."""
        self.is_frozen = False
        while self.is_alive and self._late and not self.is_frozen:
            self._late.popleft()()

    # IReactorTCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if port in self.ports:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        factory.doStart()
        self.ports[port] = factory
        return Port(self, port)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        dial = Dial(self, host, port, factory)
        factory.doStart()
        factory.startedConnecting(dial)
        dial.begin(timeout)
        return dial

    # the end

    def die(self, how: str) -> None:
        """Stop for ever.

        :param how: ``"killed"``: the kernel sends what it has, and closes; ``"reset"``: it resets;
            ``"power"``: it says nothing, until it runs again and is asked.
        """
        self.is_alive = False
        self.answers_strangers = how != "power"
        self.ports.clear()
        for line in list(self.lines):
            if how == "killed":
                line.send(line.other.end, ConnectionDone())
            elif how == "reset":
                line.other.reset_soon()
            self._ended.append(line)
        self.lines.clear()
