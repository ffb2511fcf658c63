-- The runs to be removed by retention, at most `most`, except those `aside`: those whose removal has begun, then the ones that ended
-- longest ago, of each state, if they are not to be undone.
-- Plan: workflow_turn_pkey; workflow_finished_idx, three times, in its order: no Sort but of the few rows that were found, no Seq Scan.
SELECT ARRAY(
    SELECT run_id FROM (
        (SELECT turn.subject_id AS run_id, '-infinity'::timestamptz AS ended FROM {schema}.workflow_turn AS turn
         WHERE turn.kind = 'prune' AND turn.subject_id <> ALL (%(aside)s::bigint[]) ORDER BY turn.id LIMIT %(most)s)
        UNION ALL
        (SELECT id, finished_at FROM {schema}.workflow
         WHERE state = 'succeeded' AND finished_at < now() - %(keep_succeeded)s::interval AND id <> ALL (%(aside)s::bigint[])
         ORDER BY finished_at LIMIT %(most)s)
        UNION ALL
        (SELECT id, finished_at FROM {schema}.workflow
         WHERE state = 'failed' AND finished_at < now() - %(keep_others)s::interval AND id <> ALL (%(aside)s::bigint[])
           AND NOT EXISTS (SELECT FROM {schema}.workflow_turn AS turn WHERE turn.kind = 'undo' AND turn.subject_id = workflow.id)
         ORDER BY finished_at LIMIT %(most)s)
        UNION ALL
        (SELECT id, finished_at FROM {schema}.workflow
         WHERE state = 'cancelled' AND finished_at < now() - %(keep_others)s::interval AND id <> ALL (%(aside)s::bigint[])
           AND NOT EXISTS (SELECT FROM {schema}.workflow_turn AS turn WHERE turn.kind = 'undo' AND turn.subject_id = workflow.id)
         ORDER BY finished_at LIMIT %(most)s)
    ) AS old
    ORDER BY ended LIMIT %(most)s)
