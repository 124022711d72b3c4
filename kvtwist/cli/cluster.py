"""The commands that show the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.python.failure import Failure

from kvtwist.cli.picture import draw_ring
from kvtwist.cli.run import EXIT_OK, EXIT_UNAVAILABLE
from kvtwist.cli.show import Printer, counted, json_of, table, text_of
from kvtwist.client import Client
from kvtwist.client.table import Table
from kvtwist.core.address import Address, parse_addresses
from kvtwist.core.placement import arc_start
from kvtwist.core.ring import Ring, hash_bytes, tag
from kvtwist.core.topology import Member
from kvtwist.errors import KvtwistError

_Answer = dict[str, Any]


async def where(client: Client, printer: Printer, key: bytes) -> int:
    """``kvcli where``."""
    table_of = await client.topology()
    number = table_of.partition_of(key)
    settings = table_of.settings
    owner = table_of.replicas[number][0]
    replicas = [member.name for member in table_of.replicas[number]]
    plain = Ring([member.name for member in table_of.members], settings.tokens_per_member)
    preferred = plain.preference_list(arc_start(number, settings.partitions))
    position = hash_bytes(tag(key))
    if printer.as_json:
        printer.object(
            {
                **json_of("key", key),
                "position": position,
                "partition": number,
                "owner": owner.name,
                "address": str(owner.address),
                "replicas": replicas,
                "preference_list": preferred,
            }
        )
        return EXIT_OK
    tagged = "" if tag(key) == key else f", by its tag {text_of(tag(key))!r}"
    printer.line(f"key              {text_of(key)}")
    printer.line(f"ring position    {position} of 2^32{tagged}")
    printer.line(f"partition        {number} of {settings.partitions}")
    printer.line(f"owner            {owner.name} at {owner.address}")
    printer.line(f"replicas         {', '.join(replicas)}")
    printer.line(f"preference list  {', '.join(preferred)}")
    return EXIT_OK


async def status(client: Client, printer: Printer, peers: str) -> int:
    """``kvcli status``."""
    answers = await _ask(client, parse_addresses(peers))
    founded = any(isinstance(answer, dict) and answer["cluster_id"] for answer in answers.values())
    table_of = await client.topology() if founded else None
    if table_of is not None:
        heard = _by_name(table_of, answers)
        silent = [each.address for each in table_of.members if each.name not in heard]
        answers |= await _ask(client, [each for each in silent if each not in answers])
    if printer.as_json:
        printer.object(_status_object(table_of, answers))
    else:
        for line in _status_lines(table_of, answers):
            printer.line(line)
    complete = table_of is not None and len(_by_name(table_of, answers)) == len(table_of.members)
    return EXIT_OK if complete else EXIT_UNAVAILABLE


def _by_name(table_of: Table, answers: Mapping[Address, _Answer | str]) -> dict[str, _Answer]:
    """The members' answers. A node is who it says it is, at whichever of its addresses."""
    return {
        answer["name"]: answer
        for answer in answers.values()
        if isinstance(answer, dict) and answer["cluster_id"] == table_of.cluster_id
    }


async def _ask(client: Client, addresses: Iterable[Address]) -> dict[Address, _Answer | str]:
    """Each node's answer to `Status`, or why there is none."""
    addresses = list(addresses)
    answers = [client.status(address).addErrback(_why) for address in addresses]
    return dict(zip(addresses, await gatherResults(answers), strict=True))


def _why(failure: Failure) -> str:
    failure.trap(KvtwistError)
    return str(failure.value)


def _status_object(table_of: Table | None, answers: dict[Address, _Answer | str]) -> _Answer:
    members = {member.address: member.name for member in table_of.members} if table_of else {}
    nodes = [
        {"address": str(address), "answers": True, **answer}
        if isinstance(answer, dict)
        else {
            "name": members.get(address),
            "address": str(address),
            "answers": False,
            "error": answer,
        }
        for address, answer in answers.items()
    ]
    if table_of is None:
        return {"founded": False, "nodes": nodes}
    return {
        "founded": True,
        "cluster_id": table_of.cluster_id,
        "epoch": table_of.epoch,
        "partitions": table_of.settings.partitions,
        "nodes": nodes,
    }


def _status_lines(table_of: Table | None, answers: dict[Address, _Answer | str]) -> list[str]:
    if table_of is None:
        return _unfounded_lines(answers)
    owned = Counter(row[0].name for row in table_of.replicas)
    heard = _by_name(table_of, answers)
    rows = []
    for member in table_of.members:
        answer = heard.get(member.name) or answers.get(member.address, "not asked")
        if isinstance(answer, dict) and member.name not in heard:
            answer = "it belongs to another cluster, or to none yet"
        rows.append(_status_row(member, owned, answer))
    keys = sum(answer["key_count"] for answer in heard.values())
    return [
        f"cluster {table_of.cluster_id[:8]}, epoch {table_of.epoch}: "
        f"{counted(len(table_of.members), 'member')}, "
        f"{counted(table_of.settings.partitions, 'partition')}, {counted(keys, 'key')}",
        "",
        *table(("MEMBER", "ADDRESS", "PARTITIONS", "KEYS", "UP", "ANSWERS"), rows),
        *_strangers(table_of, answers),
    ]


def _strangers(table_of: Table, answers: Mapping[Address, _Answer | str]) -> list[str]:
    """Lines about addresses that were asked and are no member's."""
    known = {member.address for member in table_of.members}
    lines = []
    for address, answer in answers.items():
        if isinstance(answer, str):
            if address not in known:
                lines.append(f"{address}: {answer}")
        elif answer["cluster_id"] != table_of.cluster_id and address not in known:
            lines.append(f"{address} is not in this cluster: it is {answer['name']}")
    return lines


def _status_row(
    member: Member, owned: Counter[str], answer: _Answer | str
) -> tuple[str, str, str, str, str, str]:
    partitions = str(owned[member.name])
    if isinstance(answer, str):
        return member.name, str(member.address), partitions, "-", "-", f"no: {answer}"
    seconds = answer["uptime_ms"] // 1000
    trouble = ", ".join(answer["unreachable"])
    answers = f"yes, but cannot reach {trouble}" if trouble else "yes"
    keys = f"{answer['key_count']:,}"
    return member.name, str(member.address), partitions, keys, f"{seconds:,} s", answers


def _unfounded_lines(answers: dict[Address, _Answer | str]) -> list[str]:
    lines = ["there is no cluster yet"]
    for address, answer in answers.items():
        if isinstance(answer, str):
            lines.append(f"{address}: {answer}")
        else:
            missing = ", ".join(answer["waiting_for"])
            lines.append(f"{answer['name']} at {address} waits for {missing}")
    return lines


async def ring(client: Client, printer: Printer) -> int:
    """``kvcli ring``."""
    table_of = await client.topology()
    settings = table_of.settings
    plain = Ring([member.name for member in table_of.members], settings.tokens_per_member)
    owners = [row[0].name for row in table_of.replicas]
    owned = Counter(owners)
    if printer.as_json:
        printer.object(
            {
                "cluster_id": table_of.cluster_id,
                "epoch": table_of.epoch,
                "partitions": settings.partitions,
                "tokens_per_member": settings.tokens_per_member,
                "members": [
                    {
                        "name": member.name,
                        "address": str(member.address),
                        "partitions": owned[member.name],
                        "share": owned[member.name] / settings.partitions,
                        "token_share": plain.share(member.name),
                    }
                    for member in table_of.members
                ],
                "owners": owners,
            }
        )
        return EXIT_OK
    legend = [
        (member.name, f"{owned[member.name]}", f"{owned[member.name] / settings.partitions:.1%}")
        for member in table_of.members
    ]
    for line in draw_ring(owners, legend):
        printer.line(line)
    return EXIT_OK
