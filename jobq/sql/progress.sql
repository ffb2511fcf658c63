-- What running jobs say of themselves. Same fence as advance.sql; `progress` is in no index, so the update is HOT.
UPDATE {schema}.job AS job
SET progress = jsonb_build_object('done', said.done, 'total', said.total)
FROM unnest(%(ids)s::bigint[], %(claims)s::integer[], %(done)s::bigint[], %(totals)s::bigint[])
    AS said (id, claims, done, total)
WHERE job.id = said.id AND job.claims = said.claims AND job.worker_id = %(worker)s
