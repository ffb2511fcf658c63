-- Stores how many pages the partitions had, and deletes marks that no later rollup asks for: marks
-- older than ten minutes before the counted time except the newest, and all marks of earlier days.
WITH kept AS (
    INSERT INTO {schema}.rollup_mark (part, at, pages)
    SELECT * FROM unnest(%(parts)s::text[], %(ats)s::timestamptz[], %(pages)s::bigint[])
    ON CONFLICT DO NOTHING
)
DELETE FROM {schema}.rollup_mark AS mark
WHERE mark.at < now() - interval '27 hours'
   OR EXISTS (SELECT FROM {schema}.rollup_mark AS newer
              WHERE newer.part = mark.part AND newer.at > mark.at AND newer.at < %(counted)s::timestamptz - interval '10 minutes')
