-- How much is waiting, as last counted (SQLite).

-- One row: what one process at a time counts, and every process shows. Counting a large table takes time; reading this takes none.
CREATE TABLE timeout_scheduler_backlog (
    only_row integer DEFAULT 1 NOT NULL,
    due integer NOT NULL,
    claimed integer NOT NULL,
    errors integer NOT NULL,
    -- In real time, and how many seconds the count took.
    counted_at text NOT NULL,
    took double NOT NULL,
    -- Counted less often: NULL until it was, or where it takes longer than a statement may.
    pending integer,
    pending_counted_at text,
    pending_took double,
    -- While more are due than ALERT_BACKLOG: the fewest of late, and since when.
    lowest_due integer,
    lowest_at text,
    -- While an alert is raised: since when.
    alerted_at text,
    CONSTRAINT pk_timeout_scheduler_backlog PRIMARY KEY (only_row),
    CONSTRAINT ck_timeout_scheduler_backlog_one_row CHECK (only_row = 1)
);
