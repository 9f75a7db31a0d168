/** The page's one audio context, with the player and the microphone on it. */

import { Microphone } from "./capture.js";
import { Player } from "./playback.js";

const FORWARDED = {
  player: ["started", "progress", "drained", "fault"],
  microphone: ["frame", "level", "lost"],
};

/** Passes on all events of the player and of the microphone, so that one can listen before they exist. */
export class Sound extends EventTarget {
  /** @type {Player | null} */
  player = null;
  /** @type {Microphone | null} */
  microphone = null;
  #context = null;

  /** Hz, or null before `prepare`. */
  get sampleRate() {
    return this.#context?.sampleRate ?? null;
  }

  /**
   * Make sound possible. Must follow a click: browsers let a page make sound only then.
   * @throws {Error} there is no audio here
   */
  async prepare() {
    if (this.#context) {
      await this.#context.resume();
      return;
    }
    if (!window.isSecureContext) throw new Error("sound needs https, or localhost");
    const context = new AudioContext({ latencyHint: "interactive" });
    await Promise.all([Player.prepare(context), Microphone.prepare(context), context.resume()]);
    this.#context = context;
    this.player = new Player(context);
    this.microphone = new Microphone(context);
    for (const [part, types] of Object.entries(FORWARDED)) {
      for (const type of types) {
        this[part].addEventListener(type, (event) => this.#forward(event));
      }
    }
  }

  #forward({ type, detail }) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
