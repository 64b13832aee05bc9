"""Suppressed contacts, events that wait for their mail, and who did what to which campaign."""

from scheduler.store.migrations.script import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the script."""
    run_script("0002_campaigns.sql")
