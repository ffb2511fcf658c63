-- The jobs `ready` of one lane of lanes.sql, in the order of job_claim_idx.
ready.queue = lane.queue
AND ready.priority = lane.priority
AND ready.state = 'ready'
AND (ready.run_at, ready.id) >= ('epoch'::timestamptz + lane.since * interval '1 microsecond', lane.since_id)
