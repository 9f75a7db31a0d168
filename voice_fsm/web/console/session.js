/** The socket of one voice session: frames in and out, and checks of what the contract promises. */

import { fromBase64, toBase64 } from "./codec.js";

const BINARY_HEADER_BYTES = 8;
/** Microphone audio is left out while this much waits to be sent: late speech is worth less than fresh. */
const MOST_BUFFERED_BYTES = 256 * 1024;

const CLOSE_REASONS = {
  1000: "closed normally",
  1001: "the server is going away",
  1006: "connection lost",
  1007: "bad UTF-8",
  1008: "refused by policy",
  1009: "message too big",
  1011: "server fault",
  1012: "the server is restarting",
  1013: "the server is overloaded",
};

/**
 * Events:
 * - `status` (detail: {status, reason}): `connecting`, `open` or `disconnected`
 * - `received` (detail: {message, bytes}): a message, without its audio but with the count of its bytes
 * - `sent` (detail: {message, bytes}): the same for what goes out
 * - `audio` (detail: {turn, bytes}): a chunk, however it came
 * - `file` (detail: {turn, bytes, format}): a reply's audio in one piece
 * - `violation` (detail: a sentence): the server broke its contract
 */
export class VoiceSession extends EventTarget {
  /** `connecting`, `open` or `disconnected`. */
  status = "disconnected";
  /** Token of the last session that the server offered to resume; used once. */
  resumeToken = null;

  #socket = null;
  #turn = 0;
  #nextSeq = null;
  #nextChunk = 1;
  #closing = null;

  /** @param {string} url ws:// or wss:// */
  connect(url) {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#setStatus("open");
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = (event) => this.#closed(event);
    this.#socket = socket;
    this.#turn = 0;
    this.#nextSeq = null;
    this.#closing = null;
    this.#setStatus("connecting");
  }

  /** Close from our side. */
  disconnect() {
    this.#socket?.close(1000);
  }

  /**
   * Send a message of the contract; ignored while there is no connection.
   * @param {{type: string}} message
   */
  send(message) {
    this.#transmit(JSON.stringify(message), message);
  }

  /**
   * Send microphone audio.
   * @param {Uint8Array} pcm
   * @param {number} sampleRate
   * @param {"binary" | "json"} mode
   */
  sendAudio(pcm, sampleRate, mode) {
    if (this.#socket?.bufferedAmount > MOST_BUFFERED_BYTES) return;
    const summary = { type: "audio.append", sample_rate: sampleRate };
    const frame = mode === "binary" ? pcm : JSON.stringify({ ...summary, audio: toBase64(pcm) });
    this.#transmit(frame, summary, pcm.length);
  }

  #transmit(frame, message, bytes = 0) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(frame);
    this.#emit("sent", { message, bytes });
  }

  #receive(data) {
    if (typeof data === "string") this.#receiveText(data);
    else this.#receiveBinary(data);
  }

  #receiveText(text) {
    const parsed = parseMessage(text);
    if (parsed === null) {
      this.#emit("violation", "A text frame is not a JSON object with a type, or its audio is not base64.");
      return;
    }
    const { message, audio } = parsed;
    if (message.type === "session.closing") this.#noteClosing(message);
    if (message.type === "assistant.started") this.#turn = message.turn_id ?? this.#turn + 1;
    // Base servers leave out the turn; it is always the latest.
    if (message.type.startsWith("assistant.")) message.turn_id ??= this.#turn;
    if (message.type === "assistant.audio.start") this.#nextChunk = 1;
    this.#checkSeq(message);
    this.#emit("received", { message, bytes: audio.length });
    if (message.type === "assistant.audio.chunk") {
      this.#takeChunk(message.turn_id, message.chunk_index, audio);
    } else if (message.type === "assistant.audio") {
      this.#emit("file", { turn: message.turn_id, bytes: audio, format: message.output_format });
    }
  }

  #receiveBinary(data) {
    if (data.byteLength < BINARY_HEADER_BYTES) {
      this.#emit("violation", "A binary frame is shorter than its header.");
      return;
    }
    const view = new DataView(data);
    const [turn, index] = [view.getUint32(0), view.getUint32(4)];
    const bytes = new Uint8Array(data, BINARY_HEADER_BYTES);
    const message = { type: "assistant.audio.chunk", turn_id: turn, chunk_index: index };
    this.#emit("received", { message, bytes: bytes.length });
    this.#takeChunk(turn, index, bytes);
  }

  #takeChunk(turn, index, bytes) {
    if (index !== this.#nextChunk) {
      this.#emit("violation", `Turn ${turn}: chunk ${index} came where ${this.#nextChunk} was due.`);
    }
    this.#nextChunk = index + 1;
    this.#emit("audio", { turn, bytes });
  }

  #checkSeq({ type, seq }) {
    if (seq === undefined) return;
    if (this.#nextSeq !== null && seq !== this.#nextSeq) {
      this.#emit("violation", `${type}: seq ${seq} came where ${this.#nextSeq} was due.`);
    }
    this.#nextSeq = seq + 1;
  }

  #noteClosing({ reason, resume }) {
    this.#closing = reason;
    this.resumeToken = resume ?? null;
  }

  #closed({ code, reason }) {
    const parts = [this.#closing ?? CLOSE_REASONS[code] ?? "closed", reason].filter(Boolean);
    this.#socket = null;
    this.#setStatus("disconnected", `${parts.join(": ")} (${code})`);
  }

  #setStatus(status, reason = "") {
    this.status = status;
    this.#emit("status", { status, reason });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function parseMessage(text) {
  try {
    const { audio = "", ...message } = JSON.parse(text);
    return typeof message.type === "string" ? { message, audio: fromBase64(audio) } : null;
  } catch {
    return null;
  }
}
