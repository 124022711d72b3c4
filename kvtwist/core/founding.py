"""Founding: how nodes that were only given a list of addresses become one cluster.

In: what the other listed founders say of themselves (`Founding.answered`), and that they cannot be
reached (`Founding.silent`). Out: what this node says of itself (`Founding.view`), for whom it waits
(`Founding.waiting_for`), and, once, the `FoundingRecord` (`Founding.record`).

The rule: **a node founds a record only when every listed founder, asked, has named the same one.**
A record names each founder's identity, which is new at each start of a node that keeps nothing on
disk. So a record changes only when a founder was restarted, it never changes back, and a node that
has founded names that record for ever. Hence no two of the listed founders, alive at the same time,
have founded different records: the later one would need the earlier one's word for it.

A node that hears from a peer that has founded already takes over that record, if it is listed in it
by name and address. That is how a founder that was late, or that was restarted, comes in.

**Restored founders.** A founder whose data directory was made of a backup says of which one. It and
another one found together only if both say the same: else one would be asked for data that only the
other has (S6). Identities are new in a restored directory, so the cluster's id is new, too.

What the caller owes: views reach `answered` in the order in which one peer's lives gave them - ask
over connections that *this* node dialled, of which there is only one at a time per address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from kvtwist.core.address import Address
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import ConfigurationError

_RECORD_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FoundingRecord:
    """What all founders agreed on. Its hash is the cluster's id."""

    members: tuple[Member, ...]
    settings: Settings

    @property
    def cluster_id(self) -> str:
        """32 hexadecimal digits: SHA-256, cut to 128 bits, of names, identities and settings.

        Addresses stay outside: they may change without the cluster becoming another.
        """
        said = {
            "format": _RECORD_FORMAT,
            "members": [[member.name, member.identity] for member in self.members],
            "settings": asdict(self.settings),
        }
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
        return hashlib.sha256(canonical).hexdigest()[:32]

    def topology(self) -> Topology:
        """The cluster's first topology."""
        return Topology(self.cluster_id, 1, self.members, self.settings)


@dataclass(frozen=True, slots=True)
class View:
    """What one node says to another that has not founded yet.

    :ivar me: the speaker.
    :ivar founders: its ``--peers``, sorted.
    :ivar cluster_id: of the record that it would found or has founded; empty while it lacks
        somebody's word.
    :ivar record: the record, once it has founded.
    :ivar restored: the digest of the backup that it has the data of; empty if it has no data.
    """

    me: Member
    founders: tuple[Address, ...]
    settings: Settings
    cluster_id: str = ""
    record: FoundingRecord | None = None
    restored: str = ""


class Founding:
    """One node's part in the founding.

    :param me: this node.
    :param founders: every address listed in ``--peers``, this node's own included.
    :param record: what this node has founded in an earlier life, if it keeps that. The founders
        then are only addresses to dial.
    :param restored: the digest of the backup that this node was restored from, if it was, and has
        not founded since.
    :raises ConfigurationError: when the list, or the record, lacks this node.

    **Invariant:** once ``record`` is set it never changes.
    """

    def __init__(
        self,
        me: Member,
        founders: Iterable[Address],
        settings: Settings,
        record: FoundingRecord | None = None,
        restored: str = "",
    ) -> None:
        self.me = me
        self.founders = tuple(sorted(founders))
        self.settings = settings
        self.restored = restored
        self.record = record
        if record is not None:
            self._check_place("the cluster of this node's data directory", record)
        elif me.address not in self.founders:
            listed = ", ".join(map(str, self.founders))
            raise ConfigurationError(
                f"--peers ({listed}) lacks this node's own address {me.address}: "
                "list every node of the cluster, this one included, or mend --addr or --advertise"
            )
        self._views: dict[Address, View] = {}
        self._trouble: dict[Address, str] = {}
        if record is None:
            self._found_if_all_agree()

    @property
    def others(self) -> tuple[Address, ...]:
        """The addresses to ask."""
        return tuple(address for address in self.founders if address != self.me.address)

    def view(self) -> View:
        """What this node says when it is asked."""
        proposal = self.record or self._proposal()
        cluster_id = proposal.cluster_id if proposal else ""
        return View(self.me, self.founders, self.settings, cluster_id, self.record, self.restored)

    def answered(self, address: Address, view: View) -> None:
        """Take in what the node at *address* said when it was asked.

        :raises ConfigurationError: when that node's cluster is founded and has no place for this
            node: waiting longer cannot help.
        """
        if self.record is not None:
            return
        if view.record is not None:
            self._join(address, view.record)
            return
        self._views[address] = view
        self._trouble.pop(address, None)
        self._found_if_all_agree()

    def silent(self, address: Address, why: str) -> None:
        """Note why *address* cannot be asked. What it said earlier still counts."""
        self._trouble[address] = why

    def waiting_for(self) -> tuple[str, ...]:
        """Who is missing, one text each, with the reason where it is known; empty once founded."""
        if self.record is not None:
            return ()
        proposal = self._proposal()
        reasons = ((address, self._reason_to_wait(address, proposal)) for address in self.others)
        return tuple(
            f"{self._who(address)} ({reason})" if reason else self._who(address)
            for address, reason in reasons
            if reason is not None
        )

    # -- the rule ---------------------------------------------------------------------------

    def _found_if_all_agree(self) -> None:
        proposal = self._proposal()
        if proposal is None:
            return
        mine = proposal.cluster_id
        if all(self._views[address].cluster_id == mine for address in self.others):
            self.record = proposal

    def _proposal(self) -> FoundingRecord | None:
        """The record that follows from what was heard; none while somebody is missing or odd."""
        if any(self._objection(address) is not None for address in self.others):
            return None
        members = [self.me, *(self._views[address].me for address in self.others)]
        members.sort(key=lambda member: member.name)
        return FoundingRecord(tuple(members), self.settings)

    def _join(self, address: Address, record: FoundingRecord) -> None:
        """Take over a founded record, if this node has its place in it."""
        cluster = f"the cluster at {address} ({record.cluster_id[:8]})"
        self._check_place(cluster, record)
        if record.settings.durable != self.settings.durable:
            kept, how = (
                ("keeps its data on disk", "without")
                if record.settings.durable
                else ("is in memory", "with")
            )
            raise ConfigurationError(f"{cluster} {kept}: start {self.me.name} {how} --memory")
        listed = next(member for member in record.members if member.name == self.me.name)
        if record.settings.durable and listed.identity != self.me.identity:
            raise ConfigurationError(
                f"{cluster} knows {self.me.name} with another data directory: start it with that "
                "one (--data-dir); who has lost its data cannot come back as who it was, and this "
                "release cannot replace a member"
            )
        self.record = record

    def _check_place(self, cluster: str, record: FoundingRecord) -> None:
        """See that the record has this node, at its address."""
        by_name = {member.name: member for member in record.members}
        by_address = {member.address: member for member in record.members}
        listed = by_name.get(self.me.name)
        if listed is not None and listed.address == self.me.address:
            return
        if listed is not None:
            raise ConfigurationError(
                f"{cluster} knows {self.me.name} at {listed.address}, not at {self.me.address}: "
                "give this node another --id, or start it at that address"
            )
        if self.me.address in by_address:
            raise ConfigurationError(
                f"{cluster} knows {self.me.address} as {by_address[self.me.address].name}, "
                f"not {self.me.name}: start this node with that --id"
            )
        raise ConfigurationError(
            f"{cluster} was founded without {self.me.name} at {self.me.address}: this release "
            "cannot add a member; found a new cluster, with this address in every --peers"
        )

    # -- what stands in the way ---------------------------------------------------------------

    def _reason_to_wait(self, address: Address, proposal: FoundingRecord | None) -> str | None:
        """Why the founding waits for *address*: a text, perhaps empty; ``None``: it does not."""
        objection = self._objection(address)
        if objection is not None:
            return objection
        if proposal is not None and self._views[address].cluster_id != proposal.cluster_id:
            return self._trouble.get(address, "it has not heard every founder yet")
        return None

    def _objection(self, address: Address) -> str | None:
        """Why the node at *address* cannot stand in a record yet; ``None``: it can."""
        view = self._views.get(address)
        if view is None:
            return self._trouble.get(address, "")
        if view.me.address != address:
            return f"it says that its address is {view.me.address}: mend its --advertise"
        if view.me.name in self._names_elsewhere(address):
            return f"the name {view.me.name} is used at two addresses: give each node its own --id"
        if view.founders != self.founders:
            theirs = ",".join(map(str, view.founders))
            return f"its --peers differ, {theirs}: give every node the same list"
        if view.settings != self.settings:
            return f"its settings differ, {_difference(view.settings, self.settings)}"
        if view.restored != self.restored:
            return _restored_apart(view.restored, self.restored)
        return None

    def _names_elsewhere(self, address: Address) -> set[str]:
        names = {view.me.name for where, view in self._views.items() if where != address}
        return names | {self.me.name}

    def _who(self, address: Address) -> str:
        view = self._views.get(address)
        return f"{view.me.name} at {address}" if view else str(address)


def _restored_apart(theirs: str, mine: str) -> str:
    """One line about founders whose data is not of the same backup."""
    if not theirs:
        said = f"it is empty, and this node was restored from backup {mine[:8]}"
    elif not mine:
        said = f"it was restored from backup {theirs[:8]}, and this node is empty"
    else:
        said = f"it was restored from backup {theirs[:8]}, and this node from {mine[:8]}"
    return f"{said}: restore the same file at every founder"


def _difference(theirs: Settings, mine: Settings) -> str:
    left, right = asdict(theirs), asdict(mine)
    return ", ".join(
        f"{name}: {left[name]} there, {right[name]} here"
        for name in left
        if left[name] != right[name]
    )
