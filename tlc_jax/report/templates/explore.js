// Draws the points and curves of the study as SVG, with hover, keyboard focus and filters.
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("explore-data").textContent);
  const section = document.getElementById("explore");
  // The namespace comes from the element that the page holds already.
  const SVG = section.querySelector("svg").namespaceURI;
  const WIDTH = 560, HEIGHT = 340, LEFT = 58, RIGHT = 14, TOP = 14, BOTTOM = 46;
  const shown = { size: new Set(data.sizes.map((s) => s.name)), recipe: new Set(data.recipes) };
  const colors = new Map(data.sizes.map((s) => [s.name, s.color]));

  function element(name, attributes, parent, text) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }

  function ticks(low, high, log) {
    if (log) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const digit of [1, 2, 5]) {
          const value = digit * 10 ** power;
          if (value >= low && value <= high) found.push(value);
        }
      return found;
    }
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high; v += step) found.push(+v.toPrecision(6));
    return found;
  }

  // One chart: axes over all values, so that filters do not move the points that stay.
  function chart(spec) {
    const xs = spec.series.flatMap((s) => s.points.map((p) => p.x));
    const ys = spec.series.flatMap((s) => s.points.map((p) => p.y));
    const log = spec.log;
    let [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [Math.min(...ys), Math.max(...ys)];
    if (log) { x0 /= 1.15; x1 *= 1.15; } else if (x0 === x1) { x1 += 1; }
    const pad = (y1 - y0 || 1) * 0.07; y0 -= pad; y1 += pad;
    const map = log ? Math.log10 : (v) => v;
    const px = (v) => LEFT + (map(v) - map(x0)) / (map(x1) - map(x0)) * (WIDTH - LEFT - RIGHT);
    const py = (v) => HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);

    const holder = document.createElement("div");
    const title = document.createElement("h3");
    title.textContent = spec.title;
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": spec.title });
    const told = document.createElement("p");
    told.className = "told fine";
    told.setAttribute("role", "status");
    told.textContent = "Point at or tab to a mark.";
    holder.append(title, svg, told);
    for (const value of ticks(x0, x1, log)) {
      element("line", { x1: px(value), x2: px(value), y1: TOP, y2: HEIGHT - BOTTOM, stroke: "#e4e7eb" }, svg);
      element("text", { x: px(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle", fill: "#5b6470" }, svg, value);
    }
    for (const value of ticks(y0, y1, false)) {
      element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value), stroke: "#e4e7eb" }, svg);
      element("text", { x: LEFT - 6, y: py(value) + 4, "text-anchor": "end", fill: "#5b6470" }, svg, value);
    }
    element("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 8, "text-anchor": "middle", fill: "#2b323b" }, svg, spec.x);
    element("text", { x: 14, y: HEIGHT / 2, "text-anchor": "middle", fill: "#2b323b",
      transform: `rotate(-90 14 ${HEIGHT / 2})` }, svg, spec.y);
    for (const series of spec.series) {
      const group = element("g", { "data-size": series.size, "data-recipe": series.recipe || "" }, svg);
      const color = colors.get(series.size);
      if (spec.line && series.points.length > 1)
        element("polyline", { points: series.points.map((p) => `${px(p.x)},${py(p.y)}`).join(" "),
          fill: "none", stroke: color, "stroke-width": 1.8 }, group);
      for (const point of series.points) {
        const mark = element("circle", { class: "point", cx: px(point.x), cy: py(point.y), r: spec.line ? 4 : 6.5,
          fill: color, tabindex: 0, role: "img", "aria-label": point.text }, group);
        element("title", {}, mark, point.text);
        for (const event of ["mouseenter", "focus"])
          mark.addEventListener(event, () => { told.textContent = point.text; });
      }
    }
    return holder;
  }

  function filter() {
    for (const group of section.querySelectorAll("g[data-size]")) {
      const recipe = group.dataset.recipe;
      const visible = shown.size.has(group.dataset.size) && (!recipe || shown.recipe.has(recipe));
      group.style.display = visible ? "" : "none";
    }
  }

  function controls(name, values) {
    const field = document.createElement("fieldset");
    field.innerHTML = `<legend>${name}</legend>`;
    for (const value of values) {
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox"; box.checked = true; box.name = name; box.value = value;
      box.addEventListener("change", () => {
        shown[name][box.checked ? "add" : "delete"](value);
        filter();
      });
      label.append(box, ` ${value}`);
      if (name === "size") label.style.borderBottom = `3px solid ${colors.get(value)}`;
      field.append(label);
    }
    return field;
  }

  const bar = section.querySelector(".controls"), charts = section.querySelector(".charts");
  bar.replaceChildren(controls("size", data.sizes.map((s) => s.name)), controls("recipe", data.recipes));
  for (const spec of data.charts) charts.append(chart(spec));
  section.hidden = false;
})();
