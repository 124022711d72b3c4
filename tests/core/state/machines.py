"""A state machine that is fed commands one after the other, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from kvtwist.core.state.answers import Answer, SessionOpened
from kvtwist.core.state.commands import (
    NO_SESSION,
    Advance,
    Command,
    Condition,
    OpenSession,
    Write,
    encode,
)
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.operations import Operation
from kvtwist.core.state.snapshot import restore

GENERATION = 7


class Fed(StateMachine):
    """A machine that counts the entries by itself."""

    __slots__ = ()

    def feed(self, command: Command) -> Answer:
        """Apply the command as the next entry."""
        return self.apply(self.applied_index + 1, encode(command))

    def do(
        self,
        *operations: Operation,
        conditions: Iterable[Condition] = (),
        keyspace: int = 0,
        stamp_ms: int = 0,
    ) -> Answer:
        """A write without a session."""
        return self.feed(
            Write(
                stamp_ms, self.generation, NO_SESSION, 0, 0, operations, tuple(conditions), keyspace
            )
        )

    def open(self, idle_ms: int = 1000, stamp_ms: int = 0) -> int:
        """The id of a new session."""
        answer = self.feed(OpenSession(stamp_ms, self.generation, idle_ms))
        assert isinstance(answer, SessionOpened), answer
        return answer.session

    def write(
        self, session: int, seq: int, lowest: int, *operations: Operation, stamp_ms: int = 0
    ) -> Answer:
        """A write in a session."""
        return self.feed(Write(stamp_ms, self.generation, session, seq, lowest, operations))

    def pass_to(self, log_time_ms: int) -> None:
        """Let log time pass."""
        self.feed(Advance(log_time_ms))

    def reborn(self, chunk_bytes: int = 64) -> Fed:
        """What a replica has that was sent this one's snapshot."""
        return Fed(restore(self.snapshot().chunks(chunk_bytes)))


def new(revision: int = 0) -> Fed:
    """A machine without a past."""
    return Fed(Contents(GENERATION, revision))
