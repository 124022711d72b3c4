"""Restored backups: a new cluster that has all of the old one's data, or none at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from kvtwist.client import Client, Record
from kvtwist.core.groups import META, group_of
from kvtwist.core.ring import partition_of
from kvtwist.core.state.commands import OpenSession
from kvtwist.core.topology import Settings
from kvtwist.errors import ConfigurationError, StoreDamaged, StoreFailed, Unavailable
from kvtwist.node import restoring
from kvtwist.node.restoring import fill, restore
from kvtwist.storage.backup import verify
from kvtwist.storage.check import check, check_view
from kvtwist.storage.directory import DataDirectory, RestoredFrom
from kvtwist.storage.engine import Batch
from kvtwist.storage.layout import NODE, RECORD, SESSION, groups_range
from kvtwist.storage.layout import group_of as group_of_key
from kvtwist.storage.rocks import RocksEngine
from tests.cluster import ip_of
from tests.durable import DurableCluster
from tests.node.test_backups import BackupCase
from tests.storage.simulated import Platter, SimulatedEngine
from tests.storage.test_backup import written


class RestoringCase(BackupCase):
    """A cluster of three, a backup of it, and another cluster of it."""

    size = 3
    partitions = 16

    def setUp(self) -> None:
        super().setUp()
        self.values: dict[str, Record] = {}
        for number in range(40):
            self.write(f"key-{number}", f"value-{number}")

    def write(self, key: str, value: str) -> None:
        self.values[key] = Record(value.encode(), self.put(key, value))

    def restored_platter(self, number: int, file: Path) -> Platter:
        """A disk for node-*number* that *file* was restored to."""
        platter = Platter()
        self.addCleanup(platter.cleanup)
        directory = DataDirectory(
            platter.path, lambda _: SimulatedEngine(platter), f"node-{number}", f"{number:031x}a"
        )
        with file.open("rb") as stream:
            _, digest = verify(stream)
            stream.seek(0)
            fill(directory, stream, digest)
        directory.close()
        platter.crash()
        return platter

    def another(
        self, files: list[Path | None], partitions: int = 16, replicas: int = 3
    ) -> DurableCluster:
        """A cluster that is not started; each node has what is restored of its file, if any."""
        cluster = DurableCluster(len(files), partitions, replicas)
        self.addCleanup(cluster.cleanup)
        for number, file in enumerate(files, start=1):
            if file is not None:
                cluster.platters[number] = self.restored_platter(number, file)
        return cluster

    def found_in(self, cluster: DurableCluster, client: Client) -> dict[str, Record | None]:
        found: dict[str, Record | None] = cluster.network.result_of(client.get_many(self.values))
        return found


class WholeTests(RestoringCase):
    def test_everything_is_there(self) -> None:
        """All keys, with values and versions, in a cluster of another size and another id; and what
        is written there goes on counting where the old one was."""
        self.result(self.begin_backup())
        for size in (1, 2, 3, 5):
            cluster = self.another([self.file] * size)
            cluster.found()
            client = cluster.client()
            self.assertEqual(self.found_in(cluster, client), self.values)
            old, new = (each.nodes[1].cluster.founded() for each in (self.cluster, cluster))
            self.assertNotEqual(old.cluster_id, new.cluster_id)
            version = cluster.network.result_of(client.put("key-3", "new"))
            partition = partition_of(b"key-3", 16)
            others = [
                record.version
                for key, record in self.values.items()
                if partition_of(key.encode(), 16) == partition
            ]
            self.assertEqual(version, max(others) + 1)

    def test_it_is_kept(self) -> None:
        """The restored nodes are killed, at once and later: they are a cluster like any other."""
        self.result(self.begin_backup())
        cluster = self.another([self.file] * 3)
        cluster.found()
        for _ in range(2):
            for number in (1, 2, 3):
                cluster.crash(number)
                cluster.start_node(number)
            cluster.run(2.0)
            self.assertEqual(self.found_in(cluster, cluster.client()), self.values)

    def test_each_node_keeps_its_part(self) -> None:
        """The rest would take room for ever, and be out of date; what is left is sound."""
        self.result(self.begin_backup())
        cluster = self.another([self.file] * 3, replicas=2)
        for platter in cluster.platters.values():
            kept = {group_of_key(key) for key, _ in platter.synced.scan(*groups_range(RECORD))}
            self.assertEqual(
                len(kept), len({partition_of(key.encode(), 16) for key in self.values})
            )
            self.assertEqual(check_view(platter.synced).problems, [])
        cluster.found()
        cluster.run(2.0)
        topology = cluster.nodes[1].cluster.founded()
        for number, platter in cluster.platters.items():
            report = check_view(platter.synced)
            held = {
                group_of(at)
                for at, row in enumerate(topology.placement.replicas)
                if f"node-{number}" in row
            }
            self.assertEqual((set(report.groups), report.problems), ({META} | held, []))
            self.assertNotIn(b"restored", platter.synced.get(NODE) or b"")

    def test_killed_before_the_rest_was_removed(self) -> None:
        """It is founded, and still has everything: then it is removed at the next start."""
        self.result(self.begin_backup())
        cluster = self.another([self.file] * 3, replicas=2)
        removed = DataDirectory.have_removed
        self.patch(DataDirectory, "have_removed", lambda *_: None)
        cluster.found()
        for number in (1, 2, 3):
            cluster.crash(number)
        self.patch(DataDirectory, "have_removed", removed)
        for number in (1, 2, 3):
            cluster.start_node(number)
        cluster.run(2.0)
        self.assertEqual(self.found_in(cluster, cluster.client()), self.values)
        groups = [len(check_view(platter.synced).groups) for platter in cluster.platters.values()]
        self.assertEqual(sum(groups), 2 * 16 + 3)

    def test_sessions_are_dropped(self) -> None:
        """They are the old cluster's with its clients; another one must not go on with them."""
        partition = partition_of(b"key-1", 16)
        owner = self.cluster.nodes[1].cluster.founded().owner(partition).name
        replica = self.replicas(int(owner[-1])).replica(group_of(partition))
        opened = self.result(replica.propose(lambda stamp_ms: OpenSession(stamp_ms, 1, 60_000)))
        self.result(self.begin_backup())
        kept = [each.id for each in self.read_back()[partition].sessions.freeze()]
        self.assertIn(opened.session, kept)
        platter = self.restored_platter(1, self.file)
        self.assertEqual(list(platter.synced.scan(*groups_range(SESSION))), [])
        self.assertEqual(check_view(platter.synced).problems, [])

    def test_log_time_goes_on(self) -> None:
        """What expires must not expire later by what the clock had counted."""
        self.cluster.run(100.0)
        self.write("key-1", "late")
        self.result(self.begin_backup())
        partition = partition_of(b"key-1", 16)
        before = self.read_back()[partition].log_time_ms
        self.assertGreater(before, 90_000)
        cluster = self.another([self.file])
        cluster.found()
        cluster.network.result_of(cluster.client().put("key-1", "again"))
        replicas: Any = cluster.nodes[1]._partitions
        machine = replicas._replicas.replica(group_of(partition))._state.machine
        self.assertTrue(before <= machine.log_time_ms <= before + 20_000, machine.log_time_ms)

    def test_a_backup_of_a_restored_cluster(self) -> None:
        """The circle closes."""
        self.result(self.begin_backup())
        self.cluster = self.another([self.file] * 3)
        self.cluster.found()
        self.client = self.cluster.client()
        self.file = self.top / "second"
        self.result(self.begin_backup())
        cluster = self.another([self.file] * 2)
        cluster.found()
        self.assertEqual(self.found_in(cluster, cluster.client()), self.values)


class MixTests(RestoringCase):
    """S6: founders that do not have the same data do not found."""

    def refusal(self, files: list[Path | None]) -> str:
        cluster = self.another(files)
        cluster.start()
        cluster.run(5.0)
        self.assertEqual([node.cluster.topology for node in cluster.nodes.values()], [None] * 3)
        client = cluster.client(1, timeout_seconds=1.0)
        error = self.assertRaises(Unavailable, cluster.network.result_of, client.get("key-1"))
        said = str(error)
        self.assertEqual(said.count("\n"), 0)
        for number, file in enumerate(files, start=1):
            groups = check_view(cluster.platters[number].synced).groups
            self.assertEqual(len(groups), 16 if file else 0)
        return said

    def test_one_restored_and_two_empty(self) -> None:
        """The two would win, and two thirds of the keys be gone without a word."""
        self.result(self.begin_backup())
        said = self.refusal([self.file, None, None])
        self.assertEqual(said.count("it is empty, and this node was restored from backup"), 2)
        self.assertIn("restore the same file at every founder", said)

    def test_two_restored_and_one_empty(self) -> None:
        """Not even one may be."""
        self.result(self.begin_backup())
        said = self.refusal([None, self.file, self.file])
        self.assertEqual(said.count("and this node is empty"), 2)

    def test_different_files(self) -> None:
        """Yesterday's and today's: some keys would be younger than others."""
        self.result(self.begin_backup())
        yesterdays, self.file = self.file, self.top / "second"
        self.write("key-1", "of today")
        self.result(self.begin_backup())
        said = self.refusal([yesterdays, self.file, self.file])
        self.assertEqual(said.count("and this node from"), 2)

    def test_another_number_of_partitions(self) -> None:
        """Keys would be looked for where they are not; the right number is said."""
        self.result(self.begin_backup())
        cluster = self.another([self.file], partitions=64)
        refused = self.assertRaises(ConfigurationError, cluster.start_node, 1)
        self.assertIn("start every founder with --partitions=16", str(refused))
        cluster.network.crash(ip_of(1))
        cluster.start_node(1, settings=Settings(partitions=16, durable=True))
        cluster.run(2.0)
        self.assertEqual(self.found_in(cluster, cluster.client()), self.values)


class DirectoryTests(BackupCase):
    """`restore` on real disks."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(40):
            self.put(f"key-{number}", "x" * 1000)
        self.result(self.begin_backup())
        self.directory = self.top / "node-1.kvtwist"

    def restore(self, directory: Path | None = None, name: str = "node-1") -> None:
        restore(self.file, directory or self.directory, name, "1" * 32, RocksEngine)

    def assert_nothing_is_made(self) -> None:
        self.assertEqual(os.listdir(self.top), ["backup"])

    def test_a_sound_directory(self) -> None:
        """`kvcli check` finds nothing; and it says of what it was made."""
        for exists in (False, True):
            if exists:
                self.directory.mkdir()
            self.restore()
            report = check(self.directory)
            self.assertEqual((report.problems, len(report.groups)), ([], 4))
            self.assertEqual(sum(group.current.records for group in report.groups.values()), 40)
            with self.file.open("rb") as stream:
                digest = verify(stream)[1]
            directory = DataDirectory(self.directory, RocksEngine, "node-1", "2" * 32)
            directory.close()
            self.assertEqual(directory.record.restored, RestoredFrom(digest, 4))
            self.assertEqual((directory.record.identity, directory.record.life), ("1" * 32, 2))
            shutil.rmtree(self.directory)
        self.assert_nothing_is_made()

    def test_damaged_files(self) -> None:
        """Nothing is made of them, wherever the damage is."""
        data = self.file.read_bytes()
        for place in range(20, len(data), len(data) // 25):
            damaged = bytearray(data)
            damaged[place] ^= 0x10
            for bad in (bytes(damaged), data[:place]):
                self.file.write_bytes(bad)
                self.assertRaises(StoreDamaged, self.restore)
                self.assert_nothing_is_made()

    def test_a_file_that_changes(self) -> None:
        """It was verified, and is another one when it is read again: nothing is left of it."""
        data = self.file.read_bytes()
        for changed in (data[:-1], written([{b"k": b"v"}] * 4)):

            def verified(stream: Any, changed: bytes = changed) -> Any:
                result = verify(stream)
                self.file.write_bytes(changed)
                return result

            self.file.write_bytes(data)
            self.patch(restoring, "verify", verified)
            self.assertRaises(StoreDamaged, self.restore)
            self.assert_nothing_is_made()

    def test_its_name_is_durable(self) -> None:
        """S4: and it has it only when all is in it."""
        synced: list[tuple[Path, bool]] = []

        def sync(path: Path) -> None:
            synced.append((path, self.directory.exists()))

        self.patch(restoring, "sync_directory", sync)
        self.restore()
        part = self.top / "node-1.kvtwist.part"
        self.assertEqual(synced, [(part, False), (self.top, True)])

    def test_a_disk_that_fails(self) -> None:
        """What was made so far goes."""

        class Failing(RocksEngine):
            commits = 0

            def commit(self, batch: Batch, *, sync: bool) -> None:
                self.commits += 1
                if self.commits == 4:
                    raise StoreFailed("Input/output error")
                super().commit(batch, sync=sync)

        self.assertRaises(
            StoreFailed, restore, self.file, self.directory, "node-1", "1" * 32, Failing
        )
        self.assert_nothing_is_made()

    def test_over_data(self) -> None:
        """Nothing is ever restored over anything."""
        self.restore()
        refused = self.assertRaises(ConfigurationError, self.restore)
        self.assertIn("is not empty", str(refused))
        refused = self.assertRaises(ConfigurationError, self.restore, directory=self.file)
        self.assertIn("is no directory", str(refused))
        self.assertEqual(check(self.directory).problems, [])

    def test_what_a_killed_one_leaves(self) -> None:
        """It is not taken for anything, and said what to do with."""
        part = self.top / "node-1.kvtwist.part"
        part.mkdir()
        refused = self.assertRaises(ConfigurationError, self.restore)
        self.assertIn("then remove it", str(refused))
        self.assertTrue(part.is_dir())
        self.assertFalse(self.directory.exists())

    def test_names(self) -> None:
        """One that no node can have would only be found out at the start."""
        refused = self.assertRaises(ConfigurationError, self.restore, name="a b")
        self.assertIn("--id", str(refused))
        self.assert_nothing_is_made()
