"""The engine that keeps nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.storage.engine import Engine
from kvtwist.storage.memory import MemoryEngine
from tests.storage.contract import EngineContract


class MemoryEngineTests(EngineContract, SynchronousTestCase):
    def make_engine(self) -> Engine:
        return MemoryEngine()
