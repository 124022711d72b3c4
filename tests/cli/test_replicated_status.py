"""What ``kvcli status`` and ``kvcli where`` say of partitions that are replicated."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from kvtwist.cli import cluster as cluster_commands
from kvtwist.cli.status import status
from kvtwist.errors import DiskFull, KvtwistError, Unavailable
from kvtwist.wire import commands
from tests.cli.test_commands import PEERS
from tests.cli.test_status import StatusTestCase
from tests.cluster import SimulatedCluster, ip_of
from tests.durable import DurableCluster

PARTITIONS = 8


class ReplicatedTestCase(StatusTestCase):
    """A cluster whose nodes have disks."""

    cluster: DurableCluster

    def setUp(self) -> None:
        super().setUp()
        self.cluster.run(8.0)  # each partition is led by its owner

    def make_cluster(self) -> SimulatedCluster:
        cluster = DurableCluster(self.size, PARTITIONS)
        self.addCleanup(cluster.cleanup)
        return cluster

    def put(self, *keys: str) -> None:
        for key in keys:
            self.result_of(self.client.put(key, "v"))

    def summary(self, code: int = 0) -> list[str]:
        """What is said after the table of members."""
        lines = self.status(PEERS, code)
        return lines[lines.index("", 2) + 1 :]

    def owned(self, number: int) -> list[int]:
        """The partitions of node-*number*."""
        rows = next(iter(self.cluster.nodes.values())).cluster.founded().placement.replicas
        return [at for at, row in enumerate(rows) if row[0] == f"node-{number}"]

    def where(self, key: str) -> dict[str, Any]:
        """The JSON object about a key."""
        return self.said(cluster_commands.where, key.encode(), PEERS)


class StatusTests(ReplicatedTestCase):
    """The members, and the partitions."""

    def test_all_well(self) -> None:
        """The output in full: one would not see that all is well."""
        self.put("a", "b", "c")
        self.cluster.run(1.0)
        identity = self.cluster.nodes[1].cluster.founded().cluster_id[:8]
        seconds = int(self.cluster.network.clock.seconds())
        owns = [len(self.owned(number)) for number in (1, 2, 3)]
        self.assertEqual(
            self.status(PEERS),
            [
                f"cluster {identity}, epoch 1: 3 members, 8 partitions, 3 keys",
                "",
                "MEMBER  ADDRESS        OWNS  LEADS  REPLICAS  LAG  KEYS  DISK    UP  ANSWERS",
                *(
                    f"node-{at}  10.0.0.{at}:8001     {many}      {many}         8    0     3  ok  "
                    f"  {seconds} s  yes"
                    for at, many in enumerate(owns, start=1)
                ),
                "",
                "8 of 8 partitions are available and complete, each led by its owner",
            ],
        )

    def test_a_partition_each(self) -> None:
        """``--partitions`` would leave some out, or show another state than there is."""
        self.put("a")
        *_, head, meta = self.status(PEERS, with_partitions=True)[:-PARTITIONS]
        self.assertEqual(
            head.split(),
            ["PARTITION", "OWNER", "LEADER", "TERM", "COMMIT", "LAG", "REPLICAS", "KEYS", "STATE"],
        )
        self.assertEqual(meta.split()[0], "meta")
        rows = [line.split() for line in self.status(PEERS, with_partitions=True)[-PARTITIONS:]]
        placement = self.cluster.nodes[1].cluster.founded().placement
        for at, (number, owner, leader, *row) in enumerate(rows):
            self.assertEqual((int(number), owner, leader), (at, *2 * (placement.owner(at),)))
            self.assertEqual(row[2:6] + row[7:], ["0", "3", "of", "3", "ok"])

    def test_pages(self) -> None:
        """Of a cluster of thousands of partitions, all but the first few would look lost."""
        whole = self.said(status, PEERS, True)
        for page in (1, 2, 3, 9):
            self.patch(commands, "DESCRIPTIONS_MAX", page)
            said = self.said(status, PEERS, True)
            self.assertEqual(said["partition_list"], whole["partition_list"])
            self.assertEqual(said["meta"], whole["meta"])
        self.assertEqual((whole["complete"], whole["meta"]["available"]), (8, True))

    def test_one_down(self) -> None:
        """A member that is away is no outage: who is woken for it learns to sleep on. But one
        would have to see it, and that fewer may fail now."""
        self.put("a")
        mine = self.owned(3)
        self.cluster.crash(3)
        self.cluster.run(5.0)
        available, short, *elsewhere = self.summary()
        self.assertEqual(available, "8 of 8 partitions are available")
        away = "8 partitions (0-7): node-3 cannot be reached (connection refused)"
        self.assertEqual(short, f"short of a replica: {away}")
        for line in elsewhere:
            self.assertRegex(line, "^not led by its owner: .*: node-[12] instead of node-3$")
        said = self.said(status, PEERS, False)
        self.assertEqual((said["available"], said["complete"]), (8, 0))
        self.assertEqual(said["led_by_owner"], 8 - len(mine))
        self.assertEqual([each["partitions"] for each in said["short"]], [[*range(8)]])
        self.assertEqual(said["nodes"][2]["error"], "connection refused")

    def test_two_down(self) -> None:
        """One would not learn why nothing works, and which nodes to start."""
        self.put("a")
        self.cluster.crash(2)
        self.cluster.crash(3)
        for _ in range(20):  # there is always something to say, also before it was noticed
            self.cluster.run(0.05)
            self.run_command(status, PEERS, False)
        self.cluster.run(3.0)
        last = self.summary(3)
        why = "(node-2: connection refused, node-3: connection refused); a majority of 2 is needed"
        self.assertEqual(last[0], "0 of 8 partitions are available")
        for line in last[1:]:
            self.assertTrue(line.startswith("UNAVAILABLE: "), line)
            self.assertTrue(line.endswith(why), line)
        said = self.said(status, PEERS, False, code=3)
        self.assertEqual(
            sorted(at for each in said["unavailable"] for at in each["partitions"]), [*range(8)]
        )

    def test_cut_in_two(self) -> None:
        """A node that nobody else hears would count as one that takes part, since it answers."""
        self.put("a")
        with ExitStack() as cuts:
            for other in (1, 2):
                cuts.enter_context(self.cluster.network.cut(ip_of(3), ip_of(other)))
            self.cluster.run(6.0)
            available, *rest = self.summary()
            self.assertEqual(available, "8 of 8 partitions are available")
            short = [line for line in rest if line.startswith("short")]
            self.assertEqual(
                short, ["short of a replica: 8 partitions (0-7): node-3 is not heard by its leader"]
            )

    def test_a_node_that_does_not_tell(self) -> None:
        """A node of another release would end the command with a traceback, or count as one that
        has lost everything without a word."""
        known: Any = self.cluster.nodes[3].server._responders
        known.pop(b"DescribeReplicas")
        lines = self.status(PEERS, self.run_command(status, PEERS, False)[0])
        said = " ".join(self.row(lines, "node-3"))
        self.assertIn("yes; does not tell of its replicas: ", said)
        owned = len(self.owned(3))
        self.assertIn(f"{8 - owned} of 8 partitions are available", lines)
        self.assertIn("its leader node-3 cannot be reached (", "\n".join(lines))

    def test_full_disk(self) -> None:
        """S2: one would look for the fault in the network."""
        self.put("a")
        self.cluster.platters[3].trouble = DiskFull("the disk is full: 0 bytes are left")
        for at in range(20):  # what meets the full disk is unknown; the others take over
            self.client.put(f"{at}", "v").addErrback(lambda failure: failure.trap(KvtwistError))
        self.cluster.run(5.0)
        lines = self.status(PEERS)
        self.assertIn("the disk is full", " ".join(self.row(lines, "node-3")))
        self.assertIn("8 of 8 partitions are available", lines)
        short = "node-3 cannot write: the disk is full: 0 bytes are left"
        self.assertIn(short, "\n".join(lines))
        self.cluster.platters[3].trouble = None
        self.cluster.run(15.0)
        self.assertIn("complete", "\n".join(self.summary()))

    def test_after_everything(self) -> None:
        """What was wrong once would be shown for ever."""
        self.put("a")
        for number in (2, 3):
            self.cluster.crash(number)
        self.cluster.run(3.0)
        for number in (2, 3):
            self.cluster.start_node(number)
        self.cluster.run(15.0)
        self.assertEqual(
            self.summary(), ["8 of 8 partitions are available and complete, each led by its owner"]
        )


class TruthTests(ReplicatedTestCase):
    """What is said to be available is, and what is said not to be is not."""

    def assert_true(self, code: int) -> list[bool]:
        """Once everybody has noticed: where there is said to be a leader, it does what it is asked
        itself, and else nobody does. Which partitions are available."""
        self.cluster.run(6.0)
        said = self.said(status, PEERS, True, code=code)["partition_list"]
        topology = next(iter(self.cluster.nodes.values())).cluster.founded()
        keys = {topology.partition_of(b"%d" % at): b"%d" % at for at in range(200)}
        done: dict[int, set[str]] = {at: set() for at in range(PARTITIONS)}
        client = self.cluster.client(*self.cluster.nodes, timeout_seconds=3.0)
        for member in topology.members:
            for at, key in keys.items():
                put = {"key": key, "value": b"v", "forwarded": True, "timeout_ms": 2000}
                asked = client.ask(member.address, commands.Put, put)
                asked.addCallback(_note, done[at], member.name)
                asked.addErrback(lambda failure: failure.trap(KvtwistError))
        self.cluster.run(6.0)
        for at, each in enumerate(said):
            self.assertEqual(done[at], {each["leader"]} if each["available"] else set(), each)
        return [each["available"] for each in said]

    def test_crashes(self) -> None:
        """One after the other, and back."""
        self.assertTrue(all(self.assert_true(0)))
        self.cluster.crash(1)
        self.assertTrue(all(self.assert_true(0)))
        self.cluster.crash(2)
        self.assertFalse(any(self.assert_true(3)))
        self.cluster.start_node(1)
        self.assertTrue(all(self.assert_true(0)))

    def test_cuts(self) -> None:
        """A chain of three; then everybody alone, though each of them answers here."""
        network = self.cluster.network
        with network.cut(ip_of(1), ip_of(3)):
            self.assertTrue(all(self.assert_true(0)))
            with network.cut(ip_of(1), ip_of(2)), network.cut(ip_of(2), ip_of(3)):
                self.assertFalse(any(self.assert_true(3)))
        self.assertTrue(all(self.assert_true(0)))

    def test_frozen(self) -> None:
        """SIGSTOP, of one and of two."""
        self.cluster.network.host(ip_of(3)).freeze()
        self.assertTrue(all(self.assert_true(0)))
        self.cluster.network.host(ip_of(1)).freeze()
        self.assertFalse(any(self.assert_true(3)))


class WhereTests(ReplicatedTestCase):
    """One partition."""

    def test_all_well(self) -> None:
        """The output in full."""
        key = self.cluster.key_of(2)
        self.put(key, key)
        self.cluster.run(1.0)
        _, console = self.run_command(cluster_commands.where, key.encode(), PEERS)
        said = self.where(key)
        _, second, third = said["replicas"]
        commit, term = said["commit"], said["term"]
        self.assertEqual(
            console.out.splitlines()[3:],
            [
                "owner            node-2 at 10.0.0.2:8001",
                f"replicas         node-2, {second}, {third}",
                f"preference list  {', '.join(said['preference_list'])}",
                f"leader           node-2, in term {term}",
                f"commit index     {commit}",
                "quorum           2 of 3 replicas; 3 take part",
                "available        yes",
                "",
                "MEMBER  REPLICA  ROLE      TERM  MATCH  LAG  APPLIED  STATE",
                f"node-2        1  leader       {term}      -    0        {commit}  ok",
                f"{second}        2  follower     {term}      {commit}    0        {commit}  ok",
                f"{third}        3  follower     {term}      {commit}    0        {commit}  ok",
            ],
        )  # fmt: skip
        self.assertEqual((said["key_count"], said["present"], said["needed"]), (1, 3, 2))

    def test_lag(self) -> None:
        """One would not see that a replica has less than the others, or how much."""
        key = self.cluster.key_of(2)
        self.put(key)
        before = self.where(key)["commit"]
        self.cluster.crash(1)
        self.cluster.run(2.0)
        self.put(*[key] * 12)
        said = self.where(key)
        (lost,) = [each for each in said["replica_states"] if each["member"] == "node-1"]
        self.assertEqual((lost["lag"], lost["match"], lost["applied"]), (12, before, None))
        self.assertEqual(lost["absent"], "connection refused")
        self.assertEqual((said["available"], said["present"]), (True, 2))

    def test_lag_that_nobody_knows(self) -> None:
        """A leader that fell would seem to have lost everything: its successor knows nothing yet of
        what it has."""
        key = self.cluster.key_of(2)
        self.put(key)
        self.cluster.crash(2)
        self.cluster.run(3.0)
        self.put(key)
        said = self.where(key)
        (lost,) = [each for each in said["replica_states"] if each["member"] == "node-2"]
        self.assertEqual((lost["lag"], lost["match"]), (None, None))
        _, console = self.run_command(cluster_commands.where, key.encode(), PEERS)
        self.assertRegex(console.out, r"\nnode-2 +1  - +-  +-  +-  +-  connection refused\n")

    def test_no_majority(self) -> None:
        """One would learn that a key cannot be read, and not why."""
        key = self.cluster.key_of(2)
        self.put(key)
        self.cluster.crash(1)
        self.cluster.crash(3)
        self.cluster.run(5.0)
        said = self.where(key)
        self.assertFalse(said["available"])
        self.assertIn("2 of 3 replicas", said["why"])
        self.assertIn("a majority of 2 is needed", said["why"])
        with self.assertRaises(KvtwistError):
            self.result_of(self.client.get(key))

    def test_leader_frozen(self) -> None:
        """One would wait for each replica in turn, or see a leader that is none any more."""
        key = self.cluster.key_of(2)
        self.put(key)
        self.cluster.network.host(ip_of(2)).freeze()
        self.cluster.run(5.0)
        before = self.cluster.network.clock.seconds()
        said = self.where(key)
        self.assertLess(self.cluster.network.clock.seconds() - before, 1.5)
        self.assertTrue(said["available"])
        self.assertIn(said["leader"], ("node-1", "node-3"))
        self.assertGreater(said["term"], 1)

    def test_all_down(self) -> None:
        """It would be a traceback."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        with self.assertRaises(Unavailable):
            self.where("k")


class LoneTests(ReplicatedTestCase):
    """A cluster of one node with a disk."""

    size = 1

    def test_status(self) -> None:
        """The first cluster that most people start would be described in broken English."""
        self.put("a")
        code, console = self.run_command(status, "10.0.0.1:8001", False)
        self.assertEqual(code, 0)
        self.assertIn(": 1 member, 8 partitions, 1 key\n", console.out)
        self.assertIn("8 of 8 partitions are available and complete", console.out)
        _, console = self.run_command(cluster_commands.where, b"a", "10.0.0.1:8001")
        self.assertIn("quorum           1 of 1 replica; 1 takes part\n", console.out)

    def test_json(self) -> None:
        """A monitor could not read all of it: everything is said of each partition."""
        _, console = self.run_command(status, "10.0.0.1:8001", True, as_json=True)
        said = json.loads(console.out)
        self.assertEqual([each["partition"] for each in said["partition_list"]], [*range(8)])
        self.assertEqual(said["nodes"][0]["condition"], "open")
        self.assertEqual((said["nodes"][0]["leads"], said["nodes"][0]["held"]), (8, 8))


def _note(_: object, done: set[str], name: str) -> None:
    done.add(name)
