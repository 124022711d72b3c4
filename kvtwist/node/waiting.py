"""Who waits for what a replica does: a callback object for each request, told once.

A replica tells its waiters; it does not care what they are. On the ordinary way it is a Deferred
(`kvtwist.node.deferreds`). On the short way (`kvtwist.wire.frequent`) it is the one object that the
request is: it makes the answer's bytes at once, and no dictionary, coroutine or timer comes
between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.logger import Logger

from kvtwist.core.state.answers import Answer, Written
from kvtwist.core.state.contents import stored_key
from kvtwist.core.state.outcomes import Changed
from kvtwist.core.state.records import Record
from kvtwist.errors import KvtwistError
from kvtwist.node.operations import answer_to, seen
from kvtwist.wire import commands
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.connection import Arguments, Unanswered
from kvtwist.wire.frequent import get_answer, nothing_answer, put_answer

_Told = TypeVar("_Told")

_log = Logger(namespace="kvtwist.node")


class Writer(Protocol):
    """Waits for a proposed entry."""

    def applied(self, answer: Answer) -> None:
        """It was applied, and this is the answer to it."""

    def lost(self, error: KvtwistError) -> None:
        """It will not be, or nobody can say."""


class Reader(Protocol):
    """Waits for a read to be confirmed.

    :ivar key: what is to be read, as it is stored.
    """

    @property
    def key(self) -> bytes:
        """As it is stored."""

    def found(self, record: Record | None) -> None:
        """What is there."""

    def lost(self, error: KvtwistError) -> None:
        """Nobody has confirmed it."""


def tell(told: Callable[[_Told], None], what: _Told) -> None:
    """Tell who waits. What goes wrong there is that one's trouble: not the replica's, nor that of
    those who are told next."""
    try:
        told(what)
    except Exception:
        _log.failure("a bug: who waited for a replica failed")


# -- the short way --------------------------------------------------------------------------------


class Applied(Protocol):
    """What knows how far it is applied."""

    @property
    def applied_index(self) -> int:
        """How far."""


class ShortWriter(Unanswered):
    """A `Put` on the short way.

    :param replica: applies it.
    :param place: what the mark of its answer begins with: cluster and partition
        (`kvtwist.wire.applied`).
    """

    __slots__ = ("_place", "_replica")
    is_write = True

    def __init__(self, replica: Applied, place: bytes) -> None:
        self._replica = replica
        self._place = place

    def applied(self, answer: Answer) -> None:
        """It was applied."""
        match answer:
            case Written((Changed(version),)):
                mark = self._place + self._replica.applied_index.to_bytes(8, "big")
                self.answer(put_answer(version, mark))
            case _:
                self._odd(answer)

    def _odd(self, answer: Answer) -> None:
        """It was refused: the ordinary way knows how to say that."""
        try:
            answer_to(commands.Put, answer)
        except KvtwistError as error:
            self.fail(error)

    def lost(self, error: KvtwistError) -> None:
        """It will not be."""
        self.fail(error)


class ShortReader(Unanswered):
    """A `Get` on the short way; likewise."""

    __slots__ = ("_place", "_replica", "key")

    def __init__(self, key: bytes, replica: Applied, place: bytes) -> None:
        self.key = stored_key(0, key)
        self._replica = replica
        self._place = place

    def found(self, record: Record | None) -> None:
        """What is there."""
        mark = self._place + self._replica.applied_index.to_bytes(8, "big")
        if record is None:
            self.answer(nothing_answer(mark))
        elif len(record.value) <= VALUE_BYTES_MAX:
            self.answer(get_answer(record.version, record.value, mark))
        else:
            answer: Arguments = {**seen(record), "applied": mark}
            self.answer_at_length(answer)

    def lost(self, error: KvtwistError) -> None:
        """Nobody has confirmed it."""
        self.fail(error)
