"""A run: who takes part, and who is measured when."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from _options import progress
from _peers import Missing, Peer, Start
from _processes import PeerFailed, Processes
from _report import Report
from _workload import Cell, Plan


def start_peers(
    report: Report, processes: Processes, start_kvtwist: Start, others: Mapping[str, Start]
) -> list[Peer]:
    """kvtwist and those of the others that can be started; why not, for those that cannot.

    :raises PeerFailed: when it is kvtwist that cannot.
    """
    peers = [start_kvtwist(processes)]
    for name, start in others.items():
        try:
            peers.append(start(processes))
        except (Missing, PeerFailed) as reason:
            report.absent[name] = str(reason)
            print(f"without {name}: {reason}", file=sys.stderr)
    return peers


class Run:
    """All measurements. A peer that fails once is left out from then on.

    kvtwist must not fail; where it does, `PeerFailed` is raised.
    """

    def __init__(self, report: Report, peers: list[Peer]) -> None:
        self._report = report
        self._peers = peers

    def measure_all(self) -> None:
        """Everything that is planned."""
        plan = self._report.plan
        for value_bytes in plan.value_bytes:
            for peer in list(self._peers):
                self._fill(peer, value_bytes)
            for number in range(-plan.warm_up_rounds, plan.rounds):
                self._measure_round(number, plan, value_bytes)
        progress("")

    def _measure_round(self, number: int, plan: Plan, value_bytes: int) -> None:
        """Each cell once for everybody, in turns; in the next round another one begins.

        A round with a negative number is for warming up.
        """
        for cell in plan.cells(value_bytes):
            where = f"round {number + 1} of {plan.rounds}, {cell.in_flight} in flight"
            progress(f"{value_bytes:,}-byte values, {where}")
            first = number % len(self._peers)
            for peer in [*self._peers[first:], *self._peers[:first]]:
                self._measure(peer, cell, plan.seconds, counts=number >= 0)

    def _fill(self, peer: Peer, value_bytes: int) -> None:
        try:
            peer.fill(value_bytes)
        except PeerFailed as reason:
            self._leave_out(peer, reason)

    def _measure(self, peer: Peer, cell: Cell, seconds: float, *, counts: bool) -> None:
        try:
            for series in peer.series:
                sample = peer.measure(series, cell, seconds)
                if sample is not None and counts:
                    self._report.samples.setdefault((series, cell), []).append(sample)
        except PeerFailed as reason:
            self._leave_out(peer, reason)

    def _leave_out(self, peer: Peer, reason: PeerFailed) -> None:
        if peer is self._peers[0]:
            raise reason
        self._peers.remove(peer)
        self._report.absent[peer.series[0]] = str(reason)
