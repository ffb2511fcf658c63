-- What is set for queues, who works, what is done besides jobs, and schedules. jobq/_postgres/tables/__init__.py and jobq/_postgres/tables/schedules.py say what each
-- table promises.

CREATE TABLE {schema}.queue (
    name text NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    paused_at timestamptz,
    paused_by text,
    pause_reason text,
    max_running integer,
    rate_jobs integer,
    rate_seconds double precision,
    rate_burst integer,
    group_mode text,
    group_limit integer,
    group_retry text,
    group_rate_jobs integer,
    group_rate_seconds double precision,
    group_rate_burst integer,
    changed_at timestamptz,
    CONSTRAINT queue_pkey PRIMARY KEY (name),
    CONSTRAINT queue_max_running_check CHECK (max_running >= 1),
    CONSTRAINT queue_rate_check CHECK (
        (rate_jobs IS NULL AND rate_seconds IS NULL AND rate_burst IS NULL)
        OR (rate_jobs IS NOT NULL AND rate_seconds IS NOT NULL AND rate_burst IS NOT NULL
            AND rate_jobs >= 1 AND rate_seconds > 0 AND rate_burst >= 1)),
    CONSTRAINT queue_rate_seconds_check CHECK (rate_seconds <= 3155760000 AND group_rate_seconds <= 3155760000),
    CONSTRAINT queue_group_mode_check CHECK (group_mode IN ('ordered', 'limited', 'fair')),
    CONSTRAINT queue_group_limit_check CHECK (
        group_limit >= 1 AND group_mode IS NOT NULL AND group_mode <> 'ordered' OR group_limit IS NULL),
    CONSTRAINT queue_group_retry_check CHECK (
        group_retry IN ('hold', 'pass') AND group_mode IS NOT NULL AND group_mode = 'ordered' OR group_retry IS NULL),
    CONSTRAINT queue_group_rate_check CHECK (
        (group_rate_jobs IS NULL AND group_rate_seconds IS NULL AND group_rate_burst IS NULL)
        OR (group_mode IS NOT NULL AND group_rate_jobs IS NOT NULL AND group_rate_seconds IS NOT NULL
            AND group_rate_burst IS NOT NULL AND group_rate_jobs >= 1 AND group_rate_seconds > 0 AND group_rate_burst >= 1))
);

CREATE TABLE {schema}.worker (
    id uuid NOT NULL,
    lock_key bigint NOT NULL,
    lock_server_start timestamptz,
    started_at timestamptz DEFAULT now() NOT NULL,
    heartbeat_at timestamptz DEFAULT now() NOT NULL,
    beats bigint DEFAULT 0 NOT NULL,
    pid integer NOT NULL,
    slots integer NOT NULL,
    running integer DEFAULT 0 NOT NULL,
    state text DEFAULT 'starting' NOT NULL,
    host text NOT NULL,
    version text NOT NULL,
    app text,
    queues text[],
    tasks text[] DEFAULT '{}' NOT NULL,
    requested_state text,
    rss bigint,
    schedules text[] DEFAULT '{}' NOT NULL,
    signatures text[] DEFAULT '{}' NOT NULL,
    problems jsonb DEFAULT '[]' NOT NULL,
    lease double precision DEFAULT 30 NOT NULL,
    suspicion double precision DEFAULT 3.5 NOT NULL,
    CONSTRAINT worker_pkey PRIMARY KEY (id),
    CONSTRAINT worker_state_check CHECK (state IN ('starting', 'running', 'quiet', 'draining')),
    CONSTRAINT worker_requested_state_check CHECK (requested_state IN ('quiet', 'stop'))
)
WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE {schema}.maintenance_task (
    name text NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    last_run_at timestamptz,
    last_worker uuid,
    last_report text,
    last_error text,
    CONSTRAINT maintenance_task_pkey PRIMARY KEY (name)
);

-- How workers learn of new jobs: 1 NOTIFY, the trigger notifies; 2 POLL, it is silent and one worker, the lead poller, polls for
-- all; 3 DRAINING, it notifies again while the lead poller waits for those who may have read 2. A sequence, as its value is read
-- outside MVCC: a producer sees it as it is now, in whatever snapshot it works. jobq/_worker/wakeup/poller.py has the protocol.
CREATE SEQUENCE {schema}.notify_mode AS smallint MINVALUE 1 MAXVALUE 3 START 1 CACHE 1;

CREATE TABLE {schema}.schedule (
    next_at timestamptz DEFAULT 'epoch' NOT NULL,
    last_tick timestamptz,
    last_job_id bigint,
    created_at timestamptz DEFAULT now() NOT NULL,
    changed_at timestamptz DEFAULT now() NOT NULL,
    paused_at timestamptz,
    withdrawn_at timestamptz,
    every interval,
    timeout double precision,
    max_attempts integer DEFAULT 10 NOT NULL,
    max_missed integer DEFAULT 100 NOT NULL,
    priority smallint DEFAULT 5 NOT NULL,
    name text NOT NULL,
    task text NOT NULL,
    queue text DEFAULT 'default' NOT NULL,
    cron text,
    timezone text DEFAULT 'UTC' NOT NULL,
    missed text DEFAULT 'last' NOT NULL,
    source text DEFAULT 'runtime' NOT NULL,
    app text,
    made_by text,
    tick_argument text,
    paused_by text,
    pause_reason text,
    last_error text,
    args jsonb DEFAULT '{}' NOT NULL,
    headers jsonb DEFAULT '{}' NOT NULL,
    group_key text,
    key text,
    expires_in double precision,
    CONSTRAINT schedule_pkey PRIMARY KEY (name),
    CONSTRAINT schedule_name_check CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT schedule_when_check CHECK ((cron IS NULL) <> (every IS NULL)),
    CONSTRAINT schedule_missed_check CHECK (missed IN ('skip', 'last', 'all')),
    CONSTRAINT schedule_source_check CHECK (source IN ('code', 'runtime')),
    CONSTRAINT schedule_max_missed_check CHECK (max_missed BETWEEN 1 AND 10000),
    CONSTRAINT schedule_json_check CHECK (jsonb_typeof(args) = 'object' AND jsonb_typeof(headers) = 'object')
);

CREATE INDEX schedule_next_idx ON {schema}.schedule (next_at) WHERE paused_at IS NULL AND withdrawn_at IS NULL;

CREATE TABLE {schema}.schedule_tick (
    tick timestamptz NOT NULL,
    inserted_at timestamptz DEFAULT now() NOT NULL,
    job_id bigint NOT NULL,
    schedule text NOT NULL,
    skipped boolean DEFAULT false NOT NULL,
    CONSTRAINT schedule_tick_pkey PRIMARY KEY (schedule, tick)
);

CREATE INDEX schedule_tick_inserted_at_idx ON {schema}.schedule_tick (inserted_at);
