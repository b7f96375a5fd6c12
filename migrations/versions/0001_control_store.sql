-- The truth for stages and epochs, the journal of flips, and everything that the comparison found.
CREATE SEQUENCE railswitch.stage_version;

CREATE TABLE railswitch.stage (
    symbol        text PRIMARY KEY,
    instrument    integer NOT NULL UNIQUE,
    stage         text NOT NULL CHECK (stage IN ('off', 'shadow', 'live', 'retired')),
    epoch         bigint NOT NULL CHECK (epoch >= 0),
    holding       bigint NOT NULL DEFAULT 0,            -- flip id while proxies hold; 0: no hold
    version       bigint NOT NULL DEFAULT nextval('railswitch.stage_version'), -- grows with every change of any row
    changed_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE railswitch.stage_history (
    id            bigserial PRIMARY KEY,
    symbol        text NOT NULL,
    stage_from    text NOT NULL,
    stage_to      text NOT NULL,
    epoch         bigint NOT NULL,
    actor         text NOT NULL,
    reason        text NOT NULL,
    at            timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE railswitch.flip (
    id            bigserial PRIMARY KEY,
    symbol        text NOT NULL,
    direction     text NOT NULL CHECK (direction IN ('flip', 'rollback')),
    epoch_from    bigint NOT NULL,
    epoch_to      bigint NOT NULL,
    state         text NOT NULL CHECK (state IN ('running', 'committed', 'done', 'aborted')),
    actor         text NOT NULL,
    reason        text NOT NULL DEFAULT '',             -- why it was started by itself, or why it was aborted
    evidence      jsonb NOT NULL DEFAULT '{}',          -- the gate's decision and what it read
    hold_ms       double precision,                     -- from the announcement of the hold to its release
    started_at    timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz
);
CREATE UNIQUE INDEX flip_one_running ON railswitch.flip (symbol) WHERE state IN ('running', 'committed');

CREATE TABLE railswitch.flip_step (
    flip_id       bigint NOT NULL REFERENCES railswitch.flip (id),
    n             integer NOT NULL,
    step          text NOT NULL,
    state         text NOT NULL CHECK (state IN ('intended', 'done', 'failed')),
    detail        jsonb NOT NULL DEFAULT '{}',
    intended_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    PRIMARY KEY (flip_id, n)
);

-- The shadow's watermarks: moved in the same transaction as the verdicts that they stand for.
CREATE TABLE railswitch.shadow_position (
    shadow        text PRIMARY KEY,                     -- name of the group of instruments
    slot          text NOT NULL,
    applied_lsn   bigint NOT NULL,                      -- end of the newest transaction whose effect is recorded
    capture_id    text NOT NULL DEFAULT '',             -- newest Redis stream entry whose effect is recorded; '': none yet
    capture_next  jsonb NOT NULL DEFAULT '{}',          -- worker -> number of its next capture
    trouble       text NOT NULL DEFAULT '',             -- what the process waits for; '': nothing
    writer        text NOT NULL DEFAULT '',             -- the process that wrote it last
    flushes       bigint NOT NULL DEFAULT 0,            -- how often it was written: compared and set
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE railswitch.shadow_instrument (
    symbol            text PRIMARY KEY,
    run               integer NOT NULL DEFAULT 0,       -- number of the newest load; 0: never loaded
    first_run         integer NOT NULL DEFAULT 0,       -- the first load since it came into shadow: evidence counts from there
    loaded_lsn        bigint NOT NULL DEFAULT 0,        -- transactions that committed before it are in the load
    loaded_at         timestamptz,
    epoch             bigint NOT NULL DEFAULT 0,        -- of the stage row that this run belongs to
    following         boolean NOT NULL DEFAULT false,   -- its operations are fed to the engine
    loading           boolean NOT NULL DEFAULT false,   -- a load has begun: the engine's book is in between
    applied_lsn       bigint NOT NULL DEFAULT 0,        -- commit of its newest transaction whose verdicts are recorded
    resyncs           integer NOT NULL DEFAULT 0,       -- loads by itself since it came into shadow
    marker_flip_id    bigint NOT NULL DEFAULT 0,        -- newest fence marker consumed, with all before it compared
    taint             text NOT NULL DEFAULT '',
    root_order_id     bigint NOT NULL DEFAULT 0,        -- the first divergence since the load; 0: none
    root_verdict      text NOT NULL DEFAULT '',         -- of that one
    root_reason       text NOT NULL DEFAULT '',         -- the rules of a known one, or why it could not be compared
    pending           bigint NOT NULL DEFAULT 0,
    book_equal        boolean,
    book_lsn          bigint,
    book_checked_at   timestamptz,
    book_differences  jsonb NOT NULL DEFAULT '[]',
    lag_ms            double precision,
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE railswitch.shadow_run (                    -- one row for each load, and for each return by rollback
    symbol        text NOT NULL,
    run           integer NOT NULL,
    epoch         bigint NOT NULL,
    loaded_lsn    bigint NOT NULL,
    orders        bigint NOT NULL,                      -- open orders that it began with
    reason        text NOT NULL,
    loaded_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, run)
);

CREATE TABLE railswitch.parity_count (
    symbol        text NOT NULL,
    run           integer NOT NULL,
    window_at     timestamptz NOT NULL,                 -- start of the minute
    seen          bigint NOT NULL DEFAULT 0,            -- without the pending ones
    matched       bigint NOT NULL DEFAULT 0,
    known         bigint NOT NULL DEFAULT 0,
    mismatched    bigint NOT NULL DEFAULT 0,
    dependants    bigint NOT NULL DEFAULT 0,            -- of the mismatched: they follow from the run's first divergence
    uncomparable  bigint NOT NULL DEFAULT 0,
    gaps          bigint NOT NULL DEFAULT 0,
    dark          bigint NOT NULL DEFAULT 0,
    reordered     bigint NOT NULL DEFAULT 0,
    fills         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (symbol, run, window_at)
);

CREATE TABLE railswitch.verdict (                       -- everything that is not a plain match
    id            bigserial PRIMARY KEY,
    symbol        text NOT NULL,
    run           integer NOT NULL,
    operation     text NOT NULL,
    order_id      bigint NOT NULL,
    verdict       text NOT NULL,
    kinds         text[] NOT NULL DEFAULT '{}',
    root_order_id bigint NOT NULL DEFAULT 0,
    commit_lsn    bigint NOT NULL DEFAULT 0,
    body          jsonb NOT NULL,                       -- shadow.verdict.OperationVerdict
    at            timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX verdict_by_symbol ON railswitch.verdict (symbol, run, id);

CREATE TABLE railswitch.known_hit (
    rule          text PRIMARY KEY,
    hits          bigint NOT NULL DEFAULT 0
);

CREATE TABLE railswitch.latency (
    symbol        text NOT NULL,
    run           integer NOT NULL,
    side          text NOT NULL CHECK (side IN ('legacy', 'engine')),
    window_at     timestamptz NOT NULL,
    histogram     text NOT NULL,                        -- HdrHistogram, its own base64 encoding, microseconds
    PRIMARY KEY (symbol, run, side, window_at)
);

CREATE TABLE railswitch.capture_gap (
    worker        text NOT NULL,
    first         bigint NOT NULL,
    last          bigint NOT NULL,
    at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (worker, first)
);
