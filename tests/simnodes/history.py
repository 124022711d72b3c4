"""What clients have seen, written down while it happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.python.failure import Failure

from kvtwist.errors import KvtwistError, NotDone, OutcomeUnknown, VersionMismatch
from tests.linearizability.history import ABSENT, Kind, Operation, Recorder
from tests.simnodes.clock import Clock
from tests.simnodes.trace import Trace

GRACE_SECONDS = 1.0
"""A request may end so long after its time is up: the client's own grace, and its timer's tick."""


class History:
    """What all clients have seen.

    :ivar ends: how operations have ended.
    :ivar acknowledged: told of each write that was done.
    :ivar bugs: what was raised that no caller expects.
    """

    def __init__(self, clock: Clock, trace: Trace) -> None:
        self.recorder = Recorder()
        self.ends: Counter[str] = Counter()
        self.acknowledged: Callable[[bytes, int], None] = lambda key, version: None
        self.bugs: list[str] = []
        self._clock = clock
        self._trace = trace
        self._events = 0
        self._versions: dict[bytes, int] = {}
        self._values = 0
        self._begun: dict[int, tuple[float, str]] = {}

    def is_bug(self, failure: Failure) -> None:
        """Something was raised that should not be."""
        self.bugs.append(failure.getTraceback())

    def _event(self) -> int:
        """The number of an event: clocks may show the same time for several."""
        self._events += 1
        return self._events

    def begin(self, client: str, kind: Kind, key: bytes, deadline: float, **asked: Any) -> int:
        """An operation is about to be sent, which must end by *deadline*."""
        ticket = self.recorder.begin(client, kind, key, at=self._event(), **asked)
        self._begun[ticket] = deadline, f"{client}: {kind.value} {key!r}"
        self._trace.add("invoke", client, f"#{ticket} {kind.value} {key!r} {_shown(asked)}")
        return ticket

    def answered(self, ticket: int, operation: Kind, key: bytes, **answer: Any) -> None:
        """It was answered."""
        self._ended(ticket, "answered", _shown(answer))
        self.recorder.answered(ticket, at=self._event(), **answer)
        version = answer.get("version")
        if version is not None:
            self._versions[key] = version
        if operation is not Kind.GET and answer.get("done", True) and version:
            self.acknowledged(key, version)

    def failed(self, ticket: int, key: bytes, error: KvtwistError) -> None:
        """It has failed in one of the ways in which operations do."""
        if isinstance(error, VersionMismatch):
            self.answered(
                ticket,
                Kind.COMPARE_AND_SET,
                key,
                done=False,
                version=error.version,
                value=error.value,
            )
        elif isinstance(error, NotDone):
            self._ended(ticket, "not done", str(error))
            self.recorder.not_done(ticket, at=self._event())
        elif isinstance(error, OutcomeUnknown):
            self.unknown(ticket, str(error))
        else:
            raise error

    def unknown(self, ticket: int, why: str) -> None:
        """Nobody can say what became of it."""
        self._ended(ticket, "unknown", why)
        self.recorder.unknown(ticket, at=self._event())

    def _ended(self, ticket: int, how: str, what: str) -> None:
        self.ends[how] += 1
        _, who = self._begun.pop(ticket)
        self._trace.add(how, who.partition(":")[0], f"#{ticket} {what}")

    @property
    def open_count(self) -> int:
        """How many operations have not ended."""
        return len(self._begun)

    def is_open(self, ticket: int) -> bool:
        """Whether it has not ended."""
        return ticket in self._begun

    def put_off(self, clients: str, seconds: float) -> None:
        """Operations of a process that stood still have so much more time."""
        for ticket, (deadline, who) in self._begun.items():
            if who.startswith(f"{clients}."):
                self._begun[ticket] = deadline + seconds, who

    def overdue(self) -> list[str]:
        """What should have ended by now."""
        now = self._clock.now
        return [f"#{at} {who}" for at, (end, who) in self._begun.items() if end < now]

    def version_of(self, key: bytes) -> int:
        """The version of *key* that anybody was told last."""
        return self._versions.get(key, ABSENT)

    def new_value(self, random: Random, bytes_max: int) -> bytes:
        """A value that nobody has written yet."""
        self._values += 1
        value = b"v%d" % self._values
        return value + b"." * (int(random.random() ** 3 * bytes_max))

    def operations(self) -> tuple[Operation, ...]:
        """All of it."""
        return self.recorder.operations()


def _shown(said: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={value[:24] if isinstance(value, bytes) else value!r}"
        for name, value in said.items()
    )
