/**
 * Hands the microphone's samples to the page, at the context's rate, in blocks of about 20 ms: fewer
 * messages than one for each 128 samples.
 */
class CaptureProcessor extends AudioWorkletProcessor {
  #block = new Float32Array(Math.ceil(sampleRate / 50));
  #filled = 0;

  process([input]) {
    const samples = input[0];
    if (samples) this.#append(samples);
    return true;
  }

  #append(samples) {
    let taken = 0;
    while (taken < samples.length) {
      const part = samples.subarray(taken, taken + this.#block.length - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (this.#filled === this.#block.length) this.#post();
    }
  }

  #post() {
    this.port.postMessage(this.#block.slice());
    this.#filled = 0;
  }
}

registerProcessor("capture", CaptureProcessor);
