"use strict";
// Scenes 4 to 6: class maps and their sums, points in a plane, a reshape in place of a transpose.

// 4. Class maps, summed

const CLASSES = 10,
  FEATURES = 3;

function featuresOf(image) {
  // the ink, and how much it changes to the right and downwards: (3, 784)
  const right = image.map((v, i) => (i % SIDE < SIDE - 1 ? image[i + 1] : 0) - v);
  const down = image.map((v, i) => (i < PIXELS - SIDE ? image[i + SIDE] : 0) - v);
  return Float64Array.from([...image, ...right, ...down]);
}

function classMaps() {
  const weight = randomWeights(CLASSES, FEATURES, 5),
    ordinary = randomWeights(CLASSES, FEATURES * PIXELS, 6);
  const order = shuffledOrder(PIXELS, 7),
    state = {shuffled: false, chosen: 0};
  const shuffle = values => values.map((_, i) => values[Math.floor(i / PIXELS) * PIXELS + order[i % PIXELS]]);
  const sliders = Array.from({length: FEATURES}, (_, c) => {
    const slider = make("input", {type: "range", min: -2, max: 2, step: 0.05});
    slider.addEventListener("input", () => {
      weight[state.chosen * FEATURES + c] = +slider.value;
      draw();
    });
    part("class-weights").append(make("label", {}, `weight ${c + 1} `, slider));
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
  const table = (drawn, shuffled) => {
    const d = state.chosen,
      own = weight.subarray(d * FEATURES, (d + 1) * FEATURES);
    // The same weight for all pixels of a channel.
    const tied = Float64Array.from({length: FEATURES * PIXELS}, (_, i) => own[Math.floor(i / PIXELS)]);
    const free = ordinary.subarray(d * FEATURES * PIXELS, (d + 1) * FEATURES * PIXELS);
    const both = of => [drawn, shuffled].map(features => of(features).toFixed(3));
    fill(
      part("tied"),
      [`class ${d}`, "as drawn", "pixels shuffled"],
      [
        ["the class map, summed", ...both(features => sum(pointwise(own, features, PIXELS)))],
        ["fully connected, weights tied", ...both(features => linear(tied, features)[0])],
        ["fully connected, weights free", ...both(features => linear(free, features)[0])],
      ],
    );
  };
  const draw = () => {
    const drawn = featuresOf(ink),
      shuffled = shuffle(drawn),
      features = state.shuffled ? shuffled : drawn;
    const maps = pointwise(weight, features, PIXELS),
      largest = largestOf(maps),
      to = shade("output", "loss");
    all("[data-feature]").forEach((canvas, c) =>
      drawValues(canvas, features.subarray(c * PIXELS, (c + 1) * PIXELS), SIDE, shade("input", "minus")),
    );
    buttons.forEach((button, d) => {
      const map = maps.subarray(d * PIXELS, (d + 1) * PIXELS);
      drawImage(
        button.firstChild,
        Array.from(map, value => to(value / largest)),
        SIDE,
      );
      button.lastChild.textContent = `${d}: ${sum(map).toFixed(2)}`;
      button.setAttribute("aria-label", `class ${d}, sum ${sum(map).toFixed(2)}`);
    });
    press(buttons, buttons[state.chosen]);
    sliders.forEach((slider, c) => {
      slider.value = weight[state.chosen * FEATURES + c];
    });
    part("shuffle-pixels").setAttribute("aria-pressed", String(state.shuffled));
    table(drawn, shuffled);
    part("tied-status").textContent = state.shuffled
      ? "The image is noise now, yet every sum is what it was. Only the free weights notice."
      : "The first two rows are the same number, made in two ways. Shuffle the pixels and look at the sums.";
  };
  part("shuffle-pixels").addEventListener("click", () => {
    state.shuffled = !state.shuffled;
    draw();
  });
  onInk.push(draw);
  scene(draw);
}

// 5. Pixels become points

function pixelsBecomePoints() {
  const layers = makeMLP([2, 8, 8], 44),
    plane = part("plane"),
    table = part("columns"),
    name = n => String.fromCharCode(65 + n);
  const state = {
    points: [
      [-0.7, -0.5],
      [0.1, 0.75],
      [0.65, 0.3],
      [-0.35, 0.2],
      [0.45, -0.7],
    ].map((at, n) => ({name: n, at})),
    chosen: 0,
    fresh: [],
  };
  let next = state.points.length;
  state.points.forEach(point => {
    point.column = applyMLP(layers, point.at);
  });
  const largest = () => state.points[0].column.map((_, c) => Math.max(...state.points.map(point => point.column[c])));
  const to = value => shade("output", "output")(value / 2.2);
  const cell = (value, className) => {
    const colours = to(value),
      dark = colours.reduce((a, b) => a + b) < 3 * 140;
    const td = make("td", {textContent: value.toFixed(1), className});
    td.style.cssText = `background: rgb(${colours}); color: ${dark ? "#fff" : "#10161b"}`;
    return td;
  };
  const drawTable = most => {
    const heads = state.points.map(point =>
      make("th", {textContent: name(point.name), className: state.fresh.includes(point) ? "fresh" : ""}),
    );
    const coordinates = ["x", "y"].map((axis, i) =>
      make(
        "tr",
        {},
        make("th", {scope: "row", textContent: axis}),
        ...state.points.map(point => make("th", {textContent: point.at[i].toFixed(1)})),
      ),
    );
    const rows = Array.from(most, (value, c) => {
      const winner = value > 0 ? state.points.findIndex(point => point.column[c] === value) : -1;
      const cells = state.points.map((point, n) => cell(point.column[c], n === winner ? "wins" : ""));
      return make(
        "tr",
        {},
        make("th", {scope: "row", textContent: `channel ${c + 1}`}),
        ...cells,
        cell(value, "max"),
      );
    });
    table.replaceChildren(
      make("thead", {}, make("tr", {}, make("th"), ...heads, make("th", {textContent: "max", className: "max"}))),
      make("tbody", {}, ...coordinates, ...rows),
    );
  };
  const groups = new Map();
  const groupOf = point => {
    if (!groups.has(point)) {
      const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
      group.setAttribute("class", "point");
      group.setAttribute("tabindex", "0");
      group.setAttribute("role", "button");
      group.setAttribute("aria-label", `point ${name(point.name)}`);
      for (const [className, r] of [
        ["touch", 16],
        ["dot", 8.5],
      ]) {
        const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        circle.setAttribute("class", className);
        circle.setAttribute("r", r);
        group.append(circle);
      }
      const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
      text.textContent = name(point.name);
      text.setAttribute("y", 3.6);
      group.append(text);
      onPointer(
        group,
        () => choose(point),
        (x, y, event) => {
          const box = plane.getBoundingClientRect(),
            at = [event.clientX - box.left, event.clientY - box.top].map(v => (v / box.width) * 2.3 - 1.15);
          move(point, [at[0], -at[1]]);
        },
      );
      onArrows(group, (dx, dy) => move(point, [point.at[0] + 0.05 * dx, point.at[1] - 0.05 * dy]));
      group.addEventListener("focus", () => choose(point));
      group.addEventListener("keydown", event => {
        if (event.key === "Delete") remove();
      });
      groups.set(point, group);
    }
    return groups.get(point);
  };
  const start = "Frames mark where each largest number comes from.";
  const draw = (words = part("again").textContent || start) => {
    const shown = state.points.map(groupOf);
    all("g.point", plane)
      .filter(group => !shown.includes(group))
      .forEach(group => group.remove());
    state.points.forEach((point, n) => {
      if (!shown[n].parentNode) plane.append(shown[n]);
      shown[n].setAttribute("transform", `translate(${100 * point.at[0]} ${-100 * point.at[1]})`);
      shown[n].classList.toggle("chosen", point === state.points[state.chosen]);
    });
    drawTable(largest());
    part("remove-point").disabled = state.points.length === 1;
    part("add-point").disabled = state.points.length === 10;
    part("again").textContent = words;
  };
  const after = (before, words) => {
    // what was done, and how many of the largest numbers it changed
    const changed = largest().filter((value, c) => value !== before[c]).length;
    draw(`${words} ${changed ? `${count(changed, "largest number")} changed` : "No largest number changed"}.`);
  };
  const again = fresh => `${count(fresh, "column")} of ${state.points.length} computed again.`;
  const choose = point => {
    state.chosen = state.points.indexOf(point);
    state.fresh = [];
    draw(start);
  };
  const move = (point, at) => {
    const before = largest();
    point.at = at.map(v => clamp(v, -1, 1));
    point.column = applyMLP(layers, point.at);
    state.fresh = [point];
    after(before, again(1));
  };
  const remove = () => {
    if (state.points.length === 1) return;
    const before = largest(),
      [gone] = state.points.splice(state.chosen, 1);
    state.chosen = 0;
    state.fresh = [];
    after(before, `${name(gone.name)} is gone, with its column. ${again(0)}`);
  };
  part("remove-point").addEventListener("click", remove);
  part("add-point").addEventListener("click", () => {
    const before = largest(),
      random = generator(next),
      at = [2 * random() - 1, 2 * random() - 1];
    const point = {name: next++ % 26, at, column: applyMLP(layers, at)};
    state.points.push(point);
    state.chosen = state.points.length - 1;
    state.fresh = [point];
    after(before, `One column computed for ${name(point.name)}; the others stay.`);
  });
  part("shuffle-points").addEventListener("click", () => {
    const before = largest(),
      chosen = state.points[state.chosen];
    state.points = shuffledOrder(state.points.length, next++ + Date.now()).map(n => state.points[n]);
    state.chosen = state.points.indexOf(chosen);
    state.fresh = [];
    after(before, `The columns travel with their points. ${again(0)}`);
  });
  scene(() => draw());
}

// 6. The classic mistake

function classicMistake() {
  const total = 1024,
    points = inUnitSphere(rowsOfThree(onBoxes(SHAPES.chair, total, 2))),
    buttons = all("[data-made]"),
    state = {made: "transposed"};
  const axes = {transposed: transposed(points), reshaped: reshaped(points)},
    heights = Array.from({length: total}, (_, n) => points[3 * n + 2]);
  const view = new CloudView(part("cloud"));
  view.colours = heights.map(height => rainbow((height + 0.9) / 1.7));
  const cells = ["x", "y", "z"].flatMap(axis => [1, 2, 3, 4].map(n => [axis, n]));
  const inMemory = Array.from({length: 12}, (_, i) => ["x", "y", "z"][i % 3] + (Math.floor(i / 3) + 1));
  const letters = words => words.map(word => make("td", {textContent: word, className: word[0]}));
  part("memory").replaceChildren(
    make(
      "tbody",
      {},
      make("tr", {}, ...letters(inMemory.slice(0, 6))),
      make("tr", {}, ...letters(inMemory.slice(6))),
    ),
  );
  const draw = () => {
    const read = axes[state.made],
      right = state.made === "transposed";
    view.points = Array.from({length: total}, (_, n) => [read[n], read[total + n], read[2 * total + n]]);
    view.draw();
    const words = right ? cells.map(([axis, n]) => axis + n) : inMemory;
    const rows = ["x", "y", "z"].map((axis, i) =>
      make(
        "tr",
        {},
        make("th", {scope: "row", textContent: `as ${axis} `}),
        ...letters(words.slice(4 * i, 4 * i + 4)),
      ),
    );
    part("read").replaceChildren(make("tbody", {}, ...rows));
    part("made").textContent = "(3, 1024)";
    part("made-words").textContent = right
      ? "points.T: the shape is right, and so is the cloud"
      : "points.reshape(3, 1024): the shape is right, the cloud is noise";
    const lost = Array.from(read).filter((value, i) => value !== axes.transposed[i]).length;
    part("mixed").textContent = right
      ? "Every number is where it belongs."
      : `${lost.toLocaleString("en")} of 3,072 numbers are in the wrong place, and no error says so.`;
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
pixelsBecomePoints();
classicMistake();
