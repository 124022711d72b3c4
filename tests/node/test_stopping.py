"""A node that is told to stop comes to an end, whatever the others do (T11)."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.connection import Connection
from tests.cluster import SimulatedCluster


class StoppingTests(SynchronousTestCase):
    """`Node.stopService`."""

    def test_a_connection_that_never_ends(self) -> None:
        """Else a node that is told to stop hangs half stopped: nobody can reach it any more, and
        nobody starts it again."""
        cluster = SimulatedCluster(1)
        cluster.found()
        client = cluster.client()
        cluster.network.result_of(client.put("k", "v"))
        self.patch(Connection, "close", lambda connection: None)
        self.patch(Connection, "abort", lambda connection: None)
        stopping = cluster.nodes[1].server.drain()
        cluster.network.result_of(Deferred.fromCoroutine(stopping), 10.0)
