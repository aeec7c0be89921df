// What the page does: it asks the server for what there is, and joins slider, map, curve, images and neighbours.

import { Curve } from "./curve.js";
import { fillLegend, stylesOf } from "./legend.js";
import { EmbeddingMap } from "./map.js";

const find = (id) => document.getElementById(id);
const counted = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");

const REST_MS = 150; // how long the slider stands still before it is asked what lies there

async function ask(path, signal) {
  const answer = await fetch(path, { signal });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail ?? `the server answered ${answer.status}`);
  return content;
}

class Page {
  constructor(data) {
    this.data = data;
    this.pointOf = new Map(data.rows.map((row, point) => [row, point]));
    this.question = null; // the last one about neighbours: those before it are called off, as each is a search of all embeddings
    this.row = null; // the image whose neighbours are shown
    const does = { onPoint: (point) => this.hover(point), onPick: (point) => this.pick(data.rows[point], data.labels[point]) };
    this.map = new EmbeddingMap(find("map"), data.maps, does);
    this.describe();
    this.offerColourings();
    this.drawCurve();
    const slider = find("t");
    slider.max = data.timesteps.length - 1;
    slider.addEventListener("input", () => this.show(Number(slider.value)));
    const first = data.chosen.length ? data.timesteps.indexOf(data.chosen[0]) : Math.floor(data.timesteps.length / 2);
    this.show(first, false);
  }

  describe() {
    const { dataset, licence, split, count, rows, timesteps } = this.data;
    document.title = `${dataset}: dier explore`;
    find("title").textContent = dataset;
    const every = `all ${counted(count)} images of ${split}`;
    const drawn = `${counted(rows.length)} of the ${counted(count)} images of ${split}, drawn at random, the same ones each time`;
    const at = timesteps.length > 1 ? `each of ${timesteps.length} timesteps` : `t = ${timesteps[0]}`;
    find("about").textContent =
      `The embeddings at ${at} on a map (t-SNE): ${rows.length < count ? drawn : every}. Images whose embeddings are alike lie close ` +
      `together; directions, and distances between far-away groups, mean nothing. Licence of the images: ${licence}.`;
  }

  offerColourings() {
    const { colourings } = this.data;
    const select = find("colouring");
    select.append(...colourings.map(({ name }, at) => new Option(name, at)));
    select.addEventListener("change", () => this.colour(colourings[select.value]));
    find("by").hidden = colourings.length === 1;
    this.colour(colourings[0]);
  }

  colour(colouring) {
    const styles = stylesOf(colouring.names, this.data.palette);
    this.map.colour(colouring.of, styles);
    fillLegend(find("legend"), colouring, styles, (name, hidden) => this.map.hide(name, hidden));
  }

  drawCurve() {
    const { curve, timesteps } = this.data;
    if (!curve) {
      find("curve").remove();
      return;
    }
    find("curve-title").textContent = curve.title;
    this.curve = new Curve(find("curve"), find("lines"), this.data, (t) => this.show(timesteps.indexOf(t)));
  }

  /** Show the map, the mark on the curve and the neighbours at the timestep of this number. */
  show(number, glide = true) {
    const { timesteps, chosen, curve } = this.data;
    this.t = timesteps[number];
    find("t").value = number;
    const words = `t = ${this.t}${chosen.includes(this.t) ? " (chosen)" : ""}`;
    find("t").setAttribute("aria-valuetext", words);
    find("t-shown").textContent = words;
    this.map.moveTo(number, glide);
    if (this.curve) {
      this.curve.show(this.t);
      const test = curve.test ? ` On test, at the chosen t: ${curve.test}.` : "";
      find("reading").textContent = `${this.curve.reading(this.t) || `t = ${this.t} was not probed`}.${test}`;
    }
    clearTimeout(this.resting);
    if (this.row !== null) this.resting = setTimeout(() => this.pick(this.row, this.label), REST_MS);
  }

  hover(point) {
    const tip = find("tip");
    tip.hidden = point === null;
    if (point === null) return;
    const row = this.data.rows[point];
    const words = named(row, this.data.labels[point]);
    tip.querySelector("img").src = `image/${row}.png`;
    tip.querySelector("img").alt = words;
    tip.querySelector("figcaption").textContent = words;
    find("aimed").textContent = words; // read out to who moves by keyboard
    const [x, y] = this.map.onScreen(point);
    const { width, height } = this.map.view();
    tip.style.left = `${x > width / 2 ? x - tip.offsetWidth - 12 : x + 12}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, height - tip.offsetHeight))}px`;
  }

  /** Ask for the neighbours of an image at this t, and show them. */
  async pick(row, label) {
    [this.row, this.label] = [row, label];
    clearTimeout(this.resting);
    this.question?.abort();
    const { signal } = (this.question = new AbortController());
    let near = [];
    let words = "";
    try {
      near = await ask(`neighbours/${this.t}/${row}.json`, signal);
    } catch (error) {
      words = `No neighbours: ${error.message}`;
    }
    if (signal.aborted) return;
    const same = near.filter((one) => one.label === label).length;
    const agree = label ? ` ${same} of ${near.length} carry its label, ${label}.` : "";
    find("found-title").textContent = `Nearest to image ${row} at t = ${this.t}, by cosine`;
    find("status").textContent = words || `${near.length} neighbours of image ${row} among all of ${this.data.split}.${agree}`;
    find("neighbours").replaceChildren(this.card({ row, label }, "asked"), ...near.map((one) => this.card(one, one.label === label ? "" : "other")));
    const onMap = near.map((one) => this.pointOf.get(one.row)).filter((point) => point !== undefined);
    this.map.pick(this.pointOf.get(row) ?? null, onMap);
  }

  card({ row, label, cosine }, kind) {
    const picture = Object.assign(new Image(), { src: `image/${row}.png`, alt: "" });
    const button = document.createElement("button");
    button.className = kind;
    const figures = cosine === undefined ? "this one" : cosine.toFixed(3);
    button.append(picture, label ? `${label}, ${figures}` : figures);
    button.title = `${named(row, label)}${this.pointOf.has(row) ? "" : ", not on the map"}`;
    button.addEventListener("click", () => this.pick(row, label));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}

const named = (row, label) => (label ? `image ${row}: ${label}` : `image ${row}`);

ask("data.json").then(
  (data) => (globalThis.explored = new Page(data)), // for a look from the console, and for the tests
  (error) => (find("about").textContent = `The page cannot be filled: ${error.message}`),
);
