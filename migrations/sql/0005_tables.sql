-- Revision 0005: what one bad row, lock or task must not stop; jobq/schema.py says what each column promises.

ALTER TABLE {schema}.job
    ADD COLUMN key_holds text,
    ADD COLUMN key_until_started boolean DEFAULT false NOT NULL,
    ADD COLUMN run_alone boolean DEFAULT false NOT NULL,
    ADD COLUMN releases smallint DEFAULT 0 NOT NULL,
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN parked_reason text,
    ADD COLUMN parked_signature text,
    ADD COLUMN parked_claims integer,
    ADD COLUMN permit bigint;

CREATE INDEX job_permit_idx ON {schema}.job (queue, permit) WHERE state = 'running' AND managed;

ALTER TABLE {schema}.job_turn
    ADD COLUMN from_id bigint DEFAULT 0 NOT NULL,
    ADD COLUMN from_at timestamptz DEFAULT '-infinity' NOT NULL;

ALTER TABLE {schema}.gate
    ADD COLUMN head_id bigint,
    ADD COLUMN head_at timestamptz;

CREATE INDEX gate_limit_idx ON {schema}.gate (queue) WHERE max_running IS NOT NULL;

CREATE INDEX job_parked_idx ON {schema}.job (task, priority, run_at, id) WHERE parked_at IS NOT NULL;

ALTER TABLE {schema}.job_attempt
    DROP CONSTRAINT job_attempt_outcome_check,
    ADD CONSTRAINT job_attempt_outcome_check
        CHECK (outcome IN ('error', 'timeout', 'crashed', 'cancelled', 'failed', 'released'));

CREATE INDEX job_key_until_idx ON {schema}.job_key (until) WHERE until IS NOT NULL;

ALTER TABLE {schema}.worker
    ADD COLUMN signatures text[] DEFAULT '{}' NOT NULL,
    ADD COLUMN problems jsonb DEFAULT '[]' NOT NULL,
    ADD COLUMN lease double precision;

ALTER TABLE {schema}.job_history ADD COLUMN key_holds text;

-- A job that was claimed by a worker of before has released such a key already.
UPDATE {schema}.job SET key_holds = held.holds, key_until_started = held.holds = 'until_started'
FROM {schema}.job_key AS held WHERE held.key = job.key AND held.job_id = job.id;

-- Tables without a primary key can be written under a publication only if they say what identifies a row. Costs nothing while
-- wal_level is not logical, and nothing for inserts.
ALTER TABLE {schema}.job_turn REPLICA IDENTITY FULL;

-- Each level says so for itself: the partitions, and their parents for publish_via_partition_root.
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
