"""PostgreSQL's own pgbench: the statements of one timeout one by one, or all of them in one stored function."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from benchmarks.effect import STATEMENTS
from benchmarks.parts import pgbench
from benchmarks.programs.child import job, wait_for_go

# Campaign `number`, written as pgbench's variables and as the function's parameter.
# pgbench takes a colon and a word for a variable in quotes, too: keys are put together around lone colons.
_KEY: Final = "concat_ws(':', 'tenant-' || {tenant}::text, 'campaign-' || {number}::text, %s, 'timeout', 'no_open')"
_NAMES: Final = {
    ":tenant": "('tenant-' || {tenant}::text)",
    ":campaign": "('campaign-' || {number}::text)",
    ":contact": "('contact-' || {number}::text)",
    ":key": _KEY % "'first', '1'",
    ":next_key": _KEY % "'second', '2'",
}
_NEXT: Final = """\\set number :client_id * :portion + :done
\\set done :done + 1
\\set tenant mod(:number, 10)
"""


def written(statement: str, tenant: str, number: str) -> str:
    """A statement about the campaign of that number."""
    for name in sorted(_NAMES, key=len, reverse=True):
        statement = statement.replace(name, _NAMES[name].format(tenant=tenant, number=number))
    return statement


def script() -> str:
    """One transaction, a statement after the other."""
    statements = [f"{written(one, ':tenant', ':number')};" for one in STATEMENTS.values()]
    return _NEXT + "\n".join(["BEGIN;", *statements, "END;"]) + "\n"


def function() -> str:
    """The same as one function."""
    lock, *others = STATEMENTS.values()
    check = written(lock, "(number % 10)", "number").replace("FROM", "INTO found FROM", 1)
    rest = "\n".join(f"{written(one, '(number % 10)', 'number')};" for one in others)
    return f"""
CREATE FUNCTION fire_one(number int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE found record;
BEGIN
{check};
IF found.status <> 'active' OR found.node_visit <> 1 THEN RETURN; END IF;
{rest}
END $$
"""


def main() -> None:
    """Do the job."""
    wanted = job()
    clients: int = wanted["clients"]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "fire.sql"
        file.write_text(f"{_NEXT}SELECT fire_one(:number);\n" if wanted["function"] else script(), "utf-8")
        if wanted["function"]:
            with psycopg.connect(wanted["url"], autocommit=True) as connection:
                connection.execute(function())
        portion = wanted["due"] // clients
        command: list[str | Path] = [
            *(pgbench(), "-n", "-M", "prepared", "-f", file, "-c", str(clients), "-j", str(min(clients, 2))),
            *("-t", str(portion), "-D", "done=0", "-D", f"portion={portion}", wanted["url"]),
        ]
        wait_for_go()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
