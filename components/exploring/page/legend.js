// The names of the colours: which marker is whose, and buttons that hide a class or show it again.

import { marker } from "./map.js";

const MOST_NAMED = 200;

/** A colour and a marker for each name; where the colours run out they begin again with another marker. */
export function stylesOf(names, { colours, shapes }) {
  return names.map((_, at) => ({ colour: colours[at % colours.length], shape: shapes[Math.floor(at / colours.length) % shapes.length] }));
}

/** Fill `list` with a button a name; `onHide(number of the name, whether it is hidden)`. A single name needs no legend. */
export function fillLegend(list, { names, of }, styles, onHide) {
  const counts = names.map(() => 0);
  for (const name of of) counts[name]++;
  const shown = names.length > 1 ? names.slice(0, MOST_NAMED) : [];
  list.replaceChildren(...shown.map((name, at) => entry(name, styles[at], counts[at], (hidden) => onHide(at, hidden))));
}

function entry(name, { colour, shape }, count, onHide) {
  const key = Object.assign(document.createElement("canvas"), { width: 28, height: 28 }); // shown at half its size
  const context = key.getContext("2d");
  context.fillStyle = colour;
  context.beginPath();
  marker(context, shape, 14, 14, 9);
  context.fill();
  const button = document.createElement("button");
  button.append(key, name);
  button.title = `${count} on the map`;
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => {
    const hidden = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!hidden));
    onHide(hidden);
  });
  return button;
}
