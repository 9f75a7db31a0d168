/**
 * `window.voiceTest`: what tests may read. It changes nothing.
 *
 * - `status`       `connecting`, `open` or `disconnected`
 * - `state`        the session machine's state, or null
 * - `sessionId`    of the session configured last, or null
 * - `sampleRate`   of the page's audio, Hz, or null before the first connection
 * - `counts`       {chunks, late, underruns}: audio chunks taken, chunks refused because their turn was
 *                  dropped, and gaps heard within a turn
 * - `bufferedMs`   audio received and not yet played
 * - `micLevel`     RMS of the microphone's last 20 ms
 * - `violations`   sentences: where the server broke its contract
 * - `outputRms(windowMs = 100)`  RMS of what went out in the last `windowMs` (at most 170)
 * - `outputSamples(windowMs = 100)`  those samples themselves
 * - `playedMs(turn)`             how much of a turn was heard so far, or 0
 * - `events(type?)`  the last 500 messages received, oldest first: {at, message}, `at` by performance.now()
 * - `sent(type?)`    the same for what was sent, audio left out
 */

import { rms } from "./codec.js";

const MOST_KEPT = 500;

export class Probe {
  status = "disconnected";
  state = null;
  sessionId = null;
  micLevel = 0;
  violations = [];
  #sound;
  #played = new Map();
  #received = [];
  #sent = [];

  /** @param {import("./sound.js").Sound} sound */
  constructor(sound) {
    this.#sound = sound;
  }

  /** @param {{type: string}} message */
  noteReceived(message) {
    keep(this.#received, message);
  }

  /** @param {{type: string}} message */
  noteSent(message) {
    if (message.type !== "audio.append") keep(this.#sent, message);
  }

  /** @param {{turn: number, playedMs: number}} progress */
  notePlayed({ turn, playedMs }) {
    this.#played.set(turn, playedMs);
  }

  /** A new session: turns count from 1 again. */
  reset() {
    this.#played.clear();
    this.sessionId = null;
  }

  /** @returns {object} the face for tests, as described above */
  face() {
    const probe = this;
    const player = () => probe.#sound.player;
    return Object.freeze({
      get status() { return probe.status; },
      get state() { return probe.state; },
      get sessionId() { return probe.sessionId; },
      get sampleRate() { return probe.#sound.sampleRate; },
      get counts() { return { chunks: 0, late: 0, underruns: 0, ...player()?.counts }; },
      get bufferedMs() { return player()?.bufferedMs ?? 0; },
      get micLevel() { return probe.micLevel; },
      get violations() { return [...probe.violations]; },
      outputRms: (windowMs = 100) => rms(player()?.outgoing(windowMs) ?? []),
      outputSamples: (windowMs = 100) => [...(player()?.outgoing(windowMs) ?? [])],
      playedMs: (turn) => probe.#played.get(turn) ?? 0,
      events: (type) => select(probe.#received, type),
      sent: (type) => select(probe.#sent, type),
    });
  }
}

function keep(list, message) {
  list.push({ at: performance.now(), message });
  if (list.length > MOST_KEPT) list.shift();
}

function select(list, type) {
  return list.filter(({ message }) => type === undefined || message.type === type);
}
