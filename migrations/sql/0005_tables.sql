-- Revision 0005: what one bad row, lock or task must not stop; jobq/schema.py says what each column promises.

ALTER TABLE {schema}.job
    ADD COLUMN key_until_started boolean DEFAULT false NOT NULL,
    ADD COLUMN run_alone boolean DEFAULT false NOT NULL,
    ADD COLUMN releases smallint DEFAULT 0 NOT NULL,
    ADD COLUMN parked_at timestamptz,
    ADD COLUMN parked_reason text,
    ADD COLUMN parked_signature text,
    ADD COLUMN parked_claims integer;

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
