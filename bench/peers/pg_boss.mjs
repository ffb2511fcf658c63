// pg-boss. Default: `work(name, handler)`, which fetches one job every two seconds.

import { chunks, main, noop, require, TUNED, untilStopped, URL, versionOf } from "./adapter.mjs";

const { PgBoss } = require("pg-boss");

const QUEUE = "noop";

// Its page "Workers": NOTIFY wakes the worker, a full batch fetches the next at once. One handler call and one completion a
// batch, which fail or complete together. Two fetchers by trial: a fifth more than one, and four of 500 did as well; to give up
// the order of creation and of priority, or to give the queue a table of its own, gained nothing.
const options = TUNED
  ? { batchSize: 1000, localConcurrency: 2, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }
  : {};

async function start(more) {
  const boss = new PgBoss({ connectionString: URL, ...more });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  return boss;
}

await main({
  version: () => ({
    peer: `pg-boss ${versionOf("pg-boss")}`,
    version: versionOf("pg-boss"),
    driver: `pg ${versionOf("pg")}, node ${process.versions.node}`,
  }),

  async setup() {
    const boss = await start();
    await boss.createQueue(QUEUE, TUNED ? { notify: true } : {});
    await boss.stop({ graceful: false });
  },

  async work() {
    const boss = await start(TUNED ? { useListenNotify: true } : {});
    await boss.work(QUEUE, options, async (jobs) => {
      await Promise.all(jobs.map((job) => noop(job.data.i)));
    });
    await untilStopped();
    await boss.stop();
  },

  async client() {
    // A client that only sends supervises nothing.
    const boss = await start({ supervise: false, schedule: false });
    return {
      async fill(jobs, first) {
        for (const numbers of chunks(first, jobs, 10_000)) {
          await boss.insert(QUEUE, numbers.map((i) => ({ data: { i } })));
        }
      },
      call: (i) => boss.send(QUEUE, { i }),
      close: () => boss.stop({ graceful: false }),
    };
  },
});
