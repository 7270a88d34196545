"use strict";
// The T-Net: points in a plane, multiplied by one matrix.

// A chair from the side: back, seat, legs.
const OUTLINE = [
  ...[0.8, 0.55, 0.3, 0.05].map(y => [-0.5, y]),
  ...[-0.25, 0, 0.25, 0.5].map(x => [x, 0.05]),
  ...[-0.2, -0.45, -0.7].flatMap(y => [
    [-0.5, y],
    [0.5, y],
  ]),
];
const RINGED = 0;
const inWords = value => decimals(value, 2).replace("-", "−");

function rotation(degrees) {
  // what rotates points, as rows, against the clock
  const [c, s] = [Math.cos, Math.sin].map(of => of((degrees * Math.PI) / 180));
  return [
    [c, s],
    [-s, c],
  ];
}

function matrixOfAll() {
  const state = {T: rotation(30), side: "right"},
    sides = all("[data-side]");
  const places = [0, 1].flatMap(i => [0, 1].map(j => [i, j]));
  const sliders = places.map(([i, j]) => {
    const slider = make("input", {type: "range", min: -1, max: 1, step: 0.01});
    slider.addEventListener("input", () => {
      state.T[i][j] = +slider.value;
      draw();
    });
    part("matrix-t").append(make("label", {}, `T row ${i}, column ${j} `, slider, make("output")));
    return slider;
  });
  const dots = (points, name) => points.map(([x, y]) => svg("circle", {cx: 100 * x, cy: -100 * y, r: 5, class: name}));
  const draw = () => {
    const {T, side} = state,
      used = side === "right" ? T : turned(T), // T · column = row · T^T
      moved = aligned(OUTLINE, used),
      [x, y] = OUTLINE[RINGED].map(inWords),
      to = moved[RINGED],
      ring = ([x, y]) => svg("circle", {cx: 100 * x, cy: -100 * y, r: 9, class: "ring"});
    part("t-plane").replaceChildren(
      ...dots(OUTLINE, "before"),
      ...dots(moved, "after"),
      ring(OUTLINE[RINGED]),
      ring(to),
    );
    places.forEach(([i, j], n) => setSlider(sliders[n], T[i][j]));
    press(
      sides,
      sides.find(button => button.dataset.side === side),
    );
    const sums = [0, 1].map(j => `${x} × ${inWords(used[0][j])} + ${y} × ${inWords(used[1][j])} = ${inWords(to[j])}`);
    const product = side === "right" ? `(${x} ${y}) · T` : `T · (${x} ${y})`;
    part("t-example").replaceChildren(
      make("b", {textContent: `${product} = (${to.map(inWords).join(" ")})`}),
      ...sums.map((words, j) => make("span", {textContent: `${"xy"[j]}: ${words}`})),
    );
    part("t-status").textContent =
      side === "right"
        ? `${count(moved.length, "point")}, one T: each point, as a row, is multiplied by it from the right.`
        : "The wrong side: rows and columns of T have changed roles, so a rotation goes the other way. " +
          "All shapes are the same, and no error says so.";
    part("t-plane").setAttribute("aria-label", part("t-status").textContent);
  };
  const set = changes => {
    Object.assign(state, changes);
    draw();
  };
  part("t-rotate").addEventListener("click", () => set({T: rotation(30)}));
  part("t-identity").addEventListener("click", () => set({T: rotation(0)}));
  sides.forEach(button => button.addEventListener("click", () => set({side: button.dataset.side})));
  scene(draw);
}

matrixOfAll();
