"""The file of a backup: what comes out is what went in, or nothing does."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.state.contents import Contents, stored_key
from kvtwist.core.state.records import NEVER, Record
from kvtwist.core.state.snapshot import Snapshot, restore
from kvtwist.errors import ConfigurationError, KvtwistError, StoreDamaged
from kvtwist.storage import backup
from kvtwist.storage.backup import BackupHeader, BackupReader, BackupWriter, new_file, verify

Pairs = dict[bytes, bytes]

CONTENTS: list[Pairs] = [{b"a": b"1", b"b": b"2" * 100}, {}]


def header_of(partitions: int) -> BackupHeader:
    return BackupHeader("c" * 32, partitions, 3, 128, 1_700_000_000_000, "0.1.0")


def contents_of(pairs: Pairs) -> Contents:
    """A state with these records, in the order of writing."""
    contents = Contents(1)
    for key, value in pairs.items():
        contents.revision += 1
        version = contents.revision
        record = Record(value, version, version, NEVER, 0, 0)
        contents.put(stored_key(0, key), record)
    contents.applied_index = contents.revision + 7
    return contents


def written(partitions: Sequence[Pairs], chunk_bytes: int = 64) -> bytes:
    """The file of these partitions."""
    stream = io.BytesIO()
    writer = BackupWriter(stream, header_of(len(partitions)))
    for number, pairs in enumerate(partitions):
        contents = contents_of(pairs)
        writer.begin(number, contents.applied_index)
        for chunk in Snapshot(contents.freeze()).chunks(chunk_bytes):
            writer.add(chunk)
        writer.end()
    writer.finish()
    return stream.getvalue()


def read(data: bytes) -> tuple[str, list[tuple[int, Pairs]]]:
    """The digest; each partition's applied index and records."""
    reader = BackupReader(io.BytesIO(data))
    found = []
    for _, applied_index, chunks in reader.partitions():
        contents = restore(chunks)
        records = contents.items(b"", None)
        found.append((applied_index, {key[4:]: record.value for key, record in records}))
    return reader.digest, found


def verified(data: bytes) -> str:
    """The digest of a file that is well."""
    header, digest = verify(io.BytesIO(data))
    assert header == BackupReader(io.BytesIO(data)).header
    return digest


class FormatTests(SynchronousTestCase):
    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from([1, 2, 4]).flatmap(
            lambda count: st.lists(
                st.dictionaries(st.binary(max_size=20), st.binary(max_size=300), max_size=8),
                min_size=count,
                max_size=count,
            )
        ),
        st.integers(1, 400),
    )
    def test_round_trip(self, partitions: list[Pairs], chunk_bytes: int) -> None:
        """Whatever is stored, however it came in pieces."""
        _, found = read(written(partitions, chunk_bytes))
        wanted = [(len(pairs) + 7, pairs) for pairs in partitions]
        self.assertEqual(found, wanted)

    def test_the_header(self) -> None:
        """What a restore, and a person with ``head``, needs to know."""
        data = written(CONTENTS)
        self.assertEqual(BackupReader(io.BytesIO(data)).header, header_of(2))
        self.assertTrue(data.startswith(b"kvtwist backup\n\x01h"))
        self.assertIn(b'"partitions": 2', data)

    def test_a_digest_for_each_file(self) -> None:
        """S6: founders compare it, and two files must not pass for one."""
        digest = read(written(CONTENTS))[0]
        self.assertEqual((len(digest), digest), (64, verified(written(CONTENTS))))
        self.assertEqual(read(written(CONTENTS))[0], digest)
        self.assertNotEqual(read(written(CONTENTS[::-1]))[0], digest)

    def test_large_chunks_are_cut(self) -> None:
        """A reader keeps no more than one piece in memory, whoever wrote it."""
        value = os.urandom(3 << 20)
        data = written([{b"k": value}], chunk_bytes=4 << 20)
        _, _, chunks = next(BackupReader(io.BytesIO(data)).partitions())
        sizes = list(map(len, chunks))
        self.assertEqual(max(sizes), backup.PIECE_BYTES_MAX)
        self.assertGreater(len(sizes), 3)

    def test_every_truncation_is_refused(self) -> None:
        """S6: a copy that broke off would found a cluster that has lost half of its data."""
        data = written(CONTENTS)
        for length in range(len(data)):
            self.assertRaises(KvtwistError, verified, data[:length])

    def test_every_flipped_bit_is_refused(self) -> None:
        """S3: damaged data would come back as somebody's."""
        data = written(CONTENTS)
        for place in range(len(data)):
            for bit in (1, 2, 4, 8, 16, 32, 64, 128):
                damaged = bytearray(data)
                damaged[place] ^= bit
                self.assertRaises(KvtwistError, verified, bytes(damaged))

    def test_what_stands_behind_it_is_refused(self) -> None:
        """Two files that were joined are no backup."""
        data = written(CONTENTS)
        self.assertRaises(StoreDamaged, verified, data + b"\0")
        self.assertRaises(StoreDamaged, verified, data + data)

    def test_pieces_that_change_places_are_refused(self) -> None:
        """Each is well for itself: the digest of all of them is not."""
        data = written([{b"k": b"1" * 300}], chunk_bytes=64)
        first = data.index(b"d", data.index(b"}p") + 22)
        size = 9 + 64
        one, two = data[first : first + size], data[first + size : first + 2 * size]
        self.assertEqual((one[:1], two[:1]), (b"d", b"d"))
        self.assertRaises(
            StoreDamaged, verified, data[:first] + two + one + data[first + 2 * size :]
        )

    def test_other_files(self) -> None:
        """Said for what it is, not as damage."""
        refused = self.assertRaises(ConfigurationError, read, b"PK\3\4" + bytes(100))
        self.assertIn("no backup", str(refused))
        later = bytearray(written(CONTENTS))
        later[15] = 2
        refused = self.assertRaises(ConfigurationError, read, bytes(later))
        self.assertIn("format 2; this release knows 1", str(refused))

    def test_a_stream_that_is_cut_off_is_not_finished(self) -> None:
        """A node that gives up half-way must not look like one that is done."""
        chunks = list(Snapshot(contents_of(CONTENTS[0]).freeze()).chunks(64))
        for some in (chunks[:-1], [], [*chunks[:-1], b"x" * 32]):
            writer = BackupWriter(io.BytesIO(), header_of(1))
            writer.begin(0, 9)
            for chunk in some:
                writer.add(chunk)
            self.assertRaises(StoreDamaged, writer.end)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, self.top)
        self.path = self.top / "backup"

    def names(self) -> list[str]:
        return sorted(os.listdir(self.top))

    def break_off(self, reason: type[BaseException], overwrite: bool) -> None:
        with new_file(self.path, overwrite=overwrite) as stream:
            stream.write(b"half")
            raise reason

    def test_whole_or_not_there(self) -> None:
        """S4: a name that is there stands for all of it, on the disk."""
        synced: list[int] = []
        fsync = os.fsync

        def sync(place: int) -> None:
            fsync(place)
            synced.append(place)

        self.patch(os, "fsync", sync)
        with new_file(self.path, overwrite=False) as stream:
            stream.write(b"all")
            self.assertEqual((self.names(), synced), (["backup.part"], []))
        self.assertEqual((self.path.read_bytes(), self.names()), (b"all", ["backup"]))
        self.assertEqual(len(synced), 2)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_broken_off(self) -> None:
        """No half file, whatever the reason."""
        for reason in (ValueError, KeyboardInterrupt):
            self.assertRaises(reason, self.break_off, reason, False)
            self.assertEqual(self.names(), [])

    def test_what_is_there_stays(self) -> None:
        """Yesterday's backup is not lost to today's that fails, or to a wrong name."""
        self.path.write_bytes(b"old")
        with self.assertRaises(ConfigurationError) as refused:
            new_file(self.path, overwrite=False).__enter__()
        self.assertIn("--force", str(refused.exception))
        self.assertRaises(ValueError, self.break_off, ValueError, True)
        self.assertEqual((self.path.read_bytes(), self.names()), (b"old", ["backup"]))
        with new_file(self.path, overwrite=True) as stream:
            stream.write(b"new")
        self.assertEqual((self.path.read_bytes(), self.names()), (b"new", ["backup"]))

    def test_what_came_meanwhile_stays(self) -> None:
        """A backup takes hours; another one may have been given the name."""
        with self.assertRaises(ConfigurationError), new_file(self.path, overwrite=False):
            self.path.write_bytes(b"other")
        self.assertEqual((self.path.read_bytes(), self.names()), (b"other", ["backup"]))

    def test_two_at_once(self) -> None:
        """Two that write into one file make none; and what a killed one has left is not touched."""
        part = self.top / "backup.part"
        part.write_bytes(b"another's")
        with self.assertRaises(ConfigurationError) as refused:
            new_file(self.path, overwrite=True).__enter__()
        self.assertIn("then remove it", str(refused.exception))
        self.assertEqual((part.read_bytes(), self.names()), (b"another's", ["backup.part"]))

    def test_a_directory(self) -> None:
        """Said before the work, not after it."""
        for overwrite in (False, True):
            with self.assertRaises(ConfigurationError):
                new_file(self.top, overwrite=overwrite).__enter__()
