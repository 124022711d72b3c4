"""The client: ``from kvtwist.client import Client``."""

from kvtwist.client.client import Client
from kvtwist.core.partition import Record
from kvtwist.core.state.outcomes import Counted

__all__ = ["Client", "Counted", "Record"]
