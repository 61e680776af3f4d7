// Command churn is the proof by numbers: sessions of many tenants share few server connections, live short and end
// badly, and every answer that any of them gets is searched for the mark of another tenant.
//
//	go run ./e2e/churn [-level slot] [-tenants 200] [-connections 8] [-answers 1000000] [-drop role|schema] [-pgbin DIR]
//
// It starts a Postgres of its own, provisions the tenants with the built docexctl, and runs the built docex-proxy. Each
// tenant's rows, notifications, settings, statements and seeds of random() bear its mark. Workers speak the protocol
// themselves: they log in as a random tenant, take random steps (simple and extended queries, pipelines, errors, COPY,
// settings, temporary tables, cursors, LISTEN, locks, other tenants' schemas, cancel requests that race with the end of
// their query or bear the key of a session that is over), and leave in a random way: politely, by RST, in the middle of a
// message, of a pipeline, of COPY, of a transaction, of a result, with everything a session can leave behind.
//
// A run fails when an answer bears a foreign mark, when a session finds what another has left, when the messages are not
// exactly those that are due, in their order, and when a step does not end. With -drop, half of the tenants lose their
// role or their schema under load, one after the other: they must then get errors, never a row, and the others must not
// notice. -sabotage puts a row of one tenant into another's table: a run that does not report it is worth nothing.
//
// What is counted as an answer is a message of the server that names its tenant: a row, a line of COPY, a notification, a
// setting, an error. Answers that name nobody prove nothing and are counted apart.
package main
