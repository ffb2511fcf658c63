-- The joins whose ends are to be counted, and the turns of maps that are being expanded and of runs that are to be undone, but for
-- those left out: what workflow_step would look at.
-- Plan: workflow_arrival_pkey, workflow_turn_pkey.
SELECT 'join' AS kind, join_id AS id
FROM (SELECT join_id FROM {schema}.workflow_arrival WHERE join_id <> ALL (%(joins_left_out)s::bigint[]) ORDER BY id LIMIT 200) AS arrived
GROUP BY join_id
UNION ALL
(SELECT 'turn', id FROM {schema}.workflow_turn WHERE kind = 'expand' AND id <> ALL (%(turns_left_out)s::bigint[]) ORDER BY id LIMIT 1)
UNION ALL
(SELECT 'turn', id FROM {schema}.workflow_turn WHERE kind = 'undo' AND id <> ALL (%(turns_left_out)s::bigint[]) ORDER BY id LIMIT 10)
