CREATE TABLE railswitch.dark_writer (                   -- of the dark operations whose transaction was seen
    symbol        text NOT NULL,
    run           integer NOT NULL,
    role          text NOT NULL,                        -- '': writers beyond the bound, together
    application   text NOT NULL,
    operations    bigint NOT NULL,
    PRIMARY KEY (symbol, run, role, application)
);

CREATE TABLE railswitch.writer_seen (                   -- whoever had a transaction open that wrote, of the last day
    role          text NOT NULL,
    application   text NOT NULL,
    transactions  bigint NOT NULL,
    last_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (role, application)
);
