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

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.simnodes.clock import Clock, Timer
from tests.simnodes.plan import Links
from tests.simnodes.trace import Trace

BUFFER_BYTES_MAX = 1 << 16
"""With more than that to send a transport says that it has enough, as Twisted's do."""
REPEAT_SECONDS = 0.2
"""After which TCP sends again what a cut has swallowed; longer each time."""

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
        return _Port(self, port)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        dial = _Dial(self, host, port, factory)
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


class _Port:
    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._port = port

    def stopListening(self) -> Deferred[None]:
        self._host.ports.pop(self._port).doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self._host.ip, self._port)


class _Dial:
    """A connection attempt: an IConnector."""

    def __init__(self, host: Host, ip: str, port: int, factory: Any) -> None:
        self._host = host
        self._ip = ip
        self._port = port
        self._factory = factory
        self._timeout: Timer | None = None

    def begin(self, timeout_seconds: float) -> None:
        network, here, there = self._host.network, self._host.ip, self._ip
        self._timeout = self._host.callLater(timeout_seconds, self.fail, TimeoutError())
        seconds = network.delay_seconds(here, there) + network.delay_seconds(there, here)
        network.clock.after(seconds, self._host.run, self._arrive)

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self._ip, self._port)

    def stopConnecting(self) -> None:
        self.fail(UserError())

    def disconnect(self) -> None:
        self.stopConnecting()

    def _arrive(self) -> None:
        network, here = self._host.network, self._host
        there = network.known(self._ip)
        if self._timeout is None:
            return
        if there is None or not (
            network.passes(here.ip, self._ip) and network.passes(self._ip, here.ip)
        ):
            return  # nothing comes back, and the time will be up
        if not there.is_alive and not there.answers_strangers:
            return
        if self._port not in there.ports:
            self.fail(ConnectionRefusedError())
            return
        self._end()
        mine, theirs = Line(here), Line(there)
        mine.other, theirs.other = theirs, mine
        peer = IPv4Address("TCP", here.ip, 0)
        factory = there.ports[self._port]
        network.counts["connections"] += 1
        there.callLater(0, lambda: theirs.attach(factory.buildProtocol(peer)))
        mine.attach(self._factory.buildProtocol(self.getDestination()))

    def fail(self, error: Exception) -> None:
        if self._timeout is not None:
            self._end()
            self._factory.clientConnectionFailed(self, Failure(error))

    def _end(self) -> None:
        timeout, self._timeout = self._timeout, None
        if timeout is not None and timeout.active():
            timeout.cancel()


class Line:
    """One end of a TCP connection: an ITCPTransport.

    :ivar is_dead: what is sent from this end arrives nowhere, and nobody is told.
    """

    other: Line
    disconnecting = False

    def __init__(self, host: Host) -> None:
        self.host = host
        self.is_dead = False
        self.is_open = True
        self._protocol: Any = None
        self._arrived: deque[bytes] = deque()
        self._is_reading = True
        self._end_after: Exception | None = None
        self._producer: Any = None
        self._is_full = False
        self._free_at = 0.0
        self._arrives_at = 0.0
        self._turn = (-1.0, 0)
        self._under_way: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._repeats = 0
        host.lines[self] = None

    def attach(self, protocol: Any) -> None:
        """Have *protocol* speak here; ``None``: it was refused."""
        if protocol is None:
            self.abortConnection()
            return
        self._protocol = protocol
        protocol.makeConnection(self)
        self._read()

    # -- an ITCPTransport -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.is_open and not self.disconnecting and data:
            self.host.network.trace.sent(self.host.ip, self.other.host.ip, data)
            self.send(self.other.receive, data, len(data))
            if self._producer is not None and self._unsent_bytes(len(data)) > BUFFER_BYTES_MAX:
                self._fill()

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        if self.is_open and not self.disconnecting:
            self.disconnecting = True
            self.send(self.other.end, ConnectionDone())
            self.host.callLater(0, self.close, ConnectionDone())

    def abortConnection(self) -> None:
        if self.is_open:
            self.send(self.other.close, ConnectionLost())
            self.host.callLater(0, self.close, ConnectionAborted())

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.other.host.ip, 0)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self.host.ip, 0)

    def pauseProducing(self) -> None:
        self._is_reading = False

    def resumeProducing(self) -> None:
        self._is_reading = True
        self.host.callLater(0, self._read)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    # -- what arrives -----------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._arrived.append(data)
        self._read()

    def end(self, why: Exception) -> None:
        """The other end has closed in order: so it is here, once all has been read."""
        self._end_after = why
        self._read()

    def _read(self) -> None:
        while self._arrived and self._is_reading and self.is_open and self._protocol is not None:
            self._protocol.dataReceived(self._arrived.popleft())
        if self._end_after is not None and not self._arrived:
            self.close(self._end_after)

    def close(self, why: Exception) -> None:
        """It is over at this end."""
        if self.is_open:
            self.is_open = False
            self.host.lines.pop(self, None)
            if self._protocol is not None:
                self._protocol.connectionLost(Failure(why))

    def reset_soon(self) -> None:
        """Have a reset arrive at this end, ahead of whatever else is under way."""
        network = self.host.network
        seconds = network.delay_seconds(self.other.host.ip, self.host.ip)
        network.clock.after(seconds, self._reset)

    def _reset(self, _: object) -> None:
        network = self.host.network
        if network.passes(self.other.host.ip, self.host.ip):
            self.host.run(lambda: self.close(ConnectionLost()))
        else:
            network.clock.after(REPEAT_SECONDS, self._reset)

    # -- what is under way -----------------------------------------------------------------------

    def send(self, arrive: Callable[[Any], None], what: Any, size_bytes: int = 0) -> None:
        """Over the network, in order."""
        network, there = self.host.network, self.other.host
        if not there.is_alive:
            self._send_to_the_dead(network, there)
            return
        now = network.clock.now
        self._free_at = max(now, self._free_at) + size_bytes / network.links.bytes_per_second
        seconds = network.delay_seconds(self.host.ip, there.ip)
        self._arrives_at = max(self._arrives_at, self._free_at + seconds)
        self._under_way.append((arrive, what))
        network.clock.at(self._arrives_at, self._deliver)

    def _send_to_the_dead(self, network: Network, there: Host) -> None:
        """Nobody knows the connection there; a kernel that runs says so."""
        now_there = network.known(there.ip)
        if now_there is not None and (now_there.is_alive or now_there.answers_strangers):
            self.reset_soon()

    def _deliver(self, _: object = None) -> None:
        network, there = self.host.network, self.other.host
        if self.is_dead or not there.is_alive:
            return
        if not network.passes(self.host.ip, there.ip):
            network.counts["packets held up"] += 1
            self._repeats = min(self._repeats + 1, 4)
            network.clock.after(REPEAT_SECONDS * self._repeats, self._deliver)
            return
        self._repeats = 0
        if self._under_way:
            arrive, what = self._under_way.popleft()
            there.run(lambda: arrive(what))

    def _unsent_bytes(self, size_bytes: int) -> float:
        """What this end still has to send, after a write of so many bytes. Even a network that is
        infinitely fast takes nothing before the reactor's next turn."""
        network = self.host.network
        now, rate = network.clock.now, network.links.bytes_per_second
        if rate < float("inf"):
            return (self._free_at - now) * rate
        when, before_bytes = self._turn
        self._turn = now, size_bytes + (before_bytes if when == now else 0)
        return self._turn[1]

    def _fill(self) -> None:
        self._producer.pauseProducing()
        if not self._is_full:
            self._is_full = True
            network = self.host.network
            network.clock.at(max(network.clock.now, self._free_at), self._drained)

    def _drained(self, _: object) -> None:
        self.host.run(self._drain)

    def _drain(self) -> None:
        network = self.host.network
        if self._free_at > network.clock.now:
            network.clock.at(self._free_at, self._drained)
            return
        self._is_full = False
        self._turn = -1.0, 0
        if self.is_open and self._producer is not None:
            self._producer.resumeProducing()
