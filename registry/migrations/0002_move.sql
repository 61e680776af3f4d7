-- Moves of tenants from one server to another: one row for each tenant that is being moved, or was moved last.

CREATE TABLE IF NOT EXISTS docex_system.tenant_move (
    tenant_id   varchar(255) PRIMARY KEY REFERENCES docex_system.tenant_registry (tenant_id) ON DELETE CASCADE,
    from_server text  NOT NULL,
    to_server   text  NOT NULL CHECK (to_server <> from_server),
    step        text  NOT NULL
        CHECK (step IN ('prepare', 'copy', 'hold', 'open', 'kept', 'finish', 'finished', 'abort', 'aborted')),
    started_at  timestamptz NOT NULL DEFAULT now(),
    held_at     timestamptz,
    flipped_at  timestamptz,
    finished_at timestamptz,
    detail      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(detail) = 'object')
);
