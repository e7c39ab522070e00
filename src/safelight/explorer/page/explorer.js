// A walk through the latent space of one decoder. State is one latent vector z and a class; every
// control changes them, and once a frame, if they have changed, the decoder makes the picture.
"use strict";

const files = self.explorerFiles ?? {};
const byId = (id) => document.getElementById(id);
const STEPS = 9, DRAWN = 28, NEAR = 14; // pictures on a way, samples shown, pixels around a point

// ---- what the scripts beside this page hold

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackArray(packed) {
  if (!packed) return null;
  const { buffer } = await unpack(packed.data);
  const values = packed.type === "float32" ? new Float32Array(buffer) : new Uint16Array(buffer);
  const [length, width] = packed.shape;
  if (width === undefined) return values;
  return Array.from({ length }, (_, i) => values.subarray(i * width, (i + 1) * width));
}

function loadPicture(address) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error("the thumbnails cannot be read"));
    image.src = address;
  });
}

function loadScript(address) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    script.onload = done;
    script.onerror = () => failed(new Error(`${address} is missing`));
    script.src = address;
    document.body.append(script);
  });
}

// From a server the decoder is read as it is; a page that was opened from a disk may only load scripts.
async function readDecoder() {
  if (location.protocol.startsWith("http") && !files["decoder.onnx"]) {
    const answer = await fetch("decoder.onnx");
    if (!answer.ok) throw new Error(`decoder.onnx cannot be had (${answer.status})`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  if (!files["decoder.onnx"]) await loadScript("decoder.js");
  if (files["decoder.onnx"]) return unpack(files["decoder.onnx"]);
  throw new Error("this decoder is too large for a page opened from a disk: run " +
    "“python -m http.server” in this folder and open the address that it names");
}

async function startRuntime() {
  const code = new Blob([await unpack(files["runtime.mjs"])], { type: "text/javascript" });
  const address = URL.createObjectURL(code);
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1; // more would need headers that simple servers do not send
  ort.env.wasm.wasmBinary = (await unpack(files["runtime.wasm"])).buffer;
  return ort;
}

// ---- one decoder, and what is known of it

let known, runtime, session; // data.js, ONNX Runtime, and the decoder in it
let height, width, channels, units;
let points = null; // training pictures: means, labels, sheet
let axes = []; // what the plane's sides can be
const state = { z: null, label: 0, chosen: -1, ends: [null, null], shown: new Set(), lasso: false };

async function start() {
  if (!files.data) throw new Error("data.js is missing");
  if (!("DecompressionStream" in self) || !("WebAssembly" in self)) {
    throw new Error("this browser is too old; any browser from 2023 on will do");
  }
  known = files.data;
  [height, width, channels] = known.image_shape;
  units = known.order.length;
  const [ranges, draws] = await Promise.all([known.ranges, known.draws].map(unpackArray));
  Object.assign(known, { low: ranges[0], rest: ranges[1], high: ranges[2], draws });
  if (known.points) points = await readPoints(known.points);
  axes = listAxes();
  runtime = await startRuntime();
  session = await runtime.InferenceSession.create(await readDecoder(), { executionProviders: ["wasm"] });
}

async function readPoints(packed) {
  const means = await unpackArray(packed.means);
  const labels = await unpackArray(packed.labels);
  const sheet = await loadPicture(packed.thumbnails.data);
  const directions = await Promise.all(packed.directions.map(async ({ name, axis, middle }) => ({
    name, direction: await unpackArray(axis), middle: await unpackArray(middle),
  })));
  return { ...packed.thumbnails, means, labels, sheet, directions };
}

// Nats that a unit of an autoencoder holds; for a GAN, how far a step of it moves a picture.
const worthOf = (unit) => known.kl ? `${known.kl[unit].toFixed(2)} nats` : `${known.change[unit].toFixed(1)} levels`;

// Each axis is a direction of length one and a place where its numbers begin.
function listAxes() {
  const middle = new Float32Array(units);
  return [...(points?.directions ?? []), ...known.order.map((unit) => {
    const direction = new Float32Array(units);
    direction[unit] = 1;
    return { name: `unit ${unit} (${worthOf(unit)})`, direction, middle, unit };
  })];
}

// Expected pictures, `rows.length * height * width * channels` numbers from 0 to 1.
async function decode(rows, label = state.label) {
  const { Tensor } = runtime, number = rows.length;
  const z = new Float32Array(number * units);
  rows.forEach((row, i) => z.set(row, i * units));
  const feeds = { z: new Tensor("float32", z, [number, units]) };
  if (known.conditional) {
    const classes = known.class_names.length, told = new Float32Array(number * classes);
    for (let i = 0; i < number; i++) told[i * classes + label] = 1;
    feeds.labels = new Tensor("float32", told, [number, classes]);
  }
  const { picture } = await session.run(feeds);
  return picture.data;
}

function paint(canvas, values, offset = 0) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = Math.round(255 * values[offset + i * channels + (channels === 3 ? c : 0)]);
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function paintThumbnail(canvas, i) {
  canvas.width = points.width;
  canvas.height = points.height;
  const left = (i % points.columns) * points.width, top = Math.floor(i / points.columns) * points.height;
  canvas.getContext("2d").drawImage(
    points.sheet, left, top, points.width, points.height, 0, 0, points.width, points.height);
}

// ---- going somewhere

let due = false, last = null, slidersAt = 0, later = 0;

function go(z, { chosen = -1, label = state.label } = {}) {
  state.z = Float32Array.from(z);
  state.chosen = chosen;
  state.label = label;
  refresh();
}

function refresh() {
  if (!due) requestAnimationFrame(draw);
  due = true;
}

async function draw() {
  const { z, label } = state;
  try {
    drawOver();
    last = await decode([z], label);
    paint(byId("picture"), last);
    showPlace();
  } catch (error) {
    complain(error);
  }
  due = false;
  if (z !== state.z || label !== state.label) refresh(); // it went on meanwhile
}

function showPlace() {
  byId("class").value = state.label;
  byId("chosen").hidden = state.chosen < 0;
  if (state.chosen >= 0) {
    paintThumbnail(byId("original"), state.chosen);
    byId("chosen-words").textContent = `Training picture${nameOf(state.chosen, ", ")}`;
  }
  // Laying out all sliders takes longer than decoding: ten times a second are enough for them.
  clearTimeout(later);
  if (performance.now() - slidersAt > 100) showUnits();
  else later = setTimeout(showUnits, 100);
}

function showUnits() {
  slidersAt = performance.now();
  for (const { input, output, unit } of sliders) {
    if (Number(input.value) !== state.z[unit]) input.value = state.z[unit];
    output.value = signed(state.z[unit]);
  }
}

const signed = (x) => (Math.abs(x) < 0.005 ? 0 : x).toFixed(2).replace("-", "−");
const nameOf = (i, before = "") => (points.labels ? before + known.class_names[points.labels[i]] : "");

function say(text) {
  byId("status").textContent = text;
  byId("status").className = "";
}

function complain(error) {
  byId("status").textContent = `The explorer cannot go on: ${error.message}.`;
  byId("status").className = "wrong";
}

const noneShown = () => say("No picture is shown.");

function take(i) {
  if (i < 0) return noneShown();
  const before = state.label;
  const label = known.conditional && points.labels ? points.labels[i] : state.label;
  go(points.means[i], { chosen: i, label });
  if (label !== before) showLabel();
  return undefined;
}

// A class chosen is what all other pictures of the page are decoded with, too.
function showLabel() {
  showWay();
  showSamples();
}

function takeMean(chosen) {
  if (!chosen.length) return noneShown();
  const mean = new Float64Array(units);
  for (const i of chosen) points.means[i].forEach((x, unit) => { mean[unit] += x / chosen.length; });
  go(mean);
  return say(`Mean of ${chosen.length} pictures${countClasses(chosen)}.`);
}

function countClasses(chosen) {
  if (!points.labels) return "";
  const counts = new Map();
  for (const i of chosen) counts.set(points.labels[i], (counts.get(points.labels[i]) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  const words = most.slice(0, 4).map(([label, number]) => `${known.class_names[label]}: ${number}`);
  return ` (${words.join(", ")}${most.length > 4 ? ", …" : ""})`;
}

function drawNormal() {
  const turn = 2 * Math.PI * Math.random();
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(turn);
}

function drawPrior() {
  if (known.draws) return known.draws[Math.floor(known.draws.length * Math.random())];
  return Float32Array.from({ length: units }, drawNormal);
}

// ---- the plane

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const plane = { x: null, y: null, low: [0, 0], high: [1, 1], places: [], size: 0 };

function place(axis, z) {
  let sum = 0;
  for (let i = 0; i < units; i++) sum += (z[i] - axis.middle[i]) * axis.direction[i];
  return sum;
}

function setAxes(x, y) {
  Object.assign(plane, { x: axes[x], y: axes[y] });
  const both = [plane.x, plane.y];
  plane.places = points ? points.means.map((z) => both.map((axis) => place(axis, z))) : [];
  for (const side of [0, 1]) {
    const axis = both[side], values = plane.places.map((p) => p[side]);
    if (axis.unit !== undefined) values.push(known.low[axis.unit], known.high[axis.unit]);
    const low = Math.min(...values), high = Math.max(...values), margin = 0.04 * (high - low) || 1;
    plane.low[side] = low - margin;
    plane.high[side] = high + margin;
  }
  drawMap();
  drawOver();
}

const toPixels = ([x, y]) => [
  plane.size * (x - plane.low[0]) / (plane.high[0] - plane.low[0]),
  plane.size * (plane.high[1] - y) / (plane.high[1] - plane.low[1]),
];
const toPlane = ([left, top]) => [
  plane.low[0] + left / plane.size * (plane.high[0] - plane.low[0]),
  plane.high[1] - top / plane.size * (plane.high[1] - plane.low[1]),
];

// Moves within the plane alone: what z is across it stays. Two axes need not be at right angles.
function moveTo([x, y]) {
  const z = Float64Array.from(state.z), both = [plane.x, plane.y];
  const [right, up] = [x - place(plane.x, z), y - place(plane.y, z)];
  const slant = dot(plane.x.direction, plane.y.direction), rest = 1 - slant ** 2;
  const steps = rest < 1e-3 ? [right, 0] : [(right - slant * up) / rest, (up - slant * right) / rest];
  both.forEach(({ direction }, k) => direction.forEach((d, i) => { z[i] += steps[k] * d; }));
  go(z);
}

// Petroff's ten colours, for any colour vision. Each has a shape, near colours different ones; in each
// further ten all have others.
const COLOURS = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70",
  "#717581", "#92dadd"];
const SHAPES = [
  (c, x, y, r) => c.arc(x, y, r, 0, 7),
  (c, x, y, r) => c.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r),
  (c, x, y, r) => polygon(c, x, y, 1.2 * r, 3, -0.25),
  (c, x, y, r) => polygon(c, x, y, 1.2 * r, 4, -0.25),
  (c, x, y, r) => polygon(c, x, y, 1.2 * r, 3, 0.25),
];

const FORMS = [0, 1, 2, 3, 4, 0, 3, 2, 1, 4]; // by colour

function polygon(context, x, y, radius, corners, turn) {
  for (let i = 0; i < corners; i++) {
    const angle = 2 * Math.PI * (turn + i / corners);
    context[i ? "lineTo" : "moveTo"](x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
}

function mark(context, label, x, y, radius) {
  context.beginPath();
  const ten = Math.floor(label / COLOURS.length), colour = label % COLOURS.length;
  SHAPES[(FORMS[colour] + ten) % SHAPES.length](context, x, y, radius);
  context.fillStyle = COLOURS[colour];
  context.fill();
}

const colours = new Map(); // of the style sheet; asked for once, since asking lays the page out

function colourOf(name) {
  if (!colours.has(name)) {
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  }
  return colours.get(name);
}

function prepare(canvas) {
  const scale = devicePixelRatio || 1, size = Math.round(plane.size * scale);
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, plane.size, plane.size);
  return context;
}

const isShown = (i) => !points.labels || state.shown.has(points.labels[i]);
const shownPoints = () => plane.places.map((_, i) => i).filter(isShown);

function drawMap() {
  plane.size = byId("map-frame").clientWidth;
  if (!plane.size) return;
  const context = prepare(byId("map"));
  drawTicks(context);
  const radius = plane.places.length > 600 ? 3 : 4.5;
  context.globalAlpha = 0.8;
  for (const i of shownPoints()) mark(context, points.labels?.[i] ?? 0, ...toPixels(plane.places[i]), radius);
  context.globalAlpha = 1;
  // A model that is told the class spreads all of them alike: their middles would say nothing.
  if (points?.labels && !known.conditional && known.class_names.length <= 20) nameClasses(context);
}

function drawTicks(context) {
  Object.assign(context, { fillStyle: colourOf("--soft"), strokeStyle: colourOf("--line"), lineWidth: 1,
    font: "11px system-ui" });
  for (const side of [0, 1]) {
    const span = plane.high[side] - plane.low[side], step = span > 6 ? 2 : span > 3 ? 1 : span / 4;
    for (let k = Math.ceil(plane.low[side] / step); k * step < plane.high[side]; k++) {
      const at = toPixels(side ? [0, k * step] : [k * step, 0])[side];
      context.beginPath();
      context.moveTo(...(side ? [0, at] : [at, 0]));
      context.lineTo(...(side ? [plane.size, at] : [at, plane.size]));
      context.stroke();
      const text = Number.isInteger(step) ? signed(k * step).slice(0, -3) : signed(k * step);
      context.fillText(text, ...(side ? [3, at - 3] : [at + 3, plane.size - 4]));
    }
  }
}

function nameClasses(context) {
  const middles = known.class_names.map(() => [0, 0, 0]);
  for (const i of shownPoints()) {
    const sums = middles[points.labels[i]], [x, y] = toPixels(plane.places[i]);
    sums[0] += x, sums[1] += y, sums[2] += 1;
  }
  Object.assign(context, { font: "600 15px system-ui", textAlign: "center", textBaseline: "middle",
    lineWidth: 5, lineJoin: "round", strokeStyle: colourOf("--card"), fillStyle: colourOf("--ink") });
  const taken = [];
  middles.forEach(([x, y, number], label) => {
    const at = [x / number, y / number], name = known.class_names[label].slice(0, 18);
    const far = context.measureText(name).width;
    if (!number || taken.some((t) => Math.abs(t[0] - at[0]) < far && Math.abs(t[1] - at[1]) < 15)) return;
    taken.push(at); // names on top of each other could not be read; the legend has them all
    context.strokeText(name, ...at);
    context.fillText(name, ...at);
  });
  Object.assign(context, { textAlign: "start", textBaseline: "alphabetic" });
}

let trace = null; // of the lasso, in pixels

function drawOver() {
  if (!plane.size || !state.z) return;
  const context = prepare(byId("over"));
  Object.assign(context, { strokeStyle: colourOf("--ink"), fillStyle: colourOf("--ink"), lineWidth: 1.5 });
  const [a, b] = state.ends.map((end) => end && toPixels([place(plane.x, end), place(plane.y, end)]));
  if (a && b) line(context, [a, b], [5, 4]);
  [a, b].forEach((end, i) => end && drawEnd(context, "AB"[i], end));
  if (trace) line(context, [...trace, trace[0]], []);
  const here = toPixels([place(plane.x, state.z), place(plane.y, state.z)]);
  for (const [radius, colour, thick] of [[9, "--card", 5], [9, "--ink", 2]]) {
    context.beginPath();
    context.arc(...here, radius, 0, 7);
    context.moveTo(here[0] - 4, here[1]), context.lineTo(here[0] + 4, here[1]);
    context.moveTo(here[0], here[1] - 4), context.lineTo(here[0], here[1] + 4);
    Object.assign(context, { strokeStyle: colourOf(colour), lineWidth: thick });
    context.stroke();
  }
}

function drawEnd(context, name, [x, y]) {
  context.beginPath();
  context.arc(x, y, 9, 0, 7);
  context.fillStyle = colourOf("--accent");
  context.fill();
  Object.assign(context, { fillStyle: colourOf("--on-accent"), font: "600 12px system-ui", textAlign: "center" });
  context.fillText(name, x, y + 4);
}

function line(context, places, dashes) {
  context.setLineDash(dashes);
  context.beginPath();
  places.forEach((p, i) => context[i ? "lineTo" : "moveTo"](...p));
  context.stroke();
  context.setLineDash([]);
}

function nearest([left, top], limit = Infinity) {
  let best = -1, least = limit ** 2;
  for (const i of points ? shownPoints() : []) {
    const [x, y] = toPixels(plane.places[i]), distance = (x - left) ** 2 + (y - top) ** 2;
    if (distance < least) [best, least] = [i, distance];
  }
  return best;
}

function isInside([x, y], corners) {
  let inside = false;
  corners.forEach(([x1, y1], i) => {
    const [x2, y2] = corners[(i + 1) % corners.length];
    if (y1 > y !== y2 > y && x < x1 + (x2 - x1) * (y - y1) / (y2 - y1)) inside = !inside;
  });
  return inside;
}

// ---- pointer and keys on the plane

function listen(over) {
  let from = null, moved = false;
  const at = (event) => {
    const box = over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  over.addEventListener("pointerdown", (event) => {
    from = at(event);
    moved = false;
    if (state.lasso) trace = [from];
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (!from) return hover(here);
    moved ||= Math.hypot(here[0] - from[0], here[1] - from[1]) > 3;
    if (!moved) return undefined;
    byId("tip").hidden = true;
    if (!state.lasso) return moveTo(toPlane(here));
    trace.push(here);
    return drawOver();
  });
  over.addEventListener("pointerup", (event) => {
    if (!from) return;
    const near = moved ? -1 : nearest(at(event), NEAR);
    if (trace && moved) endLasso();
    else if (near >= 0) take(near);
    else if (!moved) moveTo(toPlane(at(event)));
    from = trace = null;
    drawOver();
  });
  over.addEventListener("pointercancel", () => { from = trace = null; drawOver(); });
  over.addEventListener("pointerleave", () => { byId("tip").hidden = true; });
  over.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (event.key === "Enter" && points) byId("nearest").click();
    if (!steps) return;
    event.preventDefault();
    const share = event.shiftKey ? 0.1 : 0.02;
    moveTo([plane.x, plane.y].map((axis, i) =>
      place(axis, state.z) + share * steps[i] * (plane.high[i] - plane.low[i])));
  });
}

function hover(here) {
  const tip = byId("tip"), i = nearest(here, NEAR);
  tip.hidden = i < 0;
  if (i < 0) return;
  paintThumbnail(byId("tip-picture"), i);
  byId("tip-words").textContent = nameOf(i);
  const [x, y] = toPixels(plane.places[i]);
  tip.style.left = `${Math.min(x + 12, plane.size - 90)}px`;
  tip.style.top = `${y > plane.size / 2 ? y - tip.offsetHeight - 10 : y + 12}px`;
}

function endLasso() {
  const chosen = shownPoints().filter((i) => isInside(toPixels(plane.places[i]), trace));
  if (chosen.length) takeMean(chosen);
  else say("The lasso holds no picture.");
}

// ---- from A to B

function way(share) {
  const [a, b] = state.ends;
  const norms = [a, b].map((end) => Math.sqrt(dot(end, end)));
  const angle = Math.acos(Math.max(-1, Math.min(1, dot(a, b) / (norms[0] * norms[1]))));
  let shares = [1 - share, share], length = 1;
  // Along an arc the direction turns evenly, and the norm goes from the one end's to the other's.
  if (byId("along").value === "arc" && angle > 1e-4 && angle < Math.PI - 1e-4) {
    length = (1 - share) * norms[0] + share * norms[1];
    shares = [1 - share, share].map((s, i) => Math.sin(s * angle) / Math.sin(angle) / norms[i]);
  }
  return Float32Array.from(a, (x, i) => length * (shares[0] * x + shares[1] * b[i]));
}

async function showWay() {
  drawOver();
  const whole = state.ends.every(Boolean);
  byId("way").disabled = !whole;
  byId("strip").hidden = !whole;
  if (!whole) return;
  const rows = Array.from({ length: STEPS }, (_, i) => way(i / (STEPS - 1)));
  await fillTiles(byId("strip"), rows, (i) => {
    byId("way").value = i / (STEPS - 1);
    go(rows[i]);
  });
}

async function fillTiles(box, rows, choose) {
  const pictures = await decode(rows);
  box.replaceChildren(...rows.map((_, i) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    button.type = "button";
    button.ariaLabel = `Picture ${i + 1} of ${rows.length}`;
    button.append(canvas);
    button.addEventListener("click", () => choose(i));
    paint(canvas, pictures, i * height * width * channels);
    return button;
  }));
}

async function showSamples() {
  const rows = showSamples.rows;
  await fillTiles(byId("drawn"), rows, (i) => go(rows[i]));
}

function drawSamples() {
  showSamples.rows = Array.from({ length: DRAWN }, drawPrior);
  return showSamples();
}

// ---- controls

const sliders = [];

function addSlider(unit) {
  const row = document.createElement("label"), input = document.createElement("input");
  const output = document.createElement("output"), name = document.createElement("span");
  const nats = document.createElement("small");
  row.className = "unit";
  name.textContent = `unit ${unit} `;
  nats.textContent = worthOf(unit);
  name.append(nats);
  Object.assign(input, { type: "range", min: known.low[unit], max: known.high[unit], step: "any" });
  input.addEventListener("input", () => {
    const z = Float32Array.from(state.z);
    z[unit] = Number(input.value);
    go(z);
  });
  row.append(name, input, output);
  byId("sliders").append(row);
  sliders.push({ input, output, unit });
}

function addClass(label) {
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  canvas.width = canvas.height = 28;
  canvas.style.width = "14px";
  mark(canvas.getContext("2d"), label, 14, 14, 9);
  button.type = "button";
  button.ariaPressed = "true";
  button.append(canvas, known.class_names[label]);
  button.addEventListener("click", () => {
    const all = state.shown.size === known.class_names.length;
    if (all) state.shown.clear(); // the first choice is for one class alone
    if (!state.shown.delete(label)) state.shown.add(label);
    if (!state.shown.size) known.class_names.forEach((_, each) => state.shown.add(each));
    [...byId("legend").children].forEach((each, i) => { each.ariaPressed = String(state.shown.has(i)); });
    drawMap();
  });
  byId("legend").append(button);
}

function addOption(select, value, text) {
  const option = document.createElement("option");
  Object.assign(option, { value, textContent: text });
  select.append(option);
}

const on = (id, kind, action) => byId(id).addEventListener(kind, action);

function setUpAxes() {
  for (const id of ["axis-x", "axis-y"]) {
    axes.forEach((axis, i) => addOption(byId(id), i, axis.name));
    on(id, "change", () => setAxes(byId("axis-x").value, byId("axis-y").value));
  }
  byId("axis-y").value = Math.min(1, axes.length - 1);
}

function setUpClasses() {
  known.class_names.forEach((name, label) => {
    state.shown.add(label);
    if (points?.labels) addClass(label);
    addOption(byId("class"), label, name);
  });
  byId("class-choice").hidden = !known.conditional;
  on("class", "change", () => {
    go(state.z, { label: Number(byId("class").value) });
    showLabel();
  });
}

function setUpButtons() {
  on("middle", "click", () => go(known.rest));
  on("draw", "click", () => go(drawPrior()));
  on("nearest", "click", () => take(nearest(toPixels([plane.x, plane.y].map((axis) => place(axis, state.z))))));
  on("mean", "click", () => takeMean(shownPoints()));
  on("more", "click", drawSamples);
  on("along", "change", () => { showWay(); });
  on("way", "input", () => go(way(Number(byId("way").value))));
  ["a", "b"].forEach((name, i) => on(`set-${name}`, "click", () => {
    state.ends[i] = state.z;
    byId("way").value = i;
    showWay();
  }));
  on("lasso", "click", () => {
    state.lasso = !state.lasso;
    byId("lasso").ariaPressed = String(state.lasso);
    say(state.lasso ? "Draw around pictures to see what the mean of their latents decodes to." : "");
  });
  for (const id of ["lasso", "mean", "nearest"]) byId(id).hidden = !points;
}

function describe() {
  const title = `Latent space of ${known.dataset}`;
  document.title = byId("title").textContent = title;
  const size = `${width} × ${height} pixels${channels === 3 ? " in colour" : ""}`;
  const layers = known.second_units
    ? ` The model has two stochastic layers: shown is the first, from which pictures are decoded; the ` +
      `${known.second_units} units of the second only shape the prior of the first.` : "";
  byId("about").textContent = known.likelihood
    ? `${units} latent units decode to ${size}.${layers}` : `${units} latent units become ${size}.`;
  if (!known.likelihood) byId("picture-words").textContent = "Picture";
  byId("how").textContent = (points
    ? "Drag to move the point that is decoded; hover over a picture to see it, click it to go there. "
    : "Drag to move the point that is decoded. ") +
    "The plane goes through that point: all that is not on its axes stays as it is. Keys: arrows, Shift for " +
    `long steps${points ? ", Enter for the nearest picture" : ""}.`;
  byId("axes-words").textContent = !points?.directions.length ? "" :
    "Principal axes: along which all pictures’ latents differ most" +
    (points.directions.length > 2 ? "; class axes: along which the means of the classes do" : "") +
    " (their share of the variance). Units: one number of the latents" +
    (known.kl ? " (nats it holds)." : " (grey levels by which it moves a picture).");
  byId("units-words").textContent = known.kl
    ? "Sorted by nats: what a unit tells of a picture on average (KL divergence" +
      `${known.prior === "StandardNormal" ? "" : " from N(0, 1)"}). Units near 0 change nothing.`
    : "Sorted by how far a step of one moves a picture: mean distance of its pixels, in grey levels of 255. " +
      "Units near 0 change nothing.";
  byId("samples-words").textContent = (known.draws
    ? `From ${known.draws.length.toLocaleString("en")} latents that the learned prior drew when this page was made. `
    : "Latents from N(0, 1), decoded. ") + "Choose one to go there.";
}

async function begin() {
  await start();
  describe();
  setUpAxes();
  setUpClasses();
  setUpButtons();
  known.order.forEach(addSlider);
  document.querySelector("main").hidden = false;
  // Far from all that a GAN was trained on is the middle; any draw shows what it can do.
  const first = known.kl ? known.rest : drawPrior();
  state.z = first;
  setAxes(byId("axis-x").value, byId("axis-y").value);
  listen(byId("over"));
  go(first);
  await drawSamples();
  await showWay();
  new ResizeObserver(() => { drawMap(); drawOver(); }).observe(byId("map-frame"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours.clear();
    drawMap();
    drawOver();
  });
  say("");
  // For a console, and for tests.
  self.explorer = { state, known, points, plane, decode, go, way, get picture() { return last; } };
  document.body.dataset.ready = "";
}

begin().catch(complain);
