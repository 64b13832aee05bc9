-- Whose turn it is (PostgreSQL).

-- What is due, by tenant: who has something due is asked tenant by tenant, and each one's share is taken in order, however much another has pending.
-- Written so that a statement says itself which of the two it means: with statistics that lag behind a planner would take the one without the tenant.
CREATE INDEX ix_scheduled_actions_tenant_due ON scheduled_actions (action_type, tenant_id, run_at) WHERE status || '' = 'pending';
