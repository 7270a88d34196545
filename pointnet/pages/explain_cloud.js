"use strict";
// A cloud in a canvas: rotated by dragging or the arrow keys, its points found again by where they are drawn.

function rainbow(share) {
  // low to high, readable on white and on black
  return `hsl(${Math.round(230 - 200 * clamp(share, 0, 1))} 62% 52%)`;
}

class CloudView {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = []; // [x, y, z] each, z up, about the unit sphere
    this.colours = []; // of each
    this.sizes = []; // 1 where there is none
    this.chosen = -1;
    [this.around, this.above, this.zoom] = [0.6, 0.3, 0.42];
    this.grip = () => null; // what a drag does in place of rotating, decided where it starts
    this.listen();
  }

  listen() {
    let last, held;
    const start = (x, y) => {
      last = [x, y];
      held = this.grip(x, y);
    };
    const move = (x, y) => {
      if (held) held(x, y);
      else this.rotate(4 * (x - last[0]), 3 * (y - last[1]));
      last = [x, y];
    };
    onPointer(this.canvas, start, move);
    onArrows(this.canvas, (dx, dy, event) => {
      if (!event.shiftKey) this.rotate(0.15 * dx, 0.15 * dy);
    });
  }

  rotate(around, above) {
    this.around += around;
    this.above = clamp(this.above + above, -1.5, 1.5);
    this.draw();
  }

  axes() {
    // of the screen, in the cloud: to the right, upwards, towards the reader
    const [c, s, a, b] = [Math.cos(this.around), Math.sin(this.around), Math.cos(this.above), Math.sin(this.above)];
    return [
      [c, -s, 0],
      [s * b, c * b, a],
      [-s * a, -c * a, b],
    ];
  }

  project(point, axes = this.axes()) {
    // to pixels of the canvas, and depth
    const [right, up, near] = axes.map(axis => axis[0] * point[0] + axis[1] * point[1] + axis[2] * point[2]);
    const scale = this.zoom * Math.min(this.canvas.width, this.canvas.height);
    return [this.canvas.width / 2 + scale * right, this.canvas.height / 2 - scale * up, near];
  }

  unproject(x, y, depth) {
    // from shares of the canvas to the point there at that depth
    const scale = this.zoom * Math.min(this.canvas.width, this.canvas.height),
      axes = this.axes();
    const along = [((x - 0.5) * this.canvas.width) / scale, ((0.5 - y) * this.canvas.height) / scale, depth];
    return [0, 1, 2].map(i => axes.reduce((sum, axis, k) => sum + axis[i] * along[k], 0));
  }

  nearest(x, y) {
    // the point that is drawn closest, and how far off in pixels of the screen
    const box = this.canvas.getBoundingClientRect(),
      ratio = this.canvas.width / box.width,
      axes = this.axes();
    let found = -1,
      least = Infinity;
    this.points.forEach((point, n) => {
      const [px, py, near] = this.project(point, axes);
      const away = Math.hypot(px / ratio - x * box.width, py / ratio - y * box.height) - 2 * near; // the one in front
      if (away < least) [found, least] = [n, away];
    });
    return [found, least];
  }

  draw() {
    const {canvas} = this,
      context = canvas.getContext("2d"),
      ratio = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.round((canvas.clientWidth || 300) * ratio),
      height = Math.round((canvas.clientHeight || 260) * ratio);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.clearRect(0, 0, width, height);
    const axes = this.axes(),
      drawn = this.points.map((point, n) => [...this.project(point, axes), n]).sort((a, b) => a[2] - b[2]);
    const usual = colour("input");
    for (const [x, y, near, n] of drawn) {
      const size = ratio * (2.1 + 0.7 * near) * (this.sizes[n] || 1);
      context.globalAlpha = clamp(0.75 + 0.3 * near, 0.35, 1);
      context.fillStyle = this.colours[n] || usual;
      context.fillRect(x - size, y - size, 2 * size, 2 * size);
    }
    context.globalAlpha = 1;
    if (this.points[this.chosen]) {
      const [x, y] = this.project(this.points[this.chosen], axes);
      context.strokeStyle = colour("ink");
      context.lineWidth = 2 * ratio;
      context.beginPath();
      context.arc(x, y, 9 * ratio, 0, 7);
      context.stroke();
    }
  }
}
