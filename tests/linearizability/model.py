"""The record of one key: what each operation demands of it, and what it makes of it.

The system chooses versions, so the version that an unknown write was given is not known until
somebody reads it. A `State` therefore says either the version or the lowest that it can be. That is
exact: operations demand one version, never "another than this" (a failed condition tells what it
saw), so no more than a lower bound is ever known of a version nobody has seen.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.linearizability.history import (
    ABSENT,
    INT64_MAX,
    INT64_MIN,
    Kind,
    Operation,
    number_of,
)

State = tuple[int, bool, bytes | None]
"""Version, whether it is exact, value.

Not exact: the version is this one or higher. ``None`` as value: there is no such key; then the
version is that of the removal, and exactness means nothing and is ``False``.
"""

EMPTY: State = (ABSENT, False, None)
"""A key that nobody has written yet."""

UNSEEN = b"\0 a value that nobody saw"
"""No number, and nothing that an answer has."""


class Step(NamedTuple):
    """An operation, once its outcome is known, reduced to what it demands and what it does."""

    version_wanted: int | None = None
    """The version before; `ABSENT`: there was no such key."""
    value_wanted: bytes | None = None
    is_presence_wanted: bool = False
    number_wanted: int | None = None
    """The number before; a missing key has 0."""
    refused_amount: int | None = None
    """Adding this must have been impossible: to no number, or past int64."""
    is_change: bool = False
    version_given: int | None = None
    """The version of the change; ``None``: some higher one than before."""
    value_given: bytes | None = None
    """The value after; ``None``: there is none, or it is what `amount` says."""
    amount: int | None = None
    """Of an increment with unknown sum: what it adds."""


IMPOSSIBLE = Step(version_wanted=ABSENT, is_presence_wanted=True)


def step_of(operation: Operation) -> Step:
    """*operation*, as it was answered; one of unknown outcome as if it was done."""
    if operation.answer is None or operation.is_change:
        return _change(operation)
    return _observation(operation)


def _change(operation: Operation) -> Step:
    answer = operation.answer
    given = None if answer is None else answer.version
    match operation.kind:
        case Kind.PUT:
            return Step(is_change=True, version_given=given, value_given=operation.value)
        case Kind.DELETE:
            return Step(
                version_wanted=operation.version,
                is_presence_wanted=operation.version is None,
                is_change=True,
                version_given=given,
            )
        case Kind.COMPARE_AND_SET | Kind.PUT_IF_ABSENT:
            return Step(
                version_wanted=operation.version or ABSENT,
                is_change=True,
                version_given=given,
                value_given=operation.value,
            )
        case Kind.INCREMENT:
            if answer is None:
                return Step(is_change=True, amount=operation.amount)
            total = number_of(answer.value)
            assert total is not None, "checked when the operation was made"
            return Step(
                number_wanted=total - operation.amount,
                is_change=True,
                version_given=given,
                value_given=answer.value,
            )
    raise ValueError(f"no change: {operation!r}")


def _observation(operation: Operation) -> Step:
    answer = operation.answer
    assert answer is not None
    match operation.kind:
        case Kind.GET:
            return Step(answer.version, answer.value, answer.version is None)
        case Kind.PUT_IF_ABSENT:
            return Step(answer.version, answer.value, True)
        case Kind.DELETE if operation.version is None:
            # What it says to have seen instead of nothing is held against it.
            return Step(ABSENT) if answer.version in (None, ABSENT) else IMPOSSIBLE
        case Kind.INCREMENT:
            return Step(answer.version, answer.value, refused_amount=operation.amount)
    # The condition has failed on the very version that it demands.
    if answer.version == operation.version:
        return IMPOSSIBLE
    return Step(answer.version, answer.value)


def after(state: State, step: Step) -> State | None:
    """The state after *step*; ``None`` if *state* is not what it demands.

    An observation that learns nothing gives back *state* itself.
    """
    if step.version_wanted is not None:
        learned = _at_version(state, step.version_wanted)
        if learned is None:
            return None
        state = learned
    low, _, value = state
    if not _is_value_wanted(value, step):
        return None
    if not step.is_change:
        return state
    given, made = step.version_given, step.value_given
    if step.amount is not None:
        made = _sum(value, step.amount)
        if made is None:
            return None
    if given is None:
        return (low + 1, False, made)
    if given <= low:
        return None
    return (given, made is not None, made)


def _at_version(state: State, wanted: int) -> State | None:
    """*state* when it is learned that its version is *wanted*; ``None`` if it cannot be."""
    low, exact, value = state
    if wanted == ABSENT or value is None:
        return state if wanted == ABSENT and value is None else None
    if exact or wanted < low:
        return state if wanted == low else None
    return (wanted, True, value)


def _is_value_wanted(value: bytes | None, step: Step) -> bool:
    """Whether *value* is one that *step* may find."""
    if step.value_wanted is not None and value != step.value_wanted:
        return False
    if step.is_presence_wanted and value is None:
        return False
    if step.number_wanted is not None and number_of(value) != step.number_wanted:
        return False
    return step.refused_amount is None or _sum(value, step.refused_amount) is None


def _sum(value: bytes | None, amount: int) -> bytes | None:
    """*value* and *amount* together; ``None`` where an increment is refused."""
    number = number_of(value)
    if number is None or not INT64_MIN <= number + amount <= INT64_MAX:
        return None
    return b"%d" % (number + amount)


def known_values(steps: list[Step]) -> dict[int, bytes]:
    """The value of each version that the *steps* tell one of."""
    values: dict[int, bytes] = {}
    for step in steps:
        if step.version_given is not None and step.value_given is not None:
            values[step.version_given] = step.value_given
        elif not step.is_change and step.version_wanted and step.value_wanted is not None:
            values[step.version_wanted] = step.value_wanted
    return values
