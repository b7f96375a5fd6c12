-- Takes railswitch's fence out of the legacy database: `railswitch legacy uninstall`.
--
-- Run it as whoever installed it. The replication slot is dropped apart from it, for that can't be
-- done in a transaction; in psql: SELECT pg_drop_replication_slot(…). It may be run again.

BEGIN;

SET LOCAL lock_timeout = '2s';
SET LOCAL client_min_messages = warning;  -- "does not exist, skipping" is no news

-- Without the fence, legacy and the engine would both match an instrument that is live.
DO $$
DECLARE
    held  text;
BEGIN
    IF to_regclass('railswitch.fence') IS NULL THEN
        RETURN;
    END IF;
    LOCK TABLE railswitch.fence IN SHARE MODE;
    SELECT string_agg(symbol, ', ' ORDER BY symbol) INTO held
        FROM railswitch.fence WHERE owner = 'engine';
    IF held IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = '55000',
            MESSAGE = format('the matching engine owns %s: without the fence, legacy would match its orders too', held),
            HINT = 'Take it back with `railswitch rollback` first.';
    END IF;
END
$$;

DROP TRIGGER IF EXISTS railswitch_guard ON {orders};
DROP TRIGGER IF EXISTS railswitch_guard_truncate ON {orders};
DROP TRIGGER IF EXISTS railswitch_guard ON {fills};
DROP TRIGGER IF EXISTS railswitch_guard_truncate ON {fills};
DROP TRIGGER IF EXISTS "0_railswitch_capture" ON {orders};
DROP TRIGGER IF EXISTS railswitch_capture_truncate ON {orders};
DROP TRIGGER IF EXISTS "0_railswitch_capture" ON {fills};
DROP TRIGGER IF EXISTS railswitch_capture_truncate ON {fills};
DROP PUBLICATION IF EXISTS {publication};
DROP FUNCTION IF EXISTS railswitch.guard();
DROP FUNCTION IF EXISTS railswitch.guard_truncate();
DROP FUNCTION IF EXISTS railswitch.instrument_of(text, text);
DROP TABLE IF EXISTS railswitch.fence, railswitch.written, railswitch.fill_map,
    railswitch.reservations, railswitch.change_windows, railswitch.change_slots,
    railswitch.changes;
DROP SEQUENCE IF EXISTS railswitch.capturing;
DROP FUNCTION IF EXISTS railswitch.capture();
DROP FUNCTION IF EXISTS railswitch.capture_ours();

DO $$
DECLARE
    granted  record;
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = {role_text}) THEN
        REVOKE ALL ON {tables} FROM {role};
        FOR granted IN
            SELECT DISTINCT c.oid::regclass AS name
            FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.relkind = 'S' AND a.grantee = {role_text}::regrole
              AND (c.oid IN (
                to_regclass({id_sequence_text}),
                to_regclass(pg_get_serial_sequence({orders_text}, {orders_id_text})),
                to_regclass(pg_get_serial_sequence({fills_text}, {fills_id_text})))
                OR EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid
                    AND d.deptype IN ('a', 'i') AND d.refobjid = ANY ({funds_tables_there})))
        LOOP
            EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM %I', granted.name, {role_text});
        END LOOP;
        FOR granted IN
            SELECT t.name FROM unnest({funds_tables_there} || {instrument_tables_there})
                AS t (name) WHERE t.name IS NOT NULL
        LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %I', granted.name, {role_text});
        END LOOP;
        FOR granted IN
            SELECT DISTINCT n.nspname AS name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(n.nspacl) a
            WHERE c.oid = ANY ({funds_tables_there} || {instrument_tables_there}
                    || ARRAY[{orders_text}, {fills_text}]::regclass[])
              AND a.grantee = {role_text}::regrole
        LOOP
            EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %I', granted.name, {role_text});
        END LOOP;
    END IF;
    -- A control store kept in this database has the same schema, and stays.
    IF to_regnamespace('railswitch') IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_depend
        WHERE refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace('railswitch')
    ) THEN
        DROP SCHEMA railswitch;
    END IF;
END
$$;

DO $$
BEGIN
    -- The role too, if it was made for this and nothing else depends on it.
    IF shobj_description(to_regrole({role_text}), 'pg_authid') = {role_comment} THEN
        DROP ROLE {role};
    END IF;
EXCEPTION
    WHEN dependent_objects_still_exist THEN
        RAISE WARNING 'role % is still in use elsewhere and stays', {role_text};
END
$$;

COMMIT;
