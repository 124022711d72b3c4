"""The nemesis: what it does to nodes, disks, clients and the network while there is chaos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from kvtwist.core.state.commands import SetGeneration
from kvtwist.errors import KvtwistError, StoreFailed
from tests.sim.network import SHAPES, between
from tests.simnodes.clients import ClientProcess
from tests.simnodes.clock import Clock
from tests.simnodes.disk import failed, full
from tests.simnodes.history import History
from tests.simnodes.invariants import Inspector
from tests.simnodes.machine import Machine
from tests.simnodes.network import Network
from tests.simnodes.plan import Plan
from tests.simnodes.stock import StockProcess
from tests.simnodes.strangers import Stranger, forged
from tests.simnodes.trace import Trace

VISITOR_IP = "10.0.3.1"
"""Of the client that asks when chaos is over."""


class Nemesis:
    """Does one of the plan's faults, now and then.

    :param inspector: knows all replicas.
    :ivar counts: what it has done.
    """

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        random: Random,
        trace: Trace,
        network: Network,
        machines: Sequence[Machine],
        clients: Sequence[ClientProcess | StockProcess],
        history: History,
        inspector: Inspector,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._clock = clock
        self._random = random
        self._trace = trace
        self._network = network
        self._machines = machines
        self._clients = clients
        self._history = history
        self._inspector = inspector
        self._strangers = 0
        self._away: list[Machine] = []
        self._is_over = False
        self._cuts = 0

    def begin(self) -> None:
        """Let chaos begin."""
        if self._plan.faults:
            self._later()

    def _later(self) -> None:
        seconds = 2 * self._plan.fault_seconds * self._random.random()
        self._clock.after(seconds, self._act)

    def _act(self, _: object) -> None:
        if not self._is_over:
            getattr(self, f"_{self._random.choice(self._plan.faults)}")()
            self._later()

    def _note(self, fault: str, who: str, what: object = "") -> None:
        self.counts[fault] += 1
        self._trace.add(fault, who, what)

    def _seconds(self, most: float) -> float:
        """Often short, seldom long."""
        return 0.02 + most * self._random.random() ** 2

    def _someone(self) -> Machine | None:
        """A machine that runs: often one that leads, for that is where it hurts."""
        running = [each for each in self._machines if each.is_up and not each.is_frozen]
        leading = self._leading()
        leaders = [each for each in running if each.name in leading]
        if leaders and self._random.random() < 0.3:
            running = leaders
        return self._random.choice(running) if running else None

    def _leading(self) -> set[str]:
        """The names of those who lead something."""
        groups = self._inspector.ledger.groups.values()
        return {each.leaders[max(each.leaders)] for each in groups if each.leaders}

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        """Do *action* then, unless chaos is over, which ends all that lasts."""
        self._clock.after(seconds, lambda _: None if self._is_over else action())

    # -- machines -------------------------------------------------------------------------------

    def _down(self, machine: Machine, seconds: float) -> None:
        how = self._random.choice(("killed", "killed", "reset", "power"))
        machine.crash(how)
        life = machine.life
        self._in(seconds, lambda: machine.start() if machine.life == life else None)

    def _crash(self) -> None:
        machine = self._someone()
        if machine is not None:
            seconds = self._seconds(4.0)
            self._note("crash", machine.name, round(seconds, 3))
            self._down(machine, seconds)

    def _power_cut(self) -> None:
        """All at once, and they come back in any order."""
        self._note("power_cut", "all")
        for machine in self._machines:
            if machine.is_up and self._random.random() < 0.9:
                self._down(machine, self._seconds(2.0))

    def _rolling_restart(self) -> None:
        """Each node is stopped in order and started again, one after the other."""
        self._note("rolling_restart", "all")
        self._roll(list(self._machines))

    def _roll(self, left: list[Machine]) -> None:
        if self._is_over or not left:
            return
        machine, rest = left[0], left[1:]

        def stopped() -> None:
            self._clock.after(self._seconds(0.5), started)

        def started(_: object) -> None:
            machine.start()
            if not self._is_over:
                self._in(self._seconds(2.0), lambda: self._roll(rest))

        machine.stop(stopped)

    def _freeze(self) -> None:
        machine = self._someone()
        if machine is not None:
            self._freeze_for(machine, self._seconds(4.0), "freeze")

    def _leader_freeze(self) -> None:
        """Long enough for another one to be elected: what waits in its sockets comes to one who
        believes to lead."""
        leading = self._leading()
        leaders = [each for each in self._machines if each.name in leading]
        running = [each for each in leaders if each.is_up and not each.is_frozen]
        if running:
            machine = self._random.choice(running)
            self._freeze_for(machine, 1.5 + self._seconds(2.0), "leader_freeze")

    def _freeze_for(self, machine: Machine, seconds: float, fault: str) -> None:
        self._note(fault, machine.name, round(seconds, 3))
        host = machine.host
        host.freeze()
        self._in(seconds, lambda: host.thaw() if host.is_frozen else None)

    def _slow_host(self) -> None:
        machine = self._someone()
        if machine is None:
            return
        host = machine.host
        host.slow_seconds = self._random.choice((0.001, 0.005, 0.02))
        self._note("slow_host", machine.name, host.slow_seconds)
        self._in(self._seconds(3.0), lambda: setattr(host, "slow_seconds", 0.0))

    # -- disks ----------------------------------------------------------------------------------

    def _disk_stall(self) -> None:
        machine = self._someone()
        if machine is not None:
            seconds = self._seconds(3.0)
            self._note("disk_stall", machine.name, round(seconds, 3))
            machine.disk.stalled_until = self._clock.now + seconds

    def _disk_failure(self) -> None:
        """The next commit fails; the node ends, and is started again with a disk that works."""
        machine = self._someone()
        if machine is not None and machine.disk.trouble is None:
            self._note("disk_failure", machine.name)
            machine.disk.trouble = failed()

    def _disk_full(self) -> None:
        machine = self._someone()
        if machine is None or machine.disk.trouble is not None:
            return
        seconds = self._seconds(5.0)
        self._note("disk_full", machine.name, round(seconds, 3))
        trouble = machine.disk.trouble = full()
        disk = machine.disk

        def has_room() -> None:
            if disk.trouble is trouble:
                disk.trouble = None

        self._in(seconds, has_room)

    # -- the network ----------------------------------------------------------------------------

    def _cut(self) -> None:
        """Between nodes, or between some nodes and some clients, somehow."""
        self._cuts += 1
        number = self._cuts
        ips = [each.ip for each in self._machines]
        if len(ips) < 2:
            return
        if self._random.random() < 0.2:
            shape = "clients"
            some = self._random.sample([*range(len(self._clients))], 1 + len(self._clients) // 2)
            nodes = self._random.sample(ips, self._random.randrange(1, len(ips) + 1))
            theirs = [self._clients[at].ip for at in some]
            cut = between(theirs, nodes)  # type: ignore[arg-type]
            if self._random.random() < 0.6:
                cut |= between(nodes, theirs)  # type: ignore[arg-type]
        else:
            shape = self._random.choice((*SHAPES, "deposition"))
            if shape == "deposition":
                leading = self._leading()
                alone = [each.ip for each in self._machines if each.name in leading][:1]
                rest = [ip for ip in ips if ip not in alone]
                cut = between(alone, rest) | between(rest, alone)  # type: ignore[arg-type]
            else:
                cut = SHAPES[shape](ips, self._random)  # type: ignore[arg-type]
        self._network.cut = cut  # type: ignore[assignment]
        self.counts["cut"] += 1
        self._note(f"cut: {shape}", "network", sorted(cut))
        self._in(self._seconds(5.0), lambda: self._mend(number))

    def _flapping_cut(self) -> None:
        """One that comes and goes."""
        self.counts["flapping_cut"] += 1
        for number in range(self._random.randrange(2, 8)):
            self._in(number * self._seconds(1.0), self._cut)

    def _mend(self, number: int) -> None:
        if number == self._cuts:
            self._network.cut = frozenset()
            self._trace.add("mend", "network")

    def _pair(self) -> tuple[str, str]:
        ips = [each.ip for each in (*self._machines, *self._clients)]
        one = self._random.choice([each.ip for each in self._machines])
        return one, self._random.choice([ip for ip in ips if ip != one])

    def _resets(self) -> None:
        """Connections between two hosts are reset, at both ends."""
        one, other = self._pair()
        self._note("resets", one, other)
        for line in self._network.lines(one, other):
            if self._random.random() < 0.7:
                line.is_dead = line.other.is_dead = True
                line.reset_soon()
                line.other.reset_soon()

    def _half_open(self) -> None:
        """Nothing arrives any more over a connection, in one direction or both."""
        one, other = self._pair()
        self._note("half_open", one, other)
        for line in self._network.lines(one, other):
            if self._random.random() < 0.7:
                line.is_dead = True
                line.other.is_dead = self._random.random() < 0.5

    def _late_packets(self) -> None:
        """For a while some packets are very late."""
        late = self._random.choice((0.05, 0.2, 0.5))
        links = replace(self._plan.links, late=late, late_seconds=self._seconds(1.0))
        self._note("late_packets", "network", late)
        self._network.links = links

        def calm() -> None:
            if self._network.links is links:
                self._network.links = self._plan.links

        self._in(self._seconds(3.0), calm)

    # -- clients --------------------------------------------------------------------------------

    def _client(self) -> ClientProcess | StockProcess | None:
        running = [each for each in self._clients if each.is_up and not each.host.is_frozen]
        return self._random.choice(running) if running else None

    def _client_crash(self) -> None:
        client = self._client()
        if client is not None:
            self._note("client_crash", client.name)
            client.crash()
            self._in(self._seconds(1.0), lambda: None if client.is_up else client.start())

    def _client_freeze(self) -> None:
        client = self._client()
        if client is not None:
            self._note("client_freeze", client.name)
            host, seconds = client.host, self._seconds(3.0)
            host.freeze()
            self._history.put_off(client.name, seconds)
            self._clock.after(seconds, lambda _: host.thaw())

    # -- what others do -------------------------------------------------------------------------

    def _stranger(self) -> None:
        """Somebody who is no member says what a replica would say (R11)."""
        machine, topology = self._someone(), self._inspector.ledger.topology
        if machine is None or topology is None:
            return
        messages = list(forged(self._inspector.present(machine.name)))
        if messages:
            self._strangers += 1
            self._note("stranger", machine.name, len(messages))
            stranger = Stranger(self._network, f"10.0.9.{self._strangers}", machine.address)
            stranger.say(bytes.fromhex(topology.cluster_id), messages)

    def _generation(self) -> None:
        """The membership of a partition changes, as far as requests can tell."""
        leading = self._inspector.leading()
        if leading:
            replica = self._random.choice(leading)
            generation = replica.generation
            self._note("generation", f"group {replica.group}", generation + 1)
            done = replica.propose(lambda ms: SetGeneration(ms, generation, generation + 1))
            done.addErrback(lambda failure: failure.trap(KvtwistError))

    # -- the end --------------------------------------------------------------------------------

    def stop(self) -> None:
        """No more faults; whoever is down comes back, whoever stands still goes on."""
        self._is_over = True
        self._network.cut = frozenset()
        self._network.links = replace(self._plan.links, late=0.0)
        self._trace.add("calm", "all")
        for machine in self._machines:
            disk = machine.disk
            disk.stalled_until = 0.0
            if not isinstance(disk.trouble, StoreFailed) or not machine.is_up:
                disk.trouble = None
            if machine.is_up:
                machine.host.slow_seconds = 0.0
                if machine.host.is_frozen:
                    machine.host.thaw()
            else:
                machine.start()
        for client in self._clients:
            if not client.is_up:
                client.start()

    def send_away(self) -> None:
        """A minority goes, so that every partition still has a majority, until `heal`."""
        few = (min(self._plan.replicas, len(self._machines)) - 1) // 2
        self._away = self._random.sample(list(self._machines), few)
        ips = [machine.ip for machine in self._away]
        rest = [machine.ip for machine in self._machines if machine not in self._away]
        if self._random.random() < 0.5:
            rest += [client.ip for client in self._clients] + [VISITOR_IP]
        how = self._random.choice(("dead", "dead", "frozen", "cut off", "deaf"))
        self._note(f"away: {how}", " ".join(machine.name for machine in self._away))
        if how == "dead":
            for machine in self._away:
                machine.crash(self._random.choice(("killed", "power")))
        elif how == "frozen":
            for machine in self._away:
                if machine.is_up:
                    machine.host.freeze()
        else:
            cut = between(rest, ips)  # type: ignore[arg-type]
            if how == "cut off":
                cut |= between(ips, rest)  # type: ignore[arg-type]
            self._network.cut = cut  # type: ignore[assignment]

    @property
    def is_minority_away(self) -> bool:
        """Whether some were away when all partitions had to serve."""
        return bool(self._away)

    def heal(self) -> None:
        """Everybody is back."""
        self._network.cut = frozenset()
        for machine in self._away:
            if not machine.is_up:
                machine.start()
            elif machine.host.is_frozen:
                machine.host.thaw()
