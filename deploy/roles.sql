-- Roles for jobq, each with the least rights that it needs. Run this file by psql after every migration, as the owner of jobq's
-- tables with CREATEROLE, or as a superuser. Running it again restores exactly these privileges:
--
--     psql -d DATABASE -f deploy/roles.sql                       schema jobq, roles jobq_producer, jobq_worker, …
--     psql -d DATABASE -v schema=other_jobs -f deploy/roles.sql  schema other_jobs, roles other_jobs_producer, …
--     psql -d DATABASE -v roles=acme -f deploy/roles.sql         schema jobq, roles acme_producer, …
--
-- The roles cannot log in; grant them to roles that can: GRANT jobq_worker TO the_app;
--
-- producer   enqueues jobs and workflows, sends signals to them, and asks for the results, progress and errors of jobs (not for
--            arguments and tracebacks), and for the states and results of workflows
-- worker     runs jobs and maintenance tasks; its tasks may enqueue. Transactional tasks work as this role: grant it the rights on
--            your own tables that they need
-- viewer     reads everything, including arguments, results and the steps and signals of durable jobs, and changes nothing
-- operator   views; retries, cancels, snoozes, moves and deletes jobs, one by one or many; cancels and retries workflows; sends signals
--            to durable jobs and workflows; pauses and resumes queues, and sets their limits, rates and rules for groups; creates,
--            changes, pauses and removes schedules; asks workers to be quiet or to end; leaves audit entries that it cannot remove

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

-- No rights for PUBLIC. PUBLIC may EXECUTE every new function by default, also those of later migrations.
REVOKE ALL ON SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";
REVOKE ALL ON ALL TABLES IN SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";
REVOKE ALL ON ALL SEQUENCES IN SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA :"schema" FROM PUBLIC, :"producer", :"worker", :"viewer", :"operator";

GRANT USAGE ON SCHEMA :"schema" TO :"producer", :"worker", :"viewer", :"operator";
GRANT SELECT ON :"schema".schema_version TO :"producer", :"worker", :"viewer", :"operator";

-- Producer. Not `state`, `claims`, `worker_id`, because a job begins as ready. Not `key`, because the function takes keys.
-- Arguments can be written, but not read.
GRANT INSERT (task, args, queue, priority, run_at, expires_at, max_attempts, timeout, group_key, headers)
    ON :"schema".job TO :"producer";
GRANT SELECT (id, state, attempt, max_attempts, run_at, progress, node_id) ON :"schema".job TO :"producer";
GRANT SELECT (id, state, result, error, attempt, max_attempts, claims) ON :"schema".job_history TO :"producer";
GRANT SELECT (job_id, claims, outcome, finished_at, error_type, message) ON :"schema".job_attempt TO :"producer";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I, %I', oid::regprocedure, :'producer', :'worker')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema'))
    AND proname ~ '^((enqueue(_one|_keyed|_workflow)?|(try_)?send_signal)(_[0-9]+)?|workflow_add_nodes)$' \gexec
-- The state and the result of a workflow's run, and why nodes failed. Not the arguments of nodes.
GRANT SELECT (id, state, reason) ON :"schema".workflow TO :"producer";
GRANT SELECT (id, workflow_id, number, name) ON :"schema".workflow_node TO :"producer";
GRANT SELECT (workflow_id, released_at, remaining, failed, tolerated) ON :"schema".workflow_join TO :"producer";
GRANT SELECT (subject_id, kind) ON :"schema".workflow_turn TO :"producer";
GRANT SELECT (node_id, item, job_id, state, error, result, finished_at) ON :"schema".workflow_result TO :"producer";

-- Worker. It only adds to history and attempts; only drop_partitions removes them, and it knows which tables it may change.
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".job, :"schema".worker TO :"worker";
GRANT SELECT, INSERT ON :"schema".job_history, :"schema".job_attempt TO :"worker";
GRANT SELECT, DELETE ON :"schema".job_key TO :"worker";
-- SELECT … FOR UPDATE needs the right to UPDATE any one column.
GRANT UPDATE (expires_at) ON :"schema".job_key TO :"worker";
GRANT SELECT, INSERT, UPDATE ON :"schema".maintenance_task TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".rollup_queue, :"schema".rollup_task, :"schema".rollup_mark TO :"worker";
GRANT SELECT ON :"schema".queue TO :"worker";
-- The application may declare the rules for groups.
GRANT INSERT (name, group_mode, group_limit, group_retry), UPDATE (group_mode, group_limit, group_retry)
    ON :"schema".queue TO :"worker";
-- The line of ready groups, and the state of rates.
GRANT SELECT, INSERT, DELETE ON :"schema".group_ready TO :"worker";
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".rate_state TO :"worker";
GRANT USAGE ON SEQUENCE :"schema".permit TO :"worker";
-- The application of a worker declares schedules, and their ticks move them forward. Only an operator removes schedules.
GRANT SELECT, INSERT, UPDATE ON :"schema".schedule TO :"worker";
GRANT SELECT, INSERT, DELETE ON :"schema".schedule_tick TO :"worker";
-- Workflows. It writes how nodes ended; a trigger starts what waits for them, with the rights of the owner. Only functions change runs,
-- nodes and joins.
GRANT SELECT ON :"schema".workflow, :"schema".workflow_node, :"schema".workflow_join, :"schema".workflow_arrival TO :"worker";
GRANT SELECT, INSERT ON :"schema".workflow_result TO :"worker";
GRANT SELECT, DELETE ON :"schema".workflow_turn TO :"worker";
-- Durable tasks: their steps, the signals that they take, and what is to be woken. A step may start a child and wait for it.
GRANT SELECT, INSERT, UPDATE, DELETE ON :"schema".job_step, :"schema".job_wakeup TO :"worker";
GRANT SELECT, DELETE, UPDATE (taken_at, taken_by) ON :"schema".job_signal TO :"worker";
GRANT UPDATE (parent_job_id, key) ON :"schema".workflow TO :"worker";
-- The notify mode, which the lead poller sets; and the sequence of ids, by which it counts the inserted jobs.
GRANT SELECT, UPDATE ON SEQUENCE :"schema".notify_mode TO :"worker";
GRANT SELECT ON SEQUENCE :"schema".job_id_seq TO :"worker";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'worker')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema'))
    AND proname IN ('make_partitions', 'make_partition', 'drop_partitions', 'prune_rest', 'rest_due', 'take_key', 'claim_limited',
                    'limited_running', 'admits', 'admits_from', 'entry_state', 'oldest_program', 'workflow_step', 'workflow_cancel',
                    'workflow_resume', 'workflow_prune', 'cancel_children', 'workflow_add_nodes') \gexec

-- Viewer and operator. Partitions that the maintenance task will make are read one by one as well.
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"viewer", :"operator";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I, %I', oid::regprocedure, :'viewer', :'operator')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema')) AND proname IN ('oldest_program', 'admits_from') \gexec
REVOKE SELECT ON :"schema".web_user FROM :"viewer", :"operator";
GRANT SELECT ON SEQUENCE :"schema".notify_mode TO :"viewer", :"operator";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA :"schema" GRANT SELECT ON TABLES TO :"viewer", :"operator";

-- Operator. A retry moves a job from history to job. A cancel moves a job to history and releases its key. A delete removes
-- either, with its attempts. FOR UPDATE again needs the right to one column.
GRANT INSERT, DELETE, UPDATE (run_at, queue, priority, state, cancel_requested_at, limited, permit, parked_claims) ON :"schema".job TO :"operator";
-- If a job is moved to a queue with a rule for groups, its group is made ready.
GRANT INSERT ON :"schema".group_ready TO :"operator";
SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I', oid::regprocedure, :'operator')
FROM pg_proc WHERE pronamespace = to_regnamespace(format('%I', :'schema')) AND proname IN ('entry_state', 'take_key', 'enqueue_one', 'workflow_cancel',
    'workflow_retry', 'workflow_retry_from', 'workflow_resume', 'workflow_undo', 'send_signal', 'try_send_signal', 'cancel_children') \gexec
GRANT INSERT, DELETE, UPDATE (finished_at) ON :"schema".job_history TO :"operator";
GRANT DELETE ON :"schema".job_key, :"schema".job_attempt TO :"operator";
-- A delete of a durable job removes its steps and signals. A retry runs the step again that has failed, or its child.
GRANT DELETE, UPDATE (state, error, finished_at) ON :"schema".job_step TO :"operator";
GRANT DELETE ON :"schema".job_signal TO :"operator";
GRANT UPDATE (key) ON :"schema".workflow TO :"operator";
-- A cancel or a delete of a node's job ends the node, and a retry begins it again: triggers do the rest.
GRANT INSERT, DELETE ON :"schema".workflow_result TO :"operator";
GRANT INSERT, UPDATE ON :"schema".queue TO :"operator";
GRANT INSERT, UPDATE, DELETE ON :"schema".schedule TO :"operator";
-- Settings of a queue: running jobs count from then on (`limited`), its groups are made ready, and each may have its own limit.
GRANT INSERT, UPDATE, DELETE ON :"schema".rate_state TO :"operator";
GRANT UPDATE (requested_state) ON :"schema".worker TO :"operator";
GRANT INSERT ON :"schema".audit TO :"operator";
GRANT INSERT, UPDATE ON :"schema".operation TO :"operator";
GRANT INSERT ON :"schema".operation_batch TO :"operator";
-- The page's own users, if there are any: only the page reads the hashes of their passwords, and it writes none.
GRANT SELECT ON :"schema".web_user TO :"operator";

COMMIT;
