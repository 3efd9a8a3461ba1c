// Draws counts over time: stacked bars with a table of the same, and small lines.

import { clock, el, rate, svg } from "./elements.js";

const HEIGHT = 100;
const TICKS_X = 4;

/** The next number whose half is round, too: 1, 2, 4, 6, 8, 10, 20 … */
function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= number - 1e-9);
}

/**
 * Stacked bars, the first series at the bottom.
 *
 * It is made once, and drawn again with each answer: a pointer over it is not disturbed.
 */
export class StackedBars {
  #all;
  #series = [];
  #bars = svg("svg", { class: "bars", preserveAspectRatio: "none", "aria-hidden": "true" });
  #ys = el("div", { class: "y-axis", "aria-hidden": "true" });
  #xs = el("div", { class: "x-axis", "aria-hidden": "true" });
  #plot;
  #picture;
  #legend = el("ul", { class: "legend" });
  #head = el("thead");
  #rows = el("tbody");
  #cursor = svg("rect", { class: "cursor", y: 0, height: HEIGHT, width: 1, visibility: "hidden" });
  #shown = null;
  #readout;

  /**
   * @param series [{name, key, isRare}] in the order of the stack; `key` is also the class that
   *   colours it. One that is rare is left out where it has nothing.
   * @param readout gets the words for what the pointer is over.
   */
  constructor(holder, readout, series) {
    this.#all = series;
    this.#readout = readout;
    this.#plot = el("div", { class: "plot" }, this.#bars);
    this.#picture = el("div", { class: "chart", role: "img" }, this.#ys, this.#plot, this.#xs);
    const table = el("details", { class: "as-table" },
      el("summary", null, "As a table"),
      el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Decisions by minute" },
        el("table", null,
          el("caption", { class: "hidden" }, "Decisions in each of the last 15 minutes"),
          this.#head, this.#rows)));
    holder.replaceChildren(this.#picture, el("div", { class: "below" }, this.#legend, table));
    this.#plot.addEventListener("pointermove", (event) => this.#point(event));
    this.#plot.addEventListener("pointerleave", () => this.#point(null));
  }

  /** @param shown {startMs, stepS, points, counts: {key: [numbers]}} */
  draw(shown) {
    this.#shown = shown;
    const { points, stepS, counts, startMs } = shown;
    this.#series = this.#all.filter(({ key, isRare }) => !isRare || counts[key].some((one) => one > 0));
    const sums = Array.from({ length: points }, (_, at) =>
      this.#series.reduce((sum, { key }) => sum + counts[key][at], 0));
    const top = roundUp(Math.max(1, Math.max(...sums) / stepS)) * stepS;
    this.#bars.setAttribute("viewBox", `0 0 ${points} ${HEIGHT}`);
    const base = new Array(points).fill(0);
    const paths = this.#series.map(({ key }) => {
      let outline = "";
      for (let at = 0; at < points; at += 1) {
        if (counts[key][at] === 0) continue;
        const from = (base[at] / top) * HEIGHT;
        // What is little must still be seen.
        const high = Math.max((counts[key][at] / top) * HEIGHT, key === "allowed" ? 0 : 1.5);
        outline += `M${at + 0.08} ${(HEIGHT - from).toFixed(2)}v${(-high).toFixed(2)}h.84v${high.toFixed(2)}z`;
        base[at] += (high * top) / HEIGHT;
      }
      return svg("path", { class: key, d: outline });
    });
    const lines = [0.25, 0.5, 0.75].map((part) =>
      svg("path", { class: "grid", d: `M0 ${HEIGHT * part}h${points}` }));
    this.#bars.replaceChildren(...lines, this.#cursor, ...paths);
    this.#ys.replaceChildren(...[1, 0.5, 0].map((part) => el("span", null, rate((top / stepS) * part))));
    this.#xs.replaceChildren(...Array.from({ length: TICKS_X + 1 }, (_, tick) =>
      el("span", null, clock(startMs + (points * stepS * 1000 * tick) / TICKS_X).slice(-8, -3))));
    this.#picture.setAttribute("aria-label", this.#sentence(sums));
    this.#legend.replaceChildren(...[...this.#series].reverse().map(({ name, key }) =>
      el("li", null, el("span", { class: `swatch ${key}`, "aria-hidden": "true" }), name)));
    this.#fillTable();
  }

  #sentence(sums) {
    const { points, stepS, counts } = this.#shown;
    const all = sums.reduce((sum, one) => sum + one, 0);
    const parts = this.#series.map(({ name, key }) =>
      `${counts[key].reduce((sum, one) => sum + one, 0)} ${name}`);
    const most = Math.max(...sums) / stepS;
    return `Decisions in the last ${Math.round((points * stepS) / 60)} minutes: ${all}, of which `
      + `${parts.join(", ")}; at most ${rate(most)} a second. The table below has each minute.`;
  }

  #fillTable() {
    const { points, stepS, counts, startMs } = this.#shown;
    const perRow = Math.max(1, Math.round(60 / stepS));
    const rows = [];
    for (let from = 0; from < points; from += perRow) {
      const cells = this.#series.map(({ key }) => {
        const sum = counts[key].slice(from, from + perRow).reduce((total, one) => total + one, 0);
        return el("td", { class: "number" }, String(sum));
      });
      const time = clock(startMs + from * stepS * 1000);
      rows.unshift(el("tr", null, el("th", { scope: "row" }, time), cells));
    }
    this.#head.replaceChildren(el("tr", null, el("th", { scope: "col" }, "Minute"),
      this.#series.map(({ name }) => el("th", { scope: "col", class: "number" }, name))));
    this.#rows.replaceChildren(...rows);
  }

  #point(event) {
    if (event === null || this.#shown === null) {
      this.#cursor.setAttribute("visibility", "hidden");
      this.#readout.textContent = "";
      return;
    }
    const { points, stepS, counts, startMs } = this.#shown;
    const box = this.#plot.getBoundingClientRect();
    const at = Math.min(points - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * points)));
    this.#cursor.setAttribute("x", at);
    this.#cursor.setAttribute("visibility", "visible");
    const words = [...this.#series].reverse().map(({ name, key }) => `${rate(counts[key][at] / stepS)} ${name}`);
    this.#readout.textContent = `${clock(startMs + at * stepS * 1000)}: ${words.join(", ")}`;
  }
}

/** A line of counts without axes; the cells beside it have the figures. */
export function sparkline(counts, bars = 60) {
  const size = Math.max(1, Math.ceil(counts.length / bars));
  const summed = [];
  for (let from = 0; from < counts.length; from += size) {
    summed.push(counts.slice(from, from + size).reduce((sum, one) => sum + one, 0));
  }
  const top = Math.max(1, ...summed);
  const outline = summed.map((one, at) =>
    (one === 0 ? "" : `M${at + 0.1} 20v${(-Math.max(1.5, (one / top) * 20)).toFixed(2)}h.8V20z`)).join("");
  return svg("svg", { class: "spark", viewBox: `0 0 ${summed.length} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "base", d: `M0 20h${summed.length}` }), svg("path", { class: "denied", d: outline }));
}

/** A bar of a share from 0 to 1; the text beside it says it, too. */
export function meter(part) {
  const width = Math.max(0, Math.min(1, part)) * 100;
  const state = part >= 1 ? "over" : part >= 0.8 ? "near" : "within";
  return svg("svg", { class: `meter ${state}`, viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", width: 100, height: 8 }),
    svg("rect", { class: "fill", width, height: 8 }));
}
