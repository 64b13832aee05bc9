CREATE TABLE public.campaign_events (
    tenant_id text NOT NULL,
    event_id text NOT NULL,
    campaign_id text,
    message_id text,
    node_id text,
    node_visit integer,
    event_type text NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    metadata text,
    contact_id text
);
CREATE TABLE public.campaign_plans (
    tenant_id text NOT NULL,
    plan_hash text NOT NULL,
    plan text NOT NULL,
    name text,
    created_at timestamp with time zone NOT NULL
);
CREATE TABLE public.campaign_transitions (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    node_visit integer NOT NULL,
    from_node_id text,
    to_node_id text NOT NULL,
    trigger text NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    dedupe_key text,
    event_id text,
    CONSTRAINT ck_campaign_transitions_node_visit_counts CHECK ((node_visit >= 0))
);
CREATE TABLE public.contact_campaigns (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    contact_id text NOT NULL,
    channel text,
    plan_hash text NOT NULL,
    status text NOT NULL,
    current_node_id text NOT NULL,
    node_visit integer NOT NULL,
    node_entered_at timestamp with time zone NOT NULL,
    anchor_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone NOT NULL,
    completed_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    mail_node_id text,
    mail_visit integer,
    sent_visit integer,
    first_visit integer DEFAULT 1 NOT NULL,
    mail_events text,
    CONSTRAINT ck_contact_campaigns_node_visit_counts CHECK ((node_visit >= 1)),
    CONSTRAINT ck_contact_campaigns_status_known CHECK ((status = ANY (ARRAY['active'::text, 'paused'::text, 'completed'::text, 'stopped'::text, 'error'::text])))
);
CREATE TABLE public.contacts (
    tenant_id text NOT NULL,
    contact_id text NOT NULL,
    address text,
    timezone text,
    variables text,
    suppressed_at timestamp with time zone,
    suppressed_reason text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);
CREATE TABLE public.operator_actions (
    operator_action_id text NOT NULL,
    tenant_id text,
    act text NOT NULL,
    actor text,
    details text,
    created_at timestamp with time zone NOT NULL,
    campaign_id text
);
CREATE TABLE public.pauses (
    tenant_id text NOT NULL,
    campaign_id text NOT NULL,
    scope text NOT NULL,
    dedupe_key text DEFAULT ''::text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    actor text,
    reason text,
    CONSTRAINT ck_pauses_scope_known CHECK ((scope = ANY (ARRAY['all'::text, 'tenant'::text, 'campaign'::text, 'action'::text, 'sends'::text])))
);
CREATE TABLE public.scheduled_actions (
    tenant_id text NOT NULL,
    dedupe_key text NOT NULL,
    campaign_id text NOT NULL,
    contact_id text NOT NULL,
    node_id text NOT NULL,
    node_visit integer DEFAULT 1 NOT NULL,
    action_type text DEFAULT 'timeout'::text NOT NULL,
    event_type text NOT NULL,
    deadline timestamp with time zone,
    run_at timestamp with time zone NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    outcome text,
    attempts integer DEFAULT 0 NOT NULL,
    last_error text,
    claimed_by text,
    claim_number integer DEFAULT 0 NOT NULL,
    claimed_until timestamp with time zone,
    message_id text,
    sent_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT ck_scheduled_actions_action_type_known CHECK ((action_type = ANY (ARRAY['timeout'::text, 'send'::text]))),
    CONSTRAINT ck_scheduled_actions_claim_whole CHECK (((status <> 'claimed'::text) OR ((claimed_by IS NOT NULL) AND (claimed_until IS NOT NULL)))),
    CONSTRAINT ck_scheduled_actions_deadline_readable CHECK (((deadline >= '0999-12-31 16:07:02-07:52:58'::timestamp with time zone) AND (deadline < '8999-12-31 16:00:00-08'::timestamp with time zone))),
    CONSTRAINT ck_scheduled_actions_finish_dated CHECK (((status = ANY (ARRAY['completed'::text, 'canceled'::text, 'error'::text])) = (finished_at IS NOT NULL))),
    CONSTRAINT ck_scheduled_actions_node_visit_counts CHECK ((node_visit >= 1)),
    CONSTRAINT ck_scheduled_actions_run_at_readable CHECK (((run_at >= '0999-12-31 16:07:02-07:52:58'::timestamp with time zone) AND (run_at < '8999-12-31 16:00:00-08'::timestamp with time zone))),
    CONSTRAINT ck_scheduled_actions_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'claimed'::text, 'paused'::text, 'completed'::text, 'canceled'::text, 'error'::text])))
);
CREATE TABLE public.timeout_scheduler_backlog (
    only_row integer DEFAULT 1 NOT NULL,
    due bigint NOT NULL,
    claimed bigint NOT NULL,
    errors bigint NOT NULL,
    counted_at timestamp with time zone NOT NULL,
    took double precision NOT NULL,
    pending bigint,
    pending_counted_at timestamp with time zone,
    pending_took double precision,
    lowest_due bigint,
    lowest_at timestamp with time zone,
    alerted_at timestamp with time zone,
    CONSTRAINT ck_timeout_scheduler_backlog_one_row CHECK ((only_row = 1))
);
CREATE TABLE public.timeout_scheduler_installation (
    installation_id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    oldest_program text
);
CREATE TABLE public.timeout_scheduler_instances (
    instance_id text NOT NULL,
    instance_name text NOT NULL,
    process_id integer NOT NULL,
    process_mark text,
    presence bigint,
    started_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    stopped_at timestamp with time zone,
    ended bigint DEFAULT 0 NOT NULL,
    rate double precision,
    lateness double precision,
    progress_at timestamp with time zone
);
CREATE TABLE public.timeout_scheduler_version (
    version_num character varying(32) NOT NULL
);
INSERT INTO public.campaign_events VALUES ('acme', 'e-1', 'opened', 'm-0', 'wait_open', 1, 'opened', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', 'transitioned', NULL, NULL);
INSERT INTO public.campaign_plans VALUES ('acme', '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', '{"name":"Kept","nodes":[{"action":"wait","id":"wait_open","transitions":[{"on":"opened","to":"stop"},{"after":"PT72H","on":"no_open","to":"reminder"}]},{"action":"send","id":"reminder","subject":"Hello","transitions":[{"on":"opened","to":"stop"},{"after":"PT24H","on":"no_open","to":"stop"}]}],"startNodeId":"wait_open","version":"1.0"}', 'Kept', '2026-02-26 04:00:00-08');
INSERT INTO public.campaign_plans VALUES ('other', '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', '{"name":"Kept","nodes":[{"action":"wait","id":"wait_open","transitions":[{"on":"opened","to":"stop"},{"after":"PT72H","on":"no_open","to":"reminder"}]},{"action":"send","id":"reminder","subject":"Hello","transitions":[{"on":"opened","to":"stop"},{"after":"PT24H","on":"no_open","to":"stop"}]}],"startNodeId":"wait_open","version":"1.0"}', 'Kept', '2026-02-28 04:00:00-08');
INSERT INTO public.campaign_transitions VALUES ('acme', 'reminded', 0, NULL, 'wait_open', 'enrolled', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', NULL, NULL);
INSERT INTO public.campaign_transitions VALUES ('acme', 'opened', 0, NULL, 'wait_open', 'enrolled', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', NULL, NULL);
INSERT INTO public.campaign_transitions VALUES ('acme', 'opened', 1, 'wait_open', 'stop', 'opened', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', NULL, 'e-1');
INSERT INTO public.campaign_transitions VALUES ('acme', 'reminded', 1, 'wait_open', 'reminder', 'no_open', '2026-03-01 04:00:00-08', '2026-03-02 01:00:00-08', 'acme:reminded:wait_open:1:timeout:no_open', NULL);
INSERT INTO public.campaign_transitions VALUES ('acme', 'waiting', 0, NULL, 'wait_open', 'enrolled', '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL, NULL);
INSERT INTO public.campaign_transitions VALUES ('acme', 'held', 0, NULL, 'wait_open', 'enrolled', '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL, NULL);
INSERT INTO public.campaign_transitions VALUES ('other', 'stopped', 0, NULL, 'wait_open', 'enrolled', '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL, NULL);
INSERT INTO public.campaign_transitions VALUES ('other', 'stopped', 1, 'wait_open', 'stop', 'stopped', '2026-03-02 03:00:00-08', '2026-03-02 03:00:00-08', NULL, NULL);
INSERT INTO public.contact_campaigns VALUES ('acme', 'opened', 'k-2', NULL, '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', 'completed', 'stop', 2, '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', NULL, NULL, NULL, 1, '{"first": {}, "used": {"opened": ["2026-02-26T12:00:00+00:00"]}, "fired": []}');
INSERT INTO public.contact_campaigns VALUES ('acme', 'reminded', 'k-1', 'email', '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', 'active', 'reminder', 2, '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08', '2026-02-26 04:00:00-08', NULL, '2026-02-26 04:00:00-08', '2026-03-02 01:00:00-08', 'reminder', 2, 2, 1, NULL);
INSERT INTO public.contact_campaigns VALUES ('acme', 'waiting', 'k-3', NULL, '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', 'active', 'wait_open', 1, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL, NULL, NULL, 1, NULL);
INSERT INTO public.contact_campaigns VALUES ('acme', 'held', 'k-4', NULL, '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', 'paused', 'wait_open', 1, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL, '2026-02-28 04:00:00-08', '2026-03-02 03:00:00-08', NULL, NULL, NULL, 1, NULL);
INSERT INTO public.contact_campaigns VALUES ('other', 'stopped', 'k-5', NULL, '1e4384b19ec3e41defbb38e6e2bd20e7a8c6090901cc8a0c2fff5c7f768d9a51', 'stopped', 'stop', 2, '2026-03-02 03:00:00-08', '2026-03-02 03:00:00-08', '2026-02-28 04:00:00-08', '2026-03-02 03:00:00-08', '2026-02-28 04:00:00-08', '2026-03-02 03:00:00-08', NULL, NULL, NULL, 1, NULL);
INSERT INTO public.contacts VALUES ('acme', 'k-1', 'ada@example.com', NULL, NULL, NULL, NULL, '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08');
INSERT INTO public.contacts VALUES ('acme', 'k-2', NULL, NULL, NULL, NULL, NULL, '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08');
INSERT INTO public.contacts VALUES ('acme', 'k-3', NULL, NULL, NULL, NULL, NULL, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08');
INSERT INTO public.contacts VALUES ('acme', 'k-4', NULL, NULL, NULL, NULL, NULL, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08');
INSERT INTO public.contacts VALUES ('other', 'k-5', NULL, NULL, NULL, NULL, NULL, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08');
INSERT INTO public.operator_actions VALUES ('1362773c543d44a5ae00b2310643b5cf', 'acme', 'campaign.paused', NULL, '{"reason": null, "started_at": "2026-03-02T11:00:00+00:00"}', '2026-03-02 03:00:00-08', 'held');
INSERT INTO public.operator_actions VALUES ('c6ed72c06a7a474ab6dec34cda8027e7', 'other', 'campaign.stopped', NULL, '{"reason": null}', '2026-03-02 03:00:00-08', 'stopped');
INSERT INTO public.pauses VALUES ('acme', 'held', 'campaign', '', '2026-03-02 03:00:00-08', NULL, NULL);
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:opened:wait_open:1:timeout:no_open', 'opened', 'k-2', 'wait_open', 1, 'timeout', 'no_open', '2026-03-01 04:00:00-08', '2026-03-01 04:00:00-08', 'canceled', 'visit left', 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08', '2026-02-26 04:00:00-08');
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:reminded:wait_open:1:timeout:no_open', 'reminded', 'k-1', 'wait_open', 1, 'timeout', 'no_open', '2026-03-01 04:00:00-08', '2026-03-01 04:00:00-08', 'completed', 'transitioned', 0, NULL, 'vm:1097:e5857f02833a', 1, NULL, NULL, NULL, '2026-02-26 04:00:00-08', '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08');
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:reminded:reminder:2:timeout:no_open', 'reminded', 'k-1', 'reminder', 2, 'timeout', 'no_open', '2026-03-03 01:00:00-08', '2026-03-03 01:00:00-08', 'pending', NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08', NULL);
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:reminded:reminder:2:send:sent', 'reminded', 'k-1', 'reminder', 2, 'send', 'sent', '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08', 'completed', 'sent', 0, NULL, 'vm:1097:e5857f02833a', 1, NULL, NULL, '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08', '2026-03-02 01:00:00-08');
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:waiting:wait_open:1:timeout:no_open', 'waiting', 'k-3', 'wait_open', 1, 'timeout', 'no_open', '2026-03-03 04:00:00-08', '2026-03-03 04:00:00-08', 'pending', NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-02-28 04:00:00-08', '2026-02-28 04:00:00-08', NULL);
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:held:wait_open:1:timeout:no_open', 'held', 'k-4', 'wait_open', 1, 'timeout', 'no_open', '2026-03-03 04:00:00-08', '2026-03-03 04:00:00-08', 'paused', NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-02-28 04:00:00-08', '2026-03-02 03:00:00-08', NULL);
INSERT INTO public.scheduled_actions VALUES ('other', 'other:stopped:wait_open:1:timeout:no_open', 'stopped', 'k-5', 'wait_open', 1, 'timeout', 'no_open', '2026-03-03 04:00:00-08', '2026-03-03 04:00:00-08', 'canceled', 'visit left', 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-02-28 04:00:00-08', '2026-03-02 03:00:00-08', '2026-03-02 03:00:00-08');
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:alone:n:1:timeout:no_open', 'alone', 'k-6', 'n', 1, 'timeout', 'no_open', '2026-03-02 03:59:00-08', '2026-03-02 03:59:00-08', 'pending', NULL, 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-03-02 03:00:00-08', '2026-03-02 03:00:00-08', NULL);
INSERT INTO public.scheduled_actions VALUES ('acme', 'acme:canceled:n:1:timeout:no_open', 'canceled', 'k-6', 'n', 1, 'timeout', 'no_open', '2026-03-02 03:59:00-08', '2026-03-02 03:59:00-08', 'canceled', 'by hand', 0, NULL, NULL, 0, NULL, NULL, NULL, '2026-03-02 03:00:00-08', '2026-03-02 03:00:00-08', '2026-03-02 03:00:00-08');
INSERT INTO public.timeout_scheduler_installation VALUES ('fd403c03-642d-4801-bee7-784494dff95d', '2026-11-28 16:28:04.724764-08', '0004');
INSERT INTO public.timeout_scheduler_version VALUES ('0006');
ALTER TABLE ONLY public.campaign_events
    ADD CONSTRAINT pk_campaign_events PRIMARY KEY (tenant_id, event_id);
ALTER TABLE ONLY public.campaign_plans
    ADD CONSTRAINT pk_campaign_plans PRIMARY KEY (tenant_id, plan_hash);
ALTER TABLE ONLY public.campaign_transitions
    ADD CONSTRAINT pk_campaign_transitions PRIMARY KEY (tenant_id, campaign_id, node_visit);
ALTER TABLE ONLY public.contact_campaigns
    ADD CONSTRAINT pk_contact_campaigns PRIMARY KEY (tenant_id, campaign_id);
ALTER TABLE ONLY public.contacts
    ADD CONSTRAINT pk_contacts PRIMARY KEY (tenant_id, contact_id);
ALTER TABLE ONLY public.operator_actions
    ADD CONSTRAINT pk_operator_actions PRIMARY KEY (operator_action_id);
ALTER TABLE ONLY public.pauses
    ADD CONSTRAINT pk_pauses PRIMARY KEY (tenant_id, campaign_id, scope, dedupe_key);
ALTER TABLE ONLY public.scheduled_actions
    ADD CONSTRAINT pk_scheduled_actions PRIMARY KEY (tenant_id, dedupe_key);
ALTER TABLE ONLY public.timeout_scheduler_backlog
    ADD CONSTRAINT pk_timeout_scheduler_backlog PRIMARY KEY (only_row);
ALTER TABLE ONLY public.timeout_scheduler_installation
    ADD CONSTRAINT pk_timeout_scheduler_installation PRIMARY KEY (installation_id);
ALTER TABLE ONLY public.timeout_scheduler_instances
    ADD CONSTRAINT pk_timeout_scheduler_instances PRIMARY KEY (instance_id);
ALTER TABLE ONLY public.timeout_scheduler_version
    ADD CONSTRAINT timeout_scheduler_version_pkc PRIMARY KEY (version_num);
CREATE INDEX ix_campaign_events_apart ON public.campaign_events USING btree (received_at, tenant_id, event_id) WHERE ((outcome = 'unknown_campaign'::text) OR (contact_id IS NOT NULL));
CREATE INDEX ix_campaign_events_campaign ON public.campaign_events USING btree (tenant_id, campaign_id, received_at);
CREATE INDEX ix_campaign_events_contact ON public.campaign_events USING btree (tenant_id, contact_id) WHERE (contact_id IS NOT NULL);
CREATE INDEX ix_campaign_events_waiting ON public.campaign_events USING btree (tenant_id, message_id) WHERE (outcome = 'unknown_campaign'::text);
CREATE INDEX ix_contact_campaigns_completed ON public.contact_campaigns USING btree (completed_at, tenant_id, campaign_id) WHERE (completed_at IS NOT NULL);
CREATE INDEX ix_contact_campaigns_contact ON public.contact_campaigns USING btree (tenant_id, contact_id);
CREATE INDEX ix_operator_actions_campaign ON public.operator_actions USING btree (tenant_id, campaign_id, created_at);
CREATE INDEX ix_scheduled_actions_claimed ON public.scheduled_actions USING btree (claimed_until) WHERE (status = 'claimed'::text);
CREATE INDEX ix_scheduled_actions_due ON public.scheduled_actions USING btree (action_type, run_at) WHERE (status = 'pending'::text);
CREATE INDEX ix_scheduled_actions_error ON public.scheduled_actions USING btree (tenant_id, run_at) WHERE (status = 'error'::text);
CREATE INDEX ix_scheduled_actions_finished ON public.scheduled_actions USING btree (tenant_id, campaign_id, node_visit) WHERE (status = ANY (ARRAY['completed'::text, 'canceled'::text, 'error'::text]));
CREATE INDEX ix_scheduled_actions_message ON public.scheduled_actions USING btree (tenant_id, message_id) WHERE (message_id IS NOT NULL);
CREATE INDEX ix_scheduled_actions_tenant_due ON public.scheduled_actions USING btree (action_type, tenant_id, run_at) WHERE ((status || ''::text) = 'pending'::text);
CREATE INDEX ix_scheduled_actions_unfinished ON public.scheduled_actions USING btree (tenant_id, campaign_id) WHERE (status = ANY (ARRAY['pending'::text, 'claimed'::text, 'paused'::text]));
