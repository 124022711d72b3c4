"""Every limit of the settings, one below, at, and one above it (R16)."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Dropped, Proposed, Reason
from kvtwist.core.raft.log import ENTRY_OVERHEAD_BYTES
from kvtwist.core.raft.messages import AppendRequest, HeartbeatResponse
from tests.core.raft.group import (
    PLAIN,
    Member,
    acknowledge,
    appended,
    lead,
    leading,
    member,
    only,
)

SIZE = ENTRY_OVERHEAD_BYTES + 8
"""What an entry with `PAYLOAD` counts for."""
PAYLOAD = b"8 bytes."


def to_two(sent: list[AppendRequest]) -> list[AppendRequest]:
    """Those with entries for replica 2."""
    return [request for request in sent if request.to == 2 and request.entries]


class AppendBytesTests(SynchronousTestCase):
    """A message that is too large would hold up all groups that share the connection."""

    def test_split(self) -> None:
        """As many entries in a message as fit; one always does."""
        for bytes_max, sizes in (
            (1, [1, 1, 1, 1]),
            (SIZE, [1, 1, 1, 1]),
            (2 * SIZE - 1, [1, 1, 1, 1]),
            (2 * SIZE, [2, 2]),
            (2 * SIZE + 1, [2, 2]),
            (4 * SIZE - 1, [3, 1]),
            (4 * SIZE, [4]),
        ):
            one = leading(settings=replace(PLAIN, append_bytes_max=bytes_max))
            one.raft.propose([PAYLOAD] * 4)
            sent = to_two(only(AppendRequest, one.settle()))
            self.assertEqual([len(request.entries) for request in sent], sizes, bytes_max)
            joined = [entry for request in sent for entry in request.entries]
            self.assertEqual([entry.index for entry in joined], [2, 3, 4, 5])


class InflightTests(SynchronousTestCase):
    """A slow follower would have the leader's memory filled with what it cannot take yet."""

    def test_messages(self) -> None:
        """So many, and not one more until one is acknowledged."""
        for limit in (1, 2, 3):
            how = replace(PLAIN, inflight_messages_max=limit, append_bytes_max=1)
            one = leading(settings=how)
            one.raft.propose([PAYLOAD] * 5)
            self.assertEqual(len(to_two(only(AppendRequest, one.settle()))), limit)
            self.assertEqual(one.raft.progress()[2].inflight, (limit, limit * SIZE))
            self.assertEqual(len(to_two(only(AppendRequest, acknowledge(one, 2, index=2)))), 1)

    def test_bytes(self) -> None:
        """Another message only while there are less than so many."""
        for limit, count in (
            (1, 1),
            (SIZE, 1),
            (SIZE + 1, 2),
            (2 * SIZE - 1, 2),
            (2 * SIZE, 2),
            (2 * SIZE + 1, 3),
        ):
            how = replace(PLAIN, inflight_bytes_max=limit, append_bytes_max=1)
            one = leading(settings=how)
            one.raft.propose([PAYLOAD] * 5)
            self.assertEqual(len(to_two(only(AppendRequest, one.settle()))), count, limit)

    def test_heartbeats_do_not_open_it(self) -> None:
        """R16: a follower that answers heartbeats, while its disk takes nothing, gets no more."""
        how = replace(PLAIN, inflight_messages_max=3, append_bytes_max=1)
        one = leading(settings=how)
        one.raft.propose([PAYLOAD] * 50)
        entries = len(to_two(only(AppendRequest, one.settle())))
        for _ in range(20):
            sent = one.step(HeartbeatResponse(2, 1, 1))
            entries += len(to_two(only(AppendRequest, sent)))
        self.assertEqual(entries, 3)

    def test_lost_messages_are_found(self) -> None:
        """And yet, when all that is under way was lost, that is noticed with the next heartbeat."""
        how = replace(PLAIN, inflight_messages_max=3, append_bytes_max=1)
        one = leading(settings=how)
        one.raft.propose([PAYLOAD] * 5)
        one.settle()
        follower = member(1, replica=2)
        probes = only(AppendRequest, one.step(HeartbeatResponse(2, 1, 1)))
        (rejection,) = [answer for probe in probes for answer in follower.step(probe)]
        (again,) = to_two(only(AppendRequest, one.step(rejection)))
        self.assertEqual(again.prev_index, 1)


class UncommittedBytesTests(SynchronousTestCase):
    """A leader without a majority must not take in more and more."""

    def propose(self, one: Member, count: int) -> bool:
        """Whether it was taken."""
        done = one.raft.propose([PAYLOAD] * count)
        one.settle()
        self.assertIn(
            done,
            (Dropped(Reason.UNCOMMITTED_BYTES, 1), Proposed(1, one.raft.last_index - count + 1)),
        )
        return isinstance(done, Proposed)

    def test_limit(self) -> None:
        """Up to it, all of a request or nothing, and again when some is committed."""
        one = leading(settings=replace(PLAIN, uncommitted_bytes_max=3 * SIZE))
        self.assertTrue(self.propose(one, 2))
        self.assertFalse(self.propose(one, 2))
        self.assertEqual(one.raft.last_index, 3)
        self.assertTrue(self.propose(one, 1))
        self.assertFalse(self.propose(one, 1))
        acknowledge(one, 2, index=2)
        self.assertFalse(self.propose(one, 2))
        self.assertTrue(self.propose(one, 1))

    def test_one_byte(self) -> None:
        """At the limit and one byte below it."""
        for limit, taken in ((2 * SIZE, True), (2 * SIZE - 1, False)):
            one = leading(settings=replace(PLAIN, uncommitted_bytes_max=limit))
            self.assertTrue(self.propose(one, 1))
            self.assertIs(self.propose(one, 1), taken)

    def test_too_large_alone(self) -> None:
        """What is larger than the limit gets through when there is nothing else."""
        one = leading(settings=replace(PLAIN, uncommitted_bytes_max=1))
        self.assertTrue(self.propose(one, 2))
        self.assertFalse(self.propose(one, 1))
        acknowledge(one, 2)
        self.assertTrue(self.propose(one, 1))

    def test_inherited(self) -> None:
        """A new leader counts what it has taken over."""
        one = member(1, 1, settings=replace(PLAIN, uncommitted_bytes_max=3 * SIZE))
        lead(one)
        self.assertEqual(one.raft.propose([PAYLOAD]), Dropped(Reason.UNCOMMITTED_BYTES, 1))
        acknowledge(one, 2)
        self.assertIsInstance(one.raft.propose([PAYLOAD] * 3), Proposed)


class ApplyBytesTests(SynchronousTestCase):
    """A long log that is applied in one turn would hold up the whole node."""

    def test_limit(self) -> None:
        """As many as fit in each Ready, one at least, until all are applied."""
        size = ENTRY_OVERHEAD_BYTES + len(b"1 of term 1")
        for bytes_max, sizes in (
            (1, [1, 1, 1, 1]),
            (size, [1, 1, 1, 1]),
            (2 * size - 1, [1, 1, 1, 1]),
            (2 * size, [2, 2]),
            (3 * size, [3, 1]),
            (4 * size, [4]),
        ):
            one = member(1, 1, 1, 1, settings=replace(PLAIN, apply_bytes_max=bytes_max))
            one.raft.step(appended(term=1, prev_index=4, prev_term=1, commit=4))
            taken = []
            while one.raft.has_ready():
                before = len(one.applied)
                one.take()
                taken.append(len(one.applied) - before)
                one.write()
            self.assertEqual([count for count in taken if count], sizes, bytes_max)
            self.assertEqual([entry.index for entry in one.applied], [1, 2, 3, 4])
