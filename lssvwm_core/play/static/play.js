"use strict";
// One WebSocket: small JSON messages both ways, and a PNG after each status. See messages.py for what may be said.

const $ = (id) => document.getElementById(id);
const SIGNS = { ArrowUp: "↑", ArrowLeft: "←", ArrowDown: "↓", ArrowRight: "→" };
const KEYBOARD = ["qwertyuiop", "asdfghjkl", "zxcvbnm"]; // where buttons lie, if actions have such keys
const LONGEST_PATH = 5000;

let socket = null, actions = [], keys = {}, status = null, layout = null, path = [], context = 0, scene = null;
let sent = null, patience = 500;
const pressed = new Set();

function say(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function connect() {
  const address = new URL("ws" + location.search, location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  let opened = false;
  socket = new WebSocket(address);
  socket.binaryType = "blob";
  socket.onopen = () => { opened = true; patience = 500; sent = null; scene = null; badge("live", true); };
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : show(data));
  socket.onclose = async ({ reason }) => {
    badge(reason || "reconnecting…", false);
    if (!opened) await explain();
    setTimeout(connect, patience);
    patience = Math.min(2 * patience, 8000);
  };
}

// A browser does not tell a refused WebSocket from a lost one; the server does, if it can be reached.
async function explain() {
  const query = new URLSearchParams(location.search);
  query.set("page", location.origin + location.pathname);
  try {
    const { reason } = await (await fetch(`refused?${query}`)).json();
    badge(reason ? "refused" : "no WebSocket", false);
    $("notice").textContent = reason ??
      "The page gets through to lssvwm play, but its WebSocket does not. A proxy between them has to let WebSockets pass (nginx: proxy_http_version 1.1, and the headers Upgrade and Connection).";
  } catch { /* nobody there, or a proxy that says so */ }
}

function badge(text, live) {
  $("link").textContent = text;
  $("link").classList.toggle("live", live);
}

function hear({ hello, scene: place, status: news }) {
  if (hello) greet(hello);
  if (place) { layout = place.layout; path = place.path; context = place.recorded; }
  if (news) {
    status = news;
    if (news.spot && scene === news.scene) path.push(news.spot.slice(0, 2));
    if (path.length > LONGEST_PATH) { path.shift(); context = Math.max(0, context - 1); }
    scene = news.scene;
    tell();
  }
}

async function show(blob) {
  const answers = status.answers;
  const picture = await createImageBitmap(blob);
  $("picture").getContext("2d").drawImage(picture, 0, 0);
  $("picture").dataset.frames = status.frames;
  if (answers !== null) $("latency").textContent = Math.round(performance.now() - answers);
  say({ do: "seen" });
}

function greet(hello) {
  actions = hello.actions;
  $("title").textContent = hello.title;
  $("picture").width = hello.width;
  $("picture").height = hello.height;
  $("episode").max = hello.episodes - 1;
  $("start").step = hello.context;
  keys = hello.keys;
  const places = actions.map((_, action) => place(action));
  const columns = [...new Set(places.filter(Boolean).map((where) => where.column))].sort((one, other) => one - other);
  $("pad").classList.toggle("plain", !columns.length);
  $("pad").style.setProperty("--columns", columns.length);
  $("pad").replaceChildren(...actions.map((_, action) => button(action, places[action], columns)));
}

const keysOf = (action) => Object.keys(keys).filter((key) => keys[key] === action);

// Row and column of an action's key on a keyboard.
function place(action) {
  for (const key of keysOf(action)) {
    const row = KEYBOARD.findIndex((letters) => letters.includes(key));
    if (row >= 0) return { row, column: KEYBOARD[row].indexOf(key) };
  }
  return null;
}

// Columns in which no key lies are left out; an action without a place takes a free one.
function button(action, where, columns) {
  const made = document.createElement("button"), name = document.createElement("small");
  name.textContent = actions[action].replaceAll("_", " ");
  made.append(keysOf(action).map((key) => SIGNS[key] ?? key.toUpperCase()).join(" "), name);
  made.dataset.action = actions[action];
  if (where) { made.style.gridRow = where.row + 1; made.style.gridColumn = columns.indexOf(where.column) + 1; }
  made.onpointerdown = (event) => { made.setPointerCapture(event.pointerId); hold(`pad ${action}`); };
  made.onpointerup = made.onpointercancel = () => release(`pad ${action}`);
  made.oncontextmenu = (event) => event.preventDefault();
  return made;
}

// The names that environments give to keys: letters, digits, arrows; by their place, whatever the layout of the keyboard.
const keyName = (code) => /^(?:Key|Digit)(.)$/.exec(code)?.[1].toLowerCase() ?? code;

// What is held is one action: that of the latest button, else of two keys whose actions have one together ("a" and "b":
// "a_b"), else of the latest key.
function wanted() {
  const held = [...pressed].reverse();
  const shown = held.find((key) => key.startsWith("pad "));
  if (shown) return Number(shown.slice(4));
  const names = held.map((key) => actions[keys[key]]);
  const both = names.flatMap((one) => names.map((other) => actions.indexOf(`${one}_${other}`))).find((action) => action >= 0);
  return both ?? (held.length ? keys[held[0]] : null);
}

function hold(key) { pressed.add(key); steer(); }
function release(key) { if (pressed.delete(key)) steer(); }

function steer() {
  const action = wanted();
  for (const made of $("pad").children) made.classList.toggle("on", made.dataset.action === actions[action]);
  if (action !== sent) say({ do: "key", action, stamp: performance.now() });
  sent = action;
}

const typing = (target) => target.matches?.("#slot, input[type=number]");
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const key = keyName(event.code);
  if (key in keys) { event.preventDefault(); hold(key); }
});
addEventListener("keyup", (event) => release(keyName(event.code)));
addEventListener("blur", () => { pressed.clear(); steer(); });

function tell() {
  $("fps").textContent = status.fps.toFixed(1);
  $("milliseconds").textContent = status.milliseconds.toFixed(0);
  $("frames").textContent = status.frames.toLocaleString("en");
  $("state").textContent = status.state_bytes.toLocaleString("en");
  $("certainty").textContent = status.certainty === null ? "–" : `${Math.round(100 * status.certainty)} %`;
  $("viewers").textContent = status.viewers;
  $("notice").textContent = status.notice;
  $("flags").textContent = [status.cut_memory && "memory cut", status.actions_only && "no poses", status.recording && "● rec"]
    .filter(Boolean).join(" · ");
  for (const name of ["cut_memory", "actions_only"]) $(name).checked = status[name];
  for (const name of ["steps", "seed"]) if (document.activeElement !== $(name)) $(name).value = status[name];
  $("steps-shown").textContent = document.activeElement === $("steps") ? $("steps").value : status.steps;
  $("record").classList.toggle("on", status.recording);
  $("record").lastElementChild.textContent = status.recording ? "Stop recording" : "Record an MP4";
  const listed = [...$("slots").children].map((made) => made.textContent);
  if (listed.join() !== status.slots.join()) $("slots").replaceChildren(...status.slots.map(slot));
  draw();
}

function slot(name) {
  const made = document.createElement("button");
  made.textContent = name;
  made.title = `go back to ${name}`;
  made.onclick = () => { $("slot").value = name; say({ do: "load", slot: name }); };
  return made;
}

// The place from above, y upwards: the way recorded blue, the way since orange.
function draw() {
  const canvas = $("map"), pen = canvas.getContext("2d");
  canvas.hidden = !status.spot;
  if (!status.spot) return;
  const size = layout ? layout.length : Math.ceil(path.reduce((most, [x, y]) => Math.max(most, x, y), 9));
  const cell = canvas.width / size;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = getComputedStyle(canvas).getPropertyValue("color");
  layout?.forEach((row, y) => row.forEach((free, x) => { if (!free) pen.fillRect(x * cell, (size - 1 - y) * cell, cell + .5, cell + .5); }));
  const line = (points, ink) => {
    pen.beginPath();
    points.forEach(([x, y]) => pen.lineTo(x * cell, (size - y) * cell));
    pen.strokeStyle = ink; pen.lineWidth = 7; pen.lineJoin = "round"; pen.stroke();
  };
  line(path.slice(0, context), "#4a82dc");
  line(path.slice(Math.max(0, context - 1)), "#f08a24");
  const [x, y, heading] = status.spot;
  pen.save();
  pen.translate(x * cell, (size - y) * cell);
  pen.rotate(-heading);
  pen.beginPath(); pen.moveTo(26, 0); pen.lineTo(-15, 17); pen.lineTo(-8, 0); pen.lineTo(-15, -17); pen.closePath();
  pen.fillStyle = "#d92b2b"; pen.fill(); pen.strokeStyle = "#fff"; pen.lineWidth = 3; pen.stroke();
  pen.restore();
}

for (const name of ["cut_memory", "actions_only"]) $(name).onchange = () => say({ do: "set", name, value: $(name).checked });
for (const name of ["steps", "seed"]) $(name).onchange = () => { say({ do: "set", name, value: Number($(name).value) }); $(name).blur(); };
$("steps").oninput = () => { $("steps-shown").textContent = $("steps").value; };
$("record").onclick = () => say({ do: "set", name: "record", value: !status?.recording });
$("restart").onclick = () => say({ do: "restart", episode: Number($("episode").value), frame: Number($("start").value) });
for (const made of document.querySelectorAll("[data-slot]"))
  made.onclick = () => { if ($("slot").value && $("slot").checkValidity()) say({ do: made.dataset.slot, slot: $("slot").value }); else $("slot").focus(); };

connect();
