"""Configurations: every change to small ones, and the bytes they are kept as."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import AddLearner, Change, Configuration, Demote, Promote, Remove
from kvtwist.core.raft.configuration import REPLICAS_MAX, changed
from kvtwist.core.raft.quorum import majority

quickly = settings(deadline=None, max_examples=60)

IDS = (1, 2, 3, 4)
CHANGES: tuple[type[Change], ...] = (AddLearner, Promote, Demote, Remove)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    """Any."""
    ids = sorted(draw(st.sets(st.integers(1, 2**64 - 1), max_size=9)))
    voting = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    pairs = list(zip(ids, voting, strict=True))
    return Configuration(
        tuple(each for each, votes in pairs if votes),
        tuple(each for each, votes in pairs if not votes),
    )


def small_ones() -> Iterator[Configuration]:
    """All with at least one voter of four."""
    for roles in product("-vl", repeat=len(IDS)):
        voters = tuple(each for each, role in zip(IDS, roles, strict=True) if role == "v")
        learners = tuple(each for each, role in zip(IDS, roles, strict=True) if role == "l")
        if voters:
            yield Configuration(voters, learners)


def naively_changed(configuration: Configuration, change: Change) -> dict[int, str] | None:
    """Who is what after *change*, from a table of what was and what is to be."""
    roles = dict.fromkeys(configuration.voters, "v") | dict.fromkeys(configuration.learners, "l")
    was = roles.get(change.replica, "-")
    becomes = {
        (AddLearner, "-"): "l",
        (Promote, "l"): "v",
        (Demote, "v"): "l",
        (Remove, "v"): "-",
        (Remove, "l"): "-",
    }.get((type(change), was))
    if becomes is None:
        return None
    roles[change.replica] = becomes
    roles = {replica: role for replica, role in roles.items() if role != "-"}
    return roles if "v" in roles.values() else None


class ChangeTests(SynchronousTestCase):
    """One replica at a time (dissertation, 4.1; R10)."""

    def test_every_change(self) -> None:
        """All changes of all configurations of four."""
        for configuration in small_ones():
            for kind, replica in product(CHANGES, (*IDS, 5)):
                change = kind(replica)
                after = changed(configuration, change)
                roles = after and (
                    dict.fromkeys(after.voters, "v") | dict.fromkeys(after.learners, "l")
                )
                self.assertEqual(roles, naively_changed(configuration, change))

    def test_majorities_meet(self) -> None:
        """Any majority before and any after a change share a voter, or two leaders are possible."""
        for configuration in small_ones():
            for kind, replica in product(CHANGES, (*IDS, 5)):
                after = changed(configuration, kind(replica))
                if after is None:
                    continue
                for one in combinations(configuration.voters, majority(len(configuration.voters))):
                    for other in combinations(after.voters, majority(len(after.voters))):
                        self.assertTrue(set(one) & set(other), (configuration, after))

    def test_no_id(self) -> None:
        """0 is nobody."""
        self.assertIsNone(changed(Configuration((1,)), AddLearner(0)))

    def test_full(self) -> None:
        """There is a limit, so that an entry of the log has one; and it can be left again."""
        almost = Configuration((1,), tuple(range(2, REPLICAS_MAX)))
        full = changed(almost, AddLearner(REPLICAS_MAX))
        assert full is not None
        self.assertEqual(len(full.replicas), REPLICAS_MAX)
        self.assertIsNone(changed(full, AddLearner(REPLICAS_MAX + 1)))
        self.assertEqual(changed(full, Remove(REPLICAS_MAX)), almost)


class EncodingTests(SynchronousTestCase):
    """What is in the log is read by other versions, and after damage."""

    def test_vector(self) -> None:
        """Else another version cannot read this one's log."""
        self.assertEqual(
            Configuration((1, 258), (7,)).encode().hex(),
            "01" + "0002" + "0001" + "0000000000000001" + "0000000000000102" + "0000000000000007",
        )

    @quickly
    @given(configurations())
    def test_there_and_back(self, configuration: Configuration) -> None:
        """What was encoded is decoded."""
        self.assertEqual(Configuration.decode(configuration.encode()), configuration)

    @quickly
    @given(configurations(), st.binary(min_size=1, max_size=9))
    def test_cut_off(self, configuration: Configuration, more: bytes) -> None:
        """Every beginning of it is refused, and so is anything after its end."""
        data = configuration.encode()
        for length in range(len(data)):
            self.assertRaises(ValueError, Configuration.decode, data[:length])
        self.assertRaises(ValueError, Configuration.decode, data + more)

    @quickly
    @given(configurations(), st.integers(1, 255))
    def test_damaged(self, configuration: Configuration, mask: int) -> None:
        """A changed byte is refused, unless it makes exactly another configuration.

        That cannot be told here: checksums are the business of the storage (S3).
        """
        data = configuration.encode()
        for at in range(len(data)):
            damaged = bytearray(data)
            damaged[at] ^= mask
            try:
                other = Configuration.decode(bytes(damaged))
            except ValueError:
                continue
            self.assertEqual(other.encode(), bytes(damaged))
            self.assertGreaterEqual(at, 1, "a format that is not known was read")

    @quickly
    @given(st.binary(max_size=64))
    def test_anything(self, data: bytes) -> None:
        """Any bytes are a configuration or a `ValueError`."""
        with contextlib.suppress(ValueError):  # trial takes a `suppress` of a module for its own
            self.assertEqual(Configuration.decode(data).encode(), data)


class InvariantTests(SynchronousTestCase):
    """A configuration that contradicts itself cannot be made."""

    def test_refused(self) -> None:
        """Twice in one list, in both, unsorted, nobody's id, too many."""
        for voters, learners in (
            ((1, 1), ()),
            ((1, 2), (2,)),
            ((2, 1), ()),
            ((1,), (4, 3)),
            ((0, 1), ()),
            ((1,), (-1,)),
            ((1,), tuple(range(2, REPLICAS_MAX + 2))),
        ):
            self.assertRaises(ValueError, Configuration, voters, learners)
        Configuration((1,), tuple(range(2, REPLICAS_MAX + 1)))
