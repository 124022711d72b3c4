"""What kind of run a seed is: everything that is drawn before the run begins.

Most runs have only some of the faults, and those often: a run with every fault all the time gets
nowhere, and shows less (Groce et al., "Swarm Testing", ISSTA 2012). Thresholds are low, so that
what is rare in life is common here (X3).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from kvtwist.core.raft import Settings
from tests.sim.schedule import TICK

SLOW_SYNC_MOMENTS = 12 * TICK

FAULTS = (
    "crash",
    "power_cut",
    "pause",
    "partition",
    "disk_stall",
    "disk_failure",
    "slow_applier",
    "loss_burst",
)
"""What the `tests.sim.faults.Nemesis` may do."""

OPERATIONS = ("membership", "transfer", "suspicion", "burst")
"""What the `tests.sim.operator.Operator` may do."""


@dataclass(frozen=True, slots=True)
class Links:
    """How the network treats messages.

    :ivar loss: share of messages that vanish.
    :ivar duplication: share that arrives twice.
    :ivar delay_moments: of a message that is lucky; drawn from 1 to here.
    :ivar late: share of messages that are as late as *late_moments*, behind many others.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay_moments: int = TICK // 4
    late: float = 0.0
    late_moments: int = 8 * TICK


@dataclass(frozen=True, slots=True)
class Disks:
    """How fast disks are.

    :ivar sync_moments: of a sync; drawn from 1 to here.
    :ivar slow: share of members whose disk takes `SLOW_SYNC_MOMENTS` instead.
    :ivar keeps_unsynced: share of crashes after which a part of what was not synced is there.
    :ivar keeps_state: the state machine's data is on the disk; else it starts from its last
        snapshot each time.
    """

    sync_moments: int = TICK // 4
    slow: float = 0.0
    keeps_unsynced: float = 0.5
    keeps_state: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """A run.

    :ivar voters: at the beginning, replicas 1 to here.
    :ivar chaos_ticks: for how long there are faults; then the world heals.
    :ivar faults: those of `FAULTS` that happen.
    :ivar fault_ticks: between two faults, on average.
    :ivar operations: those of `OPERATIONS` that happen.
    :ivar operation_ticks: between two of them, on average.
    :ivar heals: whether all partitions go at the end of the chaos; else only so much is healed that
        a majority is connected (R9).
    :ivar clock_error: how much faster or slower a member's clock may be.
    :ivar turn_moments: a member gathers what comes in for so long, at most, before it acts.
    :ivar snapshot_moments: how long it takes to make a snapshot for another member, at most.
    :ivar snapshot_entries: a member makes a snapshot after applying so many.
    :ivar tail_entries: so many entries are kept behind a snapshot (R14).
    :ivar clients: how many; each asks one thing at a time.
    :ivar think_ticks: a client's pause between two requests, at most.
    :ivar keys: how many there are.
    """

    seed: int
    voters: int = 3
    chaos_ticks: int = 300
    settings: Settings = field(default_factory=Settings)
    links: Links = field(default_factory=Links)
    disks: Disks = field(default_factory=Disks)
    faults: tuple[str, ...] = ()
    fault_ticks: int = 30
    operations: tuple[str, ...] = ()
    operation_ticks: int = 40
    heals: bool = True
    clock_error: float = 0.0
    turn_moments: int = 0
    snapshot_moments: int = 0
    snapshot_entries: int = 20
    tail_entries: int = 5
    clients: int = 3
    think_ticks: int = 12
    keys: int = 3


def _some(random: Random, of: tuple[str, ...], share: float) -> tuple[str, ...]:
    return tuple(each for each in of if random.random() < share)


def _settings(random: Random) -> Settings:
    check_quorum = random.random() < 0.93
    return Settings(
        election_timeout_ticks=10,
        heartbeat_ticks=random.choice((1, 2, 2, 3)),
        append_bytes_max=random.choice((1, 100, 400, 1 << 16)),
        inflight_messages_max=random.choice((1, 2, 4, 16)),
        inflight_bytes_max=random.choice((100, 1000, 1 << 20)),
        uncommitted_bytes_max=random.choice((200, 1000, 1 << 20)),
        apply_bytes_max=random.choice((1, 200, 1 << 16)),
        promotion_lag_entries_max=random.choice((2, 5, 20)),
        pre_vote=random.random() < 0.9,
        check_quorum=check_quorum,
        quiesce_after_ticks=random.choice((0, 0, 8, 20)),
    )


def _links(random: Random) -> Links:
    return Links(
        loss=random.choice((0.0, 0.02, 0.1, 0.3)) * random.random(),
        duplication=random.choice((0.0, 0.1)) * random.random(),
        delay_moments=random.choice((TICK // 10, TICK // 2, TICK, 2 * TICK)),
        late=random.choice((0.0, 0.0, 0.05, 0.2)) * random.random(),
        late_moments=random.choice((4, 15, 40)) * TICK,
    )


def draw(seed: int) -> Plan:
    """The run of *seed*."""
    random = Random(f"plan {seed}")
    clock_error = random.choice((0.0, 0.02, 0.2))
    faults = _some(random, FAULTS, 0.45)
    settings = _settings(random)
    # A lease trusts clocks to run equally fast, and ticks not to come late (R6).
    if settings.check_quorum and not clock_error and "pause" not in faults:
        settings = replace(settings, lease_reads=random.random() < 0.5)
    sparing = Random(f"sparing {seed}")
    settings = replace(
        settings,
        eager_commit=sparing.random() < 0.5,
        narrow_reads=sparing.random() < 0.5,
    )
    # Without check_quorum a leader that hears nobody stays: only full health is promised then.
    heals = random.random() < 0.8 or not (settings.check_quorum and settings.pre_vote)
    return Plan(
        seed=seed,
        voters=random.choices(range(1, 8), (3, 5, 40, 10, 30, 4, 8))[0],
        chaos_ticks=random.randrange(150, 450),
        settings=settings,
        links=_links(random),
        disks=Disks(
            sync_moments=random.choice((1, TICK // 4, TICK, 3 * TICK)),
            slow=random.choice((0.0, 0.0, 0.3)),
            keeps_unsynced=random.choice((0.0, 0.5, 1.0)),
            keeps_state=random.random() < 0.7,
        ),
        faults=faults,
        fault_ticks=random.choice((12, 25, 50)),
        operations=_some(random, OPERATIONS, 0.6),
        operation_ticks=random.choice((15, 30, 60)),
        heals=heals,
        clock_error=clock_error,
        turn_moments=random.choice((0, TICK // 10, TICK)),
        snapshot_moments=random.choice((0, 6 * TICK)),
        snapshot_entries=random.choice((8, 20, 40)),
        tail_entries=random.choice((0, 3, 10)),
        clients=random.randrange(2, 5),
        think_ticks=random.choice((4, 10, 20)),
        keys=random.randrange(1, 5),
    )
