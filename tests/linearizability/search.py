"""The search for an order: exact for every history, slow only for cruel ones.

Wing & Gong (1993) try operations in every order that time allows, Lowe ("Testing for
linearizability", 2017) remembers the configurations that have failed and takes operations *just in
time*: nothing is put into the order before the return of some operation makes that necessary. A
configuration is how far one is in the history, which of the operations under way have taken place
already, which unknown ones, and the state of the key. The walk keeps its own stack, so the length
of a history is bounded by memory only.

What makes it fast, and loses nothing:

* An observation that the present state fulfils, and that teaches nothing about it, takes place at
  once: that narrows nothing for the others.
* Changes whose versions are known take place in the order of their versions.
* A configuration is dropped when its state is past a version that somebody is yet to give or to
  see.
* So is one that is no better than one tried before: the same, but for more unknown operations used
  or a version that is bound to be higher.
* Unknown operations come in only as reasons for others (`unknowns`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import NamedTuple

from tests.linearizability.history import Operation, number_of
from tests.linearizability.model import EMPTY, UNSEEN, State, Step, after, known_values, step_of
from tests.linearizability.unknowns import Budget, BudgetExhaustedError, Unknowns, Way

CONFIGURATIONS_MAX = 2_000_000
"""The default budget: some 25 s at most. Good histories of 20,000 operations with versions needed a
tenth of it (benchmarks/linearizability.py)."""


class Verdict(Enum):
    """What is known of a history. Only `LINEARIZABLE` is good."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found out about the operations on one key.

    ``order`` is an order that explains all answers, if one was found: indexes of operations.
    ``suspects``, of a history that is wrong, are operations that are likely to be part of it.
    ``configurations`` is what of the budget was used.
    """

    verdict: Verdict
    order: tuple[int, ...] | None = None
    suspects: tuple[int, ...] = ()
    configurations: int = 0


Trail = tuple[int, "Trail | None"]


class _Configuration(NamedTuple):
    position: int
    """In the list of events."""
    taken: int
    """The slots of the answered operations under way that have taken place."""
    used: int
    """The bits of the unknown operations that have taken place."""
    state: State
    ranked: int
    """How many changes of known version have taken place."""
    trail: Trail | None


def search(operations: Sequence[Operation], budget: int = CONFIGURATIONS_MAX) -> Finding:
    """Look for an order of *operations*, all of them on one key, that explains every answer."""
    counted = Budget(budget)
    walk = _Walk(operations, counted)
    try:
        trail = walk.run()
    except BudgetExhaustedError:
        return Finding(Verdict.UNDECIDED, configurations=counted.spent)
    if trail is None:
        suspects = walk.stuck()
        return Finding(Verdict.NOT_LINEARIZABLE, suspects=suspects, configurations=counted.spent)
    return Finding(Verdict.LINEARIZABLE, _order(trail[0]), configurations=counted.spent)


def events_of(operations: Sequence[Operation], others: Iterable[int] = ()) -> list[int]:
    """Invocations and returns of what was answered, in time: its index, inverted for the return.

    Of *others* there are the invocations. At one moment invocations are first: what touches is
    concurrent.
    """
    answered = [index for index, each in enumerate(operations) if each.is_answered]
    timed = [(operations[index].invoked, 0, index) for index in (*answered, *others)]
    timed += [(returned(operations[index]), 1, ~index) for index in answered]
    return [event for _, _, event in sorted(timed)]


def returned(operation: Operation) -> float:
    """When an operation that was answered returned."""
    assert operation.returned is not None
    return operation.returned


class _Walk:
    """One search."""

    def __init__(self, operations: Sequence[Operation], budget: Budget) -> None:
        self._operations = operations
        self._budget = budget
        self._furthest = 0
        self._events = events_of(operations)
        self._steps = _steps(operations)
        self._ranks, self._given = self._ranked()
        self._wanted, self._wanted_until = self._sightings()
        self._unknowns = Unknowns(
            operations,
            [
                (index, self._steps[index])
                for index, each in enumerate(operations)
                if each.may_change and not each.is_answered
            ],
            self._given,
            budget,
        )
        self._bits, self._under_way = self._slots()

    def _ranked(self) -> tuple[dict[int, int], list[int]]:
        """The place in their order of the changes whose version is known; these versions."""
        known = sorted(
            (step.version_given, index)
            for index, step in enumerate(self._steps)
            if step.version_given is not None
        )
        ranks = {index: rank for rank, (_, index) in enumerate(known)}
        return ranks, [version for version, _ in known]

    def _sightings(self) -> tuple[list[int], list[int]]:
        """Versions that answers tell to have seen, rising; and for each the last position at which
        somebody is invoked who will have seen it or one before it."""
        seen = sorted(
            (version, position)
            for position, event in enumerate(self._events)
            if event >= 0 and (version := self._steps[event].version_wanted)
        )
        latest = accumulate((position for _, position in seen), max)
        return [version for version, _ in seen], list(latest)

    def _slots(self) -> tuple[dict[int, int], dict[int, tuple[int, ...]]]:
        """A bit for each answered operation, used again after its return, so that sets stay small;
        and who is under way at each return."""
        bits: dict[int, int] = {}
        under_way: dict[int, tuple[int, ...]] = {}
        current: dict[int, None] = {}
        free: list[int] = []
        for position, event in enumerate(self._events):
            if event >= 0:
                bits[event] = free.pop() if free else 1 << len(current)
                current[event] = None
            else:
                under_way[position] = tuple(current)
                del current[~event]
                free.append(bits[~event])
        return bits, under_way

    def run(self) -> tuple[Trail | None] | None:
        """The trail to the end of the history, in a tuple; ``None`` if there is none."""
        stack = [_Configuration(0, 0, 0, EMPTY, 0, None)]
        failed = _Failed()
        while stack:
            configuration = self._advanced(stack.pop())
            if configuration.position == len(self._events):
                return (configuration.trail,)
            if failed.covers(configuration):
                continue
            self._budget.spend()
            self._furthest = max(self._furthest, configuration.position)
            # The last one pushed is tried first.
            stack.extend(reversed(list(self._successors(configuration))))
        return None

    def stuck(self) -> tuple[int, ...]:
        """The operations under way where the walk got no further."""
        return self._under_way.get(self._furthest, ())

    def _advanced(self, configuration: _Configuration) -> _Configuration:
        """As far as nothing has to be decided: to a return of what has not taken place."""
        position, taken, used, state, ranked, trail = configuration
        events, bits, steps = self._events, self._bits, self._steps
        while position < len(events):
            event = events[position]
            if event >= 0:
                if not steps[event].is_change and after(state, steps[event]) is state:
                    taken |= bits[event]
                    trail = (event, trail)
            else:
                bit = bits[~event]
                if not taken & bit:
                    break
                taken ^= bit
            position += 1
        return _Configuration(position, taken, used, state, ranked, trail)

    def _successors(self, configuration: _Configuration) -> Iterator[_Configuration]:
        """One more answered operation takes place, after the unknown ones that it needs."""
        position, taken, used, state, ranked, _ = configuration
        due = ~self._events[position]
        time = returned(self._operations[due])
        waiting = [each for each in self._under_way[position] if not taken & self._bits[each]]
        wanted = self._steps[due].value_wanted
        # First what is due, then what it waits for, most likely.
        waiting.sort(key=lambda each: (each != due, self._steps[each].value_given != wanted))
        for each in waiting:
            step = self._steps[each]
            rank = self._ranks.get(each)
            if rank is not None and rank != ranked:
                continue
            ways = sorted(self._unknowns.ways(state, used, step, time), key=_length)
            for way in ways:
                reached = after(way.state, step)
                assert reached is not None, "no way to this step"
                trail = configuration.trail
                for member in (*way.chain, each):
                    trail = (member, trail)
                now_taken = taken | self._bits[each]
                now_ranked = ranked + (rank is not None)
                now_used = self._unknowns.settled(way.used, reached)
                now = _Configuration(position, now_taken, now_used, reached, now_ranked, trail)
                settled = self._settled(now, waiting)
                if settled is not None:
                    yield settled

    def _settled(self, configuration: _Configuration, waiting: list[int]) -> _Configuration | None:
        """With the observations that this state fulfils; ``None`` if somebody has missed theirs."""
        position, taken, used, state, ranked, trail = configuration
        if ranked < len(self._given) and self._given[ranked] <= state[0]:
            return None
        passed = bisect_left(self._wanted, state[0])
        if passed and self._wanted_until[passed - 1] > position:
            return None
        for each in waiting:
            bit, step = self._bits[each], self._steps[each]
            if taken & bit:
                continue
            if step.version_wanted and step.version_wanted < state[0]:
                return None
            if not step.is_change and after(state, step) is state:
                taken |= bit
                trail = (each, trail)
        return _Configuration(position, taken, used, state, ranked, trail)


class _Failed:
    """The configurations tried before. (None of them is still open: operations under way are only
    added on the way down.)"""

    def __init__(self) -> None:
        self._tried: dict[tuple[int, int, bytes | None], list[tuple[int, int, bool]]] = {}

    def covers(self, configuration: _Configuration) -> bool:
        """Whether one that could do at least as much was tried before; if not, this one is now."""
        position, taken, used, (low, exact, value), *_ = configuration
        tried = self._tried.setdefault((position, taken, value), [])
        for used_then, low_then, exact_then in tried:
            if used_then & used != used_then:
                continue
            if (low_then == low and exact) if exact_then else low_then <= low:
                return True
        tried.append((used, low, exact))
        return False


def _steps(operations: Sequence[Operation]) -> list[Step]:
    """A step for each operation; those that demand a version also demand its value, if any tells.

    A version has one value. So that holds in every order, and finds reasons faster.
    """
    steps = [
        step_of(each) if each.is_answered or each.may_change else Step() for each in operations
    ]
    answered = [step for step, each in zip(steps, operations, strict=True) if each.is_answered]
    values = known_values(answered)
    steps = [
        step._replace(value_wanted=values.get(step.version_wanted))
        if step.version_wanted and step.value_wanted is None
        else step
        for step in steps
    ]
    return _without_unseen_values(steps)


def _without_unseen_values(steps: list[Step]) -> list[Step]:
    """One value in the place of all that nobody saw: what differs only in them is alike.

    Numbers stay where something is added to them.
    """
    seen = {step.value_wanted for step in steps}
    adding = any(
        number is not None
        for step in steps
        for number in (step.amount, step.number_wanted, step.refused_amount)
    )
    return [
        step
        if step.value_given is None
        or step.value_given in seen
        or (adding and number_of(step.value_given) is not None)
        else step._replace(value_given=UNSEEN)
        for step in steps
    ]


def _length(way: Way) -> int:
    return len(way.chain)


def _order(trail: Trail | None) -> tuple[int, ...]:
    order = []
    while trail is not None:
        order.append(trail[0])
        trail = trail[1]
    return tuple(reversed(order))
