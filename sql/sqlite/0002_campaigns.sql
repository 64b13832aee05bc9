-- Suppressed contacts, events that wait for their mail, and who did what to which campaign (SQLite).

-- What happened to a contact, and not to one campaign of it.
ALTER TABLE campaign_events ADD COLUMN contact_id text;

-- What happened to one contact: what is forgotten with it.
CREATE INDEX ix_campaign_events_contact ON campaign_events (tenant_id, contact_id) WHERE contact_id IS NOT NULL;

-- Events of a mail nobody has confirmed yet: applied in the transaction that confirms it.
CREATE INDEX ix_campaign_events_waiting ON campaign_events (tenant_id, message_id) WHERE outcome = 'unknown_campaign';

-- Which campaign an operator's act was about; NULL where it was about more than one.
ALTER TABLE operator_actions ADD COLUMN campaign_id text;

-- What was done by hand to one campaign, in order.
CREATE INDEX ix_operator_actions_campaign ON operator_actions (tenant_id, campaign_id, created_at);

-- What is over for one campaign, beside what is still to come: what explains it, and what is forgotten with it.
CREATE INDEX ix_scheduled_actions_finished ON scheduled_actions (tenant_id, campaign_id, node_visit) WHERE status IN ('completed', 'canceled', 'error');
