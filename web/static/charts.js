// Draws the three charts with uPlot from /series. Without it, the server's SVG charts stay. Colors come from tokens.css.
"use strict";
(() => {
  if (!window.uPlot || !window.jobq) return;
  const drawn = new Map();
  let numbers = null;
  let address = null;

  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const color = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const faint = (text, alpha) => text.replace(/^rgb\(([^)]+)\)$/, `rgba($1, ${alpha})`);
  const whole = (number) => Number(number).toLocaleString("en-US");
  const seconds = (number) => (number === null || number === undefined ? "–" : window.jobq.duration(number, false));
  const count = (number) => (number === null || number === undefined ? "–" : whole(number));

  const sum = (rows, n) => rows.reduce((total, row) => total + (row[n] ?? 0), 0);
  const CHARTS = {
    // Stacked: the upper edge of the failed jobs is the total.
    done: (s) => {
      const good = [s.succeeded, s.cancelled, s.expired];
      return {
        data: [s.at, s.at.map((_, n) => sum([...good, s.failed], n)), s.at.map((_, n) => sum(good, n))],
        series: [["Failed", "plot-bad"], ["Finished", "plot-good"]], bars: true, axis: count,
        tip: (n) => [["Succeeded", count(s.succeeded[n])], ["Failed", count(s.failed[n])], ["Cancelled", count(s.cancelled[n])], ["Expired", count(s.expired[n])]],
      };
    },
    latency: (s) => ({
      data: [s.at, s.wait_p50, s.wait_p95, s.run_p95],
      series: [["wait p50", "plot-low"], ["wait p95", "plot-mid"], ["run p95", "plot-high"]], axis: seconds,
      tip: (n) => [["Wait p50 / p95 / p99", `${seconds(s.wait_p50[n])} / ${seconds(s.wait_p95[n])} / ${seconds(s.wait_p99[n])}`], ["Run p50 / p95 / p99", `${seconds(s.run_p50[n])} / ${seconds(s.run_p95[n])} / ${seconds(s.run_p99[n])}`]],
    }),
    depth: (s) => ({ data: [s.at, s.ready], series: [["Due", "plot-good"]], fill: true, axis: count, tip: (n) => [["Due", count(s.ready[n])]] }),
  };

  function when(at, long) {
    const date = new Date(at * 1000);
    const zone = window.jobq.isLocal() ? undefined : "UTC";
    const clock = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: zone });
    if (!long) return clock;
    return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: zone }) + " " + clock;
  }

  function options(figure, chart, width) {
    const ink = color("ink-3");
    const line = color("line");
    const font = `11px ${getComputedStyle(document.body).fontFamily}`;
    const span = chart.data[0].at(-1) - chart.data[0][0];
    return {
      width, height: 152, legend: { show: false }, padding: [8, 16, 0, 0],
      cursor: { y: false, points: { show: !chart.bars, size: 5 }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_, __, top) => [0, top > 0 ? top * 1.08 : 1] } },
      axes: [
        { stroke: ink, font, grid: { show: false }, ticks: { stroke: line, size: 4 }, size: 26, space: 64, values: (_, places) => places.map((at) => (span > 90000 ? new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: window.jobq.isLocal() ? undefined : "UTC" }) : when(at))) },
        { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { show: false }, size: 52, space: 36, values: (_, places) => places.map((place) => chart.axis(place)) },
      ],
      series: [{}, ...chart.series.map(([label, name]) => ({
        label, stroke: color(name), width: chart.bars ? 0 : 1.5, spanGaps: false,
        // A value between two gaps is drawn as a point.
        points: chart.bars ? { show: false } : { show: true, size: 4, filter: (plot, n) => plot.data[n].flatMap((value, at, all) => (value != null && all[at - 1] == null && all[at + 1] == null ? [at] : [])) },
        fill: chart.bars ? color(name) : chart.fill ? faint(color(name), 0.14) : undefined,
        paths: chart.bars ? uPlot.paths.bars({ size: [0.76, 40], align: 1 }) : undefined,
      }))],
      hooks: { setCursor: [(plot) => tip(figure, plot, chart)] },
    };
  }

  function tip(figure, plot, chart) {
    let box = plot.root.querySelector(".tip");
    const n = plot.cursor.idx;
    if (n === null || n === undefined) { if (box) box.hidden = true; return; }
    if (!box) { box = Object.assign(document.createElement("div"), { className: "tip" }); plot.root.append(box); }
    const title = Object.assign(document.createElement("b"), { textContent: when(chart.data[0][n], true) });
    box.replaceChildren(title, ...chart.tip(n).map(([name, value]) => Object.assign(document.createElement("div"), { textContent: `${name}: ${value}` })));
    box.hidden = false;
    const left = plot.cursor.left + plot.over.offsetLeft;
    box.style.top = "4px";
    box.style.left = (left > plot.root.clientWidth / 2 ? Math.max(left - box.offsetWidth - 10, 0) : left + 10) + "px";
  }

  function draw(figure) {
    const name = figure.dataset.chart;
    const place = figure.querySelector(".plot");
    if (!place || !numbers || numbers.at.length < 2) return;
    const chart = CHARTS[name](numbers);
    figure.dataset.drawn = "";
    const width = place.clientWidth;
    if (!width) return;
    drawn.get(name)?.destroy();
    const made = options(figure, chart, width);
    drawn.set(name, new uPlot(made, chart.data, place));
  }

  const all = () => document.querySelectorAll("figure[data-chart]").forEach(draw);

  async function load() {
    const from = document.querySelector("[data-series]");
    if (!from) return;
    address = from.dataset.series;
    try {
      const response = await fetch(address, { credentials: "same-origin", headers: { Accept: "application/json" } });
      if (!response.ok || address !== from.dataset.series) return;
      numbers = await response.json();
      all();
    } catch { /* the server's charts stay */ }
  }

  load();
  document.addEventListener("jobq:fresh", load);
  for (const name of ["jobq:theme", "jobq:zone"]) document.addEventListener(name, all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  let timer = 0;
  window.addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(all, 150); });
})();
