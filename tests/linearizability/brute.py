"""Every order there is, one after the other: too slow for anything, and too plain to be wrong.

Shares no code with the checks. Versions of unknown writes are tried out one by one, each that could
make a difference: any up to the highest that is mentioned, and one more for each unknown write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.linearizability.history import Kind, Operation, Outcome

Record = tuple[int, bytes] | None


def is_linearizable(operations: Sequence[Operation]) -> bool:
    """Whether some order of *operations*, on one key, explains every answer."""
    must = [each for each in operations if each.outcome is Outcome.ANSWERED]
    may = [
        each for each in operations if each.outcome is Outcome.UNKNOWN and each.kind is not Kind.GET
    ]
    mentioned = [0]
    for each in operations:
        mentioned += [each.version or 0, (each.answer and each.answer.version) or 0]
    return _can_go_on(must, may, None, 0, max(mentioned) + len(may) + len(must))


def _can_go_on(
    must: list[Operation], may: list[Operation], record: Record, revision: int, top: int
) -> bool:
    if not must:
        return True
    for first in must + may:
        if any(_precedes(other, first) for other in must if other is not first):
            continue
        others = [each for each in must if each is not first]
        optional = [each for each in may if each is not first]
        for then, reached in _outcomes(first, record, revision, top):
            if _can_go_on(others, optional, then, reached, top):
                return True
    return False


def _precedes(one: Operation, other: Operation) -> bool:
    """Only answered operations are asked: the others may take place at any later time."""
    assert one.returned is not None
    return one.returned < other.invoked


def _outcomes(
    operation: Operation, record: Record, revision: int, top: int
) -> Iterator[tuple[Record, int]]:
    """The records and revisions that *operation* may leave behind, with the answer it was given."""
    version, value = record if record is not None else (0, None)
    changes, written = _effect(operation, record)
    answer = operation.answer
    if not changes:
        if answer is None:
            return
        if answer.done is not (operation.kind is Kind.GET):
            return
        if answer.version not in (None, version) or answer.value not in (None, value):
            return
        yield record, revision
        return
    if answer is not None and not answer.done:
        return
    if answer is not None and operation.kind is Kind.INCREMENT and answer.value != written:
        return
    given = None if answer is None else answer.version
    for now in range(revision + 1, top + 1) if given is None else [given]:
        if now > revision:
            yield (None if written is None else (now, written)), now


def _effect(operation: Operation, record: Record) -> tuple[bool, bytes | None]:
    """Whether it changes *record*, and the value that it leaves."""
    if operation.kind is Kind.PUT:
        return True, operation.value
    if operation.kind is Kind.PUT_IF_ABSENT:
        return record is None, operation.value
    if operation.kind is Kind.COMPARE_AND_SET:
        return (record[0] if record else 0) == operation.version, operation.value
    if operation.kind is Kind.DELETE:
        if record is None or operation.version not in (None, record[0]):
            return False, None
        return True, None
    if operation.kind is Kind.INCREMENT:
        try:
            number = int(record[1]) if record else 0
        except ValueError:
            return False, None
        if record and str(number).encode() != record[1]:
            return False, None
        total = number + operation.amount
        return -(2**63) <= total < 2**63, str(total).encode()
    return False, None
