// Makes elements, and writes values for readers.
//
// Text of the service becomes text nodes and attributes, and is never parsed as HTML: a consumer
// may be called `<img onerror=…>`.

const SVG = "http://www.w3.org/2000/svg";

/** The element with this id, which the page has. */
export const byId = (id) => document.getElementById(id);

/** An element; children are elements or text, and null is left out. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** A name from the catalog or a request, which must not change the direction of text beside it. */
export const named = (text, attributes) => el("bdi", attributes, text || "–");

/** A button of which a click does something. */
export function button(text, act, attributes) {
  const made = el("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
}

/** One row of a table with nothing but a sentence in it. */
export const emptyRow = (columns, sentence) =>
  el("tr", { class: "empty" }, el("td", { colspan: columns }, sentence));

/** Sets a text, and leaves it alone when it is the same: screen readers read each change. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { maximumFractionDigits: 1, notation: "compact" });

/** 1,234 */
export const count = (number) => WHOLE.format(number);

/** A rate a second: 0.4, 12, 1.2K. */
export const rate = (number) => (number >= 10_000 ? SHORT : number >= 10 ? WHOLE : SHORT).format(number);

/** 12 %, and "< 1 %" for what is little but not nothing. */
export function share(number) {
  if (number > 0 && number < 0.01) return "< 1 %";
  // Not rounded up to what is not reached.
  return `${Math.floor(Math.min(number, 9.99) * 100 + 1e-9)} %`;
}

/** 0.4 ms, 12 ms, 1.3 s */
export function milliseconds(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 1000) return `${(number / 1000).toFixed(1)} s`;
  return `${number >= 10 ? Math.round(number) : Number(number.toPrecision(2))} ms`;
}

const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const isToday = (date) => date.toDateString() === new Date().toDateString();

/** The time of a day, with the day when it is another one: 12:04:31. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return "–";
  return (isToday(date) ? TIME : DAY).format(date);
}

const UNITS = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];

/** 42 s, 3 min, 2 h, 5 d */
export function span(seconds) {
  const [unit, size] = UNITS.find(([, of]) => seconds >= of) ?? ["s", 1];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

/** How long until a time, or since. */
export const secondsFromNow = (time) => (new Date(time).getTime() - Date.now()) / 1000;
