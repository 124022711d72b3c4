"""A run: a whole group from its first moment to its end, out of one number.

Three parts: *chaos*, with the plan's faults; *recovery*, ten election timeouts after the last of
them; and the *last round*, in which every client must have a write and a read answered, and after
which all replicas must be the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from kvtwist.core.raft import Configuration, Entry, EntryKind, Message, Role
from kvtwist.core.raft.messages import InstallSnapshot
from tests.linearizability.history import Kind, Operation, Recorder
from tests.linearizability.judge import assert_linearizable
from tests.linearizability.revisions import check_revisions
from tests.sim.clients import DEADLINE_TICKS, Client, End
from tests.sim.disk import Disk
from tests.sim.faults import Nemesis
from tests.sim.invariants import Inspector, Violation
from tests.sim.ledger import Ledger, holders
from tests.sim.machine import TICK_MS
from tests.sim.member import Member
from tests.sim.network import Network, has_connected_majority
from tests.sim.operator import Operator
from tests.sim.plan import SLOW_SYNC_MOMENTS, Disks, Links, Plan, draw
from tests.sim.schedule import TICK, Schedule
from tests.sim.trace import Trace

RECOVERY_ELECTION_TIMEOUTS = 10
STILL_TICKS = 60

HEALTHY_LINKS = Links()
HEALTHY_DISKS = Disks()


class Failure(Exception):
    """A run has found something.

    :ivar seed: that does so again.
    :ivar invariant: what does not hold.
    """

    def __init__(self, seed: int, invariant: str, wrong: str, trace: Trace) -> None:
        super().__init__(f"seed {seed}: {wrong}")
        self.seed = seed
        self.invariant = invariant
        self.wrong = wrong
        self.trace = trace


@dataclass(frozen=True, slots=True)
class Report:
    """What has happened in a run.

    :ivar counts: of faults, elections, operations and the like, by name.
    :ivar digest: the same for two runs in which the same happened.
    """

    seed: int
    digest: str
    counts: Counter[str] = field(default_factory=Counter)


class Simulation:
    """One run.

    :ivar history: what clients have seen, once it is over.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.schedule = Schedule()
        self.trace = Trace(self.schedule)
        self.random = Random(f"run {plan.seed}")
        founders = tuple(range(1, plan.voters + 1))
        self._founding = Configuration(founders)
        self.ledger = Ledger(self._founding)
        self.inspector = Inspector(self.ledger, self.trace, self._disk_failed, self._committed)
        self.network = Network(
            self.schedule, self.random, plan.links, self._deliver, self._report_snapshot
        )
        self._by_replica: dict[int, Member] = {}
        self._members: list[Member] = []
        for _ in founders:
            self._make()
        common = (plan, self.schedule, self.random, self.trace, self.network)
        self.nemesis = Nemesis(*common, self._present)
        self.operator = Operator(*common, self.ledger, self._present, self._join)
        self.recorder = Recorder()
        self.clients = [self._client(number) for number in range(1, plan.clients + 1)]

    # -- who is there -------------------------------------------------------------------------

    def _make(self) -> Member:
        # Also of one who joins: it is the truth at index 0, and nobody's log has it.
        replica, plan = len(self._by_replica) + 1, self.plan
        error = 1 + plan.clock_error * (2 * self.random.random() - 1)
        disks = plan.disks
        if self.random.random() < disks.slow:
            disks = replace(disks, sync_moments=SLOW_SYNC_MOMENTS)
        member = Member(
            replica,
            self.schedule,
            self.random,
            plan,
            Disk(self.schedule, self.random, disks, self._founding),
            self.inspector,
            self._send,
            int(TICK * error),
        )
        self._by_replica[replica] = member
        self._members.append(member)
        return member

    def _join(self) -> Member:
        member = self._make()
        member.start()
        return member

    def _present(self) -> list[Member]:
        return [each for each in self._members if not each.is_retired]

    def _client(self, number: int) -> Client:
        return Client(
            f"c{number}",
            self.plan,
            self.schedule,
            self.random,
            self.trace,
            self.network,
            self.recorder,
            self._present,
            has_sessions=self.random.random() < 0.75,
            idle_ms=self.random.choice((30, 3000)) * TICK_MS,
        )

    # -- what is between them -----------------------------------------------------------------

    def _send(self, message: Message) -> None:
        self.trace.add("send", message.sender, message.to, message.term, message)
        self.network.send(message)

    def _deliver(self, message: Message) -> bool:
        member = self._by_replica.get(message.to)
        if member is None or not member.is_up:
            return False
        self.trace.add("receive", message.to, message.sender, message.term, message)
        return member.receive(message)

    def _report_snapshot(self, message: InstallSnapshot, delivered: bool) -> None:
        sender = self._by_replica[message.sender]
        sender.snapshot_sent(sender.life, message.to, delivered)

    def _disk_failed(self, member: Member) -> None:
        self.nemesis.disk_failed(member)

    def _committed(self, entry: Entry) -> None:
        if entry.kind is EntryKind.CONFIGURATION:
            self.operator.retire_removed()

    # -- the run ------------------------------------------------------------------------------

    def run(self) -> Report:
        """All of it.

        :raises Failure: when something does not hold.
        """
        try:
            self._chaos()
            self._recovery()
            self._last_round()
            self._end()
        except Violation as violation:
            invariant, wrong = violation.invariant, str(violation)
            raise Failure(self.plan.seed, invariant, wrong, self.trace) from violation
        except Failure:
            raise
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
            raise Failure(
                self.plan.seed, "no_exception", f"no_exception: {wrong}", self.trace
            ) from error
        return Report(self.plan.seed, self.trace.digest(), self._counts())

    def _run_for(self, ticks: int) -> None:
        self.schedule.run_until(self.schedule.now + ticks * TICK)

    def _run_until(self, holds: Callable[[], bool], ticks: int) -> bool:
        """Run until something holds, for so long at most. Whether it does."""
        end = self.schedule.now + ticks * TICK
        while not holds() and self.schedule.now < end:
            self.schedule.run_until(self.schedule.now + TICK)
        return holds()

    def _chaos(self) -> None:
        for member in list(self._members):
            member.start()
        for client in self.clients:
            client.think()
        self.nemesis.begin()
        self.operator.begin()
        self._run_for(self.plan.chaos_ticks)

    def _recovery(self) -> None:
        self.operator.stop()
        self.nemesis.stop()
        self.network.links = HEALTHY_LINKS
        self.network.cut = frozenset()
        for member in self._members:
            member.disk.be(HEALTHY_DISKS)
        if not self.plan.heals:
            self._cut_off_a_minority()
        self.trace.add("recovery", 0, 0, 0, sorted(self.network.cut))
        timeout_ticks = self.plan.settings.election_timeout_ticks
        ticks = RECOVERY_ELECTION_TIMEOUTS * timeout_ticks
        elected = self._run_until(self._is_led, ticks)
        self._expect("a_majority_elects", elected, f"nobody leads after {ticks} ticks")

    def _cut_off_a_minority(self) -> None:
        """Leave a cut, but one in which a majority is connected (R9)."""
        for _ in range(20):
            self.nemesis.cut()
            if all(
                has_connected_majority(voters, self.network.cut)
                for voters in self._possible_voters()
            ):
                return
            self.network.cut = frozenset()

    def _possible_voters(self) -> list[tuple[int, ...]]:
        """The voters, whichever of the changes that are under way will be committed."""
        configurations = [self.ledger.configuration]
        for member in self._present():
            if member.raft is not None and member.raft.configuration.voters:
                configurations.append(member.raft.configuration)
        return [each.voters for each in configurations]

    def _is_led(self) -> bool:
        """Whether there is a leader that can talk to a majority, and nobody who may depose it."""
        rafts = [each.raft for each in self._present() if each.raft is not None]
        leaders = [each for each in rafts if each.role is Role.LEADER]
        if not leaders:
            return False
        leader = max(leaders, key=lambda each: each.term)
        voters = leader.configuration.voters
        me, cut = leader.replica, self.network.cut
        # Whoever is in a later term ends this one, if only by its answers; unless it is cut off.
        if not cut and any(each.term > leader.term for each in rafts if each.replica in voters):
            return False
        near = [each for each in voters if (me, each) not in cut and (each, me) not in cut]
        return len(near) > len(voters) // 2

    def _last_round(self) -> None:
        """Every client must get an answer to a write and to a read."""
        for client in self.clients:
            client.rests = True
        for kind in (None, Kind.PUT, Kind.GET):
            ended = self._run_until(self._is_calm, DEADLINE_TICKS + 1)
            self._expect("every_operation_ends", ended, "a client is still waiting")
            before = [client.ends[End.ANSWERED] for client in self.clients]
            for client in self.clients:
                client.begin_last(kind)
            self._run_until(self._is_calm, DEADLINE_TICKS + 1)
            for client, answered in zip(self.clients, before, strict=True):
                what = kind.value if kind is not None else "opening a session"
                wrong = f"{client.name}: {what} is not answered"
                told = client.ends[End.ANSWERED] > answered
                self._expect("a_majority_answers", told, wrong)

    def _is_calm(self) -> bool:
        return not any(client.is_busy for client in self.clients)

    def _end(self) -> None:
        if self.plan.heals:
            self._all_become_the_same()
        self._disks_have_what_is_committed()
        try:
            assert_linearizable(self.history)
        except AssertionError as error:
            self._expect("linearizability", False, str(error))
        clashes = check_revisions(self.history, partition_of=lambda key: 0)
        self._expect("versions_grow_from_key_to_key", not clashes, f"{clashes}")

    def _disks_have_what_is_committed(self) -> None:
        """Whatever was ever committed is on a majority of disks now (figure 3)."""
        ledger = self.ledger
        voters = ledger.configuration.voters
        for entry in ledger.committed[1:]:
            held = holders(ledger, voters, entry)
            wrong = f"{entry} is on {held} disks of {voters}"
            self._expect("nothing_committed_is_lost", held > len(voters) // 2, wrong)

    def _all_become_the_same(self) -> None:
        """Whoever belongs to the group catches up, and ends with the same state."""
        self._run_until(lambda: not self._laggards() and not self._reads_open(), STILL_TICKS)
        commit = self.ledger.commit_index
        wrong = f"{self._laggards()} have not applied {commit}"
        self._expect("everybody_catches_up", not self._laggards(), wrong)
        wrong = f"{self._reads_open()} reads got no answer, not even that they are lost"
        self._expect("every_read_ends", not self._reads_open(), wrong)
        states = {
            self._by_replica[replica].machine.digest()
            for replica in self.ledger.configuration.replicas
        }
        self._expect("same_state_everywhere", len(states) == 1, f"{len(states)} states")

    def _laggards(self) -> list[int]:
        commit = self.ledger.commit_index
        return [
            replica
            for replica in self.ledger.configuration.replicas
            if self._by_replica[replica].machine.applied < commit
        ]

    def _reads_open(self) -> int:
        return sum(member.reads_open for member in self._present())

    def _expect(self, invariant: str, holds: bool, wrong: str) -> None:
        if not holds:
            raise Failure(self.plan.seed, invariant, f"{invariant}: {wrong}", self.trace)

    # -- afterwards ---------------------------------------------------------------------------

    @property
    def history(self) -> tuple[Operation, ...]:
        """What clients have seen."""
        return self.recorder.operations()

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        counts["runs"] = 1
        counts["events"] = self.schedule.done
        counts["ticks"] = self.schedule.now // TICK
        counts["committed entries"] = self.ledger.commit_index
        counts["runs with leases"] = int(self.plan.settings.lease_reads)
        counts["leaders"] = len(self.ledger.leaders)
        counts["configurations"] = len(self.ledger.configurations) - 1
        counts["silences"] = sum(row[1] == "silent" for row in self.trace.events)
        counts["runs with a partial cut at the end"] = int(bool(self.network.cut))
        _add(counts, "message", self.network.counts)
        _add(counts, "fault", self.nemesis.counts)
        _add(counts, "operator", self.operator.counts)
        _add(counts, "seen", self.inspector.counts)
        for client in self.clients:
            _add(counts, "operation", {end.value: each for end, each in client.ends.items()})
        return counts


def _add(counts: Counter[str], prefix: str, of: Counter[str] | dict[str, int]) -> None:
    for name, count in of.items():
        counts[f"{prefix}: {name}"] += count


def run(seed: int, change: Callable[[Plan], Plan] | None = None) -> Report:
    """Run *seed*.

    :raises Failure: when something does not hold.
    """
    plan = draw(seed)
    return Simulation(plan if change is None else change(plan)).run()
