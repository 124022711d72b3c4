"""Snapshots that go out: to replicas that are behind what their leader's log has compacted.

The core says who needs one (`Ready.snapshots_wanted`). Each is read from one view of the store,
offered to the node that has the replica, and sent over its bulk link, a piece at a time: the next
one leaves when the last one is in the other node's store, so that no more than one is under way,
and heartbeats, which have a link of their own, go on. The other end makes the `InstallSnapshot` out
of the offer, and gives it to its core when all pieces are there (`kvtwist.node.arrivals`).

What is sent is the state in the store. The log is never compacted past that, so the core can say
what term and configuration belong to it; and it is held there while the snapshot is under way and
is taken in, else it would lead to nothing but the next one. Whoever holds a log holds it within
bounds (`kvtwist.node.compaction`; R14).

A view pins room on the disk. So there are few at a time; and each is closed when the snapshot is
there or has failed, when the leadership is lost or the replica needs it no more, when the disk is
full, when the other end is silent for half a minute, after a quarter of an hour, and with the node
(S5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.core.raft.messages import InstallSnapshot
from kvtwist.errors import KvtwistError, Overloaded, Unavailable
from kvtwist.node.outgoing import Outgoing, opened
from kvtwist.storage.store import Condition, Store
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments
from kvtwist.wire.seldom import Seldom

DEPARTURES_MAX = 2
"""On the way at a time, of all groups of a node."""
PIECE_BYTES = 128 << 10
"""Less than may be sent at a time, so that over a slow network neither requests that are forwarded
nor the link's own signs of life wait for long."""
SILENT_SECONDS_MAX = 30.0
LASTING_SECONDS_MAX = 900.0
RETRY_SECONDS = 1.0
"""After a failure, before the same replica is sent another one."""
HOLD_SECONDS = 5.0
"""How long the log is held after a snapshot was delivered, till the replica is heard of itself."""
SWEEP_SECONDS = 1.0

_log = Logger(namespace="kvtwist.node")


class Source(Protocol):
    """The replica whose state is sent: what is needed of a `kvtwist.node.replica.Replica`."""

    group: int

    def wants_snapshot(self, to: int) -> int:
        """The term in which this replica leads, if *to* needs a snapshot of it; else 0."""

    def hold(self, to: int, index: int | None = None) -> None:
        """Compact nothing after *index*, by default nothing more at all, for the sake of *to*."""

    def release(self, to: int) -> None:
        """Hold the log for *to* no more than for anybody else."""

    def send_snapshot(self, to: int, index: int) -> InstallSnapshot:
        """Tell the core that *to* is sent what is applied up to *index*; what is to be said to it.

        :raises Unavailable: when the log does not know that place any more.
        """

    def snapshot_sent(self, to: int, delivered: bool) -> None:
        """Tell the core how that went."""


class Caller(Protocol):
    """A link to a node."""

    def call(
        self, command: type[amp.Command], arguments: Arguments, timeout_seconds: float
    ) -> Deferred[Arguments]:
        """Ask it."""


LinkTo = Callable[[int, int], Caller]
"""The bulk link to the node that has a replica, given its group and id.

Raises `Unavailable` when nobody is known who has it.
"""


@dataclass(slots=True, eq=False)
class _Departure:
    """One that is under way.

    :ivar term: that it is sent in.
    :ivar outgoing: what is read; ``None``: it is not open yet, or not any more.
    :ivar index: of the last entry in it; 0: it is not known yet.
    :ivar is_over: nothing more is to be done for it.
    """

    source: Source
    to: int
    term: int
    begun_seconds: float
    outgoing: Outgoing | None = None
    index: int = 0
    is_over: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """Its group, and who gets it: there is one of each."""
        return self.source.group, self.to

    @property
    def name(self) -> str:
        """For people."""
        return f"the snapshot of group {self.source.group} for replica {self.to}"

    def close(self) -> None:
        """Look at the store no more."""
        outgoing, self.outgoing = self.outgoing, None
        if outgoing is not None:
            outgoing.close()


class Departures:
    """All that are under way from a node, or wait to be.

    :param seconds: a monotonic clock.
    """

    def __init__(
        self, reactor: Any, store: Store, link_to: LinkTo, seconds: Callable[[], float]
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._link_to = link_to
        self._seconds = seconds
        self._seldom = Seldom(_log, seconds)
        self._waiting: dict[tuple[int, int], Source] = {}
        self._under_way: dict[tuple[int, int], _Departure] = {}
        self._not_before: dict[tuple[int, int], float] = {}
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        store.on_full(self.end_all)

    @property
    def under_way_count(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def start(self) -> None:
        """Begin to look after what takes too long."""
        self._sweeping.start(SWEEP_SECONDS, now=False)

    def stop(self) -> None:
        """Send nothing more."""
        if self._sweeping.running:
            self._sweeping.stop()
        self.end_all()

    def end_all(self) -> None:
        """End all that are under way."""
        for departure in list(self._under_way.values()):
            self._end(departure, delivered=False)

    def wanted(self, source: Source, to: int) -> None:
        """The core of *source* wants a snapshot sent to *to*; one that was on the way there is
        none that it knows of any more."""
        key = source.group, to
        earlier = self._under_way.get(key)
        if earlier is not None:
            self._forget(earlier)
        self._waiting[key] = source
        # Not now: the core is in the middle of something.
        self._reactor.callLater(0, self._begin_due)

    # -- when -----------------------------------------------------------------------------------

    def _sweep(self) -> None:
        now = self._seconds()
        for departure in list(self._under_way.values()):
            if self._objection(departure):
                self._end(departure, delivered=False)
        self._not_before = {key: at for key, at in self._not_before.items() if at > now}
        self._begin_due()

    def _begin_due(self) -> None:
        if not self._sweeping.running or self._store.condition is not Condition.OPEN:
            return  # once there is room again, the replicas are others, and ask for themselves
        now = self._seconds()
        for key in [key for key in self._waiting if self._not_before.get(key, now) <= now]:
            if len(self._under_way) >= DEPARTURES_MAX:
                return
            source = self._waiting.pop(key)
            term = source.wants_snapshot(key[1])
            if term:
                self._begin(_Departure(source, key[1], term, now))

    def _objection(self, departure: _Departure) -> str:
        """Why it must not go on; empty: nothing is against it."""
        if departure.is_over:
            return "it was ended"
        if departure.source.wants_snapshot(departure.to) != departure.term:
            return "it is not wanted any more"
        if self._seconds() - departure.begun_seconds > LASTING_SECONDS_MAX:
            return f"it took more than {LASTING_SECONDS_MAX:g} s"
        return ""

    def _check(self, departure: _Departure) -> None:
        if why := self._objection(departure):
            raise Unavailable(why)

    # -- one of them ----------------------------------------------------------------------------

    def _begin(self, departure: _Departure) -> None:
        self._under_way[departure.key] = departure
        departure.source.hold(departure.to)
        done = Deferred.fromCoroutine(self._carry(departure))
        done.addCallbacks(self._delivered, self._failed, (departure,), {}, (departure,))

    async def _carry(self, departure: _Departure) -> int:
        """Send it; how many bytes were."""
        source, to = departure.source, departure.to
        outgoing = await opened(self._store, source.group)
        if departure.is_over:
            outgoing.close()  # it was ended meanwhile
        else:
            departure.outgoing = outgoing
        self._check(departure)
        departure.index = outgoing.header.applied_index
        source.hold(to, departure.index)
        message = source.send_snapshot(to, departure.index)
        link = self._link_to(source.group, to)
        transfer = await self._offer(link, source.group, message)
        return await self._pour(departure, outgoing, link, transfer) if transfer else 0

    async def _offer(self, link: Caller, group: int, message: InstallSnapshot) -> int:
        snapshot = message.snapshot
        offer = {
            "group": group,
            "sender": message.sender,
            "to": message.to,
            "term": message.term,
            "index": snapshot.index,
            "snapshot_term": snapshot.term,
            "configuration": snapshot.configuration.encode(),
        }
        answer = await link.call(commands.OfferSnapshot, offer, SILENT_SECONDS_MAX)
        transfer: int = answer["transfer"]
        return transfer

    async def _pour(
        self, departure: _Departure, outgoing: Outgoing, link: Caller, transfer: int
    ) -> int:
        """Send it in pieces; while one is under way, what follows is read."""
        sent_bytes = number = 0
        is_read = False
        self._check(departure)
        reading = outgoing.read()
        try:
            while not is_read:
                data, is_read = await reading
                self._check(departure)
                if not is_read:
                    reading = outgoing.read()
                pieces = _cut(data)
                for at, piece in enumerate(pieces, start=1):
                    last = is_read and at == len(pieces)
                    await _say(link, transfer, number, piece, last)
                    if not last:  # else the replica may have told that it has it
                        self._check(departure)
                    number += 1
                sent_bytes += len(data)
        except KvtwistError:
            reading.addErrback(_passed_over)
            # Cut off here: so that the other end waits for no more.
            _say(link, transfer, number, b"", last=True).addErrback(_passed_over)
            raise
        return sent_bytes

    # -- how it ends ----------------------------------------------------------------------------

    def _delivered(self, sent_bytes: int, departure: _Departure) -> None:
        if sent_bytes:
            _log.info(
                "{name} is there: {size_bytes} bytes in {seconds:.1f} s",
                name=departure.name,
                size_bytes=sent_bytes,
                seconds=self._seconds() - departure.begun_seconds,
            )
        self._end(departure, delivered=True)

    def _failed(self, failure: Failure, departure: _Departure) -> None:
        if not failure.check(KvtwistError):
            _log.failure("a bug: {name} failed", failure, name=departure.name)
        elif not departure.is_over and not failure.check(Overloaded):
            self._seldom.warn(f"{departure.name} was not sent: {failure.value}")
        self._end(departure, delivered=False)

    def _end(self, departure: _Departure, delivered: bool) -> None:
        """It is over, whatever is still being answered: the core may want another one."""
        if departure.is_over:
            return
        source, to = departure.source, departure.to
        self._forget(departure)
        if delivered:
            source.hold(to, departure.index)
            self._reactor.callLater(HOLD_SECONDS, self._release, source, to)
        else:
            self._not_before[departure.key] = self._seconds() + RETRY_SECONDS
        if source.wants_snapshot(to) == departure.term:
            source.snapshot_sent(to, delivered)
        self._reactor.callLater(0, self._begin_due)

    def _forget(self, departure: _Departure) -> None:
        departure.is_over = True
        departure.close()
        del self._under_way[departure.key]
        departure.source.release(departure.to)

    def _release(self, source: Source, to: int) -> None:
        if (source.group, to) not in self._under_way:
            source.release(to)


def _cut(data: bytes) -> list[bytes]:
    """At least one piece."""
    return [data[at : at + PIECE_BYTES] for at in range(0, len(data) or 1, PIECE_BYTES)]


def _say(link: Caller, transfer: int, number: int, piece: bytes, last: bool) -> Deferred[Arguments]:
    said = {"transfer": transfer, "number": number, "piece": piece, "last": last}
    return link.call(commands.SnapshotPiece, said, SILENT_SECONDS_MAX)


def _passed_over(failure: Failure) -> None:
    failure.trap(KvtwistError)
