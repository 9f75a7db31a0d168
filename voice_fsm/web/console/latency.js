/** A row of figures for each turn: whatever the server measures, and when the page made the first sound. */

const MOST_TURNS = 50;
const UNIT = /_ms$/;
/** In the order in which they come about; others follow these. */
const STAGES = [
  "first_text_ms",
  "first_speech_ms",
  "first_audio_sent_ms",
  "first_sound_in_page_ms",
  "playback_done_ms",
];

export class LatencyTable {
  #table;
  #empty;
  #columns = [];
  /** Figures by turn, latest first when shown. */
  #turns = new Map();

  /**
   * @param {HTMLTableElement} table
   * @param {HTMLElement} empty shown as long as there are no figures
   */
  constructor(table, empty) {
    this.#table = table;
    this.#empty = empty;
  }

  /**
   * Add figures to a turn's row.
   * @param {number} turn
   * @param {Record<string, number | null>} figures those whose names end with `_ms` are shown
   */
  add(turn, figures) {
    const shown = Object.entries(figures).filter(([name, value]) => UNIT.test(name) && value !== null);
    const names = [...new Set([...this.#columns, ...shown.map(([name]) => name)])];
    this.#columns = [
      ...STAGES.filter((name) => names.includes(name)),
      ...names.filter((name) => !STAGES.includes(name)),
    ];
    this.#turns.set(turn, { ...this.#turns.get(turn), ...Object.fromEntries(shown) });
    if (this.#turns.size > MOST_TURNS) this.#turns.delete(this.#turns.keys().next().value);
    this.#render();
  }

  /** Forget all turns. */
  clear() {
    this.#turns.clear();
    this.#render();
  }

  #render() {
    this.#empty.hidden = this.#turns.size > 0;
    this.#table.hidden = this.#turns.size === 0;
    const head = ["turn", ...this.#columns.map((name) => name.replace(UNIT, "").replaceAll("_", " "))];
    this.#table.tHead.rows[0].replaceChildren(...head.map((text) => cell("th", text)));
    const rows = [...this.#turns].reverse().map(([turn, figures]) => {
      const row = document.createElement("tr");
      const values = this.#columns.map((name) => (name in figures ? Math.round(figures[name]) : "–"));
      row.append(cell("th", turn), ...values.map((value) => cell("td", value)));
      return row;
    });
    this.#table.tBodies[0].replaceChildren(...rows);
  }
}

function cell(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  if (name === "th") made.scope = text === "turn" || Number.isNaN(Number(text)) ? "col" : "row";
  return made;
}
