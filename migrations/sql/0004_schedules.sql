-- Revision 0004: schedules. jobq/scheduletables.py says what each table promises.

ALTER TABLE {schema}.worker ADD COLUMN schedules text[] DEFAULT '{}' NOT NULL;

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
    source text DEFAULT 'run time' NOT NULL,
    app text,
    made_by text,
    tick_argument text,
    paused_by text,
    pause_reason text,
    last_error text,
    args jsonb DEFAULT '{}' NOT NULL,
    headers jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT schedule_pkey PRIMARY KEY (name),
    CONSTRAINT schedule_name_check CHECK (length(name) BETWEEN 1 AND 200),
    CONSTRAINT schedule_when_check CHECK ((cron IS NULL) <> (every IS NULL)),
    CONSTRAINT schedule_missed_check CHECK (missed IN ('skip', 'last', 'all')),
    CONSTRAINT schedule_source_check CHECK (source IN ('code', 'run time')),
    CONSTRAINT schedule_max_missed_check CHECK (max_missed BETWEEN 1 AND 10000),
    CONSTRAINT schedule_json_check CHECK (jsonb_typeof(args) = 'object' AND jsonb_typeof(headers) = 'object')
);

CREATE INDEX schedule_next_idx ON {schema}.schedule (next_at) WHERE paused_at IS NULL AND withdrawn_at IS NULL;

CREATE TABLE {schema}.schedule_tick (
    tick timestamptz NOT NULL,
    inserted_at timestamptz DEFAULT now() NOT NULL,
    job_id bigint NOT NULL,
    schedule text NOT NULL,
    CONSTRAINT schedule_tick_pkey PRIMARY KEY (schedule, tick)
);

CREATE INDEX schedule_tick_inserted_at_idx ON {schema}.schedule_tick (inserted_at);
