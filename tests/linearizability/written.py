"""Short words to write histories by hand, and to judge them by every check there is."""

from __future__ import annotations

from collections.abc import Sequence

from tests.linearizability.brute import is_linearizable
from tests.linearizability.history import ABSENT, Answer, Kind, Operation, Outcome
from tests.linearizability.judge import check_key
from tests.linearizability.model import EMPTY, State, after, step_of
from tests.linearizability.search import Finding, Verdict, search
from tests.linearizability.versions import check_versions

Span = tuple[float, float]
KEY = b"k"


def got(
    client: str, span: Span, version: int | None, value: bytes | None = None, key: bytes = KEY
) -> Operation:
    """A get; version `ABSENT` for no such key."""
    return _answered(client, key, Kind.GET, span, Answer(True, version, value))


def put(client: str, span: Span, value: bytes, version: int | None, key: bytes = KEY) -> Operation:
    """A put."""
    return _answered(client, key, Kind.PUT, span, Answer(True, version), value=value)


def removed(client: str, span: Span, version: int | None, demanded: int | None = None) -> Operation:
    """A delete that has removed the key."""
    return _answered(client, KEY, Kind.DELETE, span, Answer(True, version), version=demanded)


def removed_nothing(client: str, span: Span) -> Operation:
    """A delete that has found no key."""
    return _answered(client, KEY, Kind.DELETE, span, Answer(False, ABSENT))


def swapped(client: str, span: Span, demanded: int, value: bytes, version: int | None) -> Operation:
    """A compare-and-set that has written."""
    answer = Answer(True, version)
    kind = Kind.COMPARE_AND_SET
    return _answered(client, KEY, kind, span, answer, value=value, version=demanded)


def not_swapped(
    client: str, span: Span, demanded: int, seen: int, value: bytes | None = None
) -> Operation:
    """A compare-and-set that has seen another version."""
    answer = Answer(False, seen, value)
    kind = Kind.COMPARE_AND_SET
    return _answered(client, KEY, kind, span, answer, value=b"never", version=demanded)


def made(client: str, span: Span, value: bytes, version: int | None) -> Operation:
    """A put-if-absent that has written."""
    return _answered(client, KEY, Kind.PUT_IF_ABSENT, span, Answer(True, version), value=value)


def not_made(client: str, span: Span, seen: int | None) -> Operation:
    """A put-if-absent that has found a key."""
    return _answered(client, KEY, Kind.PUT_IF_ABSENT, span, Answer(False, seen), value=b"never")


def added(client: str, span: Span, amount: int, total: bytes, version: int | None) -> Operation:
    """An increment."""
    answer = Answer(True, version, total)
    return _answered(client, KEY, Kind.INCREMENT, span, answer, amount=amount)


def not_added(client: str, span: Span, amount: int, seen: int | None = None) -> Operation:
    """An increment that was refused."""
    return _answered(client, KEY, Kind.INCREMENT, span, Answer(False, seen), amount=amount)


def ended(
    outcome: Outcome,
    client: str,
    kind: Kind,
    invoked: float,
    value: bytes | None = None,
    version: int | None = None,
    amount: int = 0,
) -> Operation:
    """An operation without an answer."""
    return Operation(client, KEY, kind, invoked, invoked + 1, outcome, None, value, version, amount)


def unknown(
    client: str,
    kind: Kind,
    invoked: float,
    value: bytes | None = None,
    version: int | None = None,
    amount: int = 0,
) -> Operation:
    """An operation that its client knows nothing of."""
    return ended(Outcome.UNKNOWN, client, kind, invoked, value, version, amount)


def _answered(
    client: str,
    key: bytes,
    kind: Kind,
    span: Span,
    answer: Answer,
    value: bytes | None = None,
    version: int | None = None,
    amount: int = 0,
) -> Operation:
    return Operation(client, key, kind, *span, Outcome.ANSWERED, answer, value, version, amount)


def verdicts(operations: Sequence[Operation]) -> dict[str, Verdict]:
    """What each check says, also brute force. The orders that are found are gone through."""
    findings = {
        "versions": check_versions(operations),
        "search": search(operations),
        "both": check_key(operations),
    }
    for finding in findings.values():
        if finding.verdict is Verdict.LINEARIZABLE:
            assert_order(operations, finding)
    good, bad = Verdict.LINEARIZABLE, Verdict.NOT_LINEARIZABLE
    brute = good if is_linearizable(operations) else bad
    return {"brute force": brute} | {name: each.verdict for name, each in findings.items()}


def assert_order(operations: Sequence[Operation], finding: Finding) -> None:
    """The order of *finding* has every answer, keeps to real time, and explains all answers."""
    order = finding.order
    assert order is not None
    assert len(set(order)) == len(order), "an operation takes place once"
    answered = {i for i, each in enumerate(operations) if each.is_answered}
    assert answered <= set(order), "each answered operation takes place"
    state: State | None = EMPTY
    latest = float("-inf")
    for each in (operations[i] for i in order):
        assert each.is_answered or each.outcome is Outcome.UNKNOWN, "what was not done is not there"
        # Nobody returned before this was invoked and yet comes later: seen from the later one.
        latest = max(latest, each.invoked)
        if each.is_answered:
            assert each.returned is not None
            assert each.returned >= latest, "what returned before another began is before it"
        assert state is not None
        state = after(state, step_of(each))
        assert state is not None, f"{each} does not follow"
