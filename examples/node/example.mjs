// Connects to the proxy with node-postgres and prints the schema that its tenant works in:
//
//   npm install pg@8
//   DSN='postgres://LOGIN.acme:PASSWORD@127.0.0.1:6432/acme' node example.mjs
import pg from "pg";

const client = new pg.Client({ connectionString: process.env.DSN });
await client.connect();
try {
  // A named statement: the proxy prepares it on whichever server connection runs it.
  const result = await client.query({ name: "schema", text: "select current_schema() as schema" });
  console.log(result.rows[0].schema);
} finally {
  await client.end();
}
