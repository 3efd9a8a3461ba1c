// The list of decisions, as they come or grouped.
//
// However many come, the list is bounded, drawn a few times a second at most, and held still while
// somebody points at it or has the keyboard's focus in it.

import { get } from "./api.js";
import { button, byId, clock, count, el, emptyRow, milliseconds, named, setText } from "./elements.js";

const MOST_ROWS = 100;
const DRAW_EVERY_MS = 300;
/** By what is shown. */
const HEADINGS = {
  deny: "Last denials", groups: "Denials, grouped", "": "Last decisions", would_deny: "Last denials in shadow",
};

export class Decisions {
  #open;
  #changed;
  #titles = {};
  #records = [];
  #waiting = [];
  #skipped = 0;
  #timer = 0;
  /** Whether what happened before is still awaited: it is drawn wherever the pointer is. */
  #isFresh = true;
  #problem = "";
  #groups = [];

  /**
   * @param open shows one record's explanation.
   * @param changed is called when something else is to be listed.
   */
  constructor(open, changed) {
    this.#open = open;
    this.#changed = changed;
    const form = byId("filter");
    form.addEventListener("submit", (event) => { event.preventDefault(); this.#listAnew(); });
    form.addEventListener("reset", () => setTimeout(() => this.#listAnew(), 0));
    for (const name of ["view", "reason"]) {
      form.elements[name].addEventListener("change", () => this.#listAnew());
    }
    const list = byId("decision-list").tBodies[0];
    for (const event of ["pointerleave", "focusout"]) list.addEventListener(event, () => this.#drawSoon());
    for (const body of [list, byId("group-list").tBodies[0]]) {
      body.addEventListener("click", (event) => {
        // The whole row is a large target; its button is what the keyboard reaches.
        if (!event.target.closest("button")) event.target.closest("tr")?.querySelector("button")?.click();
      });
    }
  }

  /** @param titles what each reason means, in a few words. */
  learn(titles) {
    this.#titles = titles;
    const select = byId("filter").elements.reason;
    select.append(...Object.keys(titles).map((reason) => el("option", { value: reason }, reason)));
  }

  /** Lists the denials with this reason. */
  chooseReason(reason) {
    const form = byId("filter");
    form.elements.reason.value = reason;
    if (form.elements.view.value !== "groups") form.elements.view.value = "deny";
    this.#listAnew();
    byId("decisions").scrollIntoView();
    byId("decisions-heading").focus({ preventScroll: true });
  }

  /** Looked up each time: an element that is taken away with the focus in it tells of nothing. */
  get #isHeld() {
    return !this.#isFresh && byId("decision-list").tBodies[0].matches(":hover, :focus-within");
  }

  get #isGrouped() {
    return byId("filter").elements.view.value === "groups";
  }

  #filters() {
    const { view, reason, api, application } = byId("filter").elements;
    return {
      outcome: view.value === "groups" ? "" : view.value,
      reason: reason.value, api: api.value.trim(), application: application.value.trim(),
    };
  }

  #listAnew() {
    const view = byId("filter").elements.view.value;
    setText(byId("decisions-heading"), HEADINGS[view]);
    this.#records = [];
    this.#waiting = [];
    this.#skipped = 0;
    this.#problem = "";
    this.#isFresh = true;
    byId("decision-list").hidden = this.#isGrouped;
    byId("group-list").hidden = !this.#isGrouped;
    this.#draw();
    this.#changed();
  }

  /** What to follow now; see Connection. */
  stream() {
    if (this.#isGrouped) return null;
    const parameters = this.#filters();
    return {
      path: "decisions",
      parameters,
      opened: () => { this.#problem = ""; this.#catchUp(parameters); },
      happened: (name, data) => {
        if (name === "decision") this.#add([data]);
        if (name === "skipped") { this.#skipped += data.count; this.#drawSoon(); }
      },
      lost: (message) => { this.#problem = message || "not connected"; this.#drawSoon(); },
    };
  }

  /** What happened before the events began. */
  async #catchUp(parameters) {
    try {
      const { decisions } = await get("decisions", { ...parameters, limit: MOST_ROWS });
      // Another filter may have been chosen meanwhile.
      if (JSON.stringify(parameters) !== JSON.stringify(this.#filters())) return;
      this.#add([...decisions].reverse());
      if (this.#isFresh) this.#draw();
      this.#isFresh = false;
    } catch (error) {
      this.#problem = error.message;
      this.#drawSoon();
    }
  }

  /** Asks for the groups, when they are shown. */
  async askGroups() {
    if (!this.#isGrouped) return;
    const { groups } = await get("denials");
    const { reason, api, application } = this.#filters();
    this.#groups = groups.filter((group) => (!reason || group.reason === reason)
      && (!api || group.api === api) && (!application || group.application === application));
    this.#drawGroups();
  }

  #add(records) {
    this.#waiting.push(...records);
    // The newest are shown: of a flood that is held, no more than they need be kept.
    if (this.#waiting.length > 2 * MOST_ROWS) {
      this.#skipped += this.#waiting.length - MOST_ROWS;
      this.#waiting.splice(0, this.#waiting.length - MOST_ROWS);
    }
    this.#drawSoon();
  }

  #drawSoon() {
    if (this.#timer === 0) this.#timer = setTimeout(() => this.#draw(), DRAW_EVERY_MS);
  }

  #draw() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (!this.#isHeld) {
      const known = new Set();
      const newestFirst = [...this.#waiting.reverse(), ...this.#records].filter(({ decision }) =>
        !known.has(decision) && known.add(decision));
      newestFirst.sort((one, other) => (one.time < other.time ? 1 : one.time > other.time ? -1 : 0));
      const isChanged = this.#waiting.length > 0 || this.#records.length === 0;
      this.#waiting = [];
      this.#records = newestFirst.slice(0, MOST_ROWS);
      if (isChanged) this.#drawRows();
    }
    setText(byId("decisions-note"), this.#note());
  }

  #note() {
    if (this.#isGrouped) return "";
    const parts = [];
    if (this.#problem) parts.push(`The list stands still: ${this.#problem}`);
    if (this.#isHeld && this.#waiting.length > 0) parts.push(`held while you are in it: ${count(this.#waiting.length)} newer`);
    if (this.#skipped > 0) parts.push(`a sample: ${count(this.#skipped)} more came than are listed`);
    return parts.join("; ");
  }

  #drawRows() {
    const rows = this.#records.map((record) => this.#row(record));
    const filters = this.#filters();
    const isFiltered = filters.reason || filters.api || filters.application;
    const nothing = isFiltered ? "Nothing that fits the filter." : filters.outcome ? "Nothing was denied yet." : "Nothing was decided yet.";
    byId("decision-list").tBodies[0].replaceChildren(...(rows.length > 0 ? rows : [emptyRow(7, nothing)]));
  }

  #row(record) {
    const isDenied = record.outcome === "deny";
    const words = isDenied ? this.#titles[record.reason] ?? "" : "";
    const open = button(clock(record.time), () => this.#open(record), {
      class: "link time",
      "aria-label": `${clock(record.time)}: explain why this was ${isDenied ? `denied, ${record.reason}` : "allowed"}`,
    });
    return el("tr", { class: "opens" },
      el("th", { scope: "row" }, open),
      el("td", null, badge(record), words ? el("span", { class: "muted words" }, words) : null),
      el("td", null, apiOf(record)),
      el("td", null, el("span", { class: "code" }, record.method ? `${record.method} ` : "", named(record.resource))),
      el("td", null, named(record.application)),
      el("td", null, record.door, record.shadow ? " (shadow)" : ""),
      el("td", { class: "number" }, milliseconds(record.duration_us / 1000)));
  }

  #drawGroups() {
    const rows = this.#groups.map((group) => el("tr", { class: "opens" },
      el("td", { class: "number" }, count(group.count)),
      el("th", { scope: "row" },
        button(group.reason, () => this.#open(group.example), {
          class: "link code", "aria-label": `${group.reason}: explain an example`,
        }),
        group.outcome === "would_deny" || group.level || group.rule ? el("span", { class: "muted words" }, [group.outcome === "would_deny" ? "in shadow" : "", group.level, group.rule].filter(Boolean).join(", ")) : null),
      el("td", null, apiOf(group)),
      el("td", null, group.folded ? "several, too many to tell apart" : named(group.application)),
      el("td", { class: "code" }, named(group.consumer)),
      el("td", null, clock(group.first)),
      el("td", null, clock(group.last))));
    byId("group-list").tBodies[0].replaceChildren(...(rows.length > 0 ? rows : [emptyRow(7, "Nothing was denied yet, or nothing that fits the filter.")]));
  }
}

/** The name and version of the API of a record. */
export const apiOf = ({ api, version }) =>
  el("span", null, named(api), version ? el("span", { class: "muted" }, " ", named(version)) : null);

/** "allow", or the reason of a denial. */
export function badge({ outcome, reason }) {
  if (outcome !== "deny") return el("span", { class: "badge allowed" }, "allowed");
  return el("span", { class: `badge ${reason === "unavailable" ? "undecided" : "denied"}` }, reason);
}
