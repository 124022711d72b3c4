"""Both checks together, key by key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.linearizability.explain import Counterexample, explain
from tests.linearizability.history import Operation, Outcome
from tests.linearizability.search import CONFIGURATIONS_MAX, Finding, Verdict, search
from tests.linearizability.versions import check_versions


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of a whole history.

    ``findings`` has each key's. ``counterexample`` is of one that is wrong.
    """

    verdict: Verdict
    findings: dict[bytes, Finding]
    counterexample: Counterexample | None = None

    def __str__(self) -> str:
        if self.counterexample is not None:
            return str(self.counterexample)
        undecided = [
            f"{key!r} after {finding.configurations} configurations"
            for key, finding in self.findings.items()
            if finding.verdict is Verdict.UNDECIDED
        ]
        return f"{self.verdict.value}: {', '.join(undecided) or f'{len(self.findings)} keys'}"


@dataclass(frozen=True, slots=True)
class Judged:
    """What a history that passed consisted of, for callers to see that it was worth judging."""

    keys: int
    answered: int
    changes: int
    unknown: int
    not_done: int


def check_key(operations: Sequence[Operation], budget: int = CONFIGURATIONS_MAX) -> Finding:
    """Decide whether *operations*, all of them on one key, are linearizable.

    By versions if these decide it, by search otherwise. *budget* is in configurations of the
    search.
    """
    finding = check_versions(operations)
    return search(operations, budget) if finding.verdict is Verdict.UNDECIDED else finding


def check(operations: Iterable[Operation], budget: int = CONFIGURATIONS_MAX) -> Judgement:
    """Decide whether a history on any number of keys is linearizable. *budget* is for each key.

    Keys are judged in their order, up to the first that is wrong, which is explained.
    """
    findings: dict[bytes, Finding] = {}
    for key, those in sorted(by_key(operations).items()):
        findings[key] = finding = check_key(those, budget)
        if finding.verdict is Verdict.NOT_LINEARIZABLE:
            return Judgement(finding.verdict, findings, explain(those, finding, check_key))
    verdicts = {finding.verdict for finding in findings.values()}
    undecided = Verdict.UNDECIDED in verdicts
    return Judgement(Verdict.UNDECIDED if undecided else Verdict.LINEARIZABLE, findings)


def assert_linearizable(
    operations: Iterable[Operation], budget: int = CONFIGURATIONS_MAX
) -> Judged:
    """Raise `AssertionError`, with an explanation, unless the history is linearizable."""
    history = list(operations)
    judgement = check(history, budget)
    if judgement.verdict is not Verdict.LINEARIZABLE:
        raise AssertionError(str(judgement))
    outcomes = Counter(each.outcome for each in history)
    return Judged(
        keys=len(judgement.findings),
        answered=outcomes[Outcome.ANSWERED],
        changes=sum(each.is_change for each in history),
        unknown=outcomes[Outcome.UNKNOWN],
        not_done=outcomes[Outcome.NOT_DONE],
    )


def by_key(operations: Iterable[Operation]) -> dict[bytes, list[Operation]]:
    """The operations on each key."""
    keys: dict[bytes, list[Operation]] = {}
    for each in operations:
        keys.setdefault(each.key, []).append(each)
    return keys
