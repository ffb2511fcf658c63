-- Revision 0003: groups, limits and rates; jobq/schema.py and jobq/flowtables.py say what each table promises.

ALTER TABLE {schema}.job ADD COLUMN managed boolean DEFAULT false NOT NULL;

CREATE INDEX job_waiting_idx ON {schema}.job (queue, group_key, id) WHERE state = 'waiting';

CREATE INDEX job_waiting_due_idx ON {schema}.job (queue, group_key, run_at, id) WHERE state = 'waiting';

CREATE INDEX job_managed_idx ON {schema}.job (queue, group_key) WHERE state = 'running' AND managed;

CREATE INDEX job_grouped_idx ON {schema}.job (queue, id) WHERE state = 'ready' AND group_key IS NOT NULL;

CREATE INDEX job_expires_idx ON {schema}.job (expires_at) WHERE expires_at IS NOT NULL AND state <> 'running';

ALTER TABLE {schema}.queue
    ADD COLUMN max_running integer,
    ADD COLUMN rate_jobs integer,
    ADD COLUMN rate_seconds double precision,
    ADD COLUMN rate_burst integer,
    ADD COLUMN group_mode text,
    ADD COLUMN group_limit integer,
    ADD COLUMN group_retry text,
    ADD COLUMN group_rate_jobs integer,
    ADD COLUMN group_rate_seconds double precision,
    ADD COLUMN group_rate_burst integer,
    ADD COLUMN changed_at timestamptz,
    ADD CONSTRAINT queue_max_running_check CHECK (max_running >= 1),
    ADD CONSTRAINT queue_rate_check CHECK (
        (rate_jobs IS NULL AND rate_seconds IS NULL AND rate_burst IS NULL)
        OR (rate_jobs IS NOT NULL AND rate_seconds IS NOT NULL AND rate_burst IS NOT NULL
            AND rate_jobs >= 1 AND rate_seconds > 0 AND rate_burst >= 1)),
    ADD CONSTRAINT queue_group_mode_check CHECK (group_mode IN ('ordered', 'limited', 'fair')),
    ADD CONSTRAINT queue_group_limit_check CHECK (
        group_limit >= 1 AND group_mode IS NOT NULL AND group_mode <> 'ordered' OR group_limit IS NULL),
    ADD CONSTRAINT queue_group_retry_check CHECK (
        group_retry IN ('hold', 'pass') AND group_mode IS NOT NULL AND group_mode = 'ordered' OR group_retry IS NULL),
    ADD CONSTRAINT queue_group_rate_check CHECK (
        (group_rate_jobs IS NULL AND group_rate_seconds IS NULL AND group_rate_burst IS NULL)
        OR (group_mode IS NOT NULL AND group_rate_jobs IS NOT NULL AND group_rate_seconds IS NOT NULL
            AND group_rate_burst IS NOT NULL AND group_rate_jobs >= 1 AND group_rate_seconds > 0 AND group_rate_burst >= 1));

CREATE TABLE {schema}.job_turn (
    queue text NOT NULL,
    group_key text NOT NULL,
    due_at timestamptz DEFAULT clock_timestamp() NOT NULL
)
WITH (fillfactor = 70, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX job_turn_idx ON {schema}.job_turn (queue, due_at);

CREATE TABLE {schema}.gate (
    queue text NOT NULL,
    group_key text NOT NULL,
    max_running integer,
    paid_until timestamptz,
    CONSTRAINT gate_pkey PRIMARY KEY (queue, group_key),
    CONSTRAINT gate_max_running_check CHECK (max_running >= 1)
)
WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
