-- Revision 0005: what one bad row, lock or task must not stop; jobq/schema.py says what each column promises.

ALTER TABLE {schema}.job
    ADD COLUMN key_until_started boolean DEFAULT false NOT NULL,
    ADD COLUMN run_alone boolean DEFAULT false NOT NULL,
    ADD COLUMN releases smallint DEFAULT 0 NOT NULL,
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN parked_reason text,
    ADD COLUMN parked_signature text,
    ADD COLUMN permit bigint;

CREATE INDEX job_permit_idx ON {schema}.job (queue, permit) WHERE state = 'running' AND managed;

ALTER TABLE {schema}.job_turn
    ADD COLUMN from_id bigint DEFAULT 0 NOT NULL,
    ADD COLUMN from_at timestamptz DEFAULT '-infinity' NOT NULL;

ALTER TABLE {schema}.gate
    ADD COLUMN head_id bigint,
    ADD COLUMN head_at timestamptz;

CREATE INDEX gate_limit_idx ON {schema}.gate (queue) WHERE max_running IS NOT NULL;

CREATE INDEX job_parked_idx ON {schema}.job (task, run_at, id) WHERE state = 'parked';

ALTER TABLE {schema}.job_attempt
    DROP CONSTRAINT job_attempt_outcome_check,
    ADD CONSTRAINT job_attempt_outcome_check
        CHECK (outcome IN ('error', 'timeout', 'crashed', 'cancelled', 'failed', 'released'));

CREATE INDEX job_key_until_idx ON {schema}.job_key (until) WHERE until IS NOT NULL;

ALTER TABLE {schema}.worker
    ADD COLUMN signatures text[] DEFAULT '{}' NOT NULL,
    ADD COLUMN problems jsonb DEFAULT '[]' NOT NULL,
    ADD COLUMN lease double precision;
