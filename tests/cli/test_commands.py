"""What the commands of ``kvcli`` say, against a cluster in a simulated network."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.cli import cluster as cluster_commands
from kvtwist.cli import data
from kvtwist.cli.show import Printer
from kvtwist.cli.status import status
from kvtwist.client import Client, Record
from kvtwist.core.ring import RING_SIZE, hash_bytes
from kvtwist.errors import (
    KvtwistError,
    NotANumber,
    OutOfRange,
    TooLarge,
    Unavailable,
    VersionMismatch,
)
from kvtwist.node.limits import Limits
from tests.cli.test_show import Console
from tests.cluster import PORT, SimulatedCluster, ip_of

PEERS = "10.0.0.1:8001,10.0.0.2:8001,10.0.0.3:8001"

Command = Callable[..., Coroutine[Any, Any, int]]


class CommandTestCase(SynchronousTestCase):
    """Runs commands in a cluster of three."""

    size = 3

    def setUp(self) -> None:
        """Found the cluster."""
        self.cluster = self.make_cluster()
        self.cluster.found()
        self.client = self.cluster.client()

    def make_cluster(self) -> SimulatedCluster:
        """A cluster that is not running yet."""
        return SimulatedCluster(self.size, limits=Limits(value_bytes_max=1000))

    def run_command(
        self,
        command: Command,
        *arguments: object,
        client: Client | None = None,
        as_json: bool = False,
    ) -> tuple[int, Console]:
        """The exit code of *command*, and what it printed."""
        console = Console(self)
        work = command(client or self.client, Printer(as_json), *arguments)
        code = self.result_of(Deferred.fromCoroutine(work))
        assert isinstance(code, int), code
        return code, console

    def said(self, command: Command, *arguments: object, code: int = 0) -> dict[str, Any]:
        """The JSON object that *command* prints, which has to exit with *code*."""
        seen, console = self.run_command(command, *arguments, as_json=True)
        self.assertEqual(seen, code)
        self.assertEqual(console.out.count("\n"), 1, console.out)
        said = json.loads(console.out)
        assert isinstance(said, dict), said
        return said

    def result_of(self, deferred: Deferred[Any]) -> Any:
        """What *deferred* comes to, in simulated time."""
        return self.cluster.network.result_of(deferred)

    def version_of(self, key: bytes) -> int:
        """The version at which *key* is."""
        record = self.result_of(self.client.get(key))
        assert isinstance(record, Record), record
        return record.version

    def assert_printed(self, console: Console, out: str = "", err: str = "") -> None:
        """Exactly this, on either stream."""
        self.assertEqual((console.out, console.err), (out, err))


class DataTests(CommandTestCase):
    """put, get, delete, incr, cas."""

    def test_put(self) -> None:
        """A script that writes would have output that it must throw away, or write nothing."""
        code, console = self.run_command(data.put, b"user:42", b"alice")
        self.assertEqual(code, 0)
        self.assert_printed(console)
        self.assertEqual(self.result_of(self.client.get(b"user:42")).value, b"alice")

    def test_put_json(self) -> None:
        """A script could not use the version of its write in a later condition."""
        said = self.said(data.put, b"user:42", b"alice")
        self.assertEqual(said, {"key": "user:42", "version": self.version_of(b"user:42")})

    def test_put_through_any_node(self) -> None:
        """The node that is asked would have to be the one that owns the key."""
        for number in (1, 2, 3):
            key = self.cluster.key_of(number).encode()
            for asked in (1, 2, 3):
                client = self.cluster.client(asked)
                code, _ = self.run_command(data.put, key, b"%d" % asked, client=client)
                self.assertEqual(code, 0)
                _, console = self.run_command(data.get, key, False, client=client)
                self.assert_printed(console, f"{asked}\n")

    def test_put_too_large(self) -> None:
        """A value over the limit would be cut, or its refusal not name the limit."""
        with self.assertRaises(TooLarge) as caught:
            self.run_command(data.put, b"k", b"x" * 1001)
        self.assertIn("value_bytes_max", str(caught.exception))

    def test_get(self) -> None:
        """A stored value would not be shown."""
        self.run_command(data.put, b"k", "caf\u00e9".encode())
        code, console = self.run_command(data.get, b"k", False)
        self.assertEqual(code, 0)
        self.assert_printed(console, "caf\u00e9\n")

    def test_get_json(self) -> None:
        """A script could not read value and version in one go."""
        self.run_command(data.put, b"k", b"v")
        self.assertEqual(
            self.said(data.get, b"k", False),
            {"key": "k", "value": "v", "version": self.version_of(b"k")},
        )

    def test_get_nothing(self) -> None:
        """A missing key would look like an empty value."""
        for as_json in (False, True):
            code, console = self.run_command(data.get, b"no\x1bkey", False, as_json=as_json)
            self.assertEqual(code, 1)
            self.assert_printed(console, err="kvcli: no\\x1bkey: not found\n")

    def test_get_empty(self) -> None:
        """An empty value would look like a missing key."""
        self.run_command(data.put, b"k", b"")
        code, console = self.run_command(data.get, b"k", False)
        self.assertEqual(code, 0)
        self.assert_printed(console, "\n")
        self.assertEqual(self.said(data.get, b"k", False)["value"], "")

    def test_binary_value(self) -> None:
        """A file stored as a value could not be looked at, scripted with, or got back."""
        value = b"\x00\xff\x1b[2J\r\n"
        self.run_command(data.put, b"k", value)
        _, console = self.run_command(data.get, b"k", False)
        self.assert_printed(console, "\\x00\\xff\\x1b[2J\\r\\n\n")
        _, console = self.run_command(data.get, b"k", True)
        self.assertEqual((console.raw, console.err), (value, ""))
        said = self.said(data.get, b"k", False)
        self.assertEqual(base64.b64decode(said["value_base64"]), value)
        self.assertNotIn("value", said)

    def test_hostile_value(self) -> None:
        """Whoever may write a value could drive the terminal of whoever reads it."""
        self.run_command(data.put, b"k", b"\x1b]0;owned\x07")
        _, console = self.run_command(data.get, b"k", False)
        self.assert_printed(console, "\\x1b]0;owned\\x07\n")

    def test_binary_key(self) -> None:
        """A key that is not text could be written, and never be read again."""
        self.assertIn("key_base64", self.said(data.put, b"\xff\x00", b"v"))
        code, console = self.run_command(data.get, b"\xff\x00", False)
        self.assertEqual(code, 0)
        self.assert_printed(console, "v\n")

    def test_delete(self) -> None:
        """A deleted key would still be there."""
        self.run_command(data.put, b"k", b"v")
        code, console = self.run_command(data.delete, b"k", None)
        self.assertEqual(code, 0)
        self.assert_printed(console)
        self.assertIsNone(self.result_of(self.client.get(b"k")))

    def test_delete_nothing(self) -> None:
        """A script could not tell that there was nothing to delete."""
        code, console = self.run_command(data.delete, b"k", None)
        self.assertEqual(code, 1)
        self.assert_printed(console, err="kvcli: k: not found\n")

    def test_delete_json(self) -> None:
        """A script that reads JSON would get none."""
        self.run_command(data.put, b"k", b"v")
        self.assertEqual(self.said(data.delete, b"k", None), {"key": "k", "deleted": True})
        self.assertEqual(self.said(data.delete, b"k", None, code=1), {"key": "k", "deleted": False})

    def test_delete_a_version(self) -> None:
        """Somebody else's newer value would be deleted."""
        self.run_command(data.put, b"k", b"v")
        old = self.version_of(b"k")
        self.run_command(data.put, b"k", b"w")
        with self.assertRaises(VersionMismatch):
            self.run_command(data.delete, b"k", old)
        self.assertEqual(self.result_of(self.client.get(b"k")).value, b"w")
        code, _ = self.run_command(data.delete, b"k", self.version_of(b"k"))
        self.assertEqual(code, 0)

    def test_incr(self) -> None:
        """A script that counts would not know what it has come to."""
        for delta, shown in ((1, "1\n"), (41, "42\n"), (-50, "-8\n")):
            code, console = self.run_command(data.incr, b"k", delta)
            self.assertEqual(code, 0)
            self.assert_printed(console, shown)
        said = self.said(data.incr, b"k", 8)
        self.assertEqual(said, {"key": "k", "number": 0, "version": self.version_of(b"k")})
        self.assertEqual(self.result_of(self.client.get(b"k")).value, b"0")

    def test_incr_of_no_number(self) -> None:
        """What is not a number would be lost, or be counted as one."""
        for value in (b"", b"1.5", b"07", b"-0", b"text"):
            self.run_command(data.put, b"k", value)
            with self.assertRaises(NotANumber) as caught:
                self.run_command(data.incr, b"k", 1)
            self.assertEqual(caught.exception.version, self.version_of(b"k"))
            self.assertEqual(self.result_of(self.client.get(b"k")).value, value)
        self.run_command(data.put, b"k", b"%d" % ((1 << 63) - 1))
        with self.assertRaises(OutOfRange):
            self.run_command(data.incr, b"k", 1)

    def test_cas(self) -> None:
        """A script could not go on from the version that its own write made."""
        code, console = self.run_command(data.cas, b"k", b"v", 0)
        self.assertEqual(code, 0)
        self.assert_printed(console, f"{self.version_of(b'k')}\n")
        code, console = self.run_command(data.cas, b"k", b"w", self.version_of(b"k"))
        self.assertEqual(code, 0)
        self.assert_printed(console, f"{self.version_of(b'k')}\n")
        self.assertEqual(self.result_of(self.client.get(b"k")).value, b"w")

    def test_cas_json(self) -> None:
        """A script that reads JSON would have to read a bare number."""
        said = self.said(data.cas, b"k", b"v", 0)
        self.assertEqual(said, {"key": "k", "version": self.version_of(b"k")})

    def test_cas_mismatch(self) -> None:
        """C4: a lost race would overwrite the winner, or not say at which version the key is."""
        self.run_command(data.put, b"k", b"v")
        version = self.version_of(b"k")
        for wanted in (0, version + 1):
            with self.assertRaises(VersionMismatch) as caught:
                self.run_command(data.cas, b"k", b"w", wanted)
            error = caught.exception
            self.assertEqual((error.version, error.value), (version, b"v"))
            self.assertIn(f"at version {version}", str(error))
        self.assertEqual(self.result_of(self.client.get(b"k")).value, b"v")

    def test_cas_of_nothing(self) -> None:
        """C4: a condition on a key that is gone would make it again."""
        with self.assertRaises(VersionMismatch) as caught:
            self.run_command(data.cas, b"k", b"w", 7)
        self.assertEqual((caught.exception.version, caught.exception.value), (0, None))
        self.assertIn("does not exist", str(caught.exception))
        self.assertIsNone(self.result_of(self.client.get(b"k")))


class WhereTests(CommandTestCase):
    """where."""

    def preferred(self, key: bytes) -> list[str]:
        """The members as the ring alone has them, from the start of the key's partition on."""
        topology = self.cluster.nodes[1].cluster.founded()
        start = topology.partition_of(key) * (RING_SIZE // 16)
        return list(topology.ring.preference_list(start))

    def table(self, key: bytes) -> dict[str, str]:
        """What is printed, by its labels."""
        code, console = self.run_command(cluster_commands.where, key, PEERS)
        self.assertEqual((code, console.err), (0, ""))
        return {line[:17].rstrip(): line[17:] for line in console.out.splitlines()}

    def test_where(self) -> None:
        """One would look for a key's data on the wrong node."""
        for number in (1, 2, 3):
            key = self.cluster.key_of(number).encode()
            shown = self.table(key)
            self.assertEqual(shown["key"], key.decode())
            self.assertEqual(shown["ring position"], f"{hash_bytes(key)} of 2^32")
            self.assertEqual(shown["partition"], f"{hash_bytes(key) * 16 >> 32} of 16")
            self.assertEqual(shown["owner"], f"node-{number} at {ip_of(number)}:{PORT}")
            replicas = shown["replicas"].split(", ")
            self.assertEqual(replicas[0], f"node-{number}")
            self.assertEqual(sorted(replicas), ["node-1", "node-2", "node-3"])
            self.assertEqual(shown["preference list"].split(", "), self.preferred(key))

    def test_tag(self) -> None:
        """One would not see why two keys live together."""
        tagged, plain = self.table(b"{user:42}.mail"), self.table(b"user:42")
        self.assertEqual(
            tagged["ring position"], f"{hash_bytes(b'user:42')} of 2^32, by its tag 'user:42'"
        )
        for label in ("partition", "owner", "replicas", "preference list"):
            self.assertEqual(tagged[label], plain[label])
        self.assertNotIn("tag", plain["ring position"])

    def test_hostile_key(self) -> None:
        """A key found in somebody's log could drive one's terminal when one asks where it is."""
        _, console = self.run_command(cluster_commands.where, b"\x1b[2J{\x1b[3J}", PEERS)
        self.assertNotIn("\x1b", console.out)

    def test_json(self) -> None:
        """A script could not find a key's node."""
        key = self.cluster.key_of(2).encode()
        said = self.said(cluster_commands.where, key, PEERS)
        followers = said["replicas"][1:]
        self.assertEqual(sorted(followers), ["node-1", "node-3"])
        (state,) = said.pop("replica_states")
        self.assertEqual((state["member"], state["absent"]), ("node-2", None))
        self.assertEqual(
            said,
            {
                "key": key.decode(),
                "position": hash_bytes(key),
                "address": "10.0.0.2:8001",
                "partition": hash_bytes(key) * 16 >> 32,
                "group": None,
                "available": True,
                "why": None,
                "owner": "node-2",
                "leader": "node-2",
                "term": 0,
                "commit": 0,
                "voters": 1,
                "needed": 1,
                "present": 1,
                "key_count": 0,
                "replicas": ["node-2", *followers],
                "preference_list": self.preferred(key),
            },
        )

    def test_owner_down(self) -> None:
        """One would believe that the key can be read, or not learn why it cannot."""
        key = self.cluster.key_of(3).encode()
        self.assertEqual(self.table(key)["available"], "yes")
        self.cluster.crash(3)
        self.cluster.run(2)
        why = "node-3, which alone has it, cannot be reached (connection refused)"
        self.assertEqual(self.table(key)["available"], f"no: {why}")
        said = self.said(cluster_commands.where, key, PEERS)
        self.assertEqual((said["available"], said["why"], said["leader"]), (False, why, None))

    def test_all_down(self) -> None:
        """It would be a traceback, or take as long as a request may."""
        for number in (1, 2, 3):
            self.cluster.crash(number)
        before = self.cluster.network.clock.seconds()
        with self.assertRaises(Unavailable) as caught:
            self.run_command(cluster_commands.where, b"k", PEERS)
        self.assertLess(self.cluster.network.clock.seconds() - before, 1.5)
        for number in (1, 2, 3):
            self.assertIn(f"{ip_of(number)}:8001 (connection refused)", str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_nothing_is_written(self) -> None:
        """Asking where a key would live would make it."""
        self.table(b"k")
        self.assertIsNone(self.result_of(self.client.get(b"k")))


class LoneTests(CommandTestCase):
    """A cluster of one."""

    size = 1

    def test_status(self) -> None:
        """The first cluster that most people start would be described in broken English."""
        self.run_command(data.put, b"k", b"v")
        code, console = self.run_command(status, "10.0.0.1:8001", False)
        self.assertEqual(code, 0)
        self.assertIn(": 1 member, 16 partitions, 1 key\n", console.out)

    def test_where(self) -> None:
        """A lone member would stand on the preference list twice, or not at all."""
        said = self.said(cluster_commands.where, b"k", "10.0.0.1:8001")
        self.assertEqual((said["replicas"], said["preference_list"]), (["node-1"], ["node-1"]))

    def test_ring(self) -> None:
        """A lone member would not own the whole ring."""
        (member,) = self.said(cluster_commands.ring)["members"]
        self.assertEqual((member["share"], member["token_share"]), (1.0, 1.0))


class UnfoundedTests(CommandTestCase):
    """A cluster whose third node is missing."""

    def setUp(self) -> None:
        """Start two of three."""
        self.cluster = self.make_cluster()
        self.cluster.start(1, 2)
        self.cluster.run(2)
        self.client = self.cluster.client(timeout_seconds=1.0)

    def test_status(self) -> None:
        """One would not learn which node is still to be started."""
        code, console = self.run_command(status, PEERS, False)
        self.assertEqual(code, 3)
        refused = "10.0.0.3:8001 (connection refused)"
        self.assertEqual(
            console.out.splitlines(),
            [
                "there is no cluster yet",
                f"node-1 at 10.0.0.1:8001 waits for {refused}",
                f"node-2 at 10.0.0.2:8001 waits for {refused}",
                "10.0.0.3:8001: connection refused",
            ],
        )

    def test_status_json(self) -> None:
        """A script that waits for a cluster could not tell when it is there."""
        said = self.said(status, "10.0.0.1:8001", False, code=3)
        (node,) = said["nodes"]
        self.assertEqual(said, {"founded": False, "nodes": [node]})
        self.assertEqual((node["name"], node["answers"], node["cluster_id"]), ("node-1", True, ""))
        self.assertEqual(node["waiting_for"], ["10.0.0.3:8001 (connection refused)"])

    def test_everything_else(self) -> None:
        """A request would wait without a word, or be answered by nodes that are no cluster."""
        for command, arguments in (
            (data.put, (b"k", b"v")),
            (data.get, (b"k", False)),
            (data.delete, (b"k", None)),
            (data.cas, (b"k", b"v", 0)),
            (cluster_commands.where, (b"k", PEERS)),
            (cluster_commands.ring, ()),
        ):
            with self.assertRaises(KvtwistError) as caught:
                self.run_command(command, *arguments)
            self.assertIsInstance(caught.exception, Unavailable)
            self.assertIn("10.0.0.3:8001", str(caught.exception))


class RingTests(CommandTestCase):
    """ring."""

    def test_picture(self) -> None:
        """The picture would show another cluster than the one that runs."""
        code, console = self.run_command(cluster_commands.ring)
        self.assertEqual((code, console.err), (0, ""))
        topology = self.cluster.nodes[1].cluster.founded()
        for mark, name in (("A", "node-1"), ("B", "node-2"), ("C", "node-3")):
            owned = topology.placement.owned(name)
            self.assertRegex(console.out, rf"{mark}  {name} +{owned}  {owned / 16:.1%}\n")
        self.assertIn("16 partitions, clockwise", console.out)

    def test_json(self) -> None:
        """A program could not draw the ring its own way."""
        said = self.said(cluster_commands.ring)
        topology = self.cluster.nodes[1].cluster.founded()
        owners = [topology.owner(partition).name for partition in range(16)]
        self.assertEqual(said["owners"], owners)
        self.assertEqual(
            (said["cluster_id"], said["epoch"], said["partitions"], said["tokens_per_member"]),
            (topology.cluster_id, 1, 16, topology.settings.tokens_per_member),
        )
        for number, member in enumerate(said["members"], start=1):
            name = f"node-{number}"
            self.assertEqual(
                member,
                {
                    "name": name,
                    "address": f"{ip_of(number)}:{PORT}",
                    "partitions": owners.count(name),
                    "share": owners.count(name) / 16,
                    "token_share": topology.ring.share(name),
                },
            )
        self.assertEqual(sum(member["share"] for member in said["members"]), 1)
        self.assertAlmostEqual(sum(member["token_share"] for member in said["members"]), 1)
