// Keeps the page current: asks again and again, follows events, and says how that goes.
//
// Nothing is asked while the page is hidden or paused. After a failure the next try comes later and
// later, and what is shown is marked as old.

import { Refused, Unreachable, follow } from "./api.js";
import { byId, clock, setText } from "./elements.js";

const EVERY_MS = 5000;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  paused: "Paused",
  lost: "Not connected",
  token: "Needs a token",
  refused: "Refused",
};

/** 1 s, 2 s, 4 s … and some of it by chance, so that pages do not come back all at once. */
const waitAfter = (failures) =>
  Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);

export class Connection {
  #round;
  #stream;
  #needToken;
  #failures = 0;
  #timer = 0;
  #nextAt = 0;
  #isAsking = false;
  #isPaused = false;
  #knownAt = null;
  #following = null;

  /**
   * @param round asks for everything once; fails when the service cannot be asked.
   * @param stream what to follow now: {path, parameters, opened, happened, lost}, or null.
   * @param needToken asks the person for a token.
   */
  constructor({ round, stream, needToken }) {
    this.#round = round;
    this.#stream = stream;
    this.#needToken = needToken;
    byId("try-now").addEventListener("click", () => this.askNow());
    byId("pause").addEventListener("click", () => this.#pause(!this.#isPaused));
    document.addEventListener("visibilitychange", () => this.#wake());
    setInterval(() => this.#countDown(), 500);
  }

  /** Asks at once, and goes on. */
  askNow() {
    this.#failures = 0;
    this.#ask();
    this.followAnew();
  }

  /** Ends the events that are followed, and follows what is wanted now. */
  followAnew() {
    this.#following?.abort();
    this.#following = null;
    if (this.#mayAsk()) this.#follow();
  }

  #mayAsk() {
    return !document.hidden && !this.#isPaused;
  }

  #pause(isPaused) {
    this.#isPaused = isPaused;
    const pause = byId("pause");
    pause.setAttribute("aria-pressed", String(isPaused));
    setText(pause, isPaused ? "Go on" : "Pause");
    if (isPaused) this.#say("paused", "");
    this.#wake();
  }

  #wake() {
    clearTimeout(this.#timer);
    if (this.#mayAsk()) {
      this.askNow();
    } else {
      this.#following?.abort();
      this.#following = null;
    }
  }

  async #ask() {
    if (this.#isAsking || !this.#mayAsk()) return;
    clearTimeout(this.#timer);
    this.#isAsking = true;
    let waitMs = EVERY_MS;
    try {
      await this.#round();
      this.#knownAt = new Date();
      this.#failures = 0;
      if (this.#mayAsk()) this.#say("live", "");
    } catch (error) {
      this.#failures += 1;
      waitMs = this.#tell(error) ? waitAfter(this.#failures) : null;
    } finally {
      this.#isAsking = false;
    }
    if (waitMs !== null && this.#mayAsk()) {
      this.#nextAt = Date.now() + waitMs;
      this.#timer = setTimeout(() => this.#ask(), waitMs);
    }
  }

  /** Says what failed; true when it makes sense to try again without being told. */
  #tell(error) {
    const shown = this.#knownAt === null
      ? "Nothing is known yet." : `Shown is what was known at ${clock(this.#knownAt)}.`;
    if (error instanceof Refused && error.needsToken) {
      this.#say("token", "");
      this.#needToken(error.message);
      return false;
    }
    if (error instanceof Refused) {
      this.#say("refused", `The service refuses this page: ${error.message} ${shown}`);
    } else if (error instanceof Unreachable) {
      this.#say("lost", `The service does not answer. ${shown}`);
    } else {
      console.error(error);
      this.#say("lost", `This page failed: ${error.message}. ${shown}`);
    }
    return true;
  }

  #say(state, notice) {
    byId("state").dataset.state = state;
    document.body.dataset.state = state;
    setText(byId("state-words"), WORDS[state]);
    setText(byId("notice-words"), notice);
    byId("notice").hidden = notice === "";
    this.#countDown();
  }

  #countDown() {
    if (byId("notice").hidden) return;
    const seconds = Math.max(0, Math.ceil((this.#nextAt - Date.now()) / 1000));
    setText(byId("notice-countdown"), this.#isAsking ? "Trying." : `Next try in ${seconds} s.`);
  }

  async #follow() {
    const wanted = this.#stream();
    if (wanted === null) return;
    const { path, parameters, opened, happened, lost } = wanted;
    const following = new AbortController();
    this.#following = following;
    let failures = 0;
    while (!following.signal.aborted) {
      const beganAt = Date.now();
      let waitMs = FIRST_WAIT_MS / 4; // an end without an error: the service ends long connections
      try {
        await follow(path, parameters, {
          signal: following.signal,
          opened: () => { failures = 0; opened(); },
          happened,
        });
        if (Date.now() - beganAt < FIRST_WAIT_MS) waitMs = waitAfter(++failures);
      } catch (error) {
        if (following.signal.aborted) return;
        failures += 1;
        if (error instanceof Refused) {
          lost(error.message);
          if (error.needsToken) return; // the token's form begins anew
        } else {
          lost("");
        }
        waitMs = waitAfter(failures);
      }
      await new Promise((done) => { setTimeout(done, waitMs); });
    }
  }
}
