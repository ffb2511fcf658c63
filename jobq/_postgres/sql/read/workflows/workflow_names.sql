-- Returns the names of workflows, by name, at most 1,000.
-- Plan: a loose index scan hops over workflow_name_idx from one name to the next.
WITH RECURSIVE known AS (
    (SELECT run.name FROM {schema}.workflow AS run ORDER BY run.name LIMIT 1)
    UNION ALL
    SELECT following.name
    FROM known
    CROSS JOIN LATERAL (
        SELECT run.name FROM {schema}.workflow AS run WHERE run.name > known.name ORDER BY run.name LIMIT 1
    ) AS following
)
SELECT name FROM known LIMIT 1000
