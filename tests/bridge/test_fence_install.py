"""Putting the fence in and taking it out: idempotent, refused where it would do harm, no trace."""

from __future__ import annotations

import msgspec
import psycopg
import pytest
from legacy_side import (
    MAPPING,
    PUBLICATION,
    SLOT,
    application,
    give,
    insert_order,
    install,
    ours,
    run,
    streaming,
)
from psycopg.errors import ObjectNotInPrerequisiteState

from bridge import fence
from bridge.errors import BridgeError, FenceBusy, FenceNotInstalled
from bridge.sandbox.provision import as_role
from shadow.legacy import polling_slots
from shadow.legacy.changes import create_slot


@pytest.fixture
def legacy(legacy_database: str) -> str:
    """A sandbox exchange with the fence."""
    install(legacy_database)
    return legacy_database


_CATALOGUE = {
    "classes": """
        SELECT c.oid::regclass::text, c.relkind, c.relreplident, a.grantee::regrole,
               a.privilege_type
        FROM pg_class c
        CROSS JOIN LATERAL (SELECT CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char") k (kind)
        CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault(k.kind, c.relowner))) a
        WHERE c.relnamespace NOT IN ('pg_toast'::regnamespace, 'pg_catalog'::regnamespace)""",
    "columns": """
        SELECT attrelid::regclass::text, attname, attnum, attoptions FROM pg_attribute
        WHERE attrelid IN (SELECT oid FROM pg_class WHERE relname IN ('orders', 'trades'))""",
    "triggers": "SELECT tgrelid::regclass::text, tgname FROM pg_trigger",
    "functions": "SELECT proname, pronamespace::regnamespace::text, proacl::text FROM pg_proc",
    "schemas": "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_t'",
    "publications": "SELECT pubname FROM pg_publication",
    "slots": "SELECT slot_name FROM pg_replication_slots",
    "roles": "SELECT rolname FROM pg_roles",
    "default privileges": "SELECT oid FROM pg_default_acl",
    "types": "SELECT typname FROM pg_type WHERE typname !~ '^pg_toast'",
    "settings": "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting",
}


def catalogue(database: str) -> dict[str, list[str]]:
    with psycopg.connect(database, autocommit=True) as admin:
        return {
            name: sorted(map(repr, admin.execute(query.encode()).fetchall()))
            for name, query in _CATALOGUE.items()
        }


def remove(database: str, *, role: str = "railswitch") -> None:
    run(
        fence.uninstall(
            as_role(database, "exchange"),
            MAPPING,
            PUBLICATION,
            role,
            url=ours(database),
            slot=SLOT,
        )
    )


def put_in(
    database: str,
    *,
    role: str = "railswitch",
    installer: str = "exchange",
    polling: bool = False,
) -> None:
    url = as_role(database, installer)
    run(fence.install(url, MAPPING, PUBLICATION, role, polling=polling))


def test_uninstall_leaves_no_trace(legacy_database: str) -> None:
    before = catalogue(legacy_database)
    put_in(legacy_database)
    run(create_slot(ours(legacy_database), SLOT))
    give(legacy_database)
    give(legacy_database, "legacy", 2, 2)
    installed = catalogue(legacy_database)
    for name in ("classes", "triggers", "functions", "schemas", "publications", "slots"):
        assert installed[name] != before[name]
    remove(legacy_database)
    assert catalogue(legacy_database) == before
    remove(legacy_database)
    assert catalogue(legacy_database) == before


def test_what_polling_needs_is_put_in_once_and_taken_out_whole(legacy_database: str) -> None:
    before = catalogue(legacy_database)
    put_in(legacy_database, polling=True)
    run(polling_slots.create_slot(ours(legacy_database), SLOT, MAPPING))
    with application(legacy_database) as app:
        insert_order(app)
    installed = catalogue(legacy_database)
    assert any("railswitch_capture" in one for one in installed["triggers"])
    put_in(legacy_database, polling=True)
    assert catalogue(legacy_database) == installed
    with psycopg.connect(ours(legacy_database)) as connection:
        assert connection.execute("SELECT count(*) FROM railswitch.changes").fetchone() == (1,)
    remove(legacy_database)
    assert catalogue(legacy_database) == before


def test_a_role_that_install_made_goes_with_it(legacy_database: str) -> None:
    before = catalogue(legacy_database)
    role = "rs_new_role"
    run(fence.install(legacy_database, MAPPING, PUBLICATION, role))
    with psycopg.connect(as_role(legacy_database, role), autocommit=True) as connection:
        query = "SELECT rolreplication FROM pg_roles WHERE rolname = session_user"
        assert connection.execute(query).fetchone() == (True,)
        with pytest.raises(ObjectNotInPrerequisiteState, match="railswitch may not write"):
            insert_order(connection)
    with psycopg.connect(legacy_database, autocommit=True) as admin:
        admin.execute(fence.uninstall_sql(MAPPING, PUBLICATION, role).encode())
    assert catalogue(legacy_database) == before


def test_installing_again_changes_nothing_and_keeps_the_owners(legacy: str) -> None:
    give(legacy, "engine", 5, 9)
    before = catalogue(legacy)
    put_in(legacy)
    assert catalogue(legacy) == before
    assert run(fence.read(ours(legacy)))["BTC-USD"].owner == "engine"


def test_a_table_in_a_schema_of_its_own_is_fenced_too(legacy_database: str) -> None:
    with application(legacy_database) as app:
        app.execute('CREATE SCHEMA "Trading"; ALTER TABLE orders SET SCHEMA "Trading"')
        before = catalogue(legacy_database)
        orders = msgspec.structs.replace(
            MAPPING.orders, table="Trading.orders", id_sequence="Trading.orders_id_seq"
        )
        mapping = msgspec.structs.replace(MAPPING, orders=orders)
        app.execute(fence.install_sql(mapping, PUBLICATION, "railswitch").encode())
        app.execute('SET search_path = "Trading", public')
        insert_order(app)
        give(legacy_database)
        with pytest.raises(ObjectNotInPrerequisiteState):
            insert_order(app)
        with psycopg.connect(ours(legacy_database), autocommit=True) as back:
            back.execute('SET search_path = "Trading", public')
            insert_order(back)
        give(legacy_database, "legacy", 2, 2)
        app.execute(fence.uninstall_sql(mapping, PUBLICATION, "railswitch").encode())
    after = catalogue(legacy_database)
    # Not byte for byte: PostgreSQL writes out the owner's own rights on what was ever granted.
    assert [one.split(",")[0] for one in after.pop("schemas")] == [
        one.split(",")[0] for one in before.pop("schemas")
    ]
    assert after == before


def test_uninstall_is_refused_while_the_engine_owns_anything(legacy: str) -> None:
    run(create_slot(ours(legacy), SLOT))
    give(legacy)
    before = catalogue(legacy)
    with pytest.raises(BridgeError, match=r"engine owns BTC-USD.*railswitch rollback"):
        remove(legacy)
    with application(legacy) as app:
        script = fence.uninstall_sql(MAPPING, PUBLICATION, "railswitch").encode()
        with pytest.raises(ObjectNotInPrerequisiteState, match="owns BTC-USD"):
            app.execute(script)
    assert catalogue(legacy) == before


def test_uninstall_is_refused_while_the_slot_is_read(legacy: str) -> None:
    async def main() -> None:
        await create_slot(ours(legacy), SLOT)
        async with streaming(ours(legacy)):
            with pytest.raises(BridgeError, match="stop `railswitch shadow` first"):
                await fence.uninstall(
                    as_role(legacy, "exchange"),
                    MAPPING,
                    PUBLICATION,
                    "railswitch",
                    url=ours(legacy),
                    slot=SLOT,
                    busy_s=0,
                )

    run(main())
    assert run(fence.read(ours(legacy))) == {}


def test_a_control_store_in_the_same_database_survives(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("CREATE TABLE railswitch.stage (symbol text)")
        remove(legacy)
        app.execute("SELECT * FROM railswitch.stage")


def test_a_table_without_primary_key_is_refused_with_nothing_changed(legacy_database: str) -> None:
    with application(legacy_database) as app:
        app.execute("ALTER TABLE trades DROP CONSTRAINT trades_pkey")
    before = catalogue(legacy_database)
    with pytest.raises(BridgeError, match=r"trades has no primary key.*Give it"):
        put_in(legacy_database)
    assert catalogue(legacy_database) == before


def test_a_locked_table_is_not_waited_for_long_and_who_locks_it_is_named(
    legacy_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with application(legacy_database) as app:
        app.execute("BEGIN")
        insert_order(app)
        with pytest.raises(FenceBusy, match=rf"pid {app.info.backend_pid} \(exchange\)"):
            put_in(legacy_database)
        app.execute("COMMIT")
    put_in(legacy_database)


def test_the_plan_makes_the_role_only_where_it_is_missing(legacy_database: str) -> None:
    def planned(role: str) -> str:
        return run(fence.plan(legacy_database, MAPPING, PUBLICATION, role))

    assert "CREATE ROLE" not in planned("railswitch")
    assert 'CREATE ROLE "another" LOGIN REPLICATION' in planned("another")


def test_without_the_fence_taking_and_reading_say_what_to_do(legacy_database: str) -> None:
    with pytest.raises(FenceNotInstalled, match="legacy install --execute"):
        give(legacy_database)
    with pytest.raises(FenceNotInstalled, match="legacy install --execute"):
        run(fence.read(ours(legacy_database)))


def test_a_role_without_our_grants_is_told_to_install(legacy: str) -> None:
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute("REVOKE ALL ON railswitch.fence FROM railswitch")
    with pytest.raises(FenceNotInstalled, match="permission denied"):
        give(legacy)


@pytest.mark.parametrize("how", ["DISABLE", "ENABLE", "ENABLE REPLICA", "DROP"])
@pytest.mark.parametrize("trigger", ["railswitch_guard", "railswitch_guard_truncate"])
@pytest.mark.parametrize("name", ["orders", "trades"])
def test_no_flip_while_a_trigger_of_the_fence_would_let_a_writer_through(
    legacy_database: str, name: str, trigger: str, how: str
) -> None:
    install(legacy_database)
    url = ours(legacy_database)
    assert run(fence.unguarded(url, MAPPING, "BTC-USD")) == ""
    statement = f"ALTER TABLE {name} {how} TRIGGER {trigger}"
    if how == "DROP":
        statement = f"DROP TRIGGER {trigger} ON {name}"
    with psycopg.connect(legacy_database, autocommit=True) as admin:
        admin.execute(statement.encode())
    said = run(fence.unguarded(url, MAPPING, "BTC-USD"))
    assert trigger in said
    assert "railswitch legacy install --execute" in said
