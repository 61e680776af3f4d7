// What node-postgres does: simple queries, parameters, named statements, a pool, errors. Prints "ok" when all is well.
import assert from 'node:assert/strict'
import pg from 'pg'

const { E2E_HOST, E2E_PORT, E2E_DATABASE, E2E_LOGIN, E2E_PASSWORD, E2E_TENANT, E2E_SCHEMA } = process.env
const server = { host: E2E_HOST, port: Number(E2E_PORT), database: E2E_DATABASE, password: E2E_PASSWORD }

const client = new pg.Client({ ...server, user: E2E_LOGIN, options: `-c docex.tenant_id=${E2E_TENANT}` })
await client.connect()
const one = async (...query) => Object.values((await client.query(...query)).rows[0])[0]
assert.equal(await one('SELECT current_schema()'), E2E_SCHEMA)
assert.equal(await one('SELECT $1::int + 1', [41]), 42)
for (let i = 0; i < 20; i++) {
  assert.equal(await one({ name: 'sum', text: 'SELECT $1::int + $2::int', values: [i, 1] }), i + 1)
}
await assert.rejects(client.query('SELECT 1/0'), { code: '22012' })
await assert.rejects(client.query({ name: 'bad', text: 'SELECT nonsense', values: [] }), { code: '42703' })
assert.equal(await one('SELECT 1'), 1)
await client.query('BEGIN')
await client.query('CREATE TEMP TABLE scratch (x int) ON COMMIT DROP')
await client.query('INSERT INTO scratch VALUES ($1), ($2)', [1, 2])
assert.equal(await one('SELECT count(*)::int FROM scratch'), 2)
await client.query('ROLLBACK')
await client.query('LISTEN node')
const heard = new Promise(resolve => client.once('notification', m => resolve(m.payload)))
await client.query("NOTIFY node, 'hello'")
assert.equal(await heard, 'hello')
await client.end()

const pool = new pg.Pool({ ...server, user: `${E2E_LOGIN}.${E2E_TENANT}`, max: 20 })
const sums = await Promise.all(Array.from({ length: 200 }, (_, i) =>
  pool.query({ name: `n${i % 7}`, text: `SELECT ${i % 7} + $1::int AS sum, current_schema() AS schema`, values: [i] })))
sums.forEach(({ rows: [row] }, i) => assert.deepEqual(row, { sum: i % 7 + i, schema: E2E_SCHEMA }))
await pool.end()

const stranger = new pg.Client({ ...server, user: E2E_LOGIN + '.nobody' })
await assert.rejects(stranger.connect(), { code: '28P01' })
console.log('ok')
