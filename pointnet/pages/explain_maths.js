"use strict";
// What the scenes compute; nothing here touches the page. tests/test_explain.py compares it with PyTorch.

function generator(seed) {
  // of numbers in [0, 1), the same on every machine (mulberry32)
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function randomWeights(rows, columns, seed) {
  // (rows, columns), uniform, of variance 1 / columns
  const random = generator(seed),
    reach = Math.sqrt(3 / columns);
  return Float64Array.from({length: rows * columns}, () => (2 * random() - 1) * reach);
}

function shuffledOrder(count, seed) {
  const random = generator(seed),
    order = Array.from({length: count}, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function linear(weight, x) {
  // (D, C), (C,) -> (D,)
  const columns = x.length,
    y = new Float64Array(weight.length / columns);
  for (let d = 0; d < y.length; d++) for (let c = 0; c < columns; c++) y[d] += weight[d * columns + c] * x[c];
  return y;
}

function patch(image, side, kernel, top, left) {
  // of (C, side, side), channel by channel: (C kernel kernel,)
  const channels = image.length / (side * side),
    found = new Float64Array(channels * kernel * kernel);
  let at = 0;
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < kernel; i++)
      for (let j = 0; j < kernel; j++) found[at++] = image[(c * side + top + i) * side + left + j];
  return found;
}

function convolve(filter, image, side, kernel) {
  // one filter (C kernel kernel,) at every place: its map, row by row
  const across = side - kernel + 1,
    map = new Float64Array(across * across);
  for (let p = 0; p < map.length; p++)
    map[p] = linear(filter, patch(image, side, kernel, Math.floor(p / across), p % across))[0];
  return map;
}

function pointwise(weight, image, pixels) {
  // the same (D, C) Linear on each pixel of (C, pixels): (D, pixels)
  const channels = image.length / pixels,
    rows = weight.length / channels,
    maps = new Float64Array(rows * pixels);
  for (let d = 0; d < rows; d++)
    for (let c = 0; c < channels; c++)
      for (let p = 0; p < pixels; p++) maps[d * pixels + p] += weight[d * channels + c] * image[c * pixels + p];
  return maps;
}

function cone(layers, columns, kernel, level, column) {
  // Of each level, 0 the inputs, the columns joined to one node: through layers of this kernel, downwards and upwards.
  const half = (kernel - 1) / 2,
    joined = Array.from({length: layers + 1}, () => Array(columns).fill(false));
  joined[level][column] = true;
  const spread = (from, to) => {
    for (let i = 0; i < columns; i++)
      for (let j = 0; j < columns; j++) if (joined[from][i] && Math.abs(i - j) <= half) joined[to][j] = true;
  };
  for (let l = level; l > 0; l--) spread(l, l - 1);
  for (let l = level; l < layers; l++) spread(l, l + 1);
  return joined;
}

function makeMLP(widths, seed) {
  // weights and biases of its layers
  return widths.slice(1).map((rows, i) => ({
    weight: randomWeights(rows, widths[i], seed + 2 * i).map(w => 1.7 * w),
    bias: randomWeights(rows, 4, seed + 2 * i + 1),
  }));
}

function applyMLP(layers, x) {
  // to one point; a ReLU after each layer
  return layers.reduce((y, {weight, bias}) => linear(weight, y).map((v, d) => Math.max(v + bias[d], 0)), x);
}

function transposed(flat) {
  // (N, 3) as it lies in memory -> (3, N)
  const count = flat.length / 3;
  return flat.map((_, at) => flat[3 * (at % count) + Math.floor(at / count)]);
}

function reshaped(flat) {
  // (N, 3) -> (3, N): the same numbers in the same order, cut at other places
  return flat.slice();
}

function misplaced(count) {
  // of the numbers of (3, N), how many stand where another belongs if a reshape is put for a transpose
  const places = Array.from({length: 3 * count}, (_, at) => at),
    right = transposed(places);
  return reshaped(places).filter((at, i) => at !== right[i]).length;
}

function aligned(rows, T) {
  // each point, as a row, times T: (N, C), (C, C) -> (N, C); x'^T = x^T T
  return rows.map(row => T[0].map((_, j) => row.reduce((sum, value, i) => sum + value * T[i][j], 0)));
}

function turned(T) {
  // upside down and sideways: T^T
  return T[0].map((_, j) => T.map(row => row[j]));
}

function onBoxes(boxes, count, seed) {
  // points on the surfaces of boxes (middle, half sides), in random order: (count, 3)
  const area = ([, , , a, b, c]) => a * b + b * c + c * a,
    total = boxes.reduce((sum, box) => sum + area(box), 0);
  const random = generator(seed),
    points = [];
  for (let n = 0; n < count; n++) {
    let rest = random() * total,
      box = 0;
    while (box < boxes.length - 1 && rest > area(boxes[box])) rest -= area(boxes[box++]);
    const [middle, half] = [boxes[box].slice(0, 3), boxes[box].slice(3)],
      at = half.map(h => h * (2 * random() - 1));
    let side = random() * area(boxes[box]),
      axis = 0;
    const faces = [half[1] * half[2], half[2] * half[0], half[0] * half[1]];
    while (axis < 2 && side > faces[axis]) side -= faces[axis++];
    at[axis] = half[axis] * (random() < 0.5 ? -1 : 1);
    points.push(...at.map((v, i) => v + middle[i]));
  }
  return Float64Array.from(points);
}

function legs(wide, deep, high, thick) {
  // four of them, on the floor
  return [-1, 1].flatMap(x =>
    [-1, 1].map(y => [x * (wide - thick), y * (deep - thick), high / 2, thick, thick, high / 2]),
  );
}

// Furniture of boxes, z up: the middle and half the sides of each.
const SHAPES = {
  chair: [[0, 0, 0.45, 0.24, 0.23, 0.03], [0, 0.21, 0.72, 0.22, 0.02, 0.26], ...legs(0.24, 0.23, 0.44, 0.02)],
  table: [[0, 0, 0.73, 0.7, 0.45, 0.02], ...legs(0.66, 0.41, 0.72, 0.03)],
  bench: [[0, 0, 0.44, 0.75, 0.18, 0.03], ...legs(0.72, 0.17, 0.42, 0.03)],
  bookshelf: [
    [-0.4, 0, 0.8, 0.015, 0.15, 0.8],
    [0.4, 0, 0.8, 0.015, 0.15, 0.8],
    [0, 0.15, 0.8, 0.4, 0.01, 0.8],
    ...[0, 0.4, 0.8, 1.2, 1.57].map(z => [0, 0, z + 0.015, 0.4, 0.15, 0.015]),
  ],
  sofa: [
    [0, 0, 0.22, 0.8, 0.4, 0.2],
    [0, 0.34, 0.55, 0.8, 0.08, 0.25],
    [-0.74, 0, 0.36, 0.08, 0.4, 0.28],
    [0.74, 0, 0.36, 0.08, 0.4, 0.28],
  ],
};
