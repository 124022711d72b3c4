"""How a scenario shows what a replica says and does: one line for each thing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from inspect import signature

from kvtwist.core.raft import Configuration, Entry, EntryKind, HardState, Message, Ready, Snapshot
from kvtwist.core.raft.messages import AppendRequest, AppendResponse, InstallSnapshot

_REPEATED = re.compile(r"(.)\1{7,}")


def payload(data: bytes) -> str:
    """As it stands in a scenario: ``x*100`` for a hundred of them."""
    return _REPEATED.sub(lambda run: f"{run[1]}*{len(run[0])}", data.decode())


def configuration(it: Configuration) -> str:
    """``voters 1 2 3 learners 4``."""
    words = ["voters", *map(str, it.voters)]
    if it.learners:
        words += ["learners", *map(str, it.learners)]
    return " ".join(words)


def entry(it: Entry) -> str:
    """``index/term what``."""
    match it.kind:
        case EntryKind.NOOP:
            what = "noop"
        case EntryKind.CONFIGURATION:
            what = f"({configuration(Configuration.decode(it.data))})"
        case _:
            what = payload(it.data)
    return f"{it.index}/{it.term} {what}"


def entries(them: Iterable[Entry]) -> str:
    """In a row."""
    return "[" + ", ".join(map(entry, them)) + "]"


def snapshot(it: Snapshot) -> str:
    """``index/term (configuration) [data]``."""
    return f"{it.index}/{it.term} ({configuration(it.configuration)}) [{payload(it.data)}]"


def hard_state(it: HardState) -> str:
    """``term 1 vote 2 commit 3``."""
    return f"term {it.term} vote {it.vote} commit {it.commit}"


def message(it: Message) -> str:
    """``sender->to Kind term t``, and whatever else it says."""
    words = [f"{it.sender}->{it.to} {type(it).__name__} term {it.term}"]
    match it:
        case AppendRequest():
            words.append(f"prev {it.prev_index}/{it.prev_term} {entries(it.entries)}")
            words.append(f"commit {it.commit}")
        case AppendResponse(rejected=True):
            words.append(f"REJECTS {it.index}, hint {it.hint_index}/{it.hint_term}")
        case AppendResponse():
            words.append(f"accepts {it.index}")
        case InstallSnapshot():
            words.append(snapshot(it.snapshot))
        case _:
            words += _plain_fields(it)
    return " ".join(words)


def _plain_fields(it: Message) -> Iterator[str]:
    for field in signature(type(it)).parameters.values():
        value = getattr(it, field.name)
        if field.name in ("sender", "to", "term") or value == field.default:
            continue
        if isinstance(value, bool):
            yield field.name if value else f"NOT {field.name}"
        else:
            yield f"{field.name.replace('_', ' ')} {value}"


def ready(replica: int, it: Ready, lost: Iterable[Message], note: str) -> Iterator[str]:
    """All of it, in the order in which it is acted upon.

    :param lost: those of the messages that go nowhere.
    :param note: on the write; nothing: it is done at once.
    """
    sync = " sync" if it.must_sync else ""
    yield f"{replica} ready {it.number}{sync}{note}"
    for sent in it.messages:
        yield f"    send {message(sent)}{' (LOST)' if sent in lost else ''}"
    if it.snapshot is not None:
        yield f"    snapshot {snapshot(it.snapshot)}"
    if it.hard_state is not None:
        yield f"    hard state {hard_state(it.hard_state)}"
    if it.entries:
        yield f"    entries {entries(it.entries)}"
    if it.committed:
        yield f"    committed {entries(it.committed)}"
    for read in it.reads:
        yield f"    read {payload(read.context)} at {read.index}"
    for context in it.reads_lost:
        yield f"    read {payload(context)} LOST"
    for wanted in it.snapshots_wanted:
        yield f"    a snapshot is wanted for {wanted}"
