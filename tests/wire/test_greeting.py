"""Greetings: who may talk to whom, and that a refusal tells both sides what to do."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import HelloRefused
from kvtwist.wire.boxes import BoxReader, write_box
from kvtwist.wire.commands import PROTOCOL_VERSION, Hello
from kvtwist.wire.failures import read_failure, write_failure
from kvtwist.wire.greeting import Greeting, came_later, objection, same_name_elsewhere
from tests.wire.loopback import WIDE_OPEN
from tests.wire.properties import examples

MINE = Greeting(
    cluster_id="c1" * 16,
    name="node-1",
    identity="a1" * 16,
    address="10.0.0.1:8001",
    started_ms=9000,
)
THEIRS = Greeting(
    cluster_id="c1" * 16,
    name="node-2",
    identity="b2" * 16,
    address="10.0.0.2:8001",
    expected_identity=MINE.identity,
    started_ms=500,
)
CLIENT = Greeting()
MAX = (1 << 63) - 1

texts = st.text(max_size=30)
short = st.sampled_from(["", "a", "b"])
greetings = st.builds(
    Greeting,
    version_min=st.integers(0, 3),
    version_max=st.integers(0, 3),
    cluster_id=short,
    name=short,
    identity=short,
    address=short,
    expected_identity=short,
    started_ms=st.integers(0, 2),
)


class ObjectionTests(SynchronousTestCase):
    """What speaks against a connection."""

    def refused(self, theirs: Greeting, mine: Greeting = MINE) -> HelloRefused:
        """The refusal, which has to be there, be one line, and cross the wire."""
        refusal = objection(mine, theirs)
        assert refusal is not None
        self.assertNotIn("\n", str(refusal))
        self.assertLess(len(str(refusal)), 300)
        arrived = read_failure(*write_failure(refusal))
        self.assertEqual((type(arrived), str(arrived)), (HelloRefused, str(refusal)))
        self.assertEqual(arrived.details(), {"reason": refusal.reason})
        return refusal

    def test_nodes_of_one_cluster(self) -> None:
        """Else nodes that belong together never meet."""
        self.assertIsNone(objection(MINE, THEIRS))
        self.assertIsNone(objection(MINE, replace(THEIRS, expected_identity="")))

    def test_before_the_founding(self) -> None:
        """Else founders, which have no cluster yet, never found one, and nobody can join."""
        unfounded = replace(THEIRS, cluster_id="")
        self.assertIsNone(objection(MINE, unfounded))
        self.assertIsNone(objection(replace(MINE, cluster_id=""), THEIRS))
        self.assertIsNone(objection(replace(MINE, cluster_id=""), unfounded))

    def test_version(self) -> None:
        """Else two releases that do not share a protocol misunderstand each other's requests."""
        old = replace(THEIRS, version_min=0, version_max=0)
        new = replace(THEIRS, version_min=PROTOCOL_VERSION + 1, version_max=PROTOCOL_VERSION + 4)
        for theirs in (old, new):
            refusal = self.refused(theirs)
            self.assertEqual(refusal.reason, "version")
            for part in (
                "node-1", "10.0.0.1:8001", "node-2", "10.0.0.2:8001", "kvtwist",
                f"{theirs.version_min} to {theirs.version_max}",
                f"{MINE.version_min} to {MINE.version_max}",
            ):  # fmt: skip
                self.assertIn(part, str(refusal))

    def test_versions_that_overlap(self) -> None:
        """Else a cluster cannot be upgraded node by node."""
        mine = replace(MINE, version_min=3, version_max=5)
        for low, high in ((1, 3), (3, 5), (4, 4), (5, 9), (1, 9)):
            self.assertIsNone(objection(mine, replace(THEIRS, version_min=low, version_max=high)))
        for low, high in ((0, 2), (6, 9)):
            theirs = replace(THEIRS, version_min=low, version_max=high)
            self.assertEqual(self.refused(theirs, mine).reason, "version")

    def test_cluster(self) -> None:
        """Else a node with another cluster's --peers gets its data mixed with that cluster's."""
        refusal = self.refused(replace(THEIRS, cluster_id="d4" * 16))
        self.assertEqual(refusal.reason, "cluster")
        for part in (
            "node-1", "10.0.0.1:8001", "c1c1c1c1", "node-2", "10.0.0.2:8001", "d4d4d4d4", "--peers",
        ):  # fmt: skip
            self.assertIn(part, str(refusal))

    def test_identity(self) -> None:
        """R11: else a node that has lost its data is taken for the one that had voted."""
        refusal = self.refused(replace(THEIRS, expected_identity="e5" * 16))
        self.assertEqual(refusal.reason, "identity")
        for part in ("node-1", "10.0.0.1:8001", "a1a1a1a1", "node-2", "10.0.0.2:8001", "e5e5e5e5"):
            self.assertIn(part, str(refusal))

    def test_name(self) -> None:
        """Else two nodes own the same tokens, and each has half of the writes."""
        refusal = self.refused(replace(THEIRS, name="node-1"))
        self.assertEqual(refusal.reason, "name")
        for part in ("node-1", "10.0.0.1:8001", "10.0.0.2:8001", "--id"):
            self.assertIn(part, str(refusal))

    def test_oneself(self) -> None:
        """Else a node that dials its own address, which stands in --peers, is refused."""
        self.assertIsNone(objection(MINE, MINE))
        self.assertIsNone(objection(MINE, replace(MINE, started_ms=9001, identity="f" * 32)))

    def test_clients(self) -> None:
        """Else clients, which have neither name nor cluster, are refused."""
        for client in (
            CLIENT,
            replace(CLIENT, cluster_id=MINE.cluster_id),
            replace(CLIENT, identity=MINE.identity, address=MINE.address),
            replace(CLIENT, features=("watch", "unknown"), auth=b"reserved", started_ms=MAX),
        ):
            self.assertIsNone(objection(MINE, client))
            self.assertIsNone(objection(replace(MINE, cluster_id=""), client))
        # a client that answers a client: neither of the two empty names is taken
        self.assertIsNone(objection(CLIENT, replace(CLIENT, address="elsewhere:1")))

    def test_client_of_another_cluster(self) -> None:
        """Else a client that is pointed at the wrong cluster reads and writes there."""
        refusal = self.refused(replace(CLIENT, cluster_id="d4" * 16))
        self.assertEqual(refusal.reason, "cluster")
        self.assertIn("this client", str(refusal))

    def test_first_things_first(self) -> None:
        """Else people are sent to look at names when the releases do not fit."""
        theirs = Greeting(9, 9, "other", "node-1", "x", "10.0.0.9:1", "y")
        reasons = []
        for repaired in (
            {"version_min": 1},
            {"cluster_id": MINE.cluster_id},
            {"expected_identity": ""},
            {"name": "node-9"},
        ):
            reasons.append(self.refused(theirs).reason)
            theirs = replace(theirs, **repaired)
        self.assertEqual(reasons, ["version", "cluster", "identity", "name"])
        self.assertIsNone(objection(MINE, theirs))

    def test_names_that_mean_harm(self) -> None:
        """Else whoever reaches the port fills the node's log with text of their own, line by line:
        a peer's name is whatever it says."""
        forged = "node-2\n2026-01-01 [-] disk lost, run this: " + "x" * 70_000
        for theirs in (
            replace(THEIRS, name=forged, version_min=7, version_max=7),
            replace(THEIRS, address=forged, cluster_id="d4" * 16),
            replace(THEIRS, cluster_id="\nd4d4\n"),
            replace(THEIRS, name=forged, expected_identity="\n\n"),
            replace(THEIRS, name="node-1", address=forged),
        ):
            refusal = objection(MINE, theirs)
            assert refusal is not None
            self.assertEqual(len(str(refusal).splitlines()), 1)
            self.assertLess(len(str(refusal)), 1000)

    @examples(150)
    @given(greetings, greetings)
    def test_both_ends_agree(self, one: Greeting, other: Greeting) -> None:
        """Else one end takes the connection for good and uses it while the other refuses it: all
        that depends on both greetings is judged alike from either side."""
        one, other = replace(one, expected_identity=""), replace(other, expected_identity="")
        here, there = objection(one, other), objection(other, one)
        self.assertEqual(here and here.reason, there and there.reason)


class IntruderTests(SynchronousTestCase):
    """Two nodes of one name: one has to go."""

    def test_same_name(self) -> None:
        """Else a node gives way to itself, or to another of the many clients with no name."""
        self.assertTrue(same_name_elsewhere(MINE, replace(THEIRS, name="node-1")))
        self.assertFalse(same_name_elsewhere(MINE, THEIRS))
        self.assertFalse(same_name_elsewhere(MINE, MINE))
        self.assertFalse(same_name_elsewhere(CLIENT, replace(CLIENT, address="elsewhere:1")))

    def test_the_younger_goes(self) -> None:
        """Else somebody who starts a node under a name in use stops the one that has the data."""
        old, young = replace(MINE, started_ms=500), replace(THEIRS, name="node-1", started_ms=9000)
        self.assertTrue(came_later(young, old))
        self.assertFalse(came_later(old, young))

    def test_equally_young(self) -> None:
        """Else both go, or both stay, when a script starts them at once."""
        one, other = replace(MINE, started_ms=7), replace(THEIRS, name="node-1", started_ms=7)
        self.assertNotEqual(came_later(one, other), came_later(other, one))

    @examples(80)
    @given(greetings, greetings)
    def test_never_both(self, one: Greeting, other: Greeting) -> None:
        """Else two nodes of one name stop each other, and nobody serves."""
        both = (came_later(one, other), came_later(other, one))
        self.assertNotEqual(both, (True, True))
        if (one.started_ms, one.identity) != (other.started_ms, other.identity):
            self.assertIn(True, both)


class ArgumentsTests(SynchronousTestCase):
    """As `Hello` carries them."""

    @examples(80)
    @given(
        st.builds(
            Greeting,
            version_min=st.integers(0, MAX),
            version_max=st.integers(0, MAX),
            cluster_id=texts,
            name=texts,
            identity=texts,
            address=texts,
            expected_identity=texts,
            started_ms=st.integers(0, MAX),
            features=st.lists(texts, max_size=4).map(tuple),
            auth=st.binary(max_size=30) | st.just(b"a" * 70_000),
        )
    )
    def test_round_trip(self, greeting: Greeting) -> None:
        """Else a node misreads who is talking to it."""
        asked = Hello.makeArguments(greeting.arguments(), None)
        answered = Hello.makeResponse(greeting.arguments(), None)
        asked_box, answer_box = BoxReader(WIDE_OPEN).feed(write_box(asked) + write_box(answered))
        said = Hello.parseArguments(asked_box, None)
        self.assertEqual(Greeting.from_arguments(said), greeting)
        self.assertEqual((said["trace"], said["keyspace"]), (None, None))
        answer = Hello.parseResponse(answer_box, None)
        self.assertEqual(Greeting.from_arguments(answer), greeting)

    def test_defaults(self) -> None:
        """Else a client, which says nothing of itself, says something wrong."""
        self.assertEqual((CLIENT.version_min, CLIENT.version_max), (PROTOCOL_VERSION,) * 2)
        self.assertEqual(
            CLIENT.arguments(),
            {
                "version_min": PROTOCOL_VERSION, "version_max": PROTOCOL_VERSION,
                "cluster_id": "", "name": "", "identity": "", "address": "",
                "expected_identity": "", "started_ms": 0, "features": (), "auth": b"",
            },
        )  # fmt: skip

    def test_who(self) -> None:
        """Else people cannot tell from the log which node is meant."""
        self.assertEqual(MINE.who, "node-1 at 10.0.0.1:8001")
        self.assertEqual(Greeting(name="node-1").who, "node-1")
        self.assertEqual(CLIENT.who, "this client")
