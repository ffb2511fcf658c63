-- Claims jobs of one limited queue. migrations/functions/claim_limited.sql has the function, its
-- parameters, rows and plan.
-- The variant `claim_limited:except` skips what the database refuses to claim (suspects.py).
-- Plan: one function scan.
SELECT id, claims, task, queue, args, attempt, max_attempts, crashes, timeout, headers, expired, started, key_until_started,
       run_alone, releases
FROM {schema}.claim_limited(
    %(worker)s, %(queue)s, %(want)s, %(turns_since)s, %(lanes_since)s::bigint[], %(lanes_since_ids)s::bigint[], %(ran_by)s,
    %(ran)s::bigint[]
    --except , %(left_out)s::bigint[], %(left_out_groups)s::text[], %(one_by_one)s::boolean
    )
