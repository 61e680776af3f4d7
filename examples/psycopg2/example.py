"""Connects to the proxy with psycopg2 and prints the schema that its tenant works in.

    DSN='host=127.0.0.1 port=6432 user=LOGIN password=PASSWORD options=-cdocex.tenant_id=acme' python3 example.py
"""

import contextlib
import os

import psycopg2

with contextlib.closing(psycopg2.connect(os.environ["DSN"])) as connection:
    with connection, connection.cursor() as cursor:
        cursor.execute("select current_schema()")
        print(cursor.fetchone()[0])
