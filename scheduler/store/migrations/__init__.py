"""Alembic's scripts; what they run is the SQL in sql/."""
