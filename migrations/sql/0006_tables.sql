-- Revision 0006: a key belongs to its task, and no value is stored that clients cannot read; jobq/schema.py says what each column
-- promises.

-- Rows that the constraints below would refuse: they were written in SQL. Infinity and NaN are above every number.
UPDATE {schema}.job
SET timeout = CASE WHEN timeout <= 3155760000 THEN timeout END,
    expires_at = CASE WHEN expires_at BETWEEN '1970-01-01 00:00:00+00' AND '9998-12-31 23:59:59+00' THEN expires_at END,
    key = nullif(left(key, 500), '')
WHERE timeout > 3155760000 OR NOT expires_at BETWEEN '1970-01-01 00:00:00+00' AND '9998-12-31 23:59:59+00'
   OR NOT length(key) BETWEEN 1 AND 500;

UPDATE {schema}.queue SET rate_jobs = NULL, rate_seconds = NULL, rate_burst = NULL WHERE rate_seconds > 3155760000;

UPDATE {schema}.queue SET group_rate_jobs = NULL, group_rate_seconds = NULL, group_rate_burst = NULL
WHERE group_rate_seconds > 3155760000;

ALTER TABLE {schema}.job
    ADD COLUMN key_scope text,
    -- No more constraints than that: each is made ready again by every statement that inserts, which costs a single insert some µs.
    DROP CONSTRAINT job_timeout_check,
    ADD CONSTRAINT job_timeout_check CHECK (timeout > 0 AND timeout <= 3155760000);

ALTER TABLE {schema}.job_history ADD COLUMN key_scope text;

ALTER TABLE {schema}.queue
    ADD CONSTRAINT queue_rate_seconds_check CHECK (rate_seconds <= 3155760000 AND group_rate_seconds <= 3155760000);

-- A key that is held goes on being held, now by its task. Where the job's row is gone, its task is not known: such a key keeps the
-- whole space, in which only keys of the scope `global` are looked up.
-- The key is the first column, so that what lets keys go finds them by key and job alone, whatever their scope.
ALTER TABLE {schema}.job_key
    ADD COLUMN scope text DEFAULT '' NOT NULL,
    ADD COLUMN task text,
    DROP CONSTRAINT job_key_pkey,
    ADD CONSTRAINT job_key_pkey PRIMARY KEY (key, scope);

UPDATE {schema}.job_key SET scope = owner.task
FROM (SELECT id, task FROM {schema}.job WHERE key IS NOT NULL
      UNION ALL SELECT id, task FROM {schema}.job_history WHERE key IS NOT NULL) AS owner
-- An entry of the index has at most 2,704 bytes.
WHERE owner.id = job_key.job_id AND octet_length(job_key.key) + octet_length(owner.task) <= 2600;
