"""The topology as the meta group keeps it."""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address
from kvtwist.core.meta import (
    CLUSTER_VERSION,
    TopologyRecord,
    decode,
    encode,
    first_record,
    objection,
)
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import ConfigurationError


def topology(size: int, partitions: int = 2, **settings: int) -> Topology:
    members = [
        Member(f"node-{number}", f"{number:032x}", Address("10.0.0.1", 8000 + number))
        for number in range(1, size + 1)
    ]
    return Topology("", 1, members, Settings(partitions=partitions, durable=True, **settings))


VECTOR = (
    b'{"cluster_version":1,"format":1,"founding":{"members":'
    b'[["node-1","00000000000000000000000000000001","10.0.0.1:8001"],'
    b'["node-2","00000000000000000000000000000002","10.0.0.1:8002"]],'
    b'"settings":{"durable":true,"partitions":2,"replicas":3,"tokens_per_member":128}},'
    b'"groups":[[1,null,1,[[1,"node-1"],[2,"node-2"]],[],3],'
    b'[2,0,1,[[1,"node-1"],[2,"node-2"]],[],3],[3,1,1,[[1,"node-2"],[2,"node-1"]],[],3]],'
    b'"members":[["node-1","00000000000000000000000000000001","10.0.0.1:8001","active"],'
    b'["node-2","00000000000000000000000000000002","10.0.0.1:8002","active"]],'
    b'"next_group":4,"replicas_wanted":3}'
)


class FormatTests(SynchronousTestCase):
    def test_the_bytes(self) -> None:
        """They stand in every replica of the meta group: another release must read them, and two
        founders must write the same."""
        self.assertEqual(encode(first_record(topology(2))), VECTOR)
        self.assertEqual(decode(VECTOR), first_record(topology(2)))

    def test_there_and_back(self) -> None:
        """What is not read as it was written is another map."""
        for size in (1, 3, 4, 7):
            record = first_record(topology(size, partitions=16))
            self.assertEqual(decode(encode(record)), record)
            self.assertEqual(encode(decode(encode(record))), encode(record))

    def test_a_later_format(self) -> None:
        """To guess at it is to act on a map that nobody has."""
        later = VECTOR.replace(b'"format":1', b'"format":2')
        error = self.assertRaises(ConfigurationError, decode, later)
        self.assertIn("use a later kvtwist", str(error))

    def test_damage(self) -> None:
        """One line, whatever it is."""
        said = json.loads(VECTOR)
        for name in said:
            part = json.dumps({each: said[each] for each in said if each != name}).encode()
            self.assertRaises(ConfigurationError, decode, part)
        for data in (b"", b"{}", b"[]", b"\xff", VECTOR[:-1], VECTOR.replace(b"[],3]", b"3]")):
            self.assertRaises(ConfigurationError, decode, data)


class FirstTests(SynchronousTestCase):
    def test_what_was_allocated(self) -> None:
        """R11: an id that was given once is never given again; so the next ones are kept."""
        record = first_record(topology(7, partitions=16))
        self.assertEqual([each.id for each in record.groups], list(range(1, 18)))
        self.assertEqual(record.next_group, 18)
        for group in record.groups:
            ids = [replica for replica, _ in group.replicas]
            self.assertEqual(ids, list(range(1, group.next_replica)))
        meta = record.groups[0]
        self.assertEqual((meta.partition, meta.learners), (None, (6, 7)))

    def test_more_are_wanted_than_there_are(self) -> None:
        """The wish is kept, for when there are more."""
        record = first_record(topology(2, replicas=5))
        self.assertEqual(record.replicas_wanted, 5)
        self.assertEqual([len(each.replicas) for each in record.groups], [2, 2, 2])

    def test_the_cluster_it_is_of(self) -> None:
        """Two clusters with the same names are two."""
        other = Topology(
            "",
            1,
            [replace(each, identity="f" * 32) for each in topology(2).members],
            topology(2).settings,
        )
        self.assertNotEqual(
            first_record(topology(2)).founding.cluster_id, first_record(other).founding.cluster_id
        )


class ObjectionTests(SynchronousTestCase):
    mine = first_record(topology(3))

    def against(self, kept: TopologyRecord) -> str:
        return objection(self.mine, kept)

    def test_the_same(self) -> None:
        """Else no node ever runs."""
        self.assertEqual(self.against(self.mine), "")

    def test_another_address(self) -> None:
        """Nobody becomes another by moving."""
        members = tuple(
            (replace(member, address=Address("10.9.9.9", 1)), state)
            for member, state in self.mine.members
        )
        self.assertEqual(self.against(replace(self.mine, members=members)), "")

    def test_another_map(self) -> None:
        """Two nodes with two maps both take writes for a key."""
        first, *others = self.mine.groups
        moved = replace(others[0], replicas=tuple(reversed(others[0].replicas)))
        one_state = ((self.mine.members[0][0], "leaving"), *self.mine.members[1:])
        for kept, what in (
            (replace(self.mine, groups=(first, moved, *others[1:])), "groups"),
            (replace(self.mine, next_group=99), "groups"),
            (replace(self.mine, replicas_wanted=5), "replicas wanted"),
            (replace(self.mine, members=one_state), "members"),
            (first_record(topology(4)), "cluster id"),
        ):
            self.assertIn(f"other {what} than", self.against(kept))

    def test_a_later_cluster(self) -> None:
        """A node that cannot read what the others write would stop at the first entry, or worse."""
        kept = replace(self.mine, cluster_version=CLUSTER_VERSION + 1, next_group=99)
        self.assertIn("use a later kvtwist", self.against(kept))
