BEGIN TRANSACTION;
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
    metadata text, contact_id text,
    CONSTRAINT pk_campaign_events PRIMARY KEY (tenant_id, event_id)
);
INSERT INTO "campaign_events" VALUES('acme','e-1','opened','m-0','wait_open',1,'opened','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000','transitioned',NULL,NULL);
CREATE TABLE campaign_plans (
    tenant_id text NOT NULL,
    plan_hash text NOT NULL,
    "plan" text NOT NULL,
    name text,
    created_at text NOT NULL,
    CONSTRAINT pk_campaign_plans PRIMARY KEY (tenant_id, plan_hash)
);
INSERT INTO "campaign_plans" VALUES('acme','1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','{"name":"Kept","nodes":[{"action":"wait","id":"wait_open","transitions":[{"on":"opened","to":"stop"},{"after":"PT72H","on":"no_open","to":"reminder"}]},{"action":"send","id":"reminder","subject":"Hello","transitions":[{"on":"opened","to":"stop"},{"after":"PT24H","on":"no_open","to":"stop"}]}],"startNodeId":"wait_open","version":"1.0"}','Kept','2026-02-26 12:00:00.000000');
INSERT INTO "campaign_plans" VALUES('other','1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','{"name":"Kept","nodes":[{"action":"wait","id":"wait_open","transitions":[{"on":"opened","to":"stop"},{"after":"PT72H","on":"no_open","to":"reminder"}]},{"action":"send","id":"reminder","subject":"Hello","transitions":[{"on":"opened","to":"stop"},{"after":"PT24H","on":"no_open","to":"stop"}]}],"startNodeId":"wait_open","version":"1.0"}','Kept','2026-02-28 12:00:00.000000');
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
INSERT INTO "campaign_transitions" VALUES('acme','reminded',0,NULL,'wait_open','enrolled','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000',NULL,NULL);
INSERT INTO "campaign_transitions" VALUES('acme','opened',0,NULL,'wait_open','enrolled','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000',NULL,NULL);
INSERT INTO "campaign_transitions" VALUES('acme','opened',1,'wait_open','stop','opened','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000',NULL,'e-1');
INSERT INTO "campaign_transitions" VALUES('acme','reminded',1,'wait_open','reminder','no_open','2026-03-01 12:00:00.000000','2026-03-02 09:00:00.000000','acme:reminded:wait_open:1:timeout:no_open',NULL);
INSERT INTO "campaign_transitions" VALUES('acme','waiting',0,NULL,'wait_open','enrolled','2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL,NULL);
INSERT INTO "campaign_transitions" VALUES('acme','held',0,NULL,'wait_open','enrolled','2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL,NULL);
INSERT INTO "campaign_transitions" VALUES('other','stopped',0,NULL,'wait_open','enrolled','2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL,NULL);
INSERT INTO "campaign_transitions" VALUES('other','stopped',1,'wait_open','stop','stopped','2026-03-02 11:00:00.000000','2026-03-02 11:00:00.000000',NULL,NULL);
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
INSERT INTO "contact_campaigns" VALUES('acme','reminded','k-1','email','1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','active','reminder',2,'2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000','2026-02-26 12:00:00.000000',NULL,'2026-02-26 12:00:00.000000','2026-03-02 09:00:00.000000','reminder',2,2,1,NULL);
INSERT INTO "contact_campaigns" VALUES('acme','opened','k-2',NULL,'1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','completed','stop',2,'2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000',NULL,NULL,NULL,1,'{"first": {}, "used": {"opened": ["2026-02-26T12:00:00+00:00"]}, "fired": []}');
INSERT INTO "contact_campaigns" VALUES('acme','waiting','k-3',NULL,'1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','active','wait_open',1,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL,NULL,NULL,1,NULL);
INSERT INTO "contact_campaigns" VALUES('acme','held','k-4',NULL,'1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','paused','wait_open',1,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL,'2026-02-28 12:00:00.000000','2026-03-02 11:00:00.000000',NULL,NULL,NULL,1,NULL);
INSERT INTO "contact_campaigns" VALUES('other','stopped','k-5',NULL,'1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51','stopped','stop',2,'2026-03-02 11:00:00.000000','2026-03-02 11:00:00.000000','2026-02-28 12:00:00.000000','2026-03-02 11:00:00.000000','2026-02-28 12:00:00.000000','2026-03-02 11:00:00.000000',NULL,NULL,NULL,1,NULL);
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
INSERT INTO "contacts" VALUES('acme','k-1','ada@example.com',NULL,NULL,NULL,NULL,'2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000');
INSERT INTO "contacts" VALUES('acme','k-2',NULL,NULL,NULL,NULL,NULL,'2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000');
INSERT INTO "contacts" VALUES('acme','k-3',NULL,NULL,NULL,NULL,NULL,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000');
INSERT INTO "contacts" VALUES('acme','k-4',NULL,NULL,NULL,NULL,NULL,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000');
INSERT INTO "contacts" VALUES('other','k-5',NULL,NULL,NULL,NULL,NULL,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000');
CREATE TABLE operator_actions (
    operator_action_id text NOT NULL,
    tenant_id text,
    act text NOT NULL,
    actor text,
    details text,
    created_at text NOT NULL, campaign_id text,
    CONSTRAINT pk_operator_actions PRIMARY KEY (operator_action_id)
);
INSERT INTO "operator_actions" VALUES('43df8b11730f417ea00f529f5151a8ce','acme','campaign.paused',NULL,'{"reason": null, "started_at": "2026-03-02T11:00:00+00:00"}','2026-03-02 11:00:00.000000','held');
INSERT INTO "operator_actions" VALUES('1cf5029f2b5f4ec08d3889a4caa65a42','other','campaign.stopped',NULL,'{"reason": null}','2026-03-02 11:00:00.000000','stopped');
CREATE TABLE "pauses" (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    scope text NOT NULL,
    dedupe_key text DEFAULT '' NOT NULL,
    started_at text NOT NULL,
    actor text,
    reason text,
    CONSTRAINT pk_pauses PRIMARY KEY (tenant_id, campaign_id, scope, dedupe_key),
    CONSTRAINT ck_pauses_scope_known CHECK (scope IN ('all', 'tenant', 'campaign', 'action', 'sends'))
);
INSERT INTO "pauses" VALUES('acme','held','campaign','','2026-03-02 11:00:00.000000',NULL,NULL);
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
INSERT INTO "scheduled_actions" VALUES('acme','acme:reminded:wait_open:1:timeout:no_open','reminded','k-1','wait_open',1,'timeout','no_open','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','completed','transitioned',0,NULL,'vm:1097:e3f26cba75f9',1,NULL,NULL,NULL,'2026-02-26 12:00:00.000000','2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000');
INSERT INTO "scheduled_actions" VALUES('acme','acme:opened:wait_open:1:timeout:no_open','opened','k-2','wait_open',1,'timeout','no_open','2026-03-01 12:00:00.000000','2026-03-01 12:00:00.000000','canceled','visit left',0,NULL,NULL,0,NULL,NULL,NULL,'2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000','2026-02-26 12:00:00.000000');
INSERT INTO "scheduled_actions" VALUES('acme','acme:reminded:reminder:2:send:sent','reminded','k-1','reminder',2,'send','sent','2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000','completed','sent',0,NULL,'vm:1097:e3f26cba75f9',1,NULL,NULL,'2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000');
INSERT INTO "scheduled_actions" VALUES('acme','acme:reminded:reminder:2:timeout:no_open','reminded','k-1','reminder',2,'timeout','no_open','2026-03-03 09:00:00.000000','2026-03-03 09:00:00.000000','pending',NULL,0,NULL,NULL,0,NULL,NULL,NULL,'2026-03-02 09:00:00.000000','2026-03-02 09:00:00.000000',NULL);
INSERT INTO "scheduled_actions" VALUES('acme','acme:waiting:wait_open:1:timeout:no_open','waiting','k-3','wait_open',1,'timeout','no_open','2026-03-03 12:00:00.000000','2026-03-03 12:00:00.000000','pending',NULL,0,NULL,NULL,0,NULL,NULL,NULL,'2026-02-28 12:00:00.000000','2026-02-28 12:00:00.000000',NULL);
INSERT INTO "scheduled_actions" VALUES('acme','acme:held:wait_open:1:timeout:no_open','held','k-4','wait_open',1,'timeout','no_open','2026-03-03 12:00:00.000000','2026-03-03 12:00:00.000000','paused',NULL,0,NULL,NULL,0,NULL,NULL,NULL,'2026-02-28 12:00:00.000000','2026-03-02 11:00:00.000000',NULL);
INSERT INTO "scheduled_actions" VALUES('other','other:stopped:wait_open:1:timeout:no_open','stopped','k-5','wait_open',1,'timeout','no_open','2026-03-03 12:00:00.000000','2026-03-03 12:00:00.000000','canceled','visit left',0,NULL,NULL,0,NULL,NULL,NULL,'2026-02-28 12:00:00.000000','2026-03-02 11:00:00.000000','2026-03-02 11:00:00.000000');
INSERT INTO "scheduled_actions" VALUES('acme','acme:alone:n:1:timeout:no_open','alone','k-6','n',1,'timeout','no_open','2026-03-02 11:59:00.000000','2026-03-02 11:59:00.000000','pending',NULL,0,NULL,NULL,0,NULL,NULL,NULL,'2026-03-02 11:00:00.000000','2026-03-02 11:00:00.000000',NULL);
INSERT INTO "scheduled_actions" VALUES('acme','acme:canceled:n:1:timeout:no_open','canceled','k-6','n',1,'timeout','no_open','2026-03-02 11:59:00.000000','2026-03-02 11:59:00.000000','canceled','by hand',0,NULL,NULL,0,NULL,NULL,NULL,'2026-03-02 11:00:00.000000','2026-03-02 11:00:00.000000','2026-03-02 11:00:00.000000');
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
CREATE TABLE timeout_scheduler_installation (
    installation_id text NOT NULL,
    created_at text NOT NULL, oldest_program text,
    CONSTRAINT pk_timeout_scheduler_installation PRIMARY KEY (installation_id)
);
INSERT INTO "timeout_scheduler_installation" VALUES('84ff39a21a6484dcfe3d6e9ce56c1f0d','2026-11-29 00:28:05.946000','0004');
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
    stopped_at text, ended integer DEFAULT 0 NOT NULL, rate double, lateness double, progress_at text,
    CONSTRAINT pk_timeout_scheduler_instances PRIMARY KEY (instance_id)
);
CREATE TABLE timeout_scheduler_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT timeout_scheduler_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "timeout_scheduler_version" VALUES('0006');
CREATE INDEX ix_contact_campaigns_contact ON contact_campaigns (tenant_id, contact_id);
CREATE INDEX ix_scheduled_actions_claimed ON scheduled_actions (claimed_until) WHERE status = 'claimed';
CREATE INDEX ix_scheduled_actions_due ON scheduled_actions (action_type, run_at) WHERE status = 'pending';
CREATE INDEX ix_scheduled_actions_error ON scheduled_actions (tenant_id, run_at) WHERE status = 'error';
CREATE INDEX ix_scheduled_actions_message ON scheduled_actions (tenant_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX ix_scheduled_actions_unfinished ON scheduled_actions (tenant_id, campaign_id) WHERE status IN ('pending', 'claimed', 'paused');
CREATE INDEX ix_campaign_events_campaign ON campaign_events (tenant_id, campaign_id, received_at);
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
CREATE INDEX ix_campaign_events_contact ON campaign_events (tenant_id, contact_id) WHERE contact_id IS NOT NULL;
CREATE INDEX ix_campaign_events_waiting ON campaign_events (tenant_id, message_id) WHERE outcome = 'unknown_campaign';
CREATE INDEX ix_operator_actions_campaign ON operator_actions (tenant_id, campaign_id, created_at);
CREATE INDEX ix_scheduled_actions_finished ON scheduled_actions (tenant_id, campaign_id, node_visit) WHERE status IN ('completed', 'canceled', 'error');
CREATE INDEX ix_contact_campaigns_completed ON contact_campaigns (completed_at, tenant_id, campaign_id) WHERE completed_at IS NOT NULL;
CREATE INDEX ix_campaign_events_apart ON campaign_events (received_at, tenant_id, event_id) WHERE outcome = 'unknown_campaign' OR contact_id IS NOT NULL;
CREATE INDEX ix_scheduled_actions_tenant_due ON scheduled_actions (action_type, tenant_id, run_at) WHERE status || '' = 'pending';
COMMIT;
