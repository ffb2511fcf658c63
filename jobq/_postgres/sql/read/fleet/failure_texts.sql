-- Returns dead letters that failed in a stretch of time, with the part of their errors that
-- distinguishes them (jobq/_core/fingerprint.py).
-- Plan: that range of the failed partitions' job_history_finished_idx, or all of a partition that lies in it.
SELECT id, (extract(epoch FROM finished_at) * 1000000)::bigint AS micros, task, queue, "left"(error, 300) AS error
FROM {schema}.job_history
WHERE state = 'failed'
  AND finished_at >= timestamptz 'epoch' + %(since)s::bigint * interval '1 microsecond'
  AND finished_at <= timestamptz 'epoch' + %(until)s::bigint * interval '1 microsecond'
ORDER BY finished_at DESC, id DESC
LIMIT %(limit)s
