"""A node's data directory: who the node is, and that it may be that again.

It holds the store, the marks beside it, and in the store the node's own record: its name, its
random *identity*, how often it was started (its *life*), and the cluster's founding record. Whoever
votes is the identity, not the name or the address; so a directory must not come back as it was some
time ago, and must not be used by two (R11, S7).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kvtwist.core.address import parse_address
from kvtwist.core.founding import FoundingRecord
from kvtwist.core.raft import Restored
from kvtwist.core.topology import Member, Settings
from kvtwist.errors import ConfigurationError, StoreDamaged
from kvtwist.storage.engine import Batch, Engine, View
from kvtwist.storage.frames import opened, sealed
from kvtwist.storage.layout import FORMAT, NODE, STORE
from kvtwist.storage.marks import Mark, Marks, behind

NODE_MARK = 0
"""The marks' group that counts the node's lives; Raft groups begin at 1."""


@dataclass(frozen=True, slots=True)
class RestoredFrom:
    """The backup that a directory was made of.

    :ivar digest: its name, in hexadecimal digits.
    :ivar partitions: how many it has; all of them are in the directory.
    """

    digest: str
    partitions: int


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """Who a node is.

    :ivar life: how often it was started, this time included.
    :ivar founding: the record of the cluster that it belongs to, once there is one.
    :ivar restored: what it was restored from, until what it does not own has been removed.
    """

    name: str
    identity: str
    life: int = 0
    founding: FoundingRecord | None = None
    restored: RestoredFrom | None = None


class DataDirectory:
    """An open data directory. Its methods wait for the disk: they are for the start of a node.

    :param make_engine: opens the engine in a directory.
    :param name: the node's ``--id``.
    :param new_identity: used if the directory is new.
    :param make_marks: opens the file of marks.
    :raises ConfigurationError: when it is another node's, or of a later release.
    :raises StorageError: when it cannot be opened, or has gone back.

    :ivar record: who the node is, in this life.
    """

    def __init__(
        self,
        path: Path,
        make_engine: Callable[[Path], Engine],
        name: str,
        new_identity: str,
        make_marks: Callable[[Path], Marks] = Marks,
    ) -> None:
        self._path = path
        self.engine = make_engine(path)
        try:
            check_format(self.engine, path)
            self.record = read_node(self.engine, path) or NodeRecord(name, new_identity)
            self._check_name(name)
            self.marks = make_marks(path / "marks")
        except BaseException:
            self.engine.close()
            raise
        try:
            self._begin_life()
        except BaseException:
            self.close()
            raise

    def _check_name(self, name: str) -> None:
        if self.record.name != name:
            raise ConfigurationError(
                f"{self._path} belongs to {self.record.name}, not to {name}: "
                f"start it with --id={self.record.name}, or give {name} another --data-dir"
            )

    def _begin_life(self) -> None:
        known = self.marks.known.get(NODE_MARK, Mark())
        if self.record.life < known.term:
            raise StoreDamaged(
                f"{self._path} has gone back: it was started {known.term} times, and remembers "
                f"{self.record.life}: it is a copy or was restored, and must not be used: "
                "put back the newest one"
            )
        self._save(replace(self.record, life=self.record.life + 1))
        self.marks.raise_to({NODE_MARK: Mark(self.record.life)})

    def found(self, founding: FoundingRecord) -> None:
        """Keep the founding record, durably."""
        self._save(replace(self.record, founding=founding))

    def have_restored(self, restored: RestoredFrom) -> None:
        """Keep, durably, that all of a backup's data is here, and with it all that was committed
        before."""
        self._save(replace(self.record, restored=restored))

    def have_removed(self, batch: Batch) -> None:
        """Do *batch*, which removes what of the backup is not this node's, and be like any other
        directory from then on."""
        self._save(replace(self.record, restored=None), batch)

    def check_partitions(self, partitions: int) -> None:
        """See that a cluster of so many partitions can be founded with what was restored.

        :raises ConfigurationError: when it cannot.
        """
        restored = self.record.restored
        if restored is not None and restored.partitions != partitions:
            raise ConfigurationError(
                f"{self._path} was restored from a backup of {restored.partitions} partitions, "
                f"not {partitions}: start every founder with --partitions={restored.partitions}"
            )

    def check_marks(self, restored: Mapping[int, Restored]) -> None:
        """See that no group's log has forgotten anything.

        :raises StoreDamaged: when one has.
        """
        stored = {group: _mark_of(each) for group, each in restored.items()}
        groups = [group for group in behind(self.marks.known, stored) if group != NODE_MARK]
        if groups:
            raise StoreDamaged(
                f"{self._path} has gone back: it lacks what was durable of groups "
                f"{', '.join(map(str, groups[:5]))}{', ...' if len(groups) > 5 else ''}: "
                "it must not be used: put back the newest one"
            )

    def close(self) -> None:
        """Close everything."""
        self.marks.close()
        self.engine.close()

    def _save(self, record: NodeRecord, batch: Batch | None = None) -> None:
        batch = batch or Batch()
        batch.put(STORE, sealed(STORE, json.dumps({"format": FORMAT}).encode()))
        batch.put(NODE, sealed(NODE, _encode(record)))
        self.engine.commit(batch, sync=True)
        self.record = record


def _mark_of(restored: Restored) -> Mark:
    last = restored.compacted_index + len(restored.entries)
    return Mark(restored.hard_state.term, restored.hard_state.vote, last)


def check_format(view: View, path: Path) -> None:
    """See that this release knows the format.

    :raises ConfigurationError: when another one wrote it.
    """
    frame = view.get(STORE)
    if frame is None:
        return
    found = json.loads(opened(STORE, frame))["format"]
    if found == FORMAT:
        return
    mend = "use a later kvtwist"
    if found < FORMAT:
        mend = (
            "it is of a release in which partitions had one replica; make a backup with that "
            "release (kvcli backup), and restore it with this one (kvcli restore)"
        )
    raise ConfigurationError(f"{path} is of format {found}; this release knows {FORMAT}: {mend}")


def read_node(view: View, path: Path) -> NodeRecord | None:
    """The node's own record; ``None``: it has none yet.

    :raises StoreDamaged: when it cannot be read as what was written.
    """
    frame = view.get(NODE)
    if frame is None:
        return None
    try:
        said: dict[str, Any] = json.loads(opened(NODE, frame))
        founding, restored = said.pop("founding"), said.pop("restored", None)
        return NodeRecord(
            founding=founding and _founding(founding),
            restored=restored and RestoredFrom(**restored),
            **said,
        )
    except (ValueError, TypeError, KeyError, ConfigurationError) as error:
        raise StoreDamaged(f"{path}: the node's own record cannot be read: {error}") from error


def _encode(record: NodeRecord) -> bytes:
    founding = record.founding
    said: dict[str, Any] = {
        "name": record.name,
        "identity": record.identity,
        "life": record.life,
        "founding": None,
    }
    if founding is not None:
        said["founding"] = {
            "members": [[each.name, each.identity, str(each.address)] for each in founding.members],
            "settings": asdict(founding.settings),
        }
    if record.restored is not None:
        said["restored"] = asdict(record.restored)
    return json.dumps(said, sort_keys=True).encode()


def _founding(said: dict[str, Any]) -> FoundingRecord:
    members = tuple(
        Member(name, identity, parse_address(address))
        for name, identity, address in said["members"]
    )
    return FoundingRecord(members, Settings(**said["settings"]))
