"""The public client, against whole nodes over the simulated network."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import Client, Record
from kvtwist.client.links import Links
from kvtwist.core.address import Address
from kvtwist.errors import (
    ConfigurationError,
    ManyFailed,
    NotDone,
    NotSent,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
    VersionMismatch,
)
from kvtwist.node.limits import Limits
from kvtwist.wire.deadlines import Deadlines
from tests.cluster import CLIENT_IP, PORT, SimulatedCluster, ip_of


def client_status(cluster: SimulatedCluster, address: Address) -> Deferred[Any]:
    """What the node at *address* says of itself, to a client that knows no other."""
    host = cluster.network.host("10.0.1.9")
    return Client(host, str(address)).status(address)


class ClientTests(SynchronousTestCase):
    """What a program that uses the client relies on."""

    def setUp(self) -> None:
        self.cluster = SimulatedCluster(limits=Limits(value_bytes_max=200_000))
        self.cluster.found()
        self.client = self.cluster.client()

    def result(self, deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """The result of *deferred*."""
        return self.cluster.network.result_of(deferred, seconds)

    def error(self, kind: type[Exception], deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """The error of *deferred*."""
        return self.assertRaises(kind, self.result, deferred, seconds)

    def test_put_get_delete(self) -> None:
        """The promise of the README."""
        version = self.result(self.client.put("user:42", "alice"))
        self.assertEqual(self.result(self.client.get(b"user:42")), Record(b"alice", version))
        self.assertIs(self.result(self.client.delete("user:42")), True)
        self.assertIs(self.result(self.client.delete("user:42")), False)
        self.assertIsNone(self.result(self.client.get("user:42")))
        self.assertGreater(self.result(self.client.put("user:42", "bob")), version)

    def test_compare_and_set(self) -> None:
        """C4: a failed comparison tells what is there, so that one can go on from it."""
        first = self.result(self.client.compare_and_set("k", "a", 0))
        error = self.error(VersionMismatch, self.client.compare_and_set("k", "b", 0))
        self.assertEqual((error.version, error.value), (first, b"a"))
        second = self.result(self.client.compare_and_set("k", "b", first))
        self.assertGreater(second, first)
        error = self.error(VersionMismatch, self.client.compare_and_set("other", "b", 7))
        self.assertEqual((error.version, error.value), (0, None))

    def test_delete_at_a_version(self) -> None:
        """Else somebody's newer value is deleted."""
        version = self.result(self.client.put("k", "a"))
        error = self.error(VersionMismatch, self.client.delete("k", version=version + 1))
        self.assertEqual((error.version, error.value), (version, b"a"))
        self.assertIs(self.result(self.client.delete("k", version=version)), True)
        self.assertIs(self.result(self.client.delete("k", version=version)), False)

    def test_values_of_every_size(self) -> None:
        """AMP's own values end at 65,535 bytes; ours must not."""
        for size in (0, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 200_000):
            value = bytes(at % 251 for at in range(size))
            self.result(self.client.put("k", value))
            self.assertEqual(self.result(self.client.get("k")).value, value)

    def test_binary_keys(self) -> None:
        """Keys are bytes, whatever is in them."""
        for key in (b"", b"\0", bytes(range(256)), "schlüssel", b"{tag}\n"):
            self.result(self.client.put(key, b"v"))
            self.assertEqual(self.result(self.client.get(key)).value, b"v")

    def test_keys_of_every_size(self) -> None:
        """A key that no node takes is refused by name, however long it is."""
        for size in (4096, 4097, 65_535, 65_536):
            key = b"k" * size
            for asked in (self.client.get(key), self.client.put(key, "v")):
                if size <= 4096:
                    self.result(asked)
                else:
                    self.assertEqual(self.error(TooLarge, asked).setting, "key_bytes_max")

    def test_many(self) -> None:
        """Keys come back as they were given, each with its own result."""
        versions = self.result(self.client.put_many({f"k{at}": str(at) for at in range(300)}))
        self.assertEqual(list(versions), [f"k{at}" for at in range(300)])
        records = self.result(self.client.get_many([b"k7", b"none", b"k299"]))
        self.assertEqual(
            records,
            {
                b"k7": Record(b"7", versions["k7"]),
                b"none": None,
                b"k299": Record(b"299", versions["k299"]),
            },
        )
        self.assertEqual(self.result(self.client.get_many([])), {})

    def test_many_with_some_that_fail(self) -> None:
        """Else one bad key hides what became of the others."""
        wanted = {"good": "v", "bad": "v" * 200_001, "fine": "v"}
        error = self.error(ManyFailed, self.client.put_many(wanted))
        self.assertEqual(set(error.results), {"good", "fine"})
        self.assertIsInstance(error.errors["bad"], TooLarge)
        self.assertIn("1 of 3 keys failed", str(error))

    def test_any_timeout(self) -> None:
        """A caller who says infinity means it; one whose time is up is told so."""
        patient = self.cluster.client(timeout_seconds=float("inf"))
        for _ in range(2):
            version = self.result(patient.put("k", "v"))
            self.assertEqual(self.result(patient.get("k")), Record(b"v", version))
        for seconds in (0.0, -1.0):
            hasty = self.cluster.client(timeout_seconds=seconds)
            for _ in range(2):
                self.error(Unavailable, hasty.get("k"), 2.0)
                self.result(hasty.topology())

    def test_wrong_types(self) -> None:
        """A programming mistake is told at once, where it was made."""
        for call in (
            lambda: self.client.get(42),  # type: ignore[arg-type]
            lambda: self.client.put("k", None),  # type: ignore[arg-type]
            lambda: self.client.put("k", bytearray(b"v")),  # type: ignore[arg-type]
        ):
            self.assertRaises(TypeError, call)

    def test_peers_that_cannot_be_read(self) -> None:
        """The same for the list of peers."""
        host = self.cluster.network.host(CLIENT_IP)
        for peers in ("", "nonsense", ":1,:1"):
            self.assertRaises(ConfigurationError, Client, host, peers)

    def test_any_subset_of_peers(self) -> None:
        """One node is enough to reach every key."""
        for number in (1, 2, 3):
            client = self.cluster.client(number)
            for owner in (1, 2, 3):
                key = self.cluster.key_of(owner, prefix=f"from-{number}")
                self.result(client.put(key, "v"))
                self.assertEqual(self.result(client.get(key)).value, b"v")

    def test_goes_straight_to_the_owner(self) -> None:
        """Else every request costs a second hop."""
        client = self.cluster.client(1)
        self.result(client.get("anything"))
        self.result(client.get(self.cluster.key_of(2)))
        between = self.bytes_between(1, 2)
        for _ in range(50):
            self.result(client.get(self.cluster.key_of(2)))
        pings = 400
        self.assertLess(self.bytes_between(1, 2) - between, 50 * 20 + pings)

    def bytes_between(self, one: int, other: int) -> int:
        """What two nodes have sent to each other."""
        pair = {ip_of(one), ip_of(other)}
        wires = [wire for wire in self.cluster.network.wires if wire.open]
        return sum(
            wire.sent + wire.other.sent
            for wire in wires
            if {wire.host.ip, wire.other.host.ip} == pair
        )

    def test_fails_over_to_a_node_that_forwards(self) -> None:
        """Else an owner that the client cannot reach, but its peers can, is lost to it."""
        key = self.cluster.key_of(2)
        client = self.cluster.client(1)
        with self.cluster.network.cut(CLIENT_IP, ip_of(2)):
            self.result(client.put(key, "v"))
            self.assertEqual(self.result(client.get(key)).value, b"v")

    def test_first_peers_dead(self) -> None:
        """Else a list of peers is only as good as its first entry."""
        self.cluster.crash(1)
        self.cluster.crash(2)
        client = self.cluster.client(1, 2, 3)
        self.result(client.put(self.cluster.key_of(3), "v"), 1.0)

    def test_owner_dead(self) -> None:
        """The error names the owner, in time, and nothing was done."""
        self.cluster.crash(2)
        key = self.cluster.key_of(2)
        for call in (self.client.get(key), self.client.put(key, "v")):
            error = self.error(Unavailable, call, 5.6)
            self.assertEqual(error.waiting_for, ("node-2",))

    def test_owner_restarted(self) -> None:
        """A long-lived client goes on after a restart, within its time."""
        key = self.cluster.key_of(2)
        self.result(self.client.put(key, "v"))
        self.cluster.crash(2)
        self.cluster.run(0.1)
        writing = self.client.put(key, "w")
        self.cluster.run(2)
        self.cluster.start(2)
        self.result(writing, 6)
        self.assertEqual(self.result(self.client.get(key)).value, b"w")

    def test_all_dead(self) -> None:
        """The error lists every address and what is wrong with it."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        client = self.cluster.client(1, 3, timeout_seconds=2.0)
        error = self.error(Unavailable, client.get("k"), 3.0)
        self.assertIn("10.0.0.1:8001 (connection refused)", str(error))
        self.assertIn("10.0.0.3:8001 (connection refused)", str(error))

    def test_a_cluster_founded_anew(self) -> None:
        """A client belongs to one cluster: what comes up in its place at the same addresses is
        another one, and versions and reads must not be mixed. A new client finds it."""
        self.result(self.client.put("k", "v"))
        for number in (1, 2, 3):
            self.cluster.crash(number)
        self.cluster.start()
        self.cluster.run(2)
        error = self.error(Unavailable, self.client.put("k", "w"), 5.6)
        self.assertIn("check --peers", str(error))
        self.assertIsNone(self.result(self.cluster.client().get("k")))

    def test_nodes_of_two_clusters(self) -> None:
        """Else a failover writes into somebody else's data."""
        alone = SimulatedCluster.__new__(SimulatedCluster)
        alone.__dict__.update(self.cluster.__dict__)
        stranger = Address("10.0.5.1", PORT)
        alone.start_node(7, listen=stranger, founders=(stranger,))
        self.cluster.run(1)
        host = self.cluster.network.host(CLIENT_IP)
        client = Client(host, f"10.0.0.1:{PORT},10.0.5.1:{PORT}", chance=lambda: 0.0)
        key = self.cluster.key_of(2)
        self.result(client.put(key, "v"))
        self.cluster.run(2)
        for number in (1, 2, 3):
            self.cluster.crash(number)
        self.cluster.run(0.1)
        self.error(Unavailable, client.put(key, "w"), 5.6)
        held = self.result(client_status(self.cluster, stranger))
        self.assertEqual(held["key_count"], 0)

    def test_two_clusters_answer_at_the_same_moment(self) -> None:
        """The same, when the second answer is under way already: the first one stands."""
        host = self.cluster.network.host(CLIENT_IP)
        links = Links(host, [], lambda: 0.5, Deadlines(host))
        links.pin("aa" * 16)
        links.pin("aa" * 16)
        self.assertRaises(NotSent, links.pin, "bb" * 16)
        self.assertEqual(links.cluster_id, "aa" * 16)

    def test_a_cancelled_write_is_over(self) -> None:
        """Else a write that its caller has given up is carried out minutes later."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        client = self.cluster.client()
        writing = client.put("k", "v")
        writing.addErrback(lambda failure: failure.trap(CancelledError))
        self.cluster.run(0.2)
        writing.cancel()
        self.result(writing, 0.1)
        self.cluster.start()
        self.cluster.run(10)
        self.assertIsNone(self.result(self.cluster.client().get("k")))

    def test_a_cancelled_request_is_over(self) -> None:
        """Whether it waits for its answer or to be sent again; nothing is left behind."""
        key = self.cluster.key_of(2)
        self.result(self.client.get(key))
        for seconds in (0.1, 1.5):  # its first attempt takes 1.25 s
            self.cluster.network.host(ip_of(2)).freeze()
            reading = self.client.get(key)
            self.cluster.run(seconds)
            reading.cancel()
            self.failureResultOf(reading, CancelledError)
            self.cluster.network.host(ip_of(2)).thaw()
            self.cluster.run(1)
        self.assertIsNone(self.result(self.client.get(key)))

    def test_a_read_is_asked_again_in_time(self) -> None:
        """Else one that a slow node has not answered at once fails, with seconds to spare."""
        key = self.cluster.key_of(2)
        version = self.result(self.client.put(key, "v"))
        host = self.cluster.network.host(ip_of(2))
        host.freeze()
        reading = self.client.get(key)
        self.cluster.run(2.0)
        self.assertNoResult(reading)
        host.thaw()
        self.assertEqual(self.result(reading, 2.0), Record(b"v", version))

    def test_nothing_leaves_after_the_deadline(self) -> None:
        """Else a write is reported as failed, or unknown, and then done."""
        client = self.cluster.client(1, timeout_seconds=1.0)
        key = self.cluster.key_of(2)
        with self.cluster.network.cut(CLIENT_IP, ip_of(1)):
            self.error(Unavailable, client.put(key, "v"), 1.3)
        self.cluster.run(10)
        self.assertIsNone(self.result(self.client.get(key)))

    def test_a_node_that_freezes_before_it_has_told_the_table(self) -> None:
        """Else a write that was never sent is reported as unknown."""
        self.cluster.run(1)
        host = self.cluster.network.host(CLIENT_IP)
        client = Client(host, f"10.0.0.1:{PORT},10.0.0.2:{PORT}", chance=lambda: 0.0)
        first = client.status(self.cluster.addresses[0])
        self.result(first)
        self.cluster.network.host(ip_of(1)).freeze()
        key = self.cluster.key_of(3)
        self.result(client.put(key, "v"), 5.6)

    def test_put_after_close(self) -> None:
        """Else a closed client still writes."""
        key = self.cluster.key_of(1)
        self.result(self.client.get(key))
        closing, late = self.client.close(), self.client.put(key, "late")
        self.error(Unavailable, late, 0.1)
        self.result(closing)
        self.assertIsNone(self.result(self.cluster.client().get(key)))

    def test_nothing_is_left_in_the_reactor(self) -> None:
        """Else every test suite that uses the client ends with a dirty reactor."""
        network = self.cluster.network
        self.result(self.client.get("k"))
        calls = [self.client.get(f"k{at}") for at in range(10)]
        self.result(self.client.close())
        for call in calls:
            call.addErrback(lambda _: None)
        for number in (1, 2, 3):
            self.cluster.network.result_of(self.cluster.nodes[number].stopService())
        self.assertEqual([each for each in network.clock.getDelayedCalls() if each.active()], [])

    def test_a_frozen_owner(self) -> None:
        """A write is unknown, a read unavailable, each by its deadline (promise 5)."""
        key = self.cluster.key_of(2)
        self.result(self.client.get(key))
        self.cluster.network.host(ip_of(2)).freeze()
        reading, writing = self.client.get(key), self.client.put(key, "v")
        self.error(Unavailable, reading, 5.6)
        self.error(OutcomeUnknown, writing, 5.6)

    def test_more_at_once_than_may_be_in_flight(self) -> None:
        """Calls beyond what a connection may have in flight wait for room; none is lost, and they
        do not wait longer than they must."""
        key = self.cluster.key_of(1)
        self.result(self.client.get(key))
        started = self.cluster.network.clock.seconds()
        calls = [self.client.put(key, str(at)) for at in range(5000)]
        versions = self.result(gatherResults(calls))
        self.assertEqual(len(set(versions)), 5000)
        self.assertLess(self.cluster.network.clock.seconds() - started, 0.5)

    def test_close(self) -> None:
        """After closing nothing is left behind, and calls say so."""
        self.result(self.client.get("k"))
        self.result(self.client.close())
        error = self.error(NotDone, self.client.get("k"), 0.1)
        self.assertIn("client is closed", str(error))
        ours = [w for w in self.cluster.network.wires if w.host.ip == CLIENT_IP and w.open]
        self.assertEqual(ours, [])
