-- Roles for jobq, each with the least that it needs. Run by psql after every migration, as the owner of jobq's tables with
-- CREATEROLE, or as a superuser; running it again brings the privileges back to what stands here:
--
--     psql -d DATABASE -f deploy/roles.sql                       schema jobq, roles jobq_producer, jobq_worker, …
--     psql -d DATABASE -v schema=other_jobs -f deploy/roles.sql  schema other_jobs, roles other_jobs_producer, …
--     psql -d DATABASE -v roles=acme -f deploy/roles.sql         schema jobq, roles acme_producer, …
--
-- The roles cannot log in; give them to those that can: GRANT jobq_worker TO the_app;
--
-- producer   enqueues, and asks for the results, progress and errors of jobs (not for arguments and tracebacks)
-- worker     runs jobs and does the chores; its tasks may enqueue. What transactional tasks do to your own tables, which they
--            do as the worker, is yours to grant
-- viewer     sees everything, arguments and results included, and changes nothing
-- operator   views; retries, cancels, snoozes, moves and deletes jobs, one by one or many; pauses and resumes queues, and sets their
--            limits, rates and rules for groups; makes, changes, pauses and removes schedules; asks workers to be quiet or to end;
--            leaves a trace of it that it cannot remove

\set ON_ERROR_STOP on
\if :{?schema}
\else
    \set schema jobq
\endif
\if :{?roles}
\else
    \set roles :schema
\endif

SELECT :'roles' || '_producer' AS producer, :'roles' || '_worker' AS worker,
       :'roles' || '_viewer' AS viewer, :'roles' || '_operator' AS operator,
       pg_get_userbyid(relowner) AS owner
FROM pg_class WHERE oid = format('%I.job', :'schema')::regclass \gset

BEGIN;

SELECT format('CREATE ROLE %I NOLOGIN', wanted)
FROM unnest(ARRAY[:'producer', :'worker', :'viewer', :'operator']) AS wanted
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) \gexec

-- Nothing for everybody. Functions are EXECUTE for PUBLIC when they are made, those of later migrations too.
REVOKE ALL ON SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";
REVOKE ALL ON ALL TABLES IN SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";
REVOKE ALL ON ALL SEQUENCES IN SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";

GRANT USAGE ON SCHEMA :"schema" TO :"producer", :"worker", :"viewer", :"operator";
GRANT SELECT ON :"schema".schema_version TO :"producer", :"worker", :"viewer", :"operator";

-- Producer. Not `state`, `claims`, `worker_id`: a job begins ready. Not `key`: keys are taken by the function. Arguments
-- can be written and not read.
GRANT INSERT (task, args, queue, priority, run_at, expires_at, max_attempts, timeout, group_key, headers)
    ON :"schema".job TO :"producer";
GRANT SELECT (id, state, attempt, max_attempts, run_at, progress) ON :"schema".job TO :"producer";
GRANT SELECT (id, state, result, error, attempt, max_attempts, claims) ON :"schema".job_history TO :"producer";
GRANT SELECT (job_id, claims, outcome, finished_at, error_type, message) ON :"schema".job_attempt TO :"producer";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I, %I', oid::regprocedure, :'producer', :'worker')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema'))
    AND proname ~ '^enqueue(_one|_keyed)?(_[0-9]+)?$' \gexec

-- Worker. History and attempts only grow under it; their end is drop_partitions, which knows the tables it may touch.
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".job, :"schema".worker TO :"worker";
GRANT SELECT, INSERT ON :"schema".job_history, :"schema".job_attempt TO :"worker";
GRANT SELECT, DELETE ON :"schema".job_key TO :"worker";
-- Any column's UPDATE is what SELECT … FOR UPDATE asks for.
GRANT UPDATE (until) ON :"schema".job_key TO :"worker";
GRANT SELECT, INSERT, UPDATE ON :"schema".chore TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".rollup_queue, :"schema".rollup_task, :"schema".rollup_mark TO :"worker";
GRANT SELECT ON :"schema".queue TO :"worker";
-- How groups run may be declared by the application.
GRANT INSERT (name, group_mode, group_limit, group_retry), UPDATE (group_mode, group_limit, group_retry)
    ON :"schema".queue TO :"worker";
-- Groups take turns, and rates are paid for.
GRANT SELECT, INSERT, DELETE ON :"schema".job_turn TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".gate TO :"worker";
GRANT USAGE ON SEQUENCE :"schema".permit TO :"worker";
-- Schedules are declared by the application that a worker runs, and moved on by their ticks. Removing one is an operator's.
GRANT SELECT, INSERT, UPDATE ON :"schema".schedule TO :"worker";
GRANT SELECT, INSERT, DELETE ON :"schema".schedule_tick TO :"worker";
-- The mode of waking, which the sentinel sets; and the ids, by which it sees how many jobs come.
GRANT SELECT, UPDATE ON SEQUENCE :"schema".wake TO :"worker";
GRANT SELECT ON SEQUENCE :"schema".job_id_seq TO :"worker";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'worker')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema'))
    AND proname IN ('make_partitions', 'make_partition', 'drop_partitions', 'prune_rest', 'rest_due', 'take_key', 'claim_managed',
                    'managed_running', 'admits', 'admits_from', 'entry_state', 'oldest_program') \gexec

-- Viewer, and the operator with it. The partitions that the chore is yet to make are read one by one as well.
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"viewer", :"operator";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I, %I', oid::regprocedure, :'viewer', :'operator')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema')) AND proname = 'oldest_program' \gexec
REVOKE SELECT ON :"schema".web_user FROM :"viewer", :"operator";
GRANT SELECT ON SEQUENCE :"schema".wake TO :"viewer", :"operator";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"viewer", :"operator";

-- Operator. Retry: history back to job. Cancel: job to history, its key let go. Delete: either is gone, with its attempts. FOR
-- UPDATE again asks for some column.
GRANT INSERT, DELETE, UPDATE (run_at, queue, priority, state, cancel_requested_at, managed, permit, parked_claims) ON :"schema".job TO :"operator";
-- A job that is moved waits for its group's turn in a queue that has turns.
GRANT INSERT ON :"schema".job_turn TO :"operator";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'operator')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema')) AND proname IN ('entry_state', 'take_key') \gexec
GRANT INSERT, DELETE, UPDATE (finished_at) ON :"schema".job_history TO :"operator";
GRANT DELETE ON :"schema".job_key, :"schema".job_attempt TO :"operator";
GRANT INSERT, UPDATE ON :"schema".queue TO :"operator";
GRANT INSERT, UPDATE, DELETE ON :"schema".schedule TO :"operator";
-- What is set for a queue: jobs that run count from then on (`managed`), its groups are looked at again, and each may have a limit
-- of its own.
GRANT INSERT, UPDATE, DELETE ON :"schema".gate TO :"operator";
GRANT UPDATE (asked) ON :"schema".worker TO :"operator";
GRANT INSERT ON :"schema".audit TO :"operator";
GRANT INSERT, UPDATE ON :"schema".operation TO :"operator";
GRANT INSERT ON :"schema".operation_batch TO :"operator";
-- The page's own users, where it has any: their passwords' hashes are for the page alone, and it writes none.
GRANT SELECT ON :"schema".web_user TO :"operator";

COMMIT;
