"""What happens when, drawn from a seed.

**In**: a seed, how long, how many nodes and partitions, whether the network can be cut. **Out**: a
`Schedule`, a tuple of `Fault`s in the order of their beginnings. The same arguments give the same
schedule. Nodes are numbers from 1 on; 0 is the host that the clients are on.

There are two *tracks*, processes and network, each with one fault after another and a calm between
them; a fault of one often meets one of the other. The kinds of a track come in shuffled rounds, so
that a run of a few minutes has all of them.

Who leads is not known beforehand. Such faults name partitions; their leaders are the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

CLIENTS = 0
"""The host that the clients are on, among the nodes' numbers."""

Pair = tuple[int, int]
"""From where to where nothing comes through."""


class Kind(Enum):
    """What is done."""

    KILL = "kill -9 of a node"
    KILL_LEADER = "kill -9 of a leader"
    KILL_LEADERS = "kill -9 of the leaders of several partitions"
    KILL_MAJORITY = "kill -9 of a majority"
    KILL_ALL = "kill -9 of all nodes"
    KILL_AGAIN = "kill -9 again while it starts"
    FREEZE = "SIGSTOP of a node"
    FREEZE_LEADER = "SIGSTOP of a leader"
    FREEZE_MAJORITY = "SIGSTOP of a majority"
    RESTART = "restart with SIGTERM"
    RESTART_ROLLING = "rolling restart"
    ISOLATE = "network: a node is alone"
    ISOLATE_LEADER = "network: a leader is alone"
    SPLIT = "network: in two"
    BRIDGE = "network: two halves and a bridge"
    RING = "network: a ring"
    DEAF = "network: a node hears no other"
    MUTE = "network: no other hears a node"
    PAIR = "network: between two nodes"
    PAIR_ONE_WAY = "network: between two nodes, one way"
    CLIENTS_CUT = "network: between the clients and a node"


KILLS = (
    Kind.KILL,
    Kind.KILL_LEADER,
    Kind.KILL_LEADERS,
    Kind.KILL_MAJORITY,
    Kind.KILL_ALL,
    Kind.KILL_AGAIN,
)
FREEZES = (Kind.FREEZE, Kind.FREEZE_LEADER, Kind.FREEZE_MAJORITY)
RESTARTS = (Kind.RESTART, Kind.RESTART_ROLLING)
PROCESSES = (*KILLS, *FREEZES, *RESTARTS)
NETWORK = tuple(kind for kind in Kind if kind not in PROCESSES)

_SECONDS: dict[Kind, tuple[float, float]] = {
    Kind.KILL_MAJORITY: (0.5, 4.0),
    Kind.KILL_ALL: (0.0, 1.5),
    Kind.KILL_AGAIN: (0.1, 2.0),
    Kind.FREEZE_MAJORITY: (0.5, 4.0),
    Kind.RESTART: (0.0, 2.0),
    Kind.RESTART_ROLLING: (0.3, 1.0),
}
"""How long such a fault lasts; of a rolling restart, the pause between two nodes."""
_PROCESS_SECONDS = (0.1, 6.0)
_NETWORK_SECONDS = (1.0, 9.0)
_CALM_SECONDS = (1.0, 4.0)
_START_SECONDS = 1.5
"""About how long a process needs to start: so much later its track goes on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens.

    ``at_seconds``: after the load began. ``seconds``: how long, until it is taken back. ``nodes``:
    whom it happens to. ``partitions``: it happens to those who lead these. ``cuts``: what the
    network loses; with ``partitions``, all there is between their leaders and the other nodes.
    """

    at_seconds: float
    kind: Kind
    seconds: float
    nodes: tuple[int, ...] = ()
    partitions: tuple[int, ...] = ()
    cuts: frozenset[Pair] = frozenset()

    def __str__(self) -> str:
        words = [f"{self.at_seconds:7.2f} s  {self.kind.value}, {self.seconds:.2f} s"]
        if self.nodes:
            words.append("nodes " + ", ".join(map(str, self.nodes)))
        if self.partitions:
            words.append("partitions " + ", ".join(map(str, self.partitions)))
        if self.cuts:
            words.append(" ".join(f"{a}>{b}" for a, b in sorted(self.cuts)))
        return "; ".join(words)


Schedule = tuple[Fault, ...]


def draw(
    seed: int,
    seconds: float,
    nodes: int,
    partitions: int,
    *,
    has_network: bool,
    kinds: Sequence[Kind] = tuple(Kind),
) -> Schedule:
    """The faults of a run; all of them are over after *seconds*.

    :param has_network: whether the network can be cut.
    :param kinds: which there may be.
    """
    drawn = _Drawn(nodes, partitions)
    tracks = [(f"processes {seed}", [kind for kind in PROCESSES if kind in kinds])]
    if has_network:
        tracks.append((f"network {seed}", [kind for kind in NETWORK if kind in kinds]))
    faults = [
        fault for name, those in tracks for fault in drawn.track(Random(name), those, seconds)
    ]
    return tuple(sorted(faults, key=lambda fault: fault.at_seconds))


class _Drawn:
    """Draws the faults of a cluster."""

    def __init__(self, nodes: int, partitions: int) -> None:
        self._nodes = range(1, nodes + 1)
        self._partitions = range(partitions)

    def track(self, random: Random, kinds: Sequence[Kind], seconds: float) -> list[Fault]:
        """One fault after another."""
        faults: list[Fault] = []
        at = random.uniform(*_CALM_SECONDS)
        bag: list[Kind] = []
        while kinds:
            bag = bag or random.sample(kinds, len(kinds))
            fault = self._fault(random, at, bag.pop())
            end = at + self._lasts(fault)
            if end > seconds:
                break
            faults.append(fault)
            at = end + random.uniform(*_CALM_SECONDS)
        return faults

    def _lasts(self, fault: Fault) -> float:
        """How long it takes, about, until all is as it was."""
        if fault.kind is Kind.RESTART_ROLLING:
            return len(self._nodes) * (_START_SECONDS + fault.seconds)
        starts = fault.kind in KILLS or fault.kind in RESTARTS
        return fault.seconds + (_START_SECONDS if starts else 0.0)

    def _fault(self, random: Random, at: float, kind: Kind) -> Fault:
        usual = _PROCESS_SECONDS if kind in PROCESSES else _NETWORK_SECONDS
        seconds = random.uniform(*_SECONDS.get(kind, usual))
        nodes: tuple[int, ...] = ()
        partitions: tuple[int, ...] = ()
        cuts: frozenset[Pair] = frozenset()
        match kind:
            case Kind.KILL | Kind.KILL_AGAIN | Kind.FREEZE | Kind.RESTART:
                nodes = self._some(random, 1)
            case Kind.KILL_MAJORITY | Kind.FREEZE_MAJORITY:
                nodes = self._some(random, len(self._nodes) // 2 + 1)
            case Kind.KILL_ALL | Kind.RESTART_ROLLING:
                nodes = self._some(random, len(self._nodes))
            case Kind.KILL_LEADER | Kind.FREEZE_LEADER | Kind.ISOLATE_LEADER:
                partitions = tuple(random.sample(self._partitions, 1))
            case Kind.KILL_LEADERS:
                partitions = tuple(random.sample(self._partitions, min(4, len(self._partitions))))
            case _:
                cuts = self._cuts(random, kind)
        return Fault(at, kind, seconds, nodes, partitions, cuts)

    def _some(self, random: Random, count: int) -> tuple[int, ...]:
        return tuple(random.sample(self._nodes, count))

    def _cuts(self, random: Random, kind: Kind) -> frozenset[Pair]:
        order = self._some(random, len(self._nodes))
        first, second, half = order[0], order[1], len(order) // 2
        match kind:
            case Kind.ISOLATE:
                return isolation(first, self._nodes)
            case Kind.SPLIT:
                return between(order[:half], order[half:])
            case Kind.BRIDGE:
                return between(order[1 : half + 1], order[half + 1 :])
            case Kind.RING:
                return self._ring(order)
            case Kind.DEAF:
                return self._where(lambda a, b: b == first)
            case Kind.MUTE:
                return self._where(lambda a, b: a == first)
            case Kind.PAIR:
                return between([first], [second])
            case Kind.PAIR_ONE_WAY:
                return frozenset([(first, second)])
            case Kind.CLIENTS_CUT:
                both = between([CLIENTS], [first])
                one_way = [frozenset([pair]) for pair in sorted(both)]
                return random.choice([both, *one_way])
        raise AssertionError(f"unreachable: {kind} is not of the network")

    def _ring(self, order: tuple[int, ...]) -> frozenset[Pair]:
        """Each has its two neighbours; of three nodes, two have one."""
        place = {node: at for at, node in enumerate(order)}
        steps = (1,) if len(order) == 3 else (1, len(order) - 1)
        return self._where(lambda a, b: abs(place[a] - place[b]) not in steps)

    def _where(self, is_cut: Callable[[int, int], bool]) -> frozenset[Pair]:
        return frozenset(
            (a, b) for a in self._nodes for b in self._nodes if a != b and is_cut(a, b)
        )


def between(some: Sequence[int], others: Sequence[int]) -> frozenset[Pair]:
    """All that goes from *some* to *others*, and back."""
    return frozenset(pair for a in some for b in others for pair in ((a, b), (b, a)))


def isolation(node: int, nodes: Sequence[int]) -> frozenset[Pair]:
    """All there is between *node* and the other *nodes*; the clients still reach it."""
    return between([node], [other for other in nodes if other != node])
