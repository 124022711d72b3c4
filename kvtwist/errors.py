"""Every exception that kvtwist raises on purpose.

::

    KvtwistError
    +-- ConfigurationError      the operator: what was given cannot be used
    |   +-- StoreLocked         another process uses the data directory
    +-- HelloRefused            the two ends of a connection do not belong together
    +-- StorageError            the node's own disk
    |   +-- StoreFailed         a write or sync has failed: this store is not to be used again
    |   +-- StoreDamaged        what is on the disk is not what was written
    |   +-- DiskFull            (also a NotDone) there is no room
    +-- NotDone                 the request was definitely not carried out
    |   +-- Unavailable         who could do it is not there (now)
    |   |   +-- NotSent         no byte of the request has left this process
    |   +-- Overloaded          too much is in flight already: try again later
    |   +-- NotLeader           the node asked does not lead the partition, and may not forward
    |   +-- VersionMismatch     a condition on a version did not hold
    |   +-- NotANumber          what was to be incremented is no decimal int64
    |   |   +-- OutOfRange      the sum would be no int64
    |   +-- SessionRefused      not carried out because of its session
    |   +-- WrongGeneration     sent for another membership than the partition has
    |   +-- Refused             the request itself: sending it again will not help
    |       +-- TooLarge        over a limit, which it names
    |       +-- MalformedRequest    an argument is missing or cannot be read
    |       +-- UnknownCommand      the other end does not know this command
    +-- OutcomeUnknown          the request may or may not have been carried out
    |   +-- NoAnswer            it was sent, and no answer came in time
    |   +-- NodeFault           the node failed while it carried the request out
    +-- ManyFailed              some keys of a ``get_many`` or ``put_many`` failed

A `NotDone` that a node answers speaks of the one request. If the same write was sent before, which
only a session allows, its sender weighs both (`kvtwist.client.sessions`).

The three outcomes of a write are: an answer (done), `NotDone`, `OutcomeUnknown`.

An exception that can cross the wire has a ``code`` and may have *details*: attributes named in
``detail_names``, of types that JSON has. `kvtwist.wire.failures` writes and reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class KvtwistError(Exception):
    """The root. ``str(error)`` is one line: what happened, why, and what to do about it."""

    code: ClassVar[str] = ""
    detail_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def details(self) -> dict[str, Any]:
        """The typed part of the error, as it crosses the wire."""
        return {name: getattr(self, name) for name in self.detail_names}


class ConfigurationError(KvtwistError):
    """An option, an address or the surroundings (a port in use) that a node cannot start with."""


class HelloRefused(KvtwistError):
    """The ends of a connection differ in cluster, protocol version, name or identity.

    :ivar reason: ``"version"``, ``"cluster"``, ``"name"``, ``"identity"`` or ``"address"``.
    """

    code = "HELLO_REFUSED"
    detail_names = ("reason",)

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class NotDone(KvtwistError):
    """Definitely not carried out: safe to send again."""


class Unavailable(NotDone):
    """Nobody who could carry the request out was reached before its deadline.

    :ivar waiting_for: who is missing, each a node's name or address.
    """

    code = "UNAVAILABLE"
    detail_names = ("waiting_for",)

    def __init__(self, message: str = "", *, waiting_for: tuple[str, ...] | list[str] = ()) -> None:
        super().__init__(message)
        self.waiting_for = tuple(waiting_for)


class NotSent(Unavailable):
    """There is no connection, so nothing was sent. Never crosses the wire."""

    code = ""


class Overloaded(NotDone):
    """A queue is full.

    :ivar setting: the name of the setting that bounds it, such as ``requests_in_flight_max``.
    :ivar limit: the setting's value.
    """

    code = "OVERLOADED"
    detail_names = ("setting", "limit")

    def __init__(self, message: str = "", *, setting: str = "", limit: int = 0) -> None:
        super().__init__(message)
        self.setting = setting
        self.limit = limit


class NotLeader(NotDone):
    """A forwarded request reached a node that does not lead the key's partition.

    It is said only when nothing was proposed.

    :ivar leader: the name of the member that the answering node takes for the leader; empty: it
        knows none.
    :ivar epoch: the epoch of the answering node's topology.
    """

    code = "NOT_LEADER"
    detail_names = ("leader", "epoch")

    def __init__(self, message: str = "", *, leader: str = "", epoch: int = 0) -> None:
        super().__init__(message)
        self.leader = leader
        self.epoch = epoch


class VersionMismatch(NotDone):
    """The key's version was not the one demanded.

    Made by the client from an answer: what was seen may be larger than an AMP error can carry.

    :ivar version: the version seen; 0 when the key does not exist.
    :ivar value: the value seen; ``None`` when the key does not exist, and also when the answer had
        to be asked for a second time: what was answered is kept, but not values.
    """

    def __init__(self, message: str = "", *, version: int = 0, value: bytes | None = None) -> None:
        super().__init__(message)
        self.version = version
        self.value = value


class NotANumber(NotDone):
    """What was to be incremented is not the shortest decimal form of an int64.

    :ivar version: of what is there.
    """

    code = "NOT_A_NUMBER"
    detail_names = ("version",)

    def __init__(self, message: str = "", *, version: int = 0) -> None:
        super().__init__(message)
        self.version = version


class OutOfRange(NotANumber):
    """The sum would be no int64."""

    code = "OUT_OF_RANGE"


class SessionRefused(NotDone):
    """A request was not carried out because of the session that it carries, or asks for.

    :ivar reason: ``"unknown"`` (never opened, or expired), ``"below_mark"`` (the session has said
        that this seq was answered), ``"beyond_window"`` (too far above its lowest unanswered seq),
        ``"too_many_answers"`` (are kept, for all sessions together) or ``"too_many_sessions"``.
    """

    code = "SESSION_REFUSED"
    detail_names = ("reason",)

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class WrongGeneration(NotDone):
    """The partition's membership is another than the one that the request was sent for.

    :ivar generation: the partition's own.
    """

    code = "WRONG_GENERATION"
    detail_names = ("generation",)

    def __init__(self, message: str = "", *, generation: int = 0) -> None:
        super().__init__(message)
        self.generation = generation


class Refused(NotDone):
    """The request is not acceptable to this cluster."""

    code = "REFUSED"


class TooLarge(Refused):
    """Something is over a limit.

    :ivar setting: the name of the setting that holds the limit, such as ``value_bytes_max``.
    :ivar limit: the setting's value.
    :ivar actual: what was seen.
    """

    code = "TOO_LARGE"
    detail_names = ("setting", "limit", "actual")

    def __init__(
        self, message: str = "", *, setting: str = "", limit: int = 0, actual: int = 0
    ) -> None:
        super().__init__(message)
        self.setting = setting
        self.limit = limit
        self.actual = actual


class MalformedRequest(Refused):
    """An argument is missing or is not of its type."""

    code = "MALFORMED"


class UnknownCommand(Refused):
    """The other end does not know the command. The code is the one that stock AMP uses."""

    code = "UNHANDLED"


class OutcomeUnknown(KvtwistError):
    """The request left and its fate was not learned. A write may or may not have been applied."""

    code = "OUTCOME_UNKNOWN"


class NoAnswer(OutcomeUnknown):
    """The time was up, or the connection was lost, before the answer. Never crosses the wire."""

    code = ""


class NodeFault(OutcomeUnknown):
    """The node met a bug of its own; its log has the traceback."""

    code = "NODE_FAULT"


class StorageError(KvtwistError):
    """The node's disk, or what is on it."""


class StoreFailed(StorageError):
    """A write, a sync or a read of the disk has failed; nothing more is attempted."""


class StoreDamaged(StorageError):
    """A record is not what was written; it is never served, and never guessed at."""


class DiskFull(StorageError, NotDone):
    """There is no room on the node's disk. Reads go on; writes do when there is room again."""

    code = "DISK_FULL"


class StoreLocked(ConfigurationError):
    """Another process uses the data directory."""


class ManyFailed(KvtwistError):
    """Some keys of a call on many keys failed; the others were done.

    :ivar results: key, as the caller gave it, to result, for the keys that succeeded.
    :ivar errors: key, as the caller gave it, to its error.
    """

    def __init__(
        self,
        message: str = "",
        *,
        results: Mapping[Any, Any] | None = None,
        errors: Mapping[Any, KvtwistError] | None = None,
    ) -> None:
        super().__init__(message)
        self.results = dict(results or {})
        self.errors = dict(errors or {})
