"use strict";
// Scenes 1 to 4: images, kernels, matrices.

// A matrix with its input above and its output beside it, drawn to fill a canvas.

const PLOT = 260,
  STRIP = 14,
  GAP = 4;

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

// 1. What slides?

const TINT = [[1], [0.2, 0.55, 0.85]]; // a grey image has one channel, a coloured one three

function tinted(channels) {
  // (channels, 28, 28)
  return TINT[channels === 1 ? 0 : 1].flatMap(share => Array.from(ink, value => share * value));
}

function whatSlides() {
  const state = {kernel: 28, channels: 1, filters: 784, filter: 0, x: 18.5, y: 7.5}, // the kernel is to be about (x, y)
    buttons = all("[data-kernel]");
  const kept = {};
  const weights = () => {
    const {kernel, channels, filters} = state,
      key = `${kernel} ${channels} ${filters}`;
    if (kept.key !== key) Object.assign(kept, {key, matrix: randomWeights(filters, channels * kernel ** 2, 1)});
    return kept.matrix;
  };
  const drawWindow = () => {
    const canvas = part("window"),
      context = canvas.getContext("2d"),
      scale = 9,
      {kernel, top, left} = state;
    canvas.width = canvas.height = SIDE * scale;
    const paper = rgb("paper"),
      pen = state.channels === 1 ? rgb("ink") : TINT[1].map(share => 255 * share);
    ink.forEach((value, i) => {
      context.fillStyle = `rgb(${paper.map((from, c) => Math.round(from + value * (pen[c] - from)))})`;
      context.fillRect(scale * (i % SIDE), scale * Math.floor(i / SIDE), scale, scale);
    });
    context.strokeStyle = colour("weight");
    context.lineWidth = 3;
    context.strokeRect(scale * left + 1.5, scale * top + 1.5, scale * kernel - 3, scale * kernel - 3);
  };
  const say = across => {
    const {kernel, channels, filters, top, left} = state,
      places = across ** 2,
      one = kernel ** 2 * channels * filters;
    part("count").textContent = count(one, "weight");
    part("uses").textContent =
      `${kernel} × ${kernel} × C × D = ${kernel} × ${kernel} × ${channels} × ${filters}, ` +
      `used at ${count(places, "place")}`;
    part("window-caption").textContent =
      kernel === SIDE ? "The kernel covers all: it cannot slide" : "Drag the kernel, or use the arrow keys";
    part("matrix-caption").textContent =
      `The Linear: ${filters} rows of ${(kernel ** 2 * channels).toLocaleString("en")}`;
    part("map-caption").textContent = `Map of filter ${state.filter + 1}: ${across} × ${across}`;
    const seen =
      kernel === 1
        ? `pixel (${top}, ${left})`
        : `rows ${top} to ${top + kernel - 1}, columns ${left} to ${left + kernel - 1}`;
    part("slides").textContent =
      `The matrix sees ${seen}. ` +
      (places === 1 ? "There is no other place." : `The same matrix is used at ${count(places - 1, "other place")}.`);
    part("window").setAttribute("aria-label", part("slides").textContent);
  };
  const draw = () => {
    const {kernel, channels, filters, filter} = state,
      across = SIDE - kernel + 1,
      size = channels * kernel ** 2;
    [state.top, state.left] = [state.y, state.x].map(at => clamp(Math.round(at - kernel / 2), 0, across - 1));
    const image = Float64Array.from(tinted(channels)),
      weight = weights();
    drawWindow();
    drawMatrix(part("matrix"), weight, filters, size, patch(image, SIDE, kernel, state.top, state.left), filter);
    drawValues(
      part("map"),
      convolve(weight.subarray(filter * size, (filter + 1) * size), image, SIDE, kernel),
      across,
    );
    say(across);
  };
  const set = changes => {
    Object.assign(state, changes);
    state.filter = Math.min(state.filter, state.filters - 1);
    part("kernel").value = state.kernel;
    part("filter").max = state.filters;
    part("filter").value = state.filter + 1;
    part("filter-label").hidden = state.filters === 1;
    press(
      buttons,
      buttons.find(button => +button.dataset.kernel === state.kernel),
    );
    draw();
  };
  buttons.forEach(button => button.addEventListener("click", () => set({kernel: +button.dataset.kernel})));
  part("kernel").addEventListener("input", event => set({kernel: +event.target.value}));
  part("channels").addEventListener("change", event => set({channels: +event.target.value}));
  part("filters").addEventListener("change", event => set({filters: +event.target.value}));
  part("filter").addEventListener("input", event => set({filter: event.target.value - 1}));
  const to = (x, y) => set({x: x * SIDE, y: y * SIDE});
  onPointer(part("window"), to, to);
  onArrows(part("window"), (x, y) =>
    set({x: state.left + state.kernel / 2 + x, y: state.top + state.kernel / 2 + y}),
  );
  onInk.push(draw);
  redraws.push(draw);
  set({});
}

// 2. Who sees whom?

const COLUMNS = 15;

function whoSeesWhom() {
  const net = part("net"),
    wide = 640,
    high = 250,
    state = {reach: "3", layers: 4, level: 4, column: 7};
  const buttons = all("[data-reach]"),
    svg = (tag, named) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(named)) element.setAttribute(name, value);
      return element;
    };
  const x = column => 24 + (column * (wide - 48)) / (COLUMNS - 1),
    y = level => high - 34 - (level * (high - 66)) / state.layers;
  const say = joined => {
    const {level, layers, column, reach} = state,
      name = l => (l === 0 ? "input" : l === layers ? "output" : `layer ${l}, column`);
    const ends = [
      [0, "input", "sees"],
      [layers, "output", "reaches"],
    ].filter(([l]) => l !== level);
    const words = ends.map(([l, end, verb]) => `${verb} ${joined[l].filter(Boolean).length} of ${COLUMNS} ${end}s`);
    const own = reach === "1" ? " Only its own column: nothing else can change it." : "";
    part("sees").textContent =
      `${name(level)} ${column + 1} ${words.join(" and ")}.`.replace(/^./, first => first.toUpperCase()) + own;
    net.setAttribute("aria-label", part("sees").textContent);
  };
  const draw = () => {
    const kernel = state.reach === "all" ? 2 * COLUMNS - 1 : +state.reach,
      half = (kernel - 1) / 2;
    state.level = state.level > state.layers ? state.layers : state.level;
    const joined = cone(state.layers, COLUMNS, kernel, state.level, state.column),
      lines = svg("g", {}),
      lit = svg("g", {});
    net.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    net.replaceChildren(lines, lit);
    for (let l = 0; l <= state.layers; l++) {
      const nodes = svg("g", {class: l === 0 ? "inputs" : l === state.layers ? "outputs" : "hidden"});
      for (let i = 0; i < COLUMNS; i++) {
        const on = joined[l][i] ? "on" : "",
          chosen = l === state.level && i === state.column ? " chosen" : "";
        nodes.append(svg("circle", {cx: x(i), cy: y(l), r: 9, class: on + chosen}));
        for (let j = 0; l && j < COLUMNS; j++)
          if (Math.abs(i - j) <= half) {
            const both = joined[l][i] && joined[l - 1][j];
            (both ? lit : lines).append(
              svg("line", {x1: x(i), y1: y(l), x2: x(j), y2: y(l - 1), class: both ? "on" : ""}),
            );
          }
      }
      net.append(nodes);
    }
    for (const [l, word] of [
      [0, "inputs"],
      [state.layers, "outputs"],
    ]) {
      const text = svg("text", {x: 14, y: l ? 14 : high - 6, fill: colour("faint")});
      text.textContent = word;
      net.append(text);
    }
    say(joined);
  };
  const set = changes => {
    const top = state.level === state.layers;
    Object.assign(state, changes);
    if (changes.layers && top) state.level = state.layers;
    press(
      buttons,
      buttons.find(button => button.dataset.reach === state.reach),
    );
    draw();
  };
  const point = event => {
    const box = net.getBoundingClientRect(),
      [px, py] = [((event.clientX - box.left) / box.width) * wide, ((event.clientY - box.top) / box.height) * high];
    const column = clamp(Math.round(((px - 24) * (COLUMNS - 1)) / (wide - 48)), 0, COLUMNS - 1);
    set({column, level: clamp(Math.round(((high - 34 - py) * state.layers) / (high - 66)), 0, state.layers)});
  };
  net.addEventListener("pointermove", point);
  net.addEventListener("pointerdown", point);
  onArrows(net, (dx, dy) =>
    set({column: clamp(state.column + dx, 0, COLUMNS - 1), level: clamp(state.level - dy, 0, state.layers)}),
  );
  buttons.forEach(button => button.addEventListener("click", () => set({reach: button.dataset.reach})));
  part("layers").addEventListener("input", event => set({layers: +event.target.value}));
  redraws.push(draw);
  set({});
}

// 3. Flatten first

function fill(table, head, rows) {
  // a table of words; its first column heads the rows
  const heads = head.map(word => make("th", {textContent: word}));
  const lines = rows.map(([name, ...values]) =>
    make(
      "tr",
      {},
      make("th", {scope: "row", textContent: name}),
      ...values.map(word => make("td", {textContent: word})),
    ),
  );
  table.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines));
}

function flattenFirst() {
  const dense = randomWeights(PIXELS, PIXELS, 3),
    single = randomWeights(PIXELS, 1, 4),
    buttons = all("[data-flat]");
  const state = {flat: "", output: 299};
  fill(
    part("both"),
    ["", "in place", "flattened first"],
    [
      ["input (channels, rows, columns)", "(1, 28, 28)", "(784, 1, 1)"],
      ["places, each seen once", "784", "1"],
      ["weights", "784 × 1 = 784", "784 × 784 = 614,656"],
      ["numbers in the output", "784 maps × 784 = 614,656", "784"],
      ["pixels that one output sees", "1", "784"],
      ["multiplications", "614,656", "614,656"],
    ],
  );
  const draw = () => {
    const flat = Boolean(state.flat),
      {output} = state,
      image = shade("input", "input");
    part("flat-count").textContent = count(flat ? PIXELS ** 2 : PIXELS, "weight");
    part("flat-words").textContent = flat
      ? "784 filters × 784 channels, used at 1 place"
      : "784 filters × 1 channel, used at 784 places";
    const canvas = part("flat-input"),
      context = canvas.getContext("2d");
    canvas.width = canvas.height = PLOT;
    ink.forEach((value, i) => {
      const [left, top, w, h] = flat
        ? [PLOT / 2 - 12, (i * PLOT) / PIXELS, 24, 1]
        : [((i % SIDE) * PLOT) / SIDE, (Math.floor(i / SIDE) * PLOT) / SIDE, PLOT / SIDE, PLOT / SIDE];
      context.fillStyle = `rgb(${image(value)})`;
      context.fillRect(left, top, Math.ceil(w), Math.ceil(h));
    });
    context.strokeStyle = colour("edge");
    context.strokeRect(...(flat ? [PLOT / 2 - 12.5, 0.5, 25, PLOT - 1] : [0.5, 0.5, PLOT - 1, PLOT - 1]));
    const middle = 14 * SIDE + 14;
    drawMatrix(
      part("flat-matrix"),
      flat ? dense : single,
      PIXELS,
      flat ? PIXELS : 1,
      flat ? ink : ink.slice(middle, middle + 1),
      output,
    );
    const result = flat ? linear(dense, ink) : pointwise(single.subarray(output, output + 1), ink, PIXELS);
    drawValues(part("flat-output"), result, SIDE);
    part("flat-input-caption").textContent = flat
      ? "Input: one place, 784 channels"
      : "Input: 784 places, one channel";
    part("flat-matrix-caption").textContent = flat ? "Weights: 784 rows of 784" : "Weights: 784 rows of 1";
    part("flat-output-caption").textContent = flat
      ? "Output: 784 numbers, drawn in rows of 28"
      : `Output: map ${output + 1} of 784`;
    part("flat-status").textContent = flat
      ? `Output ${output + 1} is ${result[output].toFixed(3)}: the sum of all 784 pixels, each times its own weight.`
      : `Map ${output + 1} is the image times ${single[output].toFixed(3)}. Every map is the same picture.`;
  };
  const set = changes => {
    Object.assign(state, changes);
    press(
      buttons,
      buttons.find(button => button.dataset.flat === state.flat),
    );
    draw();
  };
  buttons.forEach(button => button.addEventListener("click", () => set({flat: button.dataset.flat})));
  part("output").addEventListener("input", event => set({output: event.target.value - 1}));
  onInk.push(draw);
  redraws.push(draw);
  set({});
}

whatSlides();
whoSeesWhom();
flattenFirst();
