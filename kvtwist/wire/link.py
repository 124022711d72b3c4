"""A connection that this side dials, and keeps up: dial, greet, watch, dial again.

A node has one `Link` to each peer, a client one to each node that it uses. A link never gives up;
`Link.trouble` says, for people, why there is no connection just now.

Twisted's `ClientService` dials. It is not given the greeting as its ``prepareConnection``, because
it has no transition for a connection that is lost meanwhile; so the greeting is said here, and the
delay before the next attempt is counted here, by attempts that did not end in a greeting.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.error import (
    ConnectionDone,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TimeoutError,
)
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import FilteringLogObserver, Logger, LogLevel, LogLevelFilterPredicate
from twisted.logger import globalLogPublisher as _global_log
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from kvtwist.core.address import Address
from kvtwist.errors import HelloRefused, KvtwistError, NotSent
from kvtwist.wire.commands import Hello, Ping
from kvtwist.wire.connection import Arguments, Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting, objection
from kvtwist.wire.limits import DEFAULT_LIMITS, ConnectionLimits
from kvtwist.wire.turn import Turn

_log = Logger(namespace="kvtwist.wire")


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """How patient a link is.

    The delay before the next attempt starts at ``redial_min_seconds``, grows by half each time up
    to ``redial_max_seconds``, and has jitter: Twisted's own default goes up to a minute, too long
    after a failover (T9). A peer that says nothing at all while ``pings_unheard_max`` pings are
    sent to it is taken for dead (T8: TCP would take minutes to notice). Pings are counted, not
    seconds: a wall clock that is set forward must not make every peer look silent (T1).
    """

    dial_timeout_seconds: float = 1.0
    hello_timeout_seconds: float = 1.0
    redial_min_seconds: float = 0.05
    redial_max_seconds: float = 1.0
    ping_interval_seconds: float = 1.0
    pings_unheard_max: int = 4


DEFAULT_TIMES = LinkTimes()


class Link:
    """One kept-up connection to one address.

    :param reactor: where to dial, and for time.
    :param address: whom to dial. A name is looked up anew at each attempt (T12).
    :param introduce: makes this side's greeting, anew for each connection.
    :param chance: a number from 0 to 1, different at each call; for the jitter.
    :param deadlines: ends the calls whose time is up.
    :param turn: shared by the connections whose reads make this link send something.

    :ivar connection: the connection, once greeted; ``None`` while there is none.
    :ivar trouble: why there is none, in a few words; empty while there is one.
    :ivar refused: the refusal, if the last attempt ended in one.
    :ivar is_fresh: whether the first attempt is still to end.
    """

    def __init__(
        self,
        reactor: Any,
        address: Address,
        introduce: Callable[[], Greeting],
        chance: Callable[[], float],
        deadlines: Deadlines,
        times: LinkTimes = DEFAULT_TIMES,
        limits: ConnectionLimits = DEFAULT_LIMITS,
        turn: Turn | None = None,
    ) -> None:
        self.address = address
        self.connection: Connection | None = None
        self.trouble = "not tried yet"
        self.refused: HelloRefused | None = None
        self.is_fresh = True
        self._reactor = reactor
        self._introduce = introduce
        self._times = times
        self._failures = 0
        self._delay_seconds = backoffPolicy(
            times.redial_min_seconds,
            times.redial_max_seconds,
            jitter=lambda: chance() * times.redial_min_seconds,
        )
        self._waiting: list[Deferred[Connection]] = []
        self._settling: list[Deferred[None]] = []
        self._listeners: list[Callable[[Link], None]] = []
        endpoint = _endpoint(reactor, address, times.dial_timeout_seconds)
        self._dialling = _Dialling(
            _Noticed(endpoint, self._dial_failed),
            _LinkFactory(lambda: Connection(deadlines, limits=limits, turn=turn), self._greet),
            retryPolicy=lambda _: self._delay_seconds(self._failures),
            clock=reactor,
        )

    def on_change(self, notify: Callable[[Link], None]) -> None:
        """Have *notify* called whenever `connection` or `trouble` has changed."""
        self._listeners.append(notify)

    def start(self) -> None:
        """Begin to dial."""
        self.trouble = "no answer yet"
        self._dialling.startService()

    def stop(self) -> Deferred[None]:
        """Hang up; fires when the connection is closed. Whoever waits for one gets `NotSent`."""
        self.connection = None
        self._fail_waiting()
        if not self._dialling.running:
            return succeed(None)
        return self._dialling.stopService()

    def hang_up(self, why: str) -> None:
        """Drop the connection, if there is one, and dial again."""
        connection = self.connection
        if connection is not None:
            self._changed(None, why)
            connection.drop(why)

    def when_connected(self, timeout_seconds: float) -> Deferred[Connection]:
        """The connection, as soon as there is one.

        Fails with `NotSent`, which says what the trouble is, after *timeout_seconds*.
        """
        if self.connection is not None:
            return succeed(self.connection)
        waiting: Deferred[Connection] = Deferred()
        self._waiting.append(waiting)

        def ended(result: Connection | Failure) -> Connection | Failure:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            if isinstance(result, Failure) and result.check(DeferredTimeoutError):
                return Failure(self._not_sent())
            return result

        return waiting.addTimeout(timeout_seconds, self._reactor).addBoth(ended)

    def when_settled(self, timeout_seconds: float) -> Deferred[None]:
        """Fires when the first attempt has ended, well or badly, or *timeout_seconds* have."""
        if not self.is_fresh:
            return succeed(None)
        settling: Deferred[None] = Deferred()
        self._settling.append(settling)
        return settling.addTimeout(timeout_seconds, self._reactor).addErrback(_timed_out)

    def call(
        self, command: type[amp.Command], arguments: Arguments, timeout_seconds: float
    ) -> Deferred[Arguments]:
        """Send *command* if there is a connection now, else fail with `NotSent`."""
        if self.connection is None:
            return fail(self._not_sent())
        return self.connection.call(command, arguments, timeout_seconds)

    def tell(self, command: type[amp.Command], arguments: Arguments) -> bool:
        """Send a *command* that wants no answer, if there is a connection now and room on it;
        whether it is on its way (`Connection.tell`)."""
        return self.connection is not None and self.connection.tell(command, arguments)

    def _not_sent(self) -> NotSent:
        return NotSent(f"{self.address} cannot be reached: {self.trouble or 'connection lost'}")

    # -- dial and greet -----------------------------------------------------------------------

    def _dial_failed(self, failure: Failure) -> None:
        self._failures += 1
        self._changed(None, _in_words(failure))

    def _greet(self, connection: Connection) -> None:
        mine = self._introduce()
        connection.when_down(lambda reason: self._lost(connection, reason))
        hello = connection.call(Hello, mine.arguments(), self._times.hello_timeout_seconds)
        hello.addCallback(self._greeted, mine, connection)
        hello.addErrback(self._not_greeted, connection)

    def _greeted(self, answer: Arguments, mine: Greeting, connection: Connection) -> None:
        theirs = Greeting.from_arguments(answer)
        refusal = objection(mine, theirs)
        if refusal is not None:
            raise refusal
        connection.greeting = theirs
        self._failures = 0
        self._watch(connection)
        self._changed(connection, "")
        if self.connection is not connection:
            return  # somebody who was told did not want it
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(connection)

    def _not_greeted(self, failure: Failure, connection: Connection) -> None:
        self._failures += 1
        error = failure.value
        trouble = _in_words(failure)
        if not isinstance(error, KvtwistError):
            _log.failure("a bug: greeting {address} failed", failure, address=self.address)
        self._changed(None, trouble, error if isinstance(error, HelloRefused) else None)
        connection.abort()

    # -- watch --------------------------------------------------------------------------------

    def _watch(self, connection: Connection) -> None:
        watch = LoopingCall(self._check, connection, _Silence())
        watch.clock = self._reactor
        connection.when_lost(lambda _: watch.stop())
        watch.start(self._times.ping_interval_seconds, now=False)

    def _check(self, connection: Connection, silence: _Silence) -> None:
        if silence.pings_unheard(connection.reads) >= self._times.pings_unheard_max:
            connection.drop("it does not answer any more")
        else:
            patience_seconds = self._times.pings_unheard_max * self._times.ping_interval_seconds
            connection.call(Ping, {}, patience_seconds).addErrback(_expected)

    def _lost(self, connection: Connection, reason: Failure | None) -> None:
        if self.connection is connection:
            self._changed(None, connection.why_dropped or (_in_words(reason) if reason else ""))

    def _changed(
        self, connection: Connection | None, trouble: str, refused: HelloRefused | None = None
    ) -> None:
        self.connection = connection
        self.trouble = trouble
        self.refused = refused
        self.is_fresh = False
        for notify in self._listeners:
            notify(self)
        settling, self._settling = self._settling, []
        for settled in settling:
            settled.callback(None)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(self._not_sent())


class _Silence:
    """Counts the pings since the peer was last heard."""

    def __init__(self) -> None:
        self._reads = -1
        self._pings = 0

    def pings_unheard(self, reads: int) -> int:
        """How many have been sent since; to be asked once before each."""
        self._pings = self._pings + 1 if reads == self._reads else 0
        self._reads = reads
        return self._pings


class _Dialling(ClientService):
    """A `ClientService` that keeps its reconnection chatter (two lines an attempt) to itself."""

    _log = Logger(
        observer=FilteringLogObserver(
            _global_log, [LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)]
        )
    )


class _LinkFactory(Factory):
    """Makes the connections of a link, and has each greeted as soon as it is made."""

    noisy = False

    def __init__(self, make: Callable[[], Connection], greet: Callable[[Connection], None]) -> None:
        self._make = make
        self._greet = greet

    def buildProtocol(self, addr: object) -> Connection:
        """One connection."""
        connection = self._make()
        connection.when_made(self._greet)
        return connection


@implementer(IStreamClientEndpoint)
class _Noticed:
    """An endpoint that tells why dialling failed: `ClientService` keeps that to itself."""

    def __init__(self, endpoint: IStreamClientEndpoint, notice: Callable[[Failure], None]) -> None:
        self._endpoint = endpoint
        self._notice = notice

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Dial."""

        def failed(failure: Failure) -> Failure:
            self._notice(failure)
            return failure

        return self._endpoint.connect(protocolFactory).addErrback(failed)


def _timed_out(failure: Failure) -> None:
    failure.trap(DeferredTimeoutError)


def _expected(failure: Failure) -> None:
    failure.trap(KvtwistError)


def _endpoint(reactor: Any, address: Address, timeout_seconds: float) -> IStreamClientEndpoint:
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        return HostnameEndpoint(reactor, address.host, address.port, timeout_seconds)
    if version == 4:
        return TCP4ClientEndpoint(reactor, address.host, address.port, timeout_seconds)
    return TCP6ClientEndpoint(reactor, address.host, address.port, timeout_seconds)


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "connection refused"),
    (TimeoutError, "no answer to the dial"),
    (DNSLookupError, "its name cannot be resolved"),
    (NoRouteError, "no route to it"),
    (ConnectionDone, "it closed the connection"),
)


def _in_words(failure: Failure) -> str:
    for kind, words in _WORDS:
        if failure.check(kind):
            return words
    return str(failure.value) or type(failure.value).__name__
