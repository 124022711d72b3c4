"""Campaigns: what is counted, what is kept, what makes them worthless."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from tests.sim.campaign import MINIMUM_PER_RUN, Batch, campaign, summary, too_little


class CampaignTests(SynchronousTestCase):
    """Many runs."""

    def setUp(self) -> None:
        """Have a place for a file."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "campaign.json"

    def test_resumed(self) -> None:
        """One that was stopped and goes on has the same figures as one that was not: else a
        failure of the first part would be forgotten."""
        whole = campaign(0, 8, 1, None, StringIO())
        campaign(0, 4, 1, self.path, StringIO())
        self.assertEqual(Batch.load(self.path).next_seed, 4)
        resumed = campaign(0, 8, 1, self.path, StringIO())
        self.assertEqual(resumed.counts, whole.counts)
        self.assertEqual(resumed.counts["runs"], 8)

    def test_failures_are_kept(self) -> None:
        """And shown, with what runs them again."""
        Batch(7, Counter(runs=6), {3: ("log_matching", "log_matching: no")}).save(self.path)
        text = summary(Batch.load(self.path))
        self.assertIn("FAILED seed 3: log_matching: no", text)
        self.assertIn("python -m tests.sim --seed 3 --trace", text)

    def test_too_little(self) -> None:
        """X1: a batch in which a kind of fault did not happen has shown nothing."""
        enough = Counter({name: int(each * 100) + 1 for name, each in MINIMUM_PER_RUN.items()})
        enough["runs"] = 100
        self.assertEqual(too_little(enough), [])
        for name in MINIMUM_PER_RUN:
            self.assertEqual(len(too_little(enough - Counter({name: enough[name]}))), 1, name)
