"""Which entries are durable, while writes are under way: against a disk that does them in order.

Source: R2, and the dissertation, 10.2.1.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry
from kvtwist.core.raft.log import Log
from tests.core.raft.group import log_of

ALONE = Configuration((1,))
ENTRIES_MAX = 6


class NaiveDisk:
    """A disk, and the writes that it has not done yet; each as (first index, entries)."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.writes: list[tuple[int, int, tuple[Entry, ...]]] = []

    @staticmethod
    def after(before: list[Entry], first: int, entries: tuple[Entry, ...]) -> list[Entry]:
        """The disk after a write that puts *entries* from *first* on."""
        return [*before[: first - 1], *entries]

    def durable(self, memory: list[Entry], rest: tuple[int, tuple[Entry, ...]]) -> int:
        """How much of *memory* the disk has, now and after each write, *rest* being the last."""
        state = self.entries
        states = [state]
        for _, first, entries in self.writes:
            state = self.after(state, first, entries)
            states.append(state)
        states.append(self.after(state, *rest))
        return min(common(memory, state) for state in states)


def common(one: list[Entry], other: list[Entry]) -> int:
    """How many entries two logs share from the beginning on."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


class LogWrites(RuleBasedStateMachine):
    """Leaders come and go and rewrite the log while writes are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log(ALONE)
        self.disk = NaiveDisk()
        self.number = 0
        self.unwritten = 1

    @property
    def memory(self) -> list[Entry]:
        """All entries."""
        return list(self.log.entries(1, self.log.last_index))

    @rule(first=st.integers(1, ENTRIES_MAX), terms=st.lists(st.integers(1, 3), min_size=1))
    def merge(self, first: int, terms: list[int]) -> None:
        """A leader's entries from *first* on: so few terms that what was is soon put back (ABA)."""
        first = min(first, self.log.last_index + 1)
        before = self.log.term_at(first - 1) or 0
        terms = [max(term, before) for term in sorted(terms)][: ENTRIES_MAX + 1 - first]
        entries = log_of(*terms, first=first)
        if first <= self.log.commit_index:
            return
        kept = common(self.memory[first - 1 :], list(entries))
        self.log.merge(entries)
        if kept < len(entries):
            self.unwritten = min(self.unwritten, first + kept)

    @rule()
    def take(self) -> None:
        """Begin a write of all that is to be written."""
        self.number += 1
        entries = self.log.take_unwritten(self.number)
        assert entries == tuple(self.memory[self.unwritten - 1 :])
        if entries:
            self.disk.writes.append((self.number, self.unwritten, entries))
        self.unwritten = self.log.last_index + 1

    @precondition(lambda self: self.disk.writes)
    @rule(count=st.integers(1, 3))
    def done(self, count: int) -> None:
        """The disk has done some writes; the last one's number acknowledges them all."""
        count = min(count, len(self.disk.writes))
        last_number, _, _ = self.disk.writes[count - 1]
        for _, first, entries in self.disk.writes[:count]:
            self.disk.entries = self.disk.after(self.disk.entries, first, entries)
        del self.disk.writes[:count]
        self.log.written(last_number)

    @rule(share=st.integers(0, ENTRIES_MAX))
    def commit(self, share: int) -> None:
        """Some of what is durable is committed."""
        self.log.commit(min(share, self.log.durable_index, self.log.last_index - 1, 2))

    @invariant()
    def no_more_than_the_disk(self) -> None:
        """R2: what counts as durable is on the disk, and no write to come takes it away."""
        rest = (self.unwritten, tuple(self.memory[self.unwritten - 1 :]))
        assert self.log.durable_index <= self.disk.durable(self.memory, rest)

    @invariant()
    def all_when_done(self) -> None:
        """When nothing is under way, all is durable: else the group would wait for ever."""
        assert self.log.has_unwritten == (self.unwritten <= self.log.last_index)
        if not self.disk.writes and not self.log.has_unwritten:
            assert self.log.durable_index == self.log.last_index
            assert self.disk.entries == self.memory


class LogWritesTests(SynchronousTestCase):
    """Else an acknowledgement would cover what a crash can still take away."""

    def test_against_a_naive_disk(self) -> None:
        """Any order of merges, writes and their ends."""
        run_state_machine_as_test(
            LogWrites, settings=settings(deadline=None, max_examples=80, stateful_step_count=20)
        )


class DirectedTests(SynchronousTestCase):
    """The cases that have names."""

    def test_put_back(self) -> None:
        """R2, ABA: replaced, and put back by the next leader, while the first write is under way.

        The disk has the entry when that write is done, loses it with the second, and gets it back
        with the third: a crash in between would forget it.
        """
        log = Log(ALONE)
        log.append(log_of(1, 1))
        log.take_unwritten(1)
        log.merge(log_of(2, first=2))
        log.take_unwritten(2)
        log.merge(log_of(1, first=2))
        log.take_unwritten(3)
        for number, durable in ((1, 1), (2, 1), (3, 2)):
            log.written(number)
            self.assertEqual(log.durable_index, durable)

    def test_not_even_taken(self) -> None:
        """What was replaced in memory alone counts no more either."""
        log = Log(ALONE)
        log.append(log_of(1, 1))
        log.take_unwritten(1)
        log.merge(log_of(2, first=2))
        log.written(1)
        self.assertEqual(log.durable_index, 1)

    def test_several_at_once(self) -> None:
        """The last number stands for all before it, and a shorter write for what it left."""
        log = Log(ALONE)
        log.append(log_of(1, 1, 1))
        log.take_unwritten(1)
        log.merge(log_of(2, first=2))
        log.take_unwritten(2)
        log.written(2)
        self.assertEqual((log.last_index, log.durable_index), (2, 2))
