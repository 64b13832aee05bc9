-- Sending can be stopped by itself, programs of the version before may go on while others are upgraded, and instances say how they get on (SQLite).

-- `sends`: no mail goes out, of one tenant or (tenant_id empty) of any; timeouts go on. SQLite changes a rule by a new table.

CREATE TABLE pauses_of_0005 (
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
INSERT INTO pauses_of_0005 SELECT tenant_id, campaign_id, scope, dedupe_key, started_at, actor, reason FROM pauses;
DROP TABLE pauses;
ALTER TABLE pauses_of_0005 RENAME TO pauses;

-- The oldest version of the schema whose programs may work on this one; NULL: those of this version alone.
ALTER TABLE timeout_scheduler_installation ADD COLUMN oldest_program text;
UPDATE timeout_scheduler_installation SET oldest_program = '0004';

-- What an instance has ended since it began; how many a second of late, and how late at worst, as of progress_at.
ALTER TABLE timeout_scheduler_instances ADD COLUMN ended integer DEFAULT 0 NOT NULL;
ALTER TABLE timeout_scheduler_instances ADD COLUMN rate double;
ALTER TABLE timeout_scheduler_instances ADD COLUMN lateness double;
ALTER TABLE timeout_scheduler_instances ADD COLUMN progress_at text;
