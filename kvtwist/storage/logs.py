"""The logs of Raft groups, and their hard state, in a node's store.

``save`` puts into a batch what a `Ready` wants persisted; ``load`` is what a replica starts from
after a restart. Both speak of one group of many: a batch may hold many groups'.
"""

from __future__ import annotations

import struct
from typing import Final

from kvtwist.core.raft import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Ready,
    Restored,
    Snapshot,
)
from kvtwist.errors import StoreDamaged
from kvtwist.storage.engine import Batch, View
from kvtwist.storage.frames import opened, sealed
from kvtwist.storage.layout import BASE, HARD, entry_key, group_key, group_of

_HARD: Final = struct.Struct(">BQQQ")
_ENTRY: Final = struct.Struct(">BQB")
_BASE: Final = struct.Struct(">BQQ")
_VERSION: Final = 1
_INDEX_END: Final = (1 << 64) - 1


def save(batch: Batch, group: int, ready: Ready, last_written: int) -> int:
    """Put the hard state and the entries of *ready* into *batch*.

    A snapshot's own part is not done here: see `save_base`, and whoever keeps the data.

    :param last_written: the last entry that was ever put into a batch; 0: none.
    :returns: that after this.
    """
    if ready.hard_state is not None:
        _put_hard_state(batch, group, ready.hard_state)
    if not ready.entries:
        return last_written
    first = ready.entries[0].index
    if first <= last_written:
        batch.delete_range(entry_key(group, first), entry_key(group, _INDEX_END))
    for entry in ready.entries:
        key = entry_key(group, entry.index)
        head = _ENTRY.pack(_VERSION, entry.term, entry.kind)
        batch.put(key, sealed(key, head + entry.data))
    return ready.entries[-1].index


def save_base(batch: Batch, group: int, base: Snapshot) -> None:
    """Put into *batch* that the log begins after *base*; what was before it goes."""
    batch.delete_range(entry_key(group, 0), entry_key(group, base.index + 1))
    key = group_key(BASE, group)
    head = _BASE.pack(_VERSION, base.index, base.term)
    batch.put(key, sealed(key, head + base.configuration.encode()))


def save_replaced(batch: Batch, group: int, base: Snapshot) -> None:
    """Put into *batch* that a snapshot has taken the place of the whole log."""
    batch.delete_range(entry_key(group, 0), entry_key(group, _INDEX_END))
    save_base(batch, group, base)


def load(view: View, group: int, applied: int) -> Restored | None:
    """What the replica starts from; ``None``: this store knows nothing of the group.

    :param applied: how far its state machine has got, as its own part of the store says.
    :raises StoreDamaged: when it cannot be read as what it was, or entries are missing (S3).
    """
    key = group_key(BASE, group)
    frame = view.get(key)
    if frame is None:
        return None
    base = read_base(key, frame)
    return Restored(
        configuration=base.configuration,
        hard_state=_load_hard_state(view, group),
        compacted_index=base.index,
        compacted_term=base.term,
        entries=_load_entries(view, group, base.index),
        applied=applied,
    )


def read_base(key: bytes, frame: bytes) -> Snapshot:
    """The base of a log.

    :raises StoreDamaged: when it cannot be read as what was written; so do the other two.
    """
    payload = opened(key, frame)
    what = f"the base of group {group_of(key)}'s log"
    version, index, term = _unpacked(_BASE, payload, what)
    _check_version(version, what)
    try:
        return Snapshot(index, term, Configuration.decode(payload[_BASE.size :]))
    except ValueError as error:
        raise StoreDamaged(f"the configuration in {what}: {error}") from error


def read_hard_state(key: bytes, frame: bytes) -> HardState:
    """A hard state."""
    version, term, vote, commit = _unpacked(_HARD, opened(key, frame), "a hard state")
    _check_version(version, "a hard state")
    return HardState(term, vote, commit)


def read_entry(key: bytes, frame: bytes) -> Entry:
    """An entry of a log."""
    payload, index = opened(key, frame), int.from_bytes(key[9:], "big")
    version, term, kind = _unpacked(_ENTRY, payload, "an entry")
    _check_version(version, "an entry")
    if kind not in EntryKind.__members__.values():
        raise StoreDamaged(f"entry {index} of group {group_of(key)} is of the unknown kind {kind}")
    return Entry(index, term, EntryKind(kind), payload[_ENTRY.size :])


def _put_hard_state(batch: Batch, group: int, hard_state: HardState) -> None:
    key = group_key(HARD, group)
    packed = _HARD.pack(_VERSION, hard_state.term, hard_state.vote, hard_state.commit)
    batch.put(key, sealed(key, packed))


def _load_hard_state(view: View, group: int) -> HardState:
    key = group_key(HARD, group)
    frame = view.get(key)
    return HardState() if frame is None else read_hard_state(key, frame)


def _load_entries(view: View, group: int, base: int) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    expected = base + 1
    for key, frame in view.scan(entry_key(group, base + 1), entry_key(group, _INDEX_END)):
        if key != entry_key(group, expected):
            raise StoreDamaged(f"entry {expected} of group {group} is missing")
        entries.append(read_entry(key, frame))
        expected += 1
    return tuple(entries)


def _unpacked(form: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) < form.size:
        raise StoreDamaged(f"{what} is cut off")
    return form.unpack_from(payload)


def _check_version(version: int, what: str) -> None:
    if version != _VERSION:
        raise StoreDamaged(f"{what} is of format {version}; this release knows only {_VERSION}")
