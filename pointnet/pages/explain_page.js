"use strict";
// What all scenes use: elements, controls, questions.

const part = id => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
const decimals = (value, digits) => value.toFixed(digits).replace(/^-(?=[0.]*$)/, ""); // no -0.0
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const redraws = []; // of every scene, for when light turns to dark, or what was hidden gets a size
const redrawAll = () => redraws.forEach(draw => draw());

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
window.addEventListener("resize", redrawAll);

function scene(draw) {
  // registers and draws
  redraws.push(draw);
  draw();
}

function make(tag, properties = {}, ...children) {
  // an element; text is text, whatever it says
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function svg(tag, named, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(named)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

function press(buttons, chosen) {
  // one of several buttons is down
  buttons.forEach(button => button.setAttribute("aria-pressed", String(button === chosen)));
}

function onPointer(canvas, start, move, end = () => {}) {
  // a drag, in shares of the canvas's width and height
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    start(...at(event), event);
  });
  canvas.addEventListener("pointermove", event => {
    if (canvas.hasPointerCapture(event.pointerId)) move(...at(event), event);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function onArrows(element, step) {
  element.addEventListener("keydown", event => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    step(...ARROWS[event.key], event);
  });
}

function scrollSideways(table, head) {
  // until a column can be seen, left of the last one, which stays
  const holder = table.parentNode,
    room = holder.clientWidth - table.rows[0].lastChild.offsetWidth - 2;
  holder.scrollLeft = clamp(holder.scrollLeft, head.offsetLeft + head.offsetWidth - room, head.offsetLeft);
}

function setSlider(slider, value) {
  // its place, and its value in words beside it
  slider.value = value;
  slider.nextElementSibling.textContent = slider.value;
}

function stepper(button, steps, pause, step) {
  // a button that takes the steps one after the other, and stops at a second press
  const words = button.textContent;
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = words;
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    let taken = 0;
    button.textContent = "■ stop";
    timer = setInterval(() => {
      if (taken >= steps()) return stop();
      step(taken++);
    }, pause);
    step(taken++);
  });
}

function holds(canvas, buttons, key) {
  // What a drag does, by buttons; returns the mode. A finger is to scroll over a cloud, so there it begins with rotating.
  const modes = buttons.map(button => button.dataset[key]),
    touch = matchMedia("(pointer: coarse)").matches && modes.includes("rotate");
  const state = {mode: touch ? "rotate" : modes[0]};
  const set = mode => {
    state.mode = mode;
    canvas.classList.toggle("held", mode !== "rotate");
    press(buttons, buttons[modes.indexOf(mode)]);
  };
  buttons.forEach((button, i) => button.addEventListener("click", () => set(modes[i])));
  set(state.mode);
  return () => state.mode;
}

// Questions: the rest of a scene is hidden until it is answered. Without this script, and on paper, all is shown.

document.documentElement.classList.add("asks");

function answer(ask, button) {
  // a guess, or none: just show me
  const right = ask.querySelector("[data-right]"),
    name = right.textContent;
  press(all(".choices button", ask), button);
  right.classList.add("right");
  const start = button === right ? "Yes." : button ? `Not quite. ${button.dataset.why} Right:` : "The answer:";
  ask.querySelector(".reply").textContent =
    button === right ? `${start} ${right.dataset.why}` : `${start} ${name}. ${right.dataset.why}`;
  ask.parentNode.classList.add("answered");
}

for (const ask of all(".ask")) {
  const buttons = all(".choices button", ask);
  buttons.forEach(button => button.addEventListener("click", () => answer(ask, button)));
  const show = make("button", {className: "show", textContent: "just show me"});
  show.addEventListener("click", () => answer(ask, null));
  ask.querySelector(".choices").append(show);
  ask.addEventListener("click", redrawAll);
}

document.querySelector("main > nav").append(
  make("button", {
    className: "show",
    textContent: "show all scenes",
    onclick: event => {
      all(".scene:not(.answered) .ask").forEach(ask => answer(ask, null));
      event.target.remove();
      redrawAll();
    },
  }),
);
