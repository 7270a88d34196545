"use strict";
// Colours and canvases, and the image of scenes 1, 3 and 4 with the pad on which a reader draws it.

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

function pen() {
  // draws from place to place, in shares of the image's width and height, until it is lifted
  let last = null;
  return {
    to(x, y) {
      const place = [x * SIDE, y * SIDE];
      stroke(...(last || place), ...place);
      last = place;
      changedInk();
    },
    lift() {
      last = null;
    },
  };
}

function inkButton(button, fillIn) {
  button.addEventListener("click", () => {
    fillIn();
    changedInk();
  });
  return button;
}

const clearInk = () => ink.fill(0);

drawSeven();
for (const holder of all("[data-pad]")) {
  const canvas = make("canvas", {className: "picture pad"}),
    {to, lift} = pen();
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "the image of 28 × 28 pixels; draw on it");
  onPointer(canvas, to, to, lift);
  const buttons = [
    inkButton(make("button", {textContent: "clear"}), clearInk),
    inkButton(make("button", {textContent: "a seven"}), drawSeven),
  ];
  holder.append(canvas, make("div", {className: "row under"}, ...buttons));
  const drawThis = () => drawPad(canvas);
  onInk.push(drawThis);
  scene(drawThis);
}

// A matrix with its input above and its output beside it, drawn to fill a canvas.

const PLOT = 260,
  STRIP = 14,
  GAP = 4,
  CELL = 9; // of a pixel of the image

function drawMatrix(canvas, weight, rows, columns, x, chosen) {
  const context = canvas.getContext("2d"),
    y = linear(weight, x),
    sizes = [largestOf(weight), largestOf(x), largestOf(y)];
  const [ofWeight, ofInput, ofOutput] = [shade("weight", "minus"), shade("input", "input"), shade("output", "loss")];
  canvas.width = canvas.height = PLOT;
  const room = PLOT - STRIP - GAP,
    cells = Math.min(room, Math.max(rows, columns) * 40);
  const width = columns === 1 ? Math.min(40, room) : cells,
    height = rows === 1 ? Math.min(40, room) : cells;
  const fill = (share, to, size) => {
    context.fillStyle = `rgb(${to(share / size)})`;
  };
  const each = (length, extent, paint) => {
    // one rectangle per pixel at most
    const steps = Math.min(length, Math.floor(extent));
    for (let i = 0; i < steps; i++) paint(Math.floor((i * length) / steps), (i * extent) / steps, extent / steps);
  };
  context.clearRect(0, 0, PLOT, PLOT);
  each(columns, width, (c, left, wide) => {
    fill(x[c], ofInput, sizes[1]);
    context.fillRect(left, 0, wide, STRIP);
    each(rows, height, (d, top, high) => {
      fill(weight[d * columns + c], ofWeight, sizes[0]);
      context.fillRect(left, STRIP + GAP + top, Math.ceil(wide), Math.ceil(high));
    });
  });
  each(rows, height, (d, top, high) => {
    fill(y[d], ofOutput, sizes[2]);
    context.fillRect(width + GAP, STRIP + GAP + top, STRIP, Math.ceil(high));
  });
  context.strokeStyle = colour("edge");
  context.strokeRect(0.5, 0.5, width - 1, STRIP - 1);
  context.strokeRect(0.5, STRIP + GAP + 0.5, width - 1, height - 1);
  context.strokeRect(width + GAP + 0.5, STRIP + GAP + 0.5, STRIP - 1, height - 1);
  if (rows > 1) {
    context.strokeStyle = colour("ink");
    context.strokeRect(
      0.5,
      STRIP + GAP + (chosen * height) / rows,
      width + GAP + STRIP - 1,
      Math.max(height / rows, 2),
    );
  }
}

const TINT = [[1], [0.2, 0.55, 0.85]]; // a grey image has one channel, a coloured one three

function drawMap(canvas, values, across, top, left) {
  // the values of all places; a frame around that where the kernel is
  const context = canvas.getContext("2d"),
    scale = Math.max(Math.floor((SIDE * CELL) / across), 1),
    largest = largestOf(values),
    to = shade("output", "loss");
  canvas.width = canvas.height = scale * across;
  values.forEach((value, i) => {
    context.fillStyle = `rgb(${to(value / largest)})`;
    context.fillRect(scale * (i % across), scale * Math.floor(i / across), scale, scale);
  });
  context.strokeStyle = colour("ink");
  context.lineWidth = 2;
  context.strokeRect(scale * left + 1, scale * top + 1, scale - 2, scale - 2);
}

function drawWindow(canvas, {kernel, top, left, channels}) {
  // the image, and the kernel as a frame
  const context = canvas.getContext("2d"),
    paper = rgb("paper"),
    pen = channels === 1 ? rgb("ink") : TINT[1].map(share => 255 * share);
  canvas.width = canvas.height = SIDE * CELL;
  ink.forEach((value, i) => {
    context.fillStyle = `rgb(${paper.map((from, c) => Math.round(from + value * (pen[c] - from)))})`;
    context.fillRect(CELL * (i % SIDE), CELL * Math.floor(i / SIDE), CELL, CELL);
  });
  for (const [name, width] of [
    ["paper", 5],
    ["input", 3],
  ]) {
    context.strokeStyle = colour(name);
    context.lineWidth = width;
    context.strokeRect(CELL * left + 1.5, CELL * top + 1.5, CELL * kernel - 3, CELL * kernel - 3);
  }
}
