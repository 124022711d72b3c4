"""One AMP connection, either end: typed commands out, typed commands in.

This takes the place of ``twisted.protocols.amp.AMP``: the same bytes, without what that does to a
server. An exception in a responder, a malformed argument and an unknown command are answered, and
the connection with all that is in flight on it lives on; nobody is offered ``StartTLS``; each call
has a time limit; and no peer can make it hold more than its `ConnectionLimits` allow.

A call ends in exactly one of these ways:

* its answer;
* an error that the peer declared, rebuilt as the exception it was there;
* `Overloaded`: too much is in flight here already, and nothing has left;
* `NotSent`: there was no connection, or it had no room in time or until it was lost: nothing has
  left;
* `NoAnswer`: time was up, or the connection was lost, after it had left.

**Flow control.** A connection is its transport's push producer; what the transport has no room for
waits in an `Outbox`. One with responders reads nothing while its answers are not taken. One without
goes on reading whatever happens; so two ends never wait for each other. What it may send is bounded
by what may be in flight.

The parts, each in a module of its own: `Calls` made at this end, `Work` asked of it, what is
`Sending` and what the `Intake` has read, and `Liveness`. Here they are joined to a transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from kvtwist.errors import NotSent, Overloaded
from kvtwist.wire import frequent
from kvtwist.wire.boxes import BoxLimits
from kvtwist.wire.call import Call
from kvtwist.wire.calls import Calls
from kvtwist.wire.codec import codec_of
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.intake import Intake
from kvtwist.wire.limits import DEFAULT_LIMITS, ConnectionLimits
from kvtwist.wire.liveness import Liveness
from kvtwist.wire.seldom import Seldom
from kvtwist.wire.sending import Sending
from kvtwist.wire.turn import Turn
from kvtwist.wire.work import (
    Arguments,
    Frequent,
    Responder,
    Responders,
    Unanswered,
    Work,
    responders,
)

__all__ = [
    "Arguments",
    "Connection",
    "Frequent",
    "Responder",
    "Responders",
    "Unanswered",
    "responders",
]

_log = Logger(namespace="kvtwist.wire")


@implementer(IPushProducer, IHalfCloseableProtocol)
class Connection(Protocol):
    """The protocol.

    :param deadlines: ends the calls whose time is up.
    :param table: made by `responders`; none for an end that only asks.
    :param account: told how many bytes are held for the peer, whenever that has changed: boxes that
        it has begun, requests that wait or are worked on, answers that it has not taken.
    :param turn: shared with the connections that what comes in here makes something go out on.
    :param frequent_responder: the short way for the most frequent requests in the table.

    :ivar greeting: what the peer said in its `Hello`, once it has.
    :ivar why_dropped: why this side has dropped the connection; empty if it has not.
    """

    transport: Any
    """An `ITCPTransport`, once the connection is made."""
    connected: int
    """Whether it is; Twisted's."""

    def __init__(
        self,
        deadlines: Deadlines,
        table: Responders | None = None,
        limits: ConnectionLimits = DEFAULT_LIMITS,
        seldom: Seldom | None = None,
        account: Callable[[int], None] | None = None,
        turn: Turn | None = None,
        frequent_responder: Frequent | None = None,
    ) -> None:
        self._limits = limits
        self._answers = bool(table)
        self._turn = turn or Turn()
        self._sending = Sending(
            self._turn,
            self._can_join,
            limits.answer_bytes_unread_max if self._answers else None,
            self._overrun,
            self._account,
        )
        self._outbox = self._sending.outbox
        self._calls = Calls(deadlines, limits, self._outbox.withdraw)
        self._seldom = seldom or Seldom(_log, deadlines.seconds)
        self._work = Work(
            self, table or {}, deadlines, limits, self._sending, self._worked, self._not_done
        )
        self._intake = Intake(
            limits.boxes, self._calls, self._work, self._sending, self._answers, self.drop
        )
        self._liveness = Liveness(limits)
        self._account_for = account
        self._held_bytes = 0
        self._frequent_responder = frequent_responder
        # Under a limit that a frequent box could be over, none is taken for one.
        roomy = limits.boxes.box_pairs_max >= frequent.PAIRS_MAX
        self._frequent_bytes_max = limits.boxes.box_bytes_max if roomy else 0
        self._read_lost = False
        self._when_made: list[Callable[[Connection], None]] = []
        self._when_down: list[Callable[[Failure | None], None]] = []
        self._when_lost: list[Callable[[Failure], None]] = []
        self.greeting: Greeting | None = None
        self.why_dropped = ""

    # -- calling ------------------------------------------------------------------------------

    def call(
        self, command: type[amp.Command], arguments: Arguments, timeout_seconds: float
    ) -> Deferred[Arguments]:
        """Send *command*; see the module's docstring for how it ends.

        :raises ValueError, TypeError: at once, when the arguments do not fit the command.
        """
        if not self.connected:
            return fail(NotSent("the connection is down"))
        try:
            data, answer = self._calls.begin(command, arguments, timeout_seconds)
        except Overloaded as error:
            return fail(error)
        self._sending.write(data)
        return answer

    def tell(self, command: type[amp.Command], arguments: Arguments) -> bool:
        """Send a *command* that wants no answer; whether it is on its way.

        If not, nothing of it has left: the connection is down, or more than
        ``tell_bytes_unsent_max`` waits on it already. Nobody learns whether it arrives.

        :raises ValueError, TypeError: when the arguments do not fit the command.
        """
        if not self.connected:
            return False
        notice = codec_of(command).notice(arguments)
        return self._sending.tell(notice, self._limits.tell_bytes_unsent_max)

    def ask(self, call: Call, body: bytes) -> bool:
        """Send a frequent request, if there is a connection and room; else nothing has happened.

        :param call: is answered; its deadline is set.
        :param body: the request after its tag.
        """
        if not self.connected or self._outbox.is_paused:
            return False
        data = self._calls.begin_frequent(call, body)
        if data is None:
            return False
        self._sending.write(data)
        return True

    @property
    def is_full(self) -> bool:
        """Whether another call would end in `Overloaded` at once."""
        return self._calls.is_full

    def room(self) -> Deferred[None]:
        """Fires when there may be room for another call; first come, first served.

        Fails with `NotSent` when the connection is lost.
        """
        return self._calls.room()

    # -- what comes in ------------------------------------------------------------------------

    def take_boxes(self, limits: BoxLimits | None) -> None:
        """Take boxes of these limits from now on; ``None``: of the connection's own."""
        self._intake.set_limits(limits or self._limits.boxes)

    def dataReceived(self, data: bytes) -> None:
        """Take in bytes; what is answered at once goes out in one write."""
        liveness = self._liveness
        liveness.reads += 1
        liveness.read_bytes += len(data)
        if self.why_dropped:
            return
        mine = self._turn.open()
        try:
            at = 0
            if not self._intake.reader.is_inside_box:
                at = self._take_frequent(data)
            if at < len(data) and not self.why_dropped:
                self._intake.read(data[at:] if at else data)
                self._account()
            elif self._work.unanswered:
                self._account()
        finally:
            if mine:
                self._turn.close()

    def _take_frequent(self, data: bytes) -> int:
        """Take the boxes that *data* begins with while they are frequent ones; where they end."""
        if self._frequent_responder is None:
            return self._calls.take_frequent(data, self._frequent_bytes_max)
        at = self._work.take_frequent(data, self._frequent_responder, self._frequent_bytes_max)
        return self._work.take_messages(data, at, self._frequent_bytes_max)

    def _can_join(self) -> bool:
        return self.greeting is not None and self.greeting.joins_fragments

    # -- flow control: the transport's side ---------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._sending.pause()

    def resumeProducing(self) -> None:
        """It has nothing left: first what waits, then what was left lying, then new requests."""
        self._liveness.has_taken = True
        if self._sending.resume():
            self._go_on()
        if not self._outbox.is_paused and getattr(self.transport, "disconnecting", False):
            self.transport.unregisterProducer()  # who waits for us to have nothing more to say
        self._account()

    def _go_on(self) -> None:
        intake, sending = self._intake, self._sending
        while intake.has_waiting and not sending.is_full:
            mine = self._turn.open()
            try:
                intake.take_waiting()
            finally:
                if mine:
                    self._turn.close()
        if not sending.is_full and self.transport is not None:
            self.transport.resumeProducing()
            self._close_if_done()

    def stopProducing(self) -> None:
        """The connection is going; `connectionLost` follows."""

    def _overrun(self) -> None:
        limit = self._limits.answer_bytes_unread_max
        self.drop(f"over answer_bytes_unread_max={limit}: it does not read its answers")

    # -- the connection's life ----------------------------------------------------------------

    def when_made(self, notify: Callable[[Connection], None]) -> None:
        """Have *notify* called when the connection is made."""
        self._when_made.append(notify)

    def when_down(self, notify: Callable[[Failure | None], None]) -> None:
        """Have *notify* called when the connection can be used no more, dropped or lost (then it
        gets the reason); before the calls in flight fail, so that who is told finds it gone."""
        self._when_down.append(notify)

    def when_lost(self, notify: Callable[[Failure], None]) -> None:
        """Have *notify* called when the connection is lost."""
        self._when_lost.append(notify)

    def connectionMade(self) -> None:
        """Tell who wants to know.

        What is sent in one turn is joined here already (`Turn`). The kernel must not hold it back
        to join more (RFC 896): its peer acknowledges up to 40 ms later when it has no answer yet.
        """
        if self.transport is not None:
            if ITCPTransport.providedBy(self.transport):
                self.transport.setTcpNoDelay(True)
            self._sending.begin(self.transport)
            self.transport.registerProducer(self, True)
        for notify in self._when_made:
            notify(self)

    @property
    def reads(self) -> int:
        """How often bytes have come in; it stands still while the peer is silent."""
        return self._liveness.reads

    @property
    def unanswered(self) -> int:
        """Requests of the peer's that are being worked on."""
        return self._work.unanswered

    def sweep(self, interval_seconds: float) -> None:
        """Look whether the peer still does something; to be called every *interval_seconds*."""
        is_busy, is_paused = self._work.unanswered > 0, self._sending.is_full
        why = self._liveness.objection(interval_seconds, self._intake, is_busy, is_paused)
        if why:
            self.drop(why)

    def readConnectionLost(self) -> None:
        """The peer sends nothing more, but may still read: answer what it has asked, then close.

        An end that only asks has nothing to wait for: it is down, also if the peer does not read.
        """
        self._read_lost = True
        if self._answers:
            self._close_if_done()
            return
        end = self.abort if self._outbox.is_paused else self.close
        self._down(Failure(ConnectionDone()))
        end()

    def writeConnectionLost(self) -> None:
        """We do not half-close; `IHalfCloseableProtocol` wants this."""

    def _worked(self) -> None:
        """A request that was worked on has been answered."""
        self._account()
        self._close_if_done()

    def _not_done(self, why: str) -> None:
        """What the peer has told could not be done; it wants no answer, so that only we know."""
        self._seldom.warn(f"{self._peer()}: {why}")

    def _close_if_done(self) -> None:
        if self._read_lost and not self._work.unanswered and not self._intake.has_waiting:
            self.close()

    def close(self) -> None:
        """Close the connection once everything written has been sent.

        A transport that has a producer waits for it; this one has nothing more to say.
        """
        if self.transport is not None:
            self._sending.flush()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Drop the connection at once: what is in flight on it fails."""
        if self.transport is not None:
            abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
            abort()

    def drop(self, why: str, detail: str = "") -> None:
        """Abort the connection and say why, in the log (seldom) and to whoever waits."""
        if self.why_dropped:
            return
        self.why_dropped = why
        self._down(None)
        self._seldom.warn(f"{self._peer()}: connection dropped: {detail or why}")
        self.abort()

    def _down(self, reason: Failure | None) -> None:
        """Nothing more can be sent or read."""
        if not self.connected:
            return
        self.connected = 0
        self._calls.close(self._sending.end())
        self._intake.clear()
        for notify in self._when_down:
            notify(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail everything in flight."""
        self._down(reason)
        self._work.cancel()
        self._calls.lost(self.why_dropped or f"the connection was lost: {reason.getErrorMessage()}")
        for notify in self._when_lost:
            notify(reason)

    def _account(self) -> None:
        """Say what is held, if somebody wants to know and it has changed."""
        if self._account_for is None or not self.connected:
            return
        held_bytes = self._intake.held_bytes + self._work.held_bytes + self._outbox.unread_bytes
        if held_bytes != self._held_bytes:
            self._held_bytes = held_bytes
            self._account_for(held_bytes)

    def _peer(self) -> str:
        if self.greeting is not None and self.greeting.name:
            return self.greeting.who
        peer = self.transport.getPeer() if self.transport is not None else None
        host, port = getattr(peer, "host", None), getattr(peer, "port", None)
        return f"{host}:{port}" if host else "a peer"
