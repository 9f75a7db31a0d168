/** Plays the assistant's voice as it streams in, and silences it at once. */

import { SampleDecoder, parseFormat } from "./codec.js";
import { Resampler } from "./resampler.js";

const STREAMABLE = new Set(["pcm", "ulaw"]);
const ANALYSER_SAMPLES = 8192;

/**
 * Events, each with detail `{turn, playedMs}`: `started` (the first sound of a turn went out), `progress`
 * (about 20 times a second while sound goes out) and `drained` (all of the turn was heard); and `fault`
 * (detail: a sentence) when audio cannot be played.
 *
 * Turn ids rise. Once a turn was dropped, nothing of it or of an earlier one is played.
 */
export class Player extends EventTarget {
  /** Chunks taken in, chunks refused because their turn was dropped, and gaps heard within a turn. */
  counts = { chunks: 0, late: 0, underruns: 0 };
  /** Milliseconds that wait in the buffer. */
  bufferedMs = 0;

  #context;
  #worklet;
  #volume;
  #analyser;
  #window = new Float32Array(ANALYSER_SAMPLES);
  /** The turn being received: {turn, decoder, resampler} or, for a whole file, {turn, format, parts}. */
  #incoming = null;
  #droppedThrough = 0;
  #soundingTurn = null;

  /** @param {AudioContext} context with `playback-worklet.js` loaded */
  constructor(context) {
    super();
    this.#context = context;
    this.#worklet = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#worklet.port.onmessage = ({ data }) => this.#report(data);
    this.#volume = new GainNode(context);
    this.#analyser = new AnalyserNode(context, { fftSize: ANALYSER_SAMPLES });
    this.#worklet.connect(this.#volume).connect(this.#analyser).connect(context.destination);
  }

  /**
   * Load the worklet into a context; once for each context.
   * @param {AudioContext} context
   */
  static prepare(context) {
    return context.audioWorklet.addModule(new URL("playback-worklet.js", import.meta.url));
  }

  /** Whether a turn's sound is going out. */
  get isSounding() {
    return this.#soundingTurn !== null;
  }

  /** @param {number} volume 0 to 1 */
  set volume(volume) {
    this.#volume.gain.setTargetAtTime(volume, this.#context.currentTime, 0.01);
  }

  /**
   * What went out last.
   * @param {number} windowMs how far to look back, at most 170 ms
   * @returns {Float32Array} valid until the next call
   */
  outgoing(windowMs) {
    this.#analyser.getFloatTimeDomainData(this.#window);
    return this.#window.subarray(-Math.round((windowMs * this.#context.sampleRate) / 1000));
  }

  /**
   * A turn's audio begins.
   * @param {number} turn
   * @param {string} formatName such as `pcm_24000`
   */
  begin(turn, formatName) {
    const format = parseFormat(formatName);
    if (!STREAMABLE.has(format.codec)) {
      this.#incoming = { turn, formatName, parts: [] };
      return;
    }
    const decoder = new SampleDecoder(format.codec);
    const resampler = new Resampler(format.sampleRate, this.#context.sampleRate);
    this.#incoming = { turn, decoder, resampler };
  }

  /**
   * The next bytes of the turn that has begun, cut anywhere.
   * @param {number} turn
   * @param {Uint8Array} bytes
   */
  append(turn, bytes) {
    if (turn <= this.#droppedThrough || this.#incoming?.turn !== turn) {
      this.counts.late += 1;
      return;
    }
    this.counts.chunks += 1;
    const { decoder, resampler, parts } = this.#incoming;
    if (parts) parts.push(bytes);
    else this.#play(turn, resampler.process(decoder.decode(bytes)));
  }

  /**
   * The turn's audio is complete; what is buffered plays on.
   * @param {number} turn
   */
  end(turn) {
    if (this.#incoming?.turn !== turn) return;
    const { resampler, formatName, parts } = this.#incoming;
    this.#incoming = null;
    if (parts) {
      this.playFile(turn, new Blob(parts), formatName);
    } else {
      this.#play(turn, resampler.flush());
      this.#worklet.port.postMessage({ type: "end", turn });
    }
  }

  /**
   * Play a whole file, of any format that the browser can decode.
   * @param {number} turn
   * @param {Blob} file
   * @param {string} formatName for the message when that fails
   */
  async playFile(turn, file, formatName) {
    try {
      const audio = await this.#context.decodeAudioData(await file.arrayBuffer());
      this.#play(turn, audio.getChannelData(0).slice());
      this.#worklet.port.postMessage({ type: "end", turn });
    } catch {
      this.#emit("fault", `This browser cannot play ${formatName}.`);
    }
  }

  /**
   * Be silent within a few milliseconds, and keep what is buffered of this turn.
   * @param {number} turn
   */
  pause(turn) {
    if (turn > this.#droppedThrough) this.#worklet.port.postMessage({ type: "pause" });
  }

  /**
   * Play on where `pause` stopped.
   * @param {number} turn
   */
  resume(turn) {
    if (turn > this.#droppedThrough) this.#worklet.port.postMessage({ type: "resume" });
  }

  /**
   * Be silent within a few milliseconds, and refuse what is still to come of this turn.
   * @param {number} turn
   */
  drop(turn) {
    if (turn <= this.#droppedThrough) return;
    this.#droppedThrough = turn;
    this.#silence();
  }

  /** Be silent, and forget which turns there were: a new session counts from 1 again. */
  reset() {
    this.#droppedThrough = 0;
    this.#silence();
  }

  #silence() {
    this.#incoming = null;
    this.#soundingTurn = null;
    this.bufferedMs = 0;
    this.#worklet.port.postMessage({ type: "stop" });
  }

  #play(turn, samples) {
    if (turn <= this.#droppedThrough || samples.length === 0) return;
    this.#worklet.port.postMessage({ type: "audio", turn, samples });
  }

  #report(message) {
    if (message.type === "overflow") {
      this.#emit("fault", "The reply is longer than the player's buffer; its end is cut off.");
    } else if (message.turn > this.#droppedThrough) {
      if (message.type === "position") this.#advance(message);
      else this.#finish(message);
    }
  }

  #advance({ turn, played, buffered, underruns }) {
    this.bufferedMs = this.#milliseconds(buffered);
    this.counts.underruns = underruns;
    if (played === 0) return;
    // What the device still holds was played, but not heard.
    const playedMs = Math.max(0, this.#milliseconds(played) - this.#latencyMs);
    if (this.#soundingTurn !== turn) {
      this.#soundingTurn = turn;
      this.#emit("started", { turn, playedMs });
    }
    this.#emit("progress", { turn, playedMs });
  }

  #finish({ turn, played }) {
    this.bufferedMs = 0;
    setTimeout(() => {
      if (turn <= this.#droppedThrough) return;
      if (this.#soundingTurn === turn) this.#soundingTurn = null;
      this.#emit("drained", { turn, playedMs: this.#milliseconds(played) });
    }, this.#latencyMs);
  }

  get #latencyMs() {
    return 1000 * (this.#context.outputLatency || this.#context.baseLatency || 0);
  }

  #milliseconds(samples) {
    return (samples * 1000) / this.#context.sampleRate;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
