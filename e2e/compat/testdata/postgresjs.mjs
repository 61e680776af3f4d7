import util from 'node:util'
import postgres from '../src/index.js'

const tests = []

export const t = (...test) => { tests.push(test) }
export const ot = t
export const nt = () => {}
t.timeout = 5

const say = (test, error) => process.stdout.write(JSON.stringify({ test, error }) + '\n')

// What a test has left behind when it failed is not the next one's fault.
async function tidy() {
  const sql = postgres({ max: 1, onnotice: () => {} })
  await sql.unsafe('drop table if exists test').catch(() => {})
  await sql.end()
}

async function run([name, ...rest]) {
  const fn = rest.pop()
  const seconds = rest[0]?.timeout || t.timeout
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('timed out')), seconds * 1000) })
  try {
    const [expected, got] = await Promise.all(await Promise.race([fn(), late]))
    if (expected !== got)
      throw util.inspect(expected) + ' expected, ' + util.inspect(got) + ' got'
    say(name, '')
  } catch (error) {
    say(name, util.inspect(error) || 'rejected')
    await tidy()
  } finally {
    clearTimeout(timer)
  }
}

// What a test has started may fail later.
process.on('unhandledRejection', () => {})

setImmediate(async() => {
  for (const test of tests)
    await run(test)
  process.exit(0)
})
