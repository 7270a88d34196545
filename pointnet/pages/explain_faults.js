"use strict";
// Scene 9: the table of faults, and a guess at each of its rows.

class Faults {
  constructor({laws, plain, rows, first}) {
    this.rows = rows;
    this.items = plain.map((law, i) => {
      const box = make("input", {type: "checkbox"}),
        mark = make("b"),
        item = make("li", {}, make("label", {}, box, make("span", {}, `${i + 1}. ${law} `, mark)));
      return {item, box, mark};
    });
    part("laws").append(...this.items.map(({item}) => item));
    part("formal-laws").append(...laws.map(law => make("li", {textContent: law})));
    const [few, more] = [true, false].map(wanted => rows.filter(([title]) => first.includes(title) === wanted));
    this.buttons = few.map(row => {
      const button = make("button", {textContent: row[0]});
      button.addEventListener("click", () => this.choose(row));
      return button;
    });
    part("faults").append(...this.buttons);
    part("more-faults").append(...more.map(([title]) => make("option", {textContent: title})));
    part("more-faults").addEventListener("change", event =>
      this.choose(rows.find(([title]) => title === event.target.value)),
    );
    part("look").addEventListener("click", () => this.look());
    this.choose(null);
  }

  choose(row = null) {
    // nothing is shown yet
    this.row = row;
    for (const {item, box, mark} of this.items) {
      item.className = mark.textContent = "";
      box.checked = false;
      box.disabled = !row;
    }
    const title = row ? row[0] : "";
    press(
      this.buttons,
      this.buttons.find(button => button.textContent === title),
    );
    part("more-faults").value = this.buttons.some(button => button.textContent === title) ? "" : title;
    part("look").disabled = !row;
    part("fault-why").textContent = "";
    part("caught").textContent = row
      ? `Broken: ${title}. Which of the ${this.items.length} laws below fail? Mark them, then look.`
      : "Nothing is broken yet.";
  }

  look() {
    const [title, caught, why] = this.row,
      marked = this.items.filter(({box}) => box.checked).length;
    let right = 0;
    this.items.forEach(({item, box, mark}, i) => {
      const red = caught.includes(i + 1);
      item.className = red ? "red" : "green";
      mark.textContent = red ? "✗ fails" : "✓ holds";
      right += red && box.checked;
    });
    const guess = marked ? ` You marked ${marked}, ${right} of them rightly; ${caught.length - right} more fail.` : "";
    part("caught").textContent = `${title}: ${caught.length} of ${count(this.items.length, "law")} fail.${guess}`;
    part("fault-why").textContent = why;
  }
}

const faults = new Faults(JSON.parse(part("proof").textContent));
