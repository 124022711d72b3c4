"""Operations whose outcome is unknown, and when the search has to think of them.

Such an operation takes place at any time after its invocation, or never. Nothing forces it, so the
search leaves it out unless it *explains* something: it is put right before an operation that could
not follow otherwise. That loses nothing:

* Take an order with as few unknown operations as possible, and one of them, U, before an answered
  operation q that could also follow without U. If q is a change, or says the value that it saw, the
  key is the same after q with and without U, but for a lowest possible version that without U is no
  higher: so U could be left out, against the choice of the order. If q learns nothing, it can go
  before U, which has no deadline. There remains q that learns the version of a value that it does
  not tell: for it alone both are tried (`Unknowns.ways`).
* The same argument holds for U before another unknown operation.
* Of operations that demand and do the same, the one invoked first is used first.

Which ones can explain q is looked up by what q demands (`Unknowns._helping`), and then again by
what those demand: backwards, from the answer to its reasons.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import or_
from typing import NamedTuple

from tests.linearizability.history import ABSENT, INT64_MAX, Operation, number_of
from tests.linearizability.model import UNSEEN, State, Step, after

Chain = tuple[int, ...]
Later = tuple[Step, int, "Later | None"]
"""The steps that follow, as a linked list: step, operation, rest."""

_COMMUTING_MAX = INT64_MAX // 4


class BudgetExhaustedError(Exception):
    """The search has looked at as many configurations as it may."""


class Budget:
    """How many configurations may be looked at."""

    __slots__ = ("limit", "spent")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0

    def spend(self) -> None:
        """One more; raises `BudgetExhaustedError` past the limit."""
        self.spent += 1
        if self.spent > self.limit:
            raise BudgetExhaustedError


class Way(NamedTuple):
    """A way to a state in which a step can follow: unknown operations that come before it."""

    state: State
    used: int
    chain: Chain


class Alike:
    """Unknown operations that demand and do the same, in the order of their invocations.

    They have consecutive bits in ``used``, and are used in this order: the bits set are the lowest.
    """

    __slots__ = ("invoked", "is_blind", "members", "number", "offset", "step")

    def __init__(
        self, number: int, step: Step, members: list[tuple[float, int]], offset: int
    ) -> None:
        self.number = number
        self.step = step
        self.offset = offset
        self.invoked = [invoked for invoked, _ in sorted(members)]
        self.members = [member for _, member in sorted(members)]
        self.is_blind = _is_blind(step)

    def next(self, used: int, time: float) -> int | None:
        """The place of the first that is not used, if it was invoked by *time*."""
        place = (used >> self.offset & (1 << len(self.members)) - 1).bit_length()
        if place == len(self.members) or self.invoked[place] > time:
            return None
        return place

    @property
    def bits(self) -> int:
        """The bits of all members."""
        return (1 << len(self.members)) - 1 << self.offset

    def left(self, used: int, time: float) -> int:
        """How many could still be used at *time*."""
        place = self.next(used, time)
        if place is None:
            return 0
        return sum(invoked <= time for invoked in self.invoked[place:])


def _is_blind(step: Step) -> bool:
    """Whether what is after it does not depend on what was before, as of puts and plain deletes.

    (A delete that finds nothing would be no change, and none is left out.)
    """
    return step.version_wanted is None and step.number_wanted is None and step.amount is None


def _is_pinned(step: Step) -> bool:
    """Whether the key after *step* is the same whatever fulfilled its demands."""
    return step.is_change or step.value_wanted is not None or step.version_wanted == ABSENT


class Unknowns:
    """The unknown operations of one history.

    :param numbered: their indexes in *operations*, and their steps as if they were done.
    :param given_versions: the versions that answered changes gave, so that none of these did.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        numbered: Iterable[tuple[int, Step]],
        given_versions: Iterable[int],
        budget: Budget,
    ) -> None:
        groups: dict[Step, list[tuple[float, int]]] = {}
        for number, step in numbered:
            groups.setdefault(step, []).append((operations[number].invoked, number))
        self._budget = budget
        self._given_versions = frozenset(given_versions)
        self._all: list[Alike] = []
        self._giving: dict[bytes, list[Alike]] = {}
        self._increments: list[Alike] = []
        self._removals: list[Alike] = []
        offset = 0
        for step, members in groups.items():
            alike = Alike(len(self._all), step, members, offset)
            offset += len(members)
            self._all.append(alike)
            if step.amount is not None:
                self._increments.append(alike)
            elif step.value_given is None:
                self._removals.append(alike)
            else:
                self._giving.setdefault(step.value_given, []).append(alike)
        self._present = [alike for alike in self._all if alike not in self._removals]
        self._starts = [n for n in map(number_of, self._giving) if n is not None]
        self._starts += [0] if self._removals else []
        total = sum(abs(each.step.amount or 0) * len(each.members) for each in self._increments)
        self._outdated = self._by_version()
        self._commute = total <= _COMMUTING_MAX

    def ways(self, state: State, used: int, step: Step, time: float) -> Iterator[Way]:
        """The ways to let *step* follow on *state* at *time*; first the one without any unknown."""
        reached = after(state, step)
        if reached is not None:
            yield Way(state, used, ())
            if _is_pinned(step) or reached is state:
                return
        if not self._all:
            return
        room = _room(state, step)
        if (room is not None and room <= 0) or not self._can_be_seen(step, state):
            return
        if _is_pinned(step):
            yield from self._backwards(state, used, step, time, room)
        else:
            yield from self._forwards(state, used, step, time, room)

    def _backwards(
        self, state: State, used: int, step: Step, time: float, room: int | None
    ) -> Iterator[Way]:
        """The shortest chains that fulfil what *step* demands, from its end to its beginning."""
        open_goals: list[tuple[Step, Later | None, int, int, int]] = [(step, None, used, 0, 0)]
        while open_goals:
            goal, later, used, length, lowest = open_goals.pop()
            if room is not None and length >= room:
                continue
            for alike in self._helping(goal, state, used, time, lowest):
                self._budget.spend()
                place = alike.next(used, time)
                if place is None:
                    continue
                with_it = used | 1 << alike.offset + place
                explaining = _fitted(alike.step, goal)
                chain: Later = (explaining, alike.members[place], later)
                if after(state, explaining) is None:
                    if not alike.is_blind and self._can_be_seen(explaining, state):
                        following = alike.number if self._are_ordered(alike, goal) else 0
                        open_goals.append((explaining, chain, with_it, length + 1, following))
                    continue
                before = _replayed(state, chain)
                if before is not None and after(before, step) is not None:
                    yield Way(before, with_it, _members(chain))

    def _forwards(
        self, state: State, used: int, step: Step, time: float, room: int | None
    ) -> Iterator[Way]:
        """All chains after which *step*, which does not say what value it saw, can follow."""
        is_learning = bool(step.version_wanted)
        open_ends: list[Way] = [Way(state, used, ())]
        while open_ends:
            end = open_ends.pop()
            if room is not None and len(end.chain) >= room:
                continue
            for alike in self._all:
                if end.chain and alike.is_blind:
                    continue
                self._budget.spend()
                place = alike.next(end.used, time)
                reached = None if place is None else after(end.state, alike.step)
                if place is None or reached is None:
                    continue
                used_then = end.used | 1 << alike.offset + place
                way = Way(reached, used_then, (*end.chain, alike.members[place]))
                fulfilled = after(reached, step) is not None
                if fulfilled:
                    yield way
                if is_learning or not fulfilled:
                    open_ends.append(way)

    def _helping(
        self, goal: Step, state: State, used: int, time: float, lowest: int
    ) -> list[Alike]:
        """Those that can be the last before *goal*, which *state* does not fulfil."""
        if goal.value_wanted is not None:
            given = self._giving.get(goal.value_wanted, [])
            number = number_of(goal.value_wanted)
        elif goal.number_wanted is not None:
            number = goal.number_wanted
            given = self._giving.get(b"%d" % number, [])
            if number == 0:
                given = given + self._removals
        elif goal.amount is not None:
            return self._all
        elif goal.version_wanted == ABSENT:
            return self._removals
        elif goal.version_wanted is None and not goal.is_presence_wanted:
            return []
        else:
            return self._any_present(used, time)
        if number is None or not self._can_sum_up_to(number, state, used, time):
            return given
        return given + [each for each in self._increments if each.number >= lowest]

    def _by_version(self) -> tuple[list[int], list[int]]:
        """The versions that some demand, rising; and the bits of all that demand this or less."""
        bits: dict[int, int] = {}
        for alike in self._all:
            wanted = alike.step.version_wanted
            if wanted:
                bits[wanted] = bits.get(wanted, 0) | alike.bits
        versions = sorted(bits)
        return versions, list(accumulate((bits[version] for version in versions), or_))

    def settled(self, used: int, state: State) -> int:
        """*used*, and all that can never take place any more, as its version is gone."""
        versions, bits = self._outdated
        gone = bisect_left(versions, state[0])
        return used | bits[gone - 1] if gone else used

    def _can_be_seen(self, step: Step, state: State) -> bool:
        """Whether more unknown writes may give the version that *step* demands, if it does."""
        wanted = step.version_wanted
        return not wanted or (wanted > state[0] and wanted not in self._given_versions)

    def _any_present(self, used: int, time: float) -> list[Alike]:
        """Those that leave some record behind, where its value does not matter.

        A put of a value that nobody saw serves as well as any other put, and is good for nothing
        else. (Not as well as a conditional write, which may not be able to serve elsewhere.)
        """
        for alike in self._giving.get(UNSEEN, ()):
            if alike.is_blind and alike.next(used, time) is not None:
                return [each for each in self._present if each is alike or not each.is_blind]
        return self._present

    def _can_sum_up_to(self, number: int, state: State, used: int, time: float) -> bool:
        """Whether increments might lead to *number*, from what *state* has or an unknown write."""
        if not self._increments:
            return False
        start = number_of(state[2])
        starts = self._starts if start is None else [start, *self._starts]
        if not starts:
            return False
        least, most = min(starts), max(starts)
        for each in self._increments:
            amount = (each.step.amount or 0) * each.left(used, time)
            least, most = least + min(amount, 0), most + max(amount, 0)
        return least <= number <= most

    def _are_ordered(self, alike: Alike, goal: Step) -> bool:
        """Whether, in a row of increments up to *goal*, only one order has to be tried."""
        if alike.step.amount is None or not self._commute:
            return False
        number = number_of(goal.value_wanted) if goal.value_wanted else goal.number_wanted
        return number is not None and abs(number) <= _COMMUTING_MAX


def _room(state: State, step: Step) -> int | None:
    """How many changes of unknown version fit before *step*: each takes a version of its own."""
    bounds = []
    if step.version_wanted:
        bounds.append(step.version_wanted)
    if step.version_given is not None:
        bounds.append(step.version_given - 1)
    return min(bounds) - state[0] if bounds else None


def _fitted(step: Step, goal: Step) -> Step:
    """*step*, and if it is an increment, from the number from which it fulfils *goal*."""
    if step.amount is None:
        return step
    total = goal.number_wanted if goal.value_wanted is None else number_of(goal.value_wanted)
    if total is None:
        return step
    return step._replace(number_wanted=total - step.amount)


def _replayed(state: State, chain: Later) -> State | None:
    """The state after all of *chain*."""
    rest: Later | None = chain
    reached: State | None = state
    while rest is not None and reached is not None:
        reached = after(reached, rest[0])
        rest = rest[2]
    return reached


def _members(chain: Later) -> Chain:
    members = []
    rest: Later | None = chain
    while rest is not None:
        members.append(rest[1])
        rest = rest[2]
    return tuple(members)
