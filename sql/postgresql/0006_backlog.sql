-- How much is waiting, as last counted (PostgreSQL).

-- One row: what one process at a time counts, and every process shows. Counting a large table takes time; reading this takes none.
CREATE TABLE timeout_scheduler_backlog (
    only_row integer DEFAULT 1 NOT NULL,
    due bigint NOT NULL,
    claimed bigint NOT NULL,
    errors bigint NOT NULL,
    -- In real time, and how many seconds the count took.
    counted_at timestamptz NOT NULL,
    took double precision NOT NULL,
    -- Counted less often: NULL until it was, or where it takes longer than a statement may.
    pending bigint,
    pending_counted_at timestamptz,
    pending_took double precision,
    -- While more are due than ALERT_BACKLOG: the fewest of late, and since when.
    lowest_due bigint,
    lowest_at timestamptz,
    -- While an alert is raised: since when.
    alerted_at timestamptz,
    CONSTRAINT pk_timeout_scheduler_backlog PRIMARY KEY (only_row),
    CONSTRAINT ck_timeout_scheduler_backlog_one_row CHECK (only_row = 1)
);
