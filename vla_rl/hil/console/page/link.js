// The socket to the console's server: beats while the page is seen, connects again when lost, hands out what comes.

const BEAT_MS = 100; // the server's dead-man waits for these
const AGAIN_MS = 500;

export class Link {
  // `on`: functions state(view), frame(cameraIndex, blob), answer({answer, ok, text}), open(), lost().
  constructor(on) {
    this.on = on;
    this.number = 0;
    this.at = undefined; // of the newest state: the server's time, by which it knows how late it hears us
    setInterval(() => document.hidden || this.send({ beat: 1 }), BEAT_MS); // who does not see the page can't drive
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.on.open();
    this.socket.onmessage = (event) => this.hear(event.data);
    this.socket.onclose = () => {
      this.on.lost();
      setTimeout(() => this.connect(), AGAIN_MS);
    };
  }

  get up() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  send(wish) {
    if (this.up) this.socket.send(JSON.stringify({ ...wish, at: this.at }));
    return this.up;
  }

  act(name, more = {}) {
    this.number += 1;
    return this.send({ act: name, id: this.number, ...more });
  }

  // What came is shown: "state", or a camera's number.
  seen(what) {
    this.send({ seen: what });
  }

  hear(data) {
    if (data instanceof ArrayBuffer) {
      const jpeg = new Blob([new Uint8Array(data, 1)], { type: "image/jpeg" });
      this.on.frame(new Uint8Array(data, 0, 1)[0], jpeg);
      return;
    }
    const message = JSON.parse(data);
    this.at = message.at ?? this.at;
    if (message.state) this.on.state(message.state);
    else if (message.you) this.on.you(message.you);
    else this.on.answer(message);
  }
}
