// A Speech Engine server made with ElevenLabs' own package: tells a story, slowly, and reports what it saw.
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { ElevenLabsClient } from "@elevenlabs/elevenlabs-js";

const report = (kind, value) => console.log(JSON.stringify([kind, value ?? null]));
const server = http.createServer();

async function* story(question, signal) {
  yield `You said ${question}. `;
  await sleep(200);
  if (signal.aborted) {
    report("aborted", question);
    return;
  }
  yield "That is all.";
}

new ElevenLabsClient({ apiKey: process.argv[2] }).speechEngine.attach("seng_1", server, "/ws", {
  onInit: (conversationId) => report("init", conversationId),
  onTranscript: (transcript, signal, session) => {
    report("transcript", transcript.map(({ role, content }) => [role, content]));
    return session.sendResponse(story(transcript.at(-1).content, signal));
  },
  onClose: () => report("close"),
  onError: (error) => report("error", String(error)),
});

server.listen(0, "127.0.0.1", () => report("port", server.address().port));
