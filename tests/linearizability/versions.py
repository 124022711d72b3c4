"""The fast check: versions tell the order of the changes, and little is left to try. O(n log n).

To decide whether a history is linearizable is NP-complete in general, and easy once it is known
which write each read has seen (Gibbons & Korach, "Testing shared memories", SIAM J. Comput. 26,
1997). Versions tell that, and the order of the writes as well. So there is one candidate for an
order: changes by their versions, each observation after the change whose version it saw and before
the next. What remains is to look whether each change could follow the one before it, whether
observations tell the right values, and whether the order keeps to real time. For this each
operation gets a *place*: 2i for the i-th change, 2i + 1 for what was seen between it and the next;
what precedes an operation in real time must have no higher place. One pass over the events shows
that.

**It decides only if** every answered change told its version, and every answered observation the
version that it saw (removals too; `ABSENT` for no such key). Otherwise: UNDECIDED, unless versions
that were told fall in real time, or a value was seen that nobody could have written by then.

**It is sound**: LINEARIZABLE comes with an order, NOT_LINEARIZABLE never depends on a guess.

**It is complete**, that is, never UNDECIDED, if moreover no write has an unknown outcome. With such
writes two things are guessed, and where a guess fails it says UNDECIDED:

* A version that was seen and that no answered change gave is an unknown write's, of the value seen
  with it. One is taken that writes this value, was invoked early enough and can follow the change
  before. UNDECIDED if there is none, unless none writes this value at all; UNDECIDED if nobody told
  the value.
* All other unknown writes are left out. UNDECIDED if then a change cannot follow, or an observation
  finds a key where it saw none, and one that was left out might be the reason.

Observations of no key fit wherever the key was missing. Each gets the lowest place that real time
allows, which narrows the others least.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from tests.linearizability.history import ABSENT, Operation, number_of
from tests.linearizability.model import EMPTY, State, Step, after, known_values, step_of
from tests.linearizability.search import Finding, Verdict, events_of, returned

_START = -1
"""The place before the first change."""


def check_versions(operations: Sequence[Operation]) -> Finding:
    """Decide by versions whether *operations*, all of them on one key, are linearizable."""
    return _Check(operations).finding()


class _Decided(Exception):
    def __init__(self, verdict: Verdict, *suspects: int | None) -> None:
        self.finding = Finding(verdict, suspects=tuple(s for s in suspects if s is not None))


def _wrong(*suspects: int | None) -> _Decided:
    return _Decided(Verdict.NOT_LINEARIZABLE, *suspects)


def _wrong_unless(might_explain: bool, *suspects: int | None) -> _Decided:
    """Undecided if an unknown write that was left out *might explain* it."""
    return _Decided(Verdict.UNDECIDED) if might_explain else _wrong(*suspects)


@dataclass(frozen=True, slots=True)
class _Change:
    """A change in the order: an answered one, or one that somebody has seen."""

    version: int
    value: bytes | None
    index: int | None
    """The operation; ``None``: an unknown one, to be found."""
    witness: int
    """Who has seen it, or made it."""


class _Check:
    """One check. The methods are its passes, in their order; each may raise `_Decided`."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._steps = {i: step_of(each) for i, each in enumerate(operations) if each.is_answered}
        self._unknown = {
            i: step_of(each)
            for i, each in enumerate(operations)
            if each.may_change and not each.is_answered
        }
        unknown = self._unknown.values()
        self._may_vanish = any(each.value_given is None and each.amount is None for each in unknown)
        self._may_appear = any(each.value_given or each.amount is not None for each in unknown)

    def finding(self) -> Finding:
        """What all passes together find."""
        try:
            self._check_order()
            self._check_sources()
            self._check_domain()
            changes = self._changes()
            self._check_values(changes)
            places, lowest = self._places(changes)
            self._follow(changes, places, lowest)
        except _Decided as decided:
            return decided.finding
        by_place = sorted(places, key=lambda i: (places[i], self._operations[i].invoked))
        return Finding(Verdict.LINEARIZABLE, tuple(by_place))

    def _check_order(self) -> None:
        """Versions never fall: neither from what was told before to what was given after, nor to
        what was seen. This holds in any history, and many faults show in it."""
        highest, teller = ABSENT, -1
        for event in events_of(self._operations):
            index = event if event >= 0 else ~event
            step = self._steps[index]
            version = step.version_given if step.is_change else step.version_wanted
            if not version:
                continue
            if event >= 0 and version < highest + step.is_change:
                raise _wrong(teller, index)
            if event < 0 and version > highest:
                highest, teller = version, index

    def _check_sources(self) -> None:
        """Nobody has seen a value before some operation that may have written it was invoked. This
        holds in any history as well."""
        since: dict[bytes, float] = {}
        adding_since = inf
        for index, step in (*self._steps.items(), *self._unknown.items()):
            invoked, value = self._operations[index].invoked, step.value_given
            if value is not None:
                since[value] = min(invoked, since.get(value, inf))
            elif step.amount is not None:
                adding_since = min(invoked, adding_since)
        for index, step in self._steps.items():
            value = step.value_wanted
            if value is not None:
                first = since.get(value, inf)
                if number_of(value) is not None:
                    first = min(first, adding_since)
                if first > returned(self._operations[index]):
                    raise _wrong(index)

    def _check_domain(self) -> None:
        """Whether all versions were told."""
        for index, step in self._steps.items():
            if step.is_presence_wanted and step.version_wanted == ABSENT:
                raise _wrong(index)
        for step in self._steps.values():
            if (step.version_given if step.is_change else step.version_wanted) is None:
                raise _Decided(Verdict.UNDECIDED)

    def _changes(self) -> list[_Change]:
        """All changes that were answered or seen, by their versions."""
        changes: dict[int, _Change] = {}
        for index, step in self._steps.items():
            if step.version_given is not None:
                change = _Change(step.version_given, step.value_given, index, index)
                if changes.setdefault(change.version, change) is not change:
                    raise _wrong(index, changes[change.version].index)
        values = known_values(list(self._steps.values()))
        is_told = True
        for index, step in self._steps.items():
            version = step.version_wanted
            if version and version not in changes:
                value = values.get(version)
                is_told = is_told and value is not None
                if not (self._unknown if value is None else self._may_give(value)):
                    raise _wrong(index)
                changes[version] = _Change(version, value, None, index)
        if not is_told:
            raise _Decided(Verdict.UNDECIDED)
        return sorted(changes.values(), key=lambda change: change.version)

    def _may_give(self, value: bytes) -> bool:
        """Whether an unknown write might write *value*."""
        is_number = number_of(value) is not None
        return any(
            step.value_given == value or (is_number and step.amount is not None)
            for step in self._unknown.values()
        )

    def _check_values(self, changes: list[_Change]) -> None:
        """Each observation tells the value of the version that it saw."""
        by_version = {change.version: change for change in changes}
        for index, step in self._steps.items():
            if step.is_change or not step.version_wanted:
                continue
            seen = by_version[step.version_wanted]
            state: State = (seen.version, seen.value is not None, seen.value)
            if after(state, step) is None:
                raise _wrong(index, seen.witness)

    def _places(self, changes: list[_Change]) -> tuple[dict[int, int], dict[int, int]]:
        """The place of each answered operation, and the lowest that each unknown one can have."""
        rank = {change.version: 2 * i for i, change in enumerate(changes)}
        missing = [_START, *(2 * i + 1 for i, each in enumerate(changes) if each.value is None)]
        places: dict[int, int] = {}
        lowest: dict[int, int] = {}
        # The highest place of what has returned, and whose it is.
        highest = (_START, -1)
        for event in events_of(self._operations, self._unknown):
            if event < 0:
                highest = max(highest, (places[~event], ~event))
            elif event in self._unknown:
                lowest[event] = highest[0]
            elif self._is_fixed(event):
                places[event] = place = self._fixed_place(event, rank)
                # Only because of a key that was not seen: versions alone have been looked at.
                if place < highest[0]:
                    raise _wrong_unless(self._may_vanish, highest[1], event)
            else:
                found = bisect_left(missing, highest[0])
                if found == len(missing):
                    raise _wrong_unless(self._may_vanish, highest[1], event)
                places[event] = missing[found]
        return places, lowest

    def _is_fixed(self, index: int) -> bool:
        """Whether versions say where it belongs: always, but for observations of no key."""
        step = self._steps[index]
        return step.is_change or step.version_wanted != ABSENT

    def _fixed_place(self, index: int, rank: dict[int, int]) -> int:
        step = self._steps[index]
        version = step.version_given if step.is_change else step.version_wanted
        assert version is not None, "outside of the domain"
        return rank[version] + (not step.is_change)

    def _follow(
        self, changes: list[_Change], places: dict[int, int], lowest: dict[int, int]
    ) -> None:
        """Each change could follow the one before. Finds the unknown ones, and puts them in."""
        pools = self._pools(lowest)
        state = EMPTY
        last: int | None = None
        for i, change in enumerate(changes):
            if change.index is None:
                found = _taken(pools, _explanations(state, change), lowest, 2 * i)
                if found is None:
                    raise _Decided(Verdict.UNDECIDED)
                places[found] = 2 * i
            elif after(state, self._steps[change.index]) is None:
                step = self._steps[change.index]
                raise _wrong_unless(self._might_precede(step), change.index, last)
            state = (change.version, change.value is not None, change.value)
            last = change.witness

    def _pools(self, lowest: dict[int, int]) -> dict[Step, list[int]]:
        """Unknown writes by what they demand and do; the one with the lowest place at the end."""
        pools: dict[Step, list[int]] = {}
        for index in sorted(self._unknown, key=lambda index: -lowest[index]):
            pools.setdefault(self._unknown[index], []).append(index)
        return pools

    def _might_precede(self, step: Step) -> bool:
        """Whether an unknown write right before might fulfil what *step*, a change, demands.

        Never that of a version: whatever comes in between only makes the version higher.
        """
        if step.version_wanted == ABSENT:
            return self._may_vanish
        if step.is_presence_wanted:
            return self._may_appear
        return step.number_wanted is not None and bool(self._unknown)


def _explanations(state: State, change: _Change) -> list[Step]:
    """What an unknown write may be that makes *change* of *state*; first the most particular."""
    before = ABSENT if state[2] is None else state[0]
    explanations = [
        Step(version_wanted=before, is_change=True, value_given=change.value),
        Step(is_change=True, value_given=change.value),
    ]
    number, total = number_of(state[2]), number_of(change.value)
    if number is not None and total is not None:
        explanations.append(Step(is_change=True, amount=total - number))
    return explanations


def _taken(
    pools: dict[Step, list[int]], wanted: list[Step], lowest: dict[int, int], place: int
) -> int | None:
    """Take an unknown write that is one of *wanted* and may have this *place*.

    Those after it have higher places. So of several that are alike it does not matter which.
    """
    for step in wanted:
        pool = pools.get(step)
        if pool and lowest[pool[-1]] <= place:
            return pool.pop()
    return None
