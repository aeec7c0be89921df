// The probe's curve over t: DiER with its 95 % band, what it has to beat as lines, the chosen t and the one that is looked at.

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [460, 250, 48, 12, 12, 34];
// Okabe and Ito's colours, and a dash each: never told apart by colour alone
const LINES = [["#0072b2", ""], ["#e69f00", "7 4"], ["#d55e00", "7 3 2 3"], ["#009e73", "2 3"], ["#cc79a7", "12 3"], ["#56b4e9", "1 4"]];
const INK = "#1f2430";

export function element(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

export class Curve {
  /** `svg` and `lines` are the elements to fill; `onStop(t)` is told which t somebody clicked. */
  constructor(svg, lines, { curve, timesteps, chosen }, onStop) {
    Object.assign(this, { svg, curve, timesteps, chosen });
    const points = curve.series.flatMap((series) => series.points);
    const values = points.flatMap(({ value, low, high }) => [value, low, high]).filter((value) => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low || 1) * 0.06;
    const ts = [...timesteps, ...points.map(({ t }) => t).filter((t) => t !== null)];
    const [first, last] = [Math.min(...ts), Math.max(...ts)];
    this.x = (t) => LEFT + ((t - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
    this.y = (value) => HEIGHT - BOTTOM - ((value - low + room) / (high - low + 2 * room)) * (HEIGHT - TOP - BOTTOM);
    this.axes(low, high, first, last);
    curve.series.forEach((series, place) => this.line(series, ...LINES[place % LINES.length], place === 0));
    for (const t of chosen) {
      this.add("line", { x1: this.x(t), x2: this.x(t), y1: TOP, y2: HEIGHT - BOTTOM, stroke: INK, "stroke-dasharray": "2 3" });
      const anchor = this.x(t) > WIDTH / 2 ? "end" : "start";
      this.add("text", { x: this.x(t) + (anchor === "end" ? -4 : 4), y: HEIGHT - BOTTOM - 5, "text-anchor": anchor }, "chosen");
    }
    this.mark = this.add("g");
    this.stops(onStop);
    lines.replaceChildren(...curve.series.map(({ name }, place) => entry(name, ...LINES[place % LINES.length])));
    svg.setAttribute("aria-label", `${curve.title}. ${timesteps.map((t) => this.reading(t)).filter(Boolean).join("; ")}`);
  }

  add(name, attributes, text) {
    return this.svg.appendChild(element(name, attributes, text));
  }

  shown(value) {
    return this.curve.percent ? `${(100 * value).toFixed(1)} %` : value.toFixed(3);
  }

  /** What DiER reaches at t, in words; nothing where it was not probed there. */
  reading(t) {
    const point = this.curve.series[0].points.find((one) => one.t === t);
    if (!point) return "";
    const { value, low, high } = point;
    return `t = ${t}: ${this.shown(value)}${low === null ? "" : ` [${this.shown(low)}, ${this.shown(high)}]`}`;
  }

  axes(low, high, first, last) {
    const rough = (high - low || 1) / 4;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((times) => times * unit >= rough);
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      this.add("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: this.y(value), y2: this.y(value), stroke: "#e6e8ec" });
      this.add("text", { x: LEFT - 6, y: this.y(value) + 4, "text-anchor": "end" }, this.shown(value));
    }
    for (let part = 0; part <= 4; part++) {
      const t = Math.round(first + ((last - first) * part) / 4);
      this.add("text", { x: this.x(t), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, t);
    }
    this.add("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "timestep t (more noise to the right)");
  }

  /** A line; of features without a t a level one. The first has its 95 % band. */
  line({ points }, stroke, dash, first) {
    const all = points[0]?.t === null ? [{ ...points[0], t: this.timesteps[0] }, { ...points[0], t: this.timesteps.at(-1) }] : points;
    const along = (key, from = all) => from.map((point) => `${this.x(point.t)},${this.y(point[key])}`).join(" ");
    if (first && all.every(({ low }) => low !== null)) {
      this.add("polygon", { points: `${along("high")} ${along("low", [...all].reverse())}`, fill: stroke, opacity: 0.15 });
    }
    this.add("polyline", { points: along("value"), fill: "none", stroke, "stroke-width": first ? 2.6 : 1.5, "stroke-dasharray": dash });
    if (first) for (const { t, value } of all) this.add("circle", { cx: this.x(t), cy: this.y(value), r: 3, fill: stroke });
  }

  /** Broad, unseen strips to click: one for each t. Who has no mouse has the slider. */
  stops(onStop) {
    this.timesteps.forEach((t, at) => {
      const [before, after] = [this.timesteps[at - 1] ?? t, this.timesteps[at + 1] ?? t];
      const [from, to] = [this.x((before + t) / 2), this.x((t + after) / 2)];
      const strip = this.add("rect", { class: "stop", x: from, width: to - from, y: TOP, height: HEIGHT - TOP - BOTTOM, fill: "transparent" });
      strip.addEventListener("click", () => onStop(t));
    });
  }

  /** Mark the t that is looked at. */
  show(t) {
    const line = { x1: this.x(t), x2: this.x(t), y1: TOP, y2: HEIGHT - BOTTOM, stroke: INK, "stroke-width": 1.5 };
    this.mark.replaceChildren(element("line", line));
    const point = this.curve.series[0].points.find((one) => one.t === t);
    const dot = { r: 6, fill: "#fff", stroke: INK, "stroke-width": 2 };
    if (point) this.mark.append(element("circle", { cx: this.x(t), cy: this.y(point.value), ...dot }));
  }
}

function entry(name, stroke, dash) {
  const key = element("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" });
  key.append(element("line", { x1: 0, x2: 28, y1: 4, y2: 4, stroke, "stroke-width": 2.4, "stroke-dasharray": dash }));
  const item = document.createElement("li");
  item.append(key, name);
  return item;
}
