// The tiles, the chart of decisions and the reasons of denials.

import { StackedBars, sparkline } from "./charts.js";
import { button, byId, count, el, emptyRow, rate, setText, share, span } from "./elements.js";

/** The bottom of the stack first: what is denied must not float on what is allowed. */
const OUTCOMES = [
  { name: "not decided", key: "undecided" },
  { name: "denied", key: "denied" },
  { name: "allowed", key: "allowed" },
  // By a door that decides and lets everything pass; most installations have none.
  { name: "in shadow", key: "shadow", isRare: true },
];
/** The reason of a denial that stands for "could not be decided". */
const NO_DECISION = "unavailable";
const NOW_S = 30;

function outcomeOf({ outcome, reason }) {
  if (outcome.startsWith("would_")) return "shadow";
  if (outcome === "allow") return "allowed";
  return reason === NO_DECISION ? "undecided" : "denied";
}

const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);

export class Overview {
  #chart;
  #tiles = new Map();
  #choose;
  #titles = {};

  /** @param chooseReason shows the denials of one reason. */
  constructor(chooseReason) {
    this.#choose = chooseReason;
    this.#chart = new StackedBars(byId("rates-chart"), byId("rates-readout"), OUTCOMES);
    for (const [key, label] of [
      ["rate", "Decisions a second"], ["denied", "Denied"], ["undecided", "Not decided"],
      ["near", "Near or over a limit"], ["dependencies", "Dependencies"], ["catalog", "Catalog"],
    ]) {
      const value = el("dd", { class: "value" }, "–");
      const note = el("dd", { class: "note muted" });
      this.#tiles.set(key, { value, note, tile: el("div", { class: "tile" }, el("dt", null, label), value, note) });
      byId("tiles").append(this.#tiles.get(key).tile);
    }
  }

  /** @param titles what each reason means, in a few words. */
  learn(titles) {
    this.#titles = titles;
  }

  drawRates({ step_s: stepS, start, points, series }) {
    const counts = Object.fromEntries(OUTCOMES.map(({ key }) => [key, new Array(points).fill(0)]));
    const reasons = new Map();
    for (const one of series) {
      const into = counts[outcomeOf(one)];
      one.counts.forEach((number, at) => { into[at] += number; });
      if (one.outcome === "deny") {
        const known = reasons.get(one.reason) ?? new Array(points).fill(0);
        reasons.set(one.reason, known.map((number, at) => number + one.counts[at]));
      }
    }
    this.#chart.draw({ startMs: new Date(start).getTime(), stepS, points, counts });
    this.#drawReasons(reasons, stepS);
    this.#tellRates(counts, stepS);
  }

  #tellRates(counts, stepS) {
    const last = Math.max(1, Math.round(NOW_S / stepS));
    const recent = Object.fromEntries(OUTCOMES.map(({ key }) => [key, sum(counts[key].slice(-last))]));
    const seconds = last * stepS;
    const all = recent.allowed + recent.denied + recent.undecided;
    const over = `over ${span(seconds)}`;
    this.#tell("rate", rate(all / seconds), over);
    const tell = (key) => this.#tell(key, all === 0 ? "–" : share(recent[key] / all),
      all === 0 ? over : `${rate(recent[key] / seconds)} a second, ${over}`,
      key === "undecided" && recent[key] > 0 ? "bad" : "");
    tell("denied");
    tell("undecided");
  }

  #drawReasons(reasons, stepS) {
    const perMinute = Math.round(60 / stepS);
    const rows = [...reasons].map(([reason, counts]) => ({ reason, counts, all: sum(counts) }))
      .filter(({ all }) => all > 0).sort((one, other) => other.all - one.all)
      .map(({ reason, counts, all }) => el("tr", null,
        el("th", { scope: "row" },
          button(reason, () => this.#choose(reason), { class: "link code", title: `${this.#titles[reason] ?? reason}: show these` })),
        el("td", { class: "grows" }, sparkline(counts)),
        el("td", { class: "number" }, count(sum(counts.slice(-perMinute)))),
        el("td", { class: "number" }, count(all))));
    refill(byId("reasons").tBodies[0], rows.length > 0 ? rows : [emptyRow(4, "Nothing was denied in the last 15 minutes.")]);
  }

  tellLimits(near, over) {
    this.#tell("near", count(near), over > 0 ? `${count(over)} with nothing left` : "none with nothing left", over > 0 ? "warn" : "");
  }

  tellStatus({ catalog, dependencies, ready }) {
    const used = dependencies.filter(({ state }) => state !== "unused").length;
    const failing = dependencies.filter(({ state }) => state === "failing").length;
    this.#tell("dependencies", failing > 0 ? `${failing} failing` : ready.status,
      used > 0 ? `${used} in use` : "none was asked yet",
      ready.status === "ready" && failing === 0 ? "good" : ready.status === "not ready" ? "bad" : "warn");
    const problems = catalog.problems.length;
    this.#tell("catalog", problems > 0 ? `${problems} problem${problems > 1 ? "s" : ""}` : `${count(catalog.apis)} APIs`,
      `${count(catalog.applications)} applications, ${count(catalog.subscriptions)} subscriptions`, problems > 0 ? "bad" : "");
  }

  #tell(key, value, note, state = "") {
    const tile = this.#tiles.get(key);
    setText(tile.value, value);
    setText(tile.note, note);
    tile.tile.dataset.state = state;
  }
}

/** New rows, with the keyboard's focus where it was: a redraw must not take it away. */
function refill(body, rows) {
  const held = body.contains(document.activeElement) ? document.activeElement.textContent : null;
  body.replaceChildren(...rows);
  if (held !== null) {
    [...body.querySelectorAll("button")].find((one) => one.textContent === held)?.focus({ preventScroll: true });
  }
}
