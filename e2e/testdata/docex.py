"""What a stock DocEX does with psycopg2 when its host and port are the proxy's.

The statements and their order are those that SQLAlchemy 1.4 sends for DocEX's engines. Prints "ok" when everything is
as it is without a proxy; fails with a traceback otherwise.
"""
import os
import threading

import psycopg2
import psycopg2.errors
import psycopg2.pool

SCHEMA = os.environ["E2E_SCHEMA"]
DSN = dict(
    host=os.environ["E2E_HOST"],
    port=os.environ["E2E_PORT"],
    dbname=os.environ["E2E_DATABASE"],
    user=os.environ["E2E_LOGIN"],
    password=os.environ["E2E_PASSWORD"],
    sslmode="prefer",
)


def value(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchone()[0]


def connect():
    """Opens a connection and makes SQLAlchemy's first inquiries and DocEX's connect event."""
    conn = psycopg2.connect(options=f"-csearch_path={SCHEMA},public,pg_catalog", **DSN)
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'"
        )
        conn.rollback()
        assert value(cursor, "select pg_catalog.version()").startswith("PostgreSQL")
        assert value(cursor, "select current_schema()") == SCHEMA, "before any SET"
        assert value(cursor, "show transaction isolation level") == "read committed"
        assert value(cursor, "show standard_conforming_strings") == "on"
        conn.rollback()
        cursor.execute(f'SET search_path TO "{SCHEMA}", public, pg_catalog')
        conn.commit()
        cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_%' ORDER BY nspname")
        assert (SCHEMA,) in cursor.fetchall()
        conn.rollback()
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %(schema)s AND c.relkind in ('r', 'p')",
            {"schema": SCHEMA},
        )
        assert ("docbasket",) in cursor.fetchall()
        conn.rollback()
    return conn


def basket(conn, name):
    """One unit of DocEX's ORM: BEGIN, INSERT, SELECT, COMMIT."""
    with conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO docbasket (id, name, description, storage_config, created_at, updated_at, status) "
            "VALUES (%s, %s, %s, '{}', now(), now(), 'active')",
            (name, name, "it's a 100 % basket"),
        )
        found = value(cursor, "SELECT description FROM docbasket WHERE id = %s", (name,))
        assert found == "it's a 100 % basket", found
        assert value(cursor, "select current_schema()") == SCHEMA
    conn.commit()


def errors_are_postgres_own(conn):
    with conn.cursor() as cursor:
        try:
            cursor.execute("SELECT * FROM nowhere")
            raise AssertionError("no error")
        except psycopg2.errors.UndefinedTable:
            conn.rollback()
        cursor.execute("SAVEPOINT sa_savepoint_1")
        try:
            cursor.execute("CREATE INDEX x ON nowhere (x)")
        except psycopg2.errors.UndefinedTable:
            cursor.execute("ROLLBACK TO SAVEPOINT sa_savepoint_1")
        assert value(cursor, "SELECT 1") == 1
        conn.rollback()


def every_path_docex_sets(conn):
    with conn.cursor() as cursor:
        for path in (f'"{SCHEMA}"', f"'{SCHEMA}'", f"{SCHEMA}, public, pg_catalog"):
            cursor.execute(f"SET search_path TO {path}")
            conn.commit()
            assert value(cursor, "select current_schema()") == SCHEMA, path
            conn.commit()
        cursor.execute("SET search_path TO docex_system")
        conn.commit()
        try:
            cursor.execute("SELECT * FROM tenant_registry")
            raise AssertionError("the registry was read")
        except psycopg2.errors.UndefinedTable:
            conn.rollback()


def worker(pool, number, failures):
    try:
        for n in range(5):
            conn = pool.getconn()
            try:
                basket(conn, f"b_{number}_{n}")
            finally:
                pool.putconn(conn)
    except Exception as failure:  # a thread's own would be lost
        failures.append(repr(failure))


def main():
    conn = connect()
    assert conn.encoding == "UTF8" and conn.server_version >= 120000
    basket(conn, "first")
    errors_are_postgres_own(conn)
    every_path_docex_sets(conn)
    conn.close()

    pool = psycopg2.pool.ThreadedConnectionPool(
        5, 15, options=f"-csearch_path={SCHEMA},public,pg_catalog", **DSN
    )
    failures = []
    threads = [threading.Thread(target=worker, args=(pool, n, failures)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    conn = pool.getconn()
    with conn.cursor() as cursor:
        assert value(cursor, "SELECT count(*) FROM docbasket WHERE id LIKE 'b\\_%'") == 50
    pool.closeall()

    # The registry connection that DocEX opens before a tenant's first: refused, and survivable.
    try:
        psycopg2.connect(options="-csearch_path=docex_system,public,pg_catalog", **DSN)
        raise AssertionError("the system tenant was let in")
    except psycopg2.OperationalError as refusal:
        assert "system tenant" in str(refusal), refusal
    print("ok")


main()
