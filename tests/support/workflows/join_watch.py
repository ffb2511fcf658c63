"""What happens to joins and nodes, written down by triggers in the transaction in which it happens."""

from __future__ import annotations

# `seen`: that a join was released or opened again, with the parents that it still waits for; and that a job was
# inserted, with the number of its node's parents that have not ended, and whether a retry put it back; and that it was
# claimed. A job that is put back may run beside a parent that is put back, too, if it does not need its success.
WATCH = """
CREATE TABLE public.seen (
    n serial, what text, join_id bigint, job_id bigint, remaining integer, parents bigint, by_retry boolean
);
CREATE INDEX ON public.seen (join_id);
CREATE FUNCTION public.see_join() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO public.seen (what, join_id, remaining)
    SELECT CASE WHEN NEW.released_at IS NULL THEN 'reopened' ELSE 'released' END, NEW.id, NEW.remaining;
    RETURN NULL;
END
$body$;
-- A map that has no items is not released, but filled and ended at once.
CREATE TRIGGER see AFTER UPDATE ON jobq.workflow_join FOR EACH ROW
    WHEN ((OLD.released_at IS NULL) <> (NEW.released_at IS NULL)) EXECUTE FUNCTION public.see_join();
CREATE FUNCTION public.see_job() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO public.seen (what, job_id, parents, by_retry)
    SELECT 'started', NEW.id, (
        SELECT count(*) FROM jobq.workflow_node AS node
        JOIN jobq.workflow_node AS parent ON parent.workflow_id = node.workflow_id
            AND node.join_id = ANY (
                SELECT CASE WHEN NEW.claims > 0 THEN feed ELSE abs(feed) END FROM unnest(parent.feeds) AS feed)
        WHERE node.id = NEW.node_id AND NOT EXISTS (
            SELECT FROM jobq.workflow_result AS result
            WHERE result.node_id = parent.id AND result.item = CASE parent.kind WHEN 'map' THEN -1 ELSE 0 END)
    ), coalesce(current_setting('test.retries', true), '') <> '';
    RETURN NULL;
END
$body$;
CREATE TRIGGER see AFTER INSERT ON jobq.job FOR EACH ROW EXECUTE FUNCTION public.see_job();
CREATE FUNCTION public.see_claim() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO public.seen (what, job_id) VALUES ('claimed', NEW.id);
    RETURN NULL;
END
$body$;
CREATE TRIGGER see_claim AFTER UPDATE ON jobq.job FOR EACH ROW
    WHEN (OLD.state <> 'running' AND NEW.state = 'running') EXECUTE FUNCTION public.see_claim();
"""

# Of each join of a run: its id and kind, what it has counted, and what the results say.
COUNTS = """
SELECT one.id, one.kind, (one.remaining, one.failed, one.skipped)::text AS counted,
       (one.parents - count(over.state),
        count(*) FILTER (WHERE over.feed > 0 AND over.state NOT IN ('succeeded', 'skipped')),
        count(*) FILTER (WHERE over.feed > 0 AND over.state = 'skipped'))::text AS results
FROM jobq.workflow_join AS one
LEFT JOIN LATERAL (
    SELECT feed, result.state
    FROM jobq.workflow_node AS parent CROSS JOIN unnest(parent.feeds) AS feed
    JOIN jobq.workflow_result AS result
        ON result.node_id = parent.id AND result.item = CASE parent.kind WHEN 'map' THEN -1 ELSE 0 END
    WHERE one.kind <> 'map' AND parent.workflow_id = one.workflow_id AND abs(feed) = one.id
    UNION ALL
    SELECT 1, result.state FROM jobq.workflow_result AS result
    WHERE one.kind = 'map' AND result.node_id = one.node_id AND result.item >= 0
    UNION ALL
    -- Items that were never inserted, because of a cancellation.
    SELECT 1, 'cancelled' FROM jobq.workflow_turn AS turn CROSS JOIN generate_series(turn.from_item + 1, one.parents)
    WHERE one.kind = 'map' AND turn.kind = 'stopped' AND turn.subject_id = one.node_id
) AS over ON true
WHERE one.workflow_id = %s GROUP BY one.id
"""

# Of each join of a run: its id and kind, whether it is released, how many releases were not taken back, and the most
# parents that a release did not wait for.
RELEASES = """
SELECT one.id, one.kind, one.released_at IS NOT NULL AS is_released,
       count(*) FILTER (WHERE what = 'released') - count(*) FILTER (WHERE what = 'reopened') AS times,
       coalesce(max(seen.remaining) FILTER (WHERE what = 'released'), 0) AS remaining
FROM jobq.workflow_join AS one LEFT JOIN public.seen ON seen.join_id = one.id WHERE one.workflow_id = %s GROUP BY one.id
"""
