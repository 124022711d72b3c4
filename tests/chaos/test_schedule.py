"""The schedules of campaigns: a seed is a schedule, and it has what was asked for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.schedule import (
    CLIENTS,
    FREEZES,
    KILLS,
    NETWORK,
    PROCESSES,
    RESTARTS,
    Fault,
    Kind,
    Pair,
    between,
    draw,
    isolation,
)

SEEDS = range(40)


class ScheduleTests(SynchronousTestCase):
    """What is drawn."""

    def test_a_seed_is_a_schedule(self) -> None:
        """Else nobody could do the same to the cluster once more."""
        for seed in SEEDS:
            one, same, other = (draw(s, 180, 5, 16, has_network=True) for s in (seed, seed, -1))
            self.assertEqual(one, same)
            self.assertNotEqual(one, other)

    def test_all_kinds_in_three_minutes(self) -> None:
        """X1: a campaign that never kills a majority, say, would pass where that loses data."""
        for seed in SEEDS:
            kinds = {fault.kind for fault in draw(seed, 180, 5, 16, has_network=True)}
            self.assertEqual(kinds, {*Kind}, seed)

    def test_every_kind_is_of_one_track(self) -> None:
        """A kind of none would never be drawn."""
        self.assertEqual({*Kind}, {*KILLS, *FREEZES, *RESTARTS, *NETWORK})
        self.assertEqual(len(Kind), len(PROCESSES) + len(NETWORK))

    def test_only_what_was_asked_for(self) -> None:
        """Else ``--faults`` and ``--no-netns`` would not keep their word."""
        chosen = (Kind.KILL, Kind.SPLIT)
        with_network = draw(1, 100, 5, 16, has_network=True, kinds=chosen)
        self.assertEqual({fault.kind for fault in with_network}, {*chosen})
        without = draw(1, 100, 5, 16, has_network=False, kinds=chosen)
        self.assertEqual({fault.kind for fault in without}, {Kind.KILL})
        self.assertEqual(draw(1, 100, 5, 16, has_network=False, kinds=[Kind.SPLIT]), ())

    def test_one_after_another(self) -> None:
        """Two faults of one track at once would start a node that runs, or heal another's cut."""
        for seed in SEEDS:
            for track in (PROCESSES, NETWORK):
                end = 0.0
                for fault in draw(seed, 180, 5, 16, has_network=True):
                    if fault.kind in track:
                        self.assertGreater(fault.at_seconds, end)
                        end = fault.at_seconds + fault.seconds
                self.assertLess(end, 180)

    def test_targets(self) -> None:
        """A fault without a target is none; a majority that is none tests nothing."""
        for seed in SEEDS:
            for nodes in (3, 5):
                for fault in draw(seed, 120, nodes, 8, has_network=True):
                    self.assert_targets(fault, nodes)

    def assert_targets(self, fault: Fault, nodes: int) -> None:
        """Of one fault."""
        numbers = range(1, nodes + 1)
        self.assertTrue(fault.nodes or fault.partitions or fault.cuts, fault)
        self.assertLessEqual({*fault.nodes}, {*numbers})
        self.assertEqual(len({*fault.nodes}), len(fault.nodes))
        self.assertLessEqual({*fault.partitions}, {*range(8)})
        for a, b in fault.cuts:
            self.assertNotEqual(a, b)
            self.assertLessEqual({a, b}, {CLIENTS, *numbers})
        if fault.kind in (Kind.KILL_MAJORITY, Kind.KILL_ALL, Kind.FREEZE_MAJORITY):
            self.assertGreater(len(fault.nodes), nodes // 2)

    def test_cuts(self) -> None:
        """Each shape is what it is called: else a bridge may be a split, and R9 goes untested."""
        for seed in SEEDS:
            for nodes in (3, 5):
                for fault in draw(seed, 300, nodes, 8, has_network=True):
                    if fault.cuts:
                        self.assert_shape(fault, nodes)

    def assert_shape(self, fault: Fault, nodes: int) -> None:
        """How many connections are whole, for each node, in order."""
        cuts, numbers = fault.cuts, range(1, nodes + 1)
        heard = sorted(len(whole_to(node, cuts, nodes)) for node in numbers)
        shapes = {
            Kind.ISOLATE: [0, *[nodes - 2] * (nodes - 1)],
            Kind.SPLIT: [0, 1, 1] if nodes == 3 else [1, 1, 2, 2, 2],
            Kind.BRIDGE: [1, 1, 2] if nodes == 3 else [2, 2, 2, 2, 4],
            Kind.RING: [1, 1, 2] if nodes == 3 else [2] * 5,
            Kind.DEAF: [0, *[nodes - 1] * (nodes - 1)],
            Kind.MUTE: [*[nodes - 2] * (nodes - 1), nodes - 1],
            Kind.PAIR: [*[nodes - 2] * 2, *[nodes - 1] * (nodes - 2)],
            Kind.PAIR_ONE_WAY: [nodes - 2, *[nodes - 1] * (nodes - 1)],
            Kind.CLIENTS_CUT: [nodes - 1] * nodes,
        }
        self.assertEqual(heard, shapes[fault.kind], fault)
        is_with_clients = any(CLIENTS in pair for pair in cuts)
        self.assertEqual(is_with_clients, fault.kind is Kind.CLIENTS_CUT)

    def test_pairs(self) -> None:
        """Both ways, and nothing else."""
        self.assertEqual(between([1], [2, 3]), {(1, 2), (2, 1), (1, 3), (3, 1)})
        self.assertEqual(isolation(2, range(1, 4)), {(1, 2), (2, 1), (2, 3), (3, 2)})


def whole_to(node: int, cuts: frozenset[Pair], nodes: int) -> set[int]:
    """The nodes that *node* hears."""
    return {a for a in range(1, nodes + 1) if a != node and (a, node) not in cuts}
