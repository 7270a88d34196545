"use strict";
// What all scenes use: elements, colours, canvases, questions, and the pad on which a reader draws.

const part = id => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const redraws = []; // of every scene, for when light turns to dark

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach(draw => draw()));
window.addEventListener("resize", () => redraws.forEach(draw => draw()));

function scene(draw) {
  // registers and draws
  redraws.push(draw);
  draw();
}

function make(tag, properties = {}, ...children) {
  // an element; text is text, whatever it says
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function press(buttons, chosen) {
  // one of several buttons is down
  buttons.forEach(button => button.setAttribute("aria-pressed", String(button === chosen)));
}

function rgb(name) {
  // of a colour of the page, #rgb or #rrggbb
  const digits = colour(name).slice(1),
    wide = digits.length === 3 ? [...digits].map(d => d + d) : digits.match(/../g);
  return wide.map(pair => parseInt(pair, 16));
}

function shade(plus, minus) {
  // from a number in [-1, 1] to a colour between the paper and one of two others
  const paper = rgb("paper"),
    ends = [rgb(minus), rgb(plus)];
  return value => {
    const share = Math.min(Math.abs(value), 1),
      end = ends[value > 0 ? 1 : 0];
    return paper.map((from, i) => Math.round(from + share * (end[i] - from)));
  };
}

function largestOf(values) {
  return values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0) || 1;
}

function drawImage(canvas, colours, across) {
  // one pixel of the canvas for each colour, row by row
  canvas.width = across;
  canvas.height = colours.length / across;
  const pixels = new ImageData(canvas.width, canvas.height);
  colours.forEach((values, i) => pixels.data.set([...values, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function drawValues(canvas, values, across, to = shade("output", "loss")) {
  const largest = largestOf(values);
  drawImage(
    canvas,
    Array.from(values, value => to(value / largest)),
    across,
  );
}

function onPointer(canvas, start, move, end = () => {}) {
  // a drag, in shares of the canvas's width and height
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    start(...at(event), event);
  });
  canvas.addEventListener("pointermove", event => {
    if (canvas.hasPointerCapture(event.pointerId)) move(...at(event), event);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function onArrows(element, step) {
  element.addEventListener("keydown", event => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    step(...ARROWS[event.key], event);
  });
}

// Questions: a choice is answered, and then the rest of the scene is worth reading; nothing is hidden.

for (const ask of all(".ask")) {
  const buttons = all(".choices button", ask),
    right = buttons.find(button => "right" in button.dataset);
  buttons.forEach(button =>
    button.addEventListener("click", () => {
      press(buttons, button);
      right.classList.add("right");
      ask.querySelector(".reply").textContent =
        button === right ? "Yes. See why:" : `No: ${right.textContent}. See why:`;
    }),
  );
}

// The image of scenes 1, 3 and 4, drawn once for all of them.

const SIDE = 28,
  PIXELS = SIDE * SIDE;
const ink = new Float64Array(PIXELS),
  onInk = [];

function stroke(x0, y0, x1, y1) {
  // from one place to another, in pixels
  const steps = Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)) + 1;
  for (let s = 0; s <= steps; s++) {
    const x = x0 + ((x1 - x0) * s) / steps,
      y = y0 + ((y1 - y0) * s) / steps;
    for (let row = 0; row < SIDE; row++)
      for (let column = 0; column < SIDE; column++) {
        const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y);
        ink[row * SIDE + column] = Math.max(ink[row * SIDE + column], clamp(2 - distance, 0, 1));
      }
  }
}

function drawSeven() {
  ink.fill(0);
  [
    [8, 7, 20, 7],
    [20, 7, 12, 22],
    [11, 14.5, 19, 14.5],
  ].forEach(line => stroke(...line));
}

function changedInk() {
  onInk.forEach(draw => draw());
}

function drawPad(canvas) {
  const to = shade("ink", "ink");
  drawImage(
    canvas,
    Array.from(ink, value => to(value)),
    SIDE,
  );
}

drawSeven();
for (const holder of all("[data-pad]")) {
  const canvas = make("canvas", {className: "picture pad"});
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "the image of 28 × 28 pixels; draw on it");
  let last = null;
  const draw = (x, y) => {
    const place = [x * SIDE, y * SIDE];
    stroke(...(last || place), ...place);
    last = place;
    changedInk();
  };
  onPointer(canvas, draw, draw, () => {
    last = null;
  });
  const clear = make("button", {
    textContent: "Clear",
    onclick: () => {
      ink.fill(0);
      changedInk();
    },
  });
  const back = make("button", {
    textContent: "A seven",
    onclick: () => {
      drawSeven();
      changedInk();
    },
  });
  holder.append(canvas, make("div", {className: "row under"}, clear, back));
  const drawThis = () => drawPad(canvas);
  onInk.push(drawThis);
  scene(drawThis);
}
