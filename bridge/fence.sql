-- railswitch's fence in the legacy database: `railswitch legacy install`.
--
-- It decides, inside the database and for whoever writes, whether a row of an instrument may be
-- written: by the monolith while legacy owns the instrument, by role {role_text} while the engine
-- does. Everything of ours is in schema railswitch; of the legacy tables nothing changes but four
-- triggers. Run it as the owner of {orders} and {fills}. It may be run again at any time.
-- `railswitch legacy uninstall` takes all of it away.

BEGIN;

-- CREATE TRIGGER must wait for the writers of the table, and others wait behind it: never for long.
SET LOCAL lock_timeout = '2s';
SET LOCAL client_min_messages = warning;  -- "already exists, skipping" is no news
{create_role}
-- Publishing a table without a replica identity would make the monolith's own updates fail.
DO $$
DECLARE
    published regclass;
BEGIN
    FOREACH published IN ARRAY ARRAY[{orders_text}, {fills_text}]::regclass[] LOOP
        IF NOT EXISTS (
            SELECT FROM pg_class c
            LEFT JOIN pg_index i ON i.indrelid = c.oid
                AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
            WHERE c.oid = published AND (c.relreplident = 'f' OR i.indrelid IS NOT NULL)
        ) THEN
            RAISE EXCEPTION USING
                ERRCODE = '55000',
                MESSAGE = format('table %s has no primary key: with it in a publication every UPDATE of it would fail', published),
                HINT = 'Give it a primary key, or a replica identity.';
        END IF;
    END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS railswitch;

-- Who owns an instrument. No row: legacy, since ever.
CREATE TABLE IF NOT EXISTS railswitch.fence (
    symbol      text PRIMARY KEY,
    owner       text NOT NULL CHECK (owner IN ('legacy', 'engine')),
    epoch       bigint NOT NULL CHECK (epoch >= 0),
    flip_id     bigint NOT NULL,                        -- that made it so; 0: none
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- How far the engine's events have been written to the legacy tables; moved with the rows.
CREATE TABLE IF NOT EXISTS railswitch.written (
    shard       integer PRIMARY KEY,
    seq         bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which legacy fill is which event of the engine.
CREATE TABLE IF NOT EXISTS railswitch.fill_map (
    shard       integer NOT NULL,
    seq         bigint NOT NULL,
    sub         integer NOT NULL,
    fill_id     bigint NOT NULL,
    PRIMARY KEY (shard, seq, sub)
);

-- Money that is locked in the monolith's accounts for an order of which the engine has not said
-- anything yet. A row whose order was given up stays for a while, against whoever comes late.
CREATE TABLE IF NOT EXISTS railswitch.reservations (
    order_id    bigint PRIMARY KEY,
    symbol      text NOT NULL,
    epoch       bigint NOT NULL,                        -- that the order was sent at
    account     bigint NOT NULL,
    side        smallint NOT NULL,                      -- 1: buy, 2: sell
    price       numeric,                                -- NULL: a market order
    quantity    numeric NOT NULL,
    amount      numeric NOT NULL,
    session     text NOT NULL,                          -- of the proxy worker with the engine
    worker      text NOT NULL,                          -- that process
    state       text NOT NULL CHECK (state IN ('reserved', 'released')),
    reserved_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which instrument a value of the symbol column is of, by the mapping as it was at this install.
CREATE OR REPLACE FUNCTION railswitch.instrument_of(kind text, value text) RETURNS text
LANGUAGE sql IMMUTABLE AS $instrument$
    SELECT CASE kind WHEN 'orders' THEN {orders_instrument} ELSE {fills_instrument} END
$instrument$;

CREATE OR REPLACE FUNCTION railswitch.guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $guard$
DECLARE
    ours        constant boolean := session_user = {role_text};  -- SET ROLE doesn't change it
    concerned   boolean := false;
    was         text;    -- the row's instrument before the statement
    becomes     text;    -- and after it
    instrument  text;
    holder      text;
    held_epoch  bigint;
BEGIN
    IF TG_ARGV[0] = 'orders' THEN
        IF TG_OP <> 'INSERT' THEN
            IF {orders_was_inside} THEN concerned := true; was := {orders_was}; END IF;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            IF {orders_becomes_inside} THEN concerned := true; becomes := {orders_becomes}; END IF;
        END IF;
    ELSE
        IF TG_OP <> 'INSERT' THEN
            IF {fills_was_inside} THEN concerned := true; was := {fills_was}; END IF;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            IF {fills_becomes_inside} THEN concerned := true; becomes := {fills_becomes}; END IF;
        END IF;
    END IF;
    IF NOT concerned THEN  -- not one of the rows that the mapping is about
        IF TG_OP = 'DELETE' THEN
            RETURN OLD;
        END IF;
        RETURN NEW;
    END IF;
    instrument := least(was, becomes);  -- both, in one order for everybody
    LOOP
        -- First the advisory lock: `take` gets it as soon as the writers of this moment are done,
        -- for later ones queue behind it. It alone lets an old snapshot through.
        PERFORM pg_advisory_xact_lock_shared({key}, hashtext(instrument));
        -- Then the row itself: to a REPEATABLE READ transaction older than the last change it is a
        -- serialization failure. It alone would let busy writers keep `take` out for ever.
        SELECT f.owner, f.epoch INTO holder, held_epoch
            FROM railswitch.fence f WHERE f.symbol = instrument FOR SHARE;
        IF NOT FOUND THEN
            holder := 'legacy';
            held_epoch := 0;
            -- An old snapshot can't see a row made after it; the unique index can. With the row
            -- made here there is nothing to overlook.
            IF instrument IS NOT NULL
                AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
            THEN
                INSERT INTO railswitch.fence (symbol, owner, epoch, flip_id)
                    VALUES (instrument, 'legacy', 0, 0) ON CONFLICT DO NOTHING;
            END IF;
        END IF;
        IF ours <> (holder = 'engine') THEN
            RAISE EXCEPTION USING
                ERRCODE = '55000',  -- object_not_in_prerequisite_state
                MESSAGE = format(
                    'instrument %s is owned by %s (epoch %s): %s may not write its %s',
                    coalesce(instrument, 'NULL'),
                    CASE holder WHEN 'engine' THEN 'the matching engine' ELSE 'legacy' END,
                    held_epoch,
                    CASE WHEN ours THEN 'railswitch' ELSE 'legacy' END,
                    TG_ARGV[0]),
                HINT = CASE WHEN ours THEN 'Only a flip gives it to the engine.'
                    ELSE 'Orders for it go through the railswitch proxy; `railswitch rollback` gives it back.' END,
                SCHEMA = TG_TABLE_SCHEMA,
                TABLE = TG_TABLE_NAME;
        END IF;
        EXIT WHEN instrument IS NOT DISTINCT FROM greatest(was, becomes);
        instrument := greatest(was, becomes);
    END LOOP;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END
$guard$;

-- TRUNCATE has no rows to ask. The table lock keeps `take` out until it has ended.
CREATE OR REPLACE FUNCTION railswitch.guard_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $guard$
DECLARE
    held  text;
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('%s can be truncated only at isolation level READ COMMITTED', TG_TABLE_NAME),
            HINT = 'An older snapshot can''t tell which instruments the matching engine owns.';
    END IF;
    LOCK TABLE railswitch.fence IN SHARE MODE;
    SELECT string_agg(f.symbol, ', ' ORDER BY f.symbol) INTO held
        FROM railswitch.fence f WHERE f.owner = 'engine';
    IF held IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('%s can''t be truncated: it holds orders of %s, owned by the matching engine', TG_TABLE_NAME, held),
            HINT = '`railswitch rollback` gives them back.';
    END IF;
    RETURN NULL;
END
$guard$;

REVOKE ALL ON FUNCTION railswitch.guard(), railswitch.guard_truncate(),
    railswitch.instrument_of(text, text) FROM PUBLIC;

CREATE OR REPLACE TRIGGER railswitch_guard BEFORE INSERT OR UPDATE OR DELETE ON {orders}
    FOR EACH ROW EXECUTE FUNCTION railswitch.guard('orders');
CREATE OR REPLACE TRIGGER railswitch_guard BEFORE INSERT OR UPDATE OR DELETE ON {fills}
    FOR EACH ROW EXECUTE FUNCTION railswitch.guard('fills');
CREATE OR REPLACE TRIGGER railswitch_guard_truncate BEFORE TRUNCATE ON {orders}
    FOR EACH STATEMENT EXECUTE FUNCTION railswitch.guard_truncate();
CREATE OR REPLACE TRIGGER railswitch_guard_truncate BEFORE TRUNCATE ON {fills}
    FOR EACH STATEMENT EXECUTE FUNCTION railswitch.guard_truncate();
-- Also for sessions with session_replication_role = replica, such as restore tools.
ALTER TABLE {orders} ENABLE ALWAYS TRIGGER railswitch_guard;
ALTER TABLE {fills} ENABLE ALWAYS TRIGGER railswitch_guard;
ALTER TABLE {orders} ENABLE ALWAYS TRIGGER railswitch_guard_truncate;
ALTER TABLE {fills} ENABLE ALWAYS TRIGGER railswitch_guard_truncate;

-- The change stream. Whole tables: a row filter would make the monolith's own updates fail.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_publication WHERE pubname = {publication_text}) THEN
        ALTER PUBLICATION {publication} SET TABLE {tables};
        -- Only where it must be: every change of it counts as a loss of what was written before.
        IF NOT (SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate
                FROM pg_publication WHERE pubname = {publication_text}) THEN
            ALTER PUBLICATION {publication}
                SET (publish = 'insert, update, delete, truncate');
        END IF;
    ELSE
        CREATE PUBLICATION {publication} FOR TABLE {tables};
    END IF;
END
$$;

-- What the role needs: to read and write these two tables, those of the accounts where orders lock
-- money, to read that of the instruments where there is one, to take ids, and our own tables.
GRANT SELECT, INSERT, UPDATE ON {tables} TO {role};
GRANT USAGE ON SCHEMA railswitch TO {role};
GRANT EXECUTE ON FUNCTION railswitch.instrument_of(text, text) TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE
    ON railswitch.fence, railswitch.written, railswitch.fill_map, railswitch.reservations
    TO {role};
DO $$
DECLARE
    needed  record;
BEGIN
    FOR needed IN
        SELECT sequence FROM (VALUES
            ({id_sequence_text}),
            (pg_get_serial_sequence({orders_text}, {orders_id_text})),
            (pg_get_serial_sequence({fills_text}, {fills_id_text}))) AS wanted (sequence)
        WHERE sequence IS NOT NULL
        UNION
        SELECT d.objid::regclass::text FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
        WHERE c.relkind = 'S' AND d.deptype IN ('a', 'i') AND d.refobjid = ANY ({funds_tables})
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %I', needed.sequence::regclass, {role_text});
    END LOOP;
    FOR needed IN SELECT unnest({instrument_tables}) AS name LOOP
        EXECUTE format('GRANT SELECT ON %s TO %I', needed.name, {role_text});
    END LOOP;
    FOR needed IN SELECT unnest({funds_tables}) AS name LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %s TO %I', needed.name, {role_text});
    END LOOP;
    FOR needed IN
        SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ({funds_tables} || {instrument_tables}
                || ARRAY[{orders_text}, {fills_text}]::regclass[])
          AND NOT has_schema_privilege({role_text}, n.oid, 'USAGE')
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', needed.nspname, {role_text});
    END LOOP;
END
$$;

COMMIT;
