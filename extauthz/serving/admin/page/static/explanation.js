// Draws what /api/explain answers: each step, and what client and upstream get.

import { el, named } from "./elements.js";

/** The answer as elements. */
export function drawExplanation({ decision, reason, steps, log = [], advice = [], client, upstream }) {
  const isAllowed = decision === "allow";
  return el("div", { class: "explanation" },
    el("p", { class: "verdict" },
      el("span", { class: `badge ${isAllowed ? "allowed" : reason === "unavailable" ? "undecided" : "denied"}` },
        isAllowed ? "allowed" : reason)),
    el("table", { class: "steps" },
      el("caption", { class: "hidden" }, "The steps of the decision"),
      el("thead", { class: "hidden" }, el("tr", null,
        ["Step", "Result", "What was found"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", null, steps.map(({ step, passed, found }) => el("tr", null,
        el("th", { scope: "row" }, step),
        el("td", { class: passed ? "pass" : "fail" }, passed ? "pass" : "deny"),
        el("td", null, named(found)))))),
    list("The service logged", log),
    advice.length > 0 ? el("div", null, el("p", { class: "title" }, "What to do"), el("pre", null, advice.join("\n"))) : null,
    client ? el("details", null, el("summary", null, `The client gets ${client.status}`),
      headers(client.headers), client.body ? el("pre", null, pretty(client.body)) : null) : null,
    upstream ? el("details", null, el("summary", null, "What upstream and client get"),
      headers(upstream.set_headers, "The upstream gets"),
      list("Without", [...upstream.remove_headers, ...upstream.removed_query.map((name) => `?${name}=`)]),
      headers(upstream.response_headers, "The client gets")) : null);
}

function list(title, lines) {
  if (lines.length === 0) return null;
  return el("div", null, el("p", { class: "title" }, title), el("ul", null, lines.map((line) => el("li", null, named(line)))));
}

function headers(pairs, title) {
  if (!pairs || pairs.length === 0) return null;
  return el("div", null, title ? el("p", { class: "title" }, title) : null,
    el("pre", null, pairs.map(([name, value]) => `${name}: ${value}`).join("\n")));
}

function pretty(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body; // XML, or a text for gRPC
  }
}
