"""What happened, told to those who listen: logs, metrics, Sentry."""
