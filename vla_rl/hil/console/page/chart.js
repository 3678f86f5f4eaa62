// The value of the chosen chunk over the last half minute, its ensemble's spread, and when a human drove.

const SPAN_S = 30;
const PAINT = { line: "#ffd33d", band: "rgba(255, 211, 61, 0.25)", grid: "#30363d", text: "#9aa4af" };
const HUMAN = "rgba(47, 129, 247, 0.35)";

export class Chart {
  constructor(canvas) {
    this.canvas = canvas;
    this.modes = []; // [time s, mode]: what was seen here, newest last
  }

  note(mode) {
    const now = performance.now() / 1000;
    if (this.modes.at(-1)?.[1] !== mode) this.modes.push([now, mode]);
    while (this.modes.length > 1 && this.modes[1][0] < now - SPAN_S) this.modes.shift();
  }

  draw(values) {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (width === 0) return undefined;
    this.fit(Math.round(width * scale), Math.round(height * scale));
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const x = (ago) => width * (1 - ago / SPAN_S);
    this.drawHuman(pen, x, height);
    const shown = values.filter(([ago, mean]) => ago <= SPAN_S && mean !== null);
    if (shown.length < 2) return note(pen, width, height, "no critic is heard");
    const [low, high] = range(shown);
    const y = (value) => height - 6 - ((value - low) / (high - low)) * (height - 12);
    grid(pen, width, y, low, high);
    return band(pen, shown, x, y);
  }

  fit(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
  }

  drawHuman(pen, x, height) {
    const now = performance.now() / 1000;
    pen.fillStyle = HUMAN;
    this.modes.forEach(([since, mode], i) => {
      const until = this.modes[i + 1]?.[0] ?? now;
      if (mode === "CORRECTING") pen.fillRect(x(now - since), 0, x(now - until) - x(now - since), height);
    });
  }
}

function range(rows) {
  let [low, high] = [Infinity, -Infinity];
  for (const [, mean, spread] of rows) {
    low = Math.min(low, mean - (spread ?? 0));
    high = Math.max(high, mean + (spread ?? 0));
  }
  const margin = Math.max(high - low, 0.05) * 0.1;
  return [low - margin, high + margin];
}

function grid(pen, width, y, low, high) {
  pen.font = "16px system-ui, sans-serif";
  pen.lineWidth = 1;
  for (const value of [low, (low + high) / 2, high].map((v) => Number(v.toFixed(2)))) {
    pen.strokeStyle = PAINT.grid;
    pen.beginPath();
    pen.moveTo(0, y(value));
    pen.lineTo(width, y(value));
    pen.stroke();
    pen.fillStyle = PAINT.text;
    pen.fillText(value.toFixed(2), 4, Math.max(y(value) - 4, 14));
  }
}

function band(pen, rows, x, y) {
  const edge = (sign) => rows.map(([ago, mean, spread]) => [x(ago), y(mean + sign * (spread ?? 0))]);
  pen.fillStyle = PAINT.band;
  line(pen, [...edge(1), ...edge(-1).reverse()]);
  pen.fill();
  pen.strokeStyle = PAINT.line;
  pen.lineWidth = 3;
  line(pen, rows.map(([ago, mean]) => [x(ago), y(mean)]));
  pen.stroke();
}

function line(pen, points) {
  pen.beginPath();
  points.forEach(([px, py], i) => pen[i ? "lineTo" : "moveTo"](px, py));
}

function note(pen, width, height, text) {
  pen.font = "16px system-ui, sans-serif";
  pen.fillStyle = PAINT.text;
  pen.textAlign = "center";
  pen.fillText(text, width / 2, height / 2);
  pen.textAlign = "start";
}
