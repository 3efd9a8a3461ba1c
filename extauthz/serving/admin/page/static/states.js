// Consumers near their limits, what the service needs, and the state of the catalog.

import { meter } from "./charts.js";
import { apiOf } from "./decisions.js";
import { byId, clock, count, el, emptyRow, milliseconds, named, secondsFromNow, setText, share, span } from "./elements.js";

const STATES = { ok: "allowed", unused: "" };

/** From this share on a consumer is said to be near its limit. */
const NEAR = 0.8;

/** Draws the limits; gives how many are near or over, and over. */
export function drawLimits({ limits }) {
  const rows = limits.map((limit) => el("tr", null,
    el("th", { scope: "row" }, named(limit.consumer || "everybody together"),
      el("span", { class: "muted words" }, apiOf(limit))),
    el("td", null, limit.level, el("span", { class: "muted words" }, named(limit.tier), limit.window ? [", ", windowOf(limit.window)] : null)),
    el("td", { class: "grows" }, el("span", { class: "with-meter" }, meter(limit.share), ` ${share(limit.share)} `),
      el("span", { class: "muted words" }, `${count(limit.used)} of ${count(limit.limit)}`)),
    el("td", { class: "number" }, count(limit.remaining)),
    el("td", { class: "number" }, limit.resets ? untilOf(limit.resets) : "–")));
  byId("limit-list").tBodies[0].replaceChildren(...(rows.length > 0 ? rows
    : [emptyRow(5, "No limit was charged yet.")]));
  const near = limits.filter((limit) => limit.share >= NEAR).length;
  const over = limits.filter((limit) => limit.remaining <= 0).length;
  return { near, over };
}

const windowOf = (window) => (typeof window === "number" ? span(window) : String(window));

function untilOf(resets) {
  const seconds = secondsFromNow(resets);
  return seconds > 0 ? `in ${span(seconds)}` : "now";
}

/** Draws what /api/status says beside the catalog's size. */
export function drawStatus({ version, started, workers, profile, catalog, ready, dependencies }) {
  setText(byId("version"), version);
  const parts = [`Up for ${span(-secondsFromNow(started))}`];
  parts.push(workers.wanted === 1 ? "one process" : `${workers.serving} of ${workers.wanted} workers`);
  if (workers.restarts > 0) parts.push(`${count(workers.restarts)} restarts`);
  if (profile) parts.push(`profile ${profile}`);
  setText(byId("uptime"), `${parts.join(", ")}.`);
  setText(byId("dependencies-note"), ready.status);
  setText(byId("catalog-note"), catalog.loaded ? `${catalog.version.slice(0, 12)} loaded at ${clock(catalog.loaded)}`.trim() : "not loaded");
  byId("catalog-problems").replaceChildren(...catalog.problems.map((problem) => el("li", null, named(String(problem)))));

  const rows = dependencies.map((one) => el("tr", null,
    el("th", { scope: "row" }, named(one.name)),
    el("td", null, el("span", { class: `badge ${STATES[one.state] ?? "denied"}` }, one.state)),
    el("td", { class: "number" }, count(one.calls)),
    el("td", { class: "number" }, count(one.failures)),
    el("td", { class: "number" }, milliseconds(one.p50_ms)),
    el("td", { class: "number" }, milliseconds(one.p99_ms))));
  byId("dependency-list").tBodies[0].replaceChildren(...(rows.length > 0 ? rows
    : [emptyRow(6, "The service has asked nobody yet.")]));
  byId("checks").replaceChildren(...Object.entries(ready.checks).map(([name, { status, ...facts }]) => {
    const words = Object.entries(facts).filter(([, value]) => value !== null && value !== "" && value !== false)
      .map(([key, value]) => `${key.replaceAll("_", " ")} ${key.endsWith("_at") ? clock(value * 1000) : value}`).join(", ");
    return el("li", null,
      el("span", { class: `badge ${status === "ready" ? "allowed" : status === "degraded" ? "undecided" : "denied"}` }, status),
      " ", el("strong", null, name), words ? el("span", { class: "muted" }, ` ${words}`) : null);
  }));
}
