-- The condition on `job`: no code could run it so far. In a queue with rules such a job waits in line.
-- The first term makes job_parked_idx usable.
job.parked_at IS NOT NULL
AND (job.state = 'parked' OR job.state IN ('ready', 'waiting') AND job.parked_claims = job.claims)
