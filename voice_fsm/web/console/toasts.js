/** Short messages that pass. */

const MOST = 4;
const SHOWN_MS = 9000;

export class Toasts {
  #container;

  /** @param {HTMLElement} container with role `alert` */
  constructor(container) {
    this.#container = container;
  }

  /**
   * @param {string} title such as an error's code
   * @param {string} text
   * @param {{isLasting?: boolean}} options a lasting one stays until it is dismissed
   */
  show(title, text, { isLasting = false } = {}) {
    const toast = document.createElement("div");
    toast.className = "toast";
    const heading = document.createElement("strong");
    heading.textContent = title;
    const body = document.createElement("p");
    body.textContent = text;
    const dismiss = document.createElement("button");
    dismiss.type = "button";
    dismiss.textContent = "×";
    dismiss.setAttribute("aria-label", "Dismiss");
    dismiss.addEventListener("click", () => toast.remove());
    toast.append(heading, body, dismiss);
    this.#container.append(toast);
    while (this.#container.children.length > MOST) this.#container.firstElementChild.remove();
    if (!isLasting) setTimeout(() => toast.remove(), SHOWN_MS);
  }
}
