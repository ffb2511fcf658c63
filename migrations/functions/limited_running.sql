-- The jobs of a limited queue that run and count against its limits, and how many of each group (NULL unless `by_group`), for
-- claim_limited, which explains `ran` and `known_to`. What runs is what still runs of `ran`, and what has a higher number.
-- Plan: job_pkey, and job_permit_idx above `known_to`; no other index of running jobs, which would be read with its dead entries.
CREATE OR REPLACE FUNCTION {schema}.limited_running(
    of_queue text, ran bigint[], known_to bigint, by_group boolean, OUT ids bigint[], OUT groups jsonb
)
LANGUAGE plpgsql
AS $body$
#variable_conflict use_variable
BEGIN
    -- Fenced off, or the planner would find those of `ran` by an index of running jobs. The others in the order of one index,
    -- or it might take the other.
    WITH known AS MATERIALIZED (
        SELECT job.id, job.queue, job.state, job.limited, job.permit, job.group_key
        FROM {schema}.job AS job WHERE job.id = ANY (ran)
    ), now_running AS MATERIALIZED (
        SELECT known.id, known.group_key FROM known
        WHERE known.state = 'running' AND known.limited AND known.queue = of_queue AND known.permit <= known_to
        UNION ALL
        (SELECT later.id, later.group_key FROM {schema}.job AS later
         WHERE later.queue = of_queue AND later.state = 'running' AND later.limited AND later.permit > known_to
         ORDER BY later.queue, later.permit LIMIT 1000000)
        UNION ALL
        (SELECT plain.id, plain.group_key FROM {schema}.job AS plain
         WHERE plain.queue = of_queue AND plain.state = 'running' AND plain.limited AND plain.permit IS NULL
         ORDER BY plain.queue, plain.permit LIMIT 1000000)
    )
    SELECT coalesce((SELECT array_agg(one.id) FROM now_running AS one), '{}'),
           CASE WHEN by_group THEN coalesce((
               SELECT jsonb_object_agg(one.group_key, one.jobs)
               FROM (SELECT now_running.group_key, count(*) AS jobs FROM now_running
                     WHERE now_running.group_key IS NOT NULL GROUP BY now_running.group_key) AS one), '{}') END
    INTO ids, groups;
END
$body$;
