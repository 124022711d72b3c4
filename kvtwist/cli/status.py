"""``kvcli status``: how the members are, and which partitions can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kvtwist.cli.run import EXIT_OK, EXIT_UNAVAILABLE
from kvtwist.cli.show import Printer, counted, table
from kvtwist.cli.survey import IS_OPEN, Survey
from kvtwist.client import Client
from kvtwist.client.table import Table
from kvtwist.core.address import Address, parse_addresses
from kvtwist.core.health import Seen, Shortage, Verdict, by_shortage, by_trouble, in_ranges
from kvtwist.core.topology import Member
from kvtwist.wire.codec import Values

_LISTED_MAX = 60
"""Characters of a list of partitions."""


async def status(client: Client, printer: Printer, peers: str, with_partitions: bool) -> int:
    """``kvcli status``."""
    survey = Survey(client)
    await survey.begin(parse_addresses(peers))
    if survey.table is None:
        if printer.as_json:
            printer.object({"founded": False, "nodes": _nodes(survey)})
        else:
            for line in _unfounded_lines(survey.answers):
                printer.line(line)
        return EXIT_UNAVAILABLE
    await survey.go_on(survey.table.members, 0, None)
    verdicts = survey.verdicts(range(survey.table.settings.partitions))
    if printer.as_json:
        printer.object(_as_object(survey, survey.table, verdicts, with_partitions))
    else:
        for line in _lines(survey, survey.table, verdicts, with_partitions):
            printer.line(line)
    return EXIT_OK if all(each.is_available for each in verdicts) else EXIT_UNAVAILABLE


# -- for programs -----------------------------------------------------------------------------


def _nodes(survey: Survey) -> list[dict[str, Any]]:
    members = survey.table.members if survey.table else ()
    names = {member.address: member.name for member in members}
    return [
        {"address": str(address), "answers": True, **answer}
        if isinstance(answer, dict)
        else {
            "name": names.get(address),
            "address": str(address),
            "answers": False,
            "error": answer,
        }
        for address, answer in survey.answers.items()
    ]


def _as_object(
    survey: Survey, table_of: Table, verdicts: Sequence[Verdict], with_partitions: bool
) -> dict[str, Any]:
    lags = _lags(verdicts)
    return {
        "founded": True,
        "cluster_id": table_of.cluster_id,
        "epoch": table_of.epoch,
        "partitions": table_of.settings.partitions,
        "key_count": _key_count(survey, table_of, verdicts),
        "available": sum(each.is_available for each in verdicts),
        "complete": sum(each.is_available and not each.shortages for each in verdicts),
        "led_by_owner": sum(each.is_led_by_owner for each in verdicts),
        "unavailable": [
            {"why": why, "partitions": partitions}
            for why, partitions in by_trouble(verdicts).items()
        ],
        "short": [
            {
                "member": short.member,
                "why": short.why,
                "entries": short.entries,
                "partitions": partitions,
            }
            for short, partitions in by_shortage(verdicts).items()
        ],
        "nodes": [{**node, "lag": lags.get(node["name"])} for node in _nodes(survey)],
        "meta": None if (meta := survey.verdict_of_meta()) is None else partition_object(meta),
        **({"partition_list": [*map(partition_object, verdicts)]} if with_partitions else {}),
    }


def partition_object(verdict: Verdict) -> dict[str, Any]:
    """A partition as JSON has it."""
    return {
        "partition": verdict.partition,
        "group": verdict.group or None,
        "available": verdict.is_available,
        "why": verdict.trouble or None,
        "owner": verdict.owner,
        "leader": verdict.leader or None,
        "term": verdict.term,
        "commit": verdict.commit,
        "voters": verdict.voters,
        "needed": verdict.needed,
        "present": verdict.present,
        "key_count": verdict.key_count,
        "replicas": [*verdict.members],
        "replica_states": [
            {
                "member": seen.member,
                "replica": seen.replica or None,
                "voter": seen.is_voter,
                "role": seen.said.role.value if seen.said else None,
                "term": seen.said.term if seen.said else None,
                "commit": seen.said.commit if seen.said else None,
                "applied": seen.said.applied if seen.said else None,
                "last": seen.said.last if seen.said else None,
                "compacted": seen.said.compacted if seen.said else None,
                "quiescent": seen.said.is_quiescent if seen.said else None,
                "key_count": seen.said.key_count if seen.said else None,
                "bytes": seen.said.data_bytes if seen.said else None,
                "match": _match(seen),
                "lag": seen.lag,
                "sending": seen.following.sending.value if seen.following else None,
                "absent": seen.absent or None,
            }
            for seen in verdict.replicas
        ],
    }


def _match(seen: Seen) -> int | None:
    known = seen.following
    return known.match if known is not None and known.has_told else None


# -- for people -------------------------------------------------------------------------------


def _lines(
    survey: Survey, table_of: Table, verdicts: Sequence[Verdict], with_partitions: bool
) -> Iterator[str]:
    settings = table_of.settings
    keys = _key_count(survey, table_of, verdicts)
    yield (
        f"cluster {table_of.cluster_id[:8]}, epoch {table_of.epoch}: "
        f"{counted(len(table_of.members), 'member')}, "
        f"{counted(settings.partitions, 'partition')}, {counted(keys, 'key')}"
    )
    yield ""
    yield from _member_lines(survey, table_of, verdicts)
    yield from _strangers(table_of, survey.answers)
    yield ""
    yield from _summary(verdicts)
    meta = survey.verdict_of_meta()
    if meta is not None and not meta.is_available:
        yield f"UNAVAILABLE: the meta group, which no partition waits for: {meta.trouble}"
    if with_partitions:
        yield ""
        yield from _partition_lines(verdicts if meta is None else [meta, *verdicts])


def _member_lines(survey: Survey, table_of: Table, verdicts: Sequence[Verdict]) -> list[str]:
    owned = Counter(row[0].name for row in table_of.replicas)
    heard, silent, lags = survey.by_name(), survey.silent(), _lags(verdicts)
    rows = [
        _member_row(
            member, owned[member.name], heard.get(member.name), silent, lags.get(member.name)
        )
        for member in table_of.members
    ]
    head = ("MEMBER", "ADDRESS", "OWNS", "LEADS", "REPLICAS", "LAG", "KEYS", "DISK", "UP")
    return table((*head, "ANSWERS"), rows)


def _member_row(
    member: Member,
    owned: int,
    answer: Values | None,
    silent: Mapping[str, str],
    lag: int | None,
) -> tuple[str, ...]:
    head = (member.name, str(member.address), f"{owned}")
    behind = "-" if lag is None else f"{lag:,}"
    if answer is None:
        return (*head, "-", "-", behind, "-", "-", "-", f"no: {silent[member.name]}")
    condition = answer["condition"]
    return (
        *head,
        _or_dash(answer["leads"]),
        _or_dash(answer["held"]),
        behind,
        f"{answer['key_count']:,}",
        "-" if condition is None else "ok" if condition == IS_OPEN else condition,
        f"{answer['uptime_ms'] // 1000:,} s",
        _answers(answer, silent.get(member.name, "")),
    )


def _answers(answer: Values, untold: str) -> str:
    trouble = ", ".join(answer["unreachable"])
    said = f"yes, but cannot reach {trouble}" if trouble else "yes"
    return f"{said}; does not tell of its replicas: {untold}" if untold else said


def _or_dash(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _strangers(table_of: Table, answers: Mapping[Address, Values | str]) -> Iterator[str]:
    """Lines about addresses that were asked and are no member's."""
    known = {member.address for member in table_of.members}
    for address, answer in answers.items():
        if isinstance(answer, str):
            if address not in known:
                yield f"{address}: {answer}"
        elif answer["cluster_id"] != table_of.cluster_id and address not in known:
            yield f"{address} is not in this cluster: it is {answer['name']}"


def _summary(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """How many partitions can be used; what is wrong with which; who leads others' partitions."""
    total = len(verdicts)
    available = sum(each.is_available for each in verdicts)
    complete = sum(each.is_available and not each.shortages for each in verdicts)
    elsewhere = [each for each in verdicts if each.leader and not each.is_led_by_owner]
    if complete == total:
        what = "and complete"
        what += "" if elsewhere else ", each led by its owner"
        yield f"{_of(available, total)} {'is' if total == 1 else 'are'} available {what}"
    else:
        yield f"{_of(available, total)} {'is' if total == 1 else 'are'} available"
    for trouble, partitions in by_trouble(verdicts).items():
        yield f"UNAVAILABLE: {_named(partitions)}: {trouble}"
    for short, partitions in by_shortage(verdicts).items():
        yield f"short of a replica: {_named(partitions)}: {_short(short)}"
    leading: dict[str, list[int]] = {}
    for each in elsewhere:
        if each.partition is not None:
            leading.setdefault(f"{each.leader} instead of {each.owner}", []).append(each.partition)
    for who, partitions in sorted(leading.items()):
        yield f"not led by its owner: {_named(partitions)}: {who}"


def _of(number: int, total: int) -> str:
    return f"{number:,} of {counted(total, 'partition')}"


def _named(partitions: Sequence[int]) -> str:
    """``3 partitions (1-2, 7)``; a list that is very long is cut off."""
    if len(partitions) == 1:
        return f"partition {partitions[0]}"
    listed = in_ranges(partitions)
    if len(listed) > _LISTED_MAX:
        listed = listed[: listed.rindex(",", 0, _LISTED_MAX)] + ", ..."
    return f"{counted(len(partitions), 'partition')} ({listed})"


def _short(short: Shortage) -> str:
    if not short.entries:
        return f"{short.member} {short.why}"
    entries = "1 entry" if short.entries == 1 else f"{short.entries:,} entries"
    return f"{short.member} {short.why}, by {entries}"


def _partition_lines(verdicts: Sequence[Verdict]) -> list[str]:
    head = ("PARTITION", "OWNER", "LEADER", "TERM", "COMMIT", "LAG", "REPLICAS", "KEYS", "STATE")
    return table(head, [*map(_partition_row, verdicts)])


def _partition_row(verdict: Verdict) -> tuple[str, ...]:
    lag = max((seen.lag for seen in verdict.replicas if seen.lag is not None), default=None)
    state = verdict.trouble or "; ".join(map(_short, verdict.shortages)) or "ok"
    return (
        "meta" if verdict.partition is None else f"{verdict.partition}",
        verdict.owner,
        verdict.leader or "-",
        f"{verdict.term:,}",
        f"{verdict.commit:,}",
        _or_dash(lag),
        f"{verdict.present} of {verdict.voters}",
        f"{verdict.key_count:,}",
        state if verdict.is_available else f"UNAVAILABLE: {state}",
    )


def _unfounded_lines(answers: Mapping[Address, Values | str]) -> Iterator[str]:
    if all(isinstance(answer, str) for answer in answers.values()):
        yield "no node answers"
    else:
        yield "there is no cluster yet"
    for address, answer in answers.items():
        if isinstance(answer, str):
            yield f"{address}: {answer}"
        else:
            missing = ", ".join(answer["waiting_for"])
            yield f"{answer['name']} at {address} waits for {missing}"


# -- figures ----------------------------------------------------------------------------------


def _lags(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """By how many entries each member is behind, in the partition where that is the most; as far as
    leaders tell."""
    lags: dict[str, int] = {}
    for verdict in verdicts:
        for seen in verdict.replicas:
            if seen.lag is not None:
                lags[seen.member] = max(seen.lag, lags.get(seen.member, 0))
    return lags


def _key_count(survey: Survey, table_of: Table, verdicts: Sequence[Verdict]) -> int:
    """How many different keys there are, as far as was told."""
    if table_of.settings.durable:
        return sum(verdict.key_count for verdict in verdicts)
    return sum(answer["key_count"] for answer in survey.by_name().values())
