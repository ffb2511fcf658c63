-- Whether no job of these queues (NULL: all) is due or running. Paused queues do not count: nobody works on them.
-- Plan: for each queue's lanes one probe of job_claim_idx.
SELECT NOT EXISTS (
    SELECT FROM {schema}.job AS job
    WHERE job.state = 'running' AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
) AND NOT EXISTS (
    SELECT FROM {schema}.job AS job
    LEFT JOIN {schema}.queue AS settings ON settings.name = job.queue
    WHERE job.state = 'ready' AND job.run_at <= now() AND settings.paused_at IS NULL
      AND (%(queues)s::text[] IS NULL OR job.queue = ANY (%(queues)s::text[]))
)
