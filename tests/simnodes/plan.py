"""What kind of run a seed is: everything that is drawn before the run begins.

Most runs have only some of the faults, and those often: see `tests.sim.plan`. Thresholds are low,
so that what is rare in life is common here (X3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

FAULTS = (
    "crash",
    "power_cut",
    "rolling_restart",
    "freeze",
    "leader_freeze",
    "slow_host",
    "cut",
    "flapping_cut",
    "resets",
    "half_open",
    "late_packets",
    "disk_stall",
    "disk_failure",
    "disk_full",
    "client_crash",
    "client_freeze",
    "stranger",
    "generation",
)
"""What the `tests.simnodes.faults.Nemesis` may do."""


@dataclass(frozen=True, slots=True)
class Links:
    """How the network treats connections.

    :ivar delay_seconds: of a packet, about.
    :ivar late: share of packets that are late, by up to *late_seconds*.
    :ivar bytes_per_second: of each direction of each connection.
    """

    delay_seconds: float = 0.0005
    late: float = 0.0
    late_seconds: float = 0.0
    bytes_per_second: float = float("inf")


@dataclass(frozen=True, slots=True)
class Disks:
    """How fast disks are.

    :ivar sync_seconds: of a commit, about.
    :ivar read_seconds: of what is not in memory, about.
    :ivar cold: share of look-ups that are not.
    """

    sync_seconds: float = 0.002
    read_seconds: float = 0.001
    cold: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    :ivar nodes: how many.
    :ivar replicas: wanted of each partition.
    :ivar chaos_seconds: for how long there are faults; then all heals.
    :ivar faults: those of `FAULTS` that happen.
    :ivar fault_seconds: between two faults, on average.
    :ivar heals: whether all come back before every partition must serve again; else a minority
        stays away: dead, frozen or cut off (R9).
    :ivar falls_silent: whether nobody asks for anything before that, so that groups fall silent.
    :ivar clock_error: how much faster or slower a host's clock may be.
    :ivar log_entries_max: of a group's log, before it is compacted.
    :ivar log_held_times: how much longer a log may get for the sake of slow replicas.
    :ivar snapshot_piece_bytes: of the pieces that snapshots are sent and written in.
    :ivar session_idle_ms: of clients' sessions.
    :ivar quiesce_ticks: after which an idle group falls silent; 0: never.
    :ivar clients: how many processes; each has *lanes* that ask one thing at a time.
    :ivar stock_clients: how many more, that speak stock AMP and never repeat anything.
    :ivar think_seconds: a lane's pause between two requests, about.
    :ivar timeouts_seconds: of clients, by turns.
    :ivar keys: how many there are.
    :ivar counters: how many more, that are counted up and down.
    :ivar value_bytes: of the longest values.
    :ivar recent_bytes: of the records of a group that a node keeps in memory.
    """

    seed: int
    nodes: int = 3
    partitions: int = 4
    replicas: int = 3
    chaos_seconds: float = 10.0
    links: Links = field(default_factory=Links)
    disks: Disks = field(default_factory=Disks)
    faults: tuple[str, ...] = ()
    fault_seconds: float = 1.0
    heals: bool = True
    falls_silent: bool = False
    clock_error: float = 0.0
    log_entries_max: int = 20
    log_held_times: int = 4
    snapshot_piece_bytes: int = 1000
    session_idle_ms: int = 600_000
    quiesce_ticks: int = 20
    clients: int = 3
    lanes: int = 2
    stock_clients: int = 1
    think_seconds: float = 0.1
    timeouts_seconds: tuple[float, ...] = (5.0, 1.0)
    keys: int = 6
    counters: int = 2
    value_bytes: int = 100
    recent_bytes: int = 2000


def draw(seed: int) -> Plan:
    """The run of *seed*."""
    random = Random(f"plan {seed}")
    nodes = random.choices((3, 4, 5, 7), (60, 10, 25, 5))[0]
    share = random.choice((0.2, 0.4, 0.6))
    return Plan(
        seed=seed,
        nodes=nodes,
        partitions=random.choice((1, 1, 2, 2, 4, 8)),
        replicas=random.choices((1, 3, 5), (5, 75, 20))[0],
        chaos_seconds=random.choice((6.0, 10.0, 15.0)),
        links=Links(
            delay_seconds=random.choice((0.0001, 0.0005, 0.005)),
            late=random.choice((0.0, 0.0, 0.02)),
            late_seconds=random.choice((0.05, 0.5)),
            bytes_per_second=random.choice((float("inf"), 1e6, 1e7)),
        ),
        disks=Disks(
            sync_seconds=random.choice((0.0005, 0.002, 0.01)),
            read_seconds=random.choice((0.0005, 0.005)),
            cold=random.choice((0.0, 0.3, 0.3, 1.0)),
        ),
        faults=tuple(each for each in FAULTS if random.random() < share),
        fault_seconds=random.choice((0.4, 1.0, 2.0)),
        heals=random.random() < 0.6,
        falls_silent=random.random() < 0.6,
        clock_error=random.choice((0.0, 0.0, 0.02, 0.05)),
        log_entries_max=random.choice((4, 8, 30)),
        log_held_times=random.choice((1, 1, 4)),
        snapshot_piece_bytes=random.choice((100, 1000, 1 << 18)),
        session_idle_ms=random.choice((600, 5_000, 600_000)),
        quiesce_ticks=random.choice((0, 10, 10, 20)),
        clients=random.randrange(1, 4),
        lanes=random.choice((1, 2, 3)),
        stock_clients=random.choice((1, 2, 3)),
        think_seconds=random.choice((0.02, 0.05, 0.2)),
        timeouts_seconds=random.choice(((5.0,), (5.0, 1.0), (2.0, 0.3))),
        keys=random.choice((2, 4, 8)),
        counters=random.choice((1, 1, 2)),
        value_bytes=random.choice((20, 20, 300, 3000)),
        recent_bytes=random.choice((0, 2000, 1 << 20)),
    )
