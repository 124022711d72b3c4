"""A network in memory, in virtual time: what the tests run whole nodes and clients on.

`Network` has hosts; each `Host` is a reactor for whatever runs "on" it: timers from one shared
`Clock`, TCP to the other hosts. Nothing happens but in `Network.run`. Same program, same events.

::

    network = Network()
    host = network.host("10.0.0.1")
    ... Node(host, config) ...
    network.run(1.0)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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
from twisted.internet.interfaces import IDelayedCall, IReactorTCP, IReactorTime
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

LATENCY_SECONDS = 0.001
BUFFER_BYTES_MAX = 1 << 16
"""With more than that to send a transport says that it has enough, as Twisted's do."""


class Network:
    """Hosts that reach each other, until told otherwise.

    :ivar bytes_per_second: how fast each direction of each connection is.
    :ivar overhear: called with all that is written, and the end that writes it.
    """

    def __init__(self) -> None:
        self.bytes_per_second = float("inf")
        self.clock = Clock()
        self._hosts: dict[str, Host] = {}
        self._cuts: set[frozenset[str]] = set()
        self.wires: list[Wire] = []
        self.overhear: Callable[[Wire, bytes], None] = lambda wire, data: None

    def host(self, ip: str) -> Host:
        """The host with that address, made on first use."""
        if ip not in self._hosts:
            self._hosts[ip] = Host(self, ip)
        return self._hosts[ip]

    def run(self, seconds: float) -> None:
        """Let *seconds* pass, timer by timer."""
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and calls[0].getTime() <= end:
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def result_of(self, deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """Let time pass until *deferred* has fired; its result, or raise its error."""
        outcome: list[Any] = []
        deferred.addBoth(outcome.append)
        end = self.clock.seconds() + seconds
        while not outcome:
            if self.clock.seconds() >= end:
                raise AssertionError(f"no result within {seconds} simulated seconds")
            self.run(0.01)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def crash(self, ip: str) -> None:
        """Kill everything on a host at once, as by SIGKILL; the address can be used again."""
        self._hosts.pop(ip).die()

    @contextmanager
    def cut(self, one: str, other: str) -> Iterator[None]:
        """While this lasts nothing passes between two hosts, and nobody is told."""
        pair = frozenset((one, other))
        self._cuts.add(pair)
        try:
            yield
        finally:
            self._cuts.discard(pair)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between the two."""
        return frozenset((one, other)) in self._cuts

    def known(self, ip: str) -> Host | None:
        """The host with that address, if there is one."""
        return self._hosts.get(ip)


@implementer(IReactorTime, IReactorTCP)
class Host:
    """A reactor."""

    def __init__(self, network: Network, ip: str) -> None:
        self.network = network
        self.ip = ip
        self.alive = True
        self.frozen = False
        self.ports: dict[int, Any] = {}
        self._wires: set[Wire] = set()
        self._late: list[Callable[[], Any]] = []

    # IReactorTime

    def seconds(self) -> float:
        return self.network.clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        return self.network.clock.callLater(delay, self._run, lambda: callable(*args, **kwargs))

    def getDelayedCalls(self) -> Any:
        return self.network.clock.getDelayedCalls()

    def _run(self, call: Callable[[], Any]) -> None:
        if self.frozen:
            self._late.append(call)
        elif self.alive:
            call()

    def freeze(self) -> None:
        """Stop running, as by SIGSTOP."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on, with everything that is late."""
        self.frozen = False
        late, self._late = self._late, []
        for call in late:
            self._run(call)

    # IReactorTCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if port in self.ports:
            error = OSError(98, "Address already in use")
            raise CannotListenError(interface, port, error)
        factory.doStart()
        self.ports[port] = factory
        return _Port(self, port)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        dial = _Dial(self, host, port, factory)
        factory.doStart()
        factory.startedConnecting(dial)
        self.callLater(2 * LATENCY_SECONDS, dial.arrive)
        dial.timeout = self.callLater(timeout, dial.fail, TimeoutError())
        return dial

    def add(self, wire: Wire) -> None:
        self._wires.add(wire)

    def remove(self, wire: Wire) -> None:
        self._wires.discard(wire)

    def die(self) -> None:
        self.alive = False
        for wire in list(self._wires):
            wire.other.reset()


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

    timeout: Any = None

    def __init__(self, host: Host, ip: str, port: int, factory: Any) -> None:
        self._host = host
        self._ip = ip
        self._port = port
        self._factory = factory
        self._over = False

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", self._ip, self._port)

    def stopConnecting(self) -> None:
        self.fail(UserError())

    def disconnect(self) -> None:
        self.stopConnecting()

    def arrive(self) -> None:
        network = self._host.network
        target = network.known(self._ip)
        if self._over or network.is_cut(self._host.ip, self._ip):
            return
        if target is None or self._port not in target.ports:
            self.fail(ConnectionRefusedError())
            return
        self._end()
        peer = IPv4Address("TCP", self._host.ip, 0)
        here, there = Wire(self._host), Wire(target)
        here.other, there.other = there, here
        network.wires.append(here)
        here.attach(self._factory.buildProtocol(self.getDestination()))
        factory = target.ports[self._port]
        target.callLater(0, lambda: there.attach(factory.buildProtocol(peer)))

    def fail(self, error: Exception) -> None:
        if not self._over:
            self._end()
            self._factory.clientConnectionFailed(self, Failure(error))

    def _end(self) -> None:
        self._over = True
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()


class Wire:
    """One end of a TCP connection: an ITCPTransport."""

    other: Wire
    disconnecting = False

    def __init__(self, host: Host) -> None:
        self.host = host
        self.protocol: Any = None
        self.open = True
        self.sent = 0
        self._free_at = 0.0
        self._early: deque[bytes] = deque()
        self._is_reading = True
        self._end_after: Exception | None = None
        self._producer: Any = None
        self._is_full = False
        self._written_at = (0.0, 0)
        self._under_way: deque[Callable[[], None]] = deque()
        host.add(self)

    def attach(self, protocol: Any) -> None:
        if protocol is None:  # refused
            self.abortConnection()
            return
        self.protocol = protocol
        protocol.makeConnection(self)
        self._read()

    def write(self, data: bytes) -> None:
        if self.open and not self.disconnecting and data:
            self.sent += len(data)
            self.host.network.overhear(self, data)
            self._send(self.other.receive, data, len(data))
            if self._producer is not None and self._unsent_bytes(len(data)) > BUFFER_BYTES_MAX:
                self._fill()

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        if self.open and not self.disconnecting:
            self.disconnecting = True
            self._send(self.other.end, ConnectionDone())
            self.host.callLater(0, self.close, ConnectionDone())

    def abortConnection(self) -> None:
        if self.open:
            self._send(self.other.close, ConnectionLost())
            self.host.callLater(0, self.close, ConnectionAborted())

    def reset(self) -> None:
        """The other end's host is gone."""
        self.host.callLater(LATENCY_SECONDS, self.close, ConnectionLost())

    def receive(self, data: bytes) -> None:
        self._early.append(data)
        self._read()

    def end(self, why: Exception) -> None:
        """The other end has closed in order: so it is here, once all has been read."""
        self._end_after = why
        self._read()

    def _read(self) -> None:
        while self._early and self._is_reading and self.open and self.protocol is not None:
            self.protocol.dataReceived(self._early.popleft())
        if self._end_after is not None and not self._early:
            self.close(self._end_after)

    def close(self, why: Exception) -> None:
        if self.open:
            self.open = False
            self.host.remove(self)
            if self.protocol is not None:
                self.protocol.connectionLost(Failure(why))

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

    def _unsent_bytes(self, size_bytes: int) -> float:
        """What this end still has to send, after a write of so many bytes. Even a network that is
        infinitely fast takes nothing before the reactor's next turn."""
        network, now = self.host.network, self.host.seconds()
        if network.bytes_per_second < float("inf"):
            return (self._free_at - now) * network.bytes_per_second
        when, before_bytes = self._written_at
        self._written_at = now, size_bytes + (before_bytes if when == now else 0)
        return self._written_at[1]

    def _fill(self) -> None:
        self._producer.pauseProducing()
        if not self._is_full:
            self._is_full = True
            self.host.callLater(max(0.0, self._free_at - self.host.seconds()), self._drain)

    def _drain(self) -> None:
        left_seconds = self._free_at - self.host.seconds()
        if left_seconds > 0:
            self.host.callLater(left_seconds, self._drain)
        else:
            self._is_full = False
            self._written_at = 0.0, 0
            if self.open and self._producer is not None:
                self._producer.resumeProducing()

    def _send(self, arrive: Callable[..., None], what: Any, size_bytes: int = 0) -> None:
        """Over the network, in order. What is sent into a cut arrives once it is healed, as TCP's
        own repetitions would see to."""
        now = self.host.seconds()
        seconds = size_bytes / self.host.network.bytes_per_second
        self._free_at = max(now, self._free_at) + seconds
        self._under_way.append(lambda: arrive(what))
        self.other.host.callLater(self._free_at - now + LATENCY_SECONDS, self._deliver)

    def _deliver(self) -> None:
        if self.host.network.is_cut(self.host.ip, self.other.host.ip):
            self.other.host.callLater(0.2, self._deliver)
        else:
            self._under_way.popleft()()
