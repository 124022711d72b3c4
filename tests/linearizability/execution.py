"""Random executions of a true register: linearizable histories, and mutations of them.

Each operation takes place at one moment of its interval. What it answers then is right, so the
history is linearizable by construction. All randomness comes from the `random.Random` that is
given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from math import inf
from random import Random

from tests.linearizability.history import (
    ABSENT,
    INT64_MAX,
    INT64_MIN,
    Answer,
    Kind,
    Operation,
    Outcome,
    number_of,
)

MIXED = (
    (Kind.GET, 50),
    (Kind.PUT, 25),
    (Kind.COMPARE_AND_SET, 12),
    (Kind.DELETE, 6),
    (Kind.PUT_IF_ABSENT, 7),
)
COUNTING = ((Kind.GET, 40), (Kind.INCREMENT, 50), (Kind.PUT, 4), (Kind.DELETE, 6))


@dataclass(frozen=True, slots=True)
class Workload:
    """What the clients do.

    :ivar mix: kinds and their weights.
    :ivar unknown: which share of operations has an unknown outcome; half of them take place, some
        of these long after.
    :ivar not_done: which share is refused.
    :ivar values: out of how many values to write; 0: each value is new.
    :ivar are_versions_told: whether answers have versions. Failed conditions always have.
    :ivar is_removal_told: whether the versions of removals are told.
    """

    clients: int = 10
    mix: Sequence[tuple[Kind, int]] = MIXED
    unknown: float = 0.02
    not_done: float = 0.01
    values: int = 0
    are_versions_told: bool = True
    is_removal_told: bool = True
    key: bytes = b"k"


class Register:
    """One key: the record, and the versions it has had."""

    def __init__(self) -> None:
        self.revision = 0
        self.version = ABSENT
        self.value: bytes | None = None

    def take(self, operation: Operation, step: int) -> Answer:
        """*operation* takes place; a change adds *step* to the revision."""
        seen = Answer(False, self.version, self.value)
        match operation.kind:
            case Kind.GET:
                return replace(seen, done=True)
            case Kind.COMPARE_AND_SET if operation.version != self.version:
                return seen
            case Kind.PUT_IF_ABSENT if self.version != ABSENT:
                return seen
            case Kind.DELETE if self.version == ABSENT:
                return seen
            case Kind.DELETE if operation.version not in (None, self.version):
                return seen
            case Kind.DELETE:
                return self._change(None, step)
            case Kind.INCREMENT:
                number = number_of(self.value)
                if number is None or not INT64_MIN <= number + operation.amount <= INT64_MAX:
                    return seen
                total = b"%d" % (number + operation.amount)
                return replace(self._change(total, step), value=total)
        return self._change(operation.value, step)

    def _change(self, value: bytes | None, step: int) -> Answer:
        self.revision += step
        self.version = ABSENT if value is None else self.revision
        self.value = value
        return Answer(True, self.revision)


@dataclass(slots=True)
class _Draft:
    """An operation while the execution is made."""

    operation: Operation
    point: float
    """When it takes place; infinity: never."""
    returned: float
    outcome: Outcome
    answer: Answer | None = None

    def final(self, workload: Workload) -> Operation:
        """As its client saw it."""
        answer = self.answer if self.outcome is Outcome.ANSWERED else None
        if answer is not None and not _is_version_told(self.operation, answer, workload):
            answer = replace(answer, version=None)
        return replace(self.operation, returned=self.returned, outcome=self.outcome, answer=answer)


def _is_version_told(operation: Operation, answer: Answer, workload: Workload) -> bool:
    if operation.kind is Kind.DELETE and answer.done:
        return workload.is_removal_told
    return workload.are_versions_told or not answer.done or answer.version == ABSENT


def execute(random: Random, count: int, workload: Workload) -> list[Operation]:
    """*count* operations of some clients on one key, in the order of their invocations.

    Each takes about a second.
    """
    free = [(random.random(), client) for client in range(workload.clients)]
    heapify(free)
    drafts = []
    for number in range(count):
        now, client = free[0]
        drafts.append(_drafted(random, workload, number, client, now))
        heapreplace(free, (drafts[-1].returned + random.expovariate(5), client))
    _run(random, drafts)
    return [draft.final(workload) for draft in drafts]


def _drafted(random: Random, workload: Workload, number: int, client: int, now: float) -> _Draft:
    kinds, weights = zip(*workload.mix, strict=True)
    kind: Kind = random.choices(kinds, weights)[0]
    value = None
    if kind in (Kind.PUT, Kind.COMPARE_AND_SET, Kind.PUT_IF_ABSENT):
        chosen = random.randrange(workload.values) if workload.values else number
        value = b"%d" % chosen if Kind.INCREMENT in kinds else b"v%d" % chosen
    operation = Operation(
        client=f"client-{client}",
        key=workload.key,
        kind=kind,
        invoked=now,
        value=value,
        # The true one follows when it is invoked.
        version=ABSENT if kind is Kind.COMPARE_AND_SET else None,
        amount=random.choice((1, 1, 1, 2, -1)) if kind is Kind.INCREMENT else 0,
    )
    delay = random.expovariate(2)
    draft = _Draft(operation, now + delay, now + delay + random.expovariate(2), Outcome.ANSWERED)
    drawn = random.random()
    if drawn < workload.unknown:
        draft.outcome = Outcome.UNKNOWN
        draft.point = now + random.choice((delay, 20 * delay, inf, inf))
    elif drawn < workload.unknown + workload.not_done:
        draft.outcome = Outcome.NOT_DONE
        draft.point = inf
    return draft


def _run(random: Random, drafts: list[_Draft]) -> None:
    """Let all take place, in time. Clients demand versions that somebody was told already."""
    invoked, takes_place, returned = range(3)
    events: list[tuple[float, int, int]] = []
    for index, draft in enumerate(drafts):
        events.append((draft.operation.invoked, invoked, index))
        events.append((draft.point, takes_place, index))
        events.append((draft.returned, returned, index))
    register = Register()
    told = ABSENT
    for time, what, index in sorted(events):
        draft = drafts[index]
        if what == invoked:
            draft.operation = _demanding(random, draft.operation, told)
        elif what == takes_place and time < inf:
            draft.answer = register.take(draft.operation, random.choice((1, 1, 2, 5)))
        elif what == returned and draft.outcome is Outcome.ANSWERED:
            assert draft.answer is not None
            is_removal = draft.operation.kind is Kind.DELETE and draft.answer.done
            told = ABSENT if is_removal else draft.answer.version or ABSENT


def _demanding(random: Random, operation: Operation, told: int) -> Operation:
    if operation.kind is Kind.COMPARE_AND_SET:
        return replace(operation, version=told)
    if operation.kind is Kind.DELETE and told != ABSENT and random.random() < 0.5:
        return replace(operation, version=told)
    return operation


def mutated(random: Random, operations: Sequence[Operation]) -> list[Operation]:
    """*operations* with one of them changed: its answer, its times, or its outcome."""
    history = list(operations)
    while True:
        index = random.randrange(len(history))
        change = random.choice((_other_version, _other_value, _other_times, _other_outcome))
        try:
            changed = change(random, history[index], history)
        except ValueError:
            # Such an operation cannot be; another one.
            continue
        if changed != history[index]:
            history[index] = changed
            return history


def _other_version(random: Random, operation: Operation, _: list[Operation]) -> Operation:
    answer = operation.answer
    if answer is None or answer.version is None:
        return operation
    version = max(ABSENT, answer.version + random.choice((-3, -2, -1, 1, 2)))
    value = None if version == ABSENT and not operation.is_change else answer.value
    return replace(operation, answer=replace(answer, version=version, value=value))


def _other_value(random: Random, operation: Operation, history: list[Operation]) -> Operation:
    if operation.answer is None or operation.answer.value is None:
        return operation
    values = [each.value for each in history if each.value is not None]
    values += [b"%d" % number for number in range(4)]
    return replace(operation, answer=replace(operation.answer, value=random.choice(values)))


def _other_times(random: Random, operation: Operation, history: list[Operation]) -> Operation:
    times = sorted(random.choice(history).invoked + random.choice((-0.3, 0, 0.3)) for _ in "ab")
    return replace(operation, invoked=times[0], returned=times[1])


def _other_outcome(random: Random, operation: Operation, _: list[Operation]) -> Operation:
    outcome = random.choice((Outcome.NOT_DONE, Outcome.UNKNOWN))
    return replace(operation, outcome=outcome, answer=None)
