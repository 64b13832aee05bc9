"""The default send handler: says that a mail would go out, without its address or text."""

from __future__ import annotations

from scheduler.domain.sending import SendRequest, SendResult
from scheduler.telemetry.log import emit


class LogSendHandler:
    """Logs each send. Instant, so that a batch of sends shares its transactions."""

    batch_size = 500

    def __call__(self, request: SendRequest, /) -> SendResult:
        """Log it, and count it as sent now."""
        emit(
            "send.logged",
            dedupe_key=request.dedupe_key,
            tenant_id=request.tenant_id,
            campaign_id=request.campaign_id,
            node_id=request.node_id,
            channel=request.channel,
        )
        return SendResult()
