"""Runs DocEX's own engines and models for many tenants at once, on pools that are full."""
import os
import threading
import uuid
from datetime import datetime, timezone

import pydantic
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

if not hasattr(sqlalchemy, "Uuid"):  # before 2.0, as distributions have it
    from sqlalchemy.dialects.postgresql import UUID

    sqlalchemy.Uuid = lambda *args, **kwargs: UUID(as_uuid=True)

for name in ("field_validator", "model_validator"):  # before 2.0 likewise; what they decorate is not used here
    if not hasattr(pydantic, name):
        setattr(pydantic, name, lambda *args, **kwargs: lambda function: function)

from docex.config.docex_config import DocEXConfig
from docex.db.models import DocBasket
from docex.db.tenant_database_manager import TenantDatabaseManager

POOL = 15  # what DocEX's engines have: pool_size 5, max_overflow 10
TENANTS = int(os.environ["APP_TENANTS"])
ROUNDS = int(os.environ["APP_ROUNDS"])

config = DocEXConfig()
config.config.update({
    "database": {"type": "postgres", "postgres": {
        "host": os.environ["APP_HOST"], "port": int(os.environ["APP_PORT"]), "database": os.environ["APP_DATABASE"],
        "user": os.environ["APP_LOGIN"], "password": os.environ["APP_PASSWORD"], "schema_template": "tenant_{tenant_id}",
    }},
    # The registry is the proxy's to read: a service that DocEX trusts asks for its tenant's engine.
    "multi_tenancy": {"enabled": False},
    "security": {"multi_tenancy_model": "database_level", "tenant_database_routing": True},
})

manager = TenantDatabaseManager()
manager.config = config
manager.multi_tenancy_model = "database_level"

failures, done, lock = [], 0, threading.Lock()


def engine_of(tenant):
    return manager.get_tenant_engine(tenant)


def work(tenant, connection, number):
    """Units of DocEX's ORM, each a transaction, between search_path as DocEX has set it."""
    global done
    try:
        make = sessionmaker(bind=connection)
        for turn in range(ROUNDS):
            session = make()
            name = f"{tenant}-{number}-{turn}"
            now = datetime.now(timezone.utc)
            session.add(DocBasket(id=str(uuid.uuid4()), name=name, description=tenant, storage_config={}, status="active",
                                  created_at=now, updated_at=now))
            session.commit()
            names = [basket.name for basket in session.query(DocBasket).filter(DocBasket.name == name)]
            others = [n for (n,) in session.query(DocBasket.description).filter(DocBasket.description != tenant)]
            path = session.execute(text("SHOW search_path")).scalar()
            session.commit()
            session.close()
            if names != [name] or others or not path.strip('"').startswith(f"tenant_{tenant}"):
                raise AssertionError(f"{tenant}: {names} {others} {path}")
            with lock:
                done += 2
    except Exception as error:  # told at the end, all of them
        with lock:
            failures.append(f"{tenant}: {error!r}"[:400])


threads = []
for at in range(TENANTS):
    tenant = f"t{at}"
    engine = engine_of(tenant)
    for number in range(POOL):
        threads.append(threading.Thread(target=work, args=(tenant, engine.connect(), number)))
print(f"{TENANTS} engines of DocEX, {len(threads)} client connections", flush=True)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"transactions: {done}, failures: {len(failures)}")
for failure in failures[:5]:
    print(failure)
raise SystemExit(1 if failures or done != 2 * ROUNDS * len(threads) else 0)
