// Puts the parts of the page together.

import { Refused, get, token } from "./api.js";
import { CatalogSearch, ExplainForm } from "./asking.js";
import { Connection } from "./connection.js";
import { Decisions } from "./decisions.js";
import { Details } from "./details.js";
import { byId, setText } from "./elements.js";
import { Overview } from "./overview.js";
import { drawLimits, drawStatus } from "./states.js";

const explainForm = new ExplainForm();
const details = new Details((request) => explainForm.fill(request));
const decisions = new Decisions((record) => details.open(record), () => {
  askGroups();
  connection.followAnew();
});
const overview = new Overview((reason) => decisions.chooseReason(reason));
const connection = new Connection({ round, stream: () => decisions.stream(), needToken: askToken });
new CatalogSearch((request) => explainForm.fill(request));

/** Asks for one part; what the service does not offer is said there, and keeps no other part away. */
async function part(path, parameters, draw, note) {
  try {
    draw(await get(path, parameters));
    setText(note, "");
  } catch (error) {
    if (!(error instanceof Refused) || error.needsToken) throw error;
    setText(note, error.message);
  }
}

async function round() {
  const status = { dependencies: [], ...await get("status") };
  drawStatus(status);
  overview.tellStatus(status);
  await Promise.all([
    part("rates", {}, (rates) => overview.drawRates(rates), byId("rates-readout")),
    part("limits", { limit: 50 }, (limits) => {
      const { near, over } = drawLimits(limits);
      overview.tellLimits(near, over);
    }, byId("limits-note")),
    decisions.askGroups(),
  ]);
  byId("forget").hidden = token.get() === "";
}

async function askGroups() {
  try {
    await decisions.askGroups();
  } catch {
    // The next round says what is wrong.
  }
}

function askToken(message) {
  const dialog = byId("token");
  setText(byId("token-error"), token.get() ? `It was not taken: ${message}` : "");
  token.forget();
  byId("token-form").reset();
  if (!dialog.open) dialog.showModal();
}

byId("token").addEventListener("cancel", (event) => event.preventDefault());
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("token-form").elements.token.value.trim());
  byId("token").close();
  connection.askNow();
});
byId("forget").addEventListener("click", () => {
  token.forget();
  connection.askNow();
});

try {
  const titles = await (await fetch(new URL("page/reasons.json", document.baseURI))).json();
  for (const one of [overview, decisions, details]) one.learn(titles);
} catch {
  // The page works with the names of reasons alone; that the service is away is said below.
}
connection.askNow();
