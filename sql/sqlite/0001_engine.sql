-- The tables of the engine (SQLite). Applied by `timeout-scheduler db upgrade`.

-- What tells this database from any other: a connection to another one is refused.
CREATE TABLE timeout_scheduler_installation (
    installation_id text NOT NULL,
    created_at text NOT NULL,
    CONSTRAINT pk_timeout_scheduler_installation PRIMARY KEY (installation_id)
);

-- Plans are immutable and addressed by the hash of their content.
CREATE TABLE campaign_plans (
    tenant_id text NOT NULL,
    plan_hash text NOT NULL,
    "plan" text NOT NULL,
    name text,
    created_at text NOT NULL,
    CONSTRAINT pk_campaign_plans PRIMARY KEY (tenant_id, plan_hash)
);

-- What is known of a contact, once per tenant.
CREATE TABLE contacts (
    tenant_id text NOT NULL,
    contact_id text NOT NULL,
    address text,
    timezone text,
    variables text,
    suppressed_at text,
    suppressed_reason text,
    created_at text NOT NULL,
    updated_at text NOT NULL,
    CONSTRAINT pk_contacts PRIMARY KEY (tenant_id, contact_id)
);

-- One contact walking one plan. mail_node_id, mail_visit: the last send node and its visit; sent_visit: the last whose mail went out;
-- first_visit: the visit its last start began with; mail_events: what is known of the newest mail (JSON).
CREATE TABLE contact_campaigns (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    contact_id text NOT NULL,
    channel text,
    plan_hash text NOT NULL,
    status text NOT NULL,
    current_node_id text NOT NULL,
    node_visit integer NOT NULL,
    node_entered_at text NOT NULL,
    anchor_at text NOT NULL,
    started_at text NOT NULL,
    completed_at text,
    created_at text NOT NULL,
    updated_at text NOT NULL,
    mail_node_id text,
    mail_visit integer,
    sent_visit integer,
    first_visit integer DEFAULT 1 NOT NULL,
    mail_events text,
    CONSTRAINT pk_contact_campaigns PRIMARY KEY (tenant_id, campaign_id),
    CONSTRAINT ck_contact_campaigns_status_known CHECK (status IN ('active', 'paused', 'completed', 'stopped', 'error')),
    CONSTRAINT ck_contact_campaigns_node_visit_counts CHECK (node_visit >= 1)
);

-- All campaigns of one contact: what ends with an unsubscribe.
CREATE INDEX ix_contact_campaigns_contact ON contact_campaigns (tenant_id, contact_id);

-- One row per dedupe key, in every state: the primary key is what makes a timeout fire once.
-- A row needs tenant, key, campaign, contact, node, event type and run_at; every other column has a default.
CREATE TABLE scheduled_actions (
    tenant_id text NOT NULL,
    dedupe_key text NOT NULL,
    campaign_id text NOT NULL,
    contact_id text NOT NULL,
    node_id text NOT NULL,
    node_visit integer DEFAULT 1 NOT NULL,
    action_type text DEFAULT 'timeout' NOT NULL,
    event_type text NOT NULL,
    deadline text,
    run_at text NOT NULL,
    status text DEFAULT 'pending' NOT NULL,
    outcome text,
    attempts integer DEFAULT 0 NOT NULL,
    last_error text,
    claimed_by text,
    claim_number integer DEFAULT 0 NOT NULL,
    claimed_until text,
    message_id text,
    sent_at text,
    created_at text DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at text DEFAULT CURRENT_TIMESTAMP NOT NULL,
    finished_at text,
    CONSTRAINT pk_scheduled_actions PRIMARY KEY (tenant_id, dedupe_key),
    CONSTRAINT ck_scheduled_actions_action_type_known CHECK (action_type IN ('timeout', 'send')),
    CONSTRAINT ck_scheduled_actions_status_known CHECK (status IN ('pending', 'claimed', 'paused', 'completed', 'canceled', 'error')),
    CONSTRAINT ck_scheduled_actions_node_visit_counts CHECK (node_visit >= 1),
    CONSTRAINT ck_scheduled_actions_claim_whole CHECK (status <> 'claimed' OR (claimed_by IS NOT NULL AND claimed_until IS NOT NULL)),
    CONSTRAINT ck_scheduled_actions_finish_dated CHECK ((status IN ('completed', 'canceled', 'error')) = (finished_at IS NOT NULL)),
    CONSTRAINT ck_scheduled_actions_run_at_readable CHECK (run_at >= '1000-01-01 00:00:00+00' AND run_at < '9000-01-01 00:00:00+00'),
    CONSTRAINT ck_scheduled_actions_deadline_readable CHECK (deadline >= '1000-01-01 00:00:00+00' AND deadline < '9000-01-01 00:00:00+00')
);

-- Claims whose lease ended.
CREATE INDEX ix_scheduled_actions_claimed ON scheduled_actions (claimed_until) WHERE status = 'claimed';

-- What is due, in order: a claim reads its batch from here, however much is pending.
CREATE INDEX ix_scheduled_actions_due ON scheduled_actions (action_type, run_at) WHERE status = 'pending';

-- What waits for an operator.
CREATE INDEX ix_scheduled_actions_error ON scheduled_actions (tenant_id, run_at) WHERE status = 'error';

-- Which mail an event is about.
CREATE INDEX ix_scheduled_actions_message ON scheduled_actions (tenant_id, message_id) WHERE message_id IS NOT NULL;

-- What is still to come for one campaign: what goes when its visit is left.
CREATE INDEX ix_scheduled_actions_unfinished ON scheduled_actions (tenant_id, campaign_id) WHERE status IN ('pending', 'claimed', 'paused');

-- The visits left, append-only. The primary key lets a visit be left only once.
CREATE TABLE campaign_transitions (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    node_visit integer NOT NULL,
    from_node_id text,
    to_node_id text NOT NULL,
    "trigger" text NOT NULL,
    occurred_at text NOT NULL,
    created_at text NOT NULL,
    dedupe_key text,
    event_id text,
    CONSTRAINT pk_campaign_transitions PRIMARY KEY (tenant_id, campaign_id, node_visit),
    CONSTRAINT ck_campaign_transitions_node_visit_counts CHECK (node_visit >= 0)
);

-- Everything that happened, once per event id.
CREATE TABLE campaign_events (
    tenant_id text NOT NULL,
    event_id text NOT NULL,
    campaign_id text,
    message_id text,
    node_id text,
    node_visit integer,
    event_type text NOT NULL,
    occurred_at text NOT NULL,
    received_at text NOT NULL,
    outcome text NOT NULL,
    metadata text,
    CONSTRAINT pk_campaign_events PRIMARY KEY (tenant_id, event_id)
);

-- What happened to one campaign, in order of arrival.
CREATE INDEX ix_campaign_events_campaign ON campaign_events (tenant_id, campaign_id, received_at);

-- What is paused, since when, by whom. tenant_id, campaign_id and dedupe_key are empty where the scope is wider.
CREATE TABLE pauses (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    scope text NOT NULL,
    dedupe_key text DEFAULT '' NOT NULL,
    started_at text NOT NULL,
    actor text,
    reason text,
    CONSTRAINT pk_pauses PRIMARY KEY (tenant_id, campaign_id, scope, dedupe_key),
    CONSTRAINT ck_pauses_scope_known CHECK (scope IN ('all', 'tenant', 'campaign', 'action'))
);

-- Who did what by hand, append-only.
CREATE TABLE operator_actions (
    operator_action_id text NOT NULL,
    tenant_id text,
    act text NOT NULL,
    actor text,
    details text,
    created_at text NOT NULL,
    CONSTRAINT pk_operator_actions PRIMARY KEY (operator_action_id)
);


-- Rows from other languages may write an instant as ISO-8601 in any offset ('2026-03-02T12:00:00Z'); it is kept as
-- fixed-width UTC text, so that text order is time order. What is no instant (also the 30th of February) is refused: a
-- row that can't be read would stop every claim that meets it.
CREATE TRIGGER tr_scheduled_actions_instants AFTER INSERT ON scheduled_actions
WHEN NOT (NEW.run_at GLOB '[1-8][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]'
    AND strftime('%Y-%m-%d %H:%M:%S', substr(NEW.run_at, 1, 19), '+0 days') IS substr(NEW.run_at, 1, 19))
  OR (NEW.deadline IS NOT NULL AND NOT (NEW.deadline GLOB '[1-8][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]'
    AND strftime('%Y-%m-%d %H:%M:%S', substr(NEW.deadline, 1, 19), '+0 days') IS substr(NEW.deadline, 1, 19)))
BEGIN
  UPDATE scheduled_actions
  SET run_at = CASE
    WHEN (NEW.run_at GLOB '[1-8][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]'
    AND strftime('%Y-%m-%d %H:%M:%S', substr(NEW.run_at, 1, 19), '+0 days') IS substr(NEW.run_at, 1, 19))
    THEN NEW.run_at
    WHEN NEW.run_at GLOB '[1-8][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
    AND strftime('%Y-%m-%d', substr(NEW.run_at, 1, 10), '+0 days') IS substr(NEW.run_at, 1, 10)
    THEN coalesce(strftime('%Y-%m-%d %H:%M:%f', NEW.run_at, '+0 days') || '000', RAISE(ABORT, 'run_at is no instant'))
    ELSE RAISE(ABORT, 'run_at is no instant')
    END,
  deadline = CASE
    WHEN NEW.deadline IS NULL OR (NEW.deadline GLOB '[1-8][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]'
    AND strftime('%Y-%m-%d %H:%M:%S', substr(NEW.deadline, 1, 19), '+0 days') IS substr(NEW.deadline, 1, 19))
    THEN NEW.deadline
    WHEN NEW.deadline GLOB '[1-8][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
    AND strftime('%Y-%m-%d', substr(NEW.deadline, 1, 10), '+0 days') IS substr(NEW.deadline, 1, 10)
    THEN coalesce(strftime('%Y-%m-%d %H:%M:%f', NEW.deadline, '+0 days') || '000', RAISE(ABORT, 'deadline is no instant'))
    ELSE RAISE(ABORT, 'deadline is no instant')
    END
  WHERE tenant_id = NEW.tenant_id AND dedupe_key = NEW.dedupe_key;
END;

INSERT INTO timeout_scheduler_installation (installation_id, created_at)
VALUES (lower(hex(randomblob(16))), strftime('%Y-%m-%d %H:%M:%f', 'now') || '000');
