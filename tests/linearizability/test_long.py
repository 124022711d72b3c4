"""Long histories, as long as those of real runs, and one planted error in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.execution import COUNTING, Workload, execute
from tests.linearizability.history import ABSENT, Answer, Kind, Operation, Outcome
from tests.linearizability.judge import assert_linearizable, check, check_key
from tests.linearizability.search import Finding, Verdict, search
from tests.linearizability.versions import check_versions
from tests.linearizability.written import assert_order, got, unknown

MIXED = Workload()
WORKLOADS = {
    "mixed": MIXED,
    "few values": replace(MIXED, values=5),
    "no version of removals": replace(MIXED, is_removal_told=False),
    "no versions": replace(MIXED, are_versions_told=False),
    "counting": replace(MIXED, mix=COUNTING, values=10),
    "a fifth unknown": replace(MIXED, unknown=0.2),
    "30 clients": replace(MIXED, clients=30),
}


class GoodTests(SynchronousTestCase):
    """A false alarm, or no decision, would make the check useless to those who run it every day."""

    def assert_found(self, operations: Sequence[Operation], finding: Finding) -> None:
        """It is linearizable, by an order that holds."""
        self.assertIs(finding.verdict, Verdict.LINEARIZABLE)
        assert_order(operations, finding)

    def test_20_000_operations_on_one_key(self) -> None:
        """10 clients, 2 % unknown outcomes: what a scenario of some minutes gives."""
        history = execute(Random(1), 20_000, MIXED)
        outcomes = Counter(each.outcome for each in history)
        self.assertGreater(outcomes[Outcome.UNKNOWN], 300)
        self.assertGreater(outcomes[Outcome.ANSWERED], 19_000)
        self.assert_found(history, check_key(history))

    def test_20_000_operations_by_versions_alone(self) -> None:
        """The same where every outcome is known: nothing is left to the search."""
        history = execute(Random(2), 20_000, replace(MIXED, unknown=0))
        self.assert_found(history, check_versions(history))

    def test_search_alone(self) -> None:
        """3,000 operations of each kind of workload, without the help of the fast check."""
        for name, workload in WORKLOADS.items():
            for seed in range(2):
                history = execute(Random(seed), 3000, workload)
                self.assertIs(search(history).verdict, Verdict.LINEARIZABLE, f"{name}, {seed}")

    def test_several_keys(self) -> None:
        """They are judged one by one, and counted."""
        history = [
            each
            for key in (b"a", b"b", b"c")
            for each in execute(Random(3), 500, replace(MIXED, key=key))
        ]
        judged = assert_linearizable(history)
        self.assertEqual(judged.keys, 3)
        self.assertEqual(judged.answered, sum(each.is_answered for each in history))
        self.assertEqual(judged.changes, sum(each.is_change for each in history))
        self.assertGreater(min(judged.changes, judged.unknown, judged.not_done), 5)

    def test_many_unknown_increments(self) -> None:
        """3,000 that nobody has seen, then one answer that has seen them all: alike ones do not
        multiply, and a chain of reasons may be longer than Python's stack."""
        hidden = [unknown("a", Kind.INCREMENT, i, amount=1) for i in range(3000)]
        finding = search([*hidden, got("b", (5000, 5001), 3000, b"3000")])
        self.assertIs(finding.verdict, Verdict.LINEARIZABLE)
        self.assertEqual(len(finding.order or ()), 3001)
        finding = search([*hidden, got("b", (5000, 5001), 3001, b"3001")])
        self.assertIs(finding.verdict, Verdict.NOT_LINEARIZABLE)

    def test_many_unknown_puts(self) -> None:
        """300 that nobody has seen cost nothing; one of them, seen late, is found."""
        hidden = [unknown("a", Kind.PUT, i, b"%d" % i) for i in range(300)]
        seen = [got("b", (400 + i, 400.5 + i), 7, b"250") for i in range(300)]
        finding = search([*hidden, *seen])
        self.assertIs(finding.verdict, Verdict.LINEARIZABLE)
        self.assertEqual(len(finding.order or ()), 301)
        self.assertLess(finding.configurations, 1000)


class PlantedTests(SynchronousTestCase):
    """One wrong answer in thousands of right ones."""

    def assert_caught(self, plant: str, history: Sequence[Operation]) -> None:
        """By the search, and by both together."""
        self.assertIs(search(history).verdict, Verdict.NOT_LINEARIZABLE, plant)
        self.assertIs(check_key(history).verdict, Verdict.NOT_LINEARIZABLE, plant)

    def test_each_error_is_caught(self) -> None:
        """In every workload, at several places."""
        caught: Counter[str] = Counter()
        for name, workload in WORKLOADS.items():
            history = execute(Random(4), 1200, workload)
            for place in (400, 1000):
                for plant, planted in plants(history, place):
                    self.assert_caught(f"{name}: {plant} from {place} on", planted)
                    caught[plant] += 1
        for plant, least in (
            ("stale read", 12),
            ("value from nowhere", 14),
            ("version given twice", 12),
            ("lost write", 4),
        ):
            self.assertGreaterEqual(caught[plant], least, plant)

    def test_few_operations_are_shown(self) -> None:
        """Out of thousands, the ones that contradict each other."""
        history = execute(Random(5), 5000, MIXED)
        for plant, planted in plants(history, 4000):
            judgement = check(planted)
            self.assertIs(judgement.verdict, Verdict.NOT_LINEARIZABLE, plant)
            assert judgement.counterexample is not None
            self.assertLessEqual(len(judgement.counterexample.answers), 4, plant)


def plants(history: Sequence[Operation], place: int) -> list[tuple[str, list[Operation]]]:
    """Histories with an error at about *place*; those whose error can be planted there."""
    found = []
    for name, wrong in (
        ("stale read", stale_read(history, place)),
        ("value from nowhere", value_from_nowhere(history, place)),
        ("version given twice", version_given_twice(history, place)),
        ("lost write", lost_write(history, place)),
    ):
        if wrong is not None:
            index, operation = wrong
            found.append((name, [*history[:index], operation, *history[index + 1 :]]))
    return found


Wrong = tuple[int, Operation] | None


def stale_read(history: Sequence[Operation], place: int) -> Wrong:
    """A read that saw a version answers with one that was replaced when it began."""
    reads = reads_from(history, place)
    old = [i for i in reads_from(history, 0) if i < place - 200]
    for index in reads:
        if old and history[index].answer != history[old[-1]].answer:
            return index, replace(history[index], answer=history[old[-1]].answer)
    return None


def value_from_nowhere(history: Sequence[Operation], place: int) -> Wrong:
    """A read answers what nobody ever wrote."""
    index = reads_from(history, place)[0]
    answer = history[index].answer
    assert answer is not None
    return index, replace(history[index], answer=replace(answer, value=b"nowhere"))


def version_given_twice(history: Sequence[Operation], place: int) -> Wrong:
    """Two writes are told one version."""
    writes = [
        i
        for i, each in enumerate(history)
        if i >= place and each.is_change and each.answer and each.answer.version
    ]
    if len(writes) < 2:
        return None
    first = history[writes[0]].answer
    second = history[writes[1]].answer
    assert first is not None
    assert second is not None
    return writes[1], replace(history[writes[1]], answer=replace(second, version=first.version))


def lost_write(history: Sequence[Operation], place: int) -> Wrong:
    """A read finds no key, where none was removed for long, and nobody may have."""
    for index in reads_from(history, place):
        read = history[index]
        before = [each for each in history if each.invoked <= (read.returned or 0)]
        if any(may_remove(each, read) for each in before):
            continue
        return index, replace(read, answer=Answer(True, ABSENT))
    return None


def may_remove(operation: Operation, read: Operation) -> bool:
    """Whether the key may be missing at *read* because of it."""
    if operation.kind is not Kind.DELETE or not operation.may_change:
        return False
    if not operation.is_answered:
        return operation.version is None
    assert operation.returned is not None
    return operation.returned > read.invoked - 2


def reads_from(history: Sequence[Operation], place: int) -> list[int]:
    """The gets from *place* on that have seen a value."""
    return [
        i
        for i, each in enumerate(history)
        if i >= place and each.kind is Kind.GET and each.answer and each.answer.value is not None
    ]
