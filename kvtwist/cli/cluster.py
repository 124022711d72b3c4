"""The commands that show how keys are spread over the cluster: where, ring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kvtwist.cli.picture import draw_ring
from kvtwist.cli.run import EXIT_OK
from kvtwist.cli.show import Printer, counted, json_of, table, text_of
from kvtwist.cli.status import partition_object
from kvtwist.cli.survey import Survey
from kvtwist.client import Client
from kvtwist.core.address import parse_addresses
from kvtwist.core.groups import group_of
from kvtwist.core.health import Seen, Verdict
from kvtwist.core.placement import arc_start
from kvtwist.core.raft.progress import Sending
from kvtwist.core.ring import Ring, hash_bytes, tag
from kvtwist.errors import Unavailable


async def where(client: Client, printer: Printer, key: bytes, peers: str) -> int:
    """``kvcli where``."""
    survey = Survey(client)
    await survey.begin(parse_addresses(peers))
    if survey.table is None:
        raise _no_cluster(survey)
    table_of = survey.table
    number = table_of.partition_of(key)
    await survey.go_on(table_of.replicas[number], group_of(number), 1)
    (verdict,) = survey.verdicts([number])
    settings = table_of.settings
    plain = Ring([member.name for member in table_of.members], settings.tokens_per_member)
    preferred = plain.preference_list(arc_start(number, settings.partitions))
    position = hash_bytes(tag(key))
    owner = table_of.replicas[number][0]
    if printer.as_json:
        printer.object(
            {
                **json_of("key", key),
                "position": position,
                "address": str(owner.address),
                **partition_object(verdict),
                "preference_list": preferred,
            }
        )
        return EXIT_OK
    tagged = "" if tag(key) == key else f", by its tag {text_of(tag(key))!r}"
    group = f", group {verdict.group}" if verdict.group else ""
    printer.line(f"key              {text_of(key)}")
    printer.line(f"ring position    {position} of 2^32{tagged}")
    printer.line(f"partition        {number} of {settings.partitions}{group}")
    printer.line(f"owner            {owner.name} at {owner.address}")
    printer.line(f"replicas         {', '.join(verdict.members)}")
    printer.line(f"preference list  {', '.join(preferred)}")
    for line in _state_lines(verdict, settings.durable):
        printer.line(line)
    return EXIT_OK


def _no_cluster(survey: Survey) -> Unavailable:
    """Nobody who was asked belongs to a cluster: whom they wait for, or why they are silent."""
    waiting = [
        (answer["name"], answer["waiting_for"])
        for answer in survey.answers.values()
        if isinstance(answer, dict)
    ]
    if waiting:
        name, missing = waiting[0]
        said = f"the cluster is not founded yet: {name} waits for {', '.join(missing)}"
        return Unavailable(said, waiting_for=missing)
    troubles = ", ".join(f"{address} ({why})" for address, why in survey.answers.items())
    return Unavailable(
        f"no node can be reached: {troubles}", waiting_for=[*map(str, survey.answers)]
    )


def _state_lines(verdict: Verdict, durable: bool) -> Iterator[str]:
    """Who leads, who takes part, and whether that is enough."""
    if durable:
        led = f"{verdict.leader}, in term {verdict.term}" if verdict.leader else "none"
        yield f"leader           {led}"
        yield f"commit index     {verdict.commit:,}"
        takes = "takes" if verdict.present == 1 else "take"
        yield (
            f"quorum           {verdict.needed} of {counted(verdict.voters, 'replica')}; "
            f"{verdict.present} {takes} part"
        )
    yield f"available        {'yes' if verdict.is_available else f'no: {verdict.trouble}'}"
    if durable:
        yield ""
        yield from table(
            ("MEMBER", "REPLICA", "ROLE", "TERM", "MATCH", "LAG", "APPLIED", "STATE"),
            [*map(_replica_row, verdict.replicas)],
        )


def _replica_row(seen: Seen) -> tuple[str, ...]:
    said, following = seen.said, seen.following
    role = said.role.value if said is not None else "-"
    if said is not None and not seen.is_voter:
        role = "learner"
    return (
        seen.member or "?",
        f"{seen.replica}" if seen.replica else "-",
        role,
        f"{said.term:,}" if said is not None else "-",
        f"{following.match:,}" if following is not None and following.has_told else "-",
        "-" if seen.lag is None else f"{seen.lag:,}",
        f"{said.applied:,}" if said is not None else "-",
        _replica_state(seen),
    )


def _replica_state(seen: Seen) -> str:
    if seen.absent:
        return seen.absent
    if seen.following is None:
        return "ok"
    return _SENDING[seen.following.sending]


_SENDING = {
    Sending.PROBE: "its leader finds out what it has",
    Sending.REPLICATE: "ok",
    Sending.SNAPSHOT: "is sent a snapshot",
}


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
