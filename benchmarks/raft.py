"""How fast the Raft core is, and what an idle group costs: ``python benchmarks/raft.py``.

No disk, no network: what is measured is the core alone, with every write acknowledged at once and
every message delivered in the next turn.
"""

from __future__ import annotations

import argparse
import gc
import tracemalloc
from collections.abc import Callable
from statistics import median
from time import process_time

from _machine import facts
from _pysyncobj import INSTALL, PySyncObj
from kvtwist.core.raft import Configuration, Message, Raft, Restored, Role, Settings

BATCHES = (1, 16, 64)
PAYLOAD = bytes(100)
ROUNDS = 5
COMPACT_EACH_ENTRIES = 5_000

PERIODS_SECONDS = (0.0, 0.0001, 0.0005)
"""How often PySyncObj sends what has come; the best of them counts."""

IDLE_GROUPS = 1_000
IDLE_TICKS = 1_000
TICK_SECONDS_MAX = 0.001
QUIESCE_AFTER_TICKS = 4


class Group:
    """Three replicas, and a queue between them."""

    def __init__(self, settings: Settings) -> None:
        configuration = Configuration((1, 2, 3))
        self.replicas = [
            Raft(replica, settings, Restored(configuration), (lambda: 0.0))
            for replica in configuration.voters
        ]
        self.inboxes: list[list[Message]] = [[], [], []]
        self.messages = 0
        self.leader = self.replicas[0]
        while self.leader.role is not Role.LEADER:
            self.leader.tick()
            self.turn()

    def turn(self) -> None:
        """A turn of each replica: take in all that has come, then do all that is due."""
        for at, raft in enumerate(self.replicas):
            inbox, self.inboxes[at] = self.inboxes[at], []
            for message in inbox:
                raft.step(message)
            while raft.has_ready():
                ready = raft.ready()
                for message in ready.messages:
                    self.inboxes[message.to - 1].append(message)
                self.messages += len(ready.messages)
                if ready.committed:
                    raft.applied(ready.committed[-1].index)
                raft.persisted(ready.number)

    def commit(self, payloads: list[bytes]) -> None:
        """Have *payloads* committed, and applied by the leader."""
        index = self.leader.last_index + len(payloads)
        self.leader.propose(payloads)
        while self.leader.applied_index < index:
            self.turn()
        if index - self.leader.first_index > COMPACT_EACH_ENTRIES:
            for raft in self.replicas:
                raft.compact(raft.applied_index)

    def fall_silent(self) -> None:
        """Let time pass until nothing happens any more."""
        while not all(raft.is_quiescent for raft in self.replicas):
            for raft in self.replicas:
                raft.tick()
            self.turn()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The Raft core: speed, and idle groups.")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement (0.5)")
    seconds = parser.parse_args().seconds
    for name, value in facts().items():
        if name != "twisted":
            print(f"{name:<12} {value}")
    print_proposals(seconds)
    print_idle()


def print_proposals(seconds: float) -> None:
    """Proposals per second, beside PySyncObj's if it is there."""
    ours = Group(Settings())
    peers = peers_installed()
    print("\nproposals/s, 3 replicas    kvtwist   PySyncObj   ratio   messages per batch")
    for batch in BATCHES:
        payloads = [PAYLOAD] * batch
        rates: list[float] = []
        peer_rates: list[list[float]] = [[] for _ in peers]
        sent, batches = ours.messages, 0
        for _ in range(ROUNDS):
            rate, count = measured(ours.commit, payloads, seconds)
            rates.append(rate)
            batches += count
            for peer, results in zip(peers, peer_rates, strict=True):
                results.append(measured(peer.commit, payloads, seconds)[0])
        best = max(map(median, peer_rates), default=0.0)
        rate = median(rates)
        beside = f"{best:12,.0f}{rate / best:8.1f}" if best else f"{'-':>12}{'-':>8}"
        each = (ours.messages - sent) / batches
        print(f"batches of {batch:>3}        {rate:12,.0f}{beside}{each:13.1f}")
    if not peers:
        print(INSTALL)


def peers_installed() -> list[PySyncObj]:
    """PySyncObj, with each of its settings; nobody, if it is not installed."""
    try:
        return [PySyncObj(period_seconds) for period_seconds in PERIODS_SECONDS]
    except ImportError:
        return []


def measured(
    commit: Callable[[list[bytes]], None], payloads: list[bytes], seconds: float
) -> tuple[float, int]:
    """Payloads per second of this process's own time, and how many batches that were.

    As in `timeit`, garbage is collected before instead of meanwhile: the others' logs would count.
    """
    gc.collect()
    gc.disable()
    batches = 0
    began = process_time()
    while (took := process_time() - began) < seconds:
        commit(payloads)
        batches += 1
    gc.enable()
    return batches * len(payloads) / took, batches


def print_idle() -> None:
    """What a thousand groups cost in which nothing happens."""
    settings = Settings(quiesce_after_ticks=QUIESCE_AFTER_TICKS)
    gc.collect()
    tracemalloc.start()
    before_bytes, _ = tracemalloc.get_traced_memory()
    groups = [Group(settings) for _ in range(IDLE_GROUPS)]
    for group in groups:
        group.fall_silent()
    gc.collect()
    after_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    replicas = [group.replicas[at % 3] for at, group in enumerate(groups)]
    sent = sum(group.messages for group in groups)
    ticks_seconds = []
    for _ in range(IDLE_TICKS):
        began = process_time()
        for raft in replicas:
            raft.tick()
        ticks_seconds.append(process_time() - began)
    for group in groups:
        group.turn()
    sent = sum(group.messages for group in groups) - sent
    tick_seconds = median(ticks_seconds)
    verdict = "under" if tick_seconds < TICK_SECONDS_MAX else "NOT UNDER"
    print(f"\n{IDLE_GROUPS:,} idle groups, one replica of each, {IDLE_TICKS:,} ticks")
    print(f"messages                  {sent}")
    print(f"a tick over all of them   {tick_seconds * 1e3:.3f} ms ({verdict} 1 ms)")
    print(f"memory of a replica       {(after_bytes - before_bytes) / IDLE_GROUPS / 3:,.0f} bytes")


if __name__ == "__main__":
    main()
