/** The buttons and fields under the conversation, and which of them can be used when. */

const BUSY_STATES = new Set(["thinking", "speaking"]);
const MICROPHONE_HINTS = { NotAllowedError: "Access was refused.", NotFoundError: "There is none." };

const $ = (id) => document.getElementById(id);

/**
 * Events: `prompt` (detail: the text), `commit`, `stop` and `unheard` (the microphone was switched off). The
 * microphone and the volume are worked from here directly.
 */
export class Controls extends EventTarget {
  #sound;
  #toasts;
  #isOpen = false;

  /**
   * @param {import("./sound.js").Sound} sound
   * @param {import("./toasts.js").Toasts} toasts
   */
  constructor(sound, toasts) {
    super();
    this.#sound = sound;
    this.#toasts = toasts;
    $("prompt-form").addEventListener("submit", (event) => this.#submitPrompt(event));
    $("mic").addEventListener("click", () => this.#toggleMicrophone());
    $("mute").addEventListener("click", () => this.#toggleMute());
    $("commit").addEventListener("click", () => this.#emit("commit"));
    $("stop").addEventListener("click", () => this.#emit("stop"));
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape" && !$("stop").disabled) this.#emit("stop");
    });
    $("volume").addEventListener("input", () => this.applyVolume());
    sound.addEventListener("lost", () => {
      toasts.show("microphone", "The microphone went away.");
      this.#showMicrophone();
    });
  }

  /** Set the player to what the slider says; for a player that is new. */
  applyVolume() {
    if (this.#sound.player) this.#sound.player.volume = Number($("volume").value);
  }

  /**
   * Enable what makes sense now.
   * @param {{isOpen: boolean, state: string | null}} session
   */
  refresh({ isOpen, state }) {
    this.#isOpen = isOpen;
    const isBusy = BUSY_STATES.has(state) || this.#sound.player?.isSounding;
    for (const id of ["prompt", "send", "commit"]) $(id).disabled = !isOpen;
    $("mic").disabled = !isOpen || !this.#sound.microphone;
    $("stop").disabled = !isOpen || !isBusy;
    this.#showMicrophone();
  }

  #submitPrompt(event) {
    event.preventDefault();
    const text = $("prompt").value.trim();
    if (text === "") return;
    this.#emit("prompt", text);
    $("prompt").value = "";
  }

  async #toggleMicrophone() {
    const { microphone } = this.#sound;
    if (microphone.isOn) {
      microphone.stop();
      this.#emit("unheard");
    } else {
      await this.#startMicrophone(microphone);
    }
    this.#showMicrophone();
  }

  /** The user may take long to allow it: meanwhile one must not ask again, and the session may end. */
  async #startMicrophone(microphone) {
    $("mic").disabled = true;
    try {
      await microphone.start();
      if (!this.#isOpen) microphone.stop();
    } catch (error) {
      this.#toasts.show("microphone", MICROPHONE_HINTS[error.name] ?? error.message);
    }
    $("mic").disabled = !this.#isOpen;
  }

  #toggleMute() {
    const { microphone } = this.#sound;
    microphone.isMuted = !microphone.isMuted;
    this.#showMicrophone();
  }

  #showMicrophone() {
    const { isOn = false, isMuted = false } = this.#sound.microphone ?? {};
    $("mic").textContent = isOn ? "Stop microphone" : "Start microphone";
    $("mic").setAttribute("aria-pressed", isOn);
    $("mute").disabled = !isOn;
    $("mute").textContent = isMuted ? "Unmute" : "Mute";
    $("mute").setAttribute("aria-pressed", isMuted);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
