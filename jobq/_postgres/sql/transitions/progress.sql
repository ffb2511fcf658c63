-- Writes the progress that running jobs report. Same fence as ack_and_claim.sql. `progress` is in
-- no index, so the update is HOT.
-- A locked row is skipped: a transactional job that is committing may hold it for long.
UPDATE {schema}.job AS job
SET progress = jsonb_build_object('done', said.done, 'total', said.total)
FROM unnest(%(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(done)s::bigint[], %(totals)s::bigint[])
    AS said (id, claims, started, done, total)
WHERE job.id = said.id AND job.claims = said.claims AND job.worker_id = %(worker)s
  AND job.started_at = to_timestamp(said.started / 1e6::float8)
  AND said.id = ANY (ARRAY(
      SELECT free.id FROM {schema}.job AS free WHERE free.id = ANY (%(ids)s::bigint[]) ORDER BY free.id
      FOR NO KEY UPDATE SKIP LOCKED))
