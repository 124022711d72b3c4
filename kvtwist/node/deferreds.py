"""Who waits for a replica on the ordinary way: a Deferred, told as `kvtwist.node.waiting` says."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from kvtwist.core.state.answers import Answer
from kvtwist.core.state.records import Record
from kvtwist.errors import KvtwistError


class DeferredWriter(Deferred[Answer]):
    """A `Writer` that is a Deferred."""

    def applied(self, answer: Answer) -> None:
        """It was applied."""
        self.callback(answer)

    def lost(self, error: KvtwistError) -> None:
        """It will not be."""
        self.errback(error)


class DeferredReader(Deferred["Record | None"]):
    """A `Reader` that is a Deferred."""

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self.key = key

    def found(self, record: Record | None) -> None:
        """What is there."""
        self.callback(record)

    def lost(self, error: KvtwistError) -> None:
        """Nobody has confirmed it."""
        self.errback(error)
