"""The demo: a whole campaign in seconds, by the real engine, on a throw-away database."""
