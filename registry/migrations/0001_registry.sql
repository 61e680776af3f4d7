-- The registry: DocEX's own table, and the proxy's tables beside it.
-- Every statement may run again, and tolerates a tenant_registry that DocEX has created first.

CREATE SCHEMA IF NOT EXISTS docex_system;

-- Exactly what DocEX creates: no further column, key, check or index, so that either may come first.
CREATE TABLE IF NOT EXISTS docex_system.tenant_registry (
    tenant_id          varchar(255) NOT NULL,
    display_name       varchar(255) NOT NULL,
    is_system          boolean      NOT NULL DEFAULT false,
    isolation_strategy varchar(50)  NOT NULL DEFAULT 'schema',
    schema_name        varchar(255),
    database_path      varchar(500),
    created_at         timestamp without time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_by         varchar(255) NOT NULL,
    last_updated_at    timestamp without time zone NOT NULL DEFAULT CURRENT_TIMESTAMP,
    last_updated_by    varchar(255),
    CONSTRAINT tenant_registry_pkey PRIMARY KEY (tenant_id)
);

CREATE TABLE IF NOT EXISTS docex_system.tenant_route (
    tenant_id         varchar(255) PRIMARY KEY REFERENCES docex_system.tenant_registry (tenant_id) ON DELETE CASCADE,
    status            text    NOT NULL DEFAULT 'provisioning'
        CHECK (status IN ('provisioning', 'active', 'suspended', 'moving', 'deleted')),
    isolation         text    NOT NULL DEFAULT 'role'
        CHECK (isolation IN ('role', 'slot', 'trusted', 'database')),
    server            text    NOT NULL DEFAULT 'main',
    database_name     text    NOT NULL,
    role_name         text    NOT NULL UNIQUE,
    secret_generation integer NOT NULL DEFAULT 1 CHECK (secret_generation >= 1),
    limits            jsonb   NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
    schema_version    integer NOT NULL DEFAULT 0 CHECK (schema_version >= 0),
    version           bigint  NOT NULL DEFAULT 1,
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS docex_system.proxy_login (
    login       text PRIMARY KEY CHECK (char_length(login) BETWEEN 1 AND 255),
    verifier    text NOT NULL,
    valid_until timestamptz,
    all_tenants boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL DEFAULT session_user
);

CREATE TABLE IF NOT EXISTS docex_system.proxy_login_tenant (
    login     text         NOT NULL REFERENCES docex_system.proxy_login (login) ON DELETE CASCADE,
    tenant_id varchar(255) NOT NULL REFERENCES docex_system.tenant_registry (tenant_id) ON DELETE CASCADE,
    PRIMARY KEY (login, tenant_id)
);
CREATE INDEX IF NOT EXISTS proxy_login_tenant_tenant_id_idx ON docex_system.proxy_login_tenant (tenant_id);

-- No foreign key: what was done to a tenant stays on record when the tenant is gone.
CREATE TABLE IF NOT EXISTS docex_system.tenant_event (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id varchar(255) NOT NULL,
    verb      text  NOT NULL,
    actor     text  NOT NULL,
    detail    jsonb NOT NULL DEFAULT '{}',
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS tenant_event_tenant_id_idx ON docex_system.tenant_event (tenant_id, id);

CREATE OR REPLACE FUNCTION docex_system.raise_route_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

-- An update that changes the key concerns both names.
CREATE OR REPLACE FUNCTION docex_system.notify_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('docex_registry', OLD.tenant_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('docex_registry', NEW.tenant_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION docex_system.notify_login() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('docex_registry', 'login/' || OLD.login);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('docex_registry', 'login/' || NEW.login);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION docex_system.notify_everything() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('docex_registry', '*');
    RETURN NULL;
END
$$;

DROP TRIGGER IF EXISTS tenant_route_version ON docex_system.tenant_route;
CREATE TRIGGER tenant_route_version BEFORE UPDATE ON docex_system.tenant_route
    FOR EACH ROW EXECUTE FUNCTION docex_system.raise_route_version();

DROP TRIGGER IF EXISTS docex_proxy_notify ON docex_system.tenant_registry;
CREATE TRIGGER docex_proxy_notify AFTER INSERT OR UPDATE OR DELETE ON docex_system.tenant_registry
    FOR EACH ROW EXECUTE FUNCTION docex_system.notify_tenant();
DROP TRIGGER IF EXISTS docex_proxy_notify ON docex_system.tenant_route;
CREATE TRIGGER docex_proxy_notify AFTER INSERT OR UPDATE OR DELETE ON docex_system.tenant_route
    FOR EACH ROW EXECUTE FUNCTION docex_system.notify_tenant();
DROP TRIGGER IF EXISTS docex_proxy_notify ON docex_system.proxy_login;
CREATE TRIGGER docex_proxy_notify AFTER INSERT OR UPDATE OR DELETE ON docex_system.proxy_login
    FOR EACH ROW EXECUTE FUNCTION docex_system.notify_login();
DROP TRIGGER IF EXISTS docex_proxy_notify ON docex_system.proxy_login_tenant;
CREATE TRIGGER docex_proxy_notify AFTER INSERT OR UPDATE OR DELETE ON docex_system.proxy_login_tenant
    FOR EACH ROW EXECUTE FUNCTION docex_system.notify_login();

DROP TRIGGER IF EXISTS docex_proxy_truncate ON docex_system.tenant_registry;
CREATE TRIGGER docex_proxy_truncate AFTER TRUNCATE ON docex_system.tenant_registry
    FOR EACH STATEMENT EXECUTE FUNCTION docex_system.notify_everything();
DROP TRIGGER IF EXISTS docex_proxy_truncate ON docex_system.tenant_route;
CREATE TRIGGER docex_proxy_truncate AFTER TRUNCATE ON docex_system.tenant_route
    FOR EACH STATEMENT EXECUTE FUNCTION docex_system.notify_everything();
DROP TRIGGER IF EXISTS docex_proxy_truncate ON docex_system.proxy_login;
CREATE TRIGGER docex_proxy_truncate AFTER TRUNCATE ON docex_system.proxy_login
    FOR EACH STATEMENT EXECUTE FUNCTION docex_system.notify_everything();
DROP TRIGGER IF EXISTS docex_proxy_truncate ON docex_system.proxy_login_tenant;
CREATE TRIGGER docex_proxy_truncate AFTER TRUNCATE ON docex_system.proxy_login_tenant
    FOR EACH STATEMENT EXECUTE FUNCTION docex_system.notify_everything();
