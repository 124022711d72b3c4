"""Any state, any message: what a single replica keeps to, whatever comes.

**What may not come.** Raft promises that some messages are never sent, and a replica that took one
in could not go on safely. What can be seen of that is refused before anything is done (`Senseless`,
tested in `test_sense`). Those are

* a leader's message (`AppendRequest`, `Heartbeat`, `InstallSnapshot`) of a term that somebody else
  leads, the receiver included (Election Safety);
* one that does not agree with the log of its term's leader, or that log with what an earlier leader
  had committed (Log Matching, Leader Completeness), for instance whose entries are not in order;
* a `Heartbeat` whose ``commit`` is more than its receiver has acknowledged in that term;
* an `AppendResponse` that accepts more than the leader of its term has ever had.

Everything else may come, at any time and from anybody: old and future terms, strangers, numbers
that make no sense. Below, `History` makes up what the leaders of all terms have in their logs, so
that whatever is drawn from it keeps those promises; the rest is drawn freely.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

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
    Entry,
    Message,
    Promote,
    Remove,
    Role,
    Settings,
    Snapshot,
)
from kvtwist.core.raft.messages import (
    AppendRequest,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    HigherTerm,
    InstallSnapshot,
    PreVoteRequest,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from tests.core.raft.group import Member, lead, log_of, member, only

TERMS = 8
VOTERS = (1, 2, 3, 4, 5)

thoroughly = settings(deadline=None, max_examples=120, stateful_step_count=50)

numbers = st.one_of(st.integers(-1, 12), st.sampled_from([1 << 31, (1 << 63) - 1]))
senders = st.integers(0, 9)
terms = st.integers(0, TERMS)
shifts = st.sampled_from([0, 0, 0, 0, 0, 1, -1, TERMS])
"""Most messages are of the replica's own term: else it is soon in the last one, and deaf."""
any_settings = st.builds(
    Settings,
    pre_vote=st.booleans(),
    check_quorum=st.just(True),
    lease_reads=st.booleans(),
    quiesce_after_ticks=st.sampled_from([0, 3]),
    append_bytes_max=st.sampled_from([1, 1 << 20]),
    apply_bytes_max=st.sampled_from([1, 1 << 20]),
    inflight_messages_max=st.sampled_from([1, 64]),
)


head = (senders, st.just(1), terms)
from_anybody = st.one_of(
    st.builds(PreVoteRequest, *head, numbers, numbers),
    st.builds(PreVoteResponse, *head, st.booleans()),
    st.builds(VoteRequest, *head, numbers, numbers, st.booleans()),
    st.builds(VoteResponse, *head, st.just(value=False)),
    # Not from more than two of five voters: the terms' leaders are others.
    st.builds(VoteResponse, st.sampled_from([2, 8, 9]), st.just(1), terms, st.just(value=True)),
    st.builds(AppendResponse, *head, numbers, st.just(value=True), numbers, numbers),
    st.builds(HeartbeatResponse, *head, numbers),
    st.builds(TimeoutNow, *head),
    st.builds(ReadIndexRequest, *head, numbers),
    st.builds(ReadIndexResponse, *head, numbers, numbers),
    st.builds(HigherTerm, *head),
)
"""Messages of all kinds but a leader's, to replica 1."""


class History:
    """What leaders 2 to 5 have had in their logs, term by term; replica 1 never leads."""

    def __init__(self, data: st.DataObject) -> None:
        self.leaders: dict[int, int] = {}
        self.logs: dict[int, tuple[Entry, ...]] = {}
        self.committed: dict[int, int] = {}
        committed, logs = 0, [log_of()]
        for term in range(1, TERMS + 1):
            before = data.draw(st.sampled_from([each for each in logs if len(each) >= committed]))
            keep = data.draw(st.integers(committed, len(before)))
            mine = data.draw(st.integers(1, 3))
            log = before[:keep] + log_of(*[term] * mine, first=keep + 1)
            # Of an old term nothing is committed alone (5.4.2): all of a prefix, or own entries.
            done = data.draw(st.sampled_from([*range(keep + 1, len(log) + 1), committed]))
            self.leaders[term] = data.draw(st.integers(2, 5))
            self.logs[term], self.committed[term] = log, done
            if done > committed:
                logs, committed = [], done
            logs.append(log)

    def append(self, data: st.DataObject, term: int) -> AppendRequest:
        """Any that this term's leader may have sent."""
        log = self.logs[term]
        prev = data.draw(st.sampled_from([0, *range(len(log), 0, -1)]))
        entries = log[prev : data.draw(st.integers(prev, len(log)))]
        commit = data.draw(st.sampled_from(range(self.committed[term], -1, -1)))
        prev_term = log[prev - 1].term if prev else 0
        return AppendRequest(self.leaders[term], 1, term, prev, prev_term, entries, commit)

    def heartbeat(self, data: st.DataObject, term: int, acknowledged: int) -> Heartbeat:
        """Any, to a replica that has acknowledged so much."""
        commit = data.draw(st.integers(0, min(acknowledged, self.committed[term])))
        round_, quiesce = data.draw(st.integers(0, 9)), data.draw(st.booleans())
        return Heartbeat(self.leaders[term], 1, term, commit, round_, quiesce)

    def snapshot(self, data: st.DataObject, term: int) -> InstallSnapshot:
        """Any, of what is committed."""
        index = data.draw(st.integers(1, self.committed[term]))
        snapshot = Snapshot(index, self.logs[term][index - 1].term, Configuration(VOTERS))
        return InstallSnapshot(self.leaders[term], 1, term, snapshot)


happened: Counter[str] = Counter()


class AnyMessage(RuleBasedStateMachine):
    """A replica, which is watched, and what happens to it in any role."""

    def __init__(self) -> None:
        super().__init__()
        self.votes: dict[int, int] = {}
        self.acknowledged: dict[int, int] = {}
        self.one = member(voters=VOTERS)
        self.was = (0, 0, 0, 0)

    def begin(self, one: Member) -> None:
        """With *one*."""
        self.one = one
        self.note()

    def note(self) -> None:
        """Remember how things stand."""
        raft = self.one.raft
        self.was = (raft.term, raft.vote, raft.commit_index, raft.applied_index)

    def heard(self, sent: list[Message]) -> None:
        """What has left; the member itself looks whether all of it is durable."""
        for vote in only(VoteResponse, sent):
            if vote.granted:
                assert self.votes.setdefault(vote.term, vote.to) == vote.to, "one vote in a term"
        for request in only(VoteRequest, sent):
            assert self.votes.setdefault(request.term, 1) == 1, "one vote in a term"
        for answer in only(AppendResponse, sent):
            if not answer.rejected:
                best = max(self.acknowledged.get(answer.term, 0), answer.index)
                self.acknowledged[answer.term] = best

    def term(self, shift: int) -> int:
        """One of `TERMS`, so far from the replica's own."""
        return min(max(self.one.raft.term + shift, 1), TERMS)

    @rule(message=from_anybody, shift=shifts)
    def step(self, message: Message, shift: int) -> None:
        """Something from anybody."""
        if shift < TERMS:
            message = replace(message, term=self.term(shift))
        self.one.raft.step(message)

    @rule(count=st.integers(1, 12))
    def tick(self, count: int) -> None:
        """Time."""
        for _ in range(count):
            self.one.raft.tick()

    @rule()
    def take(self) -> None:
        """A Ready is taken, and its write begins."""
        self.heard(self.one.take())

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        """Writes end."""
        self.one.write(min(count, len(self.one.writes)))

    @rule()
    def settle(self) -> None:
        """Everything is done that is to be done."""
        self.heard(self.one.settle())

    @rule()
    def compact(self) -> None:
        """All but the last entry that is applied."""
        raft = self.one.raft
        if self.one.disk.applied == raft.applied_index > raft.first_index:
            self.one.compact(raft.applied_index - 1)

    @rule()
    def read(self) -> None:
        """A user."""
        self.one.raft.read_index(b"r")

    @rule()
    def suspect(self) -> None:
        """The failure detector."""
        self.one.raft.suspect()

    @rule(dice=st.integers(1, 6))
    def restart(self, dice: int) -> None:
        """Now and then; from what is on the disk, which is a legal place to start."""
        if dice != 6:
            return
        self.one.start()
        raft = self.one.raft
        assert raft.role is Role.FOLLOWER
        assert raft.term >= max([*self.votes, *self.acknowledged], default=0)
        if (vote := self.votes.get(raft.term)) is not None:
            assert raft.vote == vote
        assert raft.applied_index == self.one.disk.applied
        self.note()

    @invariant()
    def keeps(self) -> None:
        """What never changes, or never falls."""
        raft, (term, vote, commit, applied) = self.one.raft, self.was
        assert raft.term >= term, "terms never fall"
        assert raft.commit_index >= commit, "the commit index never falls"
        assert raft.applied_index >= applied, "what is applied stays so"
        assert raft.applied_index <= raft.commit_index <= raft.last_index
        if raft.term == term and vote:
            assert raft.vote == vote, "one vote in a term"
        row = raft.log.entries(raft.first_index, raft.last_index)
        assert [entry.term for entry in row] == sorted(entry.term for entry in row)
        assert not row or row[-1].term <= raft.term
        assert all(each.match < each.next for each in raft.progress().values())
        self.note()


class AnyFollower(AnyMessage):
    """It follows, or stands for election, and is never elected."""

    @initialize(how=any_settings, data=st.data())
    def start(self, how: Settings, data: st.DataObject) -> None:
        """With nothing."""
        self.begin(member(voters=VOTERS, settings=how))
        self.history = History(data)

    @rule(data=st.data(), shift=shifts, count=st.integers(1, 4), is_done=st.booleans())
    def append(self, data: st.DataObject, shift: int, count: int, is_done: bool) -> None:
        """Of a leader; several in a row, so that more than the first one fits."""
        for _ in range(count):
            self.one.raft.step(self.history.append(data, self.term(shift)))
            self.take()
        if is_done:
            self.settle()

    @rule(data=st.data(), shift=shifts)
    def heartbeat(self, data: st.DataObject, shift: int) -> None:
        """Of a leader."""
        term = self.term(shift)
        known = self.acknowledged.get(term, 0)
        self.one.raft.step(self.history.heartbeat(data, term, known))

    @rule(data=st.data(), shift=shifts)
    def snapshot(self, data: st.DataObject, shift: int) -> None:
        """Of a leader."""
        term = self.term(shift)
        if self.history.committed[term]:
            self.one.raft.step(self.history.snapshot(data, term))

    @invariant()
    def applies_what_is_committed(self) -> None:
        """Nothing else."""
        for entry in self.one.applied:
            assert entry in self.history.logs[TERMS], "applied, but not committed"
        assert self.one.raft.role is not Role.LEADER

    def teardown(self) -> None:
        """Count: a run in which nothing happened shows nothing (X1)."""
        happened["runs"] += 1
        happened["applied"] += len(self.one.applied)
        happened["acknowledged"] += len(self.acknowledged)


class AnyLeader(AnyMessage):
    """It leads, until something of a later term comes."""

    @initialize(how=any_settings)
    def start(self, how: Settings) -> None:
        """With an entry of an earlier term."""
        how = replace(how, promotion_lag_entries_max=2)
        self.begin(member(1, voters=VOTERS, learners=(6,), settings=how))
        lead(self.one)
        self.votes[self.one.raft.term] = 1
        self.note()

    @rule(sender=senders, share=st.integers(0, 20))
    def accept(self, sender: int, share: int) -> None:
        """Whoever it is, of no more than there is."""
        raft = self.one.raft
        raft.step(AppendResponse(sender, 1, raft.term, min(share, raft.last_index)))

    @rule(sender=senders, index=numbers, hint=numbers, hint_term=numbers)
    def reject(self, sender: int, index: int, hint: int, hint_term: int) -> None:
        """Whatever it says."""
        term = self.one.raft.term
        self.one.raft.step(AppendResponse(sender, 1, term, index, True, hint, hint_term))

    @rule(sender=senders, number=numbers)
    def beat(self, sender: int, number: int) -> None:
        """An answer to any heartbeat."""
        self.one.raft.step(HeartbeatResponse(sender, 1, self.one.raft.term, number))

    @rule(count=st.integers(0, 3))
    def propose(self, count: int) -> None:
        """A user."""
        self.one.raft.propose([b"x"] * count)

    @rule(kind=st.sampled_from([AddLearner, Promote, Demote, Remove]), replica=st.integers(1, 7))
    def change(self, kind: type[Change], replica: int) -> None:
        """An operator."""
        self.one.raft.propose_membership(kind(replica))

    @rule(to=senders, delivered=st.booleans())
    def snapshots(self, to: int, delivered: bool) -> None:
        """Sent to whoever wants one, and the carrier says what became of another one."""
        if self.one.disk.applied == self.one.raft.applied_index:
            self.one.send_snapshots()
        self.one.raft.snapshot_sent(to, delivered)

    @rule(to=senders)
    def transfer(self, to: int) -> None:
        """To anybody."""
        self.one.raft.transfer_leadership(to)


class AnyMessageTests(SynchronousTestCase):
    """Promise 4: no input stops a replica, or makes it break its word."""

    def test_followers_and_candidates(self) -> None:
        """Whatever comes, and from whatever leaders; and enough has."""
        happened.clear()
        run_state_machine_as_test(AnyFollower, settings=thoroughly)
        self.assertGreater(happened["applied"], happened["runs"] / 4)
        self.assertGreater(happened["acknowledged"], happened["runs"] / 4)

    def test_leaders(self) -> None:
        """Whatever comes."""
        run_state_machine_as_test(AnyLeader, settings=thoroughly)
