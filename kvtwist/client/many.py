"""Bookkeeping of a call on many keys: which box each goes into, and what became of it.

A key is known by its *place* in the call, so that nothing is looked up under it until the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from twisted.protocols import amp

from kvtwist.client.sessions import Sessions, Ticket
from kvtwist.core.ring import partitions_of
from kvtwist.errors import KvtwistError, ManyFailed, OutcomeUnknown
from kvtwist.wire.again import may_be_sent_again
from kvtwist.wire.codec import Values
from kvtwist.wire.failures import unpack_failure
from kvtwist.wire.link import Link

BOX_BYTES_MAX = 1 << 20
BOX_KEYS_MAX = 1000
"""A box has so many bytes and keys at most, so that none keeps a node busy for long."""

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")


_NOTHING: Any = object()
"""In the place of a result that there is not, or not yet: ``None`` is one."""


class Many(Generic[_Key, _Result]):
    """One call of `get_many` or `put_many`.

    :param command: the command for many keys.
    :param given: the keys as the caller gave them, none twice.
    :param columns: the same keys as bytes and, for a write, the values.
    :param results_of: makes the results out of the answer to a box; `ValueError` if it cannot.
    :ivar tickets: of the keys that are written in a session, under their places.
    """

    def __init__(
        self,
        command: type[amp.Command],
        given: Sequence[_Key],
        columns: tuple[Sequence[bytes], ...],
        results_of: Callable[[Values], Sequence[_Result]],
    ) -> None:
        self.command = command
        self._given = given
        self._columns = columns
        self._results_of = results_of
        self._results: list[_Result] = [_NOTHING] * len(given)
        self._errors: dict[int, KvtwistError] = {}
        self._partitions: Sequence[int] = ()
        self.tickets: dict[int, Ticket] = {}

    # -- what is sent -------------------------------------------------------------------------

    def boxes(self, leaders: Sequence[Link]) -> Iterator[tuple[Link, list[int]]]:
        """The places of the keys for each box: all of one leader, and not too many bytes.

        Keys that would fill a box by themselves are left for sending alone, and so are all while
        nobody knows the leaders.

        :param leaders: for each partition the link to its leader.
        """
        if not leaders:
            return
        led: defaultdict[Link, list[int]] = defaultdict(list)
        self._partitions = partitions_of(self._columns[0], len(leaders))
        for at, partition in enumerate(self._partitions):
            led[leaders[partition]].append(at)
        fits_one = len(self._given) <= BOX_KEYS_MAX and self._size_bytes() <= BOX_BYTES_MAX
        for link, places in led.items():
            for box in [places] if fits_one else self._cut(places):
                yield link, box

    def _size_bytes(self) -> int:
        return sum(sum(map(len, column)) for column in self._columns)

    def _cut(self, places: list[int]) -> Iterator[list[int]]:
        """The places, in boxes that are not too large."""
        box: list[int] = []
        room = BOX_BYTES_MAX
        for at in places:
            size = sum(len(column[at]) for column in self._columns)
            if size > BOX_BYTES_MAX:
                continue
            if size > room or len(box) == BOX_KEYS_MAX:
                yield box
                box, room = [], BOX_BYTES_MAX
            box.append(at)
            room -= size
        if box:
            yield box

    def arguments(self, places: Sequence[int]) -> Values:
        """The arguments of the box for the keys at these places."""
        columns = ([*map(column.__getitem__, places)] for column in self._columns)
        wanted: Values = dict(zip(("keys", "values"), columns, strict=False))
        if places[0] in self.tickets:
            wanted["onces"] = b"".join([self.tickets[at].once() or b"" for at in places])
        return wanted

    def arguments_alone(self, at: int) -> Values:
        """The arguments of a request for the key at this place alone."""
        return dict(zip(("key", "value"), (column[at] for column in self._columns), strict=False))

    # -- writes in sessions -------------------------------------------------------------------

    def some_key_of(self, wanted: Collection[int], partitions: int) -> dict[int, bytes]:
        """A key in each of the *wanted* partitions, of so many in all, that has one."""
        numbers = partitions_of(self._columns[0], partitions)
        pairs = zip(numbers, self._columns[0], strict=True)
        return {number: key for number, key in pairs if number in wanted}

    async def name(self, places: Sequence[int], sessions: Sessions, deadline: float) -> bool:
        """Give each key of a box its ticket, unless there is a partition that takes none.

        ``False``: that failed; the keys are left for sending alone.
        """
        by_partition: defaultdict[int, list[int]] = defaultdict(list)
        for at in places:
            by_partition[self._partitions[at]].append(at)
        # Boxes that wait for room in one partition have it in another: as all take it in the same
        # order, none waits for one that waits for it.
        for partition in sorted(by_partition):
            here = by_partition[partition]
            key = self._columns[0][here[0]]
            try:
                begun = await sessions.begun(partition, key, len(here), deadline)
            except KvtwistError:
                self._unname(places)
                return False
            if begun is None:
                self._unname(places)
                return True
            session, first = begun
            for seq, at in enumerate(here, first):
                self.tickets[at] = Ticket(sessions, session, seq)
        return True

    def _unname(self, places: Iterable[int]) -> None:
        for at in places:
            if (ticket := self.tickets.pop(at, None)) is not None:
                ticket.end()

    def end(self) -> None:
        """Nothing is sent any more."""
        for ticket in self.tickets.values():
            ticket.end()

    # -- what became of it --------------------------------------------------------------------

    def answered(self, answer: Values, places: Sequence[int]) -> None:
        """Take in the answer to a box."""
        errors = answer["errors"]
        try:
            results = self._results_of(answer)
            if not len(places) == len(results) == len(results if errors is None else errors):
                raise ValueError("the answer has not as many results as keys")
        except ValueError as odd:
            self.failed(places, OutcomeUnknown(str(odd)))
            return
        for at, result in zip(places, results, strict=True):
            self._results[at] = result
        for at, error in zip(places, errors or (), strict=False):
            if error is not None:
                self._results[at] = _NOTHING
                self.failed((at,), unpack_failure(error))
        if self.tickets:
            self._unname(at for at in places if self._results[at] is not _NOTHING)

    def failed(self, places: Sequence[int], error: KvtwistError) -> None:
        """Take in an error: for good, unless the keys may be sent again."""
        for at in places:
            ticket = self.tickets.get(at)
            try:
                if ticket is not None:
                    ticket.weighed(self.command, error)
                elif not may_be_sent_again(self.command, error):
                    raise error
            except KvtwistError as final:
                self.failed_for_good((at,), final)

    def failed_for_good(self, places: Sequence[int], error: KvtwistError) -> None:
        """Take in an error after which nothing is sent again."""
        self._errors.update(dict.fromkeys(places, error))

    def answered_alone(self, result: _Result, at: int) -> None:
        """Take in the result of a key that was sent alone."""
        self._results[at] = result

    def left(self) -> list[int]:
        """The places of the keys that nothing has become of yet."""
        if _NOTHING not in self._results:
            return []
        return [
            at
            for at, result in enumerate(self._results)
            if result is _NOTHING and at not in self._errors
        ]

    def outcome(self) -> dict[_Key, _Result]:
        """The results, in the order of the call.

        :raises ManyFailed: when a key has an error.
        """
        if not self._errors:
            return dict(zip(self._given, self._results, strict=True))
        errors = {self._given[at]: self._errors[at] for at in sorted(self._errors)}
        first, error = next(iter(errors.items()))
        raise ManyFailed(
            f"{len(errors)} of {len(self._given)} keys failed, the first {first!r}: {error}",
            results={
                key: result
                for key, result in zip(self._given, self._results, strict=True)
                if result is not _NOTHING
            },
            errors=errors,
        )
