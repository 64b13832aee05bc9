"""Programs that measure, to be run by hand; each verifies its effects in the database after every run."""
