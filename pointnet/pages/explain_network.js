"use strict";
// PointNet without T-Nets: a shared MLP, the largest value of each channel, a head. Its weights are in the page.

const POINTS = 1024; // of a cloud

class Network {
  // packed: what pointnet/pages/explain_weights.py makes. Rows of a matrix are whole numbers times a scale.
  constructor(packed) {
    this.classes = packed.classes;
    this.temperature = packed.temperature;
    const bytes = Uint8Array.from(atob(packed.data), letter => letter.charCodeAt(0));
    const rows = packed.layers.reduce((sum, [D]) => sum + D, 0),
      floats = new Float32Array(bytes.buffer, 0, 2 * rows);
    const whole = new Int8Array(bytes.buffer, 8 * rows);
    let float = 0,
      at = 0;
    const layers = packed.layers.map(([D, C]) => {
      const scale = floats.subarray(float, (float += D)),
        bias = floats.subarray(float, (float += D));
      const weight = new Float32Array(D * C);
      for (let d = 0; d < D; d++) for (let c = 0; c < C; c++) weight[d * C + c] = scale[d] * whole[at++];
      return {D, C, weight, bias};
    });
    this.shared = layers.slice(0, packed.shared);
    this.head = layers.slice(packed.shared);
    this.width = this.shared[this.shared.length - 1].D;
  }

  column(x, y, z) {
    // of one point: (3,) -> (width,)
    return this.shared.reduce((values, layer) => affine(layer, values, true), [x, y, z]);
  }

  logits(feature) {
    // of one cloud: (width,) -> (classes,)
    return this.head.reduce((values, layer, i) => affine(layer, values, i < this.head.length - 1), feature);
  }

  shares(logits) {
    // calibrated: how often such an answer was right
    const largest = Math.max(...logits),
      powers = Array.from(logits, v => Math.exp((v - largest) / this.temperature));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map(power => power / sum);
  }
}

function affine({D, C, weight, bias}, x, relu) {
  // four rows at a time; D is a multiple of 4
  const y = new Float32Array(D);
  for (let d = 0; d < D; d += 4) {
    let one = bias[d],
      two = bias[d + 1],
      three = bias[d + 2],
      four = bias[d + 3],
      at = d * C;
    for (let c = 0; c < C; c++, at++) {
      const value = x[c];
      one += value * weight[at];
      two += value * weight[at + C];
      three += value * weight[at + 2 * C];
      four += value * weight[at + 3 * C];
    }
    y[d] = one;
    y[d + 1] = two;
    y[d + 2] = three;
    y[d + 3] = four;
  }
  if (relu) for (let d = 0; d < D; d++) if (y[d] < 0) y[d] = 0;
  return y;
}

class Cloud {
  // The points of a cloud with their columns and the largest value of each channel, kept up to date point by point.
  constructor(network, points) {
    // x y z x y z ...
    this.network = network;
    this.computed = 0; // columns, ever
    this.points = rowsOfThree(points);
    this.columns = this.points.map(point => this.columnOf(point));
    this.findLargest();
  }

  copy() {
    // no column is computed
    return Object.assign(Object.create(Cloud.prototype), this, {
      points: this.points.slice(),
      columns: this.columns.slice(),
      largest: this.largest.slice(),
      winner: this.winner.slice(),
    });
  }

  columnOf(point) {
    this.computed++;
    return this.network.column(...point);
  }

  findLargest() {
    this.largest = new Float32Array(this.network.width); // after a ReLU nothing is below 0
    this.winner = new Int32Array(this.network.width).fill(-1); // the point that gives it; -1: no point is above 0
    this.columns.forEach((_, n) => this.challenge(n));
    this.refresh();
  }

  challenge(n) {
    // the channels in which a point is above all others until now
    const column = this.columns[n],
      changed = [];
    for (let c = 0; c < column.length; c++)
      if (column[c] > this.largest[c]) {
        this.largest[c] = column[c];
        this.winner[c] = n;
        changed.push(c);
      }
    return changed;
  }

  refresh() {
    this.logits = this.network.logits(this.largest);
    this.shares = this.network.shares(this.logits);
    this.best = this.shares.indexOf(Math.max(...this.shares));
  }

  move(n, point) {
    // only this point's column is computed again; returns the channels whose largest value changed
    const before = this.largest.slice(),
      column = this.columnOf(point);
    this.points[n] = point;
    this.columns[n] = column;
    for (let c = 0; c < column.length; c++) if (this.winner[c] === n && column[c] < this.largest[c]) this.search(c);
    this.challenge(n);
    this.refresh();
    return Array.from(before.keys()).filter(c => before[c] !== this.largest[c]);
  }

  search(c) {
    // the largest of one channel, over all points
    this.largest[c] = 0;
    this.winner[c] = -1;
    for (let n = 0; n < this.columns.length; n++)
      if (this.columns[n][c] > this.largest[c]) {
        this.largest[c] = this.columns[n][c];
        this.winner[c] = n;
      }
  }

  add(point) {
    // returns the channels whose largest value changed
    this.points.push(point);
    this.columns.push(this.columnOf(point));
    const changed = this.challenge(this.points.length - 1);
    if (changed.length) this.refresh();
    return changed;
  }

  keep(indices) {
    // no column is computed
    this.points = indices.map(n => this.points[n]);
    this.columns = indices.map(n => this.columns[n]);
    this.findLargest();
  }

  wins(n) {
    // the channels that a point gives
    return Array.from(this.winner.keys()).filter(c => this.winner[c] === n);
  }

  critical() {
    // the points that give any, in order
    return [...new Set(this.winner)].filter(n => n >= 0).sort((a, b) => a - b);
  }
}

const network = new Network(JSON.parse(document.getElementById("network").textContent));

window.pointnet = {
  classify(points) {
    // Float32Array of x y z x y z ..., centred and scaled to the unit sphere, z up
    if (!points.length || points.length % 3)
      throw new Error(`points must be x y z of each, got ${points.length} numbers`);
    return {classes: network.classes, logits: new Cloud(network, points).logits};
  },
};
