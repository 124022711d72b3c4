"""Names, settings, and the map of the cluster that follows from them."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.placement import place
from kvtwist.core.ring import Ring, partition_of
from kvtwist.core.topology import (
    PARTITIONS_MAX,
    Member,
    Settings,
    Topology,
    check_name,
)
from kvtwist.errors import ConfigurationError

GOOD_NAMES = [
    "a",
    "7",
    "node-1",
    "Node_1",
    "kv.rack-2.example.org",
    "a--b",
    "a..b",
    "a_",
    "x" * 64,
]

BAD_NAMES = [
    "x" * 65,
    "a/b",
    "../a",
    "a\\b",
    "a b",
    " a",
    "a ",
    "a\n",
    "a\x00",
    "a\x1b[2J",
    ".",
    "..",
    ".a",
    "a.",
    "-a",
    "a-",
    "_a",
    "--help",
    "a:b",
    "a,b",
    "a#0",
    "a{b}",
    "caf\u00e9",
    "\u0663",
    "\uff41",
]


def member(name: str, port: int = 8001) -> Member:
    """A member whose identity and address hardly matter."""
    return Member(name, f"{port:032x}", Address("10.0.0.1", port))


def members(count: int) -> list[Member]:
    """node-1 to node-*count*."""
    return [member(f"node-{number}", 8000 + number) for number in range(1, count + 1)]


def refusal_of(call: Callable[..., object], *args: object, **kwargs: object) -> str:
    """What is said when *call* is refused."""
    try:
        result = call(*args, **kwargs)
    except ConfigurationError as error:
        return str(error)
    raise AssertionError(f"{args or kwargs} was taken: {result!r}")


class CheckNameTests(SynchronousTestCase):
    """Names of nodes."""

    def test_good(self) -> None:
        """A sensible name would be refused."""
        for name in GOOD_NAMES:
            self.assertEqual(check_name(name), name)

    def test_bad(self) -> None:
        """A name would get into file names, logs and lists that it breaks, as ``../a`` does."""
        for name in BAD_NAMES:
            message = refusal_of(check_name, name)
            self.assertEqual(len(message.splitlines()), 1, message)
            self.assertIn(repr(name), message)
            self.assertIn("64", message)

    def test_empty(self) -> None:
        """``--id=$NAME`` with no such variable would start a node without a name."""
        self.assertIn("--id is empty", refusal_of(check_name, ""))

    @settings(deadline=None)
    @given(st.text(max_size=70))
    def test_any(self, name: str) -> None:
        """Some name would pass that cannot stand in a file's name on every system."""
        try:
            check_name(name)
        except ConfigurationError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
        else:
            self.assertTrue(name.isascii() and 1 <= len(name) <= 64)
            self.assertEqual(set(name) & set('/\\:*?"<>|, \t\r\n\x00'), set())
            self.assertNotIn(name[0], ".-")


class SettingsTests(SynchronousTestCase):
    """What is fixed at the founding."""

    def test_powers_of_two(self) -> None:
        """A number of partitions that the ring can be cut into would be refused."""
        for exponent in range(13):
            self.assertEqual(Settings(partitions=1 << exponent).partitions, 1 << exponent)
        self.assertEqual(PARTITIONS_MAX, 4096)

    def test_other_numbers(self) -> None:
        """A cluster would be founded with partitions that it can never split evenly."""
        for partitions in (-64, -1, 0, 3, 63, 65, 100, 4095, 4097, 8192):
            message = refusal_of(Settings, partitions=partitions)
            self.assertIn(f"--partitions={partitions}", message)
            self.assertIn("4096", message)

    def test_no_replicas_or_tokens(self) -> None:
        """A peer's impossible settings would be a traceback in the log, not a clear message."""
        for number in (0, -1):
            self.assertIn(str(number), refusal_of(Settings, replicas=number))
            self.assertIn(str(number), refusal_of(Settings, tokens_per_member=number))

    def test_tokens_have_a_limit(self) -> None:
        """One answer of a broken peer would have this node compute tokens until it is killed."""
        self.assertIn(str(1 << 40), refusal_of(Settings, tokens_per_member=1 << 40))

    def test_defaults(self) -> None:
        """A release with other defaults would not found a cluster with nodes of this one."""
        self.assertEqual(
            Settings(), Settings(partitions=16, replicas=3, tokens_per_member=128, durable=False)
        )


class TopologyTests(SynchronousTestCase):
    """Members, settings, and who has what."""

    def test_members_are_sorted(self) -> None:
        """The same cluster would be listed in another order by each node."""
        given_order = [member("b", 2), member("c", 3), member("a", 1)]
        topology = Topology("id", 1, given_order, Settings())
        self.assertEqual([each.name for each in topology.members], ["a", "b", "c"])

    def test_facts_are_kept(self) -> None:
        """A node would not know which cluster, and which state of it, its map describes."""
        topology = Topology("id", 7, members(2), Settings(partitions=8))
        self.assertEqual((topology.cluster_id, topology.epoch), ("id", 7))
        self.assertEqual(topology.settings, Settings(partitions=8))

    def test_member(self) -> None:
        """An owner's address would not be found, or another member's be taken for it."""
        topology = Topology("id", 1, members(3), Settings())
        self.assertEqual(topology.member("node-2"), members(3)[1])
        self.assertRaises(KeyError, topology.member, "node-4")

    @settings(deadline=None, max_examples=30)
    @given(st.permutations(members(5)))
    def test_order_does_not_matter(self, shuffled: list[Member]) -> None:
        """Nodes that learnt of each other in another order would send a key to different owners."""
        ours = Topology("id", 1, members(5), Settings(partitions=32, tokens_per_member=8))
        theirs = Topology("id", 1, iter(shuffled), Settings(partitions=32, tokens_per_member=8))
        self.assertEqual(ours.members, theirs.members)
        self.assertEqual(ours.placement, theirs.placement)

    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 5), st.sampled_from([1, 2, 8, 128]))
    def test_owners_and_replicas(
        self, count: int, exponent: int, replicas: int, tokens: int
    ) -> None:
        """A node would route by one map and show another."""
        chosen = Settings(1 << exponent, replicas, tokens)
        topology = Topology("id", 1, members(count), chosen)
        names = [each.name for each in members(count)]
        rows = place(Ring(names, tokens), 1 << exponent, replicas).replicas
        for partition, row in enumerate(rows):
            held_by = topology.replicas(partition)
            self.assertEqual(tuple(each.name for each in held_by), row)
            self.assertEqual(topology.owner(partition), held_by[0])
            self.assertEqual(len(set(held_by)), min(replicas, count))
            self.assertTrue(set(held_by) <= set(topology.members))
        self.assertEqual(len(rows), chosen.partitions)
        self.assertRaises(IndexError, topology.owner, chosen.partitions)

    @settings(deadline=None)
    @given(st.binary(max_size=30))
    def test_partition_of_a_key(self, key: bytes) -> None:
        """A client, which computes the partition itself, would ask the wrong node."""
        topology = Topology("id", 1, members(2), Settings(partitions=16, tokens_per_member=4))
        self.assertEqual(topology.partition_of(key), partition_of(key, 16))
        self.assertTrue(0 <= topology.partition_of(key) < 16)

    def test_keys_with_one_tag(self) -> None:
        """Keys that a program marked to live together would be spread over the cluster."""
        topology = Topology("id", 1, members(3), Settings())
        found = {topology.partition_of(b"{user:42}.%d" % number) for number in range(50)}
        self.assertEqual(found, {topology.partition_of(b"user:42")})

    def test_address_and_identity_do_not_matter(self) -> None:
        """A restarted or moved member would find its data placed on somebody else."""
        moved = [
            Member(each.name, "f" * 32, Address("10.9.9.9", each.address.port))
            for each in members(4)
        ]
        self.assertEqual(
            Topology("id", 1, members(4), Settings()).placement,
            Topology("id", 2, moved, Settings()).placement,
        )

    def test_lone_member(self) -> None:
        """A cluster of one would have a partition without an owner, or with the owner twice."""
        topology = Topology("id", 1, members(1), Settings())
        for partition in range(topology.settings.partitions):
            self.assertEqual(topology.replicas(partition), tuple(members(1)))
