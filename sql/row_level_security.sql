-- Row-level security by tenant, on PostgreSQL: an option. Printed by `timeout-scheduler db rls`, with the name of the schema
-- filled in. To be run after sql/roles.sql, by the owner or a superuser; it may be run again. docs/how-to/least-privilege.md says
-- what it is good for, what it costs and where it ends.
--
-- The application sees and writes the rows of one tenant, which its session names: SET LOCAL timeout_scheduler.tenant_id = 'acme'.
-- Without that it sees none. The daemon and the reader see all; so does the owner, whom policies don't concern.

BEGIN;
-- Nothing needs to be said about policies that aren't there yet.
SET LOCAL client_min_messages = warning;

DO $$
DECLARE
    relation text;
    own constant text := 'tenant_id = nullif(current_setting(''timeout_scheduler.tenant_id'', true), '''')';
BEGIN
    FOREACH relation IN ARRAY ARRAY[
        'campaign_plans', 'contacts', 'contact_campaigns', 'scheduled_actions', 'campaign_transitions', 'campaign_events',
        'pauses', 'operator_actions'
    ] LOOP
        relation := format('%I.%I', 'public', relation);
        EXECUTE format('DROP POLICY IF EXISTS own_tenant ON %s', relation);
        EXECUTE format('DROP POLICY IF EXISTS all_tenants ON %s', relation);
        EXECUTE format('CREATE POLICY own_tenant ON %s TO timeout_scheduler_application USING (%s) WITH CHECK (%s)', relation, own, own);
        EXECUTE format('CREATE POLICY all_tenants ON %s TO timeout_scheduler_daemon, timeout_scheduler_reader USING (true) WITH CHECK (true)', relation);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    END LOOP;
    -- A pause of everything has no tenant: it is seen, and held until commit, by all, and neither made nor lifted by anybody here.
    relation := format('%I.%I', 'public', 'pauses');
    EXECUTE format('DROP POLICY IF EXISTS everybodys_seen ON %s', relation);
    EXECUTE format('DROP POLICY IF EXISTS everybodys_held ON %s', relation);
    EXECUTE format('CREATE POLICY everybodys_seen ON %s FOR SELECT TO timeout_scheduler_application USING (tenant_id = '''')', relation);
    EXECUTE format('CREATE POLICY everybodys_held ON %s FOR UPDATE TO timeout_scheduler_application USING (tenant_id = '''') WITH CHECK (%s)', relation, own);
END
$$;

COMMIT;
