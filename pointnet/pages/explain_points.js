"use strict";
// Scenes 4 to 6: class maps and their sums, points in a plane, a reshape in place of a transpose.

// 4. Class maps, summed

const CLASSES = 10,
  FEATURES = 3;

function featuresOf(image) {
  // the ink, and how much it changes to the right and below, without sign (with it the sum would be 0): (3, PIXELS)
  const right = image.map((v, i) => Math.abs((i % SIDE < SIDE - 1 ? image[i + 1] : 0) - v));
  const down = image.map((v, i) => Math.abs((i < PIXELS - SIDE ? image[i + SIDE] : 0) - v));
  return Float64Array.from([...image, ...right, ...down]);
}

function classMaps() {
  const weight = randomWeights(CLASSES, FEATURES, 5),
    ordinary = randomWeights(CLASSES, FEATURES * PIXELS, 6);
  const order = shuffledOrder(PIXELS, 7),
    state = {shuffled: false, chosen: 0};
  const shuffle = values => values.map((_, i) => values[Math.floor(i / PIXELS) * PIXELS + order[i % PIXELS]]);
  const sliders = Array.from({length: FEATURES}, (_, c) => {
    const slider = make("input", {type: "range", min: -2, max: 2, step: 0.01});
    slider.addEventListener("input", () => {
      weight[state.chosen * FEATURES + c] = +slider.value;
      draw();
    });
    part("class-weights").append(make("label", {}, `weight ${c} `, slider, make("output")));
    return slider;
  });
  const buttons = Array.from({length: CLASSES}, (_, d) => {
    const button = make("button", {}, make("canvas"), make("span"));
    button.addEventListener("click", () => {
      state.chosen = d;
      draw();
    });
    part("maps").append(button);
    return button;
  });
  const sum = values => values.reduce((total, value) => total + value, 0);
  const table = (drawn, now) => {
    const d = state.chosen,
      own = weight.subarray(d * FEATURES, (d + 1) * FEATURES);
    // The same weight for all pixels of a channel.
    const tied = Float64Array.from({length: FEATURES * PIXELS}, (_, i) => own[Math.floor(i / PIXELS)]);
    const free = ordinary.subarray(d * FEATURES * PIXELS, (d + 1) * FEATURES * PIXELS);
    const both = of => [drawn, now].map(features => decimals(of(features), 3));
    const map = both(features => sum(pointwise(own, features, PIXELS)));
    fill(
      part("tied"),
      [`map ${d}`, "as drawn", state.shuffled ? "shuffled" : "now"],
      [
        ["the map, summed", ...map],
        ["dense layer, weights tied", ...both(features => linear(tied, features)[0])],
      ],
    );
    const [before, after] = both(features => linear(free, features)[0]);
    part("tied-status").textContent = !state.shuffled
      ? "The two rows are the same number, made in two ways."
      : drawn.every((value, i) => value === now[i])
        ? "All pixels of this picture are alike, so that shuffled it is what it was. Draw something."
        : "The channels and the maps are noise now, yet the sums are what they were. " +
          `A dense layer with a weight per pixel would notice: ${before} has become ${after}.`;
  };
  const draw = () => {
    const drawn = featuresOf(ink),
      shuffled = shuffle(drawn),
      features = state.shuffled ? shuffled : drawn;
    const maps = pointwise(weight, features, PIXELS);
    all("[data-feature]").forEach((canvas, c) =>
      drawValues(canvas, features.subarray(c * PIXELS, (c + 1) * PIXELS), SIDE, shade("input", "minus")),
    );
    buttons.forEach((button, d) => {
      const map = maps.subarray(d * PIXELS, (d + 1) * PIXELS);
      drawValues(button.firstChild, map, SIDE);
      button.lastChild.textContent = `map ${d}\n${decimals(sum(map), 1)}`;
      button.setAttribute("aria-label", `map ${d}, sum ${decimals(sum(map), 1)}`);
    });
    press(buttons, buttons[state.chosen]);
    sliders.forEach((slider, c) => setSlider(slider, weight[state.chosen * FEATURES + c]));
    part("shuffle-pixels").setAttribute("aria-pressed", String(state.shuffled));
    table(drawn, features);
  };
  part("shuffle-pixels").addEventListener("click", () => {
    state.shuffled = !state.shuffled;
    draw();
  });
  onInk.push(draw);
  scene(draw);
}

// 5. Pixels become points

const MOST_POINTS = 10,
  WIDTHS = [2, 8, 8];
const letter = point => String.fromCharCode(65 + point.name);
const placed = at => `(${at.map(v => decimals(v, 1)).join(",\u00a0")})`;

class Plane {
  constructor() {
    this.layers = makeMLP(WIDTHS, 44);
    const places = [
      [-0.7, -0.5],
      [0.1, 0.75],
      [0.65, 0.3],
      [-0.35, 0.2],
      [0.45, -0.7],
    ];
    this.points = places.map((at, name) => this.point(name, at));
    this.next = this.points.length;
    this.chosen = this.points[0];
    this.fresh = []; // whose columns were computed again
    this.run = Infinity; // the columns that are there, while the MLP runs point by point
    this.groups = new Map();
    this.listen();
  }

  point(name, at) {
    return {name, at, column: applyMLP(this.layers, at)};
  }

  largest() {
    return this.points[0].column.map((_, c) => Math.max(...this.points.map(point => point.column[c])));
  }

  listen() {
    stepper(
      part("run-points"),
      () => this.points.length,
      900,
      step => this.runTo(step),
    );
    part("swap-points").addEventListener("click", () => this.swap());
    part("shuffle-points").addEventListener("click", () => this.shuffle());
    part("add-point").addEventListener("click", () => this.add());
    part("remove-point").addEventListener("click", () => this.remove());
  }

  // What a reader does.

  runTo(step) {
    this.chosen = this.points[step];
    this.fresh = [this.chosen];
    this.run = step + 1;
    const done = this.run === this.points.length ? " All points are done; now the maximum of each row." : "";
    this.draw(`The MLP has run for ${letter(this.chosen)}, alone.${done}`);
    if (done) this.run = Infinity;
  }

  after(before, fresh, words) {
    // what was done, and how many of the largest numbers it changed
    const changed = this.largest().filter((value, c) => value !== before[c]).length,
      again = `${count(fresh.length, "column")} of ${this.points.length} computed again.`;
    this.fresh = fresh;
    this.run = Infinity;
    this.draw(
      `${words} ${again} ${changed ? count(changed, "largest number") : "No largest number"} changed.`.trimStart(),
    );
  }

  choose(point) {
    this.chosen = point;
    this.fresh = [];
    this.run = Infinity;
    this.draw(`${letter(point)} is chosen. Frames mark where each largest number comes from.`);
  }

  move(point, at) {
    const before = this.largest();
    point.at = at.map(v => clamp(v, -1, 1));
    point.column = applyMLP(this.layers, point.at);
    this.after(before, [point], "");
  }

  swap() {
    // the chosen one and the next
    if (this.points.length === 1) return;
    const before = this.largest(),
      n = this.points.indexOf(this.chosen),
      m = (n + 1) % this.points.length,
      [one, two] = [this.points[n], this.points[m]];
    [this.points[n], this.points[m]] = [two, one];
    this.after(before, [], `${letter(one)} and ${letter(two)} have changed places, and so have their columns.`);
  }

  shuffle() {
    const before = this.largest();
    this.points = shuffledOrder(this.points.length, this.next++ + Date.now()).map(n => this.points[n]);
    this.after(before, [], "The columns travel with their points.");
  }

  add() {
    const before = this.largest(),
      random = generator(this.next);
    this.chosen = this.point(this.next++ % 26, [2 * random() - 1, 2 * random() - 1]);
    this.points.push(this.chosen);
    this.after(before, [this.chosen], `${letter(this.chosen)} is new.`);
  }

  remove() {
    if (this.points.length === 1) return;
    const before = this.largest(),
      gone = this.chosen;
    this.points.splice(this.points.indexOf(gone), 1);
    this.chosen = this.points[0];
    this.after(before, [], `${letter(gone)} is gone, with its column.`);
  }

  // What a reader sees.

  draw(words = part("again").textContent) {
    const plane = part("plane"),
      shown = this.points.map(point => this.groupOf(point));
    all("g.point", plane).forEach(group => shown.includes(group) || group.remove());
    this.points.forEach((point, n) => {
      if (!shown[n].parentNode) plane.append(shown[n]);
      shown[n].setAttribute("transform", `translate(${100 * point.at[0]} ${-100 * point.at[1]})`);
      shown[n].classList.toggle("chosen", point === this.chosen);
    });
    this.drawTable();
    part("run-in").textContent = `${letter(this.chosen)} ${placed(this.chosen.at)}`;
    part("run-out").textContent = `column ${letter(this.chosen)}`;
    part("run-mlp").textContent = WIDTHS.join(" → ");
    part("swap-points").disabled = part("remove-point").disabled = this.points.length === 1;
    part("add-point").disabled = this.points.length === MOST_POINTS;
    part("add-point").textContent =
      this.points.length === MOST_POINTS ? `Add one (${MOST_POINTS} is the most)` : "Add one";
    part("again").textContent = words;
  }

  drawTable() {
    const {points} = this,
      most = this.largest(),
      to = shade("output", "output"),
      row = (name, ...cells) => make("tr", {}, make("th", {scope: "row", textContent: name}), ...cells),
      done = n => n < this.run;
    const cell = (value, className, there) => {
      const colours = to(value / 2.2),
        dark = colours.reduce((a, b) => a + b) < 3 * 140,
        td = make("td", {textContent: there ? decimals(value, 1) : "", className});
      if (there) td.style.cssText = `background: rgb(${colours}); color: ${dark ? "#fff" : "#10161b"}`;
      return td;
    };
    const heads = points.map(point =>
      make("th", {textContent: letter(point), className: this.fresh.includes(point) ? "fresh" : ""}),
    );
    const max = textContent => make("th", {textContent, className: "max"});
    const coordinates = ["x", "y"].map((axis, i) =>
      row(axis, ...points.map(point => make("th", {textContent: decimals(point.at[i], 1)})), max("")),
    );
    const rows = Array.from(most, (value, c) => {
      const winner = value > 0 && done(points.length - 1) ? points.findIndex(({column}) => column[c] === value) : -1;
      const cells = points.map(({column}, n) => cell(column[c], n === winner ? "wins" : "", done(n)));
      return row(`channel ${c}`, ...cells, cell(value, "max", done(points.length - 1)));
    });
    part("columns").replaceChildren(
      make("thead", {}, make("tr", {}, make("th"), ...heads, max("max"))),
      make("tbody", {}, ...coordinates, ...rows),
    );
    scrollSideways(part("columns"), heads[points.indexOf(this.chosen)]);
  }

  groupOf(point) {
    if (!this.groups.has(point)) this.groups.set(point, this.newGroup(point));
    return this.groups.get(point);
  }

  newGroup(point) {
    const plane = part("plane"),
      named = {class: "point", tabindex: 0, role: "button", "aria-label": `point ${letter(point)}`},
      group = svg("g", named);
    group.append(svg("circle", {class: "touch", r: 16}), svg("circle", {class: "dot", r: 8.5}));
    group.append(svg("text", {y: 3.6}, letter(point)));
    onPointer(
      group,
      () => this.choose(point),
      (x, y, event) => {
        const box = plane.getBoundingClientRect(),
          at = [event.clientX - box.left, event.clientY - box.top].map(v => (v / box.width) * 2.3 - 1.15);
        this.move(point, [at[0], -at[1]]);
      },
    );
    onArrows(group, (dx, dy) => this.move(point, [point.at[0] + 0.05 * dx, point.at[1] - 0.05 * dy]));
    group.addEventListener("focus", () => this.choose(point));
    group.addEventListener("keydown", event => {
      if (event.key === "Delete") this.remove();
    });
    return group;
  }
}

// 6. The classic mistake

function classicMistake() {
  const total = POINTS,
    points = inUnitSphere(rowsOfThree(onBoxes(SHAPES.chair, total, 2))),
    buttons = all("[data-made]"),
    state = {made: "transposed"};
  const axes = {transposed: transposed(points), reshaped: reshaped(points)},
    heights = Array.from({length: total}, (_, n) => points[3 * n + 2]);
  const view = new CloudView(part("cloud"));
  view.colours = heights.map(height => rainbow((height + 0.9) / 1.7));
  const COUNT = 4,
    name = at => "xyz"[at % 3] + (Math.floor(at / 3) + 1), // of the small cloud's number at a place in memory
    memory = Array.from({length: 3 * COUNT}, (_, at) => at),
    small = {transposed: transposed(memory), reshaped: reshaped(memory)};
  const letters = (places, framed) =>
    places.map((at, i) => make("td", {textContent: name(at), className: name(at)[0] + (i === framed ? " one" : "")}));
  part("memory").replaceChildren(make("tbody", {}, make("tr", {}, ...letters(memory))));
  const draw = () => {
    const read = axes[state.made],
      right = state.made === "transposed";
    view.points = Array.from({length: total}, (_, n) => [read[n], read[total + n], read[2 * total + n]]);
    view.draw();
    const made = small[state.made],
      rowOf = i => made.slice(COUNT * i, COUNT * (i + 1)),
      first = [0, 1, 2].map(i => name(rowOf(i)[0])).join(" ");
    const rows = ["x", "y", "z"].map((axis, i) =>
      make("tr", {}, make("th", {scope: "row", textContent: `as ${axis} `}), ...letters(rowOf(i), 0)),
    );
    part("read").replaceChildren(make("tbody", {}, ...rows));
    part("first-column").textContent = `(${first}): ${right ? "one point." : "numbers of three points."}`;
    part("made").textContent = `(3, ${total})`;
    part("made-words").textContent = right
      ? "points.T: the shape is right, and so is the cloud"
      : `points.reshape(3, ${total}): the shape is right, the cloud is not yours`;
    part("mixed").textContent = right
      ? "Every number is where it belongs."
      : `${misplaced(total).toLocaleString("en")} of ${(3 * total).toLocaleString("en")} numbers stand where ` +
        "another belongs (only the first and the last do not), and no error says so.";
    press(
      buttons,
      buttons.find(button => button.dataset.made === state.made),
    );
  };
  buttons.forEach(button =>
    button.addEventListener("click", () => {
      state.made = button.dataset.made;
      draw();
    }),
  );
  part("cloud").setAttribute("aria-label", "the cloud of a chair as it was read");
  scene(draw);
}

classMaps();
const plane = new Plane();
redraws.push(() => plane.draw());
plane.choose(plane.chosen);
classicMistake();
