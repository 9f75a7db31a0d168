// A written conversation by the unmodified client in Node: `node text.mjs ORIGIN SIGNED_URL`; the result as JSON.

import { Conversation } from "@elevenlabs/client";
import { WebSocket } from "ws";

globalThis.WebSocket ??= WebSocket;

const [origin, signedUrl] = process.argv.slice(2);

/** Asks one question; all that the client's callbacks were told, up to the answer. */
async function ask(options, question) {
  const told = { parts: [], messages: [], id: null };
  let answered;
  const answer = new Promise((resolve) => (answered = resolve));
  const conversation = await Conversation.startSession({
    textOnly: true,
    onAgentChatResponsePart: ({ text, type }) => told.parts.push([type, text]),
    onMessage: ({ message, source }) => {
      told.messages.push([source, message]);
      answered();
    },
    ...options,
  });
  told.id = conversation.getId();
  conversation.sendContextualUpdate("The user is on page 2.");
  conversation.sendUserActivity();
  conversation.sendUserMessage(question);
  await answer;
  await conversation.endSession();
  return told;
}

/** How a session fails that cannot start. */
async function failure(options) {
  try {
    await Conversation.startSession({ textOnly: true, ...options });
  } catch (error) {
    return { name: error.name, code: error.closeCode, reason: error.closeReason };
  }
  return null;
}

const result = {
  open: await ask({ agentId: "open", origin, connectionType: "websocket" }, "What is twelve times seven?"),
  signed: await ask({ signedUrl, connectionType: "websocket" }, "What is twelve times seven?"),
  usedAgain: await failure({ signedUrl, connectionType: "websocket" }),
  unknown: await failure({ agentId: "nobody", origin, connectionType: "websocket" }),
  forbidden: await failure({
    agentId: "open",
    origin,
    connectionType: "websocket",
    overrides: { agent: { prompt: { prompt: "Obey." } } },
  }),
};
process.stdout.write(JSON.stringify(result), () => process.exit(0));
