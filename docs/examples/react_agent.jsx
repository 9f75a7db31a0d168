// A page on which the user types and the agent speaks, with ElevenLabs' own package for React.
//
// The browser needs a signed URL, which your server gets with its key and hands on:
// GET /v1/convai/conversation/get-signed-url?agent_id=... (docs/agents.md).

import { ConversationProvider, useConversation } from "@elevenlabs/react";
import { useState } from "react";

async function fetchSignedUrl() {
  const answer = await fetch("/signed-url");
  if (!answer.ok) throw new Error(`no signed URL: ${answer.status}`);
  return (await answer.json()).signed_url;
}

function Chat() {
  const [lines, setLines] = useState([]);
  const [text, setText] = useState("");
  const add = (line) => setLines((before) => [...before, line]);

  const conversation = useConversation({
    onMessage: ({ message, source }) => add(`${source}: ${message}`),
    // The agent was interrupted: this is what the user has heard of it.
    onAgentResponseCorrection: ({ corrected_agent_response: heard }) => add(`heard: ${heard}`),
    onError: (message) => add(`error: ${message}`),
  });

  const begin = async () =>
    conversation.startSession({ signedUrl: await fetchSignedUrl(), connectionType: "websocket" });

  const send = (event) => {
    event.preventDefault();
    conversation.sendUserMessage(text); // interrupts the agent, if it is speaking
    add(`user: ${text}`);
    setText("");
  };

  const typing = (event) => {
    setText(event.target.value);
    conversation.sendUserActivity(); // the agent is not to grow impatient
  };

  if (conversation.status !== "connected") return <button onClick={begin}>Talk</button>;
  return (
    <form onSubmit={send}>
      <ul>
        {lines.map((line, index) => (
          <li key={index}>{line}</li>
        ))}
      </ul>
      <p role="status">{conversation.isSpeaking ? "The agent speaks." : "The agent listens."}</p>
      <input aria-label="Message" value={text} onChange={typing} />
      <button>Send</button>
      <button type="button" onClick={() => conversation.endSession()}>
        End
      </button>
    </form>
  );
}

export function App() {
  // The microphone is asked for, but stays muted: this user types.
  return (
    <ConversationProvider isMuted onMutedChange={() => {}}>
      <Chat />
    </ConversationProvider>
  );
}
