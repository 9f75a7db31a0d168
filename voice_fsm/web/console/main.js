/** Wires the page together: what the socket says to what is shown and heard, and the controls back. */

import { CAPTURE_RATE_HZ } from "./capture.js";
import { Controls } from "./controls.js";
import { Diagram } from "./diagram.js";
import { LatencyTable } from "./latency.js";
import { EventLog } from "./log.js";
import { Probe } from "./probe.js";
import { VoiceSession } from "./session.js";
import { readSettings } from "./settings.js";
import { Sound } from "./sound.js";
import { Toasts } from "./toasts.js";
import { withToken } from "./token.js";
import { Transcript } from "./transcript.js";

const PROGRESS_EVERY_MS = 250;
const LEVELS_EVERY_MS = 60;
/** Quieter than this shows as nothing on the meters. */
const METER_FLOOR_DB = -60;

const $ = (id) => document.getElementById(id);

const session = new VoiceSession();
const sound = new Sound();
const probe = new Probe(sound);
const toasts = new Toasts($("toasts"));
const controls = new Controls(sound, toasts);
const transcript = new Transcript($("transcript"));
const latency = new LatencyTable($("latency"), $("latency-empty"));
const log = new EventLog({
  list: $("log"), count: $("log-count"), direction: $("log-direction"), filter: $("log-filter"),
});

/** @type {Diagram | null} */
let diagram = null;
let settings = readSettings($("settings-form"), null);
/** The turn under way or the last one, and how much of it has been heard. */
let heard = { turn: 0, playedMs: 0 };
let toldProgressAt = 0;
/** When the user had finished saying or typing what the next turn answers; by performance.now(). */
let askedAt = null;
/** Whether it was the user who hung up. */
let isLeaving = false;

// --- the connection ---------------------------------------------------------------------------------

$("url").value = Object.assign(new URL("v1/voice/ws", location.href), {
  protocol: location.protocol === "https:" ? "wss:" : "ws:",
}).href;

$("connect-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (session.status === "disconnected") connect();
  else leave();
});

async function connect() {
  $("connect").disabled = true;
  await prepareSound();
  latency.clear();
  probe.reset();
  heard = { turn: 0, playedMs: 0 };
  isLeaving = false;
  showState(null);
  try {
    session.connect(await withToken($("url").value, $("access-key").value.trim()));
  } catch (error) {
    toasts.show("not_connected", error.message);
  }
  $("connect").disabled = false;
}

async function prepareSound() {
  try {
    await sound.prepare();
    sound.player.reset();
    controls.applyVolume();
  } catch (error) {
    toasts.show("no_audio", `Text only: ${error.message}.`, { isLasting: true });
  }
}

function leave() {
  isLeaving = true;
  session.disconnect();
}

session.addEventListener("status", ({ detail: { status, reason } }) => {
  probe.status = status;
  $("connection").textContent = status === "open" ? "connected" : status;
  $("connection").dataset.status = status;
  $("close-reason").textContent = reason;
  if (status === "disconnected") endSession(reason);
  refresh();
});

function endSession(reason) {
  sound.microphone?.stop();
  sound.player?.reset();
  if (probe.state !== null) showState("closed");
  transcript.note(`Disconnected: ${reason}`);
  log.add("note", { type: "disconnected", reason });
  if (!isLeaving) toasts.show("disconnected", reason);
}

function configure() {
  settings = readSettings($("settings-form"), session.resumeToken);
  session.resumeToken = null;
  session.send(settings.configure);
  $("apply").disabled = true;
}

$("settings-form").addEventListener("submit", (event) => {
  event.preventDefault();
  configure();
});
$("settings-form").addEventListener("input", () => {
  $("apply").disabled = session.status !== "open";
});

// --- what the server says ---------------------------------------------------------------------------

const reactions = {
  "session.ready": () => {
    showState("unconfigured");
    configure();
  },
  "session.configured": ({ session_id }) => {
    probe.sessionId = session_id;
    if (probe.state === "unconfigured") showState("listening");
    transcript.note(`Connected as ${session_id}`);
  },
  "session.closing": ({ reason }) => transcript.note(`The server is closing: ${reason}`),
  "state.changed": (change) => {
    diagram?.follow(change);
    showState(change.to);
  },
  "transcript.partial": ({ text }) => transcript.showPartial(text),
  "transcript.committed": ({ text }) => {
    askedAt = performance.now();
    transcript.commit(text);
  },
  "assistant.started": ({ turn_id, text }) => {
    heard = { turn: turn_id, playedMs: 0 };
    transcript.startReply(turn_id, text);
  },
  "assistant.text.delta": ({ turn_id, text }) => transcript.appendReply(turn_id, text),
  "assistant.message": ({ turn_id, text }) => transcript.setReply(turn_id, text),
  "assistant.audio.start": ({ turn_id, output_format }) => sound.player?.begin(turn_id, output_format),
  "assistant.audio.end": ({ turn_id }) => sound.player?.end(turn_id),
  "assistant.audio.alignment": ({ turn_id, chars, starts_ms }) => transcript.align(turn_id, chars, starts_ms),
  "assistant.paused": ({ turn_id }) => sound.player?.pause(turn_id),
  "assistant.resumed": ({ turn_id }) => sound.player?.resume(turn_id),
  "assistant.interrupted": ({ turn_id, heard_text }) => {
    sound.player?.drop(turn_id);
    transcript.cutReply(turn_id, heard_text ?? "");
  },
  "assistant.done": ({ turn_id, outcome }) => {
    if (outcome !== "completed") sound.player?.drop(turn_id);
    transcript.endReply(turn_id, outcome);
  },
  "turn.metrics": ({ turn_id, ...figures }) => latency.add(turn_id, figures),
  error: ({ code, message, field, fatal }) => {
    toasts.show(code ?? "error", field ? `${message} (${field})` : message, { isLasting: fatal });
  },
};

session.addEventListener("received", ({ detail: { message, bytes } }) => {
  log.add("in", message, bytes);
  probe.noteReceived(message);
  reactions[message.type]?.(message);
});
session.addEventListener("sent", ({ detail: { message, bytes } }) => {
  log.add("out", message, bytes);
  probe.noteSent(message);
});
session.addEventListener("audio", ({ detail }) => sound.player?.append(detail.turn, detail.bytes));
session.addEventListener("file", ({ detail }) => {
  sound.player?.playFile(detail.turn, new Blob([detail.bytes]), detail.format);
});
session.addEventListener("violation", ({ detail }) => {
  probe.violations.push(detail);
  log.add("note", { type: "contract broken", detail });
  toasts.show("contract broken", detail);
});

// --- what the user does -----------------------------------------------------------------------------

controls.addEventListener("prompt", ({ detail }) => {
  askedAt = performance.now();
  session.send({ type: "text.prompt", text: detail });
});
controls.addEventListener("commit", commit);
// No more audio, and so no more silence: nothing else would end what was being said.
controls.addEventListener("unheard", () => { if (transcript.hasPartial) commit(); });
// Silence first; then the server is told how far the voice had come, so that it knows what was heard.
controls.addEventListener("stop", () => {
  sound.player?.drop(heard.turn);
  if (heard.playedMs > 0) tellProgress();
  session.send({ type: "response.cancel", turn_id: heard.turn });
});

function commit() {
  session.send({ type: "audio.commit" });
}

$("log-clear").addEventListener("click", () => log.clear());
$("log-copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(log.asText());
  } catch (error) {
    toasts.show("copy", error.message);
  }
});

// --- what is heard ----------------------------------------------------------------------------------

sound.addEventListener("frame", ({ detail }) => session.sendAudio(detail, CAPTURE_RATE_HZ, settings.audioIn));
sound.addEventListener("level", ({ detail }) => { probe.micLevel = detail; });
sound.addEventListener("fault", ({ detail }) => toasts.show("playback", detail));
sound.addEventListener("started", ({ detail: { turn } }) => {
  if (askedAt !== null) latency.add(turn, { first_sound_in_page_ms: performance.now() - askedAt });
  askedAt = null;
  refresh();
});
sound.addEventListener("progress", ({ detail }) => {
  notePlayed(detail);
  if (performance.now() - toldProgressAt >= PROGRESS_EVERY_MS) tellProgress();
});
sound.addEventListener("drained", ({ detail }) => {
  notePlayed(detail);
  tellProgress();
  refresh();
});

function notePlayed(progress) {
  heard = progress;
  probe.notePlayed(progress);
  transcript.showPlayed(progress.turn, progress.playedMs);
}

function tellProgress() {
  toldProgressAt = performance.now();
  session.send({ type: "playback.progress", turn_id: heard.turn, played_ms: Math.round(heard.playedMs) });
}

setInterval(() => {
  $("mic-level").value = loudness(probe.micLevel);
  $("output-level").value = loudness(window.voiceTest.outputRms(LEVELS_EVERY_MS));
}, LEVELS_EVERY_MS);

function loudness(rms) {
  const decibels = 20 * Math.log10(rms);
  return Math.max(0, 1 - decibels / METER_FLOOR_DB);
}

// --- the page ---------------------------------------------------------------------------------------

function showState(state) {
  probe.state = state;
  diagram?.show(state);
  $("state").hidden = state === null;
  $("state").textContent = state;
  document.body.dataset.state = state ?? "";
  refresh();
}

function refresh() {
  const isOpen = session.status === "open";
  controls.refresh({ isOpen, state: probe.state });
  $("url").disabled = session.status !== "disconnected";
  $("connect").textContent = connectLabel();
  $("connect").classList.toggle("primary", session.status === "disconnected");
  if (!isOpen) $("apply").disabled = true;
}

function connectLabel() {
  if (session.status !== "disconnected") return "Disconnect";
  return probe.state === null || isLeaving ? "Connect" : "Reconnect";
}

window.voiceTest = probe.face();

document.addEventListener("securitypolicyviolation", ({ blockedURI }) => {
  toasts.show("blocked", `This page may only talk to the server it came from, not to ${blockedURI}.`);
});

if (window.matchMedia("(max-width: 720px)").matches) $("settings").open = false;

try {
  const response = await fetch(new URL("machine.json", import.meta.url));
  diagram = new Diagram($("diagram"), $("last-transition"), await response.json());
  diagram.show(probe.state);
} catch (error) {
  toasts.show("diagram", `The session machine cannot be drawn: ${error.message}.`);
}
