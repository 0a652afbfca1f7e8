// Replaces the PNG of each figure that has a chart by a drawing that can be explored: pointing at a
// point, or moving to it with the arrow keys, shows its numbers; check boxes hide sizes and recipes.
// Ticks, labels and texts come with the data, so nothing is formatted here.
"use strict";

const MARGIN = {left: 58, right: 18, top: 14, bottom: 46};
const NEAR = 24; // pixels up to which pointing beside a point shows it

function explore(root) {
  const choices = JSON.parse(root.querySelector("script.choices").textContent);
  const form = root.querySelector(".filters");
  const charts = [...root.querySelectorAll("figure")]
    .filter(figure => figure.querySelector(".chart"))
    .map(figure => new Chart(figure, choices, form));
  form.hidden = charts.length === 0;
  form.addEventListener("change", () => charts.forEach(chart => chart.draw()));
  form.addEventListener("click", event => {
    if (!("all" in event.target.dataset)) return;
    const boxes = event.target.closest("fieldset").querySelectorAll("input");
    for (const box of boxes) box.checked = Boolean(event.target.dataset.all);
    charts.forEach(chart => chart.draw());
  });
}

class Chart {
  constructor(figure, choices, form) {
    this.data = JSON.parse(figure.querySelector("script").textContent);
    [this.choices, this.form] = [choices, form];
    this.box = figure.querySelector(".chart");
    this.svg = this.box.querySelector("svg");
    this.tip = this.box.querySelector(".tip");
    figure.querySelector("img").hidden = true;
    this.box.hidden = false;
    this.svg.addEventListener("pointermove", event => this.show(this.nearest(event)));
    this.svg.addEventListener("pointerdown", event => this.show(this.nearest(event)));
    this.svg.addEventListener("pointerleave", () => this.show(null));
    this.svg.addEventListener("focusin", event =>
      this.show(this.points.find(point => point.mark === event.target)));
    this.svg.addEventListener("focusout", () => this.show(null));
    this.svg.addEventListener("keydown", event => this.key(event));
    new ResizeObserver(() => {
      if (this.box.clientWidth !== this.width) this.draw();
    }).observe(this.box);
    this.draw();
  }

  shown(series) {
    return Object.keys(this.choices).every(name => !(name in series) ||
      this.form.querySelector(`[data-filter=${name}] input[value="${series[name]}"]`).checked);
  }

  draw() {
    this.width = this.box.clientWidth;
    this.height = Math.round(Math.min(460, Math.max(310, 0.55 * this.width)));
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    this.x = scale(this.data.x, MARGIN.left, this.width - MARGIN.right);
    this.y = scale(this.data.y, this.height - MARGIN.bottom, MARGIN.top);
    this.points = [];
    this.axes();
    const visible = this.data.series.filter(series => this.shown(series));
    for (const series of visible) this.line(series);
    if (this.data.frontier) this.frontier(visible);
    for (const series of visible) this.marks(series);
    // One stop of the tab key for each chart; the arrow keys go on from there.
    if (this.points.length) this.points[0].mark.setAttribute("tabindex", 0);
    this.show(null);
  }

  axes() {
    const {left, right, top, bottom} = MARGIN, low = this.height - bottom;
    let last = -Infinity;
    for (const [value, label] of this.data.x.ticks) {
      const x = this.x(value), room = 7 * label.length + 10;
      this.add("path", {class: "grid", d: `M${x},${top}V${low}`});
      if (x - last < room) continue; // on a phone only some labels fit
      this.add("text", {x, y: low + 18, class: "middle"}, label);
      last = x;
    }
    for (const [value, label] of this.data.y.ticks) {
      this.add("path", {class: "grid", d: `M${left},${this.y(value)}H${this.width - right}`});
      this.add("text", {x: left - 8, y: this.y(value) + 4, class: "end"}, label);
    }
    this.add("path", {class: "axis", d: `M${left},${top}V${low}H${this.width - right}`});
    this.add("text", {x: (left + this.width - right) / 2, y: this.height - 8, class: "middle name"},
      this.data.x.label);
    const [x, y] = [14, (top + low) / 2];
    this.add("text", {x, y, class: "middle name", transform: `rotate(-90 ${x} ${y})`},
      this.data.y.label);
  }

  line({points, size}) {
    if (points.length < 2) return;
    const color = this.choices.size[size].color;
    const at = (point, sign) => `${this.x(point[0])},${this.y(point[1] + sign * point[2])}`;
    if (points.some(point => point[2] > 0)) {
      const edge = [...points.map(p => at(p, 1)), ...points.toReversed().map(p => at(p, -1))];
      this.add("path", {class: "band", d: `M${edge.join("L")}Z`, fill: color});
    }
    this.add("path", {class: "line", d: `M${points.map(p => at(p, 0)).join("L")}`, stroke: color});
  }

  marks({points, size, recipe, hollow}) {
    const color = this.choices.size[size].color, alone = points.length === 1;
    const outline = this.choices.recipe[recipe]?.marker ?? this.choices.size[size].marker;
    for (const [valueX, valueY, deviation, text] of points) {
      const [x, y] = [this.x(valueX), this.y(valueY)], grow = alone ? 1 : 0.45;
      if (alone && deviation)
        this.add("path", {class: "error", stroke: color,
          d: `M${x},${this.y(valueY - deviation)}V${this.y(valueY + deviation)}`});
      const mark = this.add("path", {class: "mark", d: outline, fill: hollow ? "#fff" : color,
        stroke: color, tabindex: -1, role: "img", "aria-label": text.replaceAll("\n", ", "),
        transform: `matrix(${grow} 0 0 ${grow} ${x} ${y})`});
      this.points.push({x, y, text, mark});
    }
  }

  frontier(visible) {
    // Of what the filters show: no other point is at most as costly and as good.
    const points = visible.map(series => series.points[0])
      .sort((a, b) => a[0] - b[0] || b[1] - a[1]);
    let best = -Infinity, path = "";
    for (const [valueX, valueY] of points) {
      if (valueY <= best) continue;
      best = valueY;
      const [x, y] = [this.x(valueX), this.y(valueY)];
      path += path ? `H${x}V${y}` : `M${x},${y}`;
      this.add("circle", {class: "ring", cx: x, cy: y, r: 11});
    }
    if (path) this.add("path", {class: "frontier", d: `${path}H${this.width - MARGIN.right}`});
  }

  nearest(event) {
    const frame = this.svg.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    let best = null, least = NEAR;
    for (const point of this.points) {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  key(event) {
    const place = this.points.findIndex(point => point.mark === document.activeElement);
    const moves = {ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1,
      ArrowUp: place - 1, Home: 0, End: this.points.length - 1};
    if (event.key === "Escape") this.show(null);
    const next = this.points[moves[event.key]];
    if (!(event.key in moves)) return;
    event.preventDefault(); // the page stays where it is
    next?.mark.focus({preventScroll: true});
  }

  show(point) {
    this.active?.mark.classList.remove("active");
    this.active = point;
    this.tip.hidden = !point;
    if (!point) return;
    point.mark.classList.add("active");
    this.tip.replaceChildren(...point.text.split("\n").map((line, place) => {
      const part = document.createElement(place ? "span" : "strong");
      part.textContent = line;
      return part;
    }));
    const {offsetWidth: width, offsetHeight: height} = this.tip;
    const left = Math.min(Math.max(0, point.x - width / 2), this.width - width);
    const above = point.y - height - 14;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${above < 0 ? point.y + 14 : above}px`;
  }

  add(name, attributes, text) {
    // The namespace of the element that is in the page already, which needs no address.
    const element = document.createElementNS(this.svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return this.svg.appendChild(element);
  }
}

function scale({limits, log}, from, to) {
  const map = log ? Math.log : value => value;
  const [low, high] = limits.map(map);
  return value => from + (map(value) - low) / (high - low) * (to - from);
}

for (const root of document.querySelectorAll(".explorer")) explore(root);
