-- Sending can be stopped by itself, programs of the version before may go on while others are upgraded, and instances say how they get on (PostgreSQL).

-- `sends`: no mail goes out, of one tenant or (tenant_id empty) of any; timeouts go on.
ALTER TABLE pauses DROP CONSTRAINT ck_pauses_scope_known;
ALTER TABLE pauses ADD CONSTRAINT ck_pauses_scope_known CHECK (scope IN ('all', 'tenant', 'campaign', 'action', 'sends'));

-- The oldest version of the schema whose programs may work on this one; NULL: those of this version alone.
ALTER TABLE timeout_scheduler_installation ADD COLUMN oldest_program text;
UPDATE timeout_scheduler_installation SET oldest_program = '0004';

-- What an instance has ended since it began; how many a second of late, and how late at worst, as of progress_at.
ALTER TABLE timeout_scheduler_instances ADD COLUMN ended bigint DEFAULT 0 NOT NULL;
ALTER TABLE timeout_scheduler_instances ADD COLUMN rate double precision;
ALTER TABLE timeout_scheduler_instances ADD COLUMN lateness double precision;
ALTER TABLE timeout_scheduler_instances ADD COLUMN progress_at timestamptz;
