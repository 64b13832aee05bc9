"""Signals for processes that tests start."""

import signal


def heed_interrupts() -> None:
    """A job started in the background of a shell ignores SIGINT, and so would everything it starts. `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
