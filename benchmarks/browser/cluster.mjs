// puppeteer-cluster: so many captures of one page, a fresh context each. argv: browser, url, captures, concurrency.
import {createRequire} from 'node:module';
const require = createRequire(process.env.BENCH_MODULES + '/');
const {Cluster} = require('puppeteer-cluster');
const [browser, url, captures, concurrency] = process.argv.slice(2);
const cluster = await Cluster.launch({
    concurrency: Cluster.CONCURRENCY_CONTEXT,
    maxConcurrency: Number(concurrency),
    puppeteer: require('puppeteer-core'),
    puppeteerOptions: {executablePath: browser, args: ['--no-sandbox'], headless: 'shell'},
});
let bytes = 0;
cluster.on('taskerror', failure => { console.error(failure); process.exit(1); });
await cluster.task(async ({page, data}) => {
    await page.setViewport({width: 1280, height: 720});
    await page.goto(data);
    bytes = (await page.screenshot()).length;
});
const run = async n => { for (let i = 0; i < n; i++) cluster.queue(url); await cluster.idle(); };
await run(4);
const from = process.hrtime.bigint();
await run(Number(captures));
console.log(JSON.stringify({per_s: Number(captures) / (Number(process.hrtime.bigint() - from) / 1e9), bytes}));
await cluster.close();
