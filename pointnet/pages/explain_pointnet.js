"use strict";
// Scenes 7 and 8: PointNet while a point moves, and its critical points.

const GRID = 32,
  FAR = 1.15, // from the middle of a cloud, whose own points are within 1; the frame ends at 1.19
  TRIES = 50;
const maxima = number => `${number || "no"} ${number === 1 ? "maximum" : "maxima"}`;
const cloudOf = name => inUnitSphere(rowsOfThree(onBoxes(SHAPES[name], POINTS, 1)));

function grid(canvas, values, marked) {
  // the channels in rows of 32, some of them marked
  const to = shade("output", "output"),
    mark = rgb("lit"),
    largest = largestOf(values);
  drawImage(
    canvas,
    Array.from(values, (value, c) => (marked[c] ? mark : to((0.85 * value) / largest))),
    GRID,
  );
}

function best(cloud) {
  return `${network.classes[cloud.best]} ${(100 * cloud.shares[cloud.best]).toFixed(1)}%`;
}

function drawScores(holder, cloud) {
  // the five largest, as bars from 0
  const most = Math.max(...cloud.logits),
    ranked = Array.from(cloud.logits, (score, i) => [network.classes[i], score]).sort((a, b) => b[1] - a[1]);
  holder.replaceChildren(
    ...ranked.slice(0, 5).flatMap(([name, score]) => {
      const bar = make("i");
      bar.style.width = `${score > 0 ? (100 * score) / most : 0}%`;
      return [make("span", {textContent: name}), make("div", {}, bar), make("b", {textContent: decimals(score, 1)})];
    }),
  );
}

function clocked(work, times = 1) {
  // ms, on average
  const start = performance.now();
  for (let i = 0; i < times; i++) work();
  return (performance.now() - start) / times;
}

function shapes(select) {
  select.append(...Object.keys(SHAPES).map(name => make("option", {textContent: name})));
}

// 7. PointNet, live

class Live {
  constructor() {
    this.view = new CloudView(part("live"));
    this.shown = []; // what is done with another cloud
    this.listen();
  }

  listen() {
    const mode = holds(this.view.canvas, all("[data-drag]"), "drag");
    this.view.grip = (x, y) => {
      const [n, away] = this.view.nearest(x, y);
      if (mode() === "rotate" || n < 0 || away > 22) return null;
      this.choose(n);
      const depth = this.view.project(this.cloud.points[n])[2];
      return (x, y) => this.move(n, this.view.unproject(x, y, depth));
    };
    onArrows(this.view.canvas, (dx, dy, event) => {
      if (!event.shiftKey) return;
      const n = this.view.chosen,
        axes = this.view.axes(),
        point = this.cloud.points[n];
      this.move(
        n,
        point.map((v, i) => v + 0.04 * (dx * axes[0][i] - dy * axes[1][i])),
      );
    });
    part("other").addEventListener("click", () => this.choose((this.view.chosen + 97) % this.cloud.points.length));
    part("back").addEventListener("click", () => this.move(this.view.chosen, this.start[this.view.chosen]));
    part("whole").addEventListener("click", () => this.computeAll());
    for (const id of ["shape", "critical-shape"]) {
      shapes(part(id));
      part(id).addEventListener("change", ({target}) => this.show(target.value, cloudOf(target.value)));
    }
    part("file").addEventListener("change", event => {
      if (event.target.files.length) this.open(event.target.files[0]);
    });
    for (const [name, over] of [
      ["dragover", true],
      ["dragleave", false],
      ["drop", false],
    ])
      part("scene-7").addEventListener(name, event => {
        event.preventDefault();
        this.view.canvas.classList.toggle("over", over);
        if (name === "drop" && event.dataTransfer.files.length) this.open(event.dataTransfer.files[0]);
      });
  }

  async open(file) {
    try {
      const points = readPoints(file.name, await file.arrayBuffer(), POINTS);
      this.show(file.name, points, strayPoints(points));
    } catch (error) {
      part("live-status").textContent = `${file.name} was not taken: ${error.message}.`;
    }
  }

  show(name, points, words = "") {
    this.name = name;
    this.cloud = new Cloud(network, points);
    this.start = this.cloud.points.slice();
    for (const id of ["shape", "critical-shape"]) part(id).value = name; // none of them for a file
    part("live-time").textContent = "";
    this.shown.forEach(follow => follow(this.cloud));
    this.choose(
      this.cloud.winner.find(n => n >= 0) || 0,
      `${count(this.cloud.points.length, "column")} computed, one for each point. ${words}`,
    );
  }

  choose(n, words = "") {
    this.view.chosen = n;
    this.draw(words);
  }

  move(n, point) {
    let changed;
    const within = Math.min(1, FAR / Math.hypot(...point)),
      to = point.map(v => within * v),
      took = clocked(() => {
        changed = this.cloud.move(n, to);
      });
    this.draw(
      `1 of ${this.cloud.points.length.toLocaleString("en")} columns computed again in ${took.toFixed(1)} ms; ` +
        `${maxima(changed.length)} changed.`,
    );
  }

  computeAll() {
    // without drawing; a move to the same place is a move
    const {cloud, view} = this,
      n = view.chosen;
    let again;
    const one = clocked(() => cloud.move(n, cloud.points[n]), 100),
      whole = clocked(() => {
        again = new Cloud(network, cloud.points.flat());
      }, 2),
      same = again.logits.every((score, i) => score === cloud.logits[i]);
    const [most, total] = [cloud.columns[n].length, cloud.points.length].map(number => number.toLocaleString("en"));
    part("live-time").textContent =
      `Measured here, now: all ${total} columns, ${most} maxima and the head: ${whole.toFixed(0)} ms. ` +
      `One column, its maxima and the head: ${one.toFixed(1)} ms` +
      (one > 0 && whole > 0 ? `, ${Math.round(whole / one)} times less. ` : ". ") +
      (same ? "The scores are the same to the last digit." : "The scores differ.");
  }

  draw(words = "") {
    const {cloud, view} = this,
      critical = new Set(cloud.winner),
      won = new Set(cloud.wins(view.chosen));
    const [lit, faint] = [colour("lit"), colour("second")];
    view.points = cloud.points;
    view.colours = cloud.points.map((_, n) => (critical.has(n) ? lit : faint));
    view.draw();
    grid(
      part("live-column"),
      cloud.columns[view.chosen],
      cloud.columns[view.chosen].map((_, c) => won.has(c)),
    );
    drawScores(part("live-shares"), cloud);
    part("live-caption").textContent = `${this.name}, ${count(cloud.points.length, "point")}. Red: it gives a maximum`;
    this.say(words);
  }

  say(words) {
    this.words = words;
    const won = this.cloud.wins(this.view.chosen).length;
    part("live-answer").textContent = best(this.cloud);
    part("live-status").textContent =
      `The chosen point gives ${maxima(won)} of ${network.width.toLocaleString("en")}. ${words}`;
    this.view.canvas.setAttribute("aria-label", `${best(this.cloud)}. ${part("live-status").textContent}`);
  }
}

// 8. Critical points

class Critical {
  constructor() {
    this.view = new CloudView(part("critical"));
    this.random = generator(3);
    const mode = holds(this.view.canvas, all("[data-brush]"), "brush");
    this.view.grip = (x, y) => {
      if (mode() === "rotate") return null;
      this.stroke = {points: 0, changed: new Set()};
      const paint = (x, y) => this.paint(this.view.unproject(x, y, this.depth(x, y)));
      paint(x, y);
      return paint;
    };
    part("only").addEventListener("click", () => this.keep(this.cloud.critical()));
    part("half").addEventListener("click", () => this.keepHalf());
    part("harmless").addEventListener("click", () => this.addHarmless());
    part("far").addEventListener("click", () => this.addWorst());
    part("afresh").addEventListener("click", () => this.show(this.whole));
  }

  depth(x, y) {
    // of the cloud where it is near, else of its middle
    const [n, away] = this.view.nearest(x, y);
    return n >= 0 && away < 30 ? this.view.project(this.cloud.points[n])[2] : 0;
  }

  show(whole) {
    this.whole = whole.copy();
    this.cloud = whole.copy();
    this.painted = new Set();
    const [few, total] = [whole.critical().length, whole.points.length].map(number => number.toLocaleString("en"));
    this.draw(`${few} of ${total} points give all the maxima.`);
  }

  keep(indices) {
    const before = this.cloud.points.length;
    this.cloud.keep(indices);
    this.painted = new Set(this.cloud.points.filter(point => this.painted.has(point)));
    this.draw(`${count(before - this.cloud.points.length, "point")} deleted, ${this.cloud.points.length} left.`);
  }

  keepHalf() {
    const total = this.cloud.points.length,
      seed = Math.floor(2 ** 31 * this.random());
    this.keep(shuffledOrder(total, seed).slice(0, Math.ceil(total / 2)));
  }

  addHarmless() {
    // points near the others that stay below all maxima
    const {cloud} = this,
      before = cloud.points.length,
      tries = 1500,
      around = () => 0.5 * (this.random() - 0.5);
    for (let i = 0; i < tries; i++) {
      const point = cloud.points[Math.floor(this.random() * before)].map(v => v + around());
      const column = cloud.columnOf(point);
      if (column.some((value, c) => value > cloud.largest[c])) continue;
      cloud.points.push(point);
      cloud.columns.push(column);
      this.painted.add(point);
    }
    this.draw(
      `${count(tries, "point")} tried; ${cloud.points.length - before} stay below all maxima and were added.`,
    );
  }

  addWorst() {
    // of some points on a sphere around the cloud, the one after which the class of the start is least probable
    const {cloud, whole} = this;
    let worst = null;
    for (let i = 0; i < TRIES; i++) {
      const towards = [1, 2, 3].map(() => 2 * this.random() - 1),
        point = towards.map(v => (FAR * v) / Math.hypot(...towards)),
        tried = cloud.copy(),
        changed = tried.add(point);
      if (!worst || tried.shares[whole.best] < worst.tried.shares[whole.best]) worst = {tried, point, changed};
    }
    this.cloud = worst.tried;
    this.painted.add(worst.point);
    this.draw(`${count(TRIES, "point")} tried; the worst was added. It raises ${maxima(worst.changed.length)}.`);
  }

  paint(point) {
    this.cloud.add(point).forEach(c => this.stroke.changed.add(c));
    this.stroke.points++;
    this.painted.add(point);
    const {points, changed} = this.stroke;
    this.draw(
      `This stroke: ${count(points, "point")}, ` +
        (changed.size ? `${maxima(changed.size)} raised.` : "all below the maxima: nothing changes."),
    );
  }

  draw(words = part("critical-status").textContent) {
    const {cloud, view, whole} = this,
      winners = new Set(cloud.winner),
      moved = cloud.largest.map((value, c) => value !== whole.largest[c]);
    const [lit, painted, faded] = [colour("lit"), colour("accent"), colour("faded")],
      changed = moved.reduce((a, b) => a + b);
    view.points = cloud.points;
    view.colours = cloud.points.map((point, n) =>
      winners.has(n) ? lit : this.painted.has(point) ? painted : faded,
    );
    view.sizes = cloud.points.map((_, n) => (winners.has(n) ? 1.35 : 1));
    view.draw();
    grid(part("maxima"), cloud.largest, moved);
    const apart = Math.max(...cloud.logits.map((value, i) => Math.abs(value - whole.logits[i])));
    part("critical-answer").textContent = best(cloud);
    part("critical-words").textContent = changed
      ? `${maxima(changed)} of ${moved.length.toLocaleString("en")} moved; scores differ by up to ${apart.toFixed(3)}`
      : "no maximum has moved; all scores are what they were, to the last digit";
    const critical = cloud.critical(),
      fresh = critical.filter(n => this.painted.has(cloud.points[n])).length;
    part("critical-caption").textContent =
      `${count(cloud.points.length, "point")}: ${critical.length} critical (red), ${fresh} of them new; ` +
      `${this.painted.size - fresh} new below all maxima (blue)`;
    part("critical-status").textContent = words;
    view.canvas.setAttribute("aria-label", part("critical-caption").textContent);
  }
}

const live = new Live(),
  critical = new Critical();
live.shown.push(cloud => critical.show(cloud));
live.show("chair", cloudOf("chair"));
redraws.push(
  () => live.draw(live.words),
  () => critical.draw(),
);
