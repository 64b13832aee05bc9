-- Who may do what, on PostgreSQL. Printed by `timeout-scheduler db roles`, with the name of the schema filled in. To be run by
-- a superuser: once before the first `db upgrade`, and again after each, when the rights on new tables are made as narrow as
-- they can be. It may be run at any time, also while daemons fire. docs/how-to/least-privilege.md goes through it.
--
--   owner          has the tables: `db upgrade`, and nothing else, is run as this role
--   daemon         `run`: claims, fires, sends, removes what is too old
--   application    the Python interface, and every command that changes something
--   reader         looks: `status`, `campaigns explain`, dashboards; sees no contact's address and variables
--
-- LISTEN, NOTIFY, advisory locks and the clock need no right. There are no sequences. Migrations are the owner's alone: no other
-- role has or may make anything in the schema.

BEGIN;

-- Roles belong to the whole server. They can't log in: give them a password, or grant them to roles that have one.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[
        'timeout_scheduler_owner', 'timeout_scheduler_daemon', 'timeout_scheduler_application', 'timeout_scheduler_reader'
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS "public";
GRANT USAGE, CREATE ON SCHEMA "public" TO timeout_scheduler_owner;
GRANT USAGE ON SCHEMA "public" TO timeout_scheduler_daemon, timeout_scheduler_application, timeout_scheduler_reader;

-- Tables to come, until this is run again: what fires and what schedules goes on, and nobody reads what nobody has looked at.
ALTER DEFAULT PRIVILEGES FOR ROLE timeout_scheduler_owner IN SCHEMA "public"
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO timeout_scheduler_daemon;
ALTER DEFAULT PRIVILEGES FOR ROLE timeout_scheduler_owner IN SCHEMA "public"
    GRANT SELECT, INSERT, UPDATE ON TABLES TO timeout_scheduler_application;

-- Tables that are there.
DO $$
DECLARE
    rights record;
    relation text;
BEGIN
    FOR rights IN
        SELECT * FROM (VALUES
            -- Its own: nobody but a migration writes these.
            ('timeout_scheduler_version', 'SELECT', 'SELECT', 'SELECT'),
            ('timeout_scheduler_installation', 'SELECT', 'SELECT', 'SELECT'),
            -- Written by whoever fires.
            ('timeout_scheduler_instances', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT', 'SELECT'),
            ('timeout_scheduler_backlog', 'SELECT, INSERT, UPDATE', 'SELECT', 'SELECT'),
            -- Plans are never changed.
            ('campaign_plans', 'SELECT', 'SELECT, INSERT', 'SELECT'),
            -- An event that waited for its mail may unsubscribe the contact of a mail that the daemon has just sent.
            ('contacts', 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE',
                'SELECT (tenant_id, contact_id, timezone, suppressed_at, suppressed_reason, created_at, updated_at)'),
            -- Only the daemon removes: what is older than RETENTION.
            ('contact_campaigns', 'SELECT, UPDATE, DELETE', 'SELECT, INSERT, UPDATE', 'SELECT'),
            ('scheduled_actions', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT, INSERT, UPDATE', 'SELECT'),
            -- What happened isn't changed: not even an application may. To lock a row before it is removed takes the right to change a
            -- column of it.
            ('campaign_transitions', 'SELECT, INSERT, UPDATE (created_at), DELETE', 'SELECT, INSERT', 'SELECT'),
            ('operator_actions', 'SELECT', 'SELECT, INSERT', 'SELECT'),
            -- An event that waits for its mail gets its outcome with it.
            ('campaign_events', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT, INSERT, UPDATE', 'SELECT'),
            -- A pause is never changed, but to lock one takes the right to; of an application, to the column that plan migrate changes.
            ('pauses', 'SELECT, UPDATE, DELETE', 'SELECT, INSERT, UPDATE (dedupe_key), DELETE', 'SELECT')
        ) AS one (relation, daemon, application, reader)
        WHERE to_regclass(format('%I.%I', 'public', one.relation)) IS NOT NULL
    LOOP
        relation := format('%I.%I', 'public', rights.relation);
        IF (SELECT relowner::regrole::text FROM pg_catalog.pg_class WHERE oid = relation::regclass) <> 'timeout_scheduler_owner' THEN
            EXECUTE format('ALTER TABLE %s OWNER TO timeout_scheduler_owner', relation);
        END IF;
        EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC, timeout_scheduler_daemon, timeout_scheduler_application, timeout_scheduler_reader', relation);
        EXECUTE format('GRANT %s ON TABLE %s TO timeout_scheduler_daemon', rights.daemon, relation);
        EXECUTE format('GRANT %s ON TABLE %s TO timeout_scheduler_application', rights.application, relation);
        EXECUTE format('GRANT %s ON TABLE %s TO timeout_scheduler_reader', rights.reader, relation);
    END LOOP;
END
$$;

COMMIT;
