/**
 * Bytes of the wire to samples and back. PCM is signed 16-bit little-endian mono; samples are floats in
 * [-1, 1). Pure functions and one small stateful decoder.
 */

/**
 * Read a format's name, such as `pcm_24000`, `ulaw_8000` or `mp3_44100_128`.
 * @param {string} name
 * @returns {{codec: string, sampleRate: number}}
 */
export function parseFormat(name) {
  const [codec, rate] = name.split("_");
  return { codec, sampleRate: Number(rate) };
}

/** Decodes a stream of PCM or mu-law that may be cut anywhere, even inside a sample. */
export class SampleDecoder {
  #codec;
  #oddByte = null;

  /** @param {"pcm" | "ulaw"} codec */
  constructor(codec) {
    this.#codec = codec;
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {Float32Array} the samples completed by these bytes
   */
  decode(bytes) {
    return this.#codec === "ulaw" ? decodeUlaw(bytes) : decodePcm(this.#wholeSamples(bytes));
  }

  #wholeSamples(bytes) {
    let data = bytes;
    if (this.#oddByte !== null) {
      data = new Uint8Array(bytes.length + 1);
      data[0] = this.#oddByte;
      data.set(bytes, 1);
    }
    const isOdd = data.length % 2 === 1;
    this.#oddByte = isOdd ? data[data.length - 1] : null;
    return isOdd ? data.subarray(0, -1) : data;
  }
}

function decodePcm(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const samples = new Float32Array(bytes.length / 2);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
  return samples;
}

/** G.711: complemented bits; sign, 3 bits of exponent, 4 of mantissa; bias 132. */
function decodeUlaw(bytes) {
  const samples = new Float32Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) {
    const code = ~bytes[i] & 0xff;
    const magnitude = ((((code & 0x0f) << 3) + 132) << ((code >> 4) & 7)) - 132;
    samples[i] = (code & 0x80 ? -magnitude : magnitude) / 32768;
  }
  return samples;
}

/**
 * @param {Float32Array} samples
 * @returns {Uint8Array} PCM; what is out of range is clipped
 */
export function encodePcm(samples) {
  const bytes = new Uint8Array(samples.length * 2);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < samples.length; i++) {
    const scaled = Math.round(samples[i] * 32768);
    view.setInt16(2 * i, Math.max(-32768, Math.min(32767, scaled)), true);
  }
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function toBase64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/**
 * @param {string} text
 * @returns {Uint8Array}
 */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * @param {Float32Array} samples
 * @returns {number} root mean square
 */
export function rms(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length === 0 ? 0 : Math.sqrt(sum / samples.length);
}
