"""Sends paused by themselves, upgrades while programs run, how instances get on."""

from scheduler.store.migrations.script import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the script."""
    run_script("0005_operations.sql")
