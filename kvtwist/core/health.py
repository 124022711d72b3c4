"""Whether a partition can be read and written, and if not, why.

In: what the nodes that were asked say of their replicas (`Description`), who did not answer, with
the reason, and whose disk is in trouble. Out: a `Verdict` for each partition. It is what somebody
outside can tell: a node that cannot be reached from where one asks may be there for the others, so
what a leader says of its followers counts for more than whether they answered.

A partition is available when one of its replicas

1. leads it, as it says itself; of several who say so, the one in the highest term,
2. hears a majority of the voters, itself included,
3. has committed an entry of its own term, so that it may answer reads (R4),
4. and has a disk that takes writes.

The reasons are for people. Nothing is decided by them: a verdict is a few hundred milliseconds old
when it is read, and about as long as that an election takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kvtwist.core.description import Description, Following, Other
from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Sending
from kvtwist.core.raft.quorum import majority

LAG_ENTRIES_MAX = 256
"""A follower that has fewer entries to come is not behind: under load some always are on their
way."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One replica of a partition, as far as could be seen.

    :ivar replica: its id; 0: not known.
    :ivar said: what its node says; ``None``: it did not answer, or has no such replica.
    :ivar lag: entries that it does not have yet, by its leader; ``None``: not known.
    :ivar following: what its leader knows of it.
    :ivar absent: why it does not take part, in a few words; empty: it does.
    """

    member: str
    replica: int
    is_voter: bool
    said: Description | None
    lag: int | None = None
    following: Following | None = None
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Shortage:
    """A replica that would not stand in for its leader now.

    :ivar entries: how many it is behind, if that is what is wrong.
    """

    member: str
    why: str
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a partition is.

    :ivar members: those that it is placed on, its owner first.
    :ivar group: 0: nobody has said.
    :ivar trouble: why it is unavailable; empty: it is available.
    :ivar leader: whose replica leads; empty: nobody's, as far as one can see.
    :ivar term: the highest that was told.
    :ivar commit: how far the leader, or else any replica, knows its log to be committed.
    :ivar voters: how many there are.
    :ivar shortages: only of a partition that is available.
    """

    partition: int | None
    members: tuple[str, ...]
    group: int = 0
    trouble: str = ""
    leader: str = ""
    term: int = 0
    commit: int = 0
    voters: int = 0
    key_count: int = 0
    replicas: tuple[Seen, ...] = ()
    shortages: tuple[Shortage, ...] = ()

    @property
    def is_available(self) -> bool:
        """Whether it can be read and written."""
        return not self.trouble

    @property
    def owner(self) -> str:
        """Who should lead it."""
        return self.members[0]

    @property
    def is_led_by_owner(self) -> bool:
        """Whether who should lead it does."""
        return self.leader == self.owner

    @property
    def needed(self) -> int:
        """How many voters are a majority."""
        return majority(self.voters)

    @property
    def present(self) -> int:
        """How many voters take part."""
        return sum(each.is_voter and not each.absent for each in self.replicas)


def judge(
    partition: int | None,
    members: tuple[str, ...],
    said: Mapping[str, Description],
    silent: Mapping[str, str],
    disks: Mapping[str, str],
) -> Verdict:
    """How a partition is.

    :param members: those that it is placed on, its owner first.
    :param said: what each member that has a replica of it says.
    :param silent: the members that did not answer: why, in a few words.
    :param disks: the members whose disk takes no writes: why.
    """
    leader = _leader(said)
    telling = said[leader] if leader else _latest(said.values())
    replicas = _replicas(members, said, silent, leader)
    voters = [each for each in replicas if each.is_voter]
    trouble = (
        _trouble_of_led(leader, said[leader], voters, disks)
        if leader
        else _trouble_of_leaderless(said, voters, silent)
    )
    return Verdict(
        partition=partition,
        members=members,
        group=telling.group if telling else 0,
        trouble=trouble,
        leader=leader,
        term=max((each.term for each in said.values()), default=0),
        commit=telling.commit if telling else 0,
        voters=len(voters),
        key_count=telling.key_count if telling else 0,
        replicas=replicas,
        shortages=() if trouble else _shortages(members, replicas, silent, disks),
    )


def judge_in_memory(partition: int, members: tuple[str, ...], silent: Mapping[str, str]) -> Verdict:
    """How a partition of a cluster in memory is: its owner alone has it, whoever else it is placed
    on."""
    owner, *_ = members
    why = silent.get(owner, "")
    return Verdict(
        partition,
        members,
        trouble=f"{owner}, which alone has it, cannot be reached ({why})" if why else "",
        leader="" if why else owner,
        voters=1,
        replicas=(Seen(owner, 0, is_voter=True, said=None, absent=why),),
    )


# -- who there is -----------------------------------------------------------------------------


def _leader(said: Mapping[str, Description]) -> str:
    """The member that says that it leads, in the highest term; empty: none does."""
    leading = [name for name, each in said.items() if each.role is Role.LEADER]
    return max(leading, key=lambda name: said[name].term, default="")


def _latest(said: Iterable[Description]) -> Description | None:
    """Whose log and configuration are most likely the group's."""
    return max(said, key=lambda each: (each.term, each.commit, each.last), default=None)


def _replicas(
    members: Sequence[str],
    said: Mapping[str, Description],
    silent: Mapping[str, str],
    leader: str,
) -> tuple[Seen, ...]:
    """All of the configuration of the leader, or of whoever is likely to know; if nobody says
    anything, those that the partition is placed on. The owner stands first, as in the placement."""
    telling = said[leader] if leader else _latest(said.values())
    if telling is None:
        return tuple(_unheard(name, 0, True, silent) for name in members)
    itself = next(name for name, each in said.items() if each is telling)
    seen = [Seen(itself, telling.replica, telling.is_voter, telling, 0 if leader else None)]
    for other in telling.others:
        theirs = said.get(other.member)
        if theirs is None:
            one = _unheard(other.member, other.replica, other.is_voter, silent)
        else:
            one = Seen(other.member, other.replica, other.is_voter, theirs)
        seen.append(_as_followed(one, telling, other) if leader else one)
    places = {name: at for at, name in enumerate(members)}
    return tuple(sorted(seen, key=lambda each: places.get(each.member, len(places))))


def _unheard(member: str, replica: int, is_voter: bool, silent: Mapping[str, str]) -> Seen:
    why = silent.get(member, "it has no replica of it")
    return Seen(member, replica, is_voter, None, absent=why)


def _as_followed(seen: Seen, leader: Description, other: Other) -> Seen:
    """What its leader says of a replica counts. One of a group that has fallen silent says nothing
    of who was lost meanwhile."""
    known = other.following
    if known is None:
        return seen
    absent = seen.absent
    if not known.is_heard:
        absent = absent or "its leader does not hear it"
    elif not leader.is_quiescent:
        absent = ""
    return Seen(
        seen.member, seen.replica, seen.is_voter, seen.said, leader.lag(other), known, absent
    )


# -- what is wrong ----------------------------------------------------------------------------


def _trouble_of_led(
    leader: str, said: Description, voters: Sequence[Seen], disks: Mapping[str, str]
) -> str:
    absent = [each for each in voters if each.absent]
    if len(voters) - len(absent) < majority(len(voters)):
        return f"its leader {leader} does not hear {_without_majority(voters, absent)}"
    if leader in disks:
        return f"its leader {leader} cannot write: {disks[leader]}"
    if not said.has_confirmed:
        return f"its leader {leader} has not confirmed its term yet"
    return ""


def _trouble_of_leaderless(
    said: Mapping[str, Description], voters: Sequence[Seen], silent: Mapping[str, str]
) -> str:
    absent = [each for each in voters if each.absent]
    if len(voters) - len(absent) < majority(len(voters)):
        return f"cannot reach {_without_majority(voters, absent)}"
    followed = _followed(said)
    if followed in silent:
        return f"its leader {followed} cannot be reached ({silent[followed]})"
    if any(each.role in (Role.CANDIDATE, Role.PRE_CANDIDATE) for each in said.values()):
        return "no leader: an election is under way"
    return "no leader: an election is due"


def _without_majority(voters: Sequence[Seen], absent: Sequence[Seen]) -> str:
    """Those who are missing, and what of it."""
    by_name = sorted(absent, key=lambda each: each.member)
    why = ", ".join(f"{each.member}: {each.absent}" for each in by_name)
    of = f"{len(absent)} of {len(voters)} replicas" if len(voters) > 1 else "its only replica"
    return f"{of} ({why})" + (
        f"; a majority of {majority(len(voters))} is needed" if len(voters) > 1 else ""
    )


def _followed(said: Mapping[str, Description]) -> str:
    """The member whose replica most of those in the highest term take for their leader."""
    term = max((each.term for each in said.values()), default=0)
    named = Counter(
        other.member
        for each in said.values()
        for other in each.others
        if each.term == term and each.leader == other.replica
    )
    return named.most_common(1)[0][0] if named else ""


def _shortages(
    members: Sequence[str],
    replicas: Sequence[Seen],
    silent: Mapping[str, str],
    disks: Mapping[str, str],
) -> tuple[Shortage, ...]:
    """The replicas that would not stand in for their leader now."""
    found = [short for each in replicas if (short := _shortage(each, silent, disks)) is not None]
    held = {each.member for each in replicas}
    found += [Shortage(name, "has no replica of it yet") for name in members if name not in held]
    return tuple(found)


def _shortage(seen: Seen, silent: Mapping[str, str], disks: Mapping[str, str]) -> Shortage | None:
    name, known = seen.member, seen.following
    if seen.absent:
        return Shortage(name, _absence(seen, silent))
    if name in disks:
        return Shortage(name, f"cannot write: {disks[name]}")
    if known is not None and known.sending is Sending.SNAPSHOT:
        return Shortage(name, "needs a snapshot, and is sent one")
    if seen.lag is not None and seen.lag > LAG_ENTRIES_MAX:
        return Shortage(name, "is behind", seen.lag)
    return None


def _absence(seen: Seen, silent: Mapping[str, str]) -> str:
    if seen.member in silent:
        return f"cannot be reached ({silent[seen.member]})"
    return "has no replica of it" if seen.said is None else "is not heard by its leader"


# -- many partitions --------------------------------------------------------------------------


def by_trouble(verdicts: Iterable[Verdict]) -> dict[str, list[int]]:
    """The partitions that are unavailable, by why."""
    found: dict[str, list[int]] = {}
    for verdict in verdicts:
        if verdict.trouble and verdict.partition is not None:
            found.setdefault(verdict.trouble, []).append(verdict.partition)
    return found


def by_shortage(verdicts: Iterable[Verdict]) -> dict[Shortage, list[int]]:
    """The partitions of which a replica is missing or behind, by what is wrong with it. How many
    entries it is behind is the most in any of them."""
    found: dict[tuple[str, str], tuple[int, list[int]]] = {}
    for verdict in verdicts:
        for short in verdict.shortages:
            if verdict.partition is not None:
                entries, partitions = found.get((short.member, short.why), (0, []))
                partitions.append(verdict.partition)
                found[short.member, short.why] = max(entries, short.entries), partitions
    return {
        Shortage(member, why, entries): partitions
        for (member, why), (entries, partitions) in found.items()
    }


def in_ranges(numbers: Iterable[int]) -> str:
    """``1, 2, 3, 7`` as ``1-3, 7``."""
    ordered = sorted(numbers)
    if not ordered:
        return ""
    gaps = [(before, after) for before, after in pairwise(ordered) if after - before > 1]
    firsts = [ordered[0], *(after for _, after in gaps)]
    lasts = [*(before for before, _ in gaps), ordered[-1]]
    return ", ".join(
        f"{first}" if first == last else f"{first}-{last}"
        for first, last in zip(firsts, lasts, strict=True)
    )
