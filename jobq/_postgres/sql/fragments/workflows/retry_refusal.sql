-- Why no job of the run $run may run again: its effects are being taken back, or it takes back what has been done again since.
-- NULL: they may.
-- Plan: workflow_pkey, twice.
(
    SELECT CASE
        WHEN run.undo_id IS NOT NULL
            THEN 'run ' || run.undo_id || ' undoes the nodes that have succeeded: retry all nodes of run ' || run.id || ' (--all)'
        WHEN EXISTS (SELECT FROM {schema}.workflow AS undone WHERE undone.id = run.undoes_id AND undone.undo_id IS DISTINCT FROM run.id)
            THEN 'run ' || run.undoes_id || ', which it undoes, was retried since' END
    FROM {schema}.workflow AS run WHERE run.id = $run
)
