-- The columns of insert_job.sql and those of a job with an idempotency key. The keys themselves are
-- already taken in job_key.
--include insert_job
, key, key_holds, key_until_started, key_scope
