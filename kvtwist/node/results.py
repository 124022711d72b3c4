"""What becomes of each key of a request on many, and who waits for all of them together.

A key is known by its *place* in the request. On disks each is a small object that its replica tells
(`kvtwist.node.waiting`): no Deferred and no timer for one key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.core.state.answers import Answer
from kvtwist.core.state.records import Record
from kvtwist.errors import KvtwistError, Overloaded
from kvtwist.node.operations import answer_to
from kvtwist.wire.applied import join_applied, pack_applied, unpack_applied
from kvtwist.wire.commands import ANSWER_BYTES_MAX, GetMany, Put
from kvtwist.wire.connection import Arguments
from kvtwist.wire.failures import pack_failure, unpack_failure


class Results:
    """What became of the keys of a request, each at its place in it.

    :ivar versions: 0 where there is an error, or no such key.
    :ivar values: what was read.
    :ivar errors: under their places.
    :ivar applied: how far each partition that was used is.
    """

    __slots__ = ("applied", "cluster_id", "errors", "values", "versions")

    def __init__(self, cluster_id: bytes, count: int) -> None:
        self.cluster_id = cluster_id
        self.versions = [0] * count
        self.values: list[bytes | None] = [None] * count
        self.errors: dict[int, KvtwistError] = {}
        self.applied: dict[int, int] = {}

    def take(
        self, places: Sequence[int], versions: Sequence[int], values: Sequence[bytes | None]
    ) -> None:
        """Put results where they belong."""
        for at, version, value in zip(places, versions, values, strict=True):
            self.versions[at], self.values[at] = version, value

    def take_part(self, places: Sequence[int], answer: Arguments) -> None:
        """The same for what another node did, and answered.

        :raises ValueError: when the answer does not fit the places; then nothing is taken.
        """
        versions, nothing = answer["versions"], [None] * len(places)
        values = answer.get("values", nothing)
        errors = nothing if answer["errors"] is None else answer["errors"]
        if not len(places) == len(versions) == len(values) == len(errors):
            raise ValueError("it answered for another number of keys")
        if answer["applied"] is not None:
            join_applied(self.applied, unpack_applied(self.cluster_id, answer["applied"]))
        self.take(places, versions, values)
        for at, error in zip(places, errors, strict=True):
            if error is not None:
                self.errors[at] = unpack_failure(error)

    def answer(self, command: type[amp.Command]) -> Arguments:
        """The answer."""
        answer: Arguments = {"versions": self.versions}
        if command is GetMany:
            self._bound()
            answer["values"] = self.values
        if self.errors:
            packed: list[bytes | None] = [None] * len(self.versions)
            for at, error in self.errors.items():
                packed[at] = pack_failure(error)
            answer["errors"] = packed
        if self.applied:
            answer["applied"] = pack_applied(self.cluster_id, self.applied)
        return answer

    def _bound(self) -> None:
        """Leave out values that the answer has no room for."""
        room = ANSWER_BYTES_MAX
        if sum(map(len, filter(None, self.values))) <= room:
            return
        for at, value in enumerate(self.values):
            if value is None:
                continue
            if len(value) > room and room < ANSWER_BYTES_MAX:
                self.versions[at], self.values[at] = 0, None
                self.errors[at] = Overloaded("the answer is full: ask for this key again")
            else:
                room -= len(value)


class Waiting:
    """The keys of a request that are worked on here.

    :param here: the partition of each, under its place.
    :param applied: how far a partition is.

    :ivar done: fires when something has become of all of them.
    """

    def __init__(
        self, here: Mapping[int, int], results: Results, applied: Callable[[int], int]
    ) -> None:
        self._left = dict(here)
        self._results = results
        self._applied = applied
        self.done: Deferred[Arguments] = Deferred()

    def took(self, at: int, version: int, value: bytes | None) -> None:
        """One is done."""
        number = self._left.pop(at, None)
        if number is None:
            return  # its time was up
        results = self._results
        results.versions[at], results.values[at] = version, value
        results.applied[number] = max(self._applied(number), results.applied.get(number, 0))
        if not self._left:
            self.done.callback({})

    def failed(self, at: int, error: KvtwistError) -> None:
        """One is not, or nobody can say."""
        if self._left.pop(at, None) is None:
            return
        self._results.errors[at] = error
        if not self._left:
            self.done.callback({})

    def end(self, failure: Failure) -> None:
        """The time of all that are left is up."""
        error = failure.value
        if not isinstance(error, KvtwistError):
            failure.raiseException()
        self._results.errors.update(dict.fromkeys(self._left, error))
        self._left.clear()


class OneKey:
    """One of them: a `kvtwist.node.waiting.Writer`, or a `Reader`."""

    __slots__ = ("_at", "_waiting", "key")

    def __init__(self, waiting: Waiting, at: int, key: bytes) -> None:
        self._waiting = waiting
        self._at = at
        self.key = key

    def applied(self, answer: Answer) -> None:
        """It was written."""
        try:
            version = answer_to(Put, answer)["version"]
        except KvtwistError as error:
            self.lost(error)
        else:
            self._waiting.took(self._at, version, None)

    def found(self, record: Record | None) -> None:
        """It was read."""
        if record is None:
            self._waiting.took(self._at, 0, None)
        else:
            self._waiting.took(self._at, record.version, record.value)

    def lost(self, error: KvtwistError) -> None:
        """It was not, or nobody can say."""
        self._waiting.failed(self._at, error)
