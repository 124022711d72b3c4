"""The commands that show the cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.python.failure import Failure

from kvtwist.cli.picture import draw_ring
from kvtwist.cli.run import EXIT_OK, EXIT_UNAVAILABLE
from kvtwist.cli.show import Printer, counted, json_of, table, text_of
from kvtwist.client import Client
from kvtwist.client.table import Table
from kvtwist.core.address import Address, parse_addresses
from kvtwist.core.ring import Ring, hash_bytes, tag
from kvtwist.core.topology import Member
from kvtwist.errors import KvtwistError

_Answer = dict[str, Any]


async def where(client: Client, printer: Printer, key: bytes) -> int:
    """``kvcli where``."""
    table_of = await client.topology()
    number = table_of.partition_of(key)
    owner, *followers = table_of.replicas[number]
    position = hash_bytes(tag(key))
    if printer.as_json:
        printer.object(
            {
                **json_of("key", key),
                "position": position,
                "partition": number,
                "owner": owner.name,
                "address": str(owner.address),
                "preference_list": [owner.name, *(member.name for member in followers)],
            }
        )
        return EXIT_OK
    tagged = "" if tag(key) == key else f", by its tag {text_of(tag(key))!r}"
    printer.line(f"key              {text_of(key)}")
    printer.line(f"ring position    {position} of 2^32{tagged}")
    printer.line(f"partition        {number} of {table_of.settings.partitions}")
    printer.line(f"owner            {owner.name} at {owner.address}")
    names = ", ".join(member.name for member in (owner, *followers))
    printer.line(f"preference list  {names}")
    return EXIT_OK


async def status(client: Client, printer: Printer, peers: str) -> int:
    """``kvcli status``."""
    given = parse_addresses(peers)
    answers = await _ask(client, given)
    founded = any(isinstance(answer, dict) and answer["cluster_id"] for answer in answers.values())
    table_of = await client.topology() if founded else None
    if table_of is not None:
        others = [member.address for member in table_of.members if member.address not in answers]
        answers |= await _ask(client, others)
    if printer.as_json:
        printer.object(_status_object(table_of, answers))
    else:
        for line in _status_lines(table_of, answers):
            printer.line(line)
    everybody = all(isinstance(answer, dict) for answer in answers.values())
    return EXIT_OK if founded and everybody else EXIT_UNAVAILABLE


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
    settings = table_of.settings
    owned = Counter(row[0].name for row in table_of.replicas)
    rows = [_status_row(member, owned, answers[member.address]) for member in table_of.members]
    strangers = [
        f"{address} is not in this cluster: "
        + (f"it is {answer['name']}" if isinstance(answer, dict) else answer)
        for address, answer in answers.items()
        if address not in {member.address for member in table_of.members}
    ]
    keys = sum(answer["key_count"] for answer in answers.values() if isinstance(answer, dict))
    return [
        f"cluster {table_of.cluster_id[:8]}, epoch {table_of.epoch}: "
        f"{counted(len(table_of.members), 'member')}, "
        f"{counted(settings.partitions, 'partition')}, {counted(keys, 'key')}",
        "",
        *table(("MEMBER", "ADDRESS", "PARTITIONS", "KEYS", "UP", "ANSWERS"), rows),
        *strangers,
    ]


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
