"""Several hosts in a database URL, in every form people write them, for the driver.

libpq's `postgresql://user@a:5432,b:5433/name` and `?host=a,b&port=5432,5433`, SQLAlchemy's `?host=a:5432&host=b:5433`.
Errors name an entry by its place and never show it: a password with an unescaped `@` would be read as part of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from sqlalchemy import URL, make_url

from scheduler.domain.errors import InvalidInputError

_AUTHORITY: Final = re.compile(
    r"(?P<before>postgres[\w+]*://(?:[^:/]*(?::[^@]*)?@)?)(?P<hosts>[^/?@]*)(?P<after>.*)", re.DOTALL
)
_ENTRY: Final = re.compile(r"\[(?P<v6>[^\]]+)\](?::(?P<v6_port>[^:]*))?|(?P<host>[^:\[\]]+)(?::(?P<port>[^:]*))?")
_LARGEST_PORT: Final = 65_535
_REMEDY: Final = "give each as name, name:port or [address]:port, with commas between them"

Host = tuple[str, str]


def read_url(database_url: str) -> URL:
    """SQLAlchemy's URL of `database_url`; several hosts are one list in its query, as the driver wants them.

    Raises InvalidInputError, and what `make_url` raises for no URL at all.
    """
    parts = _AUTHORITY.fullmatch(database_url)
    if parts is None or "," not in parts["hosts"]:
        url = make_url(database_url)
        return _with_hosts(url, _hosts_of_query(url))
    if parts["after"].startswith("@"):
        raise _fault("percent-encode the @ of the password: %40")
    hosts = [_read_entry(place, unquote(entry)) for place, entry in enumerate(parts["hosts"].split(","), start=1)]
    url = make_url(parts["before"] + parts["after"])
    return _with_hosts(url, _hosts_of_query(url) or hosts)


def has_several_hosts(url: URL) -> bool:
    """Whether the driver will try one server after the other."""
    return any("," in str(url.query.get(name, "")) for name in ("host", "hostaddr"))


def _with_hosts(url: URL, hosts: Sequence[Host]) -> URL:
    if len(hosts) > 1:
        url = url._replace(host=None, port=None).difference_update_query(["host", "port"])
        url = url.update_query_dict({"host": ",".join(name for name, _ in hosts)})
        if any(port for _, port in hosts):
            url = url.update_query_dict({"port": ",".join(port for _, port in hosts)})
    return url


def _hosts_of_query(url: URL) -> list[Host]:
    """The hosts of `?host=`, each with its port; none when it names fewer than two."""
    entries = _values(url, "host")
    if len(entries) < 2:  # noqa: PLR2004 - one host is the driver's own business
        return []
    hosts = [_read_entry(place, entry) for place, entry in enumerate(entries, start=1)]
    ports = _values(url, "port") or [str(url.port or "")]
    if ports == [""]:
        return hosts
    if any(port for _, port in hosts):
        raise _fault("give the ports either behind the hosts or in port, not both")
    if len(ports) not in (1, len(hosts)):
        raise _fault(f"give one port for all, or as many as there are hosts: {len(hosts)}")
    checked = [_check_port(place, port) for place, port in enumerate(ports, start=1)]
    return [(name, port) for (name, _), port in zip(hosts, checked * (len(hosts) // len(checked)), strict=True)]


def _values(url: URL, name: str) -> list[str]:
    given = url.query.get(name, ())
    texts = [given] if isinstance(given, str) else given
    return [value.strip() for text in texts for value in text.split(",")]


def _read_entry(place: int, entry: str) -> Host:
    """Host and port ("" for the default one); folders of Unix sockets and bare IPv6 addresses have no port behind."""
    if entry.startswith("/") or (entry.count(":") > 1 and not entry.startswith("[")):
        return entry, ""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise _fault(f"host {place} of the list isn't one: {_REMEDY}")
    return match["v6"] or match["host"], _check_port(place, match["v6_port"] or match["port"] or "")


def _check_port(place: int, port: str) -> str:
    if port and not (port.isascii() and port.isdigit() and 1 <= int(port) <= _LARGEST_PORT):
        raise _fault(f"the port of host {place} of the list isn't one: give 1 to {_LARGEST_PORT}")
    return port


def _fault(remedy: str) -> InvalidInputError:
    return InvalidInputError("database_url", "(not shown)", remedy)
