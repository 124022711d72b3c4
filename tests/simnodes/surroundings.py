"""What a run needs of the process that it is in: lower thresholds, and no garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from twisted.internet.defer import DebugInfo

from kvtwist.client import sessions
from kvtwist.node import arrivals, compaction, loading, outgoing
from kvtwist.storage import recent
from tests.sim.mutants.planting import Patch, instead
from tests.simnodes.plan import Plan


@contextmanager
def lowered(plan: Plan) -> Iterator[None]:
    """While inside, the thresholds of nodes are the plan's (X3)."""
    patch = Patch()
    try:
        patch.replace(compaction, "LOG_ENTRIES_MAX", instead(plan.log_entries_max))
        patch.replace(compaction, "HELD_TIMES", instead(plan.log_held_times))
        patch.replace(outgoing, "_CUT_BYTES", instead(plan.snapshot_piece_bytes))
        patch.replace(outgoing, "_CUTS_PER_PIECE", instead(1))
        patch.replace(arrivals, "BATCH_BYTES", instead(plan.snapshot_piece_bytes))
        patch.replace(arrivals, "SILENT_SECONDS_MAX", instead(2.0))
        patch.replace(sessions, "IDLE_MS", instead(plan.session_idle_ms))
        patch.replace(recent, "GROUP_BYTES_MAX", instead(plan.recent_bytes))
        settings = replace(loading.SETTINGS, quiesce_after_ticks=plan.quiesce_ticks)
        patch.replace(loading, "SETTINGS", instead(settings))
        yield
    finally:
        patch.undo()


@contextmanager
def uncollected() -> Iterator[None]:
    """While inside, no garbage is collected; afterwards it all is, in silence.

    What a process that was killed has left, coroutines above all, would else be run to its end,
    and at moments that depend on what else this process does.
    """
    gc.disable()
    try:
        yield
    finally:
        patch = Patch()
        patch.replace(DebugInfo, "__del__", instead(lambda self: None))
        try:
            gc.collect()
        finally:
            patch.undo()
            gc.enable()
