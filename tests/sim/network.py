"""The network between the members: it loses, repeats, delays and reorders, and it is cut.

A cut is a set of directed links on which nothing passes, not even what is under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import TypeAlias

from kvtwist.core.raft import Message
from kvtwist.core.raft.messages import InstallSnapshot
from tests.sim.plan import Links
from tests.sim.schedule import TICK, Schedule

Cut: TypeAlias = frozenset[tuple[int, int]]
"""Links as (from, to)."""


def between(some: Sequence[int], others: Sequence[int]) -> Cut:
    """All links from *some* to *others*, in this direction."""
    return frozenset((a, b) for a in some for b in others)


def _sides(replicas: Sequence[int], random: Random) -> tuple[list[int], list[int]]:
    mixed = list(replicas)
    random.shuffle(mixed)
    at = random.randrange(1, len(mixed))
    return mixed[:at], mixed[at:]


def full(replicas: Sequence[int], random: Random) -> Cut:
    """Two sides, and nothing between them."""
    some, others = _sides(replicas, random)
    return between(some, others) | between(others, some)


def one_way(replicas: Sequence[int], random: Random) -> Cut:
    """Two sides, of which one does not hear the other."""
    return between(*_sides(replicas, random))


def bridge(replicas: Sequence[int], random: Random) -> Cut:
    """Two sides, and one member that both can talk to."""
    middle = random.choice(replicas)
    rest = [each for each in replicas if each != middle]
    return full(rest, random) if len(rest) > 1 else frozenset()


def ring(replicas: Sequence[int], random: Random) -> Cut:
    """Each member can talk to two others only."""
    mixed = list(replicas)
    random.shuffle(mixed)
    size = len(mixed)
    return frozenset(
        (mixed[a], mixed[b])
        for a in range(size)
        for b in range(size)
        if (a - b) % size not in (0, 1, size - 1)
    )


def isolation(replicas: Sequence[int], random: Random) -> Cut:
    """One member is alone."""
    alone = [random.choice(replicas)]
    rest = [each for each in replicas if each not in alone]
    return between(alone, rest) | between(rest, alone)


def deafness(replicas: Sequence[int], random: Random) -> Cut:
    """One member hears nobody, or nobody hears it."""
    alone = [random.choice(replicas)]
    rest = [each for each in replicas if each not in alone]
    return between(alone, rest) if random.random() < 0.5 else between(rest, alone)


SHAPES: dict[str, Callable[[Sequence[int], Random], Cut]] = {
    "full": full,
    "one-way": one_way,
    "bridge": bridge,
    "ring": ring,
    "isolation": isolation,
    "deafness": deafness,
}
"""What a cut may look like."""


def has_connected_majority(voters: Sequence[int], cut: Cut) -> bool:
    """Whether some majority of *voters* can all talk to each other, both ways.

    That is more than one voter that can talk to a majority: with less, the only one who could win
    an election might be the one who lacks an entry, and Raft then waits for the network (H. Ng, S.
    Haridi, P. Carbone, "Omni-Paxos", EuroSys 2023, section 2).
    """
    return any(
        all((a, b) not in cut and (b, a) not in cut for a, b in combinations(some, 2))
        for some in combinations(voters, len(voters) // 2 + 1)
    )


class Network:
    """What carries messages.

    :param deliver: is given each message when it arrives; whether there was anybody.
    :param report: is told what became of each snapshot, some time after.
    :ivar links: how messages are treated now.
    :ivar cut: where none pass now.
    :ivar counts: messages by their fate.
    """

    def __init__(
        self,
        schedule: Schedule,
        random: Random,
        links: Links,
        deliver: Callable[[Message], bool],
        report: Callable[[InstallSnapshot, bool], None],
    ) -> None:
        self._schedule = schedule
        self._random = random
        self._deliver = deliver
        self._report = report
        self.links = links
        self.cut: Cut = frozenset()
        self.counts: Counter[str] = Counter()

    def send(self, message: Message) -> None:
        """Carry *message*, perhaps."""
        links, draw, counts = self.links, self._random.random, self.counts
        counts["sent"] += 1
        if links.loss and draw() < links.loss:
            counts["lost"] += 1
            self._tell(message, False)
            return
        self._carry(message)
        if links.duplication and draw() < links.duplication:
            counts["duplicated"] += 1
            self._carry(message)

    def _carry(self, message: Message) -> None:
        links, draw = self.links, self._random.random
        moments = 1 + int(draw() * links.delay_moments)
        if links.late and draw() < links.late:
            self.counts["late"] += 1
            moments += int(draw() * links.late_moments)
        self._schedule.after(moments, self._arrive, message)

    def _arrive(self, message: Message) -> None:
        if self.cut and (message.sender, message.to) in self.cut:
            self.counts["cut"] += 1
            self._tell(message, False)
        else:
            self._tell(message, self._deliver(message))

    def _tell(self, message: Message, delivered: bool) -> None:
        if isinstance(message, InstallSnapshot):
            moments = TICK + int(self._random.random() * 4 * TICK)
            self._schedule.after(moments, self._report, message, delivered)
