"""The engine on disk: RocksDB, through ``rocksdict``. The only module that knows either.

What is set on purpose, and why:

* A batch is durable when its ``commit`` with *sync* returns: RocksDB then has called ``fdatasync``
  on its write-ahead log.
* To write and to sync are two calls, in this order. ``rocksdict`` lets go of the GIL in the second
  one only, and while it has it the reactor stands still (R8). So the first one hardly waits: it
  does not sync, and where RocksDB would make it wait for room in memory, it is refused and tried
  again. What is left is the system's own write to the log, which may wait for a frozen device.
* So a batch is read before it is durable, and after a sync that has failed. That misleads nobody:
  while a node runs, nothing is read here but what entries have done that a majority has already;
  terms, votes and logs are read at the start and after `reopen`, when all that is found is synced.
* Recovery accepts a torn tail of that log, which a crash leaves, and nothing else: RocksDB's own
  default drops everything after a damaged record in the middle, silently (S7).
* After a failed commit nothing more is attempted (S1). Only a full disk is another matter: then the
  database is opened again, as after a crash (S8).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import rocksdict

from kvtwist.errors import DiskFull, StorageError, StoreDamaged, StoreFailed, StoreLocked
from kvtwist.storage.engine import NOT_CACHED, Batch, Kind, NotCached, View

WRITE_BUFFER_BYTES = 32 << 20
BLOCK_CACHE_BYTES = 64 << 20
WAL_BYTES_MAX = 128 << 20
RECOVERY_BYTES = 8 << 20
"""Room that has to be there besides before a full store is opened again."""
STALL_SECONDS_MIN, STALL_SECONDS_MAX = 0.001, 0.1
"""Between two attempts to write, when RocksDB has to make room in its memory first; or two looks
whether it lets in any number of bytes again."""

_BLOOM_BITS_PER_KEY = 10
_LOG_FILES_KEPT = 2
_FAMILY = "default"

_FULL = ("No space left on device", "Disk quota exceeded")
_DAMAGED = ("Corruption",)
_STALLED = "Write stall"
_BYTES_PER_SECOND = "rocksdb.actual-delayed-write-rate"


class RocksView:
    """One iterator of RocksDB's, which goes on showing what there was when it was made.

    A snapshot would be the thing to use, but the iterators that ``rocksdict`` 0.3 makes of one show
    what is there now.
    """

    def __init__(self, database: Any) -> None:
        with _translated():
            self._place: Any = database.iter()
        self._scans = 0

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*."""
        return next((value for _, value in self.scan(key, key + b"\0")), None)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from *start* up to *end*: RocksDB's iterator ends where it meets damage, and says so
        when it is asked then."""
        self._scans += 1
        mine = self._scans
        with _translated():
            self._alive().seek(start)
        # Between two steps nothing but the view has the iterator, so that it can be taken away.
        while self._alive().valid():
            key: bytes = self._alive().key()
            if key >= end:
                return
            yield key, self._alive().value()
            if mine != self._scans:
                raise RuntimeError("a view makes one scan at a time")
            self._alive().next()
        with _translated():
            self._alive().status()

    def _alive(self) -> Any:
        if self._place is None:
            raise StoreFailed("the store was closed or opened anew while this was read")
        return self._place

    def end(self) -> None:
        """Let go of the database, which is not closed before all iterators are gone."""
        self._place = None


class RocksEngine:
    """`kvtwist.storage.engine.Engine` in a directory.

    :param directory: made if it is not there, for nobody but this user.
    :param read_only: it has to be there, and is left as it is, as far as RocksDB can.
    :raises StoreLocked: when another process has it open.
    :raises StoreDamaged: when it cannot be read as what it was.
    :raises StoreFailed: when it cannot be opened for another reason.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self._directory = directory
        self._at_once = rocksdict.WriteOptions()
        self._at_once.no_slowdown = True
        self._views: WeakSet[RocksView] = WeakSet()
        if read_only and not (directory / "CURRENT").is_file():
            raise StoreFailed(f"{directory} has no store in it")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(directory / "lock")
        except OSError as error:
            raise StoreFailed(f"{directory} cannot be used: {error.strerror}") from error
        try:
            self._database = self._open(read_only)
        except BaseException:
            self._lock.close()
            raise

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*."""
        (value,) = self.get_many((key,))
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of *keys*: asked for as a list, even one, since ``rocksdict`` lets go of the
        GIL for lists only."""
        with _translated():
            values: list[bytes | None] = self._database.get(list(keys))
            return values

    def get_cached(self, key: bytes) -> bytes | NotCached | None:
        """The value of *key*, if it is in memory, or certain not to exist."""
        database = self._database
        if database is None:
            return NOT_CACHED
        try:
            may_exist, value = database.key_may_exist(key, fetch=True)
        except rocksdict.DbClosedError:
            return NOT_CACHED  # it is being opened anew, on another thread
        except Exception:
            with _translated():  # not around each call: there is one for each read and write
                raise
        if value is not None:
            found: bytes = value
            return found
        return NOT_CACHED if may_exist else None

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from *start* up to *end*."""
        return self._new_view().scan(start, end)

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """Do all that *batch* says."""
        pause_seconds = STALL_SECONDS_MIN
        # An empty one too: after a failure it is refused, whatever another sync would say (S1).
        while not self._written(batch):
            self._wait(batch.size_bytes, pause_seconds)
            pause_seconds = min(2 * pause_seconds, STALL_SECONDS_MAX)
        if sync:
            with _translated():
                self._database.flush_wal(True)

    def _written(self, batch: Batch) -> bool:
        """Write it, unsynced. ``False``: it would have had to wait, and nothing was done."""
        try:
            with _translated():
                self._database.write(_writes(batch), self._at_once)
        except StoreFailed as error:
            if _STALLED in str(error):
                return False
            raise
        return True

    def _wait(self, size_bytes: int, seconds: float) -> None:
        """Wait before another attempt to write so many bytes: *seconds*, but while RocksDB lets in
        only so many a second, twice what they take. An attempt that comes too early makes the wait
        longer by once that: who comes too early each time is never let in."""
        rate = self._bytes_per_second()
        if not rate:
            time.sleep(seconds)
            return
        end = time.monotonic() + max(seconds, 2 * size_bytes / rate)
        while (left := end - time.monotonic()) > 0 and self._bytes_per_second():
            time.sleep(min(left, STALL_SECONDS_MAX))

    def _bytes_per_second(self) -> int:
        """How much is let in; 0: any number, or nothing at all."""
        with _translated():
            rate: int | None = self._database.property_int_value(_BYTES_PER_SECOND)
        return rate or 0

    def view(self) -> AbstractContextManager[View]:
        """What is there now; given up with the last reference to it."""
        return nullcontext(self._new_view())

    def _new_view(self) -> RocksView:
        view = RocksView(self._database)
        self._views.add(view)
        return view

    def reopen(self) -> None:
        """Drop the handle, which may raise once more, and open again (S8). It ends all views.

        Until there is room for that, the handle goes on reading; so does what takes its place if
        the room is gone again.
        """
        self._check_room()
        self._end_views()
        # A handle must not be met by `get_cached` while it is being closed.
        closing, self._database = self._database, None
        with suppress(Exception):
            closing.close()
        self._database = closing
        try:
            self._database = self._open()
        except DiskFull:
            self._database = self._open(read_only=True)
            raise

    def _end_views(self) -> None:
        for view in list(self._views):
            view.end()

    def _check_room(self) -> None:
        """RocksDB writes what is in its log to tables when it opens."""
        logs_bytes = sum(path.stat().st_size for path in self._directory.glob("*.log"))
        disk = os.statvfs(self._directory)
        blocks = disk.f_bavail if os.geteuid() else disk.f_bfree
        if blocks * disk.f_frsize < logs_bytes + RECOVERY_BYTES:
            raise DiskFull(
                f"the disk is full: {self._directory} needs "
                f"{(logs_bytes + RECOVERY_BYTES) >> 20:,} MiB to go on"
            )

    def size_bytes(self) -> int:
        """All files in the directory."""
        total = 0
        for entry in os.scandir(self._directory):
            with suppress(FileNotFoundError):  # RocksDB removes files when it likes
                total += entry.stat().st_size
        return total

    def compact(self, start: bytes, end: bytes) -> None:
        """Have RocksDB write that range anew."""
        with _translated():
            self._database.compact_range(start, end)

    def close(self) -> None:
        """Close it, and let others have the directory."""
        try:
            self._end_views()
            with suppress(rocksdict.DbClosedError), _translated():
                self._database.close()
        finally:
            self._lock.close()

    def _open(self, read_only: bool = False) -> Any:
        types = rocksdict.AccessType
        access = types.read_only() if read_only else types.read_write()
        options = _options()
        # Given for the family too: else an existing one forgets its cache and its filters.
        families = {_FAMILY: options}
        with _translated():
            return rocksdict.Rdict(str(self._directory), options, families, access)


def _writes(batch: Batch) -> Any:
    """*batch* for RocksDB, which uses it up."""
    writes = rocksdict.WriteBatch(raw_mode=True)
    put, is_put = writes.put, Kind.PUT  # nearly all are
    for kind, key, value in batch.operations:
        if kind is is_put:
            put(key, value)
        elif kind is Kind.DELETE:
            writes.delete(key)
        else:
            writes.delete_range(key, value)
    return writes


def _options() -> Any:
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_block_cache(rocksdict.Cache(BLOCK_CACHE_BYTES))
    blocks.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_keep_log_file_num(_LOG_FILES_KEPT)
    return options


@contextmanager
def _translated() -> Iterator[None]:
    """RocksDB's errors, which are plain exceptions with a text, as ours."""
    try:
        yield
    except (StorageError, rocksdict.DbClosedError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if any(sign in text for sign in _FULL):
            raise DiskFull(f"the disk is full: {text}") from error
        if any(sign in text for sign in _DAMAGED):
            raise StoreDamaged(f"the store is damaged: {text}") from error
        raise StoreFailed(f"the store failed: {text}") from error


def _locked(path: Path) -> IO[str]:
    """An open file that no other process has locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    lock = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = lock.read(20).strip()
        lock.close()
        who = f" (process {holder})" if holder.isdigit() else ""
        raise StoreLocked(
            f"{path.parent} is in use by another process{who}: two nodes cannot share a directory"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
