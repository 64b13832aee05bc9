"""Health and metrics over HTTP, on loopback unless a token is set."""
