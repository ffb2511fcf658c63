// Graphile Worker. Default: a worker with no options: one job at a time, no batching.

import { chunks, main, noop, require, TUNED, untilStopped, URL, versionOf } from "./adapter.mjs";

const { Logger, makeWorkerUtils, run, runMigrations } = require("graphile-worker");

// Its page "Performance": the configuration of its own figures.
const tuned = {
  concurrentJobs: 24,
  maxPoolSize: 25,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};

// A line for each job goes to stdout by default. Its own performance test turns that off (NO_LOG_SUCCESS), so we do for both.
process.env.NO_LOG_SUCCESS = "1";
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

const preset = { worker: { connectionString: URL, logger, ...(TUNED ? tuned : {}) } };

await main({
  version: () => ({
    peer: `graphile-worker ${versionOf("graphile-worker")}`,
    version: versionOf("graphile-worker"),
    driver: `pg ${versionOf("pg")}, node ${process.versions.node}`,
  }),

  setup: () => runMigrations({ preset }),

  async work() {
    const taskList = { noop: ({ i }) => noop(i) };
    const runner = await run({ preset, taskList, parsedCronItems: [], noHandleSignals: true });
    await untilStopped();
    await runner.stop();
  },

  async client() {
    const utils = await makeWorkerUtils({ preset });
    return {
      async fill(jobs, first) {
        for (const numbers of chunks(first, jobs, 10_000)) {
          await utils.addJobs(numbers.map((i) => ({ identifier: "noop", payload: { i } })));
        }
      },
      call: (i) => utils.addJob("noop", { i }),
      close: () => utils.release(),
    };
  },
});
