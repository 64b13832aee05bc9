"""A database URL, in every form people write it."""

import pytest

from scheduler import InvalidInputError
from scheduler.store.engine import parse_database_url

SECRET = "pw-never-shown"  # noqa: S105 - nobody's


def driver_arguments(database_url: str) -> dict[str, object]:
    """What psycopg is called with, without the names that are the same in every case."""
    url = parse_database_url(database_url)
    arguments = url.get_dialect()().create_connect_args(url)[1]
    return {name: value for name, value in arguments.items() if name not in ("context", "user", "password", "dbname")}


@pytest.mark.parametrize(
    ("database_url", "host", "port"),
    [
        ("postgresql://u:p@a:5432,b:5433/db", "a,b", "5432,5433"),
        ("postgres://u:p@a:5432,b:5433/db", "a,b", "5432,5433"),
        ("postgresql+psycopg://u:p@a:5432,b:5433/db", "a,b", "5432,5433"),
        ("postgresql://u:p@a,b/db", "a,b", ","),
        ("postgresql://a,b", "a,b", ","),
        ("postgresql://u:p@a,b:5433/db", "a,b", ",5433"),
        ("postgresql://u:p@[::1]:5432,[fe80::2]/db", "::1,fe80::2", "5432,"),
        ("postgresql://u:p@%2Frun%2Fpg,b:5433/db", "/run/pg,b", ",5433"),
        ("postgresql://u:p@/db?host=a,b&port=5432,5433", "a,b", "5432,5433"),
        ("postgresql://u:p@/db?host=a,b&port=5433", "a,b", "5433,5433"),
        ("postgresql://u:p@/db?host=a,b", "a,b", ","),
        ("postgresql://u:p@:5433/db?host=a,b", "a,b", "5433,5433"),
        ("postgresql://u:p@/db?host=a:5432,b:5433", "a,b", "5432,5433"),
        ("postgresql://u:p@/db?host=::1,/run/pg&port=5432,5433", "::1,/run/pg", "5432,5433"),
        ("postgresql://u:p@/db?host=a:5432&host=b:5433", "a,b", "5432,5433"),
        ("postgresql://u:p@/db?host=a&host=b:5433&host=c", "a,b,c", ",5433,"),
        ("postgresql://u:p@/db?host=a&host=b&port=5432&port=5433", "a,b", "5432,5433"),
    ],
)
def test_several_hosts_are_understood_in_every_form(database_url: str, host: str, port: str) -> None:
    expected = {"host": host, "port": port, "target_session_attrs": "read-write"}

    assert driver_arguments(database_url) == expected


def test_user_password_database_and_options_stay_beside_several_hosts() -> None:
    url = parse_database_url("postgresql://us%40er:p,%2Fw@a:1,b:2/my-db?sslmode=require")

    assert (url.username, url.password, url.database) == ("us@er", "p,/w", "my-db")
    assert url.query["sslmode"] == "require"


@pytest.mark.parametrize("hosts", ["a,b", ""])
def test_the_users_own_target_is_kept(hosts: str) -> None:
    url = parse_database_url(f"postgresql://{hosts}/db?target_session_attrs=any")

    assert url.query["target_session_attrs"] == "any"


@pytest.mark.parametrize(
    ("database_url", "expected"),
    [
        ("postgresql://u:p@a:5433/db", {"host": "a", "port": 5433}),
        ("postgresql://u:p@/db?host=/run/pg", {"host": "/run/pg"}),
        ("postgresql:///db", {}),
    ],
)
def test_one_host_may_be_a_standby(database_url: str, expected: dict[str, object]) -> None:
    assert driver_arguments(database_url) == expected


def test_several_addresses_are_several_hosts() -> None:
    assert driver_arguments("postgresql:///db?hostaddr=10.0.0.1,10.0.0.2") == {
        "hostaddr": "10.0.0.1,10.0.0.2",
        "target_session_attrs": "read-write",
    }


@pytest.mark.parametrize(
    ("rest", "remedy"),
    [
        ("@a:5432,b:x/db", "the port of host 2 .* isn't one: give 1 to 65535"),
        ("@a:0,b/db", "the port of host 1"),
        ("@a:65536,b/db", "the port of host 1"),
        ("@a,,b/db", "host 2 of the list isn't one: give each as name, name:port"),
        ("@a,b,/db", "host 3 of the list"),
        ("@a,[::1/db", "host 2 of the list"),
        ("@a:1:,b@c/db", "percent-encode the @"),
        (",@a,b@c/db", "percent-encode the @"),
        ("@/db?host=a,b,c&port=1,2", "give one port for all, or as many as there are hosts: 3"),
        ("@/db?host=a:1,b&port=2", "either behind the hosts or in port"),
        ("@/db?host=a,b&port=1,x", "the port of host 2"),
        ("@a:x/db", "postgresql://user@host:5432,other:5432/database"),
    ],
)
def test_a_fault_names_the_remedy_and_never_shows_a_password(rest: str, remedy: str) -> None:
    with pytest.raises(InvalidInputError, match=remedy) as raised:
        parse_database_url(f"postgresql://u:{SECRET}{rest}")

    assert raised.value.field == "database_url"
    assert SECRET not in str(raised.value)


def test_a_password_taken_for_a_port_is_not_shown_either() -> None:
    with pytest.raises(InvalidInputError, match="the port of host 1") as raised:
        parse_database_url(f"postgresql://u:p@ss:{SECRET},x/y@host/db")

    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("timeout", ["soon", "-1", "1.5"])
def test_a_connect_timeout_that_is_no_number_is_refused(timeout: str) -> None:
    with pytest.raises(InvalidInputError, match="connect_timeout"):
        parse_database_url(f"postgresql://postgres@127.0.0.1/postgres?connect_timeout={timeout}")
