-- The eleven tables of one tenant, as DocEX itself creates them: names, types, order of columns, constraints and
-- indexes are compared with a catalog that DocEX made. Names are unqualified: the runner's search_path decides
-- the schema. Every statement may run again, so that it completes a docex_system that DocEX has begun.
-- Keys without a name get DocEX's from Postgres' own rule: <table>_pkey, <table>_<column>_fkey, <table>_<column>_key.

CREATE TABLE IF NOT EXISTS docbasket (
    id             varchar(36)  NOT NULL PRIMARY KEY,
    name           varchar(255) NOT NULL,
    description    text,
    storage_config json         NOT NULL,
    status         varchar(50)  NOT NULL,
    created_at     timestamp    NOT NULL,
    updated_at     timestamp    NOT NULL,
    CONSTRAINT uq_docbasket_name UNIQUE (name)
);

CREATE TABLE IF NOT EXISTS document (
    id                  varchar(36)  NOT NULL PRIMARY KEY,
    basket_id           varchar(36)  NOT NULL REFERENCES docbasket (id),
    name                varchar(255) NOT NULL,
    source              varchar(255) NOT NULL,
    path                varchar(255) NOT NULL,
    content_type        varchar(100),
    document_type       varchar(50)  NOT NULL,
    content             json,
    raw_content         text,
    size                integer,
    checksum            varchar(64)  NOT NULL,
    status              varchar(50)  NOT NULL,
    processing_attempts integer      NOT NULL,
    created_at          timestamp    NOT NULL,
    updated_at          timestamp    NOT NULL
);

CREATE TABLE IF NOT EXISTS document_metadata (
    id              varchar(36)  NOT NULL PRIMARY KEY,
    document_id     varchar(36)  NOT NULL REFERENCES document (id),
    key             varchar(255) NOT NULL,
    value           text         NOT NULL,
    metadata_type   varchar(50)  NOT NULL,
    coordination_id uuid,
    created_at      timestamp    NOT NULL,
    updated_at      timestamp    NOT NULL
);

CREATE TABLE IF NOT EXISTS file_history (
    id            varchar(36) NOT NULL PRIMARY KEY,
    document_id   varchar(36) NOT NULL REFERENCES document (id),
    original_path varchar(255),
    internal_path varchar(255),
    created_at    timestamp   NOT NULL
);

CREATE TABLE IF NOT EXISTS operations (
    id             varchar(36)  NOT NULL PRIMARY KEY,
    document_id    varchar(36)  NOT NULL REFERENCES document (id) ON DELETE CASCADE,
    operation_type varchar(100) NOT NULL,
    status         varchar(50)  NOT NULL,
    details        json,
    error          text,
    created_at     timestamp    NOT NULL,
    completed_at   timestamp
);

CREATE TABLE IF NOT EXISTS operation_dependencies (
    id           varchar(36) NOT NULL PRIMARY KEY,
    operation_id varchar(36) NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    depends_on   varchar(36) NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    created_at   timestamp   NOT NULL
);

CREATE TABLE IF NOT EXISTS doc_events (
    id              varchar(36) NOT NULL PRIMARY KEY,
    basket_id       varchar(36) NOT NULL REFERENCES docbasket (id) ON DELETE CASCADE,
    document_id     varchar(36) REFERENCES document (id),
    event_type      varchar(50) NOT NULL,
    event_timestamp timestamp   NOT NULL,
    data            json,
    source          varchar(50) NOT NULL DEFAULT 'docex',
    status          varchar(20) NOT NULL DEFAULT 'PENDING',
    error_message   text,
    created_at      timestamp   NOT NULL,
    updated_at      timestamp   NOT NULL
);

CREATE TABLE IF NOT EXISTS processors (
    id          varchar(36)  NOT NULL PRIMARY KEY,
    name        varchar(255) NOT NULL UNIQUE,
    type        varchar(50)  NOT NULL,
    description text,
    config      json         NOT NULL,
    enabled     boolean      NOT NULL,
    created_at  timestamp    NOT NULL,
    updated_at  timestamp    NOT NULL
);

CREATE TABLE IF NOT EXISTS processing_operations (
    id              varchar(36) NOT NULL PRIMARY KEY,
    document_id     varchar(36) NOT NULL REFERENCES document (id) ON DELETE CASCADE,
    processor_id    varchar(36) NOT NULL REFERENCES processors (id) ON DELETE CASCADE,
    status          varchar(20) NOT NULL,
    input_metadata  json,
    output_metadata json,
    error           text,
    created_at      timestamp   NOT NULL,
    completed_at    timestamp
);

CREATE TABLE IF NOT EXISTS transport_routes (
    id               varchar(36)  NOT NULL PRIMARY KEY,
    name             varchar(255) NOT NULL UNIQUE,
    purpose          varchar(50)  NOT NULL,
    protocol         varchar(50)  NOT NULL,
    config           json         NOT NULL,
    can_upload       boolean      NOT NULL,
    can_download     boolean      NOT NULL,
    can_list         boolean      NOT NULL,
    can_delete       boolean      NOT NULL,
    other_party_id   varchar(255),
    other_party_name varchar(255),
    other_party_type varchar(50),
    route_metadata   json         NOT NULL,
    tags             json         NOT NULL,
    priority         integer      NOT NULL,
    enabled          boolean      NOT NULL,
    created_at       timestamp    NOT NULL,
    updated_at       timestamp    NOT NULL
);

CREATE TABLE IF NOT EXISTS route_operations (
    id             varchar(36) NOT NULL PRIMARY KEY,
    route_id       varchar(36) NOT NULL REFERENCES transport_routes (id) ON DELETE CASCADE,
    operation_type varchar(50) NOT NULL,
    status         varchar(20) NOT NULL,
    document_id    varchar(255),
    details        json,
    error          text,
    created_at     timestamp   NOT NULL,
    completed_at   timestamp
);

CREATE INDEX IF NOT EXISTS idx_docbasket_status ON docbasket (status);
CREATE INDEX IF NOT EXISTS idx_docbasket_created_at ON docbasket (created_at DESC);

CREATE INDEX IF NOT EXISTS idx_documents_basket_id ON document (basket_id);
CREATE INDEX IF NOT EXISTS idx_documents_document_type ON document (document_type);
CREATE INDEX IF NOT EXISTS idx_documents_status ON document (status);
CREATE INDEX IF NOT EXISTS idx_document_basket_status ON document (basket_id, status);
CREATE INDEX IF NOT EXISTS idx_document_basket_type ON document (basket_id, document_type);
CREATE INDEX IF NOT EXISTS idx_document_basket_created ON document (basket_id, created_at DESC);
CREATE INDEX IF NOT EXISTS idx_document_basket_updated ON document (basket_id, updated_at DESC);
CREATE INDEX IF NOT EXISTS idx_document_basket_name ON document (basket_id, name);

-- DocEX's names promise the value too; its definitions leave it out, since a value may be too long for a b-tree.
CREATE INDEX IF NOT EXISTS idx_document_metadata_document_id ON document_metadata (document_id);
CREATE INDEX IF NOT EXISTS idx_document_metadata_key ON document_metadata (key);
CREATE INDEX IF NOT EXISTS idx_document_metadata_type ON document_metadata (metadata_type);
CREATE INDEX IF NOT EXISTS idx_document_metadata_key_value ON document_metadata (key);
CREATE INDEX IF NOT EXISTS idx_document_metadata_doc_key_value ON document_metadata (document_id, key);

CREATE INDEX IF NOT EXISTS idx_file_history_document_id ON file_history (document_id);

CREATE INDEX IF NOT EXISTS idx_operations_document_id ON operations (document_id);
CREATE INDEX IF NOT EXISTS idx_operations_operation_type ON operations (operation_type);
CREATE INDEX IF NOT EXISTS idx_operations_status ON operations (status);

CREATE INDEX IF NOT EXISTS idx_operation_dependencies_operation_id ON operation_dependencies (operation_id);
CREATE INDEX IF NOT EXISTS idx_operation_dependencies_depends_on ON operation_dependencies (depends_on);

CREATE INDEX IF NOT EXISTS idx_doc_events_basket_id ON doc_events (basket_id);
CREATE INDEX IF NOT EXISTS idx_doc_events_document_id ON doc_events (document_id);
CREATE INDEX IF NOT EXISTS idx_doc_events_event_type ON doc_events (event_type);
CREATE INDEX IF NOT EXISTS idx_doc_events_event_timestamp ON doc_events (event_timestamp);
CREATE INDEX IF NOT EXISTS idx_doc_events_status ON doc_events (status);
