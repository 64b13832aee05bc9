"""Programs that are measured. Each takes a job as JSON, says `ready`, waits for a line, and goes."""
