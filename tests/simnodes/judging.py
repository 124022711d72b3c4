"""What is asked of the clients' histories when all is over."""

from __future__ import annotations

from collections.abc import Iterable

from kvtwist.core.ring import partition_of
from tests.linearizability.history import Kind, Operation, Outcome
from tests.linearizability.judge import assert_linearizable
from tests.linearizability.revisions import check_revisions
from tests.simnodes.ledger import Violation
from tests.simnodes.plan import Plan


def judge(operations: tuple[Operation, ...], plan: Plan, counters: Iterable[bytes]) -> None:
    """Is there an order in which all of it makes sense?

    :raises Violation: when there is none.
    """
    try:
        assert_linearizable(operations)
    except AssertionError as error:
        raise Violation("linearizability", str(error)) from error
    clashes = check_revisions(operations, lambda key: partition_of(key, plan.partitions))
    if clashes:
        raise Violation("versions_grow", str(clashes[0]))
    for key in counters:
        if wrong := miscounted(key, operations):
            raise Violation("exactly_once", wrong)


def miscounted(key: bytes, operations: Iterable[Operation]) -> str | None:
    """What is wrong with a counter that was only counted up, if its last value cannot be.

    The judge of histories says the same, and why; this needs no judge to be believed.
    """
    those = [each for each in operations if each.key == key]
    last = [each for each in those if each.kind is Kind.GET and each.answer is not None][-1]
    assert last.answer is not None
    counted = [each for each in those if each.kind is Kind.INCREMENT]
    least = sum(each.amount for each in counted if each.is_change)
    most = least + sum(each.amount for each in counted if each.outcome is Outcome.UNKNOWN)
    value = int(last.answer.value or b"0")
    if least <= value <= most:
        return None
    return f"{key!r} is {value}, and should be from {least} to {most}"
