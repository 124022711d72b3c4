"""Backups of a running cluster: each partition at one moment, and nothing left behind."""

from __future__ import annotations

import io
import os
import tempfile
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.cli.backup import backup
from kvtwist.cli.progress import Progress
from kvtwist.cli.show import Printer
from kvtwist.core.address import Address
from kvtwist.core.groups import group_of
from kvtwist.core.ring import partition_of
from kvtwist.core.state.commands import Write
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.operations import Put
from kvtwist.core.state.snapshot import restore
from kvtwist.errors import (
    DiskFull,
    NotLeader,
    Overloaded,
    Refused,
    Unavailable,
)
from kvtwist.node.backups import LASTING_SECONDS_MAX, SILENT_SECONDS_MAX, Backups
from kvtwist.node.outgoing import PIECE_BYTES_MAX, Outgoing, opened
from kvtwist.storage.backup import BackupReader
from kvtwist.storage.engine import Batch
from kvtwist.storage.layout import RECORD, generation_range
from kvtwist.storage.states import new_state
from kvtwist.storage.store import Store
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments
from tests.cluster import PORT, SimulatedCluster, ip_of
from tests.durable import DurableCase
from tests.storage import simulated
from tests.storage.simulated import Later
from tests.storage.test_rocks import Directories


class BackupCase(DurableCase):
    """A cluster, and a place for files."""

    def setUp(self) -> None:
        super().setUp()
        self.top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, self.top)
        self.file = self.top / "backup"

    def begin_backup(self) -> Deferred[int]:
        progress = Progress(io.StringIO())
        printer = Printer(as_json=True)
        self.patch(printer, "object", lambda said: None)
        work = backup(self.client, printer, self.file, False, 0, progress)
        return Deferred.fromCoroutine(work)

    def read_back(self) -> list[Contents]:
        """Each partition's contents."""
        with self.file.open("rb") as stream:
            return [restore(chunks) for _, _, chunks in BackupReader(stream).partitions()]

    def backups(self, number: int = 1) -> Backups:
        return self.cluster.nodes[number].server._backups

    def ask(self, command: type[amp.Command], **arguments: Any) -> Deferred[Any]:
        return self.client.ask(Address(ip_of(1), PORT), command, arguments)

    def refused(self, deferred: Deferred[Any]) -> BaseException:
        ended: list[Any] = []
        deferred.addBoth(ended.append)
        self.cluster.run(10.0)
        error: BaseException = ended[0].value
        return error

    def open(self, partition: int = 0) -> Arguments:
        answer: Arguments = self.result(self.ask(commands.OpenBackup, partition=partition))
        return answer


class CutTests(BackupCase):
    size = 3
    partitions = 16

    def test_one_cut_of_each_partition(self) -> None:
        """While writers go on, a partition is as it was at some revision: of each key the last
        write up to it, nothing later, nothing missing, and all that was acknowledged before."""
        keys = [f"key-{number}" for number in range(24)]
        writes: dict[str, list[tuple[int, bytes]]] = {key: [] for key in keys}
        going: list[bool] = [True]

        def write(key: str, count: int) -> None:
            if going:
                value = f"{count}".encode()
                done: Deferred[int] = self.client.put(key, value)
                done.addCallback(partial(wrote, key, count, value))

        def wrote(key: str, count: int, value: bytes, version: int) -> None:
            writes[key].append((version, value))
            write(key, count + 1)

        for key in keys:
            write(key, 1)
        self.cluster.run(0.1)
        before = {key: writes[key][-1][0] for key in keys}
        self.result(self.begin_backup())
        after = {key: writes[key][-1][0] for key in keys}
        going.clear()
        self.cluster.run(1.0)
        seen = 0
        for number, contents in enumerate(self.read_back()):
            found = {key[4:].decode(): record for key, record in contents.items(b"", None)}
            for key in keys:
                if partition_of(key.encode(), self.partitions) == number:
                    wanted = [each for each in writes[key] if each[0] <= contents.revision][-1]
                    self.assertEqual((found[key].version, found[key].value), wanted)
                    self.assertGreaterEqual(found[key].version, before[key])
                    seen += 1
        self.assertEqual(seen, len(keys))
        self.assertTrue(all(after[key] > before[key] for key in keys))

    def test_what_was_acknowledged_is_in_it(self) -> None:
        """Who writes, and backs up when that is done, has the write in the backup, also where the
        disk is slow: an entry that is applied is in the store's state only some time later."""
        self.patch(simulated, "SYNC_SECONDS", 0.2)
        for number in (1, 2, 3):
            self.cluster.crash(number)
            self.restart(number)
        self.cluster.run(10.0)  # until leaders are where they stay: on such a disk it takes time
        self.client = self.cluster.client()
        for number in range(12):
            self.file = self.top / f"backup-{number}"
            version = self.put("k", f"{number}")
            self.result(self.begin_backup())
            contents = self.read_back()[partition_of(b"k", self.partitions)]
            record = contents.get(b"\0\0\0\0k")
            assert record is not None
            self.assertEqual((record.value, record.version), (b"%d" % number, version))

    def test_large_values(self) -> None:
        """A value is in many pieces, and a piece has many values."""
        values = {f"key-{number}": os.urandom(700_000) for number in range(6)}
        for key, value in values.items():
            self.result(self.client.put(key, value))
        self.result(self.begin_backup())
        found = {
            key[4:].decode(): record.value
            for contents in self.read_back()
            for key, record in contents.items(b"", None)
        }
        self.assertEqual(found, values)

    def test_an_owner_that_is_away(self) -> None:
        """A backup of a cluster that serves can be made, also while an election is under way."""
        self.put("k", "v")
        self.cluster.crash(2)
        self.result(self.begin_backup())
        contents = self.read_back()[partition_of(b"k", self.partitions)]
        self.assertEqual([key[4:] for key, _ in contents.items(b"", None)], [b"k"])

    def test_a_majority_that_is_away(self) -> None:
        """Half a cluster is no backup: it fails, names a node, and leaves nothing."""
        self.put("k", "v")
        self.cluster.crash(2)
        self.cluster.crash(3)
        error = self.refused(self.begin_backup())
        self.assertIsInstance(error, Unavailable)
        self.assertIn("cannot be read from node-", str(error))
        self.assertEqual(os.listdir(self.top), [])

    def test_an_owner_that_dies_meanwhile(self) -> None:
        """The same, half-way."""
        key = self.cluster.key_of(3)
        self.result(self.client.put(key, os.urandom(8 << 20)))
        done = self.begin_backup()
        while not self.backups(3)._open:
            self.cluster.run(0.0002)
        self.cluster.crash(3)
        self.assertIsInstance(self.refused(done), Unavailable)
        self.assertEqual(os.listdir(self.top), [])

    def test_another_node_is_not_asked(self) -> None:
        """Only the owner can say what was acknowledged."""
        topology = self.cluster.nodes[1].cluster.founded()
        partition = next(at for at in range(4) if topology.owner(at).name != "node-1")
        error = self.refused(self.ask(commands.OpenBackup, partition=partition))
        self.assertIsInstance(error, NotLeader)


class BoundTests(BackupCase):
    """S5: what a peer can make a node keep is bounded, and ends."""

    def test_pieces(self) -> None:
        """None is larger than is said; together they are the stream; then it is closed."""
        for number in range(4):
            self.put(f"{{{0}}}{number}", "x" * 300_000)
        partition = partition_of(b"{0}0", self.partitions)
        answer = self.open(partition)
        self.assertEqual((answer["key_count"], answer["data_bytes"]), (4, 4 * 300_008))
        pieces: list[bytes] = []
        last = False
        while not last:
            said = self.result(
                self.ask(commands.ReadBackup, backup=answer["backup"], number=len(pieces))
            )
            pieces.append(said["piece"])
            last = said["last"]
        self.assertEqual(max(map(len, pieces)), PIECE_BYTES_MAX)
        contents = restore(pieces)
        self.assertEqual((contents.applied_index, contents.key_count), (answer["applied_index"], 4))
        self.assertEqual(self.backups().open_count, 0)

    def test_so_many_and_no_more(self) -> None:
        """Each pins what is overwritten meanwhile."""
        for _ in range(4):
            self.open()
        error = self.refused(self.ask(commands.OpenBackup, partition=0))
        self.assertIsInstance(error, Overloaded)
        self.assertIn("backups_max=4", str(error))

    def test_opened_at_once(self) -> None:
        """Also those that are not open yet are counted."""
        asked = [self.ask(commands.OpenBackup, partition=0) for _ in range(9)]
        ended: list[Any] = []
        for one in asked:
            one.addBoth(ended.append)
        self.cluster.run(1.0)
        self.assertEqual(sum(isinstance(each, dict) for each in ended), 4)

    def test_silence_ends_it(self) -> None:
        """Somebody who has gone home."""
        answer = self.open()
        self.cluster.run(SILENT_SECONDS_MAX - 1)
        self.assertEqual(self.backups().open_count, 1)
        self.cluster.run(2.0)
        self.assertEqual(self.backups().open_count, 0)
        error = self.refused(self.ask(commands.ReadBackup, backup=answer["backup"], number=0))
        self.assertIsInstance(error, Unavailable)

    def test_it_does_not_last(self) -> None:
        """Somebody who reads one piece in a while, for ever."""
        for number in range(4):
            self.put(f"{{{0}}}{number}", "x" * (8 << 20))
        id = self.open(partition_of(b"{0}0", self.partitions))["backup"]
        for number in range(int(LASTING_SECONDS_MAX // 20)):
            self.result(self.ask(commands.ReadBackup, backup=id, number=number))
            self.cluster.run(20.0)
        error = self.refused(self.ask(commands.ReadBackup, backup=id, number=number + 1))
        self.assertIn("900 s", str(error))
        self.assertEqual(self.backups().open_count, 0)

    def test_it_goes_with_its_connection(self) -> None:
        """A backup that was interrupted holds nothing."""
        self.open()
        self.result(self.client.close())
        self.cluster.run(1.0)
        self.assertEqual(self.backups().open_count, 0)

    def test_it_is_its_connections_own(self) -> None:
        """Another client can neither read nor end it."""
        id = self.open()["backup"]
        other = self.cluster.client()
        for command, said in (
            (commands.ReadBackup, {"backup": id, "number": 0}),
            (commands.CloseBackup, {"backup": id}),
        ):
            asked = other.ask(Address(ip_of(1), PORT), command, said)
            self.assertIsInstance(self.refused(asked), Unavailable)
        self.assertEqual(self.backups().open_count, 1)

    def test_in_order(self) -> None:
        """A piece that is asked for twice, or too early, would leave a hole in the file."""
        self.put("k", "v")
        id = self.open()["backup"]
        self.assertIsInstance(
            self.refused(self.ask(commands.ReadBackup, backup=id, number=1)), Refused
        )
        first = self.ask(commands.ReadBackup, backup=id, number=0)
        again = self.ask(commands.ReadBackup, backup=id, number=0)
        self.assertIsInstance(self.refused(again), Refused)
        self.assertTrue(self.result(first)["last"])

    def test_closed(self) -> None:
        """Who wants no more of it says so."""
        id = self.open()["backup"]
        self.assertEqual(self.result(self.ask(commands.CloseBackup, backup=id)), {})
        self.assertEqual(self.backups().open_count, 0)

    def test_no_such_partition(self) -> None:
        """A number from another cluster."""
        error = self.refused(self.ask(commands.OpenBackup, partition=4))
        self.assertIsInstance(error, Refused)
        self.assertIn("there are 4", str(error))

    def test_a_keyspace(self) -> None:
        """There is but one, whatever is asked."""
        error = self.refused(self.ask(commands.OpenBackup, partition=0, keyspace=1))
        self.assertIn("no keyspace 1", str(error))


class TroubleTests(BackupCase):
    def test_a_full_disk(self) -> None:
        """S5: all are closed, since they pin what could make room; then one can begin anew."""
        self.put("k", "1")
        self.cluster.run(1.0)
        self.open()
        platter = self.cluster.platters[1]
        platter.trouble = DiskFull("the disk is full")
        self.refused(self.client.put("k", "2"))
        self.assertEqual(self.backups().open_count, 0)
        error = self.refused(self.ask(commands.OpenBackup, partition=0))
        self.assertIsInstance(error, DiskFull)
        platter.trouble = None
        self.cluster.run(5.0)
        self.result(self.begin_backup())

    def test_filled_up_while_it_is_opened(self) -> None:
        """Between the question and the view."""
        self.put("k", "1")
        self.cluster.run(1.0)
        asked = self.ask(commands.OpenBackup, partition=0)
        while not self.backups()._opening:
            self.cluster.run(0.0001)
        self.backups().stop()
        self.assertIsInstance(self.refused(asked), Unavailable)
        self.assertEqual(self.backups().open_count, 0)

    def test_damage(self) -> None:
        """S3: what is not what was written is in no backup, and the reason is given."""
        self.put("k", "1")
        self.cluster.run(1.0)
        group = group_of(partition_of(b"k", self.partitions))
        engine = self.cluster.nodes[1]._partitions._store._engine  # type: ignore[attr-defined]
        ((key, frame),) = engine.scan(*generation_range(RECORD, group, 1))
        batch = Batch()
        batch.put(key, frame[:-1] + b"!")
        engine.commit(batch, sync=True)
        error = self.refused(self.begin_backup())
        self.assertIsInstance(error, Unavailable)
        self.assertIn("wrong checksum", str(error))
        self.assertEqual(os.listdir(self.top), [])
        self.assertEqual(self.backups().open_count, 0)

    def test_a_stop(self) -> None:
        """The node ends in order, whoever reads."""
        self.open()
        self.result(self.cluster.nodes[1].stopService())
        self.assertEqual(self.backups().open_count, 0)


class MemoryTests(SynchronousTestCase):
    def test_a_cluster_in_memory(self) -> None:
        """One clear line, and not a file that looks like one."""
        cluster = SimulatedCluster(1)
        cluster.found()
        client = cluster.client()
        asked = client.ask(Address(ip_of(1), PORT), commands.OpenBackup, {"partition": 0})
        ended: list[Any] = []
        asked.addBoth(ended.append)
        cluster.run(1.0)
        self.assertIsInstance(ended[0].value, Refused)
        self.assertIn("in memory is not backed up", str(ended[0].value))


class RealViewTests(Directories):
    """On RocksDB, which keeps what somebody looks at."""

    def test_a_closed_one_looks_no_more(self) -> None:
        """S5: else what it pins stays on the disk."""
        engine, clock = self.opened(self.new_directory()), Clock()
        state = new_state(2, engine, engine.get_cached, 1, 0)
        for number in range(40):
            write = Write(0, 1, 0, 0, 0, (Put(b"%d" % number, b"x" * 100_000, 0),))
            state.records.missing(state.machine.needs(write))
            state.machine.carry_out(number + 1, write)
            state.note(number + 1, write)
        engine.commit(state.take_batch()[0], sync=True)
        store = Store(clock, engine, Later(clock, 0.1), Later(clock, 0.1))
        got: list[Outgoing] = []
        opened(store, 2).addCallback(got.append)
        clock.advance(1.0)
        (outgoing,) = got
        read = outgoing.read()
        clock.advance(1.0)
        self.assertEqual(self.successResultOf(read)[1], False)
        self.assertEqual(len(engine._views), 1)
        outgoing.close()
        clock.advance(1.0)
        self.assertEqual(len(engine._views), 0)
