"""What ``kvcli status`` says: of the members, and of each partition."""

from __future__ import annotations

from kvtwist.cli import data
from kvtwist.cli.status import status
from kvtwist.client import Client
from kvtwist.core.address import Address
from kvtwist.errors import ConfigurationError
from tests.cli.test_commands import PEERS, CommandTestCase
from tests.cluster import PORT, ip_of

ONE = "10.0.0.1:8001"


class StatusTestCase(CommandTestCase):
    """Asks for the status, by a client of its own."""

    def status(self, peers: str = ONE, code: int = 0, with_partitions: bool = False) -> list[str]:
        """The lines that are printed."""
        client = Client(self.cluster.network.host("10.0.1.2"), peers, chance=lambda: 0.0)
        seen, console = self.run_command(status, peers, with_partitions, client=client)
        self.assertEqual((seen, console.err), (code, ""), console.out)
        self.result_of(client.close())
        return console.out.splitlines()

    def row(self, lines: list[str], name: str) -> list[str]:
        """The words about one member."""
        (row,) = [line.split() for line in lines if line.startswith(f"{name} ")]
        return row


class MemberTests(StatusTestCase):
    """The members, in a cluster in memory."""

    def test_all_up(self) -> None:
        """One would not see at a glance that all is well, or with how much data."""
        for number in (1, 1, 2):
            key = self.cluster.key_of(number, f"key{number}{self.cluster.network.clock.seconds()}")
            self.run_command(data.put, key.encode(), b"v")
        lines = self.status()
        topology = self.cluster.nodes[1].cluster.founded()
        self.assertEqual(
            lines[0],
            f"cluster {topology.cluster_id[:8]}, epoch 1: 3 members, 16 partitions, 3 keys",
        )
        self.assertEqual(lines[1], "")
        head = ["MEMBER", "ADDRESS", "OWNS", "LEADS", "REPLICAS", "LAG", "KEYS", "DISK", "UP"]
        self.assertEqual(lines[2].split(), [*head, "ANSWERS"])
        owned = 0
        for number, keys in ((1, "2"), (2, "1"), (3, "0")):
            name, address, owns, *row = self.row(lines, f"node-{number}")
            self.assertEqual((name, address), (f"node-{number}", f"{ip_of(number)}:{PORT}"))
            self.assertEqual(int(owns), topology.placement.owned(name))
            self.assertEqual(row[:5] + row[6:], ["-", "-", "-", keys, "-", "s", "yes"])
            owned += int(owns)
        self.assertEqual(owned, 16)
        summary = "16 of 16 partitions are available and complete, each led by its owner"
        self.assertEqual(lines[6:], ["", summary])

    def test_uptime(self) -> None:
        """One would not see which node was restarted."""
        self.cluster.run(100)
        self.cluster.crash(3)
        self.cluster.start(3)
        self.cluster.run(5)
        lines = self.status()
        self.assertGreater(int(self.row(lines, "node-1")[8]), 100)
        self.assertLess(int(self.row(lines, "node-3")[8]), 20)

    def test_one_down(self) -> None:
        """A monitor would not notice that a member is down, or not which one."""
        self.cluster.crash(3)
        self.cluster.run(2)
        owned = self.cluster.nodes[1].cluster.founded().placement.owned("node-3")
        for peers in (ONE, "10.0.0.3:8001,10.0.0.1:8001"):
            lines = self.status(peers, code=3)
            row = " ".join(self.row(lines, "node-3"))
            self.assertEqual(
                row, f"node-3 10.0.0.3:8001 {owned} - - - - - - no: connection refused"
            )
            row = " ".join(self.row(lines, "node-1"))
            self.assertIn("yes, but cannot reach 10.0.0.3:8001 (connection refused)", row)
            self.assertEqual(lines[7], f"{16 - owned} of 16 partitions are available")
            self.assertRegex(
                lines[8],
                rf"^UNAVAILABLE: {owned} partitions \([\d, -]+\): "
                r"node-3, which alone has it, cannot be reached \(connection refused\)$",
            )
            self.assertEqual(len(lines), 9)

    def test_frozen(self) -> None:
        """A node that has stopped but holds its port would make one wait, for each thing asked."""
        self.cluster.network.host(ip_of(3)).freeze()
        for peers in (ONE, PEERS):
            before = self.cluster.network.clock.seconds()
            lines = self.status(peers, code=3)
            self.assertLess(self.cluster.network.clock.seconds() - before, 1.5)
            self.assertIn("no: no answer", " ".join(self.row(lines, "node-3")))

    def test_frozen_while_connected(self) -> None:
        """It would be waited for once more for everything that is asked."""
        self.result_of(self.client.status(f"{ip_of(3)}:{PORT}"))
        self.cluster.network.host(ip_of(3)).freeze()
        before = self.cluster.network.clock.seconds()
        code, console = self.run_command(status, PEERS, False)
        self.assertLess(self.cluster.network.clock.seconds() - before, 1.5)
        self.assertEqual(code, 3)
        self.assertIn("no: no answer", console.out)

    def test_json(self) -> None:
        """A monitor could not read the status."""
        self.run_command(data.put, self.cluster.key_of(2).encode(), b"v")
        self.cluster.crash(3)
        self.cluster.run(2)
        said = self.said(status, ONE, False, code=3)
        nodes = {node["address"]: node for node in said.pop("nodes")}
        topology = self.cluster.nodes[1].cluster.founded()
        placement = topology.placement
        lost = [number for number in range(16) if placement.owner(number) == "node-3"]
        why = "node-3, which alone has it, cannot be reached (connection refused)"
        self.assertEqual(
            said,
            {
                "founded": True,
                "cluster_id": topology.cluster_id,
                "epoch": 1,
                "partitions": 16,
                "key_count": 1,
                "available": 16 - len(lost),
                "complete": 16 - len(lost),
                "led_by_owner": 16 - len(lost),
                "unavailable": [{"why": why, "partitions": lost}],
                "short": [],
                "meta": None,
            },
        )
        self.assertEqual(list(nodes), ["10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001"])
        two, three = nodes["10.0.0.2:8001"], nodes["10.0.0.3:8001"]
        self.assertEqual(
            (two["name"], two["answers"], two["key_count"], two["cluster_id"]),
            ("node-2", True, 1, topology.cluster_id),
        )
        self.assertEqual((three["name"], three["answers"]), ("node-3", False))
        self.assertEqual(three["error"], "connection refused")

    def test_all_down(self) -> None:
        """A cluster that is down would be a traceback, or look founded and well."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        lines = self.status("10.0.0.1:8001,10.0.0.2:8001", code=3)
        self.assertEqual(lines[0], "no node answers")
        for number, line in enumerate(lines[1:], start=1):
            self.assertEqual(line, f"{ip_of(number)}:8001: connection refused")

    def test_stranger(self) -> None:
        """A wrong address in ``--peers`` would make another cluster's node a member of this one."""
        other = Address("10.0.0.9", PORT)
        self.cluster.start_node(9, founders=(other,), listen=other)
        self.cluster.run(1)
        self.result_of(self.cluster.client(9).put(b"k", b"v"))
        lines = self.status(f"{ONE},{other}")
        self.assertEqual(lines[6], "10.0.0.9:8001 is not in this cluster: it is node-9")
        self.assertEqual(len(lines), 9)

    def test_keys_of_a_stranger(self) -> None:
        """The number of keys would be that of two clusters."""
        other = Address("10.0.0.9", PORT)
        self.cluster.start_node(9, founders=(other,), listen=other)
        self.cluster.run(1)
        self.result_of(self.cluster.client(9).put(b"k", b"v"))
        self.assertIn(", 0 keys", self.status(f"{ONE},{other}")[0])

    def test_member_that_left_on_its_own(self) -> None:
        """A member restarted without ``--peers``, now a cluster of its own, would look well."""
        self.cluster.crash(3)
        address = Address(ip_of(3), PORT)
        self.cluster.start_node(3, founders=(address,), listen=address)
        self.cluster.run(3)
        row = " ".join(self.row(self.status("10.0.0.1:8001,10.0.0.3:8001", code=3), "node-3"))
        self.assertIn("no: it belongs to another cluster, or to none yet", row)

    def test_unreadable_peers(self) -> None:
        """A typing error would be asked for in the network."""
        with self.assertRaises(ConfigurationError):
            self.run_command(status, "nonsense", False)
