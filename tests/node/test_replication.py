"""Whole nodes with disks, several to a partition: what was acknowledged is there, whoever is
killed, frozen or cut off; and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import Client
from kvtwist.core.groups import group_of
from kvtwist.core.raft import Message, Role
from kvtwist.core.raft.messages import AppendRequest, Heartbeat
from kvtwist.errors import DiskFull, KvtwistError, NotDone, NotLeader, OutcomeUnknown, TooLarge
from kvtwist.node import proposals
from kvtwist.node.durable import DurablePartitions
from kvtwist.node.limits import Limits
from kvtwist.node.replica import Replica
from kvtwist.wire import commands
from tests.cluster import CLIENT_IP, ip_of
from tests.durable import DurableCase, DurableCluster
from tests.simulated import Host

PARTITIONS = 8
ELECTION_SECONDS = 2.0
"""In which a majority has a leader again, at the latest."""
STEADY_SECONDS = 8.0
"""In which every owner leads again, and all is quiet."""


class ReplicationCase(DurableCase):
    size = 3
    partitions = PARTITIONS

    def setUp(self) -> None:
        super().setUp()
        self.cluster.run(STEADY_SECONDS)

    # -- what a user does -------------------------------------------------------------------------

    def fill(self, count: int = 40) -> dict[str, bytes]:
        wanted = {f"key-{number}": b"%d" % number for number in range(count)}
        self.result(self.client.put_many(wanted))
        return wanted

    def assert_has(self, wanted: dict[str, bytes]) -> None:
        for key, value in wanted.items():
            self.assertEqual(self.get(key), value)

    def beside(self, number: int) -> Client:
        """A client that never reaches that node."""
        others = [each for each in range(1, self.size + 1) if each != number]
        client = self.cluster.client(*others)
        self.enterContext(self.cluster.network.cut(CLIENT_IP, ip_of(number)))
        return client

    # -- what is done to nodes --------------------------------------------------------------------

    def host(self, number: int) -> Host:
        return self.cluster.network.host(ip_of(number))

    def partitions_of(self, number: int) -> DurablePartitions:
        partitions = self.cluster.nodes[number]._partitions
        assert isinstance(partitions, DurablePartitions)
        return partitions

    def partition_of(self, key: str) -> int:
        topology = next(iter(self.cluster.nodes.values())).cluster.founded()
        return topology.partition_of(key.encode())

    def replica(self, number: int, key: str) -> Replica:
        return self.partitions_of(number)._replicas.replica(group_of(self.partition_of(key)))

    def leader_of(self, key: str) -> int:
        """The node that leads *key*'s partition in the highest term."""
        all_of = [
            (replica.raft.term, number)
            for number in self.cluster.nodes
            if (replica := self.held(number, key)) is not None and replica.leads
        ]
        return max(all_of)[1]

    def held(self, number: int, key: str) -> Replica | None:
        return self.partitions_of(number)._replicas.all().get(group_of(self.partition_of(key)))

    def asked_at(self, number: int, key: str) -> Deferred[Any]:
        """A read at one node, and nowhere else."""
        arguments = {"key": key.encode(), "keyspace": None}
        try:
            return self.partitions_of(number).apply(self.partition_of(key), commands.Get, arguments)
        except KvtwistError:
            failed: Deferred[Any] = Deferred()
            failed.errback(Failure())
            return failed

    def written_at(self, number: int, key: str, value: bytes) -> Deferred[Any]:
        arguments = {"key": key.encode(), "value": value, "keyspace": None, "once": None}
        return self.partitions_of(number).apply(self.partition_of(key), commands.Put, arguments)

    @contextmanager
    def cuts(self, *pairs: tuple[int, int]) -> Iterator[None]:
        with ExitStack() as stack:
            for one, other in pairs:
                stack.enter_context(self.cluster.network.cut(ip_of(one), ip_of(other)))
            yield

    def terms(self) -> dict[tuple[int, int], int]:
        return {
            (number, group): replica.raft.term
            for number in self.cluster.nodes
            for group, replica in self.partitions_of(number)._replicas.all().items()
        }


class KilledTests(ReplicationCase):
    def test_a_leader(self) -> None:
        """`kill -9` of whoever leads: nothing is lost, and reads and writes go on in time."""
        wanted = self.fill()
        key = "key-1"
        self.cluster.crash(self.leader_of(key))
        self.cluster.run(ELECTION_SECONDS)
        self.assert_has(wanted)
        self.put(key, "new")
        self.assertEqual(self.get(key), b"new")

    def test_one_after_the_other(self) -> None:
        """Each in turn, and back: what one disk missed it is brought."""
        wanted = self.fill()
        for number in (1, 2, 3, 1):
            self.cluster.crash(number)
            self.cluster.run(ELECTION_SECONDS)
            self.put("key-1", f"{number}")
            wanted["key-1"] = b"%d" % number
            self.cluster.start_node(number)
            self.cluster.run(STEADY_SECONDS)
            self.client = self.cluster.client()
            self.assert_has(wanted)

    def test_all_at_once(self) -> None:
        """A power cut: everything acknowledged is on a majority of the disks."""
        wanted = self.fill()
        self.put("last", "one")
        for number in (1, 2, 3):
            self.cluster.crash(number)
        self.cluster.start()
        self.cluster.run(STEADY_SECONDS)
        self.client = self.cluster.client()
        self.assert_has(wanted | {"last": b"one"})

    def test_a_majority_is_needed(self) -> None:
        """One of three acknowledges nothing: it might be the one that is behind."""
        self.put("k", "1")
        for number in [each for each in (1, 2, 3) if each != self.leader_of("k")]:
            self.cluster.crash(number)
        error = self.assertRaises(KvtwistError, self.put, "k", "2")
        self.assertIsInstance(error, (OutcomeUnknown, NotDone))
        self.assertRaises(KvtwistError, self.get, "k")


class FrozenTests(ReplicationCase):
    def test_reads_at_a_thawed_leader_are_never_stale(self) -> None:
        """A read that sat in the socket of a leader that was stopped, while another one was elected
        and took a write: it must not answer from what it has (R5)."""
        self.put("k", "old")
        frozen = self.leader_of("k")
        self.host(frozen).freeze()
        answers: list[Any] = []

        def ask() -> None:
            self.asked_at(frozen, "k").addBoth(answers.append)

        self.host(frozen).callLater(0, ask)
        self.cluster.run(ELECTION_SECONDS)
        self.client = self.beside(frozen)
        self.put("k", "new")
        self.assertNotEqual(self.leader_of("k"), frozen)
        self.host(frozen).callLater(0, ask)
        self.cluster.run(1.0)
        self.assertEqual(answers, [])
        self.host(frozen).thaw()
        ask()
        self.cluster.run(3.0)
        self.assertEqual(len(answers), 3)
        for answer in answers:
            if not isinstance(answer, Failure):
                self.assertEqual(answer["value"], b"new")
        self.assertIsInstance(answers[0], Failure)

    def test_a_leader(self) -> None:
        """SIGSTOP: others lead; when it goes on it follows, and leads again what it owns."""
        wanted = self.fill()
        owner = self.leader_of("key-1")
        self.host(owner).freeze()
        self.cluster.run(ELECTION_SECONDS)
        self.client = self.beside(owner)
        self.put("key-1", "new")
        self.assertNotEqual(self.leader_of("key-1"), owner)
        self.host(owner).thaw()
        self.cluster.run(2 * STEADY_SECONDS)
        self.assertEqual(self.leader_of("key-1"), owner)
        self.assert_has(wanted | {"key-1": b"new"})

    def test_nothing_is_brought_to_who_is_silent(self) -> None:
        """What lies in a frozen node's socket is unknown to whoever sent it; a write that waits for
        the next leader is done."""
        self.put("k", "old")
        frozen = self.leader_of("k")
        self.client = self.beside(frozen)
        self.get("k")
        self.host(frozen).freeze()
        self.cluster.run(0.6)
        self.put("k", "new")
        self.assertEqual(self.get("k"), b"new")

    def test_for_a_moment(self) -> None:
        """Less than an election timeout costs nobody's leadership."""
        self.fill()
        before = self.terms()
        self.host(1).freeze()
        self.cluster.run(0.3)
        self.host(1).thaw()
        self.cluster.run(3.0)
        self.assertEqual(self.terms(), before)

    def test_who_was_frozen_accuses_nobody(self) -> None:
        """W7: it has not listened; that others were not heard says nothing about them."""
        accused: list[str] = []
        post: Any = self.cluster.nodes[3]
        post = self.partitions_of(3)._post
        before, post._silent = post._silent, accused.append
        self.host(3).freeze()
        self.cluster.run(20.0)
        self.host(3).thaw()
        self.cluster.run(3.0)
        self.assertEqual(accused, [])
        post._silent = before


class CutTests(ReplicationCase):
    """R9: a majority that reaches each other makes progress, whatever else is cut."""

    def both(self, key: str) -> None:
        self.cluster.run(ELECTION_SECONDS)
        self.put(key, "new")
        self.assertEqual(self.get(key), b"new")

    def test_a_leader_cut_off(self) -> None:
        """It steps down by itself; the two others elect."""
        self.put("k", "1")
        leader = self.leader_of("k")
        others = [each for each in (1, 2, 3) if each != leader]
        with self.cuts(*((leader, other) for other in others)):
            self.client = self.beside(leader)
            self.both("k")
            self.assertFalse(self.replica(leader, "k").leads)
        self.cluster.run(STEADY_SECONDS)
        self.assertEqual(self.get("k"), b"new")

    def test_one_link_of_three(self) -> None:
        """Leader and one follower do not reach each other; the third reaches both. Someone leads
        and keeps leading: terms do not rise for as long as it lasts."""
        self.put("k", "1")
        leader = self.leader_of("k")
        other = next(each for each in (1, 2, 3) if each != leader)
        with self.cuts((leader, other)):
            self.both("k")
            self.cluster.run(10.0)
            before = self.replica(leader, "k").raft.term
            self.cluster.run(20.0)
            self.assertLessEqual(self.replica(leader, "k").raft.term, before)
            self.both("k")

    def test_a_deposed_leader_does_not_leave_its_callers_waiting(self) -> None:
        """Each write ends, long before its caller has given up; as unknown, since the entry may be
        on the way to the majority."""
        self.put("k", "1")
        leader = self.leader_of("k")
        with self.cuts(*((leader, each) for each in (1, 2, 3) if each != leader)):
            ended: list[Any] = []
            self.written_at(leader, "k", b"lost").addBoth(ended.append)
            self.asked_at(leader, "k").addBoth(ended.append)
            self.cluster.run(2.5)
            self.assertEqual(len(ended), 2)
            outcomes = {type(each.value) for each in ended}
            self.assertIn(OutcomeUnknown, outcomes)
        self.cluster.run(STEADY_SECONDS)
        self.assertIn(self.get("k"), (b"1", b"lost"))
        self.put("k", "2")
        self.assertEqual(self.get("k"), b"2")


class FiveTests(CutTests):
    """R9 with five nodes; each partition is on three of them."""

    size = 5

    def row(self, key: str) -> list[int]:
        topology = self.cluster.nodes[1].cluster.founded()
        row = topology.placement.replicas[self.partition_of(key)]
        return [int(name.removeprefix("node-")) for name in row]

    def test_a_leader_cut_off(self) -> None:
        """From all others."""
        self.put("k", "1")
        leader = self.leader_of("k")
        others = [each for each in range(1, 6) if each != leader]
        with self.cuts(*((leader, other) for other in others)):
            self.client = self.beside(leader)
            self.both("k")
        self.cluster.run(STEADY_SECONDS)
        self.assertEqual(self.get("k"), b"new")

    def test_one_link_of_three(self) -> None:
        """A bridge: the leader's two followers reach each other only through it."""
        self.put("k", "1")
        leader = self.leader_of("k")
        one, other = [each for each in self.row("k") if each != leader]
        with self.cuts((one, other)):
            self.both("k")
            before = self.replica(leader, "k").raft.term
            self.cluster.run(20.0)
            self.assertEqual(self.replica(leader, "k").raft.term, before)

    def test_a_deposed_leader_does_not_leave_its_callers_waiting(self) -> None:
        """A ring: each node reaches its two neighbours only. Partitions whose nodes are in a row
        have a majority, and serve."""
        ring = [(1, 3), (1, 4), (2, 4), (2, 5), (3, 5)]
        near = {frozenset((at, at % 5 + 1)) for at in range(1, 6)}
        keys = [f"key-{at}" for at in range(60)]
        served = [
            key
            for key in keys
            if sum(pair <= set(self.row(key)) for pair in near) == 2  # in a row
        ]
        self.assertGreater(len(served), 5)
        with self.cuts(*ring):
            self.cluster.run(2 * ELECTION_SECONDS)
            for key in served[:6]:
                self.assertEqual(sum(self.has_quorum(number, key) for number in self.row(key)), 1)
        self.cluster.run(STEADY_SECONDS)
        for key in served[:6]:
            self.put(key, "after")
            self.assertEqual(self.get(key), b"after")

    def has_quorum(self, number: int, key: str) -> bool:
        """Whether that node leads, and can confirm it."""
        replica = self.replica(number, key)
        if not replica.leads:
            return False
        outcome: list[Any] = []
        replica.read(b"x", 0).addBoth(outcome.append)
        self.cluster.run(0.5)
        return outcome == [None]


class QuietTests(ReplicationCase):
    """R18: groups in which nothing happens say nothing, and still notice."""

    def setUp(self) -> None:
        super().setUp()
        self.put("k", "1")
        self.cluster.run(5.0)
        for number in (1, 2, 3):
            self.assertTrue(self.replica(number, "k").raft.is_quiescent, number)

    def test_the_leaders_node_is_killed(self) -> None:
        """Without a single request: the partition has another leader when one comes."""
        leader = self.leader_of("k")
        self.cluster.crash(leader)
        self.cluster.run(ELECTION_SECONDS)
        self.assertNotEqual(self.leader_of("k"), leader)
        self.assertEqual(self.get("k"), b"1")

    def test_the_leaders_node_is_frozen(self) -> None:
        """No connection is lost by that: silence is all that there is."""
        leader = self.leader_of("k")
        self.host(leader).freeze()
        self.cluster.run(ELECTION_SECONDS)
        self.assertNotEqual(self.leader_of("k"), leader)

    def test_one_groups_leader_is_gone_and_its_node_lives(self) -> None:
        """The node gives signs of life; the group must not take them for its leader's. Here it was
        made anew from the disk, and is a follower that hears nobody."""
        leader = self.leader_of("k")
        replicas = self.partitions_of(leader)._replicas
        replicas._start_anew()
        self.assertFalse(self.replica(leader, "k").leads)
        self.cluster.run(ELECTION_SECONDS)
        self.assertIs(self.replica(self.leader_of("k"), "k").raft.role, Role.LEADER)
        self.put("k", "2")
        self.assertEqual(self.get("k"), b"2")

    def test_nothing_is_said(self) -> None:
        """256 groups that say something ten times a second are a node that does nothing else."""
        sent: list[object] = []
        for number in (1, 2, 3):
            self.patch(
                self.partitions_of(number)._replicas.replica(group_of(0)),
                "_send",
                lambda group, message: sent.append(message),
            )
        self.cluster.run(5.0)
        self.assertEqual(sent, [])


class OrderlyTests(ReplicationCase):
    def test_rolling_restart(self) -> None:
        """T11: a node that is stopped in order has handed over what it led: a client with its
        default retries sees no error, and nothing is lost."""
        outcomes: list[Any] = []
        last: dict[str, str] = {}
        for number in (1, 2, 3):
            stopping = self.cluster.nodes[number].stopService()
            self.write(outcomes, last, f"{number}-stop", until=stopping)
            self.cluster.network.crash(ip_of(number))
            self.write(outcomes, last, f"{number}-away")
            self.cluster.start_node(number)
            for step in range(8):
                self.write(outcomes, last, f"{number}-back-{step}")
        self.assertGreater(len(outcomes), 100)
        errors = [each.value for each in outcomes if isinstance(each, Failure)]
        self.assertEqual(errors, [])
        self.assert_has({key: value.encode() for key, value in last.items()})

    def write(
        self,
        outcomes: list[Any],
        last: dict[str, str],
        what: str,
        until: Deferred[None] | None = None,
    ) -> None:
        """Writes for a second; longer, if *until* has not fired."""
        for step in range(60):
            if step >= 10 and (until is None or until.called):
                return
            key = f"key-{step % 10}"
            value = f"{what}-{step}"
            last[key] = value
            self.client.put(key, value).addBoth(outcomes.append)
            self.cluster.run(0.1)

    def test_a_full_disk_hands_over(self) -> None:
        """S2: a leader that cannot write lets another one lead: writes go on, not only reads."""
        self.put("k", "1")
        full = self.leader_of("k")
        platter = self.cluster.platters[full]
        platter.trouble = DiskFull("the disk is full")
        outcome: list[Any] = []
        self.client.put("k", "2").addBoth(outcome.append)
        self.cluster.run(6.0)
        self.assertEqual(len(outcome), 1)
        self.assertNotEqual(self.leader_of("k"), full)
        self.put("k", "3")
        self.assertEqual(self.get("k"), b"3")
        self.cluster.run(20.0)
        self.assertNotEqual(self.leader_of("k"), full)
        platter.trouble = None
        self.cluster.run(3 * STEADY_SECONDS)
        self.assertEqual(self.leader_of("k"), full)
        self.assertEqual(self.get("k"), b"3")
        self.assertEqual(self.cluster.hopeless, {})

    def test_the_owner_leads_again(self) -> None:
        """After it was away; and each partition is led by one."""
        self.cluster.crash(2)
        self.cluster.run(ELECTION_SECONDS)
        self.cluster.start_node(2)
        self.cluster.run(2 * STEADY_SECONDS)
        topology = self.cluster.nodes[1].cluster.founded()
        for partition in range(PARTITIONS):
            leads = [
                f"node-{number}"
                for number in (1, 2, 3)
                if self.partitions_of(number).leads(partition)
            ]
            self.assertEqual(leads, [topology.owner(partition).name])

    def test_who_does_not_lead_proposes_nothing(self) -> None:
        """`NOT_LEADER` is a promise that nothing was done."""
        self.put("k", "1")
        other = next(each for each in (1, 2, 3) if each != self.leader_of("k"))
        before = self.replica(other, "k").raft.last_index
        error = self.assertRaises(NotLeader, self.written_at, other, "k", b"2")
        self.assertEqual(error.leader, f"node-{self.leader_of('k')}")
        self.assertEqual(self.replica(other, "k").raft.last_index, before)


class NonsenseTests(ReplicationCase):
    """One peer's nonsense stops nobody; a mistake of our own stops this node, and nothing else."""

    def test_a_message_that_may_not_come(self) -> None:
        """It is passed over; what stands beside it is not."""
        self.put("k", "1")
        leader = self.leader_of("k")
        here, other = [each for each in (1, 2, 3) if each != leader]
        replica, replicas = self.replica(here, "k"), self.partitions_of(here)._replicas
        sender = self.replica(other, "k").raft.replica
        me, term = replica.raft.replica, replica.raft.term
        replicas.step(replica.group, Heartbeat(sender, me, term, 0))
        replicas.step(replica.group, AppendRequest(sender, me, term + 1, 1, 99, (), 0))
        self.assertEqual(replicas.senseless, 2)
        self.assertEqual(replica.raft.term, term)
        self.cluster.run(3.0)
        self.assertEqual(self.leader_of("k"), leader)
        self.put("k", "2")
        self.assertEqual(self.get("k"), b"2")
        self.assertEqual(self.cluster.hopeless, {})

    def test_a_mistake_of_our_own(self) -> None:
        """Nobody knows what was done by halves: the node ends, and begins anew from its disk."""
        wanted = self.fill()
        leader = self.leader_of("key-1")
        here = next(each for each in (1, 2, 3) if each != leader)
        replica = self.replica(here, "key-1")

        def fail(message: Message) -> None:
            raise AssertionError("half done")

        self.patch(replica, "step", fail)
        self.client = self.beside(here)
        self.put("key-1", "new")
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.assertIn("half done", str(self.cluster.hopeless[f"node-{here}"]))
        self.assertEqual(list(self.cluster.hopeless), [f"node-{here}"])
        self.cluster.crash(here)
        self.cluster.start_node(here)
        self.cluster.run(STEADY_SECONDS)
        self.assert_has(wanted | {"key-1": b"new"})

    def test_an_entry_that_nobody_could_be_brought(self) -> None:
        """It would be sent, and refused, for ever, and nothing after it would be committed."""
        self.patch(proposals, "ENTRY_BYTES_MAX", 10_000)
        self.put("k", "1")
        error = self.assertRaises(TooLarge, self.put, "k", "v" * 10_000)
        self.assertEqual((error.setting, error.limit), ("box_bytes_max", 10_000))
        self.put("k", "v" * 9_000)
        self.assertEqual(self.get("k"), b"v" * 9_000)


class LimitTests(SynchronousTestCase):
    """Limits are each node's own; the log is not."""

    def cluster(self, *limits: Limits) -> DurableCluster:
        cluster = DurableCluster(len(limits), 4)
        self.addCleanup(cluster.cleanup)
        for number, each in enumerate(limits, start=1):
            cluster.start_node(number, limits=each)
        cluster.run(STEADY_SECONDS)
        return cluster

    def test_small_limits(self) -> None:
        """Nodes that take small values only: many of them together are still more than a box of
        theirs, and must come through to a follower that was away."""
        small = Limits(value_bytes_max=1 << 10)
        cluster = self.cluster(small, small, small)
        cluster.crash(2)
        cluster.run(ELECTION_SECONDS)
        client = cluster.client(1, 3)
        for _ in range(4):
            wanted = {f"{{t}}{number}": bytes(1000) for number in range(120)}
            cluster.network.result_of(client.put_many(wanted))
        cluster.start_node(2, limits=small)
        cluster.run(STEADY_SECONDS)
        applied = {
            number: node._partitions.applied(node.cluster.founded().partition_of(b"{t}"))
            for number, node in cluster.nodes.items()
        }
        self.assertEqual(len(set(applied.values())), 1, applied)

    def test_a_follower_that_takes_less(self) -> None:
        """Else the group stops for ever when the third node is gone: the follower refuses the
        entry each time that it comes."""
        less = Limits(value_bytes_max=1 << 10, held_bytes_max=1 << 19)
        cluster = self.cluster(Limits(), less, Limits())
        key = cluster.key_of(1)
        client = cluster.client(1, 3)
        cluster.crash(3)
        cluster.run(ELECTION_SECONDS)
        value = bytes(3 << 20)
        cluster.network.result_of(client.put(key, value))
        partition = cluster.nodes[1].cluster.founded().partition_of(key.encode())
        cluster.run(1.0)
        self.assertEqual(
            cluster.nodes[2]._partitions.applied(partition),
            cluster.nodes[1]._partitions.applied(partition),
        )
