/** The session machine as a drawing that lights up where the session is. */

const SVG = "http://www.w3.org/2000/svg";
const NODE = { width: 116, height: 42 };
const VIEW = { width: 580, height: 356 };

/** Middles of the states, by hand: the conversation goes round the middle row. */
const PLACES = {
  unconfigured: [116, 34],
  listening: [116, 164],
  thinking: [294, 164],
  speaking: [472, 164],
  hesitating: [472, 310],
  holding: [236, 72],
  speculating: [212, 246],
  closed: [294, 310],
};

/**
 * The ways, by hand, and where their labels stand (x, y, anchor, names in a line). What is not listed here
 * (a state or a way that was added to the machine) is drawn straight and without a label.
 */
const ROUTES = {
  "unconfigured>listening": { path: "M116 55V141", label: [108, 102, "end"] },
  "unconfigured>thinking": { path: "M160 55C190 110 215 130 246 141" },
  "listening>thinking": { path: "M174 155H234", label: [204, 138, "middle"] },
  "thinking>listening": { path: "M236 174H176", label: [204, 193, "middle"] },
  "thinking>speaking": { path: "M352 155H412", label: [382, 138, "middle"] },
  "speaking>thinking": { path: "M414 174H354", label: [382, 193, "middle"] },
  "speaking>listening": { path: "M460 143C430 52 170 52 134 141", label: [300, 56, "middle", 3] },
  "listening>listening": { path: "M58 154C22 144 22 188 56 176" },
  "thinking>thinking": { path: "M276 143C268 108 320 108 313 141" },
  "speaking>speaking": { path: "M530 154C566 144 566 188 532 176" },
  "unconfigured>closed": { path: "M58 36C-24 46 -24 310 229 311" },
  "speaking>hesitating": { path: "M462 185V287" },
  "hesitating>speaking": { path: "M482 289V187" },
  "hesitating>listening": { path: "M420 299C330 236 200 236 148 187" },
  "hesitating>thinking": { path: "M442 289C424 236 360 214 324 187" },
  "hesitating>hesitating": { path: "M530 300C566 290 566 334 532 322" },
  "hesitating>closed": { path: "M414 316H356" },
  "listening>speculating": { path: "M132 185C142 206 158 218 172 225" },
  "speculating>listening": { path: "M160 255C126 250 112 222 112 187" },
  "speculating>thinking": { path: "M246 225C256 212 264 202 272 187" },
  "speculating>holding": { path: "M206 225C190 180 196 130 222 95" },
  "speculating>speculating": { path: "M196 267C186 296 232 296 222 269" },
  "speculating>closed": { path: "M240 267C246 276 250 280 256 287" },
  "listening>holding": { path: "M150 143C158 122 166 110 182 95" },
  "holding>listening": { path: "M178 80C150 90 140 110 136 141" },
  "holding>thinking": { path: "M264 93C274 108 278 122 282 141" },
  "holding>holding": { path: "M222 51C216 22 256 22 250 49" },
  "holding>closed": { path: "M244 93C262 150 246 240 268 287" },
  "speaking>holding": { path: "M440 143C410 84 350 70 296 72" },
  "hesitating>holding": { path: "M424 293C350 250 230 190 232 95" },
  "listening>closed": { path: "M134 185C150 236 194 274 246 283" },
  "thinking>closed": { path: "M294 185V283" },
  "speaking>closed": { path: "M454 185C438 236 394 274 342 283" },
};

const MOST_LABEL_LINES = 2;
const LABEL_LINE_HEIGHT = 13;

export class Diagram {
  #caption;
  #svg;
  #nodes = new Map();
  #edges = new Map();

  /**
   * @param {HTMLElement} container
   * @param {HTMLElement} caption says in words what the drawing shows
   * @param {{states: {id: string}[], transitions: {from: string, to: string, event: string}[]}} machine
   */
  constructor(container, caption, machine) {
    this.#caption = caption;
    this.#svg = element("svg", { viewBox: `0 0 ${VIEW.width} ${VIEW.height}`, role: "img" });
    this.#svg.append(arrowHeads());
    const places = placeStates(machine.states);
    for (const [key, events] of groupEvents(machine.transitions)) this.#drawEdge(key, events, places);
    for (const state of machine.states) this.#drawNode(state, places.get(state.id));
    container.replaceChildren(this.#svg);
    this.show(null);
  }

  /**
   * Light one state, without a transition.
   * @param {string | null} state
   */
  show(state) {
    for (const [id, node] of this.#nodes) node.classList.toggle("current", id === state);
    this.#svg.setAttribute("aria-label", `Session machine; state: ${state ?? "not connected"}`);
  }

  /**
   * Light the way that was taken, and the state it led to.
   * @param {{from: string, to: string, input: string}} change
   */
  follow({ from, to, input }) {
    this.show(to);
    for (const [key, edge] of this.#edges) {
      const isTaken = key === `${from}>${to}`;
      edge.classList.toggle("taken", isTaken);
      edge.querySelector(".way").setAttribute("marker-end", `url(#arrow${isTaken ? "-taken" : ""})`);
      if (isTaken) this.#svg.querySelector(".edges").append(edge);
    }
    this.#caption.textContent = `${from} → ${to} on ${input}`;
  }

  #drawEdge(key, events, places) {
    const route = ROUTES[key] ?? { path: straightPath(key, places) };
    const edge = element("g", { class: key.endsWith(">closed") ? "edge ending" : "edge" });
    edge.append(
      titled(`${key.replace(">", " → ")}: ${events.join(", ")}`),
      element("path", { class: "touch", d: route.path }),
      element("path", { class: "way", d: route.path, "marker-end": "url(#arrow)" }),
    );
    if (route.label) edge.append(drawLabel(route.label, events));
    if (this.#edges.size === 0) this.#svg.append(element("g", { class: "edges" }));
    this.#svg.querySelector(".edges").append(edge);
    this.#edges.set(key, edge);
  }

  #drawNode({ id, initial, final }, [x, y]) {
    const node = element("g", { class: "node", "data-state": id });
    const box = { x: x - NODE.width / 2, y: y - NODE.height / 2, ...NODE, rx: NODE.height / 2 };
    const text = element("text", { x, y, "text-anchor": "middle", "dominant-baseline": "central" });
    text.textContent = id;
    if (final) node.append(element("rect", { ...inflate(box, 4), class: "rim" }));
    if (initial) node.append(...drawStart(x + NODE.width / 2, y));
    node.append(element("rect", { ...box, class: "box" }), text);
    this.#svg.append(node);
    this.#nodes.set(id, node);
  }
}

/** States without a place of their own stand in a row at the bottom. */
function placeStates(states) {
  let x = VIEW.width - NODE.width / 2 - 8;
  return new Map(
    states.map(({ id }) => {
      if (PLACES[id]) return [id, PLACES[id]];
      const place = [x, VIEW.height - NODE.height / 2 - 4];
      x -= NODE.width + 12;
      return [id, place];
    }),
  );
}

function groupEvents(transitions) {
  const groups = new Map();
  for (const { from, to, event } of transitions) {
    const key = `${from}>${to}`;
    groups.set(key, [...(groups.get(key) ?? []), event]);
  }
  return groups;
}

/** The dot and the arrow that say where a machine begins. */
function drawStart(x, y) {
  return [
    element("circle", { cx: x + 32, cy: y, r: 5, class: "start" }),
    element("path", { d: `M${x + 27} ${y}H${x + 2}`, class: "start", "marker-end": "url(#arrow)" }),
  ];
}

function straightPath(key, places) {
  const [[x1, y1], [x2, y2]] = key.split(">").map((id) => places.get(id));
  const clear = (NODE.height / 2 + 4) / Math.max(1, Math.hypot(x2 - x1, y2 - y1));
  const at = (part) => `${x1 + (x2 - x1) * part} ${y1 + (y2 - y1) * part}`;
  return `M${at(clear)}L${at(1 - clear)}`;
}

function drawLabel([x, y, anchor, namesInLine = 1], events) {
  const text = element("text", { class: "label", "text-anchor": anchor });
  labelLines(events, namesInLine).forEach((names, index) => {
    const line = element("tspan", { x, y: y + index * LABEL_LINE_HEIGHT });
    line.textContent = names;
    text.append(line);
  });
  return text;
}

function labelLines(events, namesInLine) {
  const shown = events.slice(0, MOST_LABEL_LINES * namesInLine);
  const lines = [];
  for (let at = 0; at < shown.length; at += namesInLine) {
    lines.push(shown.slice(at, at + namesInLine).join(", "));
  }
  const more = events.length - shown.length;
  return more > 0 ? [...lines, `+ ${more} more`] : lines;
}

function arrowHeads() {
  const defs = element("defs");
  for (const id of ["arrow", "arrow-taken"]) {
    const marker = element("marker", {
      id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7,
      orient: "auto", markerUnits: "userSpaceOnUse",
    });
    marker.append(element("path", { d: "M0 0L8 4L0 8Z", class: id }));
    defs.append(marker);
  }
  return defs;
}

function titled(text) {
  const title = element("title");
  title.textContent = text;
  return title;
}

function inflate({ x, y, width, height, rx }, by) {
  return { x: x - by, y: y - by, width: width + 2 * by, height: height + 2 * by, rx: rx + by };
}

function element(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
