/** The settings' form as `session.configure`. */

import { CAPTURE_RATE_HZ } from "./capture.js";

const EVENTS = ["state", "text.delta", "metrics", "alignment"];

/**
 * @typedef {object} Settings
 * @property {"binary" | "json"} audioIn how microphone audio is sent
 * @property {object} configure the message
 */

/**
 * Read the form. A field left empty is left out: the server's settings hold.
 * @param {HTMLFormElement} form
 * @param {string | null} resumeToken
 * @returns {Settings}
 */
export function readSettings(form, resumeToken) {
  const fields = Object.fromEntries(
    [...new FormData(form)].map(([name, value]) => [name, value.trim() || undefined]),
  );
  return {
    audioIn: fields.audio_in,
    configure: {
      type: "session.configure",
      audio_out: fields.audio_out,
      events: EVENTS,
      backend: fields.registration_id && { registration_id: fields.registration_id },
      stt: {
        sample_rate: CAPTURE_RATE_HZ,
        audio_format: `pcm_${CAPTURE_RATE_HZ}`,
        commit_strategy: fields.commit_strategy,
        language_code: fields.language_code,
      },
      tts: {
        output_format: fields.output_format,
        voice_id: fields.voice_id,
        voice_settings: fields.speed && { speed: Number(fields.speed) },
      },
      turn: { barge_in: fields.barge_in, pausable: true },
      resume: resumeToken ?? undefined,
    },
  };
}
