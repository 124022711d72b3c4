"""Random bits of a store's files fall over: no answer is ever wrong.

A campaign is ``python -m tests.storage.bitflips 1000``, which prints a table. It has found that
RocksDB 9.8 reads on for ever in some damaged manifests: seed 50211. Such a node does not start, and
does not say why.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import rmtree

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.bitflips import AT_OPEN, NO_EFFECT, bad, run, table

FLIPS = 60


class BitFlipTests(SynchronousTestCase):
    def test_never_a_wrong_answer(self) -> None:
        """S3, S7: a disk that changes a bit costs a refusal, and not an acknowledged write."""
        top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, top)
        results = run(top, FLIPS)
        self.assertEqual(bad(results), [], table(results))
        self.assertEqual(len(results), FLIPS)
        # Had nothing been damaged, or nothing been noticed, this would have shown nothing.
        self.assertTrue({AT_OPEN, NO_EFFECT} <= set(results.values()), table(results))
