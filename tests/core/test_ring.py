"""The ring, against numbers written down and against the simplest code that could be right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import mmh3
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.ring import (
    RING_SIZE,
    Ring,
    hash_bytes,
    partition_of,
    partitions_of,
    tag,
    token_labels,
)

names_of_members = st.lists(
    st.text("abc-019", min_size=1, max_size=6), min_size=1, max_size=8, unique=True
)
tokens_per_member = st.integers(1, 9)
any_keys = st.lists(st.binary(max_size=12), min_size=1, max_size=50)
positions = st.integers(0, RING_SIZE - 1)

quickly = settings(deadline=None, max_examples=60)

SAME_POSITION = ("m30972", "m9093")
"""Two names with the same hash, 3604664142, in order."""


def naive_tokens(names: Sequence[str], tokens: int) -> list[tuple[int, str]]:
    """The tokens, from the definition alone."""
    labels = {name: [name] for name in names}
    if tokens > 1:
        labels = {name: [f"{name}#{number}" for number in range(tokens)] for name in names}
    return sorted(
        (mmh3.hash(label, 0, signed=False), name) for name in names for label in labels[name]
    )


def naive_clockwise(tokens: list[tuple[int, str]], position: int) -> list[str]:
    """The members of all tokens, by a linear scan: those after the position, then the others."""
    after = [name for token, name in tokens if token > position]
    return after + [name for token, name in tokens if token <= position]


def edges(ring: Ring) -> list[int]:
    """The positions where one could be off by one: about each token, and about 0."""
    near = [position + step for position, _ in ring.tokens for step in (-1, 0, 1)]
    return [position % RING_SIZE for position in [*near, -1, 0, 1]]


class HashTests(SynchronousTestCase):
    """Where bytes fall on the circle."""

    def test_vectors(self) -> None:
        """Else another version of the hash finds none of the keys that this one stored."""
        vectors = {
            b"": 0,
            b"hello": 0x248BFA47,
            b"hello, world": 0x149BBB7F,
            b"19 Jan 2038 at 3:14:07 AM": 0xE31E8A70,
            b"The quick brown fox jumps over the lazy dog.": 0xD5C48BFC,
            b"node-1": 2279687268,
            b"node-1#0": 1092808254,
            b"user:1": 3416794175,
        }
        for data, position in vectors.items():
            self.assertEqual(hash_bytes(data), position, data)

    def test_tag(self) -> None:
        """Else keys that a user gave one tag, to change them together, are torn apart."""
        tags = {
            b"a{x}b": b"x",
            b"{x}": b"x",
            b"{x}{y}": b"x",
            b"a}{b}": b"b",
            b"{a{b}c}": b"a{b",
            b"{a}}": b"a",
            b"{}a": b"{}a",
            b"a{}{b}": b"a{}{b}",
            b"{": b"{",
            b"{a": b"{a",
            b"}": b"}",
            b"}a{": b"}a{",
            b"{}": b"{}",
            b"plain": b"plain",
            b"": b"",
        }
        for key, expected in tags.items():
            self.assertEqual(tag(key), expected, key)

    @quickly
    @given(st.binary(), st.binary(min_size=1), st.binary())
    def test_tag_is_all_that_counts(self, before: bytes, inside: bytes, after: bytes) -> None:
        """Else keys of one tag land in two partitions, and a batch over them is refused."""
        inside = inside.translate(None, b"{}") or b"x"
        key = before.translate(None, b"{}") + b"{" + inside + b"}" + after
        self.assertEqual(tag(key), inside)
        self.assertEqual(partition_of(key, 4096), partition_of(inside, 4096))

    def test_partitions_pinned(self) -> None:
        """Else a client of another release asks for keys in the wrong partition."""
        keys = [b"apple", b"banana", b"cherry", b"user:1", b"{user:1}.mail", b"", b"hello"]
        expected = [28, 61, 62, 50, 50, 0, 9]
        self.assertEqual([partition_of(key, 64) for key in keys], expected)

    @quickly
    @given(st.binary(), st.integers(0, 12))
    def test_partition_is_an_arc(self, key: bytes, exponent: int) -> None:
        """Else a key falls outside of all partitions, or its arc starts elsewhere than it says."""
        partitions = 1 << exponent
        partition = partition_of(key, partitions)
        arc = RING_SIZE // partitions
        self.assertEqual(partition, mmh3.hash(tag(key), 0, signed=False) // arc)
        self.assertIn(partition, range(partitions))

    @quickly
    @given(st.lists(st.binary(max_size=9) | st.text("ab{}", max_size=9).map(str.encode)))
    def test_many_keys(self, keys: list[bytes]) -> None:
        """Else a key that is written with others is looked for, alone, in another partition."""
        for partitions in (1, 64, 4096):
            expected = [partition_of(key, partitions) for key in keys]
            self.assertEqual(partitions_of(keys, partitions), expected)


class TokenTests(SynchronousTestCase):
    """Where members stand on the circle."""

    def test_labels(self) -> None:
        """Else a member changes its place on the ring with the release it runs."""
        self.assertEqual(token_labels("node-1", 1), ["node-1"])
        self.assertEqual(token_labels("node-1", 3), ["node-1#0", "node-1#1", "node-1#2"])

    def test_positions_pinned(self) -> None:
        """Else nodes of two releases disagree about who owns what."""
        self.assertEqual(
            Ring(["node-1"], 5).tokens,
            (
                (1092808254, "node-1"),
                (1340442554, "node-1"),
                (1874820189, "node-1"),
                (3685799543, "node-1"),
                (4140397138, "node-1"),
            ),
        )

    def test_default(self) -> None:
        """Else shares are as uneven as with the few tokens somebody forgot to raise."""
        ring = Ring(["node-1", "node-2"])
        self.assertEqual(len(ring.tokens), 2 * 128)
        self.assertIn((1779216113, "node-2"), ring.tokens)

    @quickly
    @given(names_of_members, tokens_per_member)
    def test_order_of_names(self, names: list[str], tokens: int) -> None:
        """Else nodes that learned of the members in another order send keys elsewhere."""
        ring = Ring(names, tokens)
        self.assertEqual(ring.tokens, tuple(naive_tokens(names, tokens)))
        self.assertEqual(ring.tokens, Ring(reversed(names), tokens).tokens)
        self.assertEqual(ring.members, tuple(sorted(names)))

    def test_same_position(self) -> None:
        """Else two members whose tokens collide both believe that a key is theirs."""
        first, second = SAME_POSITION
        for names in (SAME_POSITION, SAME_POSITION[::-1]):
            ring = Ring(names, 1)
            self.assertEqual(ring.tokens, ((3604664142, first), (3604664142, second)))
            self.assertEqual({ring.successor(position) for position in edges(ring)}, {first})
            self.assertEqual(ring.preference_list(0), SAME_POSITION)
            self.assertEqual((ring.share(first), ring.share(second)), (1.0, 0.0))

    def test_empty(self) -> None:
        """Else an empty cluster fails later, with a division by zero that explains nothing."""
        error = self.assertRaises(ValueError, Ring, [], 1)
        self.assertEqual(str(error), "a ring needs at least one member")

    def test_twice(self) -> None:
        """Else two nodes with one name take each other's keys."""
        error = self.assertRaises(ValueError, Ring, ["b", "a", "b"], 1)
        self.assertEqual(str(error), "'b' stands twice among the ring's members")

    def test_no_tokens(self) -> None:
        """Else members without tokens make a ring that no key can be looked up on."""
        self.assertRaises(ValueError, Ring, ["a"], 0)


class SeedTests(SynchronousTestCase):
    """One token per member and no partitions: the mapping of the Go program this grew from."""

    PLACES = (
        (b"apple", 1880549520, "node-1"),
        (b"banana", 4116851631, "node-2"),
        (b"user:1", 3416794175, "node-2"),
        (b"user:3", 2212319606, "node-1"),
        (b"key-1", 2561742240, "node-3"),
        (b"key-9", 3102890356, "node-3"),
        (b"key-16", 1556390581, "node-1"),
        (b"key-29", 3151393506, "node-2"),
        (b"", 0, "node-2"),
    )

    def test_pinned(self) -> None:
        """Else whoever comes from the Go program finds keys at other nodes than before."""
        ring = Ring(["node-1", "node-2", "node-3"], 1)
        tokens = ((937034566, "node-2"), (2279687268, "node-1"), (3150381792, "node-3"))
        self.assertEqual(ring.tokens, tokens)
        for key, position, member in self.PLACES:
            self.assertEqual(hash_bytes(key), position, key)
            self.assertEqual(naive_clockwise(list(tokens), position)[0], member, key)
            self.assertEqual(ring.member_of(key), member, key)

    def test_key_on_a_token(self) -> None:
        """Else such a key goes to another node than it did: the token must be *greater*."""
        ring = Ring(["node-1", "node-2", "node-3"], 1)
        self.assertEqual(hash_bytes(b"$b{\xab"), hash_bytes(b"node-1"))
        self.assertEqual(ring.member_of(b"$b{\xab"), "node-3")
        self.assertEqual(hash_bytes(b"a\xd3\xa3\x91"), hash_bytes(b"node-3"))
        self.assertEqual(ring.member_of(b"a\xd3\xa3\x91"), "node-2")

    def test_tag(self) -> None:
        """Else keys of one tag are together on partitions and apart on a plain ring."""
        ring = Ring(["node-1", "node-2", "node-3"], 1)
        self.assertEqual(ring.member_of(b"banana{apple}"), "node-1")


class WalkTests(SynchronousTestCase):
    """Going clockwise from a position."""

    @quickly
    @given(names_of_members, tokens_per_member, positions)
    def test_successor(self, names: list[str], tokens: int, anywhere: int) -> None:
        """Else some keys have no owner, or one that nobody else would name."""
        ring = Ring(names, tokens)
        for position in [*edges(ring), anywhere]:
            expected = naive_clockwise(naive_tokens(names, tokens), position)[0]
            self.assertEqual(ring.successor(position), expected)

    @quickly
    @given(names_of_members, tokens_per_member, any_keys)
    def test_every_key(self, names: list[str], tokens: int, keys: list[bytes]) -> None:
        """Else there are keys that cannot be stored."""
        ring = Ring(names, tokens)
        for key in keys:
            self.assertIn(ring.member_of(key), names)
            self.assertEqual(ring.member_of(key), ring.successor(hash_bytes(tag(key))))

    @quickly
    @given(names_of_members, tokens_per_member, positions, st.integers(0, 10))
    def test_preference_list(
        self, names: list[str], tokens: int, anywhere: int, length: int
    ) -> None:
        """Else two replicas of a partition are on one member, and die with it."""
        ring = Ring(names, tokens)
        for position in [*edges(ring), anywhere]:
            walk = naive_clockwise(naive_tokens(names, tokens), position)
            expected = tuple(dict.fromkeys(walk))
            self.assertEqual(ring.preference_list(position), expected)
            self.assertEqual(ring.preference_list(position, length), expected[:length])

    def test_alone(self) -> None:
        """Else a lone member replicates to itself and counts its own acknowledgement twice."""
        self.assertEqual(Ring(["a"]).preference_list(0, 3), ("a",))

    @quickly
    @given(names_of_members, tokens_per_member)
    def test_share(self, names: list[str], tokens: int) -> None:
        """Else the picture of the ring shows shares that are not those of the keys."""
        ring = Ring(names, tokens)
        covered = dict.fromkeys(names, 0)
        bounds = [0, *(position for position, _ in ring.tokens), RING_SIZE]
        for start, end in pairwise(bounds):
            covered[ring.successor(start)] += end - start
        for name in names:
            self.assertEqual(ring.share(name), covered[name] / RING_SIZE)
        self.assertEqual(sum(covered.values()), RING_SIZE)

    def test_share_of_a_stranger(self) -> None:
        """Else a misspelt name looks like a member without keys."""
        self.assertRaises(KeyError, Ring(["a"]).share, "b")

    def test_even(self) -> None:
        """Else one of ten members has twice its share of the keys and fills up first."""
        ring = Ring([f"node-{number}" for number in range(1, 11)])
        for name in ring.members:
            self.assertApproximates(ring.share(name), 0.1, 0.03)


class ChangeTests(SynchronousTestCase):
    """What moves on a plain ring when members come and go: nothing else than must."""

    @quickly
    @given(names_of_members, tokens_per_member, any_keys)
    def test_join(self, names: list[str], tokens: int, keys: list[bytes]) -> None:
        """Else adding a node shuffles keys between the old ones, which all miss for a while."""
        before, after = Ring(names, tokens), Ring([*names, "newcomer"], tokens)
        for key in keys:
            self.assertIn(after.member_of(key), {before.member_of(key), "newcomer"})

    @quickly
    @given(names_of_members, tokens_per_member, any_keys)
    def test_leave(self, names: list[str], tokens: int, keys: list[bytes]) -> None:
        """Else losing one node makes keys of healthy ones move."""
        before, after = Ring([*names, "leaver"], tokens), Ring(names, tokens)
        for key in keys:
            if before.member_of(key) != "leaver":
                self.assertEqual(after.member_of(key), before.member_of(key))

    def test_some_move(self) -> None:
        """Else a node that joins gets nothing to do."""
        before, after = Ring(["a", "b", "c"]), Ring(["a", "b", "c", "d"])
        keys = [b"key-%d" % number for number in range(1000)]
        moved = sum(before.member_of(key) != after.member_of(key) for key in keys)
        self.assertApproximates(moved / len(keys), 1 / 4, 0.08)
