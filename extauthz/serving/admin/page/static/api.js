// Asks the service below /api/, and follows its events.

const TOKEN = "extauthz-admin-token";
const TIMEOUT_MS = 8000;
/** The service sends something at least this often, if only a comment. */
const SILENCE_MS = 45_000;
const MAX_LINE = 1_000_000;

/** The service could not be asked: it is away, or the way to it is. */
export class Unreachable extends Error {}

/** The service answered that it does not. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  get needsToken() {
    return this.status === 401;
  }
}

/** The token, which this tab alone knows, until it is closed. */
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => sessionStorage.setItem(TOKEN, text),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** The JSON that is answered to GET. Parameters that are empty are left out. */
export async function get(path, parameters = {}) {
  return ask(addressOf(path, parameters), {});
}

/** The JSON that is answered to POST. */
export async function post(path, body) {
  return ask(addressOf(path, {}), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

function addressOf(path, parameters) {
  const address = new URL(`api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) address.searchParams.set(name, value);
  }
  return address;
}

async function ask(address, options) {
  const { response, text } = await send(address, options, AbortSignal.timeout(TIMEOUT_MS), true);
  const answer = read(text);
  if (!response.ok) throw refusal(response, answer);
  if (answer === null) throw new Refused(response.status, "no_json", "The answer is no JSON.");
  return answer;
}

async function send(address, options, signal, isWhole) {
  const headers = { accept: "application/json", ...options.headers };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  try {
    const response = await fetch(address, {
      ...options, headers, signal,
      cache: "no-store", credentials: "same-origin", redirect: "error", referrerPolicy: "no-referrer",
    });
    return { response, text: isWhole || !response.ok ? await response.text() : "" };
  } catch (error) {
    throw new Unreachable(String(error?.message ?? error));
  }
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function refusal(response, answer) {
  const { code = "", message = "" } = answer?.error ?? {};
  return new Refused(response.status, code, message || `The service answered with ${response.status}.`);
}

/**
 * Follows server-sent events until they end, or `signal` says so.
 *
 * EventSource would do, but cannot send a token.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export async function follow(path, parameters, { signal, opened, happened }) {
  const silence = new AbortController();
  let timer = 0;
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  wait();
  try {
    const any = AbortSignal.any([signal, silence.signal]);
    const options = { headers: { accept: "text/event-stream" } };
    const { response, text } = await send(addressOf(path, parameters), options, any, false);
    if (!response.ok) throw refusal(response, read(text));
    opened();
    await readEvents(response.body, wait, happened);
  } catch (error) {
    if (error instanceof Refused || error instanceof Unreachable) throw error;
    throw new Unreachable(String(error?.message ?? error));
  } finally {
    clearTimeout(timer);
  }
}

async function readEvents(body, heard, happened) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", lines: [] };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    if (rest.length > MAX_LINE) throw new Unreachable("an event is too large");
    for (const line of lines) {
      const text = line.endsWith("\r") ? line.slice(0, -1) : line;
      if (text === "") {
        const data = event.lines.length > 0 ? read(event.lines.join("\n")) : null;
        if (data !== null) happened(event.name, data);
        event = { name: "message", lines: [] };
      } else {
        const [, field, content = ""] = /^([^:]*):? ?(.*)$/s.exec(text);
        if (field === "event") event.name = content;
        if (field === "data") event.lines.push(content);
      }
    }
  }
}
