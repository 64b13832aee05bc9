"""Threads, signals and APScheduler: what makes due actions fire in this process."""
