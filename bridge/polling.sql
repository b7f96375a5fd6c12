-- railswitch's record of changes in the legacy database, for one that has no logical decoding:
-- `railswitch legacy install --polling`, after the fence.
--
-- Triggers write every change of {orders} and {fills} into a table of ours, with the transaction
-- that made it; the shadow asks for what has committed since it asked last, and deletes what it has
-- recorded. While no shadow wants the changes nothing is written. Run it as the owner of both
-- tables. It may be run again. `railswitch legacy uninstall` takes it away.

BEGIN;

SET LOCAL lock_timeout = '2s';
SET LOCAL client_min_messages = warning;

-- Who wants the changes, and up to where they were recorded.
CREATE TABLE IF NOT EXISTS railswitch.change_slots (
    slot        text PRIMARY KEY,
    position    bigint NOT NULL,                        -- everything after it can still be given
    seen        pg_snapshot NOT NULL,                   -- what is visible in it lies before
    triggers    oid[] NOT NULL,                         -- that have captured since it was made
    made_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Transactions that were found, in the order in which they are given, and the positions that they
-- were given: the same again, however often they are read.
CREATE TABLE IF NOT EXISTS railswitch.change_windows (
    slot        text NOT NULL REFERENCES railswitch.change_slots ON DELETE CASCADE,
    first       bigint NOT NULL,                        -- position of the first; each takes two
    behind      bigint NOT NULL,                        -- position behind the last
    seen        pg_snapshot NOT NULL,
    xids        xid8[] NOT NULL,
    commits_us  bigint[] NOT NULL,                      -- microseconds since 1970
    PRIMARY KEY (slot, first)
);

CREATE TABLE IF NOT EXISTS railswitch.changes (
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq         bigint GENERATED ALWAYS AS IDENTITY,    -- no cache: it grows with time
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text NOT NULL,                          -- orders, fills, or ours: a message
    op          text NOT NULL,                          -- I, U, D, T, M
    was         text,                                   -- the row before, as JSON
    becomes     text,                                   -- and after it
    PRIMARY KEY (xid, seq)
);
-- Rows live for seconds. Without these its dead ones would outgrow the living.
ALTER TABLE railswitch.changes SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0
);

-- 1: nobody wants changes, 2: somebody does. A sequence, because its value is the same to every
-- transaction, however old its snapshot.
CREATE SEQUENCE IF NOT EXISTS railswitch.capturing MINVALUE 1 MAXVALUE 2;

CREATE OR REPLACE FUNCTION railswitch.capture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $capture$
DECLARE
    old_row  text;
    new_row  text;
BEGIN
    IF (SELECT last_value FROM railswitch.capturing) = 1 THEN
        RETURN NULL;
    END IF;
    -- The whole row: whatever becomes of its columns, a write of the monolith never fails here.
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        old_row := to_json(OLD);
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        new_row := to_json(NEW);
    END IF;
    INSERT INTO railswitch.changes (kind, op, was, becomes)
        VALUES (TG_ARGV[0], left(TG_OP, 1), old_row, new_row);
    RETURN NULL;
END
$capture$;

-- The fence's marker, and the mark of our own write-back: as in the change stream.
CREATE OR REPLACE FUNCTION railswitch.capture_ours() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $capture$
DECLARE
    message  json;
BEGIN
    IF (SELECT last_value FROM railswitch.capturing) = 1 THEN
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME = 'fence' THEN
        message := json_build_object('kind', 'fence', 'symbol', NEW.symbol,
            'flip_id', NEW.flip_id, 'owner', NEW.owner, 'epoch', NEW.epoch);
    ELSE
        message := json_build_object('kind', 'written', 'shard', NEW.shard, 'seq', NEW.seq);
    END IF;
    INSERT INTO railswitch.changes (kind, op, becomes) VALUES ('ours', 'M', message);
    RETURN NULL;
END
$capture$;

REVOKE ALL ON FUNCTION railswitch.capture(), railswitch.capture_ours() FROM PUBLIC;

-- Triggers of a row fire by name: before one of the monolith's that changes the row once more.
CREATE OR REPLACE TRIGGER "0_railswitch_capture" AFTER INSERT OR UPDATE OR DELETE ON {orders}
    FOR EACH ROW EXECUTE FUNCTION railswitch.capture('orders');
CREATE OR REPLACE TRIGGER "0_railswitch_capture" AFTER INSERT OR UPDATE OR DELETE ON {fills}
    FOR EACH ROW EXECUTE FUNCTION railswitch.capture('fills');
CREATE OR REPLACE TRIGGER railswitch_capture_truncate AFTER TRUNCATE ON {orders}
    FOR EACH STATEMENT EXECUTE FUNCTION railswitch.capture('orders');
CREATE OR REPLACE TRIGGER railswitch_capture_truncate AFTER TRUNCATE ON {fills}
    FOR EACH STATEMENT EXECUTE FUNCTION railswitch.capture('fills');
-- Flip 0 is of no flip: rows that the fence makes to have something to lock.
CREATE OR REPLACE TRIGGER railswitch_capture AFTER INSERT OR UPDATE ON railswitch.fence
    FOR EACH ROW WHEN (NEW.flip_id <> 0) EXECUTE FUNCTION railswitch.capture_ours();
CREATE OR REPLACE TRIGGER railswitch_capture AFTER UPDATE ON railswitch.written
    FOR EACH ROW EXECUTE FUNCTION railswitch.capture_ours();
ALTER TABLE {orders} ENABLE ALWAYS TRIGGER "0_railswitch_capture";
ALTER TABLE {fills} ENABLE ALWAYS TRIGGER "0_railswitch_capture";
ALTER TABLE {orders} ENABLE ALWAYS TRIGGER railswitch_capture_truncate;
ALTER TABLE {fills} ENABLE ALWAYS TRIGGER railswitch_capture_truncate;

GRANT SELECT, INSERT, DELETE, TRUNCATE ON railswitch.changes TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE
    ON railswitch.change_slots, railswitch.change_windows TO {role};
GRANT SELECT, UPDATE ON SEQUENCE railswitch.capturing TO {role};

COMMIT;
