// Charts of a function, or of all: columns from /api/series, drawn by uPlot in the colours of the page.
"use strict";

const KINDS = {
  duration: { series: [["p50", "mark", "p50"], ["p95", "moss", "p95"], ["p99", "ember", "p99"]], unit: ms },
  invocations: { series: [["invocations", "moss", "all"], ["cold_starts", "dew", "cold"], ["errors", "ember", "errors"]], unit: whole, fill: true },
  cold: { series: [["init_p50", "dew", "p50"], ["init_p99", "ember", "p99"]], unit: ms, points: true },
  instances: { series: [["instances", "mark", "at most"]], unit: whole, fill: true, steps: true },
  spending: { series: [["tokens", "moss", "tokens"], ["cost_usd", "ember", "USD", "usd"]], unit: whole, fill: true },
};
const EVERY_MS = 5000;

function ms(value) {
  if (value >= 120000) return `${(value / 60000).toFixed(0)} min`;
  if (value >= 1000) return `${+(value / 1000).toFixed(value < 10000 ? 1 : 0)} s`;
  return `${+value.toFixed(value < 1 ? 2 : value < 10 ? 1 : 0)} ms`;
}
function whole(value) {
  if (value >= 1e6) return `${+(value / 1e6).toFixed(1)} M`;
  if (value >= 10000) return `${+(value / 1e3).toFixed(1)} k`;
  return `${+value.toFixed(2)}`;
}
const usd = (value) => `$${+value.toPrecision(2)}`;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const two = (number) => String(number).padStart(2, "0");

class Chart {
  constructor(figure) {
    this.figure = figure;
    this.plot = figure.querySelector(".plot");
    this.kind = KINDS[figure.dataset.chart];
    this.query = new URLSearchParams({ window: figure.dataset.window });
    if (figure.dataset.function) this.query.set("function", figure.dataset.function);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    new ResizeObserver(() => this.chart?.setSize(this.size())).observe(this.plot);
    addEventListener("themechange", () => this.draw());
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.draw());
    this.load();
  }

  size() {
    return { width: this.plot.clientWidth, height: this.plot.clientHeight };
  }

  async load() {
    try {
      if (!document.hidden || !this.columns) {
        const answer = await fetch(`/api/series?${this.query}`);
        if (answer.ok) {
          const found = await answer.json();
          found.tokens = found.tokens_in.map((value, at) => value + found.tokens_out[at]);
          this.columns = found;
          if (this.chart) this.update();
          else this.draw();
        }
      }
    } catch {
      // The server is away for a moment; the next look may find it.
    }
    setTimeout(() => this.load(), EVERY_MS);
  }

  data() {
    return [this.columns.time, ...this.kind.series.map(([name]) => this.columns[name])];
  }

  empty() {
    return this.kind.series.every(([name]) => this.columns[name].every((value) => !value));
  }

  update() {
    this.chart.setData(this.data());
    this.nothing.hidden = !this.empty();
  }

  draw() {
    if (!this.columns) return;
    this.chart?.destroy();
    this.plot.replaceChildren();
    const grid = { stroke: colour("edge"), width: 1 };
    const font = `11.5px ${getComputedStyle(this.figure).fontFamily}`;
    const axis = { stroke: colour("faint"), font, ticks: { show: false } };
    const days = this.figure.dataset.window === "7d";
    const second = this.kind.series.some((one) => one[3] && this.columns[one[0]].some((value) => value > 0));
    const scale = { range: (_, low, high) => [0, Math.max(high ?? 0, this.kind.unit === whole ? 4 : 1) * 1.08] };
    this.chart = new uPlot(
      {
        ...this.size(),
        padding: [8, second ? 0 : 18, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { size: 6, width: 0 }, drag: { x: false, y: false } },
        scales: { x: { time: true }, y: scale, usd: { range: (_, low, high) => [0, Math.max(high ?? 0, 0.0001) * 1.08] } },
        axes: [
          {
            ...axis, grid: { show: false }, size: 26, space: 64,
            values: (_, times) => times.map((time) => {
              const at = new Date(time * 1000);
              return days ? at.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : `${two(at.getHours())}:${two(at.getMinutes())}`;
            }),
          },
          { ...axis, grid, size: 52, space: 38, values: (_, values) => values.map(this.kind.unit), incrs: this.kind.unit === whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8, 1e9] : undefined },
          ...(second ? [{ ...axis, scale: "usd", side: 1, size: 64, grid: { show: false }, values: (_, values) => values.map(usd) }] : []),
        ],
        series: [{}, ...this.kind.series.map(([, name, label, scaleName], number) => ({
          label, scale: scaleName ?? "y", stroke: colour(name), width: 1.75, spanGaps: false,
          fill: this.kind.fill && number === 0 ? `color-mix(in srgb, ${colour(name)} 14%, transparent)` : undefined,
          paths: this.kind.steps ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear(),
          points: { show: !this.kind.fill && this.columns.time.length <= 200, size: this.kind.points ? 5 : 4, fill: colour(name), width: 0 },
        }))],
        hooks: { setCursor: [(chart) => this.point(chart)] },
      },
      this.data(),
      this.plot,
    );
    this.nothing = document.createElement("div");
    this.nothing.className = "nothing";
    this.nothing.textContent = "nothing in this time";
    this.nothing.hidden = !this.empty();
    this.plot.append(this.tip, this.nothing);
  }

  point(chart) {
    const at = chart.cursor.idx;
    this.tip.hidden = at == null || this.empty();
    if (this.tip.hidden) return;
    const when = new Date(this.columns.time[at] * 1000);
    const head = document.createElement("div");
    head.textContent = `${when.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${two(when.getHours())}:${two(when.getMinutes())}`;
    const rows = this.kind.series.map(([name, , label, scaleName]) => {
      const row = document.createElement("div");
      const value = this.columns[name][at];
      const strong = document.createElement("b");
      strong.textContent = value == null ? "–" : (scaleName ? usd : this.kind.unit)(value);
      row.append(`${label} `, strong);
      return row;
    });
    this.tip.replaceChildren(head, ...rows);
    const left = chart.valToPos(this.columns.time[at], "x") + chart.bbox.left / devicePixelRatio;
    this.tip.style.top = "4px";
    this.tip.style.left = `${left > this.plot.clientWidth / 2 ? left - this.tip.offsetWidth - 12 : left + 12}px`;
  }
}

for (const figure of document.querySelectorAll("[data-chart]")) new Chart(figure);
