-- The proxies that serve this registry. Each writes its own row, by docex_system.proxy_beat, and reads the others'.

CREATE TABLE IF NOT EXISTS docex_system.proxy_instance (
    instance   integer PRIMARY KEY CHECK (instance BETWEEN 1 AND 1023),
    token      text NOT NULL UNIQUE CHECK (char_length(token) BETWEEN 16 AND 64),
    address    text NOT NULL CHECK (char_length(address) BETWEEN 1 AND 255),
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);

-- A number is free again ten minutes after its proxy was last seen: what was said of it has been forgotten by then.
CREATE OR REPLACE FUNCTION docex_system.proxy_beat(own_token text, own_address text)
RETURNS TABLE (instance integer, address text, own boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $beat$
BEGIN
    UPDATE docex_system.proxy_instance AS i SET seen_at = clock_timestamp(), address = own_address WHERE i.token = own_token;
    IF NOT FOUND THEN
        DELETE FROM docex_system.proxy_instance AS i WHERE i.seen_at < clock_timestamp() - interval '10 minutes';
        FOR attempt IN 1..1023 LOOP -- each that fails has lost a number to another proxy
            INSERT INTO docex_system.proxy_instance (instance, token, address)
            SELECT free.number, own_token, own_address FROM generate_series(1, 1023) AS free (number)
             WHERE NOT EXISTS (SELECT FROM docex_system.proxy_instance AS i WHERE i.instance = free.number)
             ORDER BY free.number LIMIT 1
            ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
        END LOOP;
    END IF;
    RETURN QUERY SELECT i.instance, i.address, i.token = own_token FROM docex_system.proxy_instance AS i
                  WHERE i.seen_at > clock_timestamp() - interval '15 seconds' ORDER BY i.instance;
END
$beat$;

CREATE OR REPLACE FUNCTION docex_system.proxy_leave(own_token text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $leave$
    DELETE FROM docex_system.proxy_instance WHERE token = own_token
$leave$;
