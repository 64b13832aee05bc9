"""The tables of the engine."""

from scheduler.store.migrations.script import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the script."""
    run_script("0001_engine.sql")
