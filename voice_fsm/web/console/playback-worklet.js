/**
 * Plays samples out of a ring buffer and says where it is.
 *
 * In:  {type: "audio", turn, samples}  more of a turn, at the context's rate
 *      {type: "end", turn}             nothing more of this turn follows
 *      {type: "pause"}                 fade out, and keep everything for later
 *      {type: "resume"}                fade in again where it paused
 *      {type: "stop"}                  fade out and forget everything received so far
 * Out: {type: "position", turn, played, buffered, underruns}   samples; about 20 times a second
 *      {type: "drained", turn, played} the turn's last sample has gone out
 *      {type: "overflow", samples}     so many did not fit
 */

const INITIAL_S = 10;
const LARGEST_S = 300;
const FADE_S = 0.005;
/** How much must be there before sound starts, or starts again after a gap. */
const PREBUFFER_S = 0.06;
/** A shorter piece than that is played when nothing has followed it for this long. */
const PATIENCE_S = 0.12;
const REPORT_S = 0.05;

class PlaybackProcessor extends AudioWorkletProcessor {
  #ring = new Float32Array(INITIAL_S * sampleRate);
  /** Positions count samples from the beginning of time; their place in the ring is the remainder. */
  #read = 0;
  #written = 0;
  /** Turns in the ring, oldest first: {turn, start, hasEnded}; `start` is a position. */
  #turns = [];
  #isRunning = false;
  #gain = 1;
  #isPaused = false;
  /** Where a stop found the writer: nothing before it is played once the fade is over. */
  #stopAt = null;
  #waited = 0;
  #sinceReport = 0;
  /** All was played while the turn went on; a gap was heard if more of it comes. */
  #isDry = false;
  #underruns = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#receive(data);
  }

  process(_inputs, [output]) {
    const samples = output[0];
    if (!this.#isRunning) this.#isRunning = this.#mayStart(samples.length);
    if (this.#isRunning) this.#play(samples);
    this.#report(samples.length);
    return true;
  }

  #receive(message) {
    if (message.type === "audio") this.#append(message.turn, message.samples);
    else if (message.type === "end") this.#endTurn(message.turn);
    else if (message.type === "pause") this.#isPaused = true;
    else if (message.type === "resume") this.#isPaused = false;
    else if (message.type === "stop") this.#stop();
  }

  #append(turn, samples) {
    const fitting = samples.subarray(0, LARGEST_S * sampleRate - this.#available);
    if (fitting.length < samples.length) {
      this.port.postMessage({ type: "overflow", samples: samples.length - fitting.length });
    }
    this.#note(turn);
    this.#makeRoom(this.#available + fitting.length);
    copyIn(this.#ring, this.#written, fitting);
    this.#written += fitting.length;
  }

  #note(turn) {
    const last = this.#turns.at(-1);
    if (last?.turn === turn) {
      if (this.#isDry) this.#underruns += 1;
    } else {
      if (last) last.hasEnded = true;
      this.#turns.push({ turn, start: this.#written, hasEnded: false });
    }
    this.#isDry = false;
  }

  #makeRoom(size) {
    if (size <= this.#ring.length) return;
    const larger = new Float32Array(Math.max(size, 2 * this.#ring.length));
    for (let at = this.#read; at < this.#written; at++) {
      larger[at % larger.length] = this.#ring[at % this.#ring.length];
    }
    this.#ring = larger;
  }

  #endTurn(turn) {
    const ended = this.#turns.find((entry) => entry.turn === turn);
    if (!ended) return;
    ended.hasEnded = true;
    this.#finishTurns();
  }

  #stop() {
    this.#stopAt = this.#written;
    if (!this.#isRunning) this.#forget();
  }

  #forget() {
    this.#read = this.#stopAt;
    this.#turns = this.#turns.filter((entry) => entry.start >= this.#stopAt);
    this.#stopAt = null;
    this.#isRunning = false;
    this.#isPaused = false;
    this.#isDry = false;
    this.#gain = 1;
    this.#waited = 0;
  }

  get #available() {
    return this.#written - this.#read;
  }

  #mayStart(blockLength) {
    if (this.#available === 0 || this.#isPaused) return false;
    this.#waited += blockLength;
    const isEnough = this.#available >= PREBUFFER_S * sampleRate;
    return isEnough || this.#turns[0].hasEnded || this.#waited >= PATIENCE_S * sampleRate;
  }

  #play(output) {
    const isStopping = this.#stopAt !== null;
    const limit = isStopping ? this.#stopAt : this.#written;
    const step = (isStopping || this.#isPaused ? -1 : 1) / (FADE_S * sampleRate);
    let count = 0;
    while (count < output.length && this.#read < limit && (this.#gain > 0 || step > 0)) {
      output[count++] = this.#gain * this.#ring[this.#read++ % this.#ring.length];
      this.#gain = Math.min(1, Math.max(0, this.#gain + step));
    }
    if (isStopping) {
      if (this.#gain === 0 || this.#read === limit) this.#forget();
    } else if (!this.#isPaused) {
      this.#finishTurns();
      if (count < output.length) this.#runDry();
    }
  }

  #runDry() {
    this.#isRunning = false;
    this.#waited = 0;
    this.#isDry = this.#turns.length > 0;
  }

  /** Let go of turns that have ended and whose samples have all been played. */
  #finishTurns() {
    while (this.#turns[0]?.hasEnded && this.#read >= this.#endOf(0)) {
      const [{ turn, start }] = this.#turns;
      this.port.postMessage({ type: "drained", turn, played: this.#endOf(0) - start });
      this.#turns.shift();
    }
  }

  #endOf(index) {
    return this.#turns[index + 1]?.start ?? this.#written;
  }

  #report(blockLength) {
    this.#sinceReport += blockLength;
    if (this.#sinceReport < REPORT_S * sampleRate || this.#turns.length === 0) return;
    this.#sinceReport = 0;
    const { turn, start } = this.#turns[0];
    this.port.postMessage({
      type: "position",
      turn,
      played: Math.min(this.#read, this.#endOf(0)) - start,
      buffered: this.#available,
      underruns: this.#underruns,
    });
  }
}

function copyIn(ring, position, samples) {
  const at = position % ring.length;
  const untilWrap = Math.min(samples.length, ring.length - at);
  ring.set(samples.subarray(0, untilWrap), at);
  ring.set(samples.subarray(untilWrap), 0);
}

registerProcessor("playback", PlaybackProcessor);
