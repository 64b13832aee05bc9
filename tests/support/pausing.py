"""Pauses of every scope on a stage, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.stage import Stage


def pause(stage: Stage, scope: str, tenant: str = "acme", campaign: str = "c-1", **options: Any) -> Any:
    """Pause the campaign, the tenant, or everything."""
    calls: dict[str, Callable[[], Any]] = {
        "campaign": lambda: stage.sm.pause(tenant, campaign, **options),
        "tenant": lambda: stage.sm.pause_tenant(tenant, **options),
        "all": lambda: stage.sm.pause_all(**options),
    }
    return calls[scope]()


def resume(stage: Stage, scope: str, tenant: str = "acme", campaign: str = "c-1", **options: Any) -> Any:
    """Resume the campaign, the tenant, or everything."""
    calls: dict[str, Callable[[], Any]] = {
        "campaign": lambda: stage.sm.resume(tenant, campaign, **options),
        "tenant": lambda: stage.sm.resume_tenant(tenant, **options),
        "all": lambda: stage.sm.resume_all(**options),
    }
    return calls[scope]()
