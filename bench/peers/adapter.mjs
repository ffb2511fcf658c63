// What every adapter on Node does the same: what adapter.py does, by the same contract. No package is needed.

import { once } from "node:events";
import { closeSync, fstatSync, openSync, readFileSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

// Packages are below NODE_PATH, which `import` does not look at.
export const require = createRequire(import.meta.url);

export const URL = process.env.BENCH_DATABASE_URL;
export const TUNED = process.env.BENCH_CONFIG === "tuned";

const workMs = Number(process.env.BENCH_WORK_MS ?? "0");

// CLOCK_MONOTONIC in seconds, as Python's time.monotonic().
export const now = () => Number(process.hrtime.bigint()) / 1e9;

// Node maps no files: an array in memory, whose new places go into the file by runs of neighbours.
class Places {
  constructor(path) {
    this.file = openSync(path, "r+");
    this.values = new Float64Array(fstatSync(this.file).size / 8);
    this.unwritten = [];
  }

  set(i, value) {
    this.values[i] = value;
    this.unwritten.push(i);
  }

  flush() {
    const places = this.unwritten.sort((a, b) => a - b);
    this.unwritten = [];
    for (let from = 0, to; from < places.length; from = to) {
      for (to = from + 1; to < places.length && places[to] <= places[to - 1] + 1; to++);
      const first = places[from];
      const run = new Uint8Array(this.values.buffer, first * 8, (places[to - 1] - first + 1) * 8);
      for (let done = 0; done < run.length; ) {
        done += writeSync(this.file, run, done, run.length - done, first * 8 + done);
      }
    }
  }
}

let record;

// Write down that job `i` starts now; it is in the file after SIGUSR2, or when the worker has stopped.
export function started(i) {
  record ??= new Places(process.env.BENCH_RECORD);
  record.set(i, now());
}

// The job; what it returns is awaited by the peer.
export function noop(i) {
  started(i);
  return workMs ? sleep(workMs) : undefined;
}

// Resolve when the worker is to stop; then, and whenever it is asked by SIGUSR2, the record is written.
export async function untilStopped() {
  process.on("SIGUSR2", () => record?.flush());
  const alive = setInterval(() => {}, 60_000);
  await Promise.race([once(process, "SIGTERM"), once(process, "SIGINT")]);
  clearInterval(alive);
  record?.flush();
}

export function* chunks(first, jobs, size) {
  for (let at = first; at < first + jobs; at += size) {
    yield Array.from({ length: Math.min(size, first + jobs - at) }, (_, n) => at + n);
  }
}

// Enqueue calls of one client, one after the other, paced and timed.
async function calls(call, { first, jobs, rate, seconds }) {
  const begun = new Places(`${process.env.BENCH_RECORD}.begun`);
  const took = [];
  const origin = now();
  for (let n = 0; n < jobs; n++) {
    // Timers are a millisecond coarse, and late: the last one is spent waiting in turns of the event loop.
    const due = rate ? origin + n / rate : 0;
    if (due - now() > 0.002) await sleep((due - now() - 0.001) * 1000);
    while (now() < due) await new Promise(setImmediate);
    const begin = now();
    if (begin - origin >= seconds) break;
    begun.set(first + n, begin);
    await call(first + n);
    took.push(now() - begin);
  }
  const elapsed = now() - origin;
  begun.flush();
  closeSync(begun.file);
  took.sort((a, b) => a - b);
  const figures = { jobs: took.length, seconds: elapsed };
  for (const share of [50, 95, 99]) {
    const rank = Math.max(0, Math.ceil((took.length * share) / 100) - 1);
    figures[`call_p${share}_ms`] = took.length ? took[rank] * 1000 : null;
  }
  return figures;
}

// The version of an installed package: not every package lets its package.json be required.
export function versionOf(name) {
  for (const place of require.resolve.paths(name)) {
    try {
      return JSON.parse(readFileSync(`${place}/${name}/package.json`)).version;
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  throw new Error(`${name} is not installed below ${process.env.NODE_PATH}`);
}

// Do what argv asks. `client` opens what `fill` and `enqueue` use: {fill(jobs, first), call(i), close()}.
export async function main({ version, setup, work, client }) {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { jobs: { type: "string" }, first: { type: "string" }, rate: { type: "string" }, seconds: { type: "string" } },
  });
  const asked = {
    jobs: Number(values.jobs ?? "0"),
    first: Number(values.first ?? "0"),
    rate: values.rate ? Number(values.rate) : 0,
    seconds: values.seconds ? Number(values.seconds) : Infinity,
  };
  const command = {
    version,
    setup: async () => (await setup()) ?? {},
    work,
    fill: async () => {
      const opened = await client();
      const begin = now();
      await opened.fill(asked.jobs, asked.first);
      const seconds = now() - begin;
      await opened.close();
      return { jobs: asked.jobs, seconds };
    },
    enqueue: async () => {
      const opened = await client();
      const figures = await calls(opened.call, asked);
      await opened.close();
      return figures;
    },
  }[positionals[0]];
  if (!command) throw new Error(`unknown command ${positionals[0]}`);
  const said = await command();
  record?.flush();
  if (said) await new Promise((done) => process.stdout.write(`${JSON.stringify(said)}\n`, done));
  process.exit(0);
}
