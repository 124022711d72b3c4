"""The nemesis: what it does to members, disks and network while there is chaos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.sim.member import Member
from tests.sim.network import SHAPES, Cut, Network, between
from tests.sim.plan import Plan
from tests.sim.schedule import TICK, Schedule
from tests.sim.trace import Trace


class Nemesis:
    """Does one of the plan's faults, now and then.

    :param members: all that there are, now.
    :ivar counts: what it has done.
    """

    def __init__(
        self,
        plan: Plan,
        schedule: Schedule,
        random: Random,
        trace: Trace,
        network: Network,
        members: Callable[[], list[Member]],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._schedule = schedule
        self._random = random
        self._trace = trace
        self._network = network
        self._members = members
        self._is_over = False
        self._cuts = 0

    def begin(self) -> None:
        """Let chaos begin."""
        if self._plan.faults:
            self._later()

    def _later(self) -> None:
        pause = 1 + self._random.randrange(2 * self._plan.fault_ticks * TICK)
        self._schedule.after(pause, self._act)

    def _act(self) -> None:
        if self._is_over:
            return
        fault = self._random.choice(self._plan.faults)
        getattr(self, f"_{fault}")()
        self._later()

    def _note(self, fault: str, replica: int = 0, ticks: int = 0, shown: object = None) -> None:
        self.counts[fault] += 1
        self._trace.add(fault, replica, ticks, 0, shown)

    def _ticks(self, most: int) -> int:
        return 1 + self._random.randrange(most)

    def _someone(self) -> Member | None:
        """A member that runs: often one that leads, for that is where it hurts."""
        members = [each for each in self._members() if each.is_up and not each.is_paused]
        leaders = [each for each in members if each.is_leading]
        if leaders and self._random.random() < 0.3:
            members = leaders
        return self._random.choice(members) if members else None

    # -- members ------------------------------------------------------------------------------

    def _crash(self) -> None:
        member = self._someone()
        if member is not None:
            self.down(member, self._ticks(40), "crash")

    def down(self, member: Member, ticks: int, fault: str) -> None:
        """Have *member* crash, and start again in so many ticks."""
        if member.crash():
            self.counts["writes lost"] += 1
        self._note(fault, member.replica, ticks)
        self._schedule.after(ticks * TICK, self._up, member)

    def _up(self, member: Member) -> None:
        if not member.is_up and not member.is_retired:
            member.start()

    def _power_cut(self) -> None:
        """Everybody crashes at once, and comes back in any order."""
        for member in self._members():
            if member.is_up:
                self.down(member, self._ticks(15), "power_cut")

    def _pause(self) -> None:
        member = self._someone()
        if member is not None:
            ticks = self._ticks(40)
            member.pause()
            self._note("pause", member.replica, ticks)
            self._schedule.after(ticks * TICK, self._resume, member, member.life)

    def _resume(self, member: Member, life: int) -> None:
        if member.is_paused and member.life == life:
            self._trace.add("resume", member.replica)
            member.resume()

    def _slow_applier(self) -> None:
        member = self._someone()
        if member is not None:
            member.apply_moments = self._ticks(6) * TICK
            ticks = self._ticks(60)
            self._note("slow_applier", member.replica, ticks)
            self._schedule.after(ticks * TICK, self._fast, member)

    def _fast(self, member: Member) -> None:
        member.apply_moments = 0

    # -- disks --------------------------------------------------------------------------------

    def _disk_stall(self) -> None:
        member = self._someone()
        if member is not None:
            ticks = self._ticks(30)
            member.disk.stall_moments = ticks * TICK
            self._note("disk_stall", member.replica, ticks)
            self._schedule.after(ticks * TICK, self._unstall, member)

    def _unstall(self, member: Member) -> None:
        member.disk.stall_moments = 0

    def _disk_failure(self) -> None:
        member = self._someone()
        if member is not None:
            member.disk.fails = True
            self._note("disk_failure", member.replica)

    def disk_failed(self, member: Member) -> None:
        """*member*'s disk has failed: it stops at once (S1)."""
        self.down(member, self._ticks(30), "fail-stop")

    # -- the network --------------------------------------------------------------------------

    def _partition(self) -> None:
        self.cut()
        ticks = self._ticks(60)
        self._schedule.after(ticks * TICK, self._mend, self._cuts)

    def cut(self) -> None:
        """Cut the network, somehow, until it is mended."""
        replicas = [each.replica for each in self._members()]
        if len(replicas) < 2:
            return
        shape = self._random.choice((*SHAPES, "deposition"))
        self._cuts += 1
        if shape == "deposition":
            self._network.cut = self._deposition(replicas)
        else:
            self._network.cut = SHAPES[shape](replicas, self._random)
        self._note(f"partition: {shape}", 0, self._cuts, sorted(self._network.cut))

    def _deposition(self, replicas: list[int]) -> Cut:
        """Who leads is on the smaller side: it goes on for a while, and all of that is in vain."""
        rest = list(replicas)
        self._random.shuffle(rest)
        leaders = [each.replica for each in self._members() if each.is_leading]
        rest.sort(key=lambda replica: replica not in leaders)
        at = self._random.randrange(1, (len(rest) + 1) // 2 + 1)
        return between(rest[:at], rest[at:]) | between(rest[at:], rest[:at])

    def _mend(self, cut: int) -> None:
        if cut == self._cuts and not self._is_over:
            self._network.cut = frozenset()
            self._trace.add("mend", 0)

    def _loss_burst(self) -> None:
        ticks = self._ticks(15)
        self._network.links = replace(self._plan.links, loss=0.7)
        self._note("loss_burst", 0, ticks)
        self._schedule.after(ticks * TICK, self._calm)

    def _calm(self) -> None:
        if not self._is_over:
            self._network.links = self._plan.links

    # -- the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """No more faults; whoever is down comes back, whoever stands still goes on."""
        self._is_over = True
        for member in self._members():
            member.disk.stall_moments = 0
            member.disk.fails = False
            member.apply_moments = 0
            if member.is_paused:
                self._resume(member, member.life)
            if not member.is_up:
                self._up(member)
