"""Bugs in changes of the membership."""

from __future__ import annotations

from typing import Any

from kvtwist.core.raft import elections, leader, replication
from kvtwist.core.raft.configuration import Promote, changed
from kvtwist.core.raft.log import Log
from kvtwist.core.raft.state import NOBODY, Dropped, Leading, Proposed, Reason, State
from tests.sim.mutants.planting import Patch, instead, mutant


def _propose(
    state: State,
    leading: Leading,
    change: Any,
    *,
    own_commit: bool = True,
    one_at_a_time: bool = True,
    catch_up: bool = True,
) -> Proposed | Dropped:
    """`leader.propose_membership`, whose checks can be left out."""
    log = state.log
    if leading.transfer_to != NOBODY:
        return Dropped(Reason.TRANSFER, leading.transfer_to)
    if own_commit and log.commit_index < leading.term_began_index:
        return Dropped(Reason.NO_OWN_COMMIT, state.replica)
    if one_at_a_time and log.configuration_index > log.commit_index:
        return Dropped(Reason.CHANGE_PENDING, state.replica)
    configuration = changed(state.configuration, change)
    if configuration is None:
        return Dropped(Reason.SENSELESS, state.replica)
    if catch_up and isinstance(change, Promote):
        lag = log.last_index - leading.progress[change.replica].match
        if lag > state.settings.promotion_lag_entries_max:
            return Dropped(Reason.NOT_CAUGHT_UP, state.replica)
    index = replication.append_configuration(state, leading, configuration)
    return Proposed(state.term, index)


@mutant
def two_changes_at_once(patch: Patch) -> None:
    """A change begins while another one is not committed (R10)."""
    patch.replace(
        leader, "propose_membership", instead(lambda *given: _propose(*given, one_at_a_time=False))
    )


@mutant
def change_before_own_commit(patch: Patch) -> None:
    """A new leader changes the membership before it has committed an entry (Ongaro 2015; R10)."""
    patch.replace(
        leader, "propose_membership", instead(lambda *given: _propose(*given, own_commit=False))
    )


@mutant
def promotion_without_catch_up(patch: Patch) -> None:
    """A learner is made a voter however far behind it is (R10)."""
    patch.replace(
        leader, "propose_membership", instead(lambda *given: _propose(*given, catch_up=False))
    )


@mutant
def configuration_outlives_its_entry(patch: Patch) -> None:
    """A configuration stays in force when its entry is cut off (4.1)."""

    def made(before: Any) -> Any:
        def _truncate(self: Log, index: int) -> None:
            kept = list(self._configurations)
            before(self, index)
            self._configurations = kept

        return _truncate

    patch.replace(Log, "_truncate", made)


@mutant
def configuration_waits_for_its_commit(patch: Patch) -> None:
    """A configuration is in force only when it is committed."""
    patch.replace(
        Log, "configuration", instead(property(lambda self: self.committed_configuration))
    )


@mutant
def removed_leader_stays(patch: Patch) -> None:
    """A leader goes on when its own removal is committed."""

    def committed(state: State, leading: Leading) -> None:
        replication.maybe_commit(state, leading)

    patch.replace(leader, "committed", instead(committed))


@mutant
def learners_stand_for_election(patch: Patch) -> None:
    """Whoever hears of no leader stands for election, voter or not."""
    patch.replace(
        elections, "may_campaign", instead(lambda state: bool(state.configuration.voters))
    )
