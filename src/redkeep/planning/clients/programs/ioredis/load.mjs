// Writers for each hash tag, and their counters (see README.md in the folder above).
import { Redis } from "ioredis";
import { connect } from "./redis-settings.mjs";

const BUCKET_MS = 10, PAUSE_MS = 20;
const start = Date.now();
const told = new Set();

/** As the library's own first pages show it. */
function naive() {
  const password = process.env.REDIS_PASSWORD;
  const nodes = process.env.LOAD_NODES.split(",").map((node) => {
    const [host, port] = node.split(":");
    return { host, port: Number(port) };
  });
  const redis =
    process.env.LOAD_MODE === "cluster"
      ? new Redis.Cluster(nodes, { redisOptions: { password } })
      : new Redis({ sentinels: nodes, name: process.env.LOAD_NAME, password, sentinelPassword: password });
  redis.on("error", () => {});
  return redis;
}

const redis = process.argv[2] === "naive" ? naive() : connect();
const tags = process.env.LOAD_TAGS.split(",");
const counters = new Map(tags.map((tag) => [tag, [[], []]]));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function write(tag, key) {
  for (let number = 0; ; number++) {
    const began = Date.now();
    let kind = 0;
    try {
      await redis.set(key, `value-${number}`, "EX", 3600);
    } catch (error) {
      kind = 1;
      const text = String(error.message).replaceAll(/\s+/g, " ");
      const shape = text.replaceAll(/[0-9]+/g, "N");
      if (told.size < 20 && !told.has(shape)) {
        told.add(shape);
        console.log(`E ${tag} ${text}`);
      }
    }
    const its = counters.get(tag)[kind];
    const bucket = Math.floor((Date.now() - start) / BUCKET_MS);
    its[bucket] = (its[bucket] ?? 0) + 1;
    await sleep(Math.max(1, PAUSE_MS - (Date.now() - began)));
  }
}

for (const tag of tags) {
  for (let worker = 0; worker < Number(process.env.LOAD_WORKERS); worker++) {
    write(tag, `redkeep:drill:{${tag}}:client-${worker}`);
  }
}
process.stdin.on("end", () => process.exit(0)).resume();
let from = 0;
setInterval(() => {
  const to = Math.floor((Date.now() - start) / BUCKET_MS) - 1;
  for (const [tag, kinds] of counters) {
    const lists = kinds.map((its) => Array.from({ length: to - from }, (_, i) => its[from + i] ?? 0).join(","));
    console.log(`B ${start + from * BUCKET_MS} ${tag} ${lists.join(" ")}`);
  }
  from = to;
}, 250);
