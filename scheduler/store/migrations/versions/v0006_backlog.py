"""How much is waiting, as last counted."""

from scheduler.store.migrations.script import run_script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run the script."""
    run_script("0006_backlog.sql")
