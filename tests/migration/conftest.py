"""The fixtures that open schedulers, as the integration tests have them."""

from tests.integration.conftest import open_scheduler

__all__ = ["open_scheduler"]
