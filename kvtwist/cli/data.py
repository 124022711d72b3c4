"""The commands on data."""

from __future__ import annotations

from kvtwist.cli.run import EXIT_NOT_FOUND, EXIT_OK
from kvtwist.cli.show import Printer, json_of, text_of
from kvtwist.client import Client


async def put(client: Client, printer: Printer, key: bytes, value: bytes) -> int:
    """``kvcli put``."""
    version = await client.put(key, value)
    if printer.as_json:
        printer.object({**json_of("key", key), "version": version})
    return EXIT_OK


async def get(client: Client, printer: Printer, key: bytes, raw: bool) -> int:
    """``kvcli get``."""
    record = await client.get(key)
    if record is None:
        printer.error(f"{text_of(key)}: not found")
        return EXIT_NOT_FOUND
    if printer.as_json:
        value = json_of("value", record.value)
        printer.object({**json_of("key", key), **value, "version": record.version})
    elif raw:
        printer.raw(record.value)
    else:
        printer.line(text_of(record.value))
    return EXIT_OK


async def delete(client: Client, printer: Printer, key: bytes, version: int | None) -> int:
    """``kvcli delete``."""
    deleted = await client.delete(key, version=version)
    if printer.as_json:
        printer.object({**json_of("key", key), "deleted": deleted})
    if not deleted:
        printer.error(f"{text_of(key)}: not found")
        return EXIT_NOT_FOUND
    return EXIT_OK


async def incr(client: Client, printer: Printer, key: bytes, delta: int) -> int:
    """``kvcli incr``."""
    counted = await client.increment(key, delta)
    if printer.as_json:
        number = {"number": counted.number, "version": counted.version}
        printer.object({**json_of("key", key), **number})
    else:
        printer.line(str(counted.number))
    return EXIT_OK


async def cas(client: Client, printer: Printer, key: bytes, value: bytes, version: int) -> int:
    """``kvcli cas``."""
    new_version = await client.compare_and_set(key, value, version)
    if printer.as_json:
        printer.object({**json_of("key", key), "version": new_version})
    else:
        printer.line(str(new_version))
    return EXIT_OK
