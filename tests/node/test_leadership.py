"""Who leads: the owner, when it is steady; and somebody else, when its node goes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.groups import Group
from kvtwist.node.leadership import AT_ONCE_MAX, STEADY_TICKS, Leadership
from kvtwist.node.replica import Replica


class FakeHeard:
    def __init__(self) -> None:
        self.ticks: dict[str, int] = {}

    def heard_for_ticks(self, name: str) -> int:
        return self.ticks.get(name, 0)


class FakeReplica:
    """Notes to whom it was handed over."""

    def __init__(self, closest: tuple[int, ...] = (), refuses: tuple[int, ...] = ()) -> None:
        self.to: list[int] = []
        self.closest = closest
        self.refuses = refuses

    def hand_over(self, to: int) -> bool:
        self.to.append(to)
        return to not in self.refuses

    def closest_followers(self) -> list[int]:
        return list(self.closest)


class LeadershipTests(SynchronousTestCase):
    """As node-2 sees it; node-1 is the owner."""

    def setUp(self) -> None:
        self.heard = FakeHeard()
        self.leadership = Leadership("node-2", self.heard)
        self.group = Group(2, ("node-1", "node-2", "node-3"), 3)

    def looks(self, count: int, replica: FakeReplica, group: Group | None = None) -> None:
        for _ in range(count):
            self.leadership.look([(group or self.group, cast(Replica, replica))])

    def test_the_owner_leads_when_it_is_steady(self) -> None:
        """Load is spread, and a client's first guess is right; not before it has been heard for a
        while without a pause."""
        replica = FakeReplica()
        self.heard.ticks["node-1"] = STEADY_TICKS - 1
        self.looks(3, replica)
        self.assertEqual(replica.to, [])
        self.heard.ticks["node-1"] = STEADY_TICKS
        self.looks(1, replica)
        self.assertEqual(replica.to, [1])

    def test_no_flapping(self) -> None:
        """Each hand-over stops writes for a moment: to an owner that does not keep it, it is tried
        less and less often."""
        replica = FakeReplica()
        self.heard.ticks["node-1"] = 1000
        tries = []
        for look in range(600):
            before = len(replica.to)
            self.looks(1, replica)
            if len(replica.to) > before:
                tries.append(look)
        gaps = [later - earlier for earlier, later in pairwise(tries)]
        self.assertEqual(gaps[:6], [2, 4, 8, 16, 32, 64])
        self.assertEqual(set(gaps[6:]), {128})

    def test_few_at_once(self) -> None:
        """A node that comes back is not given everything in one moment."""
        self.heard.ticks["node-1"] = 1000
        led = [(Group(at, self.group.members, 3), FakeReplica()) for at in range(2, 40)]
        self.leadership.look(cast(Any, led))
        self.assertEqual(sum(len(replica.to) for _, replica in led), AT_ONCE_MAX)
        self.leadership.look(cast(Any, led))
        self.assertEqual(sum(len(replica.to) for _, replica in led), 2 * AT_ONCE_MAX)

    def test_what_it_owns_it_keeps(self) -> None:
        """Else leadership goes round."""
        replica = FakeReplica()
        self.heard.ticks = dict.fromkeys(("node-1", "node-2", "node-3"), 1000)
        self.looks(5, replica, Group(3, ("node-2", "node-1", "node-3"), 3))
        self.assertEqual(replica.to, [])

    def test_one_that_is_not_close_is_asked_again_soon(self) -> None:
        """R15: a refusal costs nothing, and is no reason to wait longer."""
        replica = FakeReplica(refuses=(1,))
        self.heard.ticks["node-1"] = 1000
        self.looks(4, replica)
        self.assertEqual(replica.to, [1, 1, 1, 1])

    def test_leaving(self) -> None:
        """T11, S2: to whoever is closest and is there; the next one if that does not take it."""
        self.heard.ticks["node-1"] = 1
        self.heard.ticks["node-3"] = 1
        replica = FakeReplica(closest=(3, 1), refuses=(3,))
        self.leadership.leave([(self.group, cast(Replica, replica))])
        self.assertEqual(replica.to, [3, 1])
        del self.heard.ticks["node-3"]
        replica = FakeReplica(closest=(3, 1))
        self.leadership.leave([(self.group, cast(Replica, replica))])
        self.assertEqual(replica.to, [1])
