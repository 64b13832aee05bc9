// BullMQ 5: one worker, a delayed job per pending timeout; campaigns and actions stay in PostgreSQL.
// The same conversation as the Python programs': a job as JSON, `ready`, a line, and off.
import { Queue, Worker } from 'bullmq';
import IORedis from 'ioredis';
import pg from 'pg';
import readline from 'node:readline';

const CONCURRENCY = 50;
const CONNECTIONS = 20;
const CHUNK = 1000;
const QUEUE = 'timeouts';
const NEXT_DELAY = 100 * 3600 * 1000;

const job = JSON.parse(process.argv[2]);
const redis = new IORedis({ host: '127.0.0.1', port: job.redis, maxRetriesPerRequest: null });
const pool = new pg.Pool({ connectionString: job.url, max: CONNECTIONS });
const queue = new Queue(QUEUE, { connection: redis, defaultJobOptions: { removeOnComplete: true } });

// BullMQ keeps ':' for itself.
const jobId = (key) => key.replaceAll(':', '|');
const options = (key, delay) => ({ jobId: jobId(key), delay: Math.max(1, Math.round(delay)) });
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const input = readline.createInterface({ input: process.stdin });
const waitForGo = () => new Promise((resolve) => {
  input.once('line', resolve);
  process.stdout.write('ready\n');
});

async function fire({ data }) {
  const nextKey = `${data.tenant}:${data.campaign}:second:2:timeout:no_open`;
  const values = { ...data, next_key: nextKey };
  const client = await pool.connect();
  const run = (name) => {
    const [text, names] = job.statements[name];
    return client.query({ name, text, values: names.map((each) => values[each]) });
  };
  let canceled = [];
  try {
    await client.query('BEGIN');
    const { rows: [campaign] } = await run('lock');
    if (campaign.status !== 'active' || campaign.node_visit !== 1) {
      await client.query('ROLLBACK');
      return;
    }
    await run('complete');
    await run('move');
    await run('record');
    canceled = (await run('cancel')).rows;
    await run('schedule');
    await queue.add('fire', { tenant: data.tenant, campaign: data.campaign, contact: data.contact, key: nextKey },
      options(nextKey, NEXT_DELAY));
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  } finally {
    client.release();
  }
  for (const { dedupe_key: key } of canceled) await queue.remove(jobId(key));
}

async function load() {
  await redis.flushall();
  const { rows } = await pool.query({ text: job.pending, rowMode: 'array' });
  for (let start = 0; start < rows.length; start += CHUNK) {
    const now = Date.now();
    await queue.addBulk(rows.slice(start, start + CHUNK).map(([tenant, campaign, contact, key, epoch]) => (
      { name: 'fire', data: { tenant, campaign, contact, key }, opts: { ...options(key, epoch * 1000 - now), timestamp: now } })));
  }
  say({});
}

const example = (name, number) => {
  const [tenant, campaign] = [`${name}-${number % 10}`, `campaign-${number}`];
  const key = `${tenant}:${campaign}:second:2:timeout:no_open`;
  return { name: 'fire', data: { tenant, campaign, contact: `contact-${number}`, key }, opts: options(key, 24 * 3600 * 1000) };
};

async function schedule() {
  await redis.flushall();
  const singles = Array.from({ length: job.one }, (_, number) => example('one', number));
  const many = Array.from({ length: job.bulk }, (_, number) => example('bulk', number));
  await waitForGo();
  const began = performance.now();
  for (const each of singles) await queue.add(each.name, each.data, each.opts);
  const between = performance.now();
  for (let start = 0; start < many.length; start += CHUNK) await queue.addBulk(many.slice(start, start + CHUNK));
  const ended = performance.now();
  const { delayed } = await queue.getJobCounts('delayed');
  say({ one: job.one * 1000 / (between - began), bulk: job.bulk * 1000 / (ended - between), stored: delayed });
}

async function missing() {
  const { rows } = await pool.query(
    "SELECT dedupe_key FROM scheduled_actions WHERE status = 'pending' AND node_visit = 2");
  const found = await Promise.all(rows.map(({ dedupe_key: key }) => queue.getJob(jobId(key))));
  say({ missing: found.filter((each) => !each).length });
}

if (job.mode === 'fire') {
  const worker = new Worker(QUEUE, fire, { connection: redis.duplicate(), concurrency: CONCURRENCY, autorun: false });
  worker.on('error', (error) => console.error(error));
  worker.on('failed', (_, error) => console.error(error));
  await Promise.all([queue.waitUntilReady(), worker.waitUntilReady(), pool.query('SELECT 1')]);
  await waitForGo();
  worker.run();
} else {
  if (job.mode === 'schedule') await schedule();
  else {
    await waitForGo();
    await (job.mode === 'load' ? load() : missing());
  }
  process.exit(0);
}
