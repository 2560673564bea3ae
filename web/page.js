/** The page: where pictures come from, and what is shown of their faces. */

import {drawFaces} from "./draw.js";
import {Head} from "./head.js";

const $ = id => document.getElementById(id);
const LONGEST = 4096, LONGEST_FRAME = 1280;  // longer side of what the networks get, px: of photos, of videos
const GROUPS = {
  Brows: ["browInnerUp", "browDown*", "browOuterUp*"],
  Eyes: ["eyeBlink*", "eyeSquint*", "eyeWide*"],
  Gaze: ["eyeLookUp*", "eyeLookDown*", "eyeLookIn*", "eyeLookOut*"],
  Jaw: ["jawOpen", "jawForward", "jaw*"],
  Mouth: [
    "mouthSmile*", "mouthFrown*", "mouthPucker", "mouthFunnel", "mouthClose", "mouth*", "mouthDimple*", "mouthStretch*",
    "mouthPress*", "mouthUpperUp*", "mouthLowerDown*", "mouthRollUpper", "mouthRollLower", "mouthShrugUpper",
    "mouthShrugLower", "tongueOut",
  ],
  "Nose and cheeks": ["noseSneer*", "cheekSquint*", "cheekPuff"],
};

const worker = new Worker("worker.js", {type: "module"});
const waiting = new Map();
let asked = 0;
worker.addEventListener("message", ({data}) => {
  const {keep, drop} = waiting.get(data.number);
  waiting.delete(data.number);
  if (data.problem) drop(new Error(data.problem));
  else keep(data);
});
worker.addEventListener("error", () => say("This browser cannot run the networks: it needs modules in workers.", true));

function ask(task, given, transfer = []) {
  return new Promise((keep, drop) => {
    const number = asked++;
    waiting.set(number, {keep, drop});
    worker.postMessage({number, task, ...given}, transfer);
  });
}

// ---- what is shown

const bars = [];  // of the expressions: their names, elements and sides
let shown = {picture: null, faces: [], chosen: 0, mirrored: false};
let source = 0;  // goes up with every new one, so that answers to older ones are dropped
let head = null;

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").className = problem ? "problem" : "";
}

function show(change) {
  shown = {...shown, ...change};
  shown.chosen = Math.min(shown.chosen, Math.max(0, shown.faces.length - 1));
  draw();
  people();
  panel(shown.faces[shown.chosen]);
}

/** The picture with its faces, in the pixels of the screen. */
function draw() {
  const {picture, faces, chosen, mirrored} = shown, canvas = $("picture"), stage = $("stage");
  if (!picture) return;
  const dense = Math.min(devicePixelRatio, 2);
  const fit = Math.min(stage.clientWidth / picture.width, stage.clientHeight / picture.height) * dense;
  const zoom = Math.min(fit, 4);
  canvas.width = Math.round(picture.width * zoom);
  canvas.height = Math.round(picture.height * zoom);
  canvas.classList.toggle("mirrored", mirrored);
  canvas.hidden = false;
  $("empty").hidden = true;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  drawFaces(pen, faces, zoom, chosen, mirrored);
}

/** One tab a face, where there are several. */
function people() {
  const {faces, chosen} = shown, names = faces.map((face, k) => `Face ${(face.id ?? k) + 1}`);
  $("people").hidden = names.length < 2;
  const tabs = [...$("people").children];
  if (tabs.map(tab => tab.textContent).join() !== names.join()) {
    $("people").replaceChildren(...names.map((name, k) => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.role = "tab";
      tab.textContent = name;
      tab.addEventListener("click", () => show({chosen: k}));
      return tab;
    }));
  }
  [...$("people").children].forEach((tab, k) => tab.setAttribute("aria-selected", k === chosen));
}

function panel(face) {
  for (const angle of ["pitch", "yaw", "roll"]) {
    $(angle).textContent = face ? `${face.pose.euler_degrees.aflw[angle].toFixed(0)}°`.replace("-0°", "0°") : "–";
  }
  const sure = face ? face.score.reduce((sum, value) => sum + value, 0) / face.score.length : 0;
  $("confidence").textContent = face ? `${Math.round(100 * sure)} %` : "–";
  fill($("sure"), sure, 1);
  for (const {name, bar, side} of bars) {
    const value = face?.expression?.[name];
    bar.classList.toggle("unknown", face !== undefined && (value ?? null) === null);
    bar.title = `${name}: ${value?.toFixed(2) ?? "unknown"}`;
    fill(bar.firstChild, value ?? 0, side);
  }
  if (face) head?.show(face, shown.mirrored);
}

/** Show a value of 0..1 as a bar that grows to the right (side 1) or to the left (-1). */
function fill(inner, value, side) {
  inner.style.transform = `translateX(${side * 100 * (value - 1)}%)`;
}

function buildBars() {
  const element = (kind, text, name = "") => Object.assign(document.createElement(kind), {textContent: text, className: name});
  const bar = (name, side) => {
    const box = element("div", "", side < 0 ? "bar left" : "bar right");
    box.append(element("i", ""));
    bars.push({name, bar: box, side});
    return box;
  };
  for (const [group, stems] of Object.entries(GROUPS)) {
    $("bars").append(element("h2", group));
    for (const stem of stems) {
      const row = element("div", "", "row"), plain = stem.replace("*", ""), twofold = stem !== plain;
      const words = plain.replace(/^(brow|eye|jaw|mouth|nose|cheek)/, "").replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase();
      row.append(bar(twofold ? `${plain}Right` : stem, -1), element("span", words || "sideways"), bar(twofold ? `${plain}Left` : stem, 1));
      $("bars").append(row);
    }
  }
}

// ---- where pictures come from

/** A bitmap for the screen and one for the networks, at most `longest` px long. */
async function bitmaps(from, longest) {
  const whole = await createImageBitmap(from), zoom = longest / Math.max(whole.width, whole.height);
  if (zoom >= 1) return [whole, await createImageBitmap(whole)];
  const size = {resizeWidth: Math.round(whole.width * zoom), resizeHeight: Math.round(whole.height * zoom), resizeQuality: "high"};
  const small = await createImageBitmap(whole, size);
  whole.close();
  return [small, await createImageBitmap(small)];
}

async function openPhoto(file) {
  const mine = begin();
  let picture, bitmap;
  try {
    [picture, bitmap] = await bitmaps(file, LONGEST);
  } catch {
    return say(`${file.name || "This file"} is no picture that this browser shows.`, true);
  }
  if (mine !== source) return;
  show({picture, faces: [], chosen: 0, mirrored: false});
  await ready;
  say("Looking for faces …");
  const {answer: faces, milliseconds} = await ask("photo", {bitmap}, [bitmap]);
  if (mine !== source) return;
  show({faces});
  say(`${counted(faces)} · ${milliseconds.toFixed(0)} ms`);
}

async function openVideo(file) {
  begin();
  const film = $("film");
  film.src = URL.createObjectURL(file);
  film.loop = true;
  try {
    await film.play();
  } catch {
    return say(`${file.name || "This file"} is no video that this browser plays.`, true);
  }
  $("controls").hidden = false;
  return follow(false);
}

async function openCamera() {
  if ($("camera").getAttribute("aria-pressed") === "true") {
    begin();
    return say("");
  }
  begin();
  const mine = source;
  if (!navigator.mediaDevices) return say("Browsers lend the camera only to pages from this machine or over https.", true);
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "user", width: {ideal: 1280}, height: {ideal: 720}}});
  } catch (error) {
    return say(`The camera was not opened: ${error.message}`, true);
  }
  if (mine !== source) return stream.getTracks().forEach(track => track.stop());
  $("film").srcObject = stream;
  $("camera").setAttribute("aria-pressed", true);
  await $("film").play();
  return follow(true);
}

/** Frame after frame, the newest one when the networks are free. */
async function follow(mirrored) {
  const mine = source, film = $("film");
  await ready;
  let first = true, before = performance.now(), pace = 0, last = -1;
  while (mine === source) {
    if (film.readyState < 2 || (film.paused && film.currentTime === last)) {
      await new Promise(requestAnimationFrame);
      continue;
    }
    last = film.currentTime;
    const [picture, bitmap] = await bitmaps(film, LONGEST_FRAME);
    const {answer: faces, milliseconds} = await ask("frame", {bitmap, first}, [bitmap]);
    if (mine !== source) return picture.close();
    const old = shown.picture;
    show({picture, faces, mirrored});
    old?.close();
    const now = performance.now();
    pace = pace ? 0.9 * pace + 0.1 * (now - before) : now - before;
    [before, first] = [now, false];
    say(`${counted(faces)} · ${milliseconds.toFixed(0)} ms · ${(1000 / pace).toFixed(pace > 100 ? 1 : 0)} frames/s`);
    if (film.duration) $("seek").value = film.currentTime / film.duration;
    await new Promise(requestAnimationFrame);
  }
}

/** End what runs; the number of the new source. */
function begin() {
  const film = $("film");
  film.pause();
  film.srcObject?.getTracks().forEach(track => track.stop());
  if (film.src) URL.revokeObjectURL(film.src);
  film.srcObject = null;
  film.removeAttribute("src");
  $("camera").setAttribute("aria-pressed", false);
  $("controls").hidden = true;
  $("play").textContent = "Pause";
  return ++source;
}

function counted(faces) {
  return faces.length === 1 ? "1 face" : `${faces.length || "no"} faces`;
}

function open(file) {
  const opened = file.type.startsWith("video/") ? openVideo(file) : openPhoto(file);
  opened.catch(error => say(error.message, true));
}

for (const id of ["photo", "video"]) $(id).addEventListener("change", ({target}) => {
  if (target.files[0]) open(target.files[0]);
  target.value = "";
});
$("camera").addEventListener("click", () => openCamera().catch(error => say(error.message, true)));
$("example").addEventListener("click", async () => open(await (await fetch("astronaut.jpg")).blob()));
$("play").addEventListener("click", () => {
  const film = $("film");
  if (film.paused) film.play();
  else film.pause();
  $("play").textContent = film.paused ? "Play" : "Pause";
});
$("seek").addEventListener("input", ({target}) => { $("film").currentTime = target.value * $("film").duration; });
$("picture").addEventListener("click", ({offsetX, offsetY}) => {
  const {picture, faces} = shown, {clientWidth, clientHeight} = $("picture");
  const zoom = Math.min(clientWidth / picture.width, clientHeight / picture.height);
  const x = (offsetX - (clientWidth - picture.width * zoom) / 2) / zoom;
  const y = (offsetY - (clientHeight - picture.height * zoom) / 2) / zoom;
  const chosen = faces.findIndex(({box: [x0, y0, x1, y1]}) => x > x0 && x < x1 && y > y0 && y < y1);
  if (chosen >= 0) show({chosen});
});
for (const name of ["dragenter", "dragover"]) addEventListener(name, event => {
  event.preventDefault();
  $("stage").classList.add("over");
});
for (const name of ["dragleave", "drop"]) addEventListener(name, event => {
  event.preventDefault();
  $("stage").classList.remove("over");
});
addEventListener("drop", event => event.dataTransfer.files[0] && open(event.dataTransfer.files[0]));
addEventListener("paste", event => event.clipboardData.files[0] && open(event.clipboardData.files[0]));
new ResizeObserver(draw).observe($("stage"));

buildBars();
const ready = ask("load", {folder: new URL("models/", location.href).href});
ready.then(() => say(""), error => say(error.message, true));
Head.on($("head"), "models/").then(made => {
  head = made;
  panel(shown.faces[shown.chosen]);
  head.draw();
}).catch(() => {
  $("figure").replaceChildren(Object.assign(document.createElement("p"), {textContent: "The head needs WebGL, which this browser does not give."}));
});
