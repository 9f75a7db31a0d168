/** The microphone as 16 kHz PCM frames. */

import { encodePcm, rms } from "./codec.js";
import { Resampler } from "./resampler.js";

/** What the server is told to expect. */
export const CAPTURE_RATE_HZ = 16000;
const FRAME_SAMPLES = CAPTURE_RATE_HZ / 10;

/**
 * Events: `frame` (detail: Uint8Array of PCM, 100 ms; the last one may be shorter), `level` (detail: RMS of
 * the last 20 ms) and `lost` (the device went away).
 */
export class Microphone extends EventTarget {
  #context;
  #stream = null;
  #source = null;
  #worklet;
  #resampler = null;
  #pending = new Float32Array(0);

  /** @param {AudioContext} context with `capture-worklet.js` loaded */
  constructor(context) {
    super();
    this.#context = context;
    // One node for good: a processor never ends by itself. It outputs silence; unconnected, not every
    // browser would run it.
    const mono = { channelCount: 1, channelCountMode: "explicit" };
    this.#worklet = new AudioWorkletNode(context, "capture", mono);
    this.#worklet.connect(context.destination);
  }

  /**
   * Load the worklet into a context; once for each context.
   * @param {AudioContext} context
   */
  static prepare(context) {
    return context.audioWorklet.addModule(new URL("capture-worklet.js", import.meta.url));
  }

  get isOn() {
    return this.#stream !== null;
  }

  get isMuted() {
    return this.isOn && !this.#stream.getAudioTracks()[0].enabled;
  }

  /** Muted, it goes on sending, but silence: a recogniser that hears nothing at all hangs up. */
  set isMuted(muted) {
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /**
   * Ask for the microphone and start sending frames.
   * @throws {DOMException} the user or the system refused
   */
  async start() {
    this.#stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
    this.#resampler = new Resampler(this.#context.sampleRate, CAPTURE_RATE_HZ);
    this.#worklet.port.onmessage = ({ data }) => this.#take(data);
    this.#source = this.#context.createMediaStreamSource(this.#stream);
    this.#source.connect(this.#worklet);
    for (const track of this.#stream.getAudioTracks()) {
      track.addEventListener("ended", () => this.#lose());
    }
  }

  /** Release the device and send what is left of the last frame. */
  stop() {
    if (!this.isOn) return;
    this.#worklet.port.onmessage = null;
    this.#source.disconnect();
    for (const track of this.#stream.getTracks()) track.stop();
    this.#stream = null;
    this.#append(this.#resampler.flush());
    if (this.#pending.length > 0) this.#emit("frame", encodePcm(this.#pending));
    this.#pending = new Float32Array(0);
    this.#emit("level", 0);
  }

  #lose() {
    this.stop();
    this.#emit("lost");
  }

  #take(samples) {
    this.#emit("level", rms(samples));
    this.#append(this.#resampler.process(samples));
    while (this.#pending.length >= FRAME_SAMPLES) {
      this.#emit("frame", encodePcm(this.#pending.subarray(0, FRAME_SAMPLES)));
      this.#pending = this.#pending.slice(FRAME_SAMPLES);
    }
  }

  #append(samples) {
    const joined = new Float32Array(this.#pending.length + samples.length);
    joined.set(this.#pending);
    joined.set(samples, this.#pending.length);
    this.#pending = joined;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
