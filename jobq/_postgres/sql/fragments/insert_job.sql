-- The columns of an inserted job. All statements and functions that insert jobs use this list, so
-- each source of jobs can set the same columns. deploy/roles.sql lets producers set these and no
-- others: not `state`, and not a key.
task, args, queue, priority, run_at, max_attempts, timeout, headers, group_key, expires_at
