"""Founding, as whole nodes do it over the simulated network."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.topology import Settings
from kvtwist.errors import Unavailable
from kvtwist.wire.commands import Status
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.link import Link
from tests.cluster import CLIENT_IP, PORT, SimulatedCluster, ip_of


class FoundingTests(SynchronousTestCase):
    """A stranger starts nodes by hand, in some order, with some mistakes."""

    def cluster_ids(self, cluster: SimulatedCluster) -> set[str]:
        """The ids that the running nodes have."""
        return {
            node.cluster.topology.cluster_id if node.cluster.topology else ""
            for node in cluster.nodes.values()
        }

    def test_any_order_of_starting(self) -> None:
        """Else the quick start works only when typed in one order."""
        for order in ((1, 2, 3), (3, 1, 2), (2, 3, 1)):
            cluster = SimulatedCluster()
            for number in order:
                cluster.start(number)
                cluster.run(1.3)
            self.assertEqual(len(self.cluster_ids(cluster)), 1)
            self.assertNotIn("", self.cluster_ids(cluster))

    def test_any_order_of_peers(self) -> None:
        """Else nodes whose --peers are ordered differently never find each other."""
        cluster = SimulatedCluster()
        for number in (1, 2, 3):
            turned = cluster.addresses[number:] + cluster.addresses[:number]
            cluster.start_node(number, founders=turned)
        cluster.run(2)
        self.assertNotIn("", self.cluster_ids(cluster))

    def test_waits_for_every_founder_and_names_it(self) -> None:
        """Else a user sees "unavailable" and does not know which node to start."""
        cluster = SimulatedCluster()
        cluster.start(1, 2)
        cluster.run(2)
        client = cluster.client(1, timeout_seconds=1.0)
        error = self.assertRaises(Unavailable, cluster.network.result_of, client.get("k"))
        self.assertIn("10.0.0.3:8001 (connection refused)", str(error))
        self.assertEqual(error.waiting_for, ("10.0.0.3:8001 (connection refused)",))
        answer = cluster.network.result_of(client.status(cluster.addresses[0]))
        self.assertEqual(answer["waiting_for"], ["10.0.0.3:8001 (connection refused)"])
        self.assertEqual(answer["cluster_id"], "")

    def test_a_request_made_while_founding_is_done_once_founded(self) -> None:
        """Else a script that starts a cluster and writes at once fails."""
        cluster = SimulatedCluster()
        cluster.start(1, 2)
        cluster.run(1)
        writing = cluster.client(1).put("k", "v")
        cluster.start(3)
        self.assertGreater(cluster.network.result_of(writing), 0)

    def test_alone(self) -> None:
        """``twistd -n kvnode`` is a cluster of one, at once."""
        cluster = SimulatedCluster(size=1)
        cluster.start_node(1, founders=())
        client = cluster.client()
        cluster.network.result_of(client.put("k", "v"), seconds=1)
        self.assertEqual(cluster.network.result_of(client.get("k")).value, b"v")

    def test_a_restarted_node_comes_back_into_the_same_cluster(self) -> None:
        """Else the loss of one memory node ends the cluster."""
        cluster = SimulatedCluster()
        cluster.found()
        before = self.cluster_ids(cluster)
        cluster.crash(2)
        cluster.run(3)
        cluster.start(2)
        cluster.run(2)
        self.assertEqual(self.cluster_ids(cluster), before)
        client = cluster.client(1)
        cluster.network.result_of(client.put(cluster.key_of(2), "again"))
        self.assertEqual(cluster.network.result_of(client.get(cluster.key_of(2))).value, b"again")

    def test_a_founder_that_crashes_while_founding(self) -> None:
        """Else a crash at the wrong moment leaves two clusters, each refusing the other."""
        for moment_ms in range(0, 400, 7):
            cluster = SimulatedCluster()
            cluster.start()
            cluster.run(moment_ms / 1000)
            cluster.crash(3)
            cluster.run(0.05)
            cluster.start(3)
            cluster.run(4)
            self.assertEqual(len(self.cluster_ids(cluster)), 1, moment_ms)
            self.assertNotIn("", self.cluster_ids(cluster), moment_ms)

    def test_lists_that_differ(self) -> None:
        """Else nodes wait for each other for ever and nobody says why."""
        cluster = SimulatedCluster(size=2)
        cluster.start(1)
        cluster.start_node(2, founders=(*cluster.addresses, Address(ip_of(3), PORT)))
        cluster.run(2)
        (missing,) = cluster.nodes[1].cluster.waiting_for()
        self.assertIn("its --peers differ", missing)
        self.assertEqual(self.cluster_ids(cluster), {""})

    def test_settings_that_differ(self) -> None:
        """Else two nodes cut the ring differently and lose each other's keys."""
        cluster = SimulatedCluster(size=2)
        cluster.start(1)
        cluster.start_node(2, settings=Settings(partitions=32))
        cluster.run(2)
        (missing,) = cluster.nodes[1].cluster.waiting_for()
        self.assertIn("partitions: 32 there, 16 here", missing)

    def test_one_name_at_two_addresses_the_younger_goes(self) -> None:
        """Else both nodes with a mistyped --id stop, or neither does."""
        cluster = SimulatedCluster(size=2)
        cluster.start(1)
        cluster.run(1)
        cluster.start_node(2, name="node-1")
        cluster.hopeless.clear()
        cluster.run(1)
        self.assertIn("start the node at 10.0.0.2:8001 with another --id", self.last_words(cluster))

    def test_one_name_at_two_addresses_when_the_older_dials_first(self) -> None:
        """The same when the connection is made from the older to the younger node."""
        cluster = SimulatedCluster(size=2)
        cluster.start(1)
        cluster.run(5)
        with cluster.network.cut(ip_of(2), ip_of(1)):
            cluster.start_node(2, name="node-1")
        cluster.run(3)
        self.assertIn("start the node at 10.0.0.2:8001 with another --id", self.last_words(cluster))

    def last_words(self, cluster: SimulatedCluster) -> str:
        """Why the one node that gave up did."""
        (error,) = cluster.hopeless.values()
        return str(error)

    def test_a_forged_greeting(self) -> None:
        """Promise 4: else one box from anybody ends a node, and its data."""
        cluster = SimulatedCluster(size=2)
        forged = Greeting(name="node-1", address="9.9.9.9:1", identity="x", started_ms=0)
        for founded in (False, True):
            if founded:
                cluster.start(2)
            else:
                cluster.start(1)
            cluster.run(2)
            host = cluster.network.host("10.0.9.9")
            link = Link(host, cluster.addresses[0], lambda: forged, lambda: 0.5, Deadlines(host))
            link.start()
            cluster.run(2)
            self.assertIsNone(link.connection)
            self.assertEqual(cluster.hopeless, {})
            cluster.network.result_of(link.stop())

    def test_two_of_one_name_at_the_same_moment(self) -> None:
        """Exactly one of them goes, however close their starts are."""
        for apart_ms in (0, 1, 2, 50):
            cluster = SimulatedCluster(size=2)
            cluster.start_node(1)
            cluster.run(apart_ms / 1000)
            cluster.start_node(2, name="node-1")
            cluster.run(3)
            self.assertEqual(len(cluster.given_up), 1, apart_ms)

    def test_a_shorter_list_after_the_founding(self) -> None:
        """After the founding --peers is only whom to dial first: else a node restarted with one
        address cannot forward to the others."""
        cluster = SimulatedCluster()
        cluster.found()
        cluster.crash(3)
        cluster.start_node(3, founders=(cluster.addresses[0], cluster.addresses[2]))
        cluster.run(3)
        client = cluster.client(3)
        network = cluster.network
        with network.cut(CLIENT_IP, ip_of(1)), network.cut(CLIENT_IP, ip_of(2)):
            network.result_of(client.put(cluster.key_of(2), "v"))

    def test_a_stranger_to_a_founded_cluster(self) -> None:
        """Else a node that was not listed waits for ever instead of saying that it cannot join."""
        cluster = SimulatedCluster(size=2)
        cluster.found()
        stranger = Address(ip_of(9), PORT)
        cluster.start_node(9, listen=stranger, founders=(*cluster.addresses, stranger))
        cluster.run(2)
        self.assertIn("founded without node-9", str(cluster.hopeless["node-9"]))

    def test_another_name_at_a_members_address(self) -> None:
        """Else a node restarted with a mistyped --id waits for ever."""
        cluster = SimulatedCluster(size=2)
        cluster.found()
        cluster.crash(2)
        cluster.start_node(2, name="nod-2")
        cluster.run(2)
        self.assertIn("knows 10.0.0.2:8001 as node-2", str(cluster.hopeless["nod-2"]))

    def test_a_node_of_another_cluster(self) -> None:
        """Else two clusters with overlapping --peers write into each other."""
        cluster = SimulatedCluster(size=2)
        cluster.found()
        alone = Address(ip_of(3), PORT)
        cluster.start_node(3, listen=alone, founders=(alone,))
        cluster.run(1)
        client = cluster.client(1)
        cluster.network.result_of(client.get("k"))
        answer = cluster.network.result_of(client.topology())
        self.assertEqual(len(answer.members), 2)
        error = self.assertRaises(Unavailable, cluster.network.result_of, client.status(alone), 5.0)
        self.assertIn("check --peers", str(error))

    def test_status_after_the_founding(self) -> None:
        """What ``kvcli status`` shows is what the node is."""
        cluster = SimulatedCluster()
        cluster.found()
        cluster.network.result_of(cluster.client().put(cluster.key_of(2), "v"))
        status = cluster.network.result_of(cluster.client().status(cluster.addresses[1]))
        self.assertEqual((status["name"], status["key_count"], status["epoch"]), ("node-2", 1, 1))
        self.assertEqual(set(status), {name.decode() for name, _ in Status.response})
        self.assertEqual((status["waiting_for"], status["unreachable"]), ([], []))
