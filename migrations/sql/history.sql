-- Finished jobs, and the attempts that did not succeed. jobq/_postgres/tables/__init__.py says what each table promises.

CREATE TABLE {schema}.job_history (
    id bigint NOT NULL,
    claims integer NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    priority smallint NOT NULL,
    crashes smallint NOT NULL,
    queue text NOT NULL,
    task text NOT NULL,
    state text NOT NULL,
    run_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    worker_id uuid,
    timeout double precision,
    key text,
    group_key text,
    error text,
    args jsonb NOT NULL,
    headers jsonb NOT NULL,
    result jsonb,
    key_holds text,
    key_scope text,
    node_id bigint,
    node_item integer
)
PARTITION BY LIST (state);

CREATE INDEX job_history_id_idx ON {schema}.job_history (id);

CREATE TABLE {schema}.job_attempt (
    job_id bigint NOT NULL,
    claims integer NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL,
    worker_id uuid,
    started_at timestamptz,
    finished_at timestamptz DEFAULT now() NOT NULL,
    retry_at timestamptz,
    error_type text,
    message text,
    traceback text,
    log text,
    CONSTRAINT job_attempt_outcome_check CHECK (outcome IN ('error', 'timeout', 'crashed', 'cancelled', 'failed', 'released'))
)
PARTITION BY RANGE (finished_at);

CREATE INDEX job_attempt_job_id_idx ON {schema}.job_attempt (job_id);

-- History is partitioned by state, then by UTC day. The default partitions catch a row for which no day was made, so that
-- an acknowledgement never fails because a day is missing; the partition maintenance task keeps them empty by working a week ahead.
CREATE TABLE {schema}.job_history_succeeded PARTITION OF {schema}.job_history FOR VALUES IN ('succeeded')
    PARTITION BY RANGE (finished_at);

CREATE TABLE {schema}.job_history_succeeded_rest PARTITION OF {schema}.job_history_succeeded DEFAULT;

CREATE TABLE {schema}.job_history_failed PARTITION OF {schema}.job_history FOR VALUES IN ('failed')
    PARTITION BY RANGE (finished_at);

CREATE TABLE {schema}.job_history_failed_rest PARTITION OF {schema}.job_history_failed DEFAULT;

CREATE TABLE {schema}.job_history_cancelled PARTITION OF {schema}.job_history FOR VALUES IN ('cancelled')
    PARTITION BY RANGE (finished_at);

CREATE TABLE {schema}.job_history_cancelled_rest PARTITION OF {schema}.job_history_cancelled DEFAULT;

CREATE TABLE {schema}.job_history_expired PARTITION OF {schema}.job_history FOR VALUES IN ('expired')
    PARTITION BY RANGE (finished_at);

CREATE TABLE {schema}.job_history_expired_rest PARTITION OF {schema}.job_history_expired DEFAULT;

CREATE TABLE {schema}.job_attempt_rest PARTITION OF {schema}.job_attempt DEFAULT;

-- By these the page reads finished jobs in the order in which they finished. Succeeded jobs have none: each acknowledgement would
-- pay for it.
CREATE INDEX job_history_failed_finished_idx ON {schema}.job_history_failed (finished_at, id);

CREATE INDEX job_history_cancelled_finished_idx ON {schema}.job_history_cancelled (finished_at, id);

CREATE INDEX job_history_expired_finished_idx ON {schema}.job_history_expired (finished_at, id);

-- Tables without a primary key can be written under a publication only if they say what identifies a row. Each level says so for
-- itself: the partitions, and their parents for publish_via_partition_root.
DO $do$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT tree.relid FROM pg_partition_tree(to_regclass(format('%I.job_history', {schema_literal}::text))) AS tree
        UNION ALL
        SELECT tree.relid FROM pg_partition_tree(to_regclass(format('%I.job_attempt', {schema_literal}::text))) AS tree
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', part);
    END LOOP;
END
$do$;
