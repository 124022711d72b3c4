"""A leader whose disk does not come back: whom it makes room for, and whom it serves on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Raft, Restored, Role, Settings

SETTINGS = Settings()


class StalledDiskTests(SynchronousTestCase):
    def test_one_that_is_alone_is_read_on(self) -> None:
        """S2: there is nobody who could do better; what was committed is there, and can be read."""
        raft = Raft(1, SETTINGS, Restored(Configuration((1,))), lambda: 0.0)
        raft.campaign()
        while raft.has_ready():
            ready = raft.ready()
            raft.persisted(ready.number)
            if ready.committed:
                raft.applied(ready.committed[-1].index)
        self.assertIs(raft.role, Role.LEADER)
        raft.propose([b"never written"])
        raft.ready()
        for _ in range(5 * SETTINGS.election_timeout_ticks):
            raft.tick()
            while raft.has_ready():
                raft.ready()
        self.assertIsNone(raft.read_index(b"read"))
        (read,) = raft.ready().reads
        self.assertEqual((read.context, read.index), (b"read", 1))
