/** The list of all messages, bounded; what comes many times a second shares one row. */

const MOST_ROWS = 500;
const COLLAPSED = new Set([
  "assistant.audio.chunk",
  "assistant.audio.alignment",
  "assistant.text.delta",
  "audio.append",
  "playback.progress",
]);
/** A shared row that has so many rows after it is left alone, and a new one begun. */
const SHARE_WITHIN_ROWS = 25;
const SUMMARY_LENGTH = 120;
const NOT_IN_SUMMARY = new Set(["type", "seq", "turn_id"]);

/**
 * @typedef {object} Entry
 * @property {number} at milliseconds since the page was opened
 * @property {"in" | "out" | "note"} direction
 * @property {{type: string}} message the latest of those that share the row
 * @property {number} count
 * @property {number} bytes of audio, all together
 */

export class EventLog {
  #list;
  #count;
  #direction;
  #filter;
  /** Rows, oldest first: {entry, item}. */
  #rows = [];
  /** Number of the latest row; rows keep theirs. */
  #latest = 0;
  #shared = new Map();

  /**
   * @param {object} elements
   * @param {HTMLElement} elements.list
   * @param {HTMLElement} elements.count
   * @param {HTMLSelectElement} elements.direction
   * @param {HTMLInputElement} elements.filter
   */
  constructor({ list, count, direction, filter }) {
    this.#list = list;
    this.#count = count;
    this.#direction = direction;
    this.#filter = filter;
    direction.addEventListener("change", () => this.#refilter());
    filter.addEventListener("input", () => this.#refilter());
  }

  /**
   * @param {"in" | "out" | "note"} direction
   * @param {{type: string}} message
   * @param {number} bytes of audio that came with it
   */
  add(direction, message, bytes = 0) {
    const shared = this.#sharedRow(direction, message);
    if (shared) {
      shared.entry.message = message;
      shared.entry.count += 1;
      shared.entry.bytes += bytes;
      describe(shared);
      return;
    }
    const entry = { at: performance.now(), direction, message, count: 1, bytes };
    this.#append({ entry, item: document.createElement("li"), number: ++this.#latest });
  }

  /** @returns {string} one line of JSON for each row that the filter lets through */
  asText() {
    return this.#rows
      .filter(({ entry }) => this.#lets(entry))
      .map(({ entry }) => JSON.stringify({ ...entry, at: Math.round(entry.at) }))
      .join("\n");
  }

  /** Forget all rows. */
  clear() {
    this.#rows = [];
    this.#shared.clear();
    this.#list.replaceChildren();
    this.#showCount();
  }

  #append(row) {
    this.#rows.push(row);
    if (COLLAPSED.has(row.entry.message.type)) this.#shared.set(shareKey(row.entry), row);
    build(row);
    row.item.hidden = !this.#lets(row.entry);
    const isAtEnd = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < 40;
    this.#list.append(row.item);
    if (this.#rows.length > MOST_ROWS) this.#rows.shift().item.remove();
    if (isAtEnd) this.#list.scrollTop = this.#list.scrollHeight;
    this.#showCount();
  }

  #sharedRow(direction, message) {
    const row = this.#shared.get(shareKey({ direction, message }));
    return row && this.#latest - row.number < SHARE_WITHIN_ROWS ? row : undefined;
  }

  #lets({ direction, message }) {
    const wanted = this.#direction.value;
    const text = this.#filter.value.trim().toLowerCase();
    return (!wanted || wanted === direction) && JSON.stringify(message).toLowerCase().includes(text);
  }

  #refilter() {
    for (const { entry, item } of this.#rows) item.hidden = !this.#lets(entry);
    this.#showCount();
  }

  #showCount() {
    const shown = this.#rows.filter(({ item }) => !item.hidden).length;
    this.#count.textContent = shown === this.#rows.length ? `${shown}` : `${shown} of ${this.#rows.length}`;
  }
}

function shareKey({ direction, message }) {
  return `${direction} ${message.type} ${message.turn_id ?? ""}`;
}

function build({ entry, item }) {
  item.className = `row ${entry.direction}`;
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  for (const name of ["time", "arrow", "type", "turn", "text"]) {
    const cell = document.createElement("span");
    cell.className = name;
    summary.append(cell);
  }
  const json = document.createElement("pre");
  details.addEventListener("toggle", () => {
    json.textContent = JSON.stringify(entry.message, null, 2);
  });
  details.append(summary, json);
  item.append(details);
  describe({ entry, item });
}

function describe({ entry, item }) {
  const { message, direction, at, count, bytes } = entry;
  const [time, arrow, type, turn, text] = item.querySelectorAll("summary > span");
  time.textContent = (at / 1000).toFixed(2);
  arrow.textContent = { in: "←", out: "→", note: "·" }[direction];
  arrow.setAttribute("aria-label", { in: "received", out: "sent", note: "note" }[direction]);
  type.textContent = message.type;
  turn.textContent = message.turn_id === undefined ? "" : `#${message.turn_id}`;
  text.textContent = [
    count > 1 ? `× ${count}` : "",
    bytes > 0 ? `${(bytes / 1024).toFixed(1)} KiB` : "",
    bytes > 0 ? "" : summarise(message),
  ].join(" ").trim();
}

function summarise(message) {
  const rest = Object.entries(message).filter(([key]) => !NOT_IN_SUMMARY.has(key));
  const text = rest.map(([key, value]) => `${key} ${JSON.stringify(value, roundNumbers)}`).join(" ");
  return text.length > SUMMARY_LENGTH ? `${text.slice(0, SUMMARY_LENGTH)}…` : text;
}

function roundNumbers(_key, value) {
  return typeof value === "number" ? Math.round(value * 10) / 10 : value;
}
