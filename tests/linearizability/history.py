"""Operations as their clients saw them, and a recorder that collects them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

ABSENT = 0
"""The version of a key that does not exist."""


class Kind(Enum):
    """What an operation does."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"
    COMPARE_AND_SET = "compare-and-set"
    PUT_IF_ABSENT = "put-if-absent"
    INCREMENT = "increment"


class Outcome(Enum):
    """What its client knows of an operation when all is over."""

    ANSWERED = "answered"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation was told.

    ``done``: whether a write has changed the key; always true of a get.

    ``version``: of a write that was done, that of the change. Else the version seen, `ABSENT` for
    no such key. ``None``: it was not said.

    ``value``: of an increment that was done, the sum. Else the value seen. ``None``: it was not
    said, or there is none; only ``version=ABSENT`` says that a key does not exist.
    """

    done: bool = True
    version: int | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client on one key.

    ``value`` is what is to be written. ``version`` is the version demanded: of a compare-and-set
    always (`ABSENT`: there must be no such key), of a delete perhaps. ``amount`` is what an
    increment adds; a missing key counts as 0.

    ``returned`` matters only of an operation that was *answered*.

    Raises `ValueError` where these contradict each other. An answer that is merely wrong does not
    raise: finding those is what the check is for.
    """

    client: str
    key: bytes
    kind: Kind
    invoked: float
    returned: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    answer: Answer | None = None
    value: bytes | None = None
    version: int | None = None
    amount: int = 0

    def __post_init__(self) -> None:
        for wrong in _contradictions(self):
            raise ValueError(f"{wrong}: {self!r}")

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer that must be explained."""
        return self.outcome is Outcome.ANSWERED

    @property
    def is_change(self) -> bool:
        """Whether it has certainly changed the key."""
        return self.answer is not None and self.answer.done and self.kind is not Kind.GET

    @property
    def may_change(self) -> bool:
        """Whether it has perhaps changed the key."""
        return self.is_change or (self.outcome is Outcome.UNKNOWN and self.kind is not Kind.GET)


def _contradictions(operation: Operation) -> Iterator[str]:
    kind, answer = operation.kind, operation.answer
    if (answer is not None) != operation.is_answered:
        yield "an operation has an answer if and only if it was answered"
    if operation.returned is not None and not operation.invoked <= operation.returned:
        yield "it returned before it was invoked"
    writes = kind in (Kind.PUT, Kind.COMPARE_AND_SET, Kind.PUT_IF_ABSENT)
    if writes != (operation.value is not None):
        yield "puts, and no others, have a value to write"
    if kind is Kind.COMPARE_AND_SET and operation.version is None:
        yield "a compare-and-set demands a version"
    if operation.version is not None:
        if kind not in (Kind.COMPARE_AND_SET, Kind.DELETE):
            yield "this kind demands no version"
        if operation.version < (1 if kind is Kind.DELETE else ABSENT):
            yield "no such version can be demanded"
    if answer is not None:
        if operation.returned is None:
            yield "an answer came at some time"
        yield from _contradictions_in_answer(operation, answer)


def _contradictions_in_answer(operation: Operation, answer: Answer) -> Iterator[str]:
    if answer.version is not None and answer.version < ABSENT:
        yield "a version is not negative"
    if operation.is_change:
        if answer.version == ABSENT:
            yield "a change has a version above 0"
        if operation.kind is Kind.INCREMENT and number_of(answer.value or b"") is None:
            yield "an increment that was done says the sum"
        return
    if answer.version == ABSENT and answer.value is not None:
        yield "what does not exist has no value"
    if operation.kind in (Kind.GET, Kind.PUT) and not answer.done:
        yield "gets and puts that are answered are done"
    if operation.kind is Kind.GET and answer.version is None and answer.value is None:
        yield "a get says a version, or a value, or that there is no such key"
    if operation.version is not None and answer.version is None:
        yield "a failed condition on a version says the version seen"


INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def number_of(value: bytes | None) -> int | None:
    """The number that an increment reads in *value*: its one decimal form, within int64.

    No value counts as 0. ``None``: *value* is no number, and its increment is refused.
    """
    if value is None:
        return 0
    if len(value) > 20 or not value.removeprefix(b"-").isdigit():
        return None
    number = int(value)
    return number if b"%d" % number == value and INT64_MIN <= number <= INT64_MAX else None


class Recorder:
    """Collects the operations of a run while they happen.

    ``begin`` gives a ticket; one of ``answered``, ``not_done``, ``unknown`` ends it. What was never
    ended is *unknown*.
    """

    def __init__(self) -> None:
        self._operations: list[Operation] = []

    def __len__(self) -> int:
        return len(self._operations)

    def begin(
        self,
        client: str,
        kind: Kind,
        key: bytes,
        *,
        at: float,
        value: bytes | None = None,
        version: int | None = None,
        amount: int = 0,
    ) -> int:
        """An operation is about to be sent: call this *before* its first byte leaves."""
        self._operations.append(
            Operation(client, key, kind, at, value=value, version=version, amount=amount)
        )
        return len(self._operations) - 1

    def answered(
        self,
        ticket: int,
        *,
        at: float,
        done: bool = True,
        version: int | None = None,
        value: bytes | None = None,
    ) -> None:
        """The answer has come: call this *after* its last byte."""
        self._end(ticket, Outcome.ANSWERED, at, Answer(done, version, value))

    def not_done(self, ticket: int, *, at: float) -> None:
        """The operation certainly did not take place, and never will."""
        self._end(ticket, Outcome.NOT_DONE, at, None)

    def unknown(self, ticket: int, *, at: float) -> None:
        """The client has given up; the operation may take place yet."""
        self._end(ticket, Outcome.UNKNOWN, at, None)

    def operations(self) -> tuple[Operation, ...]:
        """All that were begun, in this order."""
        return tuple(self._operations)

    def _end(self, ticket: int, outcome: Outcome, at: float, answer: Answer | None) -> None:
        begun = self._operations[ticket]
        if begun.returned is not None:
            raise ValueError(f"it has ended already: {begun!r}")
        self._operations[ticket] = replace(begun, returned=at, outcome=outcome, answer=answer)
