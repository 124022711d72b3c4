"""What must hold while a cluster runs.

The `Inspector` is told of each replica that is made, each entry that is applied, each message that
leaves (`tests.simnodes.watching`). What it knows besides is the `Ledger`'s: above all, what is on
which disk.
"""

from __future__ import annotations

from typing import Any

from kvtwist.core.groups import FIRST_GENERATION, FIRST_PARTITION_GROUP
from kvtwist.core.raft import Entry, Message, Role
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    PreVoteRequest,
    PreVoteResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from kvtwist.core.state.answers import GenerationSet, WrongGeneration
from kvtwist.node.replica import Replica
from kvtwist.node.waiting import Reader
from tests.simnodes.ledger import Ledger, Told, Violation, state_of
from tests.simnodes.trace import Trace

DIGEST_EVERY = 8
"""A hash of all of a state is made at each index that this divides."""


class Inspector:
    """Holds what nodes do against the ledger."""

    def __init__(self, ledger: Ledger, trace: Trace) -> None:
        self.ledger = ledger
        self.trace = trace
        self._names: dict[Replica, str] = {}
        self._present: dict[str, dict[int, Replica]] = {}
        self._asked: dict[Reader, int] = {}
        self._answer: object = None
        self.violation: Violation | None = None

    def wrong(self, invariant: str, what: str) -> None:
        """Something does not hold. It is raised, and kept, for nodes catch what is raised."""
        violation = Violation(invariant, what)
        if self.violation is None:
            self.violation = violation
        raise violation

    # -- replicas -------------------------------------------------------------------------------

    def present(self, name: str) -> list[Replica]:
        """The replicas of a node in its present life."""
        return [*self._present.get(name, {}).values()]

    def leading(self) -> list[Replica]:
        """The replicas of partitions that lead now, or believe to, on nodes that run."""
        return [
            replica
            for replicas in self._present.values()
            for replica in replicas.values()
            if replica.leads and replica.group >= FIRST_PARTITION_GROUP
        ]

    def gone(self, name: str) -> None:
        """A node runs no more."""
        self._present.pop(name, None)

    def started(self, name: str, replica: Replica) -> None:
        """A replica was made from what its disk has."""
        self._names[replica] = name
        self._present.setdefault(name, {})[replica.group] = replica
        group, raft = self.ledger.group(replica.group), replica.raft
        told = group.told.get(name)
        if told is not None and raft.term < told.term:
            self.wrong("term_never_falls", f"{name}: {replica.group}: {raft.term} after {told}")
        if told is not None and raft.term == told.term and told.vote not in (0, raft.vote):
            self.wrong("vote_is_kept", f"{name}: {replica.group}: {raft.vote} after {told}")
        self._same_state(name, replica, "after a restart")

    def taken(self, replica: Replica) -> None:
        """A replica has been asked what is to be done."""
        raft = replica.raft
        name = self._names.get(replica)
        if name is None or raft.role is not Role.LEADER:
            return
        group = self.ledger.group(replica.group)
        self._leads(name, replica.group, raft.term)
        group.voters = raft.configuration.voters

    def _leads(self, name: str, group: int, term: int) -> None:
        leaders = self.ledger.group(group).leaders
        known = leaders.get(term)
        if known is None:
            leaders[term] = name
            self.trace.add("leader", name, f"group {group} term {term}")
        elif known != name:
            self.wrong("one_leader_in_a_term", f"group {group}, {term}: {known} and {name}")

    # -- messages -------------------------------------------------------------------------------

    def sending(self, name: str, group: int, message: Message) -> None:
        """A message is about to leave a node."""
        known = self.ledger.group(group)
        self.trace.show(f"group {group}", f"{name} > {known.name_of(message.to)}", message)
        match message:
            case VoteResponse(granted=True):
                self._votes(name, group, message, message.to)
            case VoteRequest():
                self._votes(name, group, message, message.sender)
            case AppendResponse(rejected=False, index=index) if index:
                self._acknowledges(name, group, message)
            case AppendRequest() | Heartbeat() | TimeoutNow():
                self._leads(name, group, message.term)
        if not isinstance(message, PreVoteRequest | PreVoteResponse):
            told = known.told.get(name, Told())
            if message.term > told.term:
                known.told[name] = Told(message.term, 0)

    def _votes(self, name: str, group: int, message: Message, vote: int) -> None:
        """A vote is on the disk before it leaves, and there is one in a term (R1, R2)."""
        known, told = self.ledger.group(group), Told(message.term, vote)
        hard = self.ledger.hard_state(name, group)
        if hard != told and hard.term <= message.term:
            self.wrong("vote_is_durable", f"{name}: group {group}: {message}, the disk has {hard}")
        if known.votes.setdefault((name, message.term), vote) != vote:
            self.wrong("one_vote_in_a_term", f"{name}: group {group}: {message}")
        if message.term >= known.told.get(name, Told()).term:
            known.told[name] = told

    def _acknowledges(self, name: str, group: int, message: AppendResponse) -> None:
        """What a follower acknowledges is on its disk (R1, R2)."""
        replica = self._present[name][group]
        log, index = replica.raft.log, message.index
        if index > log.last_index or message.term < replica.raft.term:
            return  # it was cut off by a later leader, who is who counts
        term = log.term_at(index)
        if term is not None and not self.ledger.has(name, group, index, term):
            self.wrong("acknowledged_is_durable", f"{name}: group {group}: {message}")

    # -- what is applied ------------------------------------------------------------------------

    def applying(self, replica: Replica, entry: Entry) -> None:
        """An entry is about to be applied."""
        name, group = self._names[replica], self.ledger.group(replica.group)
        known = group.committed.setdefault(entry.index, entry)
        if known != entry:
            self.wrong("committed_entries_agree", f"{name}: {replica.group}: {entry}, not {known}")
        if entry.index > group.highest:
            if entry.index != group.highest + 1:
                self.wrong("applied_in_order", f"{name}: {entry.index} after {group.highest}")
            group.highest = entry.index
            group.voters = replica.raft.configuration.voters
            wrong = self.ledger.is_safe(replica.group, entry.index)
            if wrong is not None:
                self.wrong("committed_is_on_a_majority_of_disks", f"{name} applies: {wrong}")
        self._answer = None

    def answered(self, answer: object) -> None:
        """The state machine has answered an entry."""
        self._answer = answer

    def applied(self, replica: Replica, entry: Entry, command: Any, revision_before: int) -> None:
        """An entry was applied."""
        name, group = self._names[replica], self.ledger.group(replica.group)
        revision = replica.revision
        for version in range(revision_before + 1, revision + 1):
            group.index_of_version.setdefault(version, entry.index)
        self._is_of_its_generation(name, replica, entry, command)
        known = group.answers.setdefault(entry.index, self._answer)
        if known != self._answer:
            what = f"{name}: {replica.group}, {entry.index}: {self._answer}, not {known}"
            self.wrong("same_answer_everywhere", what)
        self._same_state(name, replica, "")

    def installed(self, replica: Replica) -> None:
        """A snapshot has taken the place of a replica's state (R13)."""
        self.trace.add("installed", self._names[replica], f"group {replica.group}")
        self._same_state(self._names[replica], replica, "after a snapshot")

    def _is_of_its_generation(
        self, name: str, replica: Replica, entry: Entry, command: Any
    ) -> None:
        """A request for another generation than the partition's is refused when applied (C5)."""
        group, answer = self.ledger.group(replica.group), self._answer
        current = group.generations.setdefault(entry.index - 1, FIRST_GENERATION)
        asked = getattr(command, "generation", current)
        if (asked != current) != isinstance(answer, WrongGeneration):
            what = f"{name}: group {replica.group}, {entry.index}: {command} in {current}: {answer}"
            self.wrong("generation_is_checked", what)
        is_changed = isinstance(answer, GenerationSet)
        group.generations[entry.index] = command.following if is_changed else current

    def _same_state(self, name: str, replica: Replica, when: str) -> None:
        group, index = self.ledger.group(replica.group), replica.applied_index
        state = state_of(replica)
        known = group.states.setdefault(index, state)
        if known != state:
            what = f"{name}: group {replica.group} at {index} {when}: {state}, not {known}"
            self.wrong("same_state_everywhere", what)
        if when or index % DIGEST_EVERY == 0:
            self.same_digest(name, replica)

    def same_digest(self, name: str, replica: Replica) -> None:
        """Hold all of a replica's state against others at the same index."""
        group, index = self.ledger.group(replica.group), replica.applied_index
        digest = replica._state.machine.digest()
        if group.digests.setdefault(index, digest) != digest:
            self.wrong("same_state_everywhere", f"{name}: group {replica.group} at {index}")

    # -- what is answered -----------------------------------------------------------------------

    def acknowledged(self, key: bytes, version: int) -> None:
        """A client was told that its write was done."""
        number = self.ledger.group_of_key(key)
        index = self.ledger.group(number).index_of_version.get(version)
        if index is None:
            self.wrong("answered_when_applied", f"{key!r} at {version}: nobody has applied it")
            return
        wrong = self.ledger.is_safe(number, index)
        if wrong is not None:
            self.wrong("acknowledged_is_on_a_majority_of_disks", f"{key!r} at {version}: {wrong}")

    def asked(self, replica: Replica, reader: Reader) -> None:
        """A read was asked for: its answer must show all that is committed now."""
        self._asked[reader] = self.ledger.group(replica.group).highest

    def reading(self, replica: Replica) -> None:
        """Reads are about to be answered, as far as they are confirmed."""
        applied = replica.applied_index
        for index, readers in replica._reads.confirmed:
            if index > applied:
                break
            for reader in readers:
                self._shows(replica, reader)

    def _shows(self, replica: Replica, reader: Reader) -> None:
        committed = self._asked.pop(reader, 0)
        if replica.applied_index < committed:
            what = f"{self._names[replica]}: group {replica.group}: a read at "
            what += f"{replica.applied_index}, though {committed} was committed before it"
            self.wrong("read_is_fresh", what)
