package main

import (
	"slices"
)

// frameCases misuse the protocol. What a careless proxy forwards of them becomes the next session's trouble.
func frameCases() []attack {
	return []attack{
		{number: 47, sentence: "Half a message, cut at every byte, then the line is cut", promise: always(contained), run: halves},
		{number: 48, sentence: "An error in the extended protocol without a Sync, then the line is cut", promise: always(contained), run: withoutSync},
		{number: 49, sentence: "Two queries in one write, the line is cut at the first answer", promise: always(contained), run: pipelined},
		{number: 50, sentence: "Sync in the middle of COPY FROM STDIN", promise: always(contained), run: copying(func(w *wire) {
			w.say(message('d', []byte("ATTACKER-ROW\n")), syncMessage(), syncMessage(), message('H'))
		})},
		{number: 51, sentence: "A Query in the middle of COPY FROM STDIN", promise: always(contained), run: copying(func(w *wire) {
			w.say(message('d', []byte("ATTACKER-ROW\n")), queryMessage("SELECT 'ATTACKER-ROW'"), queryMessage("SELECT 'ATTACKER-ROW'"))
		})},
		{number: 52, sentence: "The line is cut in the middle of COPY", promise: always(contained), run: copying(
			func(w *wire) { w.say(message('d', []byte("ATTACKER-ROW\n"))) },
			func(w *wire) { w.say(message('d', []byte("ATTACKER-ROW\nATTACKER-ROW\n"))[:20]) },
			func(w *wire) { w.say(message('d', []byte("ATTACKER-ROW\n")), message('f', cText("ATTACKER"))) },
			func(w *wire) { w.say([]byte{'c', 0, 0}) },
		)},
		{number: 53, sentence: "Terminate, which must not end the server connection", promise: always(contained), run: terminate},
		{number: 54, sentence: "Unknown messages, a password in mid-session, impossible lengths", promise: always(refused), run: nonsense},
		{number: 92, sentence: "Pipelined switches of role and path without a Sync, then the line is cut", promise: always(contained), run: cutPipelines},
	}
}

// everybody checks that nobody was given what an attack has left: a session of the victim's that was there before, and
// new ones on every connection.
func (t *trial) everybody(bystander *session) {
	bystander.exact(victims)
	t.inspectNext(victims, nil)
	t.inspectNext(tenants, nil)
	t.committed()
}

func halves(t *trial) {
	bystander := t.victim()
	query := queryMessage("SELECT set_config('TimeZone', 'Asia/Tokyo', false), 'ATTACKER-ROW'")
	extended := slices.Concat(parseMessage("", "SELECT 'ATTACKER-ROW'"), bindMessage("", ""), executeMessage(""), syncMessage())
	for _, whole := range [][]byte{query, extended, callMessage(setConfigOID, "TimeZone", "Asia/Tokyo", "f")} {
		for end := 1; end < len(whole); end++ {
			w := t.hostile().hijack()
			w.say(whole[:end])
			w.Close()
			bystander.exact(victims)
		}
		t.everybody(bystander)
	}
}

func withoutSync(t *trial) {
	bystander := t.victim()
	for _, pipeline := range [][]byte{
		parseMessage("", "SELECT nonsense"),
		slices.Concat(parseMessage("", "SELECT 1"), bindMessage("", ""), executeMessage(""), parseMessage("", "SELECT nonsense")),
		slices.Concat(parseMessage("", "SELECT 1/0"), bindMessage("", ""), executeMessage("")),
		bindMessage("", "evil_unknown"),
		executeMessage("evil_unknown"),
	} {
		for _, further := range [][]byte{nil, queryMessage("SELECT 'ATTACKER-ROW'"), executeMessage("")} {
			w := t.hostile().hijack()
			w.say(pipeline, message('H'))
			w.until('E')
			w.say(further)
			w.Close()
			bystander.exact(victims)
		}
	}
	t.everybody(bystander)
}

func pipelined(t *trial) {
	bystander := t.victim()
	for _, second := range []string{"SELECT 'ATTACKER-ROW' FROM pg_sleep(0.02)", "SELECT repeat('ATTACKER-ROW', 100000)", "BEGIN; INSERT INTO own (body) VALUES ('ATTACKER-ROW')"} {
		for range 5 {
			w := t.hostile().hijack()
			w.say(queryMessage("SELECT 'ATTACKER-ROW'"), queryMessage(second), queryMessage(second))
			w.until('Z')
			w.Close()
			bystander.exact(victims)
		}
		t.everybody(bystander)
	}
}

// copying makes a case of what is done after COPY has begun, by a Query and by the extended protocol.
func copying(attacks ...func(*wire)) func(*trial) {
	const sql = "COPY own (body) FROM STDIN"
	begin := [][]byte{
		queryMessage(sql),
		slices.Concat(parseMessage("", sql), bindMessage("", ""), executeMessage(""), syncMessage()),
		slices.Concat(parseMessage("", sql), bindMessage("", ""), executeMessage(""), message('H')),
	}
	return func(t *trial) {
		bystander := t.victim()
		for _, attack := range attacks {
			for _, b := range begin {
				w := t.hostile().hijack()
				w.say(b)
				w.until('G')
				attack(w)
				t.shortly()
				bystander.exact(victims)
				w.Close()
				bystander.exact(victims)
			}
			t.everybody(bystander)
		}
	}
}

func terminate(t *trial) {
	bystander := t.victim()
	s := t.hostile()
	backend := s.backend()
	w := s.hijack()
	w.say(terminateMessage())
	if !w.ended() {
		t.leak("the session goes on after Terminate")
	}
	t.shortly()
	rows, err := t.registry(t.ctx, "SELECT count(*) FROM pg_stat_activity WHERE pid = "+backend)
	t.must(err)
	if rows[0][0] != "1" {
		t.leak("the server connection ended with the client's Terminate")
	}
	w = t.hostile().hijack()
	w.say(queryMessage("SELECT 1"), terminateMessage(), queryMessage("SELECT 'ATTACKER-ROW'"))
	w.ended()
	w = t.hostile().hijack()
	w.say(queryMessage("BEGIN"), terminateMessage())
	w.ended()
	t.everybody(bystander)
}

func nonsense(t *trial) {
	bystander := t.victim()
	long := func(kind byte, length uint32) []byte { return append([]byte{kind}, int32s(length)...) }
	for _, sent := range [][]byte{
		message('z'), message('!'), {0, 0, 0, 0, 4}, message('p', cText("password")), message('W'), message('v'), message('R', int32s(0)), message('Z', []byte{'I'}),
		long('Q', 3), long('Q', 0), long('Q', 1<<31-1), long('Q', 1<<32-1), long('S', 1<<20), long('X', 1<<30), long('d', 1<<31),
		packet(sslRequestCode), packet(cancelRequestCode, int32s(1, 2)...), startupPacket("user", "postgres"),
	} {
		for _, first := range [][]byte{nil, queryMessage("BEGIN")} {
			w := t.hostile().hijack()
			if first != nil {
				w.say(first)
				w.until('Z')
			}
			w.say(sent)
			t.tally("nonsense", w.refusal())
			if !w.ended() {
				t.leak("the session goes on after nonsense")
			}
		}
		bystander.exact(victims)
	}
	t.everybody(bystander)
}

func cutPipelines(t *trial) {
	bystander := t.victim()
	for _, sql := range []string{"SET ROLE " + t.others.role, "RESET ROLE", "SET search_path = pg_temp", "CREATE TEMP TABLE canary (id int, body text)", "LISTEN evil_channel", "BEGIN"} {
		for _, last := range [][]byte{nil, message('H'), parseMessage("evil_parsed", "SELECT 'ATTACKER-ROW'")} {
			w := t.hostile().hijack()
			w.say(parseMessage("", "SELECT 1"), bindMessage("", ""), executeMessage(""), parseMessage("", sql), bindMessage("", ""), executeMessage(""), last)
			w.Close()
			bystander.exact(victims)
			t.inspectNext(victims, nil)
		}
	}
	t.everybody(bystander)
}
