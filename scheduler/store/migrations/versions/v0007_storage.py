"""How the tables that change all the time are kept small."""

from scheduler.store.migrations.script import run_script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the script."""
    run_script("0007_storage.sql")
