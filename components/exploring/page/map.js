// The map: points on a canvas, each a marker of its class. It knows places, colours and numbers of points, and no images.

const RADIUS = 3.6; // of a marker, in pixels
const REACH = 14; // how far from a point, in pixels, it is still meant
const GLIDE_MS = 350; // from one timestep's places to the next
const INK = "#1f2430";
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

/** Add a marker about (x, y) to a path: o s ^ v < > D P as matplotlib has them. */
export function marker(path, shape, x, y, r) {
  const turned = { "^": 0, ">": 1, v: 2, "<": 3 }[shape];
  if (turned !== undefined) {
    for (let corner = 0; corner < 3; corner++) {
      const angle = (turned * Math.PI) / 2 + (corner * 2 * Math.PI) / 3 - Math.PI / 2;
      path[corner ? "lineTo" : "moveTo"](x + 1.25 * r * Math.cos(angle), y + 1.25 * r * Math.sin(angle));
    }
    path.closePath();
  } else if (shape === "s") {
    path.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
  } else if (shape === "D") {
    path.moveTo(x, y - 1.2 * r);
    path.lineTo(x + 1.2 * r, y);
    path.lineTo(x, y + 1.2 * r);
    path.lineTo(x - 1.2 * r, y);
    path.closePath();
  } else if (shape === "P") {
    path.rect(x - 0.4 * r, y - 1.2 * r, 0.8 * r, 2.4 * r);
    path.rect(x - 1.2 * r, y - 0.4 * r, 2.4 * r, 0.8 * r);
  } else {
    path.moveTo(x + r, y);
    path.arc(x, y, r, 0, 2 * Math.PI);
  }
}

export class EmbeddingMap {
  /** `maps`: for each timestep x and y of every point by turns. `onPoint(point or null)` and `onPick(point)` tell what a person does. */
  constructor(canvas, maps, { onPoint, onPick }) {
    Object.assign(this, { canvas, maps, onPoint, onPick });
    this.count = maps[0].length / 2;
    this.reach = Math.max(1e-6, ...maps.map((places) => places.reduce((most, value) => Math.max(most, Math.abs(value)), 0)));
    this.places = Float64Array.from(maps[0]); // where the points are now, on their way too
    this.hidden = new Set();
    this.aimed = this.picked = null;
    this.near = [];
    this.showAll();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Colour the points: `of` is the number of each point's name, `styles` the colour and shape of each name. */
  colour(of, styles) {
    this.of = of;
    this.styles = styles;
    this.hidden = new Set();
    this.dense = null; // the stamps are made anew
    this.draw();
  }

  hide(name, hidden) {
    this.hidden[hidden ? "add" : "delete"](name);
    this.draw();
  }

  /** Move the points to where they are at another timestep. */
  moveTo(number, glide = true) {
    const from = this.places.slice();
    const to = this.maps[number];
    const began = performance.now();
    cancelAnimationFrame(this.frame);
    const step = (now) => {
      const share = glide && !calm.matches ? Math.min(1, Math.max(0, (now - began) / GLIDE_MS)) : 1;
      const eased = share * share * (3 - 2 * share);
      for (let i = 0; i < to.length; i++) this.places[i] = share < 1 ? from[i] + eased * (to[i] - from[i]) : to[i];
      this.draw();
      if (share < 1) this.frame = requestAnimationFrame(step);
    };
    step(began);
  }

  /** Ring a point, and join it to its neighbours that are on the map. */
  pick(point, near) {
    this.picked = point;
    this.near = near;
    this.draw();
  }

  showAll() {
    this.zoom = 1;
    this.middle = [0, 0];
    this.draw();
  }

  /** Size of the canvas, and CSS pixels for each unit of the map. */
  view() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return { width, height, scale: (Math.min(width, height) / 2 / this.reach) * 0.96 * this.zoom };
  }

  /** Where a point is on the canvas, in CSS pixels. */
  onScreen(point, { width, height, scale } = this.view()) {
    const x = width / 2 + scale * (this.places[2 * point] - this.middle[0]);
    return [x, height / 2 - scale * (this.places[2 * point + 1] - this.middle[1])];
  }

  draw() {
    if (!this.styles) return;
    const view = this.view();
    const dense = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(view.width * dense), Math.round(view.height * dense)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    if (dense !== this.dense) this.stamps = this.styles.map((style) => stamp(style, dense));
    this.dense = dense;
    const picture = new ImageData(width || 1, height || 1);
    picture.data.fill(255);
    for (let point = 0; point < this.count; point++) {
      if (this.hidden.has(this.of[point])) continue;
      const [x, y] = this.onScreen(point, view);
      press(picture, this.stamps[this.of[point]], Math.round(x * dense), Math.round(y * dense));
    }
    const context = this.canvas.getContext("2d");
    context.putImageData(picture, 0, 0);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    this.drawPicked(context, view);
    if (this.aimed !== null) ring(context, ...this.onScreen(this.aimed, view), 7);
  }

  drawPicked(context, view) {
    if (this.picked === null) return;
    const from = this.onScreen(this.picked, view);
    context.strokeStyle = INK;
    context.lineWidth = 1;
    context.beginPath();
    for (const point of this.near) {
      context.moveTo(...from);
      context.lineTo(...this.onScreen(point, view));
    }
    context.stroke();
    for (const point of this.near) ring(context, ...this.onScreen(point, view), 5);
    ring(context, ...from, 9);
  }

  /** The point that is seen nearest to a place on the canvas, or null where none is within REACH. */
  pointAt(x, y) {
    const view = this.view();
    let [best, distance] = [null, REACH];
    for (let point = 0; point < this.count; point++) {
      const [px, py] = this.onScreen(point, view);
      const here = Math.hypot(px - x, py - y);
      if (here < distance && !this.hidden.has(this.of[point])) [best, distance] = [point, here];
    }
    return best;
  }

  /** The nearest point in a direction (dx, dy) from the one that is meant; without one, the nearest to the middle. */
  pointTowards(dx, dy) {
    const view = this.view();
    const from = this.aimed ?? this.picked;
    const [x, y] = from === null ? [view.width / 2, view.height / 2] : this.onScreen(from, view);
    let [best, least] = [from, Infinity];
    for (let point = 0; point < this.count; point++) {
      if (point === from || this.hidden.has(this.of[point])) continue;
      const [px, py] = this.onScreen(point, view);
      const [along, across] = [(px - x) * dx + (py - y) * dy, Math.abs((px - x) * dy - (py - y) * dx)];
      const cost = from === null ? Math.hypot(px - x, py - y) : along + 2 * across;
      if (cost < least && (from === null || (along > 0 && across <= along))) [best, least] = [point, cost];
    }
    return best;
  }

  aimAt(point) {
    if (point === this.aimed) return;
    this.aimed = point;
    this.draw();
    this.onPoint(point);
  }

  zoomBy(times, x, y) {
    const view = this.view();
    const [right, up] = [x - view.width / 2, view.height / 2 - y];
    const zoom = Math.min(50, Math.max(1, this.zoom * times));
    const change = (1 - this.zoom / zoom) / view.scale; // the place under the pointer stays under it
    this.middle = zoom === 1 ? [0, 0] : [this.middle[0] + right * change, this.middle[1] + up * change];
    this.zoom = zoom;
    this.draw();
  }

  listen() {
    let drag = null;
    const on = (name, does) => this.canvas.addEventListener(name, does);
    on("pointerdown", ({ offsetX, offsetY, pointerId }) => {
      drag = { x: offsetX, y: offsetY, moved: false };
      this.canvas.setPointerCapture(pointerId);
    });
    on("pointermove", ({ offsetX, offsetY }) => {
      if (drag && (drag.moved || Math.hypot(offsetX - drag.x, offsetY - drag.y) > 4)) {
        const { scale } = this.view();
        this.middle = [this.middle[0] - (offsetX - drag.x) / scale, this.middle[1] + (offsetY - drag.y) / scale];
        drag = { x: offsetX, y: offsetY, moved: true };
        this.aimAt(null);
        this.draw();
      } else if (!drag) {
        this.aimAt(this.pointAt(offsetX, offsetY));
      }
    });
    on("pointerup", ({ offsetX, offsetY }) => {
      const clicked = drag && !drag.moved ? this.pointAt(offsetX, offsetY) : null;
      drag = null;
      if (clicked !== null) this.onPick(clicked);
    });
    on("pointercancel", () => (drag = null));
    on("pointerleave", () => this.aimAt(null));
    on("blur", () => this.aimAt(null));
    on("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    });
    on("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !this.key(event.key)) return;
      event.preventDefault();
    });
  }

  /** Do what a key says; false where it says nothing here. */
  key(name) {
    const { width, height } = this.view();
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const zooms = { "+": 1.3, "=": 1.3, "-": 1 / 1.3 };
    if (ways[name]) this.aimAt(this.pointTowards(...ways[name]));
    else if (zooms[name]) this.zoomBy(zooms[name], ...(this.aimed === null ? [width / 2, height / 2] : this.onScreen(this.aimed)));
    else if (name === "0") this.showAll();
    else if ((name === "Enter" || name === " ") && this.aimed !== null) this.onPick(this.aimed);
    else if (name === "Escape") this.aimAt(null);
    else return false;
    return true;
  }
}

/** A class's marker: the pixels that it covers as (x, y, opacity 0 .. 1) by turns, x and y from its middle, and its colour. */
function stamp({ colour, shape }, dense) {
  const half = Math.ceil(1.5 * RADIUS * dense);
  const context = Object.assign(document.createElement("canvas"), { width: 2 * half, height: 2 * half }).getContext("2d");
  context.fillStyle = colour;
  context.beginPath();
  marker(context, shape, half, half, RADIUS * dense);
  context.fill();
  const { data } = context.getImageData(0, 0, 2 * half, 2 * half);
  const pixels = [];
  for (let at = 0; at < data.length / 4; at++) {
    if (data[4 * at + 3]) pixels.push((at % (2 * half)) - half, Math.floor(at / (2 * half)) - half, (0.8 * data[4 * at + 3]) / 255);
  }
  return { pixels: Float32Array.from(pixels), colour: [1, 3, 5].map((from) => parseInt(colour.slice(from, from + 2), 16)) };
}

/** Put a marker about (x, y) into a picture. By hand, since 10,000 shapes take a canvas without a graphics card long. */
function press({ data, width, height }, { pixels, colour }, x, y) {
  for (let i = 0; i < pixels.length; i += 3) {
    const px = x + pixels[i];
    const py = y + pixels[i + 1];
    if (px < 0 || py < 0 || px >= width || py >= height) continue;
    const at = 4 * (py * width + px);
    for (let channel = 0; channel < 3; channel++) data[at + channel] += pixels[i + 2] * (colour[channel] - data[at + channel]);
  }
}

function ring(context, x, y, r) {
  for (const [colour, width] of [["#fff", 4], [INK, 2]]) {
    context.beginPath();
    context.arc(x, y, r, 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}
