"""Snapshots that come in, for replicas that are behind what their leader's log has compacted.

A leader's node offers one, and sends it in pieces (`kvtwist.node.departures`). They fill a
generation of keys that nothing reads. When all are there and the checksum is theirs, the core is
given the `InstallSnapshot`; if it takes it, one batch makes that generation the group's own, with
everything that changes with it (R13, `kvtwist.storage.snapshots`); in every other case the
generation is removed. So whatever a peer sends, and wherever it stops, the replica has its old
state or the whole new one.

What a peer can make a node keep is bounded: there are few at a time, one of a group; of each one
piece, one record, and one batch are in memory; and one that is silent, or lasts, is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.core.raft import Configuration, Snapshot
from kvtwist.core.raft.messages import InstallSnapshot
from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.errors import (
    DiskFull,
    KvtwistError,
    MalformedRequest,
    OutcomeUnknown,
    Overloaded,
    Refused,
    StorageError,
    TooLarge,
    Unavailable,
)
from kvtwist.node.outgoing import PIECE_BYTES_MAX
from kvtwist.storage.engine import Batch
from kvtwist.storage.snapshots import BATCH_BYTES, Incoming, remove_orphans
from kvtwist.storage.store import Condition, Store
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments, Connection, Responder

ARRIVALS_MAX = 2
"""Coming in at a time, for all groups of a node."""
SILENT_SECONDS_MAX = 30.0
LASTING_SECONDS_MAX = 900.0

_log = Logger(namespace="kvtwist.node")


class Target(Protocol):
    """The replica that gets a snapshot: what is needed of a `kvtwist.node.replica.Replica`."""

    group: int

    @property
    def data_generation(self) -> int:
        """That its data stands in, in the store."""

    @property
    def is_installing(self) -> bool:
        """Whether a snapshot is taking the place of what it has."""

    def offered(self, message: InstallSnapshot) -> bool:
        """Whether the snapshot's data is wanted; if not, the core has taken the message in, which
        says to the leader how far this replica is."""

    def install(self, message: InstallSnapshot, incoming: Incoming) -> Deferred[bool]:
        """Give the message to the core. Fires when its data has taken the place of the replica's;
        or, with ``False``, when the core did not want it: then it is to be removed, at once."""


Find = Callable[[Connection, int, int, int], Target]
"""The replica here that a group, a sender and a receiver of a message name.

Raises a `NotDone` when there is none, or when the connection is not that of the sender's member.
"""


@dataclass(slots=True, eq=False)
class _Arrival:
    """One that is coming in.

    :ivar next: the number of the piece that is due.
    :ivar is_filling: whether a piece is being put into the store.
    :ivar silence: ends it, unless a piece comes before.
    :ivar is_over: it was ended, or handed over.
    """

    id: int
    connection: Connection
    target: Target
    message: InstallSnapshot
    incoming: Incoming
    begun_seconds: float
    next: int = 0
    is_filling: bool = False
    silence: Any = None
    is_over: bool = False


class Arrivals:
    """The responder of the commands that bring snapshots.

    :param find: finds, and checks, the replica that a message is for.
    :param seconds: a monotonic clock.
    """

    def __init__(
        self, reactor: Any, store: Store, find: Find, seconds: Callable[[], float]
    ) -> None:
        self._reactor = reactor
        self._store = store
        self._find = find
        self._seconds = seconds
        self._ids = count(1)
        self._open: dict[int, _Arrival] = {}
        self._connections: set[Connection] = set()
        self._is_cleaning = False
        store.on_full(self.stop)
        store.on_reopened(self._clean)

    def responders(self) -> dict[type[amp.Command], Responder]:
        """A responder for each of the commands."""
        return {commands.OfferSnapshot: self._offer, commands.SnapshotPiece: self._piece}

    @property
    def open_count(self) -> int:
        """How many are coming in."""
        return len(self._open)

    def stop(self) -> None:
        """End all; what they have filled is left for the next start to remove."""
        for arrival in list(self._open.values()):
            self._forget(arrival)

    # -- offers ---------------------------------------------------------------------------------

    def _offer(self, connection: Connection, arguments: Arguments) -> Arguments:
        message = _message(arguments)
        target = self._find(connection, arguments["group"], message.sender, message.to)
        if not target.offered(message):
            return {"transfer": 0}
        self._check_room(target, message)
        index = message.snapshot.index
        incoming = Incoming(target.group, target.data_generation, index, BATCH_BYTES)
        arrival = _Arrival(next(self._ids), connection, target, message, incoming, self._seconds())
        self._open[arrival.id] = arrival
        self._wait(arrival)
        if connection not in self._connections:
            self._connections.add(connection)
            connection.when_lost(lambda _: self._gone(connection))
        return {"transfer": arrival.id}

    def _check_room(self, target: Target, message: InstallSnapshot) -> None:
        """End an earlier transfer for the same group; refuse the new one if there are too many."""
        if self._store.condition is not Condition.OPEN:
            raise DiskFull(f"no snapshot can be taken: {self._store.trouble}")
        if self._is_cleaning or target.is_installing:
            raise Unavailable(f"group {target.group} cannot take a snapshot just now")
        for arrival in list(self._open.values()):
            if arrival.target.group == target.group:
                if arrival.message.term > message.term:
                    raise Unavailable(f"group {target.group} is sent one by a later leader")
                self._end(arrival)
        if len(self._open) >= ARRIVALS_MAX:
            raise Overloaded(
                f"{len(self._open)} snapshots are coming in already", limit=ARRIVALS_MAX
            )

    # -- pieces ---------------------------------------------------------------------------------

    def _piece(self, connection: Connection, arguments: Arguments) -> Deferred[Arguments]:
        arrival = self._open.get(arguments["transfer"])
        if arrival is None or arrival.connection is not connection:
            raise Unavailable(f"transfer {arguments['transfer']} is not under way here: begin anew")
        if arrival.is_filling or arguments["number"] != arrival.next:
            raise Refused(f"pieces are taken one after the other: the next one is {arrival.next}")
        piece: bytes = arguments["piece"]
        if len(piece) > PIECE_BYTES_MAX:
            raise TooLarge(f"a piece of {len(piece)} bytes: at most {PIECE_BYTES_MAX} are taken")
        if self._seconds() - arrival.begun_seconds > LASTING_SECONDS_MAX:
            self._end(arrival)
            raise Unavailable(f"the transfer took more than {LASTING_SECONDS_MAX:g} s")
        arrival.is_filling = True
        arrival.silence.cancel()
        return Deferred.fromCoroutine(self._take(arrival, piece, arguments["last"]))

    async def _take(self, arrival: _Arrival, piece: bytes, last: bool) -> Arguments:
        incoming = arrival.incoming
        try:
            await self._fill(arrival, lambda: incoming.feed(piece))
            if last:
                await self._fill(arrival, lambda: list(incoming.finish()))
                await self._hand_over(arrival)
        except Exception as error:
            self._end(arrival)
            raise _told(error) from error
        arrival.next += 1
        arrival.is_filling = False
        if not last:
            self._wait(arrival)
        return {}

    async def _fill(self, arrival: _Arrival, job: Callable[[], Iterable[Batch]]) -> None:
        """Do *job*, on a thread, since it looks at each record; and commit what it returns."""
        batches = await self._store.read(lambda _: job())
        for batch in batches:
            if not arrival.is_over:
                await self._store.write(batch, sync=False)
        if arrival.is_over:
            raise Unavailable("the transfer was ended meanwhile")

    async def _hand_over(self, arrival: _Arrival) -> None:
        """It is whole: from here on it is its replica's, unless that does not want it."""
        self._forget(arrival)
        message = arrival.message
        kept = arrival.target.install(message, arrival.incoming)
        kept.addCallback(self._settled, arrival)
        # The answer may be cancelled, with its connection; what becomes of the snapshot may not.
        is_kept = await _copy_of(kept)
        _log.info(
            "group {group} {has} the snapshot at {index} that replica {sender} has sent",
            group=arrival.target.group,
            has="has now" if is_kept else "does not need",
            index=message.snapshot.index,
            sender=message.sender,
        )

    # -- what ends them -------------------------------------------------------------------------

    def _wait(self, arrival: _Arrival) -> None:
        if not arrival.is_over:
            arrival.silence = self._reactor.callLater(SILENT_SECONDS_MAX, self._end, arrival)

    def _settled(self, is_kept: bool, arrival: _Arrival) -> bool:
        if not is_kept:
            self._remove(arrival)
        return is_kept

    def _end(self, arrival: _Arrival) -> None:
        """It will never be whole."""
        if self._forget(arrival):
            self._remove(arrival)

    def _remove(self, arrival: _Arrival) -> None:
        """Remove what it has filled, before anything else is filled there.

        This must never be done once a replica may have made that its own.
        """
        if self._store.condition is Condition.OPEN:
            removed = self._store.write(arrival.incoming.discard(), sync=False)
            removed.addErrback(_passed_over)

    def _forget(self, arrival: _Arrival) -> bool:
        """Whether it was under way."""
        if arrival.is_over:
            return False
        arrival.is_over = True
        del self._open[arrival.id]
        if arrival.silence.active():
            arrival.silence.cancel()
        return True

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        for arrival in list(self._open.values()):
            if arrival.connection is connection:
                self._end(arrival)

    def _clean(self) -> None:
        """There is room again: remove what was filled when there was none.

        Only now it is known what of it was made a group's own just before; and nothing is filled
        meanwhile, which would be removed as well.
        """
        self._is_cleaning = True
        removed = self._store.read(remove_orphans)
        removed.addCallback(lambda batch: self._store.write(batch, sync=False) if batch else None)
        removed.addErrback(_passed_over)
        removed.addBoth(lambda _: self._cleaned())

    def _cleaned(self) -> None:
        self._is_cleaning = False


def _message(arguments: Arguments) -> InstallSnapshot:
    """What the core is to be told, once the data is there."""
    try:
        configuration = Configuration.decode(arguments["configuration"])
    except ValueError as error:
        raise MalformedRequest(f"the configuration: {error}") from error
    snapshot = Snapshot(arguments["index"], arguments["snapshot_term"], configuration)
    term: int = arguments["term"]
    if not (snapshot.index > 0 and 0 < snapshot.term <= term):
        raise MalformedRequest(
            f"no leader of term {term} has entry {snapshot.index} of {snapshot.term}"
        )
    return InstallSnapshot(arguments["sender"], arguments["to"], term, snapshot)


def _told(error: Exception) -> Exception:
    """*error* as it is told to who sends."""
    if isinstance(error, MalformedBytes | UnknownKind):
        return Refused(f"the snapshot is not what was announced: {error}")
    if isinstance(error, StorageError | OutcomeUnknown) and not isinstance(error, DiskFull):
        return Unavailable(f"the snapshot cannot be kept: {error}")
    return error


def _copy_of(original: Deferred[bool]) -> Deferred[bool]:
    """One that fires with it, and whose cancelling does not reach it."""
    copy: Deferred[bool] = Deferred()

    def fired(result: bool | Failure) -> None:
        if not copy.called:
            copy.callback(result)  # of a failure, its errback

    original.addBoth(fired)
    return copy


def _passed_over(failure: Failure) -> None:
    failure.trap(KvtwistError)
