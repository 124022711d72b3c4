"""Settings that cannot work are refused when they are made, not in the night."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Settings


class SettingsTests(SynchronousTestCase):
    """At each limit, one step to either side."""

    def test_defaults(self) -> None:
        """They fit each other, and are the safe ones: leases are off (R6)."""
        settings = Settings()
        self.assertTrue(settings.pre_vote and settings.check_quorum)
        self.assertFalse(settings.lease_reads)

    def test_heartbeats_come_before_elections(self) -> None:
        """Else every leader would be challenged between two heartbeats."""
        Settings(heartbeat_ticks=9, election_timeout_ticks=10)
        self.assertRaises(ValueError, Settings, heartbeat_ticks=10, election_timeout_ticks=10)
        Settings(heartbeat_ticks=1)
        self.assertRaises(ValueError, Settings, heartbeat_ticks=0)

    def test_leases_need_check_quorum(self) -> None:
        """R6: else a follower elects another leader while the lease runs: a stale read."""
        Settings(lease_reads=True)
        self.assertRaises(ValueError, Settings, lease_reads=True, check_quorum=False)

    def test_lease_is_a_part_of_the_timeout(self) -> None:
        """R6: a lease has a length, and is shorter than a follower's patience: its ticks may come
        right after a heartbeat, so that it has waited ten when nine have passed."""
        for ticks in (1, 9):
            Settings(lease_drift_ticks=ticks)
        for ticks in (-1, 0, 10):
            self.assertRaises(ValueError, Settings, lease_drift_ticks=ticks)

    def test_bounds_let_something_through(self) -> None:
        """A limit of 0 would stop a group for ever."""
        for settings in (
            lambda limit: Settings(append_bytes_max=limit),
            lambda limit: Settings(inflight_messages_max=limit),
            lambda limit: Settings(inflight_bytes_max=limit),
            lambda limit: Settings(uncommitted_bytes_max=limit),
            lambda limit: Settings(apply_bytes_max=limit),
        ):
            settings(1)
            self.assertRaises(ValueError, settings, 0)

    def test_never_and_not_at_all(self) -> None:
        """Less than nothing would fall silent at once, or promote nobody."""
        Settings(quiesce_after_ticks=0, promotion_lag_entries_max=0)
        self.assertRaises(ValueError, Settings, quiesce_after_ticks=-1)
        self.assertRaises(ValueError, Settings, promotion_lag_entries_max=-1)
