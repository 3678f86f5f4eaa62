// Driving the arm from the page: keys that are down, fingers on the pad, a gamepad's sticks. Told again every 50 ms.

const AGAIN_MS = 50;

// KeyboardEvent.code, what the pad's button shows, what it does; the server knows what they mean for the arm.
export const PAD = [
  ["KeyQ", "Q", "turn left"], ["KeyW", "W", "away"], ["KeyE", "E", "turn right"],
  ["KeyR", "R", "up"], ["KeyT", "T", "tilt out"], ["KeyX", "X", "open"],
  ["KeyA", "A", "left"], ["KeyS", "S", "near"], ["KeyD", "D", "right"],
  ["KeyF", "F", "down"], ["KeyG", "G", "tilt in"], ["KeyC", "C", "close"],
];
const ALSO = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown", "ShiftLeft", "ShiftRight"];
const CODES = new Set([...PAD.map(([code]) => code), ...ALSO]);

export class Drive {
  constructor(place, send) {
    this.down = new Set();
    this.send = send;
    this.moved = false;
    this.buttons = new Map(PAD.map((row) => [row[0], this.button(place, ...row)]));
    window.addEventListener("blur", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
    setInterval(() => this.tell(), AGAIN_MS);
  }

  button(place, code, key, text) {
    const button = place.appendChild(document.createElement("button"));
    button.type = "button";
    button.dataset.code = code;
    button.append(Object.assign(document.createElement("b"), { textContent: key }), text);
    button.addEventListener("pointerdown", (event) => {
      button.setPointerCapture(event.pointerId);
      this.press(code, true);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      button.addEventListener(name, () => this.press(code, false));
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    return button;
  }

  // A key went down or up; whether it is one that drives.
  press(code, down) {
    if (!CODES.has(code)) return false;
    this.down[down ? "add" : "delete"](code);
    this.buttons.get(code)?.classList.toggle("down", down);
    this.tell();
    return true;
  }

  release() {
    for (const code of [...this.down]) this.press(code, false);
  }

  // What is pressed; after the last of it once more, that nothing is.
  tell() {
    const axes = sticks();
    const moving = this.down.size > 0 || axes.some((v) => Math.abs(v) > 0.12);
    if (moving || this.moved) this.send({ drive: { keys: [...this.down], axes } });
    this.moved = moving;
  }
}

// The standard layout's sticks and triggers as shares of away, right, up, turn, tilt and open.
function sticks() {
  const pad = gamepad();
  if (!pad) return [];
  const [x, y, turn, up] = [0, 1, 2, 3].map((i) => pad.axes[i] ?? 0);
  const held = (i) => pad.buttons[i]?.value ?? 0;
  return [-y, x, -up, -turn, held(12) - held(13), held(6) - held(7)];
}

// One whose layout the browser knows: of any other nobody can say which axis is a trigger, which rests at -1.
export function gamepad() {
  return [...(navigator.getGamepads?.() ?? [])].find((pad) => pad?.connected && known(pad)) ?? null;
}

export function known(pad) {
  return pad.mapping === "standard";
}

// Calls `press(name)` once for each press of a gamepad's button that has a meaning.
const MEANING = { 0: "take_over", 1: "failure", 2: "pause", 3: "success", 8: "stop", 9: "start" };

export function watchButtons(press) {
  let before = [];
  setInterval(() => {
    const now = (gamepad()?.buttons ?? []).map((button) => button.pressed);
    for (const [index, name] of Object.entries(MEANING)) if (now[index] && !before[index]) press(name);
    before = now;
  }, AGAIN_MS);
}
