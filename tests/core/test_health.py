"""Verdicts on partitions: a table of what nodes say, and what is to be read out of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.description import Description, Following, Other
from kvtwist.core.health import (
    LAG_ENTRIES_MAX,
    Shortage,
    Verdict,
    by_shortage,
    by_trouble,
    in_ranges,
    judge,
    judge_in_memory,
)
from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Sending

A, B, C = "node-1", "node-2", "node-3"
THREE = (A, B, C)
REFUSED = "connection refused"
HEARD = Following(10, True, Sending.REPLICATE)


def followed(**changes: Any) -> Following:
    """What a leader knows of a follower that is well, but for *changes*."""
    return replace(HEARD, **changes)


def leading(
    at: int, *known: Following, members: tuple[str, ...] = THREE, **changes: Any
) -> Description:
    """The replica of ``members[at]``, which leads; *known*: what it knows of the others."""
    others = tuple(
        Other(replica, name, following=one)
        for (replica, name), one in zip(_without(at, members), known, strict=True)
    )
    said = {"role": Role.LEADER, "leader": at + 1, "has_confirmed": True} | changes
    return _said(at, others, said)


def following(
    at: int, leader: int, members: tuple[str, ...] = THREE, **changes: Any
) -> Description:
    """The replica of ``members[at]``, which follows replica *leader* (0: nobody)."""
    others = tuple(Other(replica, name) for replica, name in _without(at, members))
    return _said(at, others, {"leader": leader} | changes)


def _without(at: int, members: tuple[str, ...]) -> list[tuple[int, str]]:
    return [(place + 1, name) for place, name in enumerate(members) if place != at]


def _said(at: int, others: tuple[Other, ...], changes: dict[str, Any]) -> Description:
    usual = {"term": 4, "commit": 10, "applied": 10, "last": 10, "key_count": 7}
    return Description(group=7, partition=5, replica=at + 1, others=others, **usual | changes)


def verdict_of(
    said: dict[str, Description],
    silent: dict[str, str] | None = None,
    disks: dict[str, str] | None = None,
    members: tuple[str, ...] = THREE,
) -> Verdict:
    """The verdict on partition 5."""
    return judge(5, members, said, silent or {}, disks or {})


WELL = {A: leading(0, HEARD, HEARD), B: following(1, 1), C: following(2, 1)}


class Case(NamedTuple):
    """What is said, and what is wrong with the partition."""

    said: dict[str, Description]
    silent: dict[str, str]
    disks: dict[str, str]
    trouble: str


TROUBLES = {
    "all is well": Case(WELL, {}, {}, ""),
    "one is down, and its leader knows": Case(
        {A: leading(0, HEARD, followed(is_heard=False)), B: following(1, 1)}, {C: REFUSED}, {}, ""
    ),
    "two are down, and the leader knows": Case(
        {A: leading(0, followed(is_heard=False), followed(is_heard=False))},
        {B: REFUSED, C: "no answer yet"},
        {},
        "its leader node-1 does not hear 2 of 3 replicas (node-2: connection refused, node-3: no "
        "answer yet); a majority of 2 is needed",
    ),
    "two are down, and nobody leads": Case(
        {A: following(0, 0)},
        {B: REFUSED, C: "no answer yet"},
        {},
        "cannot reach 2 of 3 replicas (node-2: connection refused, node-3: no answer yet); a "
        "majority of 2 is needed",
    ),
    "all are down": Case(
        {},
        {A: REFUSED, B: REFUSED, C: REFUSED},
        {},
        "cannot reach 3 of 3 replicas (node-1: connection refused, node-2: connection refused, "
        "node-3: connection refused); a majority of 2 is needed",
    ),
    "the others are cut off from the leader, not from here": Case(
        {
            A: leading(0, followed(is_heard=False), followed(is_heard=False)),
            B: following(1, 1),
            C: following(2, 1),
        },
        {},
        {},
        "its leader node-1 does not hear 2 of 3 replicas (node-2: its leader does not hear it, "
        "node-3: its leader does not hear it); a majority of 2 is needed",
    ),
    "the others are out of reach from here, not for the leader": Case(
        {A: leading(0, HEARD, HEARD)}, {B: REFUSED, C: REFUSED}, {}, ""
    ),
    "a group that has fallen silent hears nobody": Case(
        {A: leading(0, HEARD, HEARD, is_quiescent=True)},
        {B: REFUSED, C: REFUSED},
        {},
        "its leader node-1 does not hear 2 of 3 replicas (node-2: connection refused, node-3: "
        "connection refused); a majority of 2 is needed",
    ),
    "two say that they lead": Case(
        {
            A: leading(0, followed(is_heard=False), followed(is_heard=False), term=4),
            B: leading(1, followed(is_heard=False), HEARD, term=5),
            C: following(2, 2, term=5),
        },
        {},
        {},
        "",
    ),
    "a leader that was just elected": Case(
        {A: leading(0, HEARD, HEARD, has_confirmed=False), B: following(1, 1), C: following(2, 1)},
        {},
        {},
        "its leader node-1 has not confirmed its term yet",
    ),
    "the leader's disk is full": Case(
        WELL, {}, {A: "3 bytes are left"}, "its leader node-1 cannot write: 3 bytes are left"
    ),
    "a follower's disk is full": Case(WELL, {}, {B: "3 bytes are left"}, ""),
    "the leader was killed": Case(
        {B: following(1, 1), C: following(2, 1)},
        {A: REFUSED},
        {},
        "its leader node-1 cannot be reached (connection refused)",
    ),
    "the leader was killed, and one has noticed": Case(
        {B: following(1, 0), C: following(2, 1)},
        {A: REFUSED},
        {},
        "its leader node-1 cannot be reached (connection refused)",
    ),
    "an election": Case(
        {B: following(1, 0, role=Role.CANDIDATE, term=5), C: following(2, 1)},
        {A: REFUSED},
        {},
        "no leader: an election is under way",
    ),
    "two stand for election": Case(
        {
            A: following(0, 0),
            B: following(1, 0, role=Role.PRE_CANDIDATE),
            C: following(2, 0, role=Role.PRE_CANDIDATE),
        },
        {},
        {},
        "no leader: an election is under way",
    ),
    "before an election": Case(
        {A: following(0, 0), B: following(1, 0), C: following(2, 0)},
        {},
        {},
        "no leader: an election is due",
    ),
    "nodes that have lost their replicas": Case(
        {C: following(2, 0)},
        {},
        {},
        "cannot reach 2 of 3 replicas (node-1: it has no replica of it, node-2: it has no replica "
        "of it); a majority of 2 is needed",
    ),
}


class AvailabilityTests(SynchronousTestCase):
    """Whether a partition can be used, and why not."""

    def test_table(self) -> None:
        """Who looks after a cluster at night would be sent to the wrong node."""
        for name, case in TROUBLES.items():
            verdict = verdict_of(case.said, case.silent, case.disks)
            self.assertEqual(verdict.trouble, case.trouble, name)
            self.assertEqual(verdict.is_available, not case.trouble, name)

    def test_one_replica(self) -> None:
        """A group of one would be described in broken English."""
        alone = verdict_of({A: leading(0, members=(A,))}, members=(A,))
        self.assertEqual((alone.trouble, alone.needed, alone.present), ("", 1, 1))
        down = verdict_of({}, {A: REFUSED}, members=(A,))
        self.assertEqual(down.trouble, "cannot reach its only replica (node-1: connection refused)")

    def test_learners_do_not_count(self) -> None:
        """A partition would look available for a majority that has no vote."""
        others = (Other(2, B, True, followed(is_heard=False)), Other(3, C, False, HEARD))
        leader = leading(0, HEARD, HEARD)
        said = Description(7, 5, 1, Role.LEADER, 4, 1, has_confirmed=True, others=others)
        verdict = verdict_of({A: said, C: following(2, 1)}, {B: REFUSED})
        self.assertEqual((verdict.voters, verdict.needed, verdict.present), (2, 2, 1))
        self.assertIn("does not hear 1 of 2 replicas", verdict.trouble)
        self.assertTrue(verdict_of({A: leader}).is_available)

    def test_in_memory(self) -> None:
        """A cluster in memory has one copy of each key, whatever its settings say."""
        verdict = judge_in_memory(3, (B, A), {A: REFUSED})
        self.assertEqual((verdict.trouble, verdict.leader, verdict.owner), ("", B, B))
        verdict = judge_in_memory(3, (B, A), {B: REFUSED})
        said = "node-2, which alone has it, cannot be reached (connection refused)"
        self.assertEqual((verdict.trouble, verdict.leader), (said, ""))
        self.assertEqual(verdict.present, 0)


class FiguresTests(SynchronousTestCase):
    """Who leads, and how far everybody is."""

    def test_of_a_leader(self) -> None:
        """The leader knows best: its figures are shown, not those of whoever is asked first."""
        said = WELL | {A: leading(0, HEARD, HEARD, commit=12, last=12, term=5, key_count=9)}
        verdict = verdict_of(said)
        self.assertEqual((verdict.leader, verdict.group, verdict.partition), (A, 7, 5))
        self.assertEqual((verdict.term, verdict.commit, verdict.key_count), (5, 12, 9))
        self.assertEqual((verdict.voters, verdict.needed, verdict.present), (3, 2, 3))
        self.assertEqual([seen.lag for seen in verdict.replicas], [0, 2, 2])
        self.assertEqual([seen.replica for seen in verdict.replicas], [1, 2, 3])

    def test_not_told_yet(self) -> None:
        """A follower that is away since before the election would be shown as one that has lost all
        its entries."""
        away = followed(match=0, sending=Sending.PROBE, is_heard=False)
        verdict = verdict_of({A: leading(0, HEARD, away), B: following(1, 1)}, {C: REFUSED})
        self.assertEqual([seen.lag for seen in verdict.replicas], [0, 0, None])
        empty = followed(match=0, sending=Sending.SNAPSHOT)
        verdict = verdict_of(WELL | {A: leading(0, HEARD, empty)})
        self.assertEqual([seen.lag for seen in verdict.replicas], [0, 0, 10])

    def test_without_a_leader(self) -> None:
        """What is left of a partition would not be shown: how far its log is known."""
        said = {B: following(1, 0, commit=8, term=6), C: following(2, 0, commit=9, term=6)}
        verdict = verdict_of(said, {A: REFUSED})
        self.assertEqual((verdict.leader, verdict.term, verdict.commit), ("", 6, 9))
        self.assertEqual([seen.lag for seen in verdict.replicas], [None, None, None])
        self.assertEqual(verdict.present, 2)

    def test_the_owner_stands_first(self) -> None:
        """Rows would change places whenever the leader does."""
        said = {A: following(0, 2), B: leading(1, HEARD, HEARD), C: following(2, 2)}
        for members in (THREE, (C, A, B)):
            verdict = verdict_of(said, members=members)
            self.assertEqual(tuple(seen.member for seen in verdict.replicas), members)
            self.assertEqual(verdict.owner, members[0])
            self.assertFalse(verdict.is_led_by_owner)
        self.assertTrue(verdict_of(said, members=(B, A, C)).is_led_by_owner)

    def test_a_member_that_is_not_known(self) -> None:
        """A configuration that is newer than the topology would be a traceback."""
        others = (Other(2, B, True, HEARD), Other(9, "", True, followed(is_heard=False)))
        said = Description(7, 5, 1, Role.LEADER, 4, 1, has_confirmed=True, others=others)
        verdict = verdict_of({A: said, B: following(1, 1)})
        self.assertTrue(verdict.is_available)
        self.assertEqual([seen.replica for seen in verdict.replicas], [1, 2, 9])


class ShortageTests(SynchronousTestCase):
    """Replicas that would not stand in."""

    def shortages(
        self, known: Following, silent: bool = False, disks: dict[str, str] | None = None
    ) -> tuple[Shortage, ...]:
        """What is short, when the leader knows *known* of node-3."""
        leader = leading(0, followed(match=10_000), known, last=10_000)
        said = {A: leader, B: following(1, 1)} | ({} if silent else {C: following(2, 1)})
        verdict = verdict_of(said, {C: REFUSED} if silent else {}, disks)
        self.assertEqual(verdict.trouble, "")
        return verdict.shortages

    def test_none(self) -> None:
        """Entries on their way would be an alarm whenever there is load."""
        for lag in (0, 1, LAG_ENTRIES_MAX):
            self.assertEqual(self.shortages(followed(match=10_000 - lag)), ())

    def test_behind(self) -> None:
        """One would not see that a follower does not keep up, or by how much."""
        lag = LAG_ENTRIES_MAX + 1
        short = Shortage(C, "is behind", lag)
        self.assertEqual(self.shortages(followed(match=10_000 - lag)), (short,))

    def test_snapshot(self) -> None:
        """A replica that is made anew would look like one that is there."""
        known = followed(match=10_000, sending=Sending.SNAPSHOT)
        self.assertEqual(self.shortages(known), (Shortage(C, "needs a snapshot, and is sent one"),))

    def test_away(self) -> None:
        """One would not learn that one more failure takes the partition away."""
        lost = followed(match=10_000, is_heard=False)
        gone = Shortage(C, "cannot be reached (connection refused)")
        self.assertEqual(self.shortages(lost, silent=True), (gone,))
        self.assertEqual(self.shortages(lost), (Shortage(C, "is not heard by its leader"),))

    def test_full_disk(self) -> None:
        """S2: a follower that acknowledges nothing would look as if it stood in."""
        known = followed(match=10_000)
        short = Shortage(C, "cannot write: no room")
        self.assertEqual(self.shortages(known, disks={C: "no room"}), (short,))

    def test_not_made_yet(self) -> None:
        """A member that is to have a replica, and has none, would be passed over."""
        verdict = verdict_of({A: leading(0, HEARD, members=(A, B)), B: following(1, 1)})
        self.assertEqual(verdict.shortages, (Shortage(C, "has no replica of it yet"),))

    def test_only_of_what_is_available(self) -> None:
        """The reason why it is unavailable says it already."""
        case = TROUBLES["two are down, and the leader knows"]
        self.assertEqual(verdict_of(case.said, case.silent).shortages, ())


class ManyTests(SynchronousTestCase):
    """What hundreds of partitions have in common is said once."""

    def test_by_trouble(self) -> None:
        """The one partition with another trouble would drown among sixty-three."""
        verdicts = [
            judge(partition, THREE, {}, dict.fromkeys(THREE, REFUSED), {})
            for partition in (1, 2, 9)
        ]
        verdicts += [judge(3, THREE, WELL, {}, {}), judge(4, THREE, WELL, {}, {A: "no room"})]
        self.assertEqual(
            by_trouble(verdicts),
            {
                TROUBLES["all are down"].trouble: [1, 2, 9],
                "its leader node-1 cannot write: no room": [4],
            },
        )

    def test_by_shortage(self) -> None:
        """One line for each partition, since each is behind by another number."""
        verdicts = [
            Verdict(0, THREE, shortages=(Shortage(C, "is behind", 500),)),
            Verdict(1, THREE, shortages=(Shortage(C, "is behind", 900), Shortage(B, "is away"))),
            Verdict(2, THREE, shortages=(Shortage(C, "is behind", 300),)),
        ]
        self.assertEqual(
            by_shortage(verdicts),
            {Shortage(C, "is behind", 900): [0, 1, 2], Shortage(B, "is away"): [1]},
        )

    def test_in_ranges(self) -> None:
        """A list of numbers would fill the screen, or leave one out."""
        for numbers, said in (
            ([], ""),
            ([4], "4"),
            ([0, 1], "0-1"),
            ([5, 1, 2, 3, 9, 8, 63], "1-3, 5, 8-9, 63"),
        ):
            self.assertEqual(in_ranges(numbers), said)
