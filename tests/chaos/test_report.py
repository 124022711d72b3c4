"""What a run's figures come to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.report import Report, counted, too_little
from tests.chaos.schedule import Fault, Kind
from tests.linearizability.history import Outcome
from tests.linearizability.written import got, not_swapped, put, swapped

SCHEDULE = (Fault(1, Kind.KILL, 1, (1,)), Fault(5, Kind.FREEZE, 1, (2,)))
HISTORY = [
    put("a", (1, 2), b"v", 1),
    got("b", (3, 4), 1, b"v"),
    swapped("a", (5, 6), 1, b"w", 2),
    not_swapped("a", (7, 8), 1, 2, b"w"),
]


def good() -> Report:
    """A run in which enough has happened, and nothing is wrong."""
    return Report(
        1,
        10.0,
        3,
        2,
        4,
        "not cut",
        operations=counted(HISTORY),
        answered_per_second=100.0,
        faults={Kind.KILL.value: 1, Kind.FREEZE.value: 1},
    )


class ReportTests(SynchronousTestCase):
    """X1: what has shown nothing must not look as if it had."""

    def test_passed(self) -> None:
        """With everything there."""
        report = good()
        report.too_little = too_little(report, SCHEDULE, HISTORY, 50)
        self.assertEqual((report.too_little, report.verdict), ([], "PASSED"))
        self.assertEqual(report.count(Outcome.ANSWERED), 4)
        self.assertTrue(str(report).endswith("PASSED"))

    def test_too_few_operations(self) -> None:
        """A cluster that was down all the time loses nothing."""
        self.assert_little("100 operations a second: 200", per_second_min=200)

    def test_too_few_faults(self) -> None:
        """A kind that never found its target is missing as well."""
        report = good()
        report.faults = {Kind.KILL.value: 1}
        report.too_little = too_little(report, SCHEDULE, HISTORY, 50)
        self.assertEqual(report.too_little, ["1 faults: 80% of 2", "no SIGSTOP of a node"])
        self.assertEqual(report.verdict, "INVALID")

    def test_no_faults_at_all(self) -> None:
        """An empty schedule is kept to perfectly."""
        report = good()
        report.faults = {}
        self.assertEqual(too_little(report, (), HISTORY, 50), ["0 faults: 80% of 0"])

    def test_no_snapshots(self) -> None:
        """A replica that was away for long must have been sent one, in a run that is long."""
        report = good()
        report.seconds = 180.0
        self.assertEqual(too_little(report, SCHEDULE, HISTORY, 50), ["no snapshot was taken"])
        report.snapshots = 1
        self.assertEqual(too_little(report, SCHEDULE, HISTORY, 50), [])

    def test_held_up(self) -> None:
        """While the clients' process stood still nobody has looked."""
        report = good()
        report.stalls_seconds = [0.4, 0.7]
        self.assertEqual(too_little(report, SCHEDULE, HISTORY, 50), ["held up for 1 s: 10%"])

    def test_no_conditions(self) -> None:
        """If each comparison fails, or none, half of them was not tried."""
        report, history = good(), HISTORY[:2] + HISTORY[3:]
        little = too_little(report, SCHEDULE, history, 50)
        self.assertEqual(little, ["no compare-and-set was done"])
        report.operations = counted(HISTORY[:3])
        little = too_little(report, SCHEDULE, HISTORY[:3], 50)
        self.assertEqual(little, ["no condition failed"])

    def test_failed(self) -> None:
        """However little there was: what is wrong is wrong."""
        for name in ("problems", "wrong"):
            report = good()
            getattr(report, name).append("something")
            report.too_little = ["something else"]
            self.assertEqual(report.verdict, "FAILED")
            self.assertEqual(report.as_json()["verdict"], "FAILED")

    def assert_little(self, said: str, per_second_min: float) -> None:
        """That exactly this is missing."""
        self.assertEqual(too_little(good(), SCHEDULE, HISTORY, per_second_min), [said])
