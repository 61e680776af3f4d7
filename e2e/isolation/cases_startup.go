package main

import (
	"bytes"
	"strings"
)

// startupCases are tried before the first statement.
func startupCases() []attack {
	return []attack{
		{number: 15, sentence: "Send the victim's role as a startup parameter", promise: always(refused), run: func(t *trial) {
			t.login(t.attacker, with("role", t.others.role))
			t.login(t.attacker, with("session_authorization", "postgres"))
			t.login(t.attacker, with("is_superuser", "on"))
		}},
		{number: 16, sentence: "Send the victim's role inside the startup parameter options", promise: always(refused), run: func(t *trial) {
			for _, format := range []string{"-c role=%", "-crole=%", "--role=%", `-c\ role=%`, "-c ROLE=%", "-c application_name=x -c role=%",
				"-c session_authorization=%", "-c session_preload_libraries=%"} {
				t.login(t.attacker, with("options", strings.ReplaceAll(format, "%", t.others.role)))
			}
		}},
		{number: 17, sentence: "Name another database, or a role of Postgres as the user", promise: always(refused), run: func(t *trial) {
			t.alsoRefusal("3D000")
			for _, name := range []string{"postgres", "template1", "docex_system", t.prey.tenant} {
				t.login(t.attacker, database(name))
			}
			for _, user := range []string{"postgres", t.others.role, "docex_owner", "docex_registry", "docex_pool"} {
				t.login(t.attacker, as(user+"."+t.attacker.tenant))
				t.login(t.attacker, as(user), with("docex.tenant_id", t.prey.tenant))
			}
		}},
		{number: 18, sentence: "Ask for a replication connection", promise: always(refused), run: func(t *trial) {
			for _, value := range []string{"database", "true", "on", "1"} {
				t.login(t.attacker, with("replication", value))
			}
		}},
		{number: 57, sentence: "Plain bytes sent behind an SSLRequest, before the answer to it", promise: always(refused), run: pipelinedTLS},
		{number: 73, sentence: "Startup parameters whose names are spelled to be overlooked", promise: always(refused), run: func(t *trial) {
			for _, name := range []string{"ROLE", "Role", " role", "role ", "role\t", "\"role\"", "SESSION_AUTHORIZATION", "x'; SET ROLE y; --", "1role", "a..b", ""} {
				if name == "" { // an empty name ends the packet: what follows it is trailing
					t.login(t.attacker, sabotaged(func(p []byte) []byte { return lengthen(p, append([]byte{0}, cText("role")...)...) }))
					continue
				}
				t.login(t.attacker, with(name, t.others.role))
			}
			t.login(t.attacker, with("options", "-c search_path="+t.others.schema))
		}},
		{number: 74, sentence: "NUL bytes in a startup packet and in a Query", promise: always(refused), run: func(t *trial) {
			for _, tail := range []string{"role\x00" + t.others.role + "\x00\x00", "\x00\x00", "x", "role\x00x"} {
				t.login(t.attacker, sabotaged(func(p []byte) []byte { return lengthen(p, []byte(tail)...) }))
			}
			w := t.hostile().hijack()
			w.say(message('Q', []byte("SELECT 1\x00; SET ROLE "+t.others.role+"\x00")))
			t.tally("Query with NUL", w.refusal())
		}},
		{number: 88, sentence: "Name the victim as the tenant of the hostile login, in every place and in two at once", promise: always(refused), run: func(t *trial) {
			user, victim := t.attacker.login, t.prey.tenant
			t.login(t.attacker, as(user+"."+victim))
			t.login(t.attacker, as(user), with("docex.tenant_id", victim))
			t.login(t.attacker, as(user), with("docex.tenant", victim))
			t.login(t.attacker, as(user), with("options", "-c docex.tenant_id="+victim))
			t.login(t.attacker, as(user), with("options", "--docex.tenant-id="+victim))
			t.login(t.attacker, as(user), with("options", "-c search_path="+t.others.schema))
			t.login(t.attacker, with("docex.tenant_id", victim))
			t.login(t.attacker, with("options", "-c DOCEX.TENANT_ID="+victim))
			t.login(t.attacker, as(user+"."+t.attacker.tenant+"."+victim))
			t.login(t.attacker, as(user+"."+strings.ToUpper(victim)))
		}},
		{number: 89, sentence: "Name the system tenant, or none", promise: always(refused), run: func(t *trial) {
			user := t.attacker.login
			t.login(t.attacker, as(user+"._docex_system_"))
			t.login(t.attacker, as(user), with("docex.tenant_id", "_docex_system_"))
			t.login(t.attacker, as(user), with("options", "-c search_path=docex_system"))
			t.login(t.attacker, as(user))
		}},
	}
}

// login is one attempt to be let in. Whoever is let in reads what the victim has, unless it is not reached.
func (t *trial) login(who account, changes ...change) {
	s, err := t.open(who, changes...)
	if err != nil {
		t.tally("login", err)
		return
	}
	defer s.close()
	t.alsoRefusal("42P01")
	if _, err := s.run("SELECT current_user; SELECT body FROM {beta}.canary"); err != nil {
		t.tally("read after login", err)
		t.accepted++ // the login itself was not refused
		return
	}
	t.accepted++
}

// lengthen puts bytes behind a startup packet, as part of it.
func lengthen(packet []byte, tail ...byte) []byte {
	return append(int32s(uint32(len(packet)+len(tail))), append(bytes.Clone(packet[4:]), tail...)...)
}

// pipelinedTLS sends a startup packet in the clear together with an SSLRequest, and after the answer. Were the proxy to
// take it for the client's, whoever sits on the line could choose how an encrypted session begins.
func pipelinedTLS(t *trial) {
	start := startupPacket("user", t.attacker.login+"."+t.attacker.tenant)
	t.withoutTLS("in one write", func(w *wire) { w.say(packet(sslRequestCode), start) })
	t.withoutTLS("a cancel request behind it", func(w *wire) { w.say(packet(sslRequestCode), packet(cancelRequestCode, int32s(1, 2)...)) })
	t.withoutTLS("after the answer", func(w *wire) {
		w.say(packet(sslRequestCode))
		_, err := w.in.Peek(1)
		t.must(err)
		w.say(start)
	})
}

// withoutTLS tallies a refusal when the proxy answers S and then nothing of the protocol but the end.
func (t *trial) withoutTLS(way string, send func(*wire)) {
	w := t.dial()
	send(w)
	answer, err := w.in.ReadByte()
	t.must(err)
	if answer != 'S' {
		t.note("the proxy answered %q", answer)
	}
	const alert = 21 // the record type with which TLS ends
	if next, err := w.in.ReadByte(); err == nil && next != alert {
		t.leak("%s: answered with %q in the clear", way, next)
		return
	}
	t.refusals["TLS alert"]++
}
