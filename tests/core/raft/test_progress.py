"""What a leader knows of a follower: every way from one state to another, and what is stale."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft.progress import Progress, Sending


def probing(next_index: int = 11) -> Progress:
    """As a new leader begins."""
    return Progress(next_index, 3, 100)


def replicating(match: int = 10) -> Progress:
    """Of a follower whose log is known up to *match*."""
    progress = probing(match + 1)
    progress.accepted(match)
    return progress


def in_snapshot(match: int = 0, index: int = 20) -> Progress:
    """Of a follower to which a snapshot is under way."""
    progress = probing(match + 1)
    if match:
        progress.accepted(match)
    progress.need_snapshot()
    progress.pending_snapshot_index = index
    return progress


class ProbeTests(SynchronousTestCase):
    """It is not known yet where the logs agree."""

    def test_one_at_a_time(self) -> None:
        """One message, then wait: a follower that is down is not flooded."""
        progress = probing()
        self.assertTrue(progress.may_send)
        progress.sent(15, 50)
        self.assertFalse(progress.may_send)
        self.assertEqual((progress.next, progress.inflight), (11, (0, 0)))

    def test_heartbeat_allows_another(self) -> None:
        """A probe that was lost is sent again when the follower is heard of."""
        progress = probing()
        progress.sent(15, 50)
        progress.is_active = False
        progress.heard()
        self.assertTrue(progress.may_send and progress.is_active)

    def test_accepted(self) -> None:
        """PROBE to REPLICATE, from right after what was accepted."""
        progress = probing()
        progress.sent(15, 50)
        self.assertTrue(progress.accepted(15))
        self.assertIs(progress.sending, Sending.REPLICATE)
        self.assertEqual((progress.match, progress.next), (15, 16))
        self.assertTrue(progress.may_send)

    def test_rejected(self) -> None:
        """Back to where the logs may still agree."""
        progress = probing()
        progress.sent(10, 0)
        self.assertTrue(progress.rejected(10, 6))
        self.assertEqual(progress.next, 7)
        self.assertTrue(progress.may_send)

    def test_rejected_always_goes_back(self) -> None:
        """By one at least, whatever the hint says; never to 0 or below."""
        progress = probing()
        self.assertTrue(progress.rejected(10, 99))
        self.assertEqual(progress.next, 10)
        self.assertTrue(progress.rejected(9, -5))
        self.assertEqual(progress.next, 1)

    def test_stale_rejection(self) -> None:
        """A rejection of another probe than the last one changes nothing (R12)."""
        progress = probing()
        progress.rejected(10, 6)
        progress.sent(6, 0)
        self.assertFalse(progress.rejected(10, 2))
        self.assertEqual(progress.next, 7)
        self.assertFalse(progress.may_send)

    def test_rejection_of_what_is_known(self) -> None:
        """Not below what the follower has acknowledged: that is durable there (R12)."""
        progress = replicating(10)
        progress.probe()
        progress.rejected(10, 3)
        self.assertEqual((progress.match, progress.next), (10, 11))

    def test_stale_acceptance(self) -> None:
        """An old one neither lowers the match nor skips entries (R12)."""
        progress = replicating(10)
        progress.probe()
        self.assertFalse(progress.accepted(4))
        self.assertEqual((progress.match, progress.next), (10, 11))


class ReplicateTests(SynchronousTestCase):
    """The logs agree: one message after another."""

    def test_optimistic(self) -> None:
        """The next message follows without an answer to the last one."""
        progress = replicating()
        progress.sent(13, 30)
        self.assertEqual((progress.match, progress.next, progress.inflight), (10, 14, (1, 30)))
        self.assertTrue(progress.may_send)

    def test_empty_message(self) -> None:
        """One without entries takes no room."""
        progress = replicating()
        progress.sent(10, 0)
        self.assertEqual((progress.next, progress.inflight), (11, (0, 0)))

    def test_acceptance_frees_all_before_it(self) -> None:
        """An answer that was lost is made good by a later one."""
        progress = replicating()
        for last in (11, 12, 13):
            progress.sent(last, 10)
        self.assertFalse(progress.may_send)
        self.assertTrue(progress.accepted(12))
        self.assertEqual((progress.match, progress.next, progress.inflight), (12, 14, (1, 10)))

    def test_acceptance_of_more_than_was_sent(self) -> None:
        """A follower may have more than this leader knows of: no need to send it."""
        progress = replicating()
        progress.sent(11, 10)
        progress.accepted(19)
        self.assertEqual((progress.match, progress.next, progress.inflight), (19, 20, (0, 0)))

    def test_repeated_acceptance(self) -> None:
        """It is no news, and frees nothing that was sent since."""
        progress = replicating()
        progress.sent(12, 10)
        progress.accepted(12)
        progress.sent(13, 10)
        self.assertFalse(progress.accepted(12))
        self.assertEqual((progress.match, progress.next, progress.inflight), (12, 14, (1, 10)))

    def test_rejected(self) -> None:
        """REPLICATE to PROBE, from what is known; nothing counts as under way."""
        progress = replicating()
        progress.sent(13, 30)
        self.assertTrue(progress.rejected(13, 12))
        self.assertIs(progress.sending, Sending.PROBE)
        self.assertEqual((progress.match, progress.next, progress.inflight), (10, 11, (0, 0)))
        self.assertTrue(progress.may_send)

    def test_stale_rejection(self) -> None:
        """What was rejected has been accepted since (R12)."""
        progress = replicating()
        self.assertFalse(progress.rejected(10, 2))
        self.assertIs(progress.sending, Sending.REPLICATE)

    def test_compacted(self) -> None:
        """To SNAPSHOT: nothing is sent, and nothing counts as under way."""
        progress = replicating()
        progress.sent(13, 30)
        progress.need_snapshot()
        self.assertIs(progress.sending, Sending.SNAPSHOT)
        self.assertEqual(progress.inflight, (0, 0))
        self.assertFalse(progress.may_send)


class SnapshotTests(SynchronousTestCase):
    """What the follower needs is compacted."""

    def test_silence(self) -> None:
        """Neither heartbeats nor late answers start sending again."""
        progress = in_snapshot()
        progress.heard()
        self.assertFalse(progress.rejected(0, 0))
        self.assertFalse(progress.may_send)

    def test_arrived(self) -> None:
        """To PROBE, from right after the snapshot."""
        progress = in_snapshot(index=20)
        progress.probe()
        self.assertIs(progress.sending, Sending.PROBE)
        self.assertEqual((progress.match, progress.next), (0, 21))
        self.assertEqual(progress.pending_snapshot_index, 0)

    def test_arrived_but_more_is_known(self) -> None:
        """Never back behind what was acknowledged meanwhile."""
        progress = in_snapshot(match=5, index=20)
        progress.accepted(25)
        self.assertIs(progress.sending, Sending.SNAPSHOT)
        progress.probe()
        self.assertEqual((progress.match, progress.next), (25, 26))

    def test_next_follows_match(self) -> None:
        """The invariant holds in this state too."""
        progress = in_snapshot(match=5)
        progress.accepted(30)
        self.assertEqual((progress.match, progress.next), (30, 31))
