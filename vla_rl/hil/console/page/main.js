// The page: what the desk shows goes into the document as text, what the operator does goes to the desk.

import { Camera } from "./cameras.js";
import { Chart } from "./chart.js";
import { Drive, known, watchButtons } from "./drive.js";
import { drawMessages, streams } from "./health.js";
import { Link } from "./link.js";
import { Episodes, minutes, statistics } from "./session.js";

const USUAL = { AUTONOMOUS: "the policy drives", PAUSED: "the arm holds", STOPPED: "the arm holds" };
const PAGE = "page"; // what the desk calls us as a device
const LONGEST = 1000; // characters of a text; its box takes one more, so that a longer text is refused and not cut
const KEYS = {
  Escape: "stop", Space: "take_over", KeyH: "hand_back", KeyP: "pause", KeyN: "start", KeyB: "rerecord",
  Enter: "success", NumpadEnter: "success", Backspace: "failure", KeyU: "end", Delete: "discard",
};
const LEGEND = [
  ["Space", "take over, hand back"], ["H", "hand back after a loss"], ["Esc", "stop, from anywhere"],
  ["P", "pause, resume"], ["N", "start an episode"], ["B", "discard, start anew"],
  ["Enter", "success"], ["Backspace", "failure"], ["U", "end without an outcome"], ["Del", "discard"],
  ["W A S D", "away, left, near, right"], ["R F", "up, down"], ["Q E", "turn"], ["T G", "tilt out, in"],
  ["X C", "open, close"], ["Shift", "slowly"],
  ["Gamepad", "sticks move, triggers grip; A take over, X pause, Y success, B failure, Back stop, Start episode"],
];

const find = (id) => document.getElementById(id);
const page = { view: null, you: "", cameras: new Map(), names: [], main: "front", shown: "live" };
const chart = new Chart(find("chart"));
const episodes = new Episodes(find("episodes"));
const link = new Link({ open: opened, lost, you: (name) => (page.you = name), state, frame, answer });
const drive = new Drive(find("pad"), (wish) => mine() && link.send(wish));

// ---- what comes ---------------------------------------------------------------------------------------------------

function opened() {
  document.body.dataset.link = "up";
  say("");
}

function lost() {
  document.body.dataset.link = "lost";
  drive.release();
  write("mode", "NO LINK");
  write("reason", "the console's server is not heard: the arm holds if you were driving");
}

function state(news) {
  link.seen("state");
  const view = { ...page.view, ...news };
  page.view = view;
  document.body.dataset.mode = view.mode ?? "none";
  document.body.dataset.mine = mine();
  document.body.dataset.stranded = stranded();
  write("mode", view.mode ?? "NO CONTROL");
  write("reason", reason(view));
  callForHelp(view.help);
  drawEpisode(view.episode);
  drawButtons(view);
  drawInstruction(view.instruction);
  placeCameras(view.cameras);
  chart.note(view.mode);
  if (page.shown === "live") drawLive(view);
  if (page.shown === "health") streams(find("streams").tBodies[0], view.streams);
  if (news.episodes) drawRecord(news);
  mark("health", view.streams.some((stream) => !stream.well));
}

async function frame(index, jpeg) {
  const name = page.names[index];
  try {
    await page.cameras.get(name).take(jpeg);
  } catch {
    say(`camera ${name} sent something that is not a picture`, true);
  }
  link.seen(index);
}

function answer({ ok, text }) {
  say(text, !ok);
}

// ---- drawing ------------------------------------------------------------------------------------------------------

function reason(view) {
  if (view.mode !== "CORRECTING") return why(view) || USUAL[view.mode] || "";
  if (!view.device_alive) return `the ${view.device || "device"} is lost: the arm holds`;
  const who = mine() ? "you have the arm" : `${view.operator || "nobody"} has the arm`;
  return view.device === PAGE ? who : `${who}, with the ${view.device}`;
}

function why(view) {
  const text = view.reason.replaceAll("_", " ");
  if (view.source !== "HOLD") return text && `limited: ${text.replaceAll(",", ", ")}`;
  return text && view.mode !== "STOPPED" ? `holds: ${text}` : text;
}

function callForHelp(text) {
  find("help").hidden = !text;
  write("help", text ? `HELP: ${text}` : "");
  document.title = text ? "HELP wanted" : `${page.view.mode ?? "no control"} · vla_rl`;
}

function drawRecord(news) {
  statistics(find("statistics"), news.statistics);
  episodes.draw(news.episodes);
  drawMessages(find("messages"), news.messages);
}

function drawEpisode(episode) {
  const recording = episode?.recording ?? false;
  find("episode").dataset.state = recording ? "recording" : "idle";
  write("ordinal", episode ? `${recording ? "●" : "■"} ${episode.ordinal}` : "no episode");
  write("clock", episode ? (recording ? minutes(episode.seconds) : episode.outcome) : "");
}

function drawButtons(view) {
  const recording = view.episode?.recording ?? false;
  label("take_over", driving() ? "Hand back" : "Take over");
  find("hand_back").hidden = !stranded();
  label("pause", { PAUSED: "Resume", STOPPED: "Reset stop" }[view.mode] ?? "Pause");
  for (const id of ["success", "failure", "end"]) find(id).disabled = !recording;
  [find("start").hidden, find("rerecord").hidden] = [recording, !recording];
  find("take_over").disabled = view.mode === "STOPPED" || view.mode === null;
}

function drawInstruction(text) {
  const box = find("instruction");
  if (document.activeElement !== box && box.value !== text) box.value = text;
}

function drawLive(view) {
  for (const camera of page.cameras.values()) {
    camera.plan(view.plan);
    camera.caption();
  }
  find("pad").hidden = !(driving() && view.device === PAGE);
  find("value").hidden = !find("pad").hidden;
  const now = view.values.at(-1)?.[1];
  write("value-now", now === undefined || now === null ? "" : now.toFixed(2));
  chart.draw(view.values);
}

// The chosen camera large, or the first where there is none of that name; a click on another chooses it.
function placeCameras(names, chosen = page.main) {
  if (chosen === page.main && names.join() === page.names.join()) return;
  [page.names, page.main] = [names, chosen];
  const large = names.includes(chosen) ? chosen : names[0];
  for (const name of names) {
    if (!page.cameras.has(name)) page.cameras.set(name, new Camera(name, () => placeCameras(page.names, name)));
    find(name === large ? "front" : "side").append(page.cameras.get(name).root);
  }
}

function refresh() {
  for (const camera of page.cameras.values()) camera.draw();
  requestAnimationFrame(refresh);
}

function write(id, text) {
  const node = find(id);
  if (node.textContent !== text) node.textContent = text;
}

function label(id, text) {
  const button = find(id);
  if (button.firstChild.textContent !== text) button.firstChild.textContent = text;
}

function mark(view, ill) {
  document.querySelector(`nav [data-view=${view}]`).classList.toggle("ill", ill);
}

function say(text, refused = false) {
  write("say", text);
  find("say").className = refused ? "refused" : "";
}

// ---- what the operator does ---------------------------------------------------------------------------------------

const mine = () => page.view !== null && page.view.operator === page.you && page.you !== "";
const driving = () => mine() && page.view.mode === "CORRECTING" && page.view.device_alive;
const stranded = () => page.view?.mode === "CORRECTING" && !page.view.device_alive; // the arm waits for somebody

function act(name) {
  const mode = page.view?.mode;
  if (name === "take_over") return link.act("take_over", { on: !driving() });
  if (name === "hand_back") return stranded() && link.act("take_over", { on: false });
  if (name === "pause") return link.act({ PAUSED: "resume", STOPPED: "reset_stop" }[mode] ?? "pause");
  return link.act(name);
}

function show(view) {
  page.shown = view;
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== view;
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-pressed", button.dataset.view === view);
  }
}

function onKey(event, down) {
  if (!down) drive.press(event.code, false); // let go is let go, wherever one types by now and whatever else is held
  const typing = event.target instanceof HTMLInputElement;
  if (event.code === "Escape" && down) {
    event.target.blur();
    if (!event.repeat) act("stop");
    return event.preventDefault();
  }
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return undefined;
  const name = KEYS[event.code];
  if (name && down && !event.repeat) act(name);
  if (drive.press(event.code, down) || name) event.preventDefault();
  return undefined;
}

// A form with one box: what is typed there is sent as the text of an action.
function texts(form, box, action, done) {
  find(form).addEventListener("submit", (event) => {
    event.preventDefault();
    const text = find(box).value;
    if (text.length > LONGEST) return say(`a text has at most ${LONGEST} characters`, true);
    link.act(action, { text });
    done(find(box));
    return find(box).blur();
  });
}

for (const button of document.querySelectorAll("footer .row button")) {
  const key = Object.assign(document.createElement("kbd"), { textContent: button.dataset.key });
  button.append(key);
  button.addEventListener("click", (event) => {
    if (event.detail < 2) act(button.id); // the second of a double click would hand back
    button.blur(); // or Space would press it again
  });
}
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    show(button.dataset.view);
    button.blur();
  });
}
for (const [key, text] of LEGEND) {
  const list = find("keys").querySelector("dl");
  list.append(Object.assign(document.createElement("dt"), { textContent: key }));
  list.append(Object.assign(document.createElement("dd"), { textContent: text }));
}
texts("instruct", "instruction", "instruct", () => {});
texts("note", "noted", "note", (box) => (box.value = ""));
document.addEventListener("keydown", (event) => onKey(event, true));
document.addEventListener("keyup", (event) => onKey(event, false));
watchButtons(act);
window.addEventListener("gamepadconnected", ({ gamepad }) => {
  if (!known(gamepad)) say(`the browser does not know the layout of ${gamepad.id}: use it at the robot's host`, true);
});
refresh();
