"""The core's values as arguments of commands, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from kvtwist.core.address import parse_address
from kvtwist.core.founding import FoundingRecord, View
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.wire.arguments import Row
from kvtwist.wire.connection import Arguments


def write_member(member: Member) -> Arguments:
    """A member as arguments."""
    return {"name": member.name, "identity": member.identity, "address": str(member.address)}


def read_member(said: Arguments) -> Member:
    """A member from arguments.

    :raises ConfigurationError: when its address cannot be read.
    """
    return Member(said["name"], said["identity"], parse_address(said["address"]))


def write_settings(settings: Settings) -> Arguments:
    """The cluster's settings as arguments."""
    return asdict(settings)


def read_settings(said: Arguments) -> Settings:
    """The cluster's settings from arguments.

    :raises ConfigurationError: when they are impossible.
    """
    return Settings(**{name: said[name] for name in Settings.__dataclass_fields__})


def write_view(view: View) -> Arguments:
    """A view as the answer to `kvtwist.wire.commands.Found`."""
    members = view.record.members if view.record else ()
    return {
        **write_member(view.me),
        **write_settings(view.settings),
        "founders": [str(address) for address in view.founders],
        "cluster_id": view.cluster_id,
        "founded": view.record is not None,
        "members": [write_member(member) for member in members],
        "restored": view.restored,
    }


def read_view(answer: Arguments) -> View:
    """The view that an answer to `kvtwist.wire.commands.Found` holds.

    :raises ConfigurationError: when it makes no sense, as an unreadable address.
    """
    settings = read_settings(answer)
    members = tuple(read_member(said) for said in answer["members"])
    return View(
        me=read_member(answer),
        founders=tuple(parse_address(text) for text in answer["founders"]),
        settings=settings,
        cluster_id=answer["cluster_id"],
        record=FoundingRecord(members, settings) if answer["founded"] else None,
        restored=answer["restored"] or "",
    )


def write_topology(topology: Topology, leaders: Sequence[str | None] = ()) -> Arguments:
    """A topology as the answer to `kvtwist.wire.commands.DescribeTopology`.

    :param leaders: for each partition the name of who leads it, if that is known.
    """
    index = {member.name: at for at, member in enumerate(topology.members)}
    rows: tuple[Row, ...] = tuple(
        tuple(index[name] for name in row) for row in topology.placement.replicas
    )
    return {
        "cluster_id": topology.cluster_id,
        "epoch": topology.epoch,
        **write_settings(topology.settings),
        "members": [write_member(member) for member in topology.members],
        "placement": rows,
        "leaders": [index[name] + 1 if name else 0 for name in leaders],
    }
