"""Bookkeeping of a call on many keys: which box each goes into, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from twisted.protocols import amp

from kvtwist.errors import KvtwistError, ManyFailed, OutcomeUnknown, Refused
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments
from kvtwist.wire.failures import unpack_failure
from kvtwist.wire.link import Link

BOX_BYTES_MAX = 1 << 20
BOX_KEYS_MAX = 1000
"""A box has so many bytes and keys at most, so that none keeps a node busy for long."""

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")


class _Box(Generic[_Key]):
    """A box that is being filled."""

    __slots__ = ("keys", "size")

    def __init__(self) -> None:
        self.keys: list[_Key] = []
        self.size = 0


class Many(Generic[_Key, _Result]):
    """One call of `get_many` or `put_many`.

    :param command: the command for many keys.
    :param wanted: under each key, as the caller gave it, the key as bytes, and the value to write.
    :param finish: makes a result of a version and a value; also an attribute.

    :ivar results: what succeeded.
    :ivar errors: what failed for good.
    """

    def __init__(
        self,
        command: type[amp.Command],
        wanted: Mapping[_Key, tuple[bytes, ...]],
        finish: Callable[[Arguments], _Result],
    ) -> None:
        self.command = command
        self.results: dict[_Key, _Result] = {}
        self.errors: dict[_Key, KvtwistError] = {}
        self._wanted = wanted
        self.finish = finish

    def wanted(self, key: _Key) -> tuple[bytes, ...]:
        """The key as bytes, and the value to write, if there is one."""
        return self._wanted[key]

    def boxes(self, link_of: Callable[[bytes], Link | None]) -> Iterator[tuple[Link, list[_Key]]]:
        """The keys for each box: all of one owner, and not too many bytes.

        Keys whose owner is not connected (*link_of* says), and those that would fill a box by
        themselves, are left for sending alone.
        """
        filling: dict[Link, _Box[_Key]] = {}
        for key, data in self._wanted.items():
            size = len(data[0]) + len(data[-1])
            link = link_of(data[0])
            if link is None or size > BOX_BYTES_MAX:
                continue
            box = filling.get(link)
            if box is None:
                box = filling[link] = _Box()
            elif box.size + size > BOX_BYTES_MAX or len(box.keys) >= BOX_KEYS_MAX:
                yield link, box.keys
                box = filling[link] = _Box()
            box.keys.append(key)
            box.size += size
        for link, box in filling.items():
            yield link, box.keys

    def arguments(self, keys: Iterable[_Key]) -> Arguments:
        """The arguments of the box for *keys*."""
        columns = zip(*(self._wanted[key] for key in keys), strict=True)
        return dict(zip(("keys", "values"), map(list, columns), strict=False))

    def answered(self, keys: list[_Key], answer: Arguments) -> None:
        """Take in the answer to a box."""
        versions, errors = answer["versions"], answer["errors"]
        values = answer.get("values", [None] * len(keys))
        if not len(keys) == len(versions) == len(values) == len(errors):
            self.failed(keys, OutcomeUnknown("the answer has not as many results as keys"))
            return
        for key, version, value, error in zip(keys, versions, values, errors, strict=True):
            if error is None:
                self.results[key] = self.finish({"version": version, "value": value})
            else:
                self.failed([key], unpack_failure(error))

    def failed(self, keys: list[_Key], error: KvtwistError) -> None:
        """Take in an error: for good, unless the keys may be sent again."""
        if not may_be_sent_again(self.command, error):
            self.errors.update(dict.fromkeys(keys, error))

    def left(self) -> list[_Key]:
        """The keys that nothing has become of yet."""
        return [key for key in self._wanted if key not in self.results and key not in self.errors]

    def outcome(self) -> dict[_Key, _Result]:
        """The results, in the order of the call.

        :raises ManyFailed: when a key has an error.
        """
        if self.errors:
            key, error = next(iter(self.errors.items()))
            raise ManyFailed(
                f"{len(self.errors)} of {len(self._wanted)} keys failed, "
                f"the first {key!r}: {error}",
                results=self.results,
                errors=self.errors,
            )
        return {key: self.results[key] for key in self._wanted}


def may_be_sent_again(command: type[amp.Command], error: KvtwistError) -> bool:
    """Whether nothing can have been done, or doing it twice is no harm."""
    if isinstance(error, OutcomeUnknown):
        return command not in commands.WRITES
    return not isinstance(error, Refused)
