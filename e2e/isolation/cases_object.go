package main

// objectCases make objects where they have no business, or unmake the tenant's own schema.
func objectCases() []attack {
	return []attack{
		{number: 25, sentence: "Views, inheritance, foreign keys and partitions over the victim's table", promise: always(refused), run: func(t *trial) {
			t.attempt("CREATE VIEW evil_view AS SELECT body FROM {beta}.canary", "CREATE MATERIALIZED VIEW evil_view AS SELECT body FROM {beta}.canary",
				"CREATE TABLE evil_child () INHERITS ({beta}.canary)", "CREATE TABLE evil_fk (id int REFERENCES {beta}.canary)",
				"CREATE TABLE evil_like (LIKE {beta}.canary INCLUDING ALL)", "CREATE TABLE evil_as AS SELECT * FROM {beta}.canary",
				"CREATE RULE evil AS ON INSERT TO own DO ALSO SELECT body FROM {beta}.canary", "CREATE TYPE evil_type AS (x {beta}.canary)",
				"CREATE TRIGGER evil BEFORE INSERT ON {beta}.canary FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()")
		}},
		{number: 26, sentence: "Create a schema, or objects in public, ext, the registry's and the victim's schema",
			promise: promise{role: refused, database: contained, trusted: refused}, run: func(t *trial) {
				t.attempt("CREATE SCHEMA evil", "CREATE TABLE public.evil (x int)", "CREATE FUNCTION public.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'",
					"CREATE TABLE ext.evil (x int)", "CREATE TABLE docex_system.evil (x int)", "CREATE TABLE {beta}.evil (x int)",
					"CREATE DATABASE evil", "CREATE TABLESPACE evil LOCATION '/tmp'")
				t.attack("RESET ROLE", "CREATE SCHEMA evil")
			}},
		{number: 27, sentence: "Extensions, C and internal functions, libraries, untrusted languages",
			promise: promise{role: refused, database: contained, trusted: refused}, run: func(t *trial) {
				t.alsoRefusal("58P01", "42704")
				t.attempt("CREATE EXTENSION pgcrypto", "CREATE EXTENSION hstore", "CREATE EXTENSION dblink", "CREATE EXTENSION file_fdw",
					"CREATE FUNCTION evil_c(text) RETURNS int LANGUAGE c AS 'libc.so.6', 'system'",
					"CREATE FUNCTION evil_internal(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all'",
					"LOAD 'auto_explain'", "SET session_preload_libraries = 'auto_explain'",
					"CREATE LANGUAGE plpython3u", "CREATE SERVER evil FOREIGN DATA WRAPPER dblink_fdw")
			}},
		{number: 29, sentence: "Event triggers, publications, subscriptions, replication slots",
			promise: promise{role: refused, database: contained, trusted: refused}, run: func(t *trial) {
				t.attempt("CREATE EVENT TRIGGER evil ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
					"CREATE PUBLICATION evil FOR ALL TABLES", "CREATE PUBLICATION evil",
					"CREATE SUBSCRIPTION evil CONNECTION 'host=127.0.0.1' PUBLICATION x WITH (connect = false)",
					"SELECT pg_create_physical_replication_slot('evil')", "SELECT pg_create_logical_replication_slot('evil', 'test_decoding')")
			}},
		{number: 30, sentence: "Casts, operators and functions on built-in types, for everybody", promise: always(refused), run: func(t *trial) {
			t.attempt("CREATE CAST (text AS int) WITH INOUT AS IMPLICIT", "CREATE OR REPLACE FUNCTION pg_catalog.lower(text) RETURNS text LANGUAGE sql AS $$SELECT 'x'$$",
				"CREATE FUNCTION pg_catalog.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'", "ALTER FUNCTION pg_catalog.lower(text) SECURITY DEFINER",
				"CREATE OPERATOR pg_catalog.= (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text)", "DROP CAST (int AS bigint)",
				"CREATE OPERATOR CLASS evil DEFAULT FOR TYPE int USING btree AS STORAGE int", "ALTER TYPE text RENAME TO evil",
				"UPDATE pg_class SET relacl = NULL", "COMMENT ON DATABASE {beta database} IS 'x'", "ALTER DATABASE {beta database} SET search_path = x")
		}},
		{number: 31, sentence: "DROP, RENAME, give away or open its own schema", promise: always(contained), run: func(t *trial) {
			before := t.ownSchema()
			t.attempt("DROP SCHEMA {alpha} CASCADE", "ALTER SCHEMA {alpha} RENAME TO evil", `ALTER SCHEMA {alpha} OWNER TO "{alpha role}"`,
				"GRANT USAGE, CREATE ON SCHEMA {alpha} TO PUBLIC", `GRANT USAGE ON SCHEMA {alpha} TO "{beta role}"`)
			if after := t.ownSchema(); after != before {
				t.leak("its own schema became %s", after)
			}
		}},
		{number: 65, sentence: "Provisioning run once more leaves the same privileges, those of the golden file", promise: always(contained), run: privileges},
		{number: 90, sentence: "Functions, operators and triggers of the tenant gain nothing when docexctl runs again", promise: always(contained), run: docexctlAgain},
	}
}

// ownSchema is the hostile tenant's schema: owner and privileges.
func (t *trial) ownSchema() string {
	rows, err := t.hostileDB("SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace WHERE nspname = '{alpha}'")
	t.must(err)
	if len(rows) != 1 {
		return "absent"
	}
	return rows[0][0] + " " + rows[0][1] + " " + rows[0][2]
}
