"""Counterexamples for people: the few operations that cannot be put in any order.

Operations cannot just be dropped while the rest is still wrong: without a write, whatever read it
is wrong for another reason. They are *forgotten*: an observation is left out, a change becomes one
of unknown outcome. Both only widen what is possible. So if the answers that remain are still wrong,
these alone show that the history is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.linearizability.history import ABSENT, Kind, Operation, Outcome
from tests.linearizability.search import Finding, Verdict

CHECKS_MAX = 400
"""How many smaller histories are tried."""
CONFIGURATIONS_MAX = 1_000_000
"""What all of them together may cost, apart from ten times what the whole history did."""
_PIECE_CONFIGURATIONS_MAX = 50_000
"""What each of them may cost, apart from twice that. One that costs more counts as not wrong."""
_LINES_MAX = 40
_WINDOW_MIN = 8

Check = Callable[[Sequence[Operation], int], Finding]


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Part of a history on one key that is wrong.

    ``answers``, by time: these answers contradict each other, whatever became of all other
    operations, as long as these wrote nothing but what they were asked to. ``context``: other
    writes that wrote, or would have written, what the answers tell of.
    """

    key: bytes
    answers: tuple[Operation, ...]
    context: tuple[Operation, ...]
    operations: int
    """How many the history has."""

    def __str__(self) -> str:
        lines = [
            f"not linearizable: key {self.key!r}, these {len(self.answers)} of {self.operations} "
            "operations fit in no order:",
            *_listed(self.answers),
        ]
        if self.context:
            lines += ["writes of what they saw:", *_listed(self.context)]
        return "\n".join(lines)


def _listed(operations: Sequence[Operation]) -> list[str]:
    """A line for each; of too many, the last ones."""
    more = len(operations) - _LINES_MAX
    return ([f"  ({more} earlier ones)"] if more > 0 else []) + [
        _line(each) for each in operations[-_LINES_MAX:]
    ]


def explain(operations: Sequence[Operation], finding: Finding, check: Check) -> Counterexample:
    """Make a history on one key that is wrong by *finding* small, as long as *check* agrees."""
    smaller = _Smaller(operations, check, finding.configurations)
    kept = smaller.start(finding.suspects)
    kept = smaller.smallest(kept)
    answers = sorted((operations[i] for i in kept), key=lambda each: each.invoked)
    return Counterexample(
        key=operations[0].key,
        answers=tuple(answers),
        context=tuple(_context(operations, set(kept))),
        operations=len(operations),
    )


class _Smaller:
    """Tries histories of which only some answers are kept."""

    def __init__(self, operations: Sequence[Operation], check: Check, cost: int) -> None:
        self._operations = operations
        self._check = check
        self._checks = 0
        self._left = CONFIGURATIONS_MAX + 10 * cost
        self._left_for_each = _PIECE_CONFIGURATIONS_MAX + 2 * cost

    def start(self, suspects: Sequence[int]) -> list[int]:
        """Answers to begin with: the suspects, what returned about then, or the shortest prefix."""
        if suspects and self._is_wrong(suspects):
            return list(suspects)
        answered = [i for i, each in enumerate(self._operations) if each.is_answered]
        answered.sort(key=lambda i: self._operations[i].returned or 0)
        if suspects:
            middle = max(map(answered.index, suspects))
            width = _WINDOW_MIN
            while width < len(answered):
                window = answered[max(0, middle - width) : middle + width]
                if self._is_wrong(window):
                    return window
                width *= 2
        return answered[: self._shortest_prefix(answered)]

    def _shortest_prefix(self, answered: list[int]) -> int:
        """How many of the first answers are wrong together."""
        low, high = 0, len(answered)
        while high - low > 1:
            middle = (low + high) // 2
            if self._is_wrong(answered[:middle]):
                high = middle
            else:
                low = middle
        return high

    def smallest(self, kept: list[int]) -> list[int]:
        """Forget pieces of *kept*, smaller and smaller ones, until each answer is needed.

        (Zeller & Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.)
        """
        size = (len(kept) + 1) // 2
        while size:
            pieces = [kept[i : i + size] for i in range(0, len(kept), size)]
            for piece in map(set, pieces):
                rest = [i for i in kept if i not in piece]
                if rest and self._is_wrong(rest):
                    kept = rest
            size //= 2
        return kept

    def _is_wrong(self, kept: Sequence[int]) -> bool:
        """Whether these answers alone are wrong; no, if that cannot be found out cheaply."""
        left = min(self._left, self._left_for_each)
        if self._checks >= CHECKS_MAX or left <= 0:
            return False
        self._checks += 1
        finding = self._check(forgotten(self._operations, set(kept)), left)
        self._left -= finding.configurations
        return finding.verdict is Verdict.NOT_LINEARIZABLE


def forgotten(operations: Sequence[Operation], kept: set[int]) -> list[Operation]:
    """The history, without the answers of all but *kept*."""
    return [
        each if i in kept else replace(each, outcome=Outcome.UNKNOWN, answer=None)
        for i, each in enumerate(operations)
        if i in kept or each.may_change
    ]


def _context(operations: Sequence[Operation], kept: set[int]) -> Iterator[Operation]:
    """The writes, other than *kept*, of values and versions that *kept* tell of."""
    values: set[bytes] = set()
    versions: set[int] = set()
    for i in kept:
        each = operations[i]
        assert each.answer is not None, "only answers are kept"
        versions.update(filter(None, (each.version, each.answer.version)))
        values.update([] if each.answer.value is None else [each.answer.value])
    others = [each for i, each in enumerate(operations) if i not in kept]
    for each in sorted(others, key=lambda each: each.invoked):
        if each.kind is Kind.GET or (each.answer is not None and not each.is_change):
            continue
        gave, made = (each.answer.version, each.answer.value) if each.answer else (None, None)
        if gave in versions or (gave is None and {each.value, made} & values):
            yield each


def _line(operation: Operation) -> str:
    end = "..." if operation.returned is None else f"{operation.returned:g}"
    return (
        f"  {operation.invoked:>10g} .. {end:<10} {operation.client:<12} "
        f"{_request(operation):<32} {_outcome(operation)}"
    )


def _request(operation: Operation) -> str:
    words = [operation.kind.value]
    if operation.value is not None:
        words.append(_shown(operation.value))
    if operation.kind is Kind.INCREMENT:
        words.append(f"by {operation.amount}")
    if operation.version is not None:
        words.append("if absent" if operation.version == ABSENT else f"if at {operation.version}")
    return " ".join(words)


def _outcome(operation: Operation) -> str:
    answer = operation.answer
    if answer is None:
        return operation.outcome.value.upper()
    words = []
    if not answer.done:
        words.append("failed, saw")
    if answer.version == ABSENT:
        words.append("no key")
    elif answer.version is not None:
        words.append(f"version {answer.version}")
    if answer.value is not None:
        words.append(_shown(answer.value))
    return "-> " + (" ".join(words) or "done")


def _shown(value: bytes) -> str:
    return repr(value) if len(value) <= 24 else f"{value[:20]!r}... ({len(value)} bytes)"
