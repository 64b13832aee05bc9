import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer

CHECKOUT = Path(__file__).parents[3]

SERVE_UNTIL_KILLED = """
import sys
from tests.support.postgres import PostgresServer
with PostgresServer() as server:
    print(server.port, server.folder, flush=True)
    sys.stdin.read()
"""


def test_committed_rows_survive_a_killed_server() -> None:
    with PostgresServer() as server:
        server.execute("CREATE TABLE kept (value integer)")
        server.execute("INSERT INTO kept VALUES (1)")

        server.kill9()
        server.start()

        assert count_rows(server, "kept") == 1


def test_kill_reaches_a_busy_backend() -> None:
    with PostgresServer() as server, psycopg.connect(server.url(driver="postgresql")) as connection:
        backend = psutil.Process(connection.info.backend_pid)

        server.kill9()

        assert not backend.is_running()


def test_stopped_server_takes_no_connections_until_it_is_started_again() -> None:
    with PostgresServer() as server:
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url(driver="postgresql"))

        server.start()

        server.execute("SELECT 1")


def test_settings_reach_the_server() -> None:
    with (
        PostgresServer({"max_connections": 17}) as server,
        psycopg.connect(server.url(driver="postgresql")) as connection,
    ):
        assert connection.execute("SHOW max_connections").fetchall() == [("17",)]


def test_server_and_its_folder_go_with_a_killed_test_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE_UNTIL_KILLED],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        port, folder = process.stdout.readline().split()
        assert Path(folder).is_dir()

        process.send_signal(signal.SIGKILL)

        eventually(lambda: not Path(folder).exists())
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=int(port), user="postgres")


def count_rows(server: PostgresServer, table: str) -> int:
    with psycopg.connect(server.url(driver="postgresql")) as connection:
        statement = psycopg.sql.SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(table))
        [(count,)] = connection.execute(statement).fetchall()
        return int(count)
