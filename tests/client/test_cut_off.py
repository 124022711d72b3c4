"""A node that clients reach and that the other nodes do not: who owns a key may be of no use."""

from __future__ import annotations

from kvtwist.client import Client
from tests.cluster import ip_of
from tests.durable import DurableCase


class CutOffTests(DurableCase):
    """The owner of a partition hears nobody but the clients. The others elect."""

    size = 3
    partitions = 16

    def setUp(self) -> None:
        super().setUp()
        self.key = self.cluster.key_of(1)
        self.client = self.cluster.client(1, 2, 3)
        self.put(self.key, "before")

    def test_others_are_asked(self) -> None:
        """R9: once others lead, writes and reads are done within their time, though the node that
        is asked first knows nobody who leads, and never will."""
        self.assert_served(self.client)

    def test_by_a_client_without_a_session(self) -> None:
        """Nor is a session opened there."""
        self.assert_served(self.cluster.client(1, 2, 3))

    def assert_served(self, client: Client) -> None:
        """With the owner cut off for some time."""
        network = self.cluster.network
        with network.cut(ip_of(1), ip_of(2)), network.cut(ip_of(1), ip_of(3)):
            network.run(3.0)
            network.result_of(client.put(self.key, "during"))
            record = network.result_of(client.get(self.key))
            self.assertEqual(record.value, b"during")
            network.result_of(client.put_many({self.key: "many"}))
            records = network.result_of(client.get_many([self.key]))
            self.assertEqual(records[self.key].value, b"many")
