-- How the tables that change all the time are kept small (PostgreSQL). Writes go on meanwhile.

-- Every change of status is a new version of the row and of its index entries. Dead ones are cleaned up after some thousands, not after a fifth of
-- the table: a claim would walk over them, and ever more pages hold little that lives.
ALTER TABLE scheduled_actions SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- A campaign that moves changes no index: with room left on its page its index entries stay as they are.
ALTER TABLE contact_campaigns SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
