"""TCP between simulated hosts: ports, dials, and the two ends of each connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
    UserError,
)
from twisted.python.failure import Failure

from tests.simnodes.clock import Timer

if TYPE_CHECKING:
    from tests.simnodes.network import Host, Network

BUFFER_BYTES_MAX = 1 << 16
"""With more than that to send a transport says that it has enough, as Twisted's do."""
REPEAT_SECONDS = 0.2
"""After which TCP sends again what a cut has swallowed; longer each time."""


class Port:
    """A port that is listened on: an IListeningPort."""

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._port = port

    def stopListening(self) -> Deferred[None]:
        self._host.ports.pop(self._port).doStop()
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self._host.ip, self._port)


class Dial:
    """A connection attempt: an IConnector."""

    def __init__(self, host: Host, ip: str, port: int, factory: Any) -> None:
        self._host = host
        self._ip = ip
        self._port = port
        self._factory = factory
        self._timeout: Timer | None = None

    def begin(self, timeout_seconds: float) -> None:
        """Send for a connection."""
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
