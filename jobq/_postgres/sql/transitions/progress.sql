-- What running jobs say of themselves. Same fence as advance.sql; `progress` is in no index, so the update is HOT.
-- A row that someone has locked is passed over: a transactional job that is committing may take its time over it.
UPDATE {schema}.job AS job
SET progress = jsonb_build_object('done', said.done, 'total', said.total)
FROM unnest(%(ids)s::bigint[], %(claims)s::integer[], %(started)s::bigint[], %(done)s::bigint[], %(totals)s::bigint[])
    AS said (id, claims, started, done, total)
WHERE job.id = said.id AND job.claims = said.claims AND job.worker_id = %(worker)s
  AND job.started_at = to_timestamp(said.started / 1e6::float8)
  AND said.id = ANY (ARRAY(
      SELECT free.id FROM {schema}.job AS free WHERE free.id = ANY (%(ids)s::bigint[]) ORDER BY free.id
      FOR NO KEY UPDATE SKIP LOCKED))
