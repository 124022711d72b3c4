"""What a history comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvtwist.core.ring import partition_of
from tests.linearizability.history import Kind, Operation, Outcome, number_of
from tests.linearizability.judge import by_key, check
from tests.linearizability.revisions import check_revisions
from tests.linearizability.search import Verdict


def wrong_with(operations: Sequence[Operation], partitions: int) -> list[str]:
    """All that is wrong with a history; nothing: it is as it has to be.

    X2: what the checker cannot decide within its budget is wrong as well.
    """
    wrong = []
    judgement = check(operations)
    if judgement.verdict is not Verdict.LINEARIZABLE:
        wrong.append(str(judgement))
    clashes = check_revisions(operations, lambda key: partition_of(key, partitions))
    if clashes:
        earlier, later = clashes[0]
        wrong.append(
            f"the versions of a partition do not grow, {len(clashes)} times, first: "
            f"{_shown(earlier)}, then {_shown(later)}"
        )
    for key, those in sorted(by_key(operations).items()):
        wrong += _counter(key, those)
    return wrong


def _shown(operation: Operation) -> str:
    assert operation.answer is not None
    return (
        f"{operation.kind.value} of {operation.key!r} by {operation.client} at "
        f"{operation.invoked:.3f} -> version {operation.answer.version}"
    )


def _counter(key: bytes, operations: Sequence[Operation]) -> Iterable[str]:
    """The last sum is what was added, and perhaps what is unknown (increments here are positive).

    The check for linearizability knows this as well; this one is so simple that it must be right.
    """
    added = [each for each in operations if each.kind is Kind.INCREMENT]
    if not added or len(added) < sum(each.kind is not Kind.GET for each in operations):
        return
    last = max(
        (each for each in operations if each.kind is Kind.GET and each.is_answered),
        key=lambda each: each.invoked,
        default=None,
    )
    if last is None or last.answer is None or last.invoked < max(each.invoked for each in added):
        return
    least = sum(each.amount for each in added if each.is_change)
    most = least + sum(each.amount for each in added if each.outcome is Outcome.UNKNOWN)
    total = number_of(last.answer.value)
    if total is None or not least <= total <= most:
        yield f"{key!r} is at {total}: {least} was added, with what is unknown {most}"
