"use strict";
// One WebSocket: small JSON messages both ways, and a PNG after each status. See messages.py for what may be said.

const $ = (id) => document.getElementById(id);
const ARROWS = { forward_left: "↖", forward: "↑", forward_right: "↗", left: "←", noop: "•", right: "→" };
const DIRECTIONS = { KeyW: "forward", ArrowUp: "forward", KeyA: "left", ArrowLeft: "left", KeyD: "right", ArrowRight: "right",
                     KeyQ: "forward_left", KeyE: "forward_right" };

let socket = null, actions = [], status = null, layout = null, path = [], context = 0, scene = null;
let sent = -1, patience = 500;
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
  socket.onopen = () => { opened = true; patience = 500; sent = -1; scene = null; badge("live", true); };
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
  if (place) { layout = place.layout; path = place.path; context = path.length - place.generated; }
  if (news) {
    status = news;
    if (news.pose && scene === news.scene) path.push(news.pose.slice(0, 2));
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
  const arrows = actions.every((name) => name in ARROWS);
  const shown = arrows ? Object.keys(ARROWS).filter((name) => actions.includes(name)) : actions;
  $("pad").classList.toggle("plain", !arrows);
  $("pad").replaceChildren(...shown.map((name, place) => button(name, arrows ? ARROWS[name] : `${place + 1} ${name}`)));
  $("hint").innerHTML = arrows
    ? "<kbd>W</kbd> <kbd>A</kbd> <kbd>D</kbd> or the arrow keys, two at once to turn while walking"
    : "hold a button, or a number key";
}

function button(name, text) {
  const made = document.createElement("button");
  made.textContent = text;
  made.title = name;
  made.dataset.action = name;
  made.onpointerdown = (event) => { made.setPointerCapture(event.pointerId); hold(`pad ${name}`); };
  made.onpointerup = made.onpointercancel = () => release(`pad ${name}`);
  made.oncontextmenu = (event) => event.preventDefault();
  return made;
}

// What is held is one action: the latest button or number, else the directions of the keys together.
function wanted() {
  const held = [...pressed].reverse();
  for (const key of held) {
    if (key.startsWith("pad ")) return key.slice(4);
    const digit = /^Digit([1-9])$/.exec(key);
    if (digit && actions[digit[1] - 1]) return actions[digit[1] - 1];
  }
  const directions = held.map((key) => DIRECTIONS[key]).filter(Boolean);
  const turn = directions.find((name) => name === "left" || name === "right");
  if (turn && directions.includes("forward") && actions.includes(`forward_${turn}`)) return `forward_${turn}`;
  return directions.find((name) => actions.includes(name)) ?? "noop";
}

function hold(key) { pressed.add(key); steer(); }
function release(key) { if (pressed.delete(key)) steer(); }

function steer() {
  const name = wanted(), action = Math.max(0, actions.indexOf(name));
  for (const made of $("pad").children) made.classList.toggle("on", pressed.size > 0 && made.dataset.action === name);
  if (action !== sent) say({ do: "key", action, stamp: performance.now() });
  sent = action;
}

const typing = (target) => target.matches?.("#slot, input[type=number]");
addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (event.code in DIRECTIONS || event.code.startsWith("Digit")) { event.preventDefault(); hold(event.code); }
});
addEventListener("keyup", (event) => release(event.code));
addEventListener("blur", () => { pressed.clear(); steer(); });

function tell() {
  $("fps").textContent = status.fps.toFixed(1);
  $("milliseconds").textContent = status.milliseconds.toFixed(0);
  $("frames").textContent = status.frames.toLocaleString("en");
  $("state").textContent = status.state_bytes.toLocaleString("en");
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

// The maze from above, y upwards: the recorded context blue, the way generated orange.
function draw() {
  const canvas = $("map"), pen = canvas.getContext("2d");
  canvas.hidden = !status.pose;
  if (!status.pose) return;
  const size = layout ? layout.length : Math.ceil(Math.max(9, ...path.flat()));
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
  const [x, y, cos, sin] = status.pose;
  pen.save();
  pen.translate(x * cell, (size - y) * cell);
  pen.rotate(-Math.atan2(sin, cos));
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
