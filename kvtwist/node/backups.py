"""Gives the partitions that this node leads to whoever backs the cluster up.

Each is read from one view of the store, so that it is as it was at one moment; which is after every
write that was answered before it was asked for. A view pins room on the disk, so there are few at a
time, none lasts long, and none outlasts the connection that it was opened on, or silence, or a full
disk (S5, S8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.errors import (
    DiskFull,
    NotLeader,
    Overloaded,
    Refused,
    StorageError,
    Unavailable,
)
from kvtwist.node.outgoing import Outgoing
from kvtwist.node.partitions import Partitions
from kvtwist.node.router import Router, check_keyspace
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments, Connection, Responder

SILENT_SECONDS_MAX = 30.0
LASTING_SECONDS_MAX = 900.0


@dataclass(slots=True, eq=False)
class _Backup:
    """One that is open.

    :ivar next: the number of the piece that is to be asked for next.
    :ivar is_reading: whether a piece is being read.
    :ivar silence: ends it, unless something is asked for before.
    """

    id: int
    connection: Connection
    outgoing: Outgoing
    begun_seconds: float
    next: int = 0
    is_reading: bool = False
    silence: Any = None


class Backups:
    """The responder of the commands that read partitions whole.

    :param backups_max: how many may be open.
    :param seconds: a monotonic clock.
    """

    def __init__(
        self,
        reactor: Any,
        router: Router,
        partitions: Partitions,
        backups_max: int,
        seconds: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._router = router
        self._partitions = partitions
        self._backups_max = backups_max
        self._seconds = seconds
        self._ids = count(1)
        self._opening = 0
        self._stops = 0
        self._open: dict[int, _Backup] = {}
        self._connections: set[Connection] = set()
        partitions.on_full(self.stop)

    def responders(self) -> dict[type[amp.Command], Responder]:
        """A responder for each of the commands."""
        return {
            commands.OpenBackup: self._begin,
            commands.ReadBackup: self._read,
            commands.CloseBackup: self._close,
        }

    @property
    def open_count(self) -> int:
        """How many are open, or being opened."""
        return self._opening + len(self._open)

    def stop(self) -> None:
        """Close all, also those that are being opened."""
        self._stops += 1
        for backup in list(self._open.values()):
            self._end(backup)

    # -- the commands ---------------------------------------------------------------------------

    def _begin(self, connection: Connection, arguments: Arguments) -> Deferred[Arguments]:
        check_keyspace(arguments)
        number = arguments["partition"]
        _, mine = self._router.owned()
        if number >= len(mine):
            raise Refused(f"there is no partition {number}: there are {len(mine)}")
        if not self._partitions.leads(number):
            leader = self._partitions.leader(number) or ""
            raise NotLeader(f"partition {number} is led by another node", leader=leader)
        if self.open_count >= self._backups_max:
            raise Overloaded(
                f"{self.open_count} backups are open already: backups_max={self._backups_max}",
                setting="backups_max",
                limit=self._backups_max,
            )
        opened = self._partitions.outgoing(number)
        self._opening += 1
        return opened.addBoth(self._opened, connection, self._stops)

    def _opened(self, result: Outgoing | Failure, connection: Connection, stops: int) -> Arguments:
        self._opening -= 1
        outgoing = _unless_failed(result)
        if stops != self._stops:
            outgoing.close()
            raise Unavailable("the disk is full, or the node stops: begin again")
        if connection not in self._connections:
            self._connections.add(connection)
            connection.when_lost(lambda _: self._gone(connection))
        backup = _Backup(next(self._ids), connection, outgoing, self._seconds())
        self._open[backup.id] = backup
        self._wait(backup)
        header = outgoing.header
        return {
            "backup": backup.id,
            "applied_index": header.applied_index,
            "key_count": header.key_count,
            "data_bytes": header.data_bytes,
        }

    def _read(self, connection: Connection, arguments: Arguments) -> Deferred[Arguments]:
        check_keyspace(arguments)
        backup = self._find(connection, arguments["backup"])
        if backup.is_reading or arguments["number"] != backup.next:
            raise Refused(f"pieces are read one after the other: the next one is {backup.next}")
        if self._seconds() - backup.begun_seconds > LASTING_SECONDS_MAX:
            self._end(backup)
            raise Unavailable(f"the backup took more than {LASTING_SECONDS_MAX:g} s: begin again")
        backup.is_reading = True
        backup.silence.cancel()
        return backup.outgoing.read().addBoth(self._was_read, backup)

    def _was_read(self, result: tuple[bytes, bool] | Failure, backup: _Backup) -> Arguments:
        backup.is_reading = False
        try:
            piece, last = _unless_failed(result)
        except Exception:
            self._end(backup)
            raise
        backup.next += 1
        if last:
            self._end(backup)
        elif backup.id in self._open:
            self._wait(backup)
        return {"piece": piece, "last": last}

    def _close(self, connection: Connection, arguments: Arguments) -> Arguments:
        check_keyspace(arguments)
        self._end(self._find(connection, arguments["backup"]))
        return {}

    # -- what ends them -------------------------------------------------------------------------

    def _find(self, connection: Connection, id: int) -> _Backup:
        backup = self._open.get(id)
        if backup is None or backup.connection is not connection:
            raise Unavailable(
                f"backup {id} is not open on this connection: it was read to its end, or closed, "
                f"as after {SILENT_SECONDS_MAX:g} s of silence: begin again"
            )
        return backup

    def _wait(self, backup: _Backup) -> None:
        backup.silence = self._reactor.callLater(SILENT_SECONDS_MAX, self._end, backup)

    def _end(self, backup: _Backup) -> None:
        if self._open.pop(backup.id, None) is None:
            return
        if backup.silence.active():
            backup.silence.cancel()
        backup.outgoing.close()

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        for backup in list(self._open.values()):
            if backup.connection is connection:
                self._end(backup)


def _unless_failed(result: Any) -> Any:
    """*result*; a failure is raised, that of a disk as one that can cross the wire."""
    if isinstance(result, Failure):
        error = result.value
        if isinstance(error, StorageError) and not isinstance(error, DiskFull):
            raise Unavailable(f"the partition cannot be read: {error}") from error
        result.raiseException()
    return result
