"""Who fires, and what proves that it is gone; what retention looks for."""

from scheduler.store.migrations.script import run_script

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Run the script."""
    run_script("0003_guarantees.sql")
