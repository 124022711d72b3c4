"""The core's values, as they cross the wire."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.founding import FoundingRecord, View
from kvtwist.core.topology import Member, Settings
from kvtwist.wire.values import read_view, write_view

ME = Member("node-1", "1" * 32, Address("10.0.0.1", 8001))
SETTINGS = Settings(partitions=16, durable=True)
RECORD = FoundingRecord((ME,), SETTINGS)
VIEWS = [
    View(ME, (ME.address,), SETTINGS),
    View(ME, (ME.address,), SETTINGS, restored="ab" * 32),
    View(ME, (ME.address,), SETTINGS, RECORD.cluster_id, RECORD),
]


class ViewTests(SynchronousTestCase):
    """A founder's view."""

    def test_there_and_back(self) -> None:
        """Founders would agree on something else than was said."""
        for view in VIEWS:
            self.assertEqual(read_view(write_view(view)), view)

    def test_a_founder_that_does_not_say_what_it_was_restored_from(self) -> None:
        """It was not, as far as it knows: the argument came later than the command."""
        said = write_view(VIEWS[1]) | {"restored": None}
        self.assertEqual(read_view(said), VIEWS[0])
