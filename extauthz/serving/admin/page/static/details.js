// Shows one decision: what was recorded of it, and what the same request would get now.

import { post } from "./api.js";
import { apiOf, badge } from "./decisions.js";
import { button, byId, clock, count, el, milliseconds, named, span } from "./elements.js";
import { drawExplanation } from "./explanation.js";

/** What a reader asks for first; other fields follow as they come. */
const FIRST = ["reason", "level", "rule", "limits", "missing_scopes", "application", "consumer_key",
  "user", "client_address", "api", "version", "method", "resource", "tier", "door"];
const IN_THE_HEAD = new Set(["outcome", "time", "detail"]);

export class Details {
  #titles = {};
  #fillForm;
  #opened = 0;

  /** @param fillForm takes a request into the form that explains. */
  constructor(fillForm) {
    this.#fillForm = fillForm;
    byId("details-close").addEventListener("click", () => byId("details").close());
    byId("details").addEventListener("click", (event) => {
      if (event.target === event.currentTarget) event.currentTarget.close(); // beside the drawer
    });
  }

  /** @param titles what each reason means, in a few words. */
  learn(titles) {
    this.#titles = titles;
  }

  /** Opens the drawer with a record. */
  open(record) {
    this.#opened += 1;
    const isDenied = record.outcome === "deny";
    byId("details-heading").textContent = isDenied
      ? `Denied: ${this.#titles[record.reason] ?? record.reason}` : "Allowed";
    const now = el("div", { role: "status" });
    byId("details-body").replaceChildren(
      el("p", { class: "lead" }, badge(record), " ", clock(record.time), " · ", apiOf(record),
        record.application ? [" · ", named(record.application)] : null),
      ...(record.detail ? [el("p", { class: "lead" }, record.detail)] : []),
      el("h3", null, "What was decided"),
      facts(record),
      el("h3", null, "The same request now"),
      now);
    byId("details").showModal();
    this.#explain(record, now, this.#opened);
  }

  async #explain(record, into, opened) {
    const request = requestOf(record);
    if (request === null) {
      into.replaceChildren(el("p", { class: "muted" },
        "The request did not lead to a resource, and its path is not recorded: it cannot be asked about."));
      return;
    }
    into.replaceChildren(el("p", { class: "muted" }, "Asking …"));
    let shown;
    try {
      shown = drawExplanation(await post("explain", request));
    } catch (error) {
      shown = el("p", { class: "error" }, `It cannot be explained: ${error.message}`);
    }
    if (opened !== this.#opened) return;
    into.replaceChildren(
      el("p", { class: "muted" }, request.as
        ? ["As ", named(request.as.application), ", with a credential that is assumed to be good."]
        : "Without a credential: the one that was sent is not recorded."),
      shown,
      button("Change and explain", () => {
        byId("details").close();
        this.#fillForm(request);
      }));
  }
}

/** A request like the recorded one: paths are not recorded, so its resource stands for it. */
function requestOf({ method, api, version, resource, application }) {
  if (!resource) return null;
  const request = { method, api, version, resource };
  if (application) request.as = { application };
  return request;
}

function facts(record) {
  const names = [...FIRST.filter((name) => name in record), ...Object.keys(record).filter((name) => !FIRST.includes(name))];
  const shown = names.filter((name) => !IN_THE_HEAD.has(name) && !isEmpty(record[name]));
  return el("dl", { class: "facts" }, shown.flatMap((name) => [
    el("dt", null, name.replace(/_us$/, "").replaceAll("_", " ")),
    el("dd", null, valueOf(name, record[name])),
  ]));
}

const isEmpty = (value) => value === "" || value === null || value === false
  || (typeof value === "object" && Object.keys(value).length === 0);

function valueOf(name, value) {
  if (name.endsWith("_us")) return milliseconds(value / 1000);
  if (name === "limits") return el("ul", null, value.map((limit) => el("li", null, sayLimit(limit))));
  if (Array.isArray(value)) return named(value.join(", "));
  if (typeof value === "object") return named(JSON.stringify(value));
  return named(String(value));
}

function sayLimit({ level, name, unit, limit, remaining, reset_us: resetUs, exceeded, enforced }) {
  const words = `: ${count(remaining)} of ${count(limit)} ${unit} left, reset in ${span(resetUs / 1e6)}`;
  return el("span", null, named(`${level} ${name}`.trim()), words,
    exceeded ? ", exceeded" : "", enforced ? "" : ", not enforced");
}
