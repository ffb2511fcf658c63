-- Returns one job, live or finished, and the node of a workflow's run that it is.
-- Plan: job_pkey, and job_history_id_idx of each partition; workflow_node_pkey and workflow_pkey.
SELECT entry.*, run.id AS workflow_id, run.name AS workflow_name, node.name AS node_name, node.number AS node_number,
       CASE WHEN node.kind = 'map' THEN entry.item END AS node_item,
       run.parent_job_id
FROM (
SELECT id, task, queue, CASE WHEN state = 'ready' AND run_at > statement_timestamp() THEN 'scheduled' ELSE state END AS state,
       priority, attempt, max_attempts, claims, crashes, run_at, created_at, started_at,
       NULL::timestamptz AS finished_at, expires_at, cancel_requested_at, worker_id, timeout, key, group_key,
       NULL::text AS error, args::text AS args, headers::text AS headers, progress::text AS progress,
       NULL::text AS result, now() AS read_at,
       CASE WHEN parked_claims = claims OR state = 'parked' THEN parked_at END AS parked_at, parked_reason, parked_signature,
       CASE WHEN key IS NOT NULL THEN coalesce(key_scope, 'task') END AS key_scope,
       node_id, node_item AS item
FROM {schema}.job
WHERE id = %(id)s
UNION ALL
SELECT id, task, queue, state, priority, attempt, max_attempts, claims, crashes, run_at, created_at, started_at,
       finished_at, NULL, NULL, worker_id, timeout, key, group_key, error, args::text, headers::text, NULL::text,
       result::text, now(), NULL, NULL, NULL, CASE WHEN key IS NOT NULL THEN coalesce(key_scope, 'task') END,
       node_id, node_item
FROM {schema}.job_history
WHERE id = %(id)s
LIMIT 1
) AS entry
LEFT JOIN {schema}.workflow_node AS node ON node.id = entry.node_id
LEFT JOIN {schema}.workflow AS run ON run.id = node.workflow_id
