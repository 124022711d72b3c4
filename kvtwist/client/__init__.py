"""The client: ``from kvtwist.client import Client``."""

from kvtwist.client.client import Client
from kvtwist.core.partition import Record

__all__ = ["Client", "Record"]
