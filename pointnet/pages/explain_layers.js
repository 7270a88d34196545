"use strict";
// Scenes 1 to 3: images, kernels, matrices.

// 1. What slides?

function tinted(channels) {
  // (channels, 28, 28)
  return TINT[channels === 1 ? 0 : 1].flatMap(share => Array.from(ink, value => share * value));
}

function whatSlides() {
  const state = {kernel: 3, channels: 1, filters: 1, filter: 0, x: 18.5, y: 7.5}, // the kernel is to be about (x, y)
    buttons = all("[data-kernel]"),
    picture = part("window");
  const kept = {};
  const weights = () => {
    const {kernel, channels, filters} = state,
      key = `${kernel} ${channels} ${filters}`;
    if (kept.key !== key) Object.assign(kept, {key, matrix: randomWeights(filters, channels * kernel ** 2, 1)});
    return kept.matrix;
  };
  const say = across => {
    const {kernel, channels, filters, top, left} = state,
      places = across ** 2,
      size = (kernel ** 2 * channels).toLocaleString("en");
    part("count").textContent = count(kernel ** 2 * channels * filters, "weight");
    part("uses").textContent =
      `${kernel} × ${kernel} × C × D = ${kernel} × ${kernel} × ${channels} × ${filters}, ` +
      `used at ${count(places, "place")}`;
    part("window-caption").textContent =
      kernel === SIDE ? "The kernel covers all: it cannot slide" : "Drag the kernel (blue), or use the arrow keys";
    part("matrix-caption").textContent =
      `The Linear: ${count(filters, "row")} of ${size}. Above it the patch, at its right what comes out`;
    part("map-caption").textContent = `Map of filter ${state.filter}: ${across} × ${across}. Framed: this place`;
    const seen =
      kernel === 1
        ? `pixel ${left} across, ${top} down`
        : `pixels ${left} to ${left + kernel - 1} across, ${top} to ${top + kernel - 1} down`;
    part("slides").textContent =
      `The matrix sees ${seen}. ` +
      (places === 1 ? "There is no other place." : `The same matrix is used at ${count(places - 1, "other place")}.`);
    picture.setAttribute("aria-label", part("slides").textContent);
  };
  const draw = () => {
    const {kernel, channels, filters, filter} = state,
      across = SIDE - kernel + 1,
      size = channels * kernel ** 2;
    [state.top, state.left] = [state.y, state.x].map(at => clamp(Math.round(at - kernel / 2), 0, across - 1));
    const image = Float64Array.from(tinted(channels)),
      weight = weights(),
      map = convolve(weight.subarray(filter * size, (filter + 1) * size), image, SIDE, kernel);
    drawWindow(picture, state);
    drawMatrix(part("matrix"), weight, filters, size, patch(image, SIDE, kernel, state.top, state.left), filter);
    drawMap(part("map"), map, across, state.top, state.left);
    say(across);
  };
  const set = changes => {
    Object.assign(state, changes);
    state.filter = Math.min(state.filter, state.filters - 1);
    part("filter").max = state.filters - 1;
    for (const name of ["kernel", "filter"]) setSlider(part(name), state[name]);
    for (const name of ["channels", "filters"]) part(name).value = state[name];
    part("filter-label").hidden = state.filters === 1;
    press(
      buttons,
      buttons.find(({dataset}) => +dataset.kernel === state.kernel && +dataset.filters === state.filters),
    );
    draw();
  };
  buttons.forEach(({dataset}, i) =>
    buttons[i].addEventListener("click", () => set({kernel: +dataset.kernel, filters: +dataset.filters})),
  );
  for (const name of ["kernel", "filter"])
    part(name).addEventListener("input", event => set({[name]: +event.target.value}));
  for (const name of ["channels", "filters"])
    part(name).addEventListener("change", event => set({[name]: +event.target.value}));
  const mode = holds(picture, all("[data-hand]"), "hand"),
    {to, lift} = pen(),
    drag = (x, y) => (mode() === "draw" ? to(x, y) : set({x: x * SIDE, y: y * SIDE}));
  onPointer(picture, drag, drag, lift);
  onArrows(picture, (x, y) => set({x: state.left + state.kernel / 2 + x, y: state.top + state.kernel / 2 + y}));
  inkButton(document.querySelector("[data-clear]"), clearInk);
  inkButton(document.querySelector("[data-seven]"), drawSeven);
  const across = () => SIDE - state.kernel + 1,
    stride = () => Math.max(1, Math.floor(across() / 9)), // not every place: that would take minutes
    stops = () => Math.ceil(across() / stride());
  stepper(
    part("slide-all"),
    () => stops() ** 2,
    60,
    step => {
      const [row, column] = [Math.floor(step / stops()), step % stops()].map(at => at * stride());
      set({x: column + state.kernel / 2, y: row + state.kernel / 2});
    },
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
  const buttons = all("[data-reach]");
  const x = column => 24 + (column * (wide - 48)) / (COLUMNS - 1),
    y = level => high - 34 - (level * (high - 66)) / state.layers;
  const say = joined => {
    const {level, layers, column, reach} = state,
      name = l => (l === 0 ? "input" : l === layers ? "output" : `layer ${l}, place`);
    const ends = [
      [0, "input", "sees"],
      [layers, "output", "reaches"],
    ].filter(([l]) => l !== level);
    const words = ends.map(([l, end, verb]) => `${verb} ${joined[l].filter(Boolean).length} of ${COLUMNS} ${end}s`);
    const own = reach === "1" ? " Only its own place: nothing else can change it." : "";
    part("sees").textContent =
      `${name(level)} ${column} ${words.join(" and ")}.`.replace(/^./, first => first.toUpperCase()) + own;
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
    ])
      net.append(svg("text", {x: 14, y: l ? 14 : high - 6, fill: colour("faint")}, word));
    say(joined);
  };
  const set = changes => {
    const top = state.level === state.layers;
    Object.assign(state, changes);
    if (changes.layers && top) state.level = state.layers;
    setSlider(part("layers"), state.layers);
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
  const places = PIXELS.toLocaleString("en"),
    weights = (PIXELS ** 2).toLocaleString("en");
  fill(
    part("both"),
    ["", "in place", "flattened first"],
    [
      ["the call", `Conv2d(1, ${PIXELS}, 1)`, `Conv2d(${PIXELS}, ${PIXELS}, 1)`],
      ["input (channels, height, width)", `(1, ${SIDE}, ${SIDE})`, `(${PIXELS}, 1, 1)`],
      ["weights", `${places} filters × 1 channel = ${places}`, `${places} × ${places} = ${weights}`],
      ["used at", `${places} places`, "1 place"],
      ["numbers in the output (outputs, not weights)", `${places} maps × ${places} = ${weights}`, places],
      ["pixels that one output sees", "1", places],
    ],
  );
  const draw = () => {
    const flat = Boolean(state.flat),
      {output} = state,
      image = shade("input", "input");
    part("flat-count").textContent = count(flat ? PIXELS ** 2 : PIXELS, "weight");
    part("flat-words").textContent = flat
      ? `${places} filters × ${places} channels, used at 1 place`
      : `${places} filters × 1 channel, used at ${places} places`;
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
      ? `Input: one place, ${places} channels`
      : `Input: ${places} places, one channel`;
    part("flat-matrix-caption").textContent = `Weights: ${places} rows of ${flat ? places : 1}`;
    part("flat-output-caption").textContent = flat
      ? `Output: ${places} numbers, drawn in rows of ${SIDE}`
      : `Output: map ${output} of ${places}`;
    part("flat-status").textContent = flat
      ? `Output ${output} is ${decimals(result[output], 3)}: the sum of all ${places} pixels, each times its own weight.`
      : `Map ${output} is the picture times ${decimals(single[output], 3)}. Every map is the same picture.`;
  };
  const set = changes => {
    Object.assign(state, changes);
    press(
      buttons,
      buttons.find(button => button.dataset.flat === state.flat),
    );
    part("output").max = PIXELS - 1;
    setSlider(part("output"), state.output);
    draw();
  };
  buttons.forEach(button => button.addEventListener("click", () => set({flat: button.dataset.flat})));
  part("output").addEventListener("input", event => set({output: +event.target.value}));
  onInk.push(draw);
  redraws.push(draw);
  set({});
}

whatSlides();
whoSeesWhom();
flattenFirst();
