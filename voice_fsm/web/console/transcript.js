/** What was said, by whom, and what of it was heard. */

const FOLLOW_WITHIN_PX = 80;

export class Transcript {
  #box;
  #list;
  /** Whether to stay at the end; not while the reader has scrolled back. */
  #isFollowing = true;
  #partial = null;
  /** Committed since the assistant last began to answer. */
  #unanswered = "";
  /** Running turns: {item, who, body, text, heard, aligned, isCut}; `heard` is null where nobody knows. */
  #replies = new Map();

  /** @param {HTMLElement} box that scrolls, with a list inside */
  constructor(box) {
    this.#box = box;
    this.#list = box.querySelector("ol");
    box.addEventListener("scroll", () => {
      const beyond = box.scrollHeight - box.scrollTop - box.clientHeight;
      this.#isFollowing = beyond < FOLLOW_WITHIN_PX;
    });
  }

  /** Whether the user is in the middle of an utterance. */
  get hasPartial() {
    return this.#partial !== null;
  }

  /**
   * The best guess at what the user is saying; replaces the one before.
   * @param {string} text
   */
  showPartial(text) {
    this.#partial ??= this.#add("user partial");
    this.#partial.body.textContent = text;
    this.#follow();
  }

  /**
   * What the user said, for good.
   * @param {string} text
   */
  commit(text) {
    if (text.trim() === "") {
      this.#dropPartial();
      return;
    }
    this.showPartial(text);
    this.#partial.item.classList.remove("partial");
    this.#partial = null;
    this.#unanswered = text;
  }

  /**
   * A turn begins.
   * @param {number} turn
   * @param {string} prompt the user's text that it answers; shown unless it was spoken, and so is there
   */
  startReply(turn, prompt) {
    const wasSpoken = this.#unanswered !== "" && prompt.endsWith(this.#unanswered);
    if (!wasSpoken && prompt !== "") {
      this.#add("user").body.textContent = prompt;
      this.#isFollowing = true;
    }
    this.#unanswered = "";
    const entry = this.#add("assistant waiting");
    this.#replies.set(turn, { ...entry, text: "", heard: null, aligned: [], isCut: false });
    this.#follow();
  }

  /**
   * The reply goes on.
   * @param {number} turn
   * @param {string} text
   */
  appendReply(turn, text) {
    const reply = this.#replies.get(turn);
    if (reply) this.#render(reply, reply.text + text);
  }

  /**
   * The reply as a whole.
   * @param {number} turn
   * @param {string} text
   */
  setReply(turn, text) {
    const reply = this.#replies.get(turn);
    if (reply) this.#render(reply, text);
  }

  /**
   * When each character of a reply sounds.
   * @param {number} turn
   * @param {string[]} chars
   * @param {number[]} startsMs from the start of the turn's audio
   */
  align(turn, chars, startsMs) {
    const reply = this.#replies.get(turn);
    chars.forEach((char, index) => reply?.aligned.push({ char, startMs: startsMs[index] }));
  }

  /**
   * How far the voice has come: what it has said stands out from what is to come, where that is known.
   * @param {number} turn
   * @param {number} playedMs
   */
  showPlayed(turn, playedMs) {
    const reply = this.#replies.get(turn);
    if (!reply || reply.aligned.length === 0) return;
    const spoken = reply.aligned.filter(({ startMs }) => startMs <= playedMs);
    reply.heard = spoken.map(({ char }) => char).join("");
    this.#render(reply, reply.text);
  }

  /**
   * The user cut the reply short: what was not heard is struck through.
   * @param {number} turn
   * @param {string} heardText
   */
  cutReply(turn, heardText) {
    const reply = this.#replies.get(turn);
    if (!reply) return;
    reply.heard = heardText;
    reply.isCut = true;
    this.#render(reply, reply.text);
  }

  /**
   * A turn is over.
   * @param {number} turn
   * @param {string} outcome
   */
  endReply(turn, outcome) {
    const reply = this.#replies.get(turn);
    if (!reply) return;
    reply.item.classList.remove("waiting");
    reply.item.dataset.outcome = outcome;
    if (outcome === "completed") {
      reply.heard = null;
      this.#render(reply, reply.text);
    } else if (reply.text === "") {
      reply.item.remove();
    } else {
      reply.who.textContent = `Assistant · ${outcome}`;
    }
    this.#replies.delete(turn);
    this.#follow();
  }

  /**
   * Something about the session, between the lines.
   * @param {string} text
   */
  note(text) {
    this.#dropPartial();
    this.#add("note").body.textContent = text;
    this.#follow();
  }

  #dropPartial() {
    this.#partial?.item.remove();
    this.#partial = null;
  }

  #render(reply, text) {
    reply.text = text;
    reply.item.classList.toggle("waiting", text === "");
    const end = reply.heard === null ? text.length : endOfPrefix(text, reply.heard);
    const lead = text.slice(end).search(/\S|$/);
    const rest = document.createElement(reply.isCut ? "del" : "span");
    rest.className = reply.isCut ? "unheard" : "ahead";
    rest.textContent = text.slice(end + lead);
    reply.body.replaceChildren(text.slice(0, end + lead), ...(rest.textContent ? [rest] : []));
    this.#follow();
  }

  #add(kind) {
    this.#list.querySelector(".empty")?.remove();
    const item = document.createElement("li");
    item.className = kind;
    const body = document.createElement("p");
    const who = document.createElement("span");
    who.className = "who";
    who.textContent = { user: "You", assistant: "Assistant" }[kind.split(" ")[0]] ?? "";
    item.append(who, body);
    this.#list.append(item);
    return { item, who, body };
  }

  #follow() {
    if (this.#isFollowing) this.#box.scrollTop = this.#box.scrollHeight;
  }
}

/**
 * Where a prefix ends in a text, whatever white space either has.
 * @param {string} text
 * @param {string} prefix
 * @returns {number} index in `text`
 */
export function endOfPrefix(text, prefix) {
  let at = 0;
  for (let i = 0; i < prefix.length; i++) {
    if (isSpace(prefix[i])) continue;
    let next = at;
    while (next < text.length && isSpace(text[next])) next += 1;
    if (text[next] !== prefix[i]) break;
    at = next + 1;
  }
  return at;
}

function isSpace(character) {
  return /\s/.test(character);
}
