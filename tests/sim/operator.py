"""The operator: changes the membership, hands leadership over, suspects leaders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from kvtwist.core.raft import (
    AddLearner,
    Change,
    Demote,
    Dropped,
    Promote,
    Proposed,
    Remove,
)
from tests.sim.ledger import Ledger
from tests.sim.machine import passing
from tests.sim.member import Member
from tests.sim.network import Network
from tests.sim.plan import Plan
from tests.sim.schedule import TICK, Schedule
from tests.sim.trace import Trace

REPLICAS_MAX = 7
SUSPICION_TICKS = 10


class Operator:
    """Does one of the plan's operations, now and then.

    :param members: all that there are, now.
    :param join: makes a new member, which has never been there before (R11).
    :ivar counts: what was asked for, and taken on.
    """

    def __init__(
        self,
        plan: Plan,
        schedule: Schedule,
        random: Random,
        trace: Trace,
        network: Network,
        ledger: Ledger,
        members: Callable[[], list[Member]],
        join: Callable[[], Member],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._schedule = schedule
        self._random = random
        self._trace = trace
        self._network = network
        self._ledger = ledger
        self._members = members
        self._join = join
        self._is_over = False
        self._silent_since: dict[tuple[int, int], int] = {}

    def begin(self) -> None:
        """Begin to operate."""
        if self._plan.operations:
            self._later()
        self._look()

    def stop(self) -> None:
        """Change nothing any more; go on looking after leaders."""
        self._is_over = True

    def _later(self) -> None:
        pause = 1 + self._random.randrange(2 * self._plan.operation_ticks * TICK)
        self._schedule.after(pause, self._act)

    def _act(self) -> None:
        if self._is_over:
            return
        operation = self._random.choice(self._plan.operations)
        getattr(self, f"_{operation}")()
        self._later()

    def _leader(self) -> Member | None:
        """One who thinks that it leads."""
        leaders = [each for each in self._members() if each.is_leading and not each.is_paused]
        return self._random.choice(leaders) if leaders else None

    # -- membership ---------------------------------------------------------------------------

    def _membership(self) -> None:
        leader = self._leader()
        if leader is None or leader.raft is None:
            return
        configuration = leader.raft.configuration
        voters, learners = list(configuration.voters), list(configuration.learners)
        choices: list[Callable[[], Change]] = []
        if len(voters) + len(learners) < REPLICAS_MAX:
            choices += [lambda: AddLearner(self._join().replica)] * 3
        if learners:
            choices += [lambda: Promote(self._random.choice(learners))] * 4
            choices += [lambda: Remove(self._random.choice(learners))]
        if len(voters) > 1:
            choices += [lambda: Demote(self._random.choice(voters))]
            choices += [lambda: Remove(self._random.choice(voters))]
        if not choices:
            return
        change = self._random.choice(choices)()
        said = leader.propose_membership(change)
        kind = type(change).__name__
        done = "taken" if isinstance(said, Proposed) else "dropped"
        self.counts[f"{kind} {done}"] += 1
        self._trace.add(kind, leader.replica, change.replica, 0, said)

    def retire_removed(self) -> None:
        """A change is committed: whoever was removed is switched off, some time later."""
        replicas = self._ledger.configuration.replicas
        for member in self._members():
            known = any(member.replica in each.replicas for _, each in self._ledger.configurations)
            if member.replica not in replicas and known:
                ticks = 1 + self._random.randrange(60)
                self._schedule.after(ticks * TICK, self._retire, member)

    def _retire(self, member: Member) -> None:
        if not member.is_retired:
            member.is_retired = True
            self.counts["retired"] += 1
            self._trace.add("retire", member.replica)
            if member.is_up:
                member.crash()

    # -- leadership ---------------------------------------------------------------------------

    def _transfer(self) -> None:
        leader = self._leader()
        if leader is None or leader.raft is None:
            return
        to = self._random.choice(leader.raft.configuration.replicas)
        said = leader.transfer_leadership(to)
        self.counts["transfer " + ("dropped" if isinstance(said, Dropped) else "begun")] += 1
        self._trace.add("transfer", leader.replica, to, 0, said)

    def _burst(self) -> None:
        """Fill the log of somebody who takes itself for the leader; often in vain."""
        leader = self._leader()
        if leader is not None:
            count = 1 + self._random.randrange(8)
            self.counts["burst"] += count
            self._trace.add("burst", leader.replica, count)
            for _ in range(count):
                leader.write(passing, lambda _: None)

    def _suspicion(self) -> None:
        """A false one."""
        members = [each for each in self._members() if each.is_up]
        if members:
            member = self._random.choice(members)
            self.counts["false suspicion"] += 1
            self._trace.add("suspect", member.replica, 1)
            member.suspect()

    def _look(self) -> None:
        """The failure detector: tell members whose leader has been silent for a while."""
        self._schedule.after(2 * TICK, self._look)
        members = self._members()
        up = {each.replica for each in members if each.is_up and not each.is_paused}
        now = self._schedule.now
        for member in members:
            leader = member.raft.leader if member.raft is not None else 0
            link = (leader, member.replica)
            if not leader or leader == member.replica:
                continue
            if leader in up and link not in self._network.cut:
                self._silent_since.pop(link, None)
            elif now - self._silent_since.setdefault(link, now) >= SUSPICION_TICKS * TICK:
                self._silent_since[link] = now
                self._trace.add("suspect", member.replica, 0, leader)
                member.suspect()
