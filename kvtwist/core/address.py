"""Addresses of nodes, as people write them and as they are compared.

``:8001`` is loopback, ``host:8001``, ``10.0.0.5:8001`` and ``[::1]:8001`` mean what they say. Two
addresses are the same when their normal forms are: names in lower case, IP addresses in their
canonical form, ``localhost`` as ``127.0.0.1``. Nothing is ever looked up, so the comparison gives
the same answer on every node.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from kvtwist.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8001

_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)


_IPV6 = re.compile(r"[0-9a-fA-F:.]+(%[0-9A-Za-z._-]+)?")


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host (name or IP address, without brackets) and a TCP port, in normal form."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it means "every interface": one can listen on it, but not dial it."""
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return _is_ip(self.host) and ipaddress.ip_address(self.host).is_loopback


def parse_address(text: str) -> Address:
    """Read one address.

    :raises ConfigurationError: when *text* is not ``HOST:PORT``, ``:PORT`` or ``[IPV6]:PORT``.
    """
    if not text.isascii() or not text.strip().isprintable():
        raise _unreadable(text, "it has characters that no address has")
    host, colon, port = text.strip().rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise _unreadable(text, "an IPv6 address stands in brackets" if colon else "no port")
    return Address(_normal_host(host, text), _port(port, text))


def parse_addresses(text: str | Iterable[str]) -> tuple[Address, ...]:
    """Read a list, given as one comma-separated string or as strings, in the order given.

    :raises ConfigurationError: when one cannot be read, the list is empty, or one stands twice.
    """
    pieces = text.split(",") if isinstance(text, str) else list(text)
    addresses: list[Address] = []
    for piece in pieces:
        address = parse_address(piece)
        if address in addresses:
            raise ConfigurationError(f"{address} is listed twice: list every node once")
        addresses.append(address)
    if not addresses:
        raise ConfigurationError("the list of addresses is empty: give HOST:PORT,HOST:PORT,...")
    return tuple(addresses)


def _normal_host(host: str, text: str) -> str:
    if host == "":
        return LOOPBACK
    if host.startswith("["):
        inside = host[1:-1]
        if not (host.endswith("]") and ":" in host and _IPV6.fullmatch(inside) and _is_ip(inside)):
            raise _unreadable(text, "no IPv6 address in the brackets")
        return ipaddress.ip_address(inside).compressed
    host = host.lower()
    if _is_ip(host):
        return ipaddress.ip_address(host).compressed
    if re.fullmatch(r"[0-9.]+", host) or not _HOST_NAME.fullmatch(host):
        raise _unreadable(text, f"{host!r} is not a host name or an IP address")
    return LOOPBACK if host == "localhost" else host


def _port(text: str, whole: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _unreadable(whole, "the port is a number from 1 to 65535")
    return int(text)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _unreadable(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{text!r} is not an address ({why}): write HOST:PORT, :PORT for this machine, "
        "or [IPV6]:PORT"
    )
