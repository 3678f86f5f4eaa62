// Live pictures, with the chunk under way and its rivals drawn over the cameras whose place is known.

const COLOURS = { chosen: "#ffd33d", rival: "rgba(120, 200, 255, 0.5)", halo: "rgba(0, 0, 0, 0.6)" };

export class Camera {
  constructor(name, chosen) {
    this.name = name;
    this.root = document.createElement("figure");
    this.root.dataset.camera = name;
    this.root.addEventListener("click", chosen);
    this.picture = this.root.appendChild(document.createElement("canvas"));
    this.pen = this.picture.getContext("2d", { alpha: false });
    this.overlay = this.root.appendChild(document.createElement("canvas"));
    this.label = this.root.appendChild(document.createElement("figcaption"));
    this.next = null; // decoded, not yet on the screen
    this.times = [];
    this.drawn = 0;
  }

  // Decode a JPEG; it is drawn with the screen's next refresh.
  async take(jpeg) {
    const image = await createImageBitmap(jpeg);
    this.next?.close();
    this.next = image;
  }

  draw() {
    const image = this.next;
    if (image === null) return;
    if (this.picture.width !== image.width || this.picture.height !== image.height) {
      this.picture.width = image.width;
      this.picture.height = image.height;
      this.root.style.setProperty("--aspect", image.width / image.height);
    }
    this.pen.drawImage(image, 0, 0);
    image.close();
    this.next = null;
    this.count();
  }

  count() {
    const now = performance.now();
    this.times.push(now);
    while (this.times[0] < now - 2000) this.times.shift();
    this.drawn += 1;
    this.root.dataset.frames = this.drawn;
  }

  // Pictures a second over the last two seconds.
  get rate() {
    const since = performance.now() - 2000;
    return this.times.filter((t) => t > since).length / 2;
  }

  caption() {
    const text = `${this.name} ${this.rate.toFixed(0)} / s`;
    if (this.label.textContent !== text) this.label.textContent = text;
    this.root.classList.toggle("dead", this.rate < 1);
  }

  // Points come as right and down from the picture's centre, in its heights; null behind the camera.
  plan(plan) {
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [this.picture.clientWidth, this.picture.clientHeight].map((v) => Math.round(v * scale));
    const shown = (point) => point && place(point, width, height);
    const paths = (plan?.paths[this.name] ?? []).map((path) => path.map(shown));
    this.overlay.hidden = paths.length === 0;
    if (this.overlay.hidden || width === 0) return;
    if (this.overlay.width !== width || this.overlay.height !== height) {
      this.overlay.width = width;
      this.overlay.height = height;
    }
    const pen = this.overlay.getContext("2d");
    pen.clearRect(0, 0, width, height);
    paths.forEach((path, k) => k !== plan.chosen && trace(pen, path, COLOURS.rival, 2 * scale));
    const chosen = paths[plan.chosen];
    if (!chosen) return;
    trace(pen, chosen, COLOURS.halo, 8 * scale);
    trace(pen, chosen, COLOURS.chosen, 4 * scale);
    end(pen, chosen.findLast((point) => point), scale);
  }
}

function place([right, down], width, height) {
  return [width / 2 + right * height, height / 2 + down * height];
}

function trace(pen, path, colour, thick) {
  pen.beginPath();
  let down = false;
  for (const point of path) {
    if (point) pen[down ? "lineTo" : "moveTo"](...point);
    down = point !== null; // behind the camera: a gap
  }
  pen.strokeStyle = colour;
  pen.lineWidth = thick;
  pen.lineJoin = pen.lineCap = "round";
  pen.stroke();
}

function end(pen, point, scale) {
  if (!point) return;
  pen.beginPath();
  pen.arc(...point, 7 * scale, 0, 2 * Math.PI);
  pen.fillStyle = COLOURS.chosen;
  pen.strokeStyle = COLOURS.halo;
  pen.lineWidth = 3 * scale;
  pen.fill();
  pen.stroke();
}
