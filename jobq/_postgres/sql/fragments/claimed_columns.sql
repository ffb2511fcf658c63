-- The columns that a claim returns for each job.
job.id, job.claims, job.task, job.queue, job.args, job.attempt, job.max_attempts, job.crashes - job.worker_deaths AS crashes,
job.timeout, job.headers, job.expires_at, job.key_until_started, job.run_alone, job.releases
