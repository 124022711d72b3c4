"""A whole group to which anything may happen: what figure 3 of the paper promises of it.

Messages are lost, delayed, repeated and overtaken, writes end late, replicas crash, members come
and go, logs are compacted. All messages are the replicas' own, so that nothing may ever raise.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import (
    AddLearner,
    Change,
    Configuration,
    Demote,
    Message,
    Promote,
    Remove,
    Restored,
    Role,
    Settings,
)
from tests.core.raft.group import Member

thoroughly = settings(deadline=None, max_examples=150, stateful_step_count=60)

VOTERS = (1, 2, 3)
MEMBERS = st.sampled_from((1, 2, 3, 4, 5))
CHANGES: list[type[Change]] = [AddLearner, AddLearner, Promote, Promote, Demote, Remove]
IN_FLIGHT_MAX = 60

any_settings = st.builds(
    Settings,
    election_timeout_ticks=st.just(4),
    heartbeat_ticks=st.just(1),
    lease_drift_ticks=st.just(1),
    pre_vote=st.booleans(),
    check_quorum=st.booleans(),
    quiesce_after_ticks=st.sampled_from([0, 3]),
    append_bytes_max=st.sampled_from([1, 1 << 20]),
    apply_bytes_max=st.sampled_from([1, 1 << 20]),
    inflight_messages_max=st.sampled_from([1, 2, 64]),
)

happened: Counter[str] = Counter()


class AnyGroup(RuleBasedStateMachine):
    """Three voters, and two that may be added."""

    @initialize(how=any_settings)
    def start(self, how: Settings) -> None:
        """A leader is there, most likely."""
        configuration = Configuration(VOTERS)
        self.members = {
            replica: Member(
                replica,
                Restored(configuration if replica in VOTERS else Configuration()),
                how,
                lambda chance=(replica - 1) / 5: chance,  # type: ignore[misc]
            )
            for replica in (1, 2, 3, 4, 5)
        }
        self.messages: list[Message] = []
        self.leaders: dict[int, int] = {}
        self.states: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self.reads: dict[bytes, int] = {}
        self.was = dict.fromkeys(self.members, (0, 0, 0))
        self.calm(10)

    @property
    def leading(self) -> list[Member]:
        """All that take themselves for the leader."""
        return [one for one in self.members.values() if one.raft.role is Role.LEADER]

    def post(self, messages: list[Message]) -> None:
        """Messages are under way; when there are too many, the oldest are lost."""
        self.messages = (self.messages + messages)[-IN_FLIGHT_MAX:]

    @rule(data=st.data(), count=st.integers(1, 12))
    def deliver(self, data: st.DataObject, count: int) -> None:
        """Some arrive, in any order."""
        for _ in range(min(count, len(self.messages))):
            message = self.messages.pop(data.draw(st.integers(0, len(self.messages) - 1)))
            self.members[message.to].raft.step(message)

    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """One arrives, and will do so again."""
        if self.messages:
            message = data.draw(st.sampled_from(self.messages))
            self.members[message.to].raft.step(message)

    @rule(count=st.integers(1, 20))
    def lose(self, count: int) -> None:
        """The oldest are lost."""
        del self.messages[:count]

    @rule(replica=MEMBERS, count=st.integers(1, 8))
    def tick(self, replica: int, count: int) -> None:
        """Clocks do not run together."""
        for _ in range(count):
            self.members[replica].raft.tick()
            self.post(self.members[replica].take())

    @rule(replica=MEMBERS)
    def take(self, replica: int) -> None:
        """A write begins."""
        self.post(self.members[replica].take())

    @rule(replica=MEMBERS, count=st.integers(1, 3))
    def write(self, replica: int, count: int) -> None:
        """Writes end."""
        one = self.members[replica]
        one.write(min(count, len(one.writes)))

    @rule(rounds=st.integers(1, 12), without=st.integers(0, 5))
    def calm(self, rounds: int, without: int = 0) -> None:
        """All goes well for a while, with one member cut off, perhaps."""
        for _ in range(rounds):
            for one in self.members.values():
                one.raft.tick()
                self.post(one.settle())
                one.send_snapshots()
            messages, self.messages = self.messages, []
            for message in messages:
                if without not in (message.sender, message.to):
                    self.members[message.to].raft.step(message)

    @rule(replica=MEMBERS)
    def crash(self, replica: int) -> None:
        """What was not written is gone."""
        self.members[replica].start()

    @rule()
    def compact(self) -> None:
        """All but the last one that is applied, everywhere."""
        for one in self.members.values():
            if one.disk.applied == one.raft.applied_index > one.raft.first_index:
                one.compact(one.raft.applied_index - 1)

    @rule(count=st.integers(1, 3), rounds=st.integers(0, 3), without=st.integers(0, 5))
    def propose(self, count: int, rounds: int, without: int) -> None:
        """A user writes, wherever that is possible."""
        for one in self.leading:
            one.raft.propose([b"at %d" % one.replica] * count)
        self.calm(rounds, without)

    @rule(replica=MEMBERS, context=st.binary(min_size=4, max_size=4), rounds=st.integers(0, 4))
    def read(self, replica: int, context: bytes, rounds: int) -> None:
        """A user reads, and must see all that is known to be committed anywhere by now."""
        if context not in self.reads:
            self.reads[context] = max(one.raft.commit_index for one in self.members.values())
            self.members[replica].raft.read_index(context)
            self.calm(rounds)

    @rule(kind=st.sampled_from(CHANGES), whom=MEMBERS, rounds=st.integers(0, 3))
    def change(self, kind: type[Change], whom: int, rounds: int) -> None:
        """An operator; who was removed is never added again (R11)."""
        if kind is AddLearner and self.members[whom].raft.last_index:
            return
        for one in self.leading:
            one.raft.propose_membership(kind(whom))
        self.calm(rounds)

    @rule(to=MEMBERS)
    def transfer(self, to: int) -> None:
        """An operator."""
        for one in self.leading:
            one.raft.transfer_leadership(to)

    @rule(replica=MEMBERS)
    def suspect(self, replica: int) -> None:
        """The failure detector, rightly or not."""
        self.members[replica].raft.suspect()

    @rule(replica=MEMBERS)
    def snapshots(self, replica: int) -> None:
        """To whoever wants one."""
        one = self.members[replica]
        if one.disk.applied == one.raft.applied_index:
            one.send_snapshots()

    # -- figure 3 -------------------------------------------------------------------------------

    @invariant()
    def election_safety(self) -> None:
        """At most one leader in a term, ever; terms and commit indexes do not fall."""
        for replica, one in self.members.items():
            raft = one.raft
            if raft.role is Role.LEADER:
                assert self.leaders.setdefault(raft.term, replica) == replica
            term, life, commit = self.was[replica]
            assert life < one.life or (raft.term >= term and raft.commit_index >= commit)
            self.was[replica] = (raft.term, one.life, raft.commit_index)

    @invariant()
    def log_matching(self) -> None:
        """Where two logs have the same term, they have the same before it."""
        logs = [one.raft.log for one in self.members.values()]
        for one, other in zip(logs, logs[1:] + logs[:1], strict=True):
            first = max(one.first_index, other.first_index)
            last = min(one.last_index, other.last_index)
            agree = [one.has(index, other.term_at(index) or 0) for index in range(first, last + 1)]
            assert agree == sorted(agree, reverse=True)

    @invariant()
    def committed_for_ever(self) -> None:
        """What is committed stays so everywhere (Leader Completeness, State Machine Safety)."""
        for one in self.members.values():
            raft = one.raft
            for index in range(raft.first_index, raft.commit_index + 1):
                term = raft.log.term_at(index) or 0
                assert self.committed.setdefault(index, term) == term
            for index, state in one.states.items():
                assert self.states.setdefault(index, state) == state
        for one in sorted(self.leading, key=lambda each: each.raft.term)[-1:]:
            if one.raft.term >= max(self.leaders, default=0):
                assert one.raft.last_index >= max(self.committed, default=0)

    @invariant()
    def reads_see_what_was_committed(self) -> None:
        """R5: whoever answers them."""
        for one in self.members.values():
            for read in one.reads:
                assert read.index >= self.reads[read.context]

    def teardown(self) -> None:
        """Count what has happened: a run in which nothing did shows nothing (X1)."""
        if hasattr(self, "members"):
            happened["runs"] += 1
            happened["terms"] += len(self.leaders)
            happened["committed"] += len(self.committed)
            happened["reads"] += sum(len(one.reads) for one in self.members.values())
            happened["snapshots"] += any(one.disk.compacted.data for one in self.members.values())
            configurations = {one.raft.configuration for one in self.members.values()}
            happened["changes"] += len(configurations - {Configuration(), Configuration(VOTERS)})


class AnyGroupTests(SynchronousTestCase):
    """Promises 1 and 2, as far as the core goes."""

    def test_any_order(self) -> None:
        """Of all that may happen; and enough of it has."""
        happened.clear()
        run_state_machine_as_test(AnyGroup, settings=thoroughly)
        for what, times in (("committed", 2), ("terms", 1), ("reads", 0.1), ("changes", 0.1)):
            self.assertGreaterEqual(happened[what], times * happened["runs"], (what, happened))
