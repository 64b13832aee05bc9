"""What is due, by tenant."""

from scheduler.store.migrations.script import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the script."""
    run_script("0004_fairness.sql")
