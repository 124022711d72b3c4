"""What an answer means to the caller: results, or the error that a condition did not hold."""

from __future__ import annotations

from collections.abc import Sequence

from kvtwist.core.partition import Record
from kvtwist.core.state.outcomes import Counted
from kvtwist.errors import OutcomeUnknown, VersionMismatch
from kvtwist.wire.codec import Values


def record(answer: Values) -> Record | None:
    """Of `commands.Get`, and what the others saw."""
    return record_of(answer["version"], answer["value"])


def record_of(version: int, value: bytes | None) -> Record | None:
    """The record, if both are there, ``None`` if there is none.

    :raises OutcomeUnknown: when it is no answer to such a request, but a write's, say.
    """
    if (value is None) != (version == 0):
        raise OutcomeUnknown("the node's answer contradicts itself: value and version do not fit")
    return None if value is None else Record(value, version)


def version(answer: Values) -> int:
    """Of `commands.Put`."""
    return version_of(answer["version"])


def version_of(version: int) -> int:
    """The version of what was written.

    :raises OutcomeUnknown: when it is that of nothing: the answer is not one to a write.
    """
    if not version:
        raise OutcomeUnknown("the node's answer contradicts itself: a write to version 0")
    return version


def counted(answer: Values) -> Counted:
    """Of `commands.Increment`."""
    return Counted(version(answer), answer["total"])


def deleted(wanted: int | None, answer: Values) -> bool:
    """Of `commands.Delete`.

    :raises VersionMismatch: when there was another version than *wanted*.
    """
    if not answer["done"] and answer["version"]:
        raise _mismatch(wanted, answer)
    return bool(answer["done"])


def swapped(wanted: int, answer: Values) -> int:
    """Of `commands.CompareAndSet`.

    :raises VersionMismatch: when there was another version than *wanted*.
    """
    if not answer["done"]:
        raise _mismatch(wanted, answer)
    return version(answer)


def records(answer: Values) -> list[Record | None]:
    """Of `commands.GetMany`.

    :raises ValueError: when there are not as many values as versions.
    """
    pairs = zip(answer["values"], answer["versions"], strict=True)
    return [None if value is None else Record(value, version) for value, version in pairs]


def versions(answer: Values) -> Sequence[int]:
    """Of `commands.PutMany`."""
    numbers: Sequence[int] = answer["versions"]
    return numbers


def _mismatch(wanted: int | None, answer: Values) -> VersionMismatch:
    """The error that says what was seen: of a value that was not kept, only its version."""
    version, value = answer["version"], answer["value"]
    if value is not None:
        record(answer)
    there = f"it is at version {version}" if version else "it does not exist"
    demand = f"version {wanted}" if wanted else "that it does not exist"
    return VersionMismatch(
        f"the key was not changed: {demand} was demanded, and {there}", version=version, value=value
    )
