/** A token for the socket of a server that asks for a key: a page can put no header on a WebSocket. */

/**
 * @param {string} url the voice endpoint, .../v1/voice/ws
 * @param {string} key an API key of the server; empty where it asks for none
 * @returns {Promise<string>} the URL to connect to
 */
export async function withToken(url, key) {
  if (key === "") return url;
  const socket = new URL(url);
  const shop = new URL("../tokens", socket);
  shop.protocol = socket.protocol === "wss:" ? "https:" : "http:";
  const response = await fetch(shop, { method: "POST", headers: { "xi-api-key": key } });
  if (!response.ok) throw new Error((await response.json()).detail.message);
  socket.searchParams.set("token", (await response.json()).token);
  return socket.href;
}
