-- The processes that fire, and campaigns that are over (SQLite).

-- One process that fires: what proves that it is gone, so that others may take over what it had claimed.
CREATE TABLE timeout_scheduler_instances (
    instance_id text NOT NULL,
    instance_name text NOT NULL,
    process_id integer NOT NULL,
    -- Tells this start of this process from every other one; NULL where the machine can't say.
    process_mark text,
    -- The advisory lock that its session holds for as long as it lives; NULL where it holds none.
    presence integer,
    started_at text NOT NULL,
    seen_at text NOT NULL,
    -- When it said goodbye.
    stopped_at text,
    CONSTRAINT pk_timeout_scheduler_instances PRIMARY KEY (instance_id)
);

-- Campaigns that ended, the longest ago first: what retention removes.
CREATE INDEX ix_contact_campaigns_completed ON contact_campaigns (completed_at) WHERE completed_at IS NOT NULL;
