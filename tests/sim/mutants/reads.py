"""Bugs in reading by ReadIndex, and in falling silent."""

from __future__ import annotations

from typing import Any

from kvtwist.core.raft import ReadState, reads, replication
from kvtwist.core.raft.raft import Raft
from kvtwist.core.raft.state import Leading, Round, State
from tests.sim.mutants.planting import Patch, instead, mutant


@mutant
def read_without_a_round(patch: Patch) -> None:
    """A leader answers reads at once, without asking whether it still leads."""

    def begin_round(state: State, leading: Leading) -> None:
        asked, leading.asked = tuple(leading.asked), []
        reads._answer(state, asked, state.log.commit_index)

    patch.replace(reads, "begin_round", instead(begin_round))


@mutant
def read_context_reused(patch: Patch) -> None:
    """All rounds of confirmations have the same number, so that old answers count (R5)."""

    def next_round(state: State, leading: Leading) -> None:
        leading.round = 1
        leading.round_ticks.append((leading.round, state.now))

    patch.replace(reads, "next_round", instead(next_round))


@mutant
def read_confirmed_by_the_round_before(patch: Patch) -> None:
    """A read joins the round that is under way already (R5)."""

    def begin_round(state: State, leading: Leading) -> None:
        asked, leading.asked = tuple(leading.asked), []
        leading.rounds.append(Round(leading.round, state.log.commit_index, asked))
        reads.confirm_rounds(state, leading)

    patch.replace(reads, "begin_round", instead(begin_round))


@mutant
def read_before_own_commit(patch: Patch) -> None:
    """A new leader answers reads before it knows what is committed (R4)."""
    patch.replace(reads, "may_begin_round", instead(lambda state, leading: bool(leading.asked)))


@mutant
def read_survives_the_term(patch: Patch) -> None:
    """What a follower has asked one leader, it takes from whoever answers later (R5)."""

    def give_up_all(state: State) -> None:
        leading = state.leading
        if leading is not None:
            contexts = [asked.context for asked in leading.asked]
            contexts += [each.context for round in leading.rounds for each in round.reads]
            index = state.log.commit_index
            state.reads.extend(ReadState(each, index) for each in contexts if each)

    patch.replace(reads, "give_up_all", instead(give_up_all))


@mutant
def lost_reads_forgotten(patch: Patch) -> None:
    """Reads that will never be answered are not given back."""

    def made(before: Any) -> Any:
        def give_up_all(state: State) -> None:
            before(state)
            state.reads_lost.clear()

        return give_up_all

    patch.replace(reads, "give_up_all", made)


@mutant
def silence_too_soon(patch: Patch) -> None:
    """A leader falls silent though somebody lacks something."""
    patch.replace(replication, "is_replicated", instead(lambda state, leading: True))


@mutant
def silent_leader_does_not_wake(patch: Patch) -> None:
    """A proposal to a silent leader does not set its clock going."""
    patch.replace(Raft, "_wake_to_act", instead(lambda self: None))
