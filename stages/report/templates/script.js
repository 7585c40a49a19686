// Moves thresholds. The counts come from bins of scores, see curve.rs: a count is exact at every end of
// a bin and between bins; a number inside of a bin is moved to an end of it.
"use strict";
const NEAR = 6; // pictures on each side of a threshold
const count = new Intl.NumberFormat("en-US");
const percent = (part, whole) => (100 * part / Math.max(whole, 1)).toFixed(1) + "%";

// Returns a float32 number with the fewest digits that say which one it is.
function short(number) {
  for (let digits = 1; digits < 10; digits++) {
    const text = Number(number.toPrecision(digits));
    if (Math.fround(text) === number) return String(text);
  }
  return String(number);
}

class Curve {
  constructor({curve, now, end}) {
    this.keepsBelow = curve.keep === "below";
    this.lows = curve.bins.map(bin => Math.fround(bin.low));
    this.highs = curve.bins.map(bin => Math.fround(bin.high));
    this.certain = [0];
    this.possible = [0];
    for (const bin of curve.bins) {
      this.certain.push(this.certain.at(-1) + bin.certain);
      this.possible.push(this.possible.at(-1) + bin.possible);
    }
    const edges = [...this.lows, Math.fround(end), Math.fround(now)];
    this.edges = [...new Set(edges)].sort((a, b) => a - b);
  }

  // Returns the first bin that is not below a threshold.
  at(threshold) {
    const found = this.highs.findIndex(high => high >= threshold);
    return found < 0 ? this.highs.length : found;
  }

  // Returns the nearest threshold whose count is known.
  exact(threshold) {
    const bin = this.at(threshold);
    if (bin === this.lows.length || this.lows[bin] >= threshold) return threshold;
    return this.edges[this.nearest(threshold)];
  }

  nearest(threshold) {
    const next = this.edges.findIndex(edge => edge >= threshold);
    if (next < 0) return this.edges.length - 1;
    const before = Math.max(next - 1, 0);
    return threshold - this.edges[before] < this.edges[next] - threshold ? before : next;
  }

  kept(threshold) {
    const bin = this.at(threshold);
    const of = sums => this.keepsBelow ? sums[bin] : sums.at(-1) - sums[bin];
    return [of(this.certain), of(this.possible)];
  }
}

class Control {
  constructor(article, data) {
    this.data = data;
    this.curve = new Curve(data);
    const find = selector => article.querySelector(selector);
    this.slider = find("input[type=range]");
    this.number = find("input[type=number]");
    this.output = find("output");
    this.flag = find(".flag");
    this.line = find(".line");
    this.plot = find("svg.score");
    this.strip = find(".strip");
    this.slider.max = this.curve.edges.length - 1;
    this.slider.addEventListener("input", () => this.set(this.curve.edges[this.slider.value], this.slider));
    this.number.addEventListener("input", () => {
      const wanted = Math.fround(this.number.valueAsNumber);
      if (Number.isFinite(wanted)) this.set(wanted, this.number);
    });
    find("button").addEventListener("click", () => this.set(Math.fround(data.now)));
    find(".set").hidden = false;
    this.set(Math.fround(data.now));
  }

  set(wanted, from) {
    const threshold = this.curve.exact(wanted);
    const text = short(threshold);
    if (from !== this.slider) this.slider.value = this.curve.nearest(threshold);
    if (from !== this.number) this.number.value = text;
    this.slider.setAttribute("aria-valuetext", text);
    const moved = threshold === wanted ? "" : ` at ${text}, the nearest threshold with an exact count`;
    this.output.value = this.result(threshold) + moved;
    this.flag.textContent = `--${this.data.flag} ${this.data.score}=${text}`;
    const key = this.data.score.includes(".") ? `"${this.data.score}"` : this.data.score;
    this.line.textContent = `${this.data.flag} = { ${key} = ${text} }`;
    this.draw(threshold);
    if (this.strip) this.show(threshold, text);
  }

  result(threshold) {
    const [certain, possible] = this.curve.kept(threshold);
    const {came, kept, rules} = this.data;
    const share = percent(certain, came);
    if (possible > 0) {
      return `keeps ${count.format(certain)} to ${count.format(certain + possible)} of ${count.format(came)}: the filter's rules (${rules}) decide`;
    }
    const more = certain - kept;
    const change = more === 0 ? "as it is now" : `${count.format(Math.abs(more))} ${more > 0 ? "more" : "fewer"} than now`;
    return `keeps ${count.format(certain)} of ${count.format(came)} (${share}), ${change}`;
  }

  draw(threshold) {
    const [low, high] = this.data.axis;
    const width = this.plot.viewBox.baseVal.width;
    const place = high > low ? (threshold - low) / (high - low) : 0.5;
    const x = Math.min(Math.max(place, 0), 1) * width;
    const mark = this.plot.querySelector(".mark");
    mark.setAttribute("x1", x);
    mark.setAttribute("x2", x);
    const out = this.plot.querySelector(".out");
    out.setAttribute("x", this.curve.keepsBelow ? x : 0);
    out.setAttribute("width", this.curve.keepsBelow ? width - x : x);
  }

  show(threshold, text) {
    const cells = [...this.strip.querySelectorAll(".cell")];
    const value = cell => Math.fround(cell.firstElementChild.dataset.value);
    const below = cells.filter(cell => value(cell) < threshold).length;
    cells.forEach((cell, place) => cell.hidden = place < below - NEAR || place >= below + NEAR);
    const line = this.strip.querySelector(".line");
    line.querySelector("b").textContent = text;
    this.strip.insertBefore(line, cells[below] ?? null);
  }
}

const controls = JSON.parse(document.getElementById("controls").textContent);
document.querySelectorAll(".control").forEach((article, place) => new Control(article, controls[place]));
