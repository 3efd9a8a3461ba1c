// The form that explains a request, and the search of the catalog.

import { get, post } from "./api.js";
import { button, byId, count, el, named, setText } from "./elements.js";
import { drawExplanation } from "./explanation.js";

export class ExplainForm {
  #form = byId("explain-form");

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#explain();
    });
  }

  /** Takes a request into the form; the person goes on from there. */
  fill({ method = "GET", api = "", version = "", resource = "", as = {} }) {
    const { elements } = this.#form;
    elements.method.value = method;
    elements.host.value = `${api} ${version}`.trim();
    elements.path.value = resource;
    elements.application.value = as.application ?? "";
    byId("explanation").replaceChildren();
    byId("explain").scrollIntoView();
    elements.path.focus({ preventScroll: true });
  }

  async #explain() {
    const into = byId("explanation");
    into.replaceChildren(el("p", { class: "muted" }, "Asking …"));
    try {
      into.replaceChildren(drawExplanation(await post("explain", this.#request())));
    } catch (error) {
      into.replaceChildren(el("p", { class: "error" }, error.message));
    }
  }

  #request() {
    const { method, host, path, application, headers } = this.#form.elements;
    const request = {
      method: method.value.trim(), headers: readHeaders(headers.value),
      ...readTarget(host.value.trim(), path.value.trim()),
    };
    if (application.value.trim()) request.as = { application: application.value.trim() };
    return request;
  }
}

/** A host and a path, or an API, its version, and a path or a resource's template. */
function readTarget(host, path) {
  const [, api, version] = /^(.+) (\S+)$/.exec(host) ?? [];
  if (api === undefined) return host ? { host, path } : { path };
  return /[{*]/.test(path) ? { api, version, resource: path } : { api, version, path };
}

function readHeaders(text) {
  return Object.fromEntries(text.split("\n").filter((line) => line.trim()).map((line) => {
    const [, name, value] = /^\s*([^:]+):\s*(.*?)\s*$/.exec(line) ?? [];
    if (name === undefined) throw new Error("A header is written as name: value, one a line.");
    return [name.trim(), value];
  }));
}

export class CatalogSearch {
  #explainAs;

  /** @param explainAs takes a request into the form that explains. */
  constructor(explainAs) {
    this.#explainAs = explainAs;
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
  }

  async #search() {
    const { search, kind } = byId("search").elements;
    setText(byId("search-note"), "Searching …");
    try {
      const { results } = await get("catalog", { search: search.value.trim(), kind: kind.value });
      byId("results").replaceChildren(...results.map((result) => this.#draw(result)));
      setText(byId("search-note"), results.length === 0 ? "Nothing of that name." : `${count(results.length)} found.`);
    } catch (error) {
      byId("results").replaceChildren();
      setText(byId("search-note"), error.message);
    }
  }

  #draw(result) {
    const { kind, ...fields } = result;
    const title = fields.name ?? fields.id ?? fields.principal ?? fields.application ?? "";
    return el("li", null,
      el("p", null, el("span", { class: "badge" }, kind.replaceAll("_", " ")), " ", named(String(title)),
        fields.name && fields.version ? [" ", named(fields.version)] : null),
      el("dl", { class: "facts" }, Object.entries(fields).filter(([name, value]) =>
        value !== title && !(name === "version" && fields.name) && value !== "" && value !== null && JSON.stringify(value) !== "[]")
        .flatMap(([name, value]) => [el("dt", null, name.replaceAll("_", " ")), el("dd", null, drawValue(value))])),
      kind === "application" ? button("Explain as it", () => this.#explainAs({ as: { application: title } })) : null);
  }
}

function drawValue(value) {
  if (Array.isArray(value)) return el("ul", null, value.map((one) => el("li", null, drawValue(one))));
  if (typeof value === "object" && value !== null) { // a subscription, below its application
    return named([value.api, value.version, value.state, value.tier].filter(Boolean).join(" "));
  }
  return named(String(value));
}
