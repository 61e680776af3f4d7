package main

// roleCases reach for the victim's rows with the hostile tenant's own rights, then with another role. At level trusted
// the login may become any tenant's role: every switch of role succeeds there, and the promise says so.
func roleCases() []attack {
	const read = "SELECT body FROM {beta}.canary"
	switches := promise{role: refused, database: refused, trusted: leaks}
	return []attack{
		{number: 1, sentence: "Read the victim's table by its qualified name", promise: always(refused), run: func(t *trial) {
			t.attempt(read, "SELECT * FROM ONLY {beta}.canary LIMIT 1", "TABLE {beta}.shared_name",
				"COPY {beta}.canary TO STDOUT", "SELECT (SELECT max(body) FROM {beta}.canary)", "SELECT {beta}.canary_code()")
		}},
		{number: 2, sentence: "Change, lock or empty the victim's table", promise: always(refused), run: func(t *trial) {
			t.attempt("INSERT INTO {beta}.canary (body) VALUES ('x')", "UPDATE {beta}.canary SET body = 'x'", "DELETE FROM {beta}.canary",
				"TRUNCATE {beta}.canary", "DROP TABLE {beta}.canary", "ALTER TABLE {beta}.canary ADD x int")
			t.attack("BEGIN", "LOCK TABLE {beta}.canary IN ACCESS EXCLUSIVE MODE")
		}},
		{number: 3, sentence: "SET search_path to the victim's schema, then read unqualified", promise: always(refused), run: func(t *trial) {
			t.alsoRefusal("42P01")
			t.keepRoleSettings()
			t.attack("SET search_path = {beta}", "SELECT body FROM canary")
			t.attack("SET SESSION search_path TO {beta}, {alpha}, pg_catalog", "SELECT body FROM canary")
			t.attack("ALTER ROLE CURRENT_USER IN DATABASE {beta database} SET search_path = {beta}", "SELECT body FROM canary")
		}},
		{number: 4, sentence: "set_config of search_path to the victim's schema", promise: always(refused), run: func(t *trial) {
			t.alsoRefusal("42P01")
			t.attack("SELECT set_config('search_path', '{beta}', false)", "SELECT body FROM canary")
		}},
		{number: 5, sentence: "UPDATE pg_settings of search_path to the victim's schema", promise: always(refused), run: func(t *trial) {
			t.alsoRefusal("42P01")
			t.attack("UPDATE pg_settings SET setting = '{beta}' WHERE name = 'search_path'", "SELECT body FROM canary")
		}},
		{number: 6, sentence: "RESET ROLE, then SET ROLE to the victim's role", promise: switches, run: func(t *trial) {
			t.attack("RESET ROLE", `SET ROLE "{beta role}"`, read)
		}},
		{number: 7, sentence: "SET ROLE NONE, then SET ROLE to the victim's role", promise: switches, run: func(t *trial) {
			t.attack("SET ROLE NONE", `SET ROLE "{beta role}"`, read)
			t.attack("SET ROLE '{beta role}'", read)
		}},
		{number: 8, sentence: "set_config of role to the victim's role", promise: switches, run: func(t *trial) {
			t.attack("SELECT set_config('role', '{beta role}', false)", read)
			t.attack("SELECT set_config('role', 'none', false)", "SELECT set_config('role', '{beta role}', false)", read)
			t.attack("UPDATE pg_settings SET setting = '{beta role}' WHERE name = 'role'", read)
		}},
		{number: 9, sentence: "SET ROLE within a DO block, its text hidden", promise: switches, run: func(t *trial) {
			t.attack("DO $$BEGIN EXECUTE 'SET RO' || 'LE NONE'; EXECUTE 'SET RO' || 'LE {beta role}'; END$$", read)
		}},
		{number: 10, sentence: "A function with a SET role clause", promise: switches, run: func(t *trial) {
			t.attack("CREATE OR REPLACE FUNCTION evil_role() RETURNS SETOF text LANGUAGE plpgsql SET role = '{beta role}' AS "+
				"$$BEGIN RETURN QUERY EXECUTE 'SELECT body FROM {beta}.canary'; END$$", "SELECT evil_role()")
		}},
		{number: 11, sentence: "SET LOCAL ROLE to the victim's role within a transaction", promise: switches, run: func(t *trial) {
			t.attack("BEGIN", `SET LOCAL ROLE "{beta role}"`, read)
		}},
		{number: 12, sentence: "SET SESSION AUTHORIZATION to the victim's role, the superuser, the schemas' owner", promise: always(refused), run: func(t *trial) {
			t.attempt(`SET SESSION AUTHORIZATION "{beta role}"`, "SET SESSION AUTHORIZATION postgres", "SET SESSION AUTHORIZATION docex_owner",
				"SELECT set_config('session_authorization', 'postgres', false)")
			t.attack("RESET ROLE", "SET SESSION AUTHORIZATION postgres")
		}},
		{number: 13, sentence: "Read or write the registry", promise: always(refused), run: func(t *trial) {
			if t.own.database != registryDatabase {
				t.alsoRefusal("42P01", "3F000")
			}
			t.attempt("SELECT * FROM docex_system.tenant_registry", "SELECT verifier FROM docex_system.proxy_login",
				"SELECT * FROM docex_system.tenant_route", "UPDATE docex_system.tenant_route SET role_name = '{beta role}'",
				"INSERT INTO docex_system.proxy_login_tenant SELECT 'alpha', 'beta'")
			t.attack("RESET ROLE", "SET ROLE docex_registry", "SELECT * FROM docex_system.tenant_registry")
			t.attack("RESET ROLE", "SELECT verifier FROM docex_system.proxy_login")
		}},
		{number: 14, sentence: "Read the verifiers of all roles", promise: always(refused), run: func(t *trial) {
			t.attempt("SELECT rolpassword FROM pg_authid", "SELECT passwd FROM pg_shadow")
			t.attack("RESET ROLE", "SELECT rolpassword FROM pg_authid")
		}},
		{number: 19, sentence: "set_config of role by the protocol's FunctionCall", promise: switches, run: fastpath},
		{number: 77, sentence: "A SECURITY DEFINER function that switches role or reads the victim", promise: always(refused), run: func(t *trial) {
			const create = "CREATE OR REPLACE FUNCTION evil_definer() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS "
			t.attack(create+"$$BEGIN RETURN QUERY EXECUTE 'SELECT body FROM {beta}.canary'; END$$", "SELECT evil_definer()")
			t.attack(create+"$$BEGIN EXECUTE 'SET ROLE {beta role}'; RETURN QUERY EXECUTE 'SELECT body FROM {beta}.canary'; END$$", "SELECT evil_definer()")
			t.attack(create+"$$BEGIN PERFORM set_config('session_authorization', 'postgres', false); END$$", "SELECT evil_definer()")
		}},
		{number: 82, sentence: "ALTER ROLE itself to more powers, or GRANT itself into other roles", promise: always(refused), run: func(t *trial) {
			for _, power := range []string{"SUPERUSER", "CREATEROLE", "CREATEDB", "BYPASSRLS", "REPLICATION"} {
				t.attempt("ALTER ROLE CURRENT_USER " + power)
			}
			for _, role := range []string{"{beta role}", "docex_owner", "docex_registry", "postgres", "pg_read_all_data", "pg_execute_server_program"} {
				t.attempt(`GRANT "` + role + `" TO "{alpha role}"`)
			}
			t.attempt(`ALTER ROLE "{beta role}" PASSWORD 'x'`, `ALTER ROLE "{beta role}" SET search_path = x`, `DROP ROLE "{beta role}"`, "CREATE ROLE evil")
			t.attack("RESET ROLE", `GRANT "{beta role}" TO "{alpha role}"`)
			t.attack("RESET ROLE", "ALTER ROLE CURRENT_USER SUPERUSER")
		}},
		{number: 84, sentence: "Leave the tenant's role by DISCARD ALL, RESET ALL or SET SESSION AUTHORIZATION DEFAULT", promise: switches, run: func(t *trial) {
			t.attack("SET SESSION AUTHORIZATION DEFAULT", `SET ROLE "{beta role}"`, read)
			t.attackOneByOne("DISCARD ALL", `SET ROLE "{beta role}"`, read)
			t.attack("RESET ALL", `SET ROLE "{beta role}"`, read)
		}},
		{number: 91, sentence: "ROLLBACK, COMMIT or ABORT as the first message, to undo what the proxy has set up", promise: always(refused), run: func(t *trial) {
			t.attackOneByOne("ROLLBACK", read)
			t.attackOneByOne("COMMIT", read)
			t.attackOneByOne("BEGIN", "ROLLBACK", read)
			t.attack("BEGIN", "ROLLBACK AND CHAIN", read)
		}},
	}
}

// attackOneByOne sends steps that cannot share a transaction each as a Query of its own.
func (t *trial) attackOneByOne(steps ...string) {
	s := t.hostile()
	defer s.close()
	for _, sql := range steps {
		if _, err := s.run(sql); err != nil {
			t.tally(sql, err)
			return
		}
	}
	t.accepted++
}

// keepRoleSettings puts back, when the trial is over, what is attached to roles: some of it was provisioned.
func (t *trial) keepRoleSettings() {
	_, err := t.registry(t.ctx, "CREATE TEMP TABLE saved AS SELECT * FROM pg_db_role_setting")
	t.must(err)
	t.atEnd(func() {
		_, err := t.registry(t.ctx, "SET allow_system_table_mods = on; DELETE FROM pg_db_role_setting; "+
			"INSERT INTO pg_db_role_setting SELECT * FROM saved; DROP TABLE saved; RESET allow_system_table_mods")
		t.must(err)
		t.recycle() // what has logged in meanwhile has the settings still
	})
}

// setConfigOID is set_config's, the same in all versions.
const setConfigOID = 2078

func fastpath(t *trial) {
	w := t.hostile().hijack()
	w.say(queryMessage("BEGIN"))
	w.until('Z')
	w.say(callMessage(setConfigOID, "role", t.others.role, "f"))
	answers := w.until('Z')
	if first := answers[0]; first.kind == 'E' {
		t.tally("FunctionCall", first.refusal())
		return
	}
	w.say(queryMessage(t.named("SELECT body FROM {beta}.canary")))
	if first := w.until('Z')[0]; first.kind == 'E' {
		t.tally("FunctionCall", first.refusal())
		return
	}
	t.accepted++
}
