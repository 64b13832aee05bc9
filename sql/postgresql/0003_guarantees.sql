-- The processes that fire, and campaigns that are over (PostgreSQL).

-- One process that fires: what proves that it is gone, so that others may take over what it had claimed.
CREATE TABLE timeout_scheduler_instances (
    instance_id text NOT NULL,
    instance_name text NOT NULL,
    process_id integer NOT NULL,
    -- Tells this start of this process from every other one; NULL where the machine can't say.
    process_mark text,
    -- The advisory lock that its session holds for as long as it lives; NULL where it holds none.
    presence bigint,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    -- When it said goodbye.
    stopped_at timestamptz,
    CONSTRAINT pk_timeout_scheduler_instances PRIMARY KEY (instance_id)
);

-- Campaigns that ended, the longest ago first: what retention removes. With the key, many that ended together are walked piece by piece.
CREATE INDEX ix_contact_campaigns_completed ON contact_campaigns (completed_at, tenant_id, campaign_id) WHERE completed_at IS NOT NULL;

-- Events told of no campaign that was known, or of a contact, the longest ago first: what retention removes by itself.
CREATE INDEX ix_campaign_events_apart ON campaign_events (received_at, tenant_id, event_id) WHERE outcome = 'unknown_campaign' OR contact_id IS NOT NULL;
