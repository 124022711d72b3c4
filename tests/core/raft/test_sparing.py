"""Fewer messages: what is committed is told with what comes next, reads are confirmed by few."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Message, ReadState, Settings
from kvtwist.core.raft.messages import AppendRequest, Heartbeat
from tests.core.raft.group import Group, only

LAZY = replace(Settings(), eager_commit=False)
NARROW = replace(Settings(), narrow_reads=True)


class Sent:
    """What a group sends from now on."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._from = len(group.sent)

    def messages(self) -> list[Message]:
        """So far."""
        return self._group.sent[self._from :]


class CommitTests(SynchronousTestCase):
    """`Settings.eager_commit`."""

    def group(self, settings: Settings) -> Group:
        group = Group(3, settings=settings)
        group.elect(1)
        group.tick(2)
        return group

    def test_half_the_messages(self) -> None:
        """Else a busy group says everything twice."""
        counted = []
        for settings in (Settings(), LAZY):
            group = self.group(settings)
            sent = Sent(group)
            group.propose(b"x")
            counted.append(len(sent.messages()))
        self.assertEqual(counted, [8, 4])

    def test_told_with_the_next_entries(self) -> None:
        """Then followers of a busy group are never further behind than that."""
        group = self.group(LAZY)
        first = group.propose(b"x")
        self.assertLess(group[2].commit_index, first.index)
        group.propose(b"y")
        self.assertEqual(group[2].commit_index, first.index)

    def test_told_at_the_next_tick(self) -> None:
        """Then a group that falls silent has told all, and followers lag by a tick at most."""
        group = self.group(LAZY)
        last = group.propose(b"x")
        group.tick()
        self.assertEqual([group[each].commit_index for each in (1, 2, 3)], [last.index] * 3)

    def test_it_falls_silent(self) -> None:
        """Else a thousand idle groups go on talking."""
        group = self.group(replace(LAZY, quiesce_after_ticks=5))
        group.propose(b"x")
        group.tick(20)
        sent = Sent(group)
        group.tick(20)
        self.assertEqual(sent.messages(), [])
        self.assertTrue(all(group[each].is_quiescent for each in (1, 2, 3)))


class ReadTests(SynchronousTestCase):
    """`Settings.narrow_reads`."""

    def setUp(self) -> None:
        self.group = Group(5, settings=NARROW)
        self.group.elect(1)
        self.group.tick(2)

    def read(self, context: bytes) -> list[ReadState]:
        self.assertIsNone(self.group[1].read_index(context))
        self.group.deliver()
        return [read for read in self.group.leader.reads if read.context == context]

    def test_as_many_as_are_needed(self) -> None:
        """Two others of five make a majority: the other two need not be asked."""
        sent = Sent(self.group)
        self.assertEqual(len(self.read(b"r")), 1)
        beats = only(Heartbeat, sent.messages())
        self.assertEqual(len(beats), 2)

    def test_a_minority_gone(self) -> None:
        """Reads wait for a heartbeat at most, once; then those are asked who answer."""
        self.group.isolate(2, 3)
        self.assertEqual(self.read(b"first"), [])
        self.group.tick(NARROW.heartbeat_ticks)
        found = [read for read in self.group.leader.reads if read.context == b"first"]
        self.assertEqual(len(found), 1)
        self.assertEqual(len(self.read(b"second")), 1)

    def test_a_majority_gone(self) -> None:
        """What few confirm is not confirmed."""
        self.group.isolate(2, 3, 4)
        self.assertEqual(self.read(b"r"), [])
        self.group.tick(5)
        self.assertEqual([each for each in self.group.leader.reads if each.context == b"r"], [])

    def test_others_hear_the_leader(self) -> None:
        """Else those who are never asked elect another one while reads are frequent."""
        term = self.group[1].term
        for number in range(60):
            self.read(b"%d" % number)
            self.group.tick()
        self.assertEqual([self.group[each].term for each in (1, 4, 5)], [term] * 3)

    def test_a_learner_confirms_nothing(self) -> None:
        """It has no vote to give away."""
        group = Group(2, learners=2, settings=NARROW)
        group.elect(1)
        group.tick(2)
        group.isolate(2)
        self.assertIsNone(group[1].read_index(b"r"))
        group.tick(3)
        self.assertEqual(group.leader.reads, [])
        self.assertTrue(only(AppendRequest, group.sent))
