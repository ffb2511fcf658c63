-- Claims jobs of one managed queue; migrations/functions/claim_managed.sql has the function, its parameters, rows and plan.
-- The variant `claim_managed:except` passes over what the database refuses to claim (suspects.py).
-- Plan: one function scan.
SELECT id, claims, task, queue, args, attempt, max_attempts, crashes, timeout, headers, expired, started, key_until_started,
       run_alone, releases
FROM {schema}.claim_managed(
    %(worker)s, %(queue)s, %(want)s, %(turns_since)s, %(lanes_since)s::bigint[], %(lanes_since_ids)s::bigint[], %(ran_by)s,
    %(ran)s::bigint[]
    --except , %(left_out)s::bigint[], %(left_out_groups)s::text[], %(one_by_one)s::boolean
    )
