"use strict";
// Scenes 7 to 9: PointNet while a point moves, its critical points, and the table of faults.

const POINTS = 1024,
  GRID = 32;
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

function drawShares(holder, cloud) {
  // the five most probable classes
  const ranked = network.classes
    .map((name, i) => [name, cloud.shares[i]])
    .sort((a, b) => b[1] - a[1])
    .slice(0, 5);
  holder.replaceChildren(
    ...ranked.flatMap(([name, share]) => {
      const bar = make("i");
      bar.style.width = `${Math.max(100 * share, 0.5)}%`;
      return [
        make("span", {textContent: name}),
        make("div", {}, bar),
        make("b", {textContent: `${(100 * share).toFixed(1)}%`}),
      ];
    }),
  );
}

function holds(canvas, buttons, key) {
  // what a drag does, by buttons; whether it is anything but rotating
  const state = {mode: buttons[0].dataset[key]};
  const set = mode => {
    state.mode = mode;
    canvas.classList.toggle("held", mode !== "rotate");
    press(
      buttons,
      buttons.find(button => button.dataset[key] === mode),
    );
  };
  buttons.forEach(button => button.addEventListener("click", () => set(button.dataset[key])));
  set(state.mode);
  return () => state.mode !== "rotate";
}

// 7. PointNet, live

class Live {
  constructor() {
    this.view = new CloudView(part("live"));
    this.shape = part("shape");
    this.shape.append(...Object.keys(SHAPES).map(name => make("option", {textContent: name})));
    this.listen();
    this.show(this.shape.value, cloudOf(this.shape.value));
  }

  listen() {
    const moves = holds(this.view.canvas, all("[data-drag]"), "drag");
    this.view.grip = (x, y) => {
      const [n, away] = this.view.nearest(x, y);
      if (!moves() || n < 0 || away > 22) return null;
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
    this.shape.addEventListener("change", () => this.show(this.shape.value, cloudOf(this.shape.value)));
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
      this.show(file.name, readPoints(file.name, await file.arrayBuffer(), POINTS));
    } catch (error) {
      part("live-status").textContent = `${file.name} was not taken: ${error.message}.`;
    }
  }

  show(name, points) {
    this.name = name;
    this.cloud = new Cloud(network, points);
    this.choose(
      this.cloud.winner.find(n => n >= 0) || 0,
      `${count(this.cloud.points.length, "column")} computed, one for each point.`,
    );
  }

  choose(n, words = "") {
    this.view.chosen = n;
    this.draw(words);
  }

  move(n, point) {
    const start = performance.now(),
      changed = this.cloud.move(
        n,
        point.map(v => clamp(v, -1.2, 1.2)),
      );
    this.draw();
    const took = performance.now() - start,
      total = this.cloud.points.length.toLocaleString("en");
    this.say(
      `1 of ${total} columns computed again, ${maxima(changed.length)} moved; ${took.toFixed(1)} ms with drawing.`,
    );
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
    drawShares(part("live-shares"), cloud);
    part("live-caption").textContent =
      `${this.name}, ${count(cloud.points.length, "point")}. Red: it gives a maximum. ` +
      "Arrow keys rotate; with Shift they move the point";
    this.say(words);
  }

  say(words) {
    this.words = words;
    const won = this.cloud.wins(this.view.chosen).length;
    part("live-status").textContent =
      `${best(this.cloud)}. The chosen point wins ${count(won, "channel")} of 1,024. ${words}`;
    this.view.canvas.setAttribute("aria-label", part("live-status").textContent);
  }
}

// 8. Critical points

class Critical {
  constructor(whole) {
    this.whole = whole;
    this.view = new CloudView(part("critical"));
    this.random = generator(3);
    const paints = holds(this.view.canvas, all("[data-brush]"), "brush");
    this.view.grip = (x, y) => {
      if (!paints()) return null;
      this.paint(this.view.unproject(x, y, this.depth(x, y)));
      return (x, y) => this.paint(this.view.unproject(x, y, this.depth(x, y)));
    };
    part("only").addEventListener("click", () => this.onlyCritical());
    part("harmless").addEventListener("click", () => this.addHarmless());
    part("far").addEventListener("click", () =>
      this.paint([0.6, -0.9, 0.7].map(v => v * (0.8 + 0.4 * this.random()))),
    );
    part("afresh").addEventListener("click", () => this.start());
    this.start();
  }

  depth(x, y) {
    // of the cloud where it is near, else of its middle
    const [n, away] = this.view.nearest(x, y);
    return n >= 0 && away < 30 ? this.view.project(this.cloud.points[n])[2] : 0;
  }

  start() {
    this.cloud = this.whole.copy();
    this.painted = new Set();
    this.draw(
      `${count(this.cloud.critical().length, "point")} of ${POINTS.toLocaleString("en")} give all the maxima.`,
    );
  }

  onlyCritical() {
    const before = this.cloud.points.length;
    this.cloud.keep(this.cloud.critical());
    this.painted = new Set(this.cloud.points.filter(point => this.painted.has(point)));
    this.draw(`${count(before - this.cloud.points.length, "point")} deleted, ${this.cloud.points.length} left.`);
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

  paint(point) {
    const changed = this.cloud.add(point);
    this.painted.add(point);
    this.draw(
      changed.length
        ? `The last point raises ${maxima(changed.length)} of 1,024.`
        : "The last point stays below all maxima: nothing changes.",
    );
  }

  draw(words = part("critical-status").textContent) {
    const {cloud, view, whole} = this,
      critical = new Set(cloud.winner),
      moved = cloud.largest.map((value, c) => value !== whole.largest[c]);
    const [lit, painted, faded] = [colour("lit"), colour("accent"), colour("faded")],
      changed = moved.reduce((a, b) => a + b);
    view.points = cloud.points;
    view.colours = cloud.points.map((point, n) =>
      critical.has(n) ? lit : this.painted.has(point) ? painted : faded,
    );
    view.sizes = cloud.points.map((_, n) => (critical.has(n) ? 1.35 : 1));
    view.draw();
    grid(part("maxima"), cloud.largest, moved);
    const apart = Math.max(...cloud.logits.map((value, i) => Math.abs(value - whole.logits[i])));
    part("critical-answer").textContent = best(cloud);
    part("critical-words").textContent = changed
      ? `${maxima(changed)} of 1,024 moved; logits differ by up to ${apart.toFixed(3)}`
      : "no maximum has moved; all logits are exactly what they were";
    part("critical-caption").textContent =
      `${count(cloud.points.length, "point")}: ${critical.size - critical.has(-1)} critical (red), ` +
      `${this.painted.size} new (blue)`;
    part("critical-status").textContent = words;
    view.canvas.setAttribute("aria-label", part("critical-caption").textContent);
  }
}

// 9. Break it

function breakIt() {
  const {laws, rows} = JSON.parse(part("proof").textContent),
    items = laws.map(law => make("li", {}, make("b"), ` ${law}`));
  part("laws").append(...items);
  const buttons = rows.map(([title, caught]) => {
    const button = make("button", {textContent: title});
    button.addEventListener("click", () => show(button, title, caught));
    return button;
  });
  part("faults").append(...buttons);
  const show = (button, title, caught) => {
    press(buttons, button);
    items.forEach((item, i) => {
      const red = caught.includes(i + 1);
      item.classList.toggle("red", red);
      item.firstChild.textContent = `${red ? "✗" : "✓"} ${i + 1}.`;
    });
    part("caught").textContent = title
      ? `${title}: ${count(caught.length, "law")} of ${laws.length} ${caught.length === 1 ? "turns" : "turn"} red.`
      : "Nothing is broken yet.";
  };
  show(null, "", []);
}

const live = new Live(),
  critical = new Critical(live.cloud.copy());
redraws.push(
  () => live.draw(live.words),
  () => critical.draw(),
);
breakIt();
