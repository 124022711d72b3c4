"""Descriptions of replicas on the wire: what comes out is what went in, or an error."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.description import Description, Following, Other
from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Sending
from kvtwist.wire.commands import DESCRIPTIONS_MAX, DescribeReplicas
from kvtwist.wire.connection import Arguments
from kvtwist.wire.descriptions import read_descriptions, write_descriptions

MEMBERS = [f"node-{number}" for number in range(1, 65)]

quickly = settings(deadline=None, max_examples=60)
numbers = st.integers(0, (1 << 63) - 1)
followings = st.builds(Following, numbers, st.booleans(), st.sampled_from(Sending), numbers)
others = st.builds(
    Other,
    st.integers(1, 9),
    st.sampled_from(["", *MEMBERS]),
    st.booleans(),
    st.none() | followings,
)
descriptions = st.builds(
    Description,
    group=numbers,
    partition=st.none() | st.integers(0, 4095),
    replica=numbers,
    role=st.sampled_from(Role),
    term=numbers,
    leader=numbers,
    commit=numbers,
    applied=numbers,
    last=numbers,
    compacted=numbers,
    is_quiescent=st.booleans(),
    is_voter=st.booleans(),
    has_confirmed=st.booleans(),
    key_count=numbers,
    data_bytes=numbers,
    others=st.lists(others, max_size=4).map(tuple),
)


def through_stock_amp(answer: Arguments) -> tuple[Arguments, int]:
    """What stock AMP reads of an answer that stock AMP has written, and the longest value in it."""
    box = DescribeReplicas.makeResponse(answer, None)
    return DescribeReplicas.parseResponse(box, None), max(map(len, box.values()))


class DescriptionTests(SynchronousTestCase):
    """There and back."""

    @quickly
    @given(st.lists(descriptions, max_size=5), numbers)
    def test_round_trip(self, given_ones: list[Description], following: int) -> None:
        """A monitor would be told of another term, leader or lag than there is."""
        answer, _ = through_stock_amp(write_descriptions(given_ones, following, MEMBERS))
        self.assertEqual(read_descriptions(answer, MEMBERS), given_ones)
        self.assertEqual(answer["following"], following)

    def test_largest(self) -> None:
        """AMP's values end at 65,535 bytes: a page of groups as large as they can be would not
        arrive."""
        known = Following((1 << 63) - 1, True, Sending.SNAPSHOT, 7)
        row = tuple(Other(at, name, True, known) for at, name in enumerate(MEMBERS, start=1))
        page = [Description(group, group, 1, others=row) for group in range(DESCRIPTIONS_MAX)]
        answer, longest = through_stock_amp(write_descriptions(page, 0, MEMBERS))
        self.assertEqual(read_descriptions(answer, MEMBERS), page)
        self.assertLessEqual(longest, amp.MAX_VALUE_LENGTH)

    def test_columns_mean_what_the_command_says(self) -> None:
        """A program on stock AMP reads the columns by the command's documentation."""
        known = Following(8, True, Sending.REPLICATE, 0)
        said = Description(
            9, 7, 1, Role.LEADER, 4, 1, 10, 9, 11, 3, True, True, True, 5, 99,
            (Other(2, "node-2", True, known), Other(3, "node-9", False)),
        )  # fmt: skip
        self.assertEqual(
            {name: list(column) for name, column in columns_of(said).items()},
            {
                "groups": [9], "group_partitions": [8], "replica_ids": [1], "roles": [3],
                "terms": [4], "leader_ids": [1], "commit_indexes": [10], "applied_indexes": [9],
                "last_indexes": [11], "compacted_indexes": [3], "replica_flags": [7],
                "key_counts": [5], "byte_counts": [99],
                "other_rows": [0, 0], "other_ids": [2, 3], "other_members": [2, 9],
                "other_flags": [7, 0], "match_indexes": [8, 0], "sendings": [1, 0],
                "snapshot_indexes": [0, 0],
            },
        )  # fmt: skip

    def test_contradictions(self) -> None:
        """A node that is broken, or of a later release, would end the command with a traceback, or
        be shown as something that it is not."""
        said = Description(9, 7, 1, others=(Other(2, "node-2", True, None),))
        good = columns_of(said)
        wrong: list[Arguments] = [
            {"terms": [4, 5]},
            {"roles": [4]},
            {"other_rows": [1]},
            {"other_members": [65]},
            {"other_flags": [2], "sendings": [3]},
            {"match_indexes": []},
        ]
        for changes in wrong:
            self.assertRaises(ValueError, read_descriptions, good | changes, MEMBERS)
        self.assertEqual(read_descriptions(good, MEMBERS), [said])

    def test_a_member_that_is_gone(self) -> None:
        """A replica of somebody who is in no topology would be somebody else's."""
        other = Other(2, "node-99", True, None)
        said = Description(9, 7, 1, others=(other,))
        (read,) = read_descriptions(columns_of(said), MEMBERS)
        self.assertEqual(read.others, (replace(other, member=""),))


def columns_of(*said: Description) -> Arguments:
    """The two tables."""
    answer = write_descriptions(said, 0, MEMBERS)
    del answer["following"]
    return answer
