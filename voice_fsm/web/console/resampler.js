/**
 * Sample-rate conversion as a stream: a polyphase FIR low-pass (Kaiser-windowed sinc, about 80 dB), so that
 * what the lower rate cannot hold is filtered out instead of folding back.
 */

/** Zero crossings of the sinc on each side, counted at the lower of the two rates. */
const ZERO_CROSSINGS = 32;
/** Middle of the transition band, as a part of the lower rate's Nyquist frequency. */
const CUTOFF = 0.92;
const KAISER_BETA = 8;

export class Resampler {
  #up;
  #down;
  #taps;
  #filter;
  #tail;
  /** Index in `tail + input` of the first sample under the filter for the next output. */
  #start = 0;
  /** Which of the `up` sub-filters makes the next output. */
  #phase = 0;

  /**
   * @param {number} fromHz whole number
   * @param {number} toHz whole number
   */
  constructor(fromHz, toHz) {
    const divisor = greatestCommonDivisor(fromHz, toHz);
    this.#up = toHz / divisor;
    this.#down = fromHz / divisor;
    const half = Math.ceil(ZERO_CROSSINGS * Math.max(1, fromHz / toHz));
    this.#taps = 2 * half;
    this.#filter = this.#isIdentity ? null : filterBank(this.#up, half, Math.min(1, toHz / fromHz));
    this.#tail = new Float32Array(half - 1);
  }

  get #isIdentity() {
    return this.#up === this.#down;
  }

  /**
   * Convert the next samples. The last few milliseconds stay inside until more follow, or `flush`.
   * @param {Float32Array} input
   * @returns {Float32Array}
   */
  process(input) {
    if (this.#isIdentity) return input;
    const data = new Float32Array(this.#tail.length + input.length);
    data.set(this.#tail);
    data.set(input, this.#tail.length);
    const output = this.#filterAll(data);
    const consumed = Math.min(this.#start, data.length);
    this.#tail = data.slice(consumed);
    this.#start -= consumed;
    return output;
  }

  /**
   * The rest of what was put in.
   * @returns {Float32Array}
   */
  flush() {
    return this.#isIdentity ? new Float32Array(0) : this.process(new Float32Array(this.#taps / 2));
  }

  #filterAll(data) {
    const room = Math.max(0, data.length - this.#start - this.#taps + 1);
    const output = new Float32Array(Math.ceil((room * this.#up) / this.#down) + 1);
    let count = 0;
    while (this.#start + this.#taps <= data.length) {
      const offset = this.#phase * this.#taps;
      let sum = 0;
      for (let i = 0; i < this.#taps; i++) sum += data[this.#start + i] * this.#filter[offset + i];
      output[count++] = sum;
      this.#phase += this.#down;
      this.#start += Math.floor(this.#phase / this.#up);
      this.#phase %= this.#up;
    }
    return output.subarray(0, count);
  }
}

/** Coefficients of all sub-filters one after the other, each summing to 1. */
function filterBank(up, half, bandwidth) {
  const taps = 2 * half;
  const bank = new Float32Array(up * taps);
  for (let phase = 0; phase < up; phase++) {
    const filter = bank.subarray(phase * taps, (phase + 1) * taps);
    for (let i = 0; i < taps; i++) {
      const distance = i - (half - 1) - phase / up;
      filter[i] = sinc(CUTOFF * bandwidth * distance) * kaiser(distance / half);
    }
    const gain = filter.reduce((sum, coefficient) => sum + coefficient, 0);
    for (let i = 0; i < taps; i++) filter[i] /= gain;
  }
  return bank;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function kaiser(x) {
  return Math.abs(x) >= 1 ? 0 : bessel0(KAISER_BETA * Math.sqrt(1 - x * x)) / bessel0(KAISER_BETA);
}

/** Modified Bessel function of the first kind, order 0, by its power series. */
function bessel0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-9; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
