"use strict";
// The one viewer: photographs, answers, masks and maps. What it is told is made by aas/view/report_entry.py.
// Every word of a model, a file or a user becomes a text node or an attribute's value: nothing is parsed as HTML.
globalThis.AasViewer = (() => {
  // ------------------------------------------------------------------------------------------------ small helpers

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const same = (one, other) => one?.panel === other?.panel && one?.index === other?.index;
  const shown = (value) => value.toFixed(2).replace("-", "−");
  const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
  const wordsOf = (panel) => (panel?.pieces ?? []).map(([text]) => text).join("");
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  function bytesOf(base64) {
    const binary = atob(base64), bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  // What a canvas holds in one number: red lies in its lowest byte.
  const packed = (red, green, blue, alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;

  // A thing's colour is a class of the style sheet; nobody else knows it.
  function colourOf(root, thing) {
    const probe = root.appendChild(make("i", { class: colourClass(thing), hidden: true }));
    const hex = getComputedStyle(probe).getPropertyValue("--c").trim();
    probe.remove();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }
  let nColours = 1;
  const colourClass = (thing) => `c${thing % nColours}`;

  // ------------------------------------------------------------------------------------------------------- masks

  // COCO's text of runs (zeros, ones, zeros, …), here along the rows: 5 bits a character, 32: more follow, 16 of the
  // last: negative; from the fourth run on the difference to the run two before.
  function runsOf(text) {
    const runs = [];
    for (let at = 0; at < text.length; ) {
      let value = 0, shift = 0, code;
      do {
        code = text.charCodeAt(at++) - 48;
        value += (code & 31) * 2 ** shift;
        shift += 5;
      } while (code & 32);
      if (code & 16) value -= 2 ** shift;
      runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
    }
    return runs;
  }

  // A mask as one byte a pixel, the rectangle that it fills, and its area in pixels.
  function bitmapOf(runs, width, height) {
    const bits = new Uint8Array(width * height);
    const box = { left: width, top: height, right: 0, bottom: 0 };
    let at = 0, area = 0;
    runs.forEach((length, i) => {
      if (i % 2 && length) {
        bits.fill(1, at, at + length);
        area += length;
        const first = Math.floor(at / width), last = Math.floor((at + length - 1) / width);
        box.top = Math.min(box.top, first);
        box.bottom = Math.max(box.bottom, last + 1);
        box.left = first === last ? Math.min(box.left, at % width) : 0;
        box.right = first === last ? Math.max(box.right, ((at + length - 1) % width) + 1) : width;
      }
      at += length;
    });
    return { bits, box, area };
  }

  // Paints a mask into `pixels` [height, width]: its inside, and within two pixels of its outside its edge.
  function paint(pixels, { bits, box }, width, height, fill, edge) {
    for (let y = box.top; y < box.bottom; y++) {
      const up = y > 1 ? -2 * width : 0, down = y < height - 2 ? 2 * width : 0;
      for (let x = box.left, i = y * width + x; x < box.right; x++, i++) {
        if (!bits[i]) continue;
        const within = bits[i + up] && bits[i + down] && (x < 2 || bits[i - 2]) && (x > width - 3 || bits[i + 2]);
        pixels[i] = within ? fill : edge;
      }
    }
  }

  // A mask with every `step`-th pixel of its rows and columns: edges that are seen on a small picture.
  function shrunk({ bits, box }, width, height, step) {
    const [columns, rows] = [width, height].map((side) => Math.floor(side / step)), found = new Uint8Array(columns * rows);
    for (let y = 0, i = 0; y < rows; y++) for (let x = 0; x < columns; x++, i++) found[i] = bits[y * step * width + x * step];
    const [left, top] = [box.left, box.top].map((side) => Math.floor(side / step));
    const right = Math.min(columns, Math.ceil(box.right / step)), bottom = Math.min(rows, Math.ceil(box.bottom / step));
    return { mask: { bits: found, box: { left, top, right, bottom } }, columns, rows };
  }

  // -------------------------------------------------------------------------------------------------------- maps

  const HEAT = [[8, 6, 30, 90], [81, 18, 124, 140], [183, 55, 121, 185], [252, 137, 97, 205], [252, 253, 191, 220]];
  const HEAT_COLOURS = Uint32Array.from({ length: 256 }, (_, level) => {
    const at = (level / 255) * (HEAT.length - 1), i = Math.min(HEAT.length - 2, Math.floor(at)), share = at - i;
    return packed(...HEAT[i].map((value, c) => Math.round(value + (HEAT[i + 1][c] - value) * share)));
  });
  const HEAT_SIDE = 160, OUTLINE_SIDE = 320, OUTLINE = packed(255, 255, 255, 255);

  // The four weights of bicubic interpolation as torch has them (a = -0.75): the point was found on such a map.
  function cubic(t) {
    const a = -0.75, near = (x) => ((a + 2) * x - (a + 3)) * x * x + 1, far = (x) => ((x - 5) * x + 8) * x * a - 4 * a;
    return [far(t + 1), near(t), near(1 - t), far(2 - t)];
  }

  // [rows, columns] -> [columns * factor, rows]: along one direction, and turned, so that two calls do both.
  function enlargedAndTurned(grid, rows, columns, factor) {
    const found = new Float32Array(columns * factor * rows);
    for (let out = 0; out < columns * factor; out++) {
      const at = (out + 0.5) / factor - 0.5, first = Math.floor(at), weights = cubic(at - first);
      for (let k = 0; k < 4; k++) {
        const column = Math.min(columns - 1, Math.max(0, first + k - 1));
        for (let row = 0; row < rows; row++) found[out * rows + row] += weights[k] * grid[row * columns + column];
      }
    }
    return found;
  }

  function drawHeat(canvas, grid, rows, columns) {
    const factor = Math.max(1, Math.floor(HEAT_SIDE / Math.max(rows, columns)));
    const wide = enlargedAndTurned(grid, rows, columns, factor);
    const values = enlargedAndTurned(wide, columns * factor, rows, factor);
    canvas.width = columns * factor;
    canvas.height = rows * factor;
    const picture = new ImageData(canvas.width, canvas.height), pixels = new Uint32Array(picture.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = HEAT_COLOURS[Math.min(255, Math.max(0, Math.round(values[i])))];
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  // The i-th map of those that Python told: uint8 [n, rows, columns].
  function mapOf(told, i) {
    const [rows, columns] = told.size;
    told.grids ??= bytesOf(told.bytes);
    return { grid: told.grids.subarray(i * rows * columns, (i + 1) * rows * columns), rows, columns };
  }

  // ----------------------------------------------------------------------------------- one picture with its layers

  class Figure {
    constructor(summary, panel, source) {
      const [height, width] = summary.size;
      // What each source says by itself, where they are compared.
      const own = panel.own?.[source];
      Object.assign(this, { width, height, source, notes: own?.notes, name: panel.sources[source] });
      this.image = make("img", { class: "base", alt: summary.name, width, height, decoding: "async", src: summary.thumb });
      [this.rest, this.lit, this.heat] = ["rest", "one", "heat"].map((name) =>
        make("canvas", { class: name, width: 0, height: 0, "aria-hidden": "true" }));
      this.outline = own ? make("canvas", { class: "outline", width: 0, height: 0, "aria-hidden": "true" }) : null;
      this.points = panel.phrases.flatMap((phrase, i) => (own ? [own.points[i]] : phrase.points).map((point) => this.point(phrase, i, point)));
      const points = make("div", { class: "points", "aria-hidden": "true" }, ...this.points);
      this.stage = make("div", { class: "stage" }, this.image, this.rest, this.lit, this.heat, this.outline, points);
      this.stage.style.setProperty("--aspect", String(width / height));
      this.caption = panel.sources.length > 1 || own ? make("figcaption", { dir: "auto" }, this.name) : null;
      this.element = make("figure", { class: source ? "figure further" : "figure" }, this.stage, this.caption);
    }

    point(phrase, i, { kind, at }) {
      const element = make("i", { class: `point ${kind} ${colourClass(phrase.thing)}`, "data-i": i, "data-m": phrase.thing });
      element.style.left = `${100 * at[0]}%`;
      element.style.top = `${100 * at[1]}%`;
      return element;
    }

    // The pictures of the figure that it replaces: new ones would be blank for a moment.
    adopt({ image, rest }) {
      this.image.replaceWith(image);
      this.rest.replaceWith(rest);
      Object.assign(this, { image, rest });
    }

    open(details, drawn) {
      if (this.image.src !== details.photo) this.image.src = details.photo;
      this.maps = drawn.maps[this.source];
      if (!this.maps) return;
      ["left", "top", "width", "height"].forEach((side, i) => {
        this.heat.style[side] = `${100 * this.maps.box[i]}%`;
      });
    }

    // Pictures that nobody sees hold no memory.
    close(summary) {
      this.image.src = summary.thumb;
      for (const canvas of [this.rest, this.lit, this.heat, this.outline]) if (canvas) canvas.width = canvas.height = 0;
      this.maps = this.picture = null;
    }

    // All masks in one picture, the smallest on top: tints that add up would hide both photograph and colours.
    drawAll(masks, tint) {
      this.rest.width = this.width;
      this.rest.height = this.height;
      const picture = new ImageData(this.width, this.height), pixels = new Uint32Array(picture.data.buffer);
      for (const mask of masks) paint(pixels, mask, this.width, this.height, ...tint(mask));
      this.rest.getContext("2d").putImageData(picture, 0, 0);
    }

    drawOne(mask, tint) {
      if (this.lit.width !== this.width || this.lit.height !== this.height) {
        this.lit.width = this.width;
        this.lit.height = this.height;
      }
      const pen = this.lit.getContext("2d");
      pen.clearRect(0, 0, this.width, this.height);
      if (!mask?.area) return;
      const { left, top, right, bottom } = mask.box;
      this.picture ??= new ImageData(this.width, this.height);
      const pixels = new Uint32Array(this.picture.data.buffer).fill(0, top * this.width, bottom * this.width);
      paint(pixels, mask, this.width, this.height, ...tint(mask));
      pen.putImageData(this.picture, 0, 0, left, top, right - left, bottom - top);
    }

    drawMap(kind, i) {
      const told = this.maps?.[kind];
      if (!told) return false;
      const { grid, rows, columns } = mapOf(told, i);
      drawHeat(this.heat, grid, rows, columns);
      return true;
    }

    // Over the map of a phrase: where its thing is, and how well this source found it. Of a token nothing is known.
    drawOwn(mask, note) {
      this.outline.width = this.outline.height = 0;
      this.caption?.replaceChildren(note ? `${this.name}: ${note}` : this.name);
      if (!mask?.area) return;
      const step = Math.max(1, Math.floor(Math.max(this.width, this.height) / OUTLINE_SIDE));
      const { mask: small, columns, rows } = shrunk(mask, this.width, this.height, step);
      Object.assign(this.outline, { width: columns, height: rows });
      const picture = new ImageData(columns, rows);
      paint(new Uint32Array(picture.data.buffer), small, columns, rows, 0, OUTLINE);
      this.outline.getContext("2d").putImageData(picture, 0, 0);
    }

    pixelUnder(event) {
      const box = this.stage.getBoundingClientRect();
      const x = Math.floor(((event.clientX - box.left) / box.width) * this.width);
      const y = Math.floor(((event.clientY - box.top) / box.height) * this.height);
      return x >= 0 && y >= 0 && x < this.width && y < this.height ? y * this.width + x : null;
    }
  }

  // --------------------------------------------------------------------- one answer: its words and its pictures

  class Panel {
    constructor(entry, told, index) {
      Object.assign(this, { entry, told, index, masks: [], tokens: [] });
      const n = Math.max(1, told.sources.length);
      this.figures = Array.from({ length: n }, (_, source) => new Figure(entry.summary, told, source));
      this.caption = make("p", { class: "caption", "aria-live": "polite", dir: "auto" });
      this.raw = make("button", { class: "raw", type: "button", "aria-pressed": "false" }, "Photograph only");
      const figures = make("div", { class: "figures" }, ...this.figures.map((figure) => figure.element));
      const picture = make("div", { class: "picture" }, figures, this.caption, this.controls());
      const title = told.title ? make("h3", { dir: "auto" }, told.title) : null;
      this.element = make("section", { class: "panel" }, title, picture, this.words());
      this.marked = [...this.element.querySelectorAll("[data-m]")];
    }

    controls() {
      const row = make("div", { class: "controls" });
      if (this.told.sources.length) {
        this.slider = make("input", { type: "range", min: 0, max: 0, value: 0, disabled: true, "aria-label": "Token of the answer" });
        this.slider.addEventListener("input", () => this.walked(Number(this.slider.value) - 1));
        row.append(make("label", { class: "walk" }, make("span", {}, "Tokens"), this.slider));
      }
      this.raw.addEventListener("click", () => this.entry.set({ raw: !this.entry.state.raw }));
      if (!this.index) row.append(this.raw);
      return row;
    }

    // The slider's first place is that of no token.
    walked(index) {
      this.entry.set(index < 0 ? NOTHING : { ...NOTHING, raw: false, token: { panel: this.index, index } });
      this.slider.setAttribute("aria-valuetext", index < 0 ? "none" : this.wordOf(index));
    }

    words() {
      const told = this.told;
      this.texts = [];
      this.answer = make("p", { class: "answer", dir: "auto" }, ...this.pieces());
      const legend = make("ul", { class: "legend" }, ...told.things.map((thing) => this.row(thing)));
      const question = told.question ? make("p", { class: "question", dir: "auto" }, told.question) : null;
      const remark = told.remark ? make("p", { class: "remark", dir: "auto" }, told.remark) : null;
      const answer = told.pieces.length ? this.answer : null;
      return make("div", { class: "words" }, question, answer, told.things.length ? legend : null, remark);
    }

    // A phrase is one button, and what other phrases cut off it has its colours and no place of its own for Tab.
    pieces() {
      const begun = new Set();
      let at = 0;
      return this.told.pieces.map(([text, phrase]) => {
        const node = document.createTextNode(text);
        this.texts.push({ node, start: at, end: (at += text.length) });
        if (phrase === null) return node;
        const marks = { "data-i": phrase, "data-m": this.told.phrases[phrase].thing };
        const colour = colourClass(this.told.phrases[phrase].thing);
        if (begun.has(phrase)) return make("span", { class: `phrase ${colour}`, ...marks }, node);
        begun.add(phrase);
        return make("button", { class: `phrase ${colour}`, type: "button", tabindex: "-1", "aria-pressed": "false", ...marks }, node);
      });
    }

    row({ thing, phrases }) {
      const terms = phrases.flatMap((i, nth) => [nth ? " · " : null, this.term(i, thing)]);
      const figures = Object.keys(this.told.phrases[phrases[0]].figures).map((name) => {
        const values = phrases.map((i) => this.told.phrases[i].figures[name]); // phrases that share a mask have their own
        const said = values.every((value) => shown(value) === shown(values[0])) ? values.slice(0, 1) : values;
        return make("span", { class: "score", title: `${capital(name)}: ${values.join(", ")}` }, `${name} ${said.map(shown).join(" · ")}`);
      });
      const swatch = make("i", { class: "swatch", "aria-hidden": "true" });
      return make("li", { class: colourClass(thing), "data-m": thing }, swatch, make("span", { class: "terms" }, ...terms), make("span", { class: "notes" }, ...figures));
    }

    term(i, thing) {
      const words = this.told.phrases[i].text;
      return make("button", { class: "term", type: "button", tabindex: "-1", "aria-pressed": "false", "data-i": i, "data-m": thing, dir: "auto" }, words);
    }

    // What the arrow keys go through.
    stops() {
      const inAnswer = [...this.answer.querySelectorAll("button")];
      return inAnswer.length ? inAnswer : [...this.element.querySelectorAll(".term")];
    }

    phraseOf(thing) {
      return this.told.things.find((one) => one.thing === thing)?.phrases[0];
    }

    open(details) {
      const drawn = details.panels[this.index];
      const [height, width] = this.entry.summary.size;
      this.masks = drawn.masks.map(({ thing, runs }) => ({ thing, ...bitmapOf(runsOf(runs), width, height) }));
      this.masks.sort((one, other) => other.area - one.area);
      for (const figure of this.figures) figure.open(details, drawn);
      const walks = drawn.maps.some((maps) => maps.tokens) ? drawn.tokens : [];
      this.tokens = walks;
      this.lastDrawn = undefined;
      if (this.slider) {
        this.slider.max = walks.length;
        this.slider.disabled = !walks.length;
      }
      this.drawAll();
    }

    close() {
      for (const figure of this.figures) figure.close(this.entry.summary);
      this.masks = [];
      this.litDrawn = this.lastDrawn = undefined;
    }

    // [fill, edge] of a mask; with few pixels edges would be all that is left.
    tint(opacity) {
      const { page, summary } = this.entry;
      return ({ thing }) => {
        const colour = page.colour(thing), fill = packed(...colour, Math.round(255 * opacity));
        return [fill, summary.pixelated ? fill : packed(...colour, Math.round(255 * Math.min(1, 2.5 * opacity)))];
      };
    }

    drawAll() {
      const tint = this.tint(this.entry.page.opacity);
      const seen = this.masks.filter(({ thing }) => this.entry.isSeen(this.index, thing));
      this.figures[0].drawAll(seen, tint); // the further ones are seen with their maps alone
      this.litDrawn = undefined;
    }

    // The mask under the pointer; where several lie, the smallest.
    thingUnder(event, figure) {
      const pixel = figure.pixelUnder(event);
      if (pixel === null) return null;
      for (let i = this.masks.length - 1; i >= 0; i--) {
        const { bits, thing } = this.masks[i];
        if (bits[pixel] && this.entry.isSeen(this.index, thing)) return thing;
      }
      return null;
    }

    update({ lit, shown: map, token, raw }, attention) {
      for (const element of this.marked) {
        const isOn = lit !== null && Number(element.dataset.m) === lit;
        const isShown = map !== null && map.panel === this.index && Number(element.dataset.i) === map.index;
        element.classList.toggle("on", isOn);
        element.classList.toggle("shown", isShown);
        if (element.matches("button")) element.setAttribute("aria-pressed", String(isShown));
      }
      this.raw.setAttribute("aria-pressed", String(raw));
      if (this.litDrawn !== lit) this.drawLit(lit);
      this.drawMap(attention ? map : null, attention ? token : null);
      this.caption.textContent = this.said(lit, map, token, attention);
    }

    drawLit(lit) {
      this.litDrawn = lit;
      const mask = this.masks.find((one) => one.thing === lit);
      const tint = this.tint(Math.max(0.35, this.entry.page.opacity));
      this.figures[0].drawOne(mask, tint);
    }

    drawMap(map, token) {
      const wanted = token?.panel === this.index ? `tokens ${token.index}` : map?.panel === this.index ? `phrases ${map.index}` : "";
      if (this.lastDrawn === wanted) return;
      this.lastDrawn = wanted;
      const [kind, i] = wanted.split(" ");
      let any = false;
      for (const figure of this.figures) any = (wanted && figure.drawMap(kind, Number(i))) || any;
      const thing = kind === "phrases" ? this.told.phrases[i].thing : null, mask = this.masks.find((one) => one.thing === thing);
      for (const figure of this.figures) if (figure.outline) figure.drawOwn(mask, thing === null ? "" : figure.notes[i]);
      this.element.classList.toggle("mapped", any);
      if (this.slider && token === null) this.slider.value = 0;
    }

    said(lit, map, token, attention) {
      const { sources } = this.told;
      const what = sources.length > 1 ? "Maps" : sources[0] === "attention" ? "Attention" : "Map";
      if (attention && token?.panel === this.index) {
        return `${what} while “${this.wordOf(token.index)}” was written: token ${token.index + 1} of ${this.tokens.length}.`;
      }
      if (attention && map?.panel === this.index) {
        const { text, points } = this.told.phrases[map.index];
        if (this.told.own) return `“${text}” by each source: its map, its point, and the outline of what is true.`;
        return this.figures[0].maps?.phrases
          ? `${what} for “${text}”, its prompt ${points.length > 1 ? "points" : "point"} marked.`
          : `“${text}” has no map in this run.`;
      }
      const thing = this.told.things.find((one) => one.thing === lit);
      return thing ? this.saidOfMask(thing) : "";
    }

    saidOfMask({ thing, phrases }) {
      const words = phrases.map((i) => this.told.phrases[i].text).join(" · ");
      const figures = Object.entries(this.told.phrases[phrases[0]].figures).map(([name, value]) => `, ${name} ${shown(value)}`);
      const [height, width] = this.entry.summary.size;
      const mask = this.masks.find((one) => one.thing === thing);
      const share = mask ? (100 * mask.area) / (width * height) : 0;
      const part = mask ? `, ${share > 0 && share < 1 ? "less than 1" : Math.round(share)} % of the photograph` : "";
      return `Mask of “${words}”${figures.join("")}${part}.`;
    }

    wordOf(index) {
      return this.lettersOf(...this.tokens[index]).trim() || "the end";
    }

    lettersOf(start, end) {
      return this.texts.map(({ node }) => node.data).join("").slice(start, end);
    }

    // The token of the answer whose characters lie under the pointer.
    tokenUnder(event) {
      const place = document.caretPositionFromPoint?.(event.clientX, event.clientY);
      const range = place ? null : document.caretRangeFromPoint?.(event.clientX, event.clientY);
      const node = place?.offsetNode ?? range?.startContainer, offset = place?.offset ?? range?.startOffset;
      const text = this.texts.find((one) => one.node === node);
      if (!text) return -1;
      return this.tokens.findIndex(([start, end]) => start <= text.start + offset && text.start + offset < end);
    }

    rangeOf(index) {
      const [from, end] = this.tokens[index] ?? [0, 0], letters = this.lettersOf(from, end);
      const start = from + letters.length - letters.trimStart().length;
      const first = this.texts.find((one) => start < one.end), last = this.texts.find((one) => end <= one.end);
      if (!first || !last || start >= end) return null;
      const range = new Range();
      range.setStart(first.node, Math.max(0, start - first.start));
      range.setEnd(last.node, end - last.start);
      return range;
    }
  }

  // ------------------------------------------------------------------------------------------------ one photograph

  // `lit`: the mask under the pointer or the focus; `pinned`: the one that was tapped; `shown`, `token`: whose map.
  const NOTHING = { lit: null, pinned: null, shown: null, token: null };

  class Entry {
    constructor(page, summary, index) {
      Object.assign(this, { page, summary, index });
      this.state = { ...NOTHING, raw: false };
      this.id = `photo-${summary.name}`;
      Object.assign(this, { panels: [], stops: [] });
      this.n_phrases = summary.panels[0]?.phrases.length ?? 0;
      // The words alone, to be found and read, until the rest is needed.
      this.plain = make("p", { class: "answer", dir: "auto" }, wordsOf(summary.panels[0]));
      this.element = make("article", { class: this.form(), id: this.id, "aria-label": summary.name }, this.head(), this.plain);
      const texts = summary.panels.flatMap(({ title, question, pieces, phrases }) => [title, question, wordsOf({ pieces }), ...phrases.map((one) => one.text)]);
      this.text = [summary.name, ...texts].join("\n").toLowerCase();
      this.listen();
    }

    build() {
      if (this.panels.length) return;
      this.panels = this.summary.panels.map((told, i) => new Panel(this, told, i));
      this.plain.replaceWith(make("div", { class: `panels of${this.panels.length}` }, ...this.panels.map((panel) => panel.element)));
      this.stops = this.panels.flatMap((panel) => panel.stops());
      this.stops[0]?.setAttribute("tabindex", "0");
      this.mark();
    }

    form() {
      const [height, width] = this.summary.size, aspect = width / height;
      const form = aspect > 1.9 ? "wide" : aspect < 0.85 ? "tall" : "common";
      return `entry ${form}${this.summary.pixelated ? " pixelated" : ""}`;
    }

    head() {
      const { name, figures, links } = this.summary;
      const anchor = make("a", { class: "anchor", href: `#${encodeURIComponent(this.id)}`, dir: "auto" }, name);
      const badges = Object.entries(figures).map(([what, value]) => make("span", { class: "badge" }, `${what} ${shown(value)}`));
      const others = links.map(([words, to]) => make("a", { href: to, "aria-label": `${words} of ${name}` }, words));
      return make("header", { class: "head" }, make("h2", {}, anchor), ...badges, make("span", { class: "links" }, ...others));
    }

    // What a number of the page is for this photograph: its own, or the mean of its phrases'.
    figure(name) {
      if (name in this.summary.figures) return this.summary.figures[name];
      const values = this.summary.panels[0].phrases.map((one) => one.figures[name]).filter((value) => value !== undefined);
      return values.length ? mean(values) : null;
    }

    isSeen(panel, thing) {
      const told = this.summary.panels[panel];
      return told.things.find((one) => one.thing === thing)?.phrases.some((i) => this.page.passes(told.phrases[i])) ?? false;
    }

    // Whether search and filters leave anything of it.
    filter(words) {
      const phrases = this.summary.panels[0]?.phrases ?? [];
      const leaves = !phrases.length || !this.page.isFiltering() || phrases.some((one) => this.page.passes(one));
      this.element.hidden = !(leaves && words.every((word) => this.text.includes(word)));
      this.mark();
      if (this.isOpen) {
        this.panels.forEach((panel) => panel.drawAll());
        this.update();
      }
      return !this.element.hidden;
    }

    // What the filters leave out.
    mark() {
      for (const panel of this.panels) {
        for (const element of panel.marked) {
          element.classList.toggle("below", !this.isSeen(panel.index, Number(element.dataset.m)));
        }
      }
    }

    async open() {
      this.wanted = true;
      this.build();
      if (this.isOpen || this.isOpening) return;
      this.isOpening = true;
      try {
        await idle(); // what is scrolled past quickly is not drawn
        const details = this.wanted ? await detailsOf(this.summary) : null;
        if (this.wanted && details) this.draw(details);
      } catch (error) {
        this.hasFailed = true;
        for (const panel of this.panels) panel.caption.textContent = error.message;
      }
      this.isOpening = false;
      if (this.wanted && !this.isOpen && !this.hasFailed) this.open();
    }

    draw(details) {
      this.isOpen = true;
      for (const panel of this.panels) panel.open(details);
      this.element.classList.add("open");
      this.update();
    }

    close() {
      this.wanted = false;
      if (!this.isOpen) return;
      this.isOpen = false;
      this.element.classList.remove("open");
      for (const panel of this.panels) panel.close();
    }

    set(change) {
      const state = { ...this.state, ...change };
      if ("token" in change && change.token !== null) state.shown = null;
      if ("shown" in change && change.shown !== null) state.token = null;
      if (Object.keys(state).every((key) => state[key] === this.state[key])) return;
      this.state = state;
      this.update();
    }

    update() {
      const { lit, pinned, shown: map, token, raw } = this.state;
      const light = lit ?? pinned;
      const mine = map === null ? null : this.summary.panels[map.panel].phrases[map.index].thing;
      const peek = map !== null && lit !== null && lit !== mine;
      const attention = (map !== null || token !== null) && !peek;
      this.element.classList.toggle("lit", light !== null);
      this.element.classList.toggle("attention", attention);
      this.element.classList.toggle("walking", token !== null);
      this.element.classList.toggle("raw", raw);
      for (const panel of this.panels) panel.update({ lit: light, shown: map, token, raw }, attention);
      this.page.markToken(token === null ? null : this.panels[token.panel].rangeOf(token.index), this);
    }

    // A click shows the map of a phrase and the next one hides it; taps, which cannot hover, go mask, map, all.
    press(panel, index, isTap) {
      const thing = this.summary.panels[panel].phrases[index].thing, wanted = { panel, index };
      if (same(this.state.shown, wanted)) return this.set(NOTHING);
      if (isTap && this.state.pinned !== thing) return this.set({ ...NOTHING, pinned: thing });
      this.set({ shown: wanted, token: null, pinned: isTap ? thing : null, raw: false });
    }

    listen() {
      const { element } = this;
      element.addEventListener("pointerover", (event) => this.over(event));
      element.addEventListener("pointermove", (event) => this.moved(event));
      element.addEventListener("pointerout", (event) => this.out(event));
      element.addEventListener("click", (event) => this.clicked(event));
      element.addEventListener("keydown", (event) => this.typed(event));
      element.addEventListener("focusin", (event) => {
        const mark = event.target.closest("[data-m]");
        if (mark && event.target.matches(":focus-visible")) this.set({ lit: Number(mark.dataset.m) });
        if (this.stops.includes(event.target)) this.stops.forEach((stop) => stop.setAttribute("tabindex", stop === event.target ? "0" : "-1"));
      });
      element.addEventListener("focusout", () => this.set({ lit: null }));
    }

    panelOf(target) {
      const section = target.closest(".panel");
      return this.panels.find((panel) => panel.element === section);
    }

    figureOf(target, panel) {
      const stage = target.closest(".stage");
      return panel?.figures.find((figure) => figure.stage === stage);
    }

    over(event) {
      const mark = event.target.closest(".phrase, .term, .legend li");
      if (mark && event.pointerType !== "touch") this.set({ lit: Number(mark.dataset.m) });
    }

    moved(event) {
      const panel = this.panelOf(event.target), figure = this.figureOf(event.target, panel);
      if (!figure || event.pointerType === "touch") return;
      // The pointer may stroll over a map without changing it.
      const strolls = this.state.shown !== null || this.state.token !== null || this.state.raw;
      const thing = strolls ? null : panel.thingUnder(event, figure);
      figure.stage.classList.toggle("pointing", thing !== null);
      this.set({ lit: thing });
    }

    out(event) {
      const left = event.target.closest(".phrase, .term, .legend li, .stage");
      if (!left || left.contains(event.relatedTarget) || event.pointerType === "touch") return;
      const focused = this.element.querySelector("[data-m]:focus-visible");
      this.set({ lit: focused ? Number(focused.dataset.m) : null });
    }

    clicked(event) {
      const isTap = (event.pointerType || this.page.pointer) === "touch" && event.detail > 0;
      const panel = this.panelOf(event.target);
      if (!panel || event.target.closest(".controls")) return;
      const mark = event.target.closest(".phrase, .term, .legend li");
      if (mark) {
        const index = mark.dataset.i === undefined ? panel.phraseOf(Number(mark.dataset.m)) : Number(mark.dataset.i);
        return this.press(panel.index, index, isTap);
      }
      const figure = this.figureOf(event.target, panel);
      if (figure) return this.clickedPicture(panel, figure, event, isTap);
      if (event.target.closest(".answer") && getSelection().isCollapsed) this.clickedWord(panel, event);
    }

    clickedPicture(panel, figure, event, isTap) {
      if (this.state.raw) return this.set({ ...NOTHING, raw: false });
      if (this.state.shown !== null || this.state.token !== null) return this.set(NOTHING);
      const thing = panel.thingUnder(event, figure);
      if (thing !== null) return this.press(panel.index, panel.phraseOf(thing), isTap);
      this.set({ pinned: null });
    }

    clickedWord(panel, event) {
      const index = panel.tokenUnder(event), wanted = { panel: panel.index, index };
      if (index < 0 || same(this.state.token, wanted)) return this.set(NOTHING);
      panel.slider.value = index + 1;
      panel.walked(index);
    }

    typed(event) {
      if (event.key === "Escape") return this.set({ ...NOTHING, lit: this.state.lit, raw: false });
      const at = this.stops.indexOf(event.target);
      if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      const backwards = getComputedStyle(event.target.parentElement).direction === "rtl" ? -1 : 1;
      const step = { ArrowRight: backwards, ArrowLeft: -backwards }[event.key];
      const edge = { Home: 0, End: this.stops.length - 1 }[event.key];
      const to = step === undefined ? this.stops[edge] : this.stops[(at + step + this.stops.length) % this.stops.length];
      const across = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const target = to ?? (across ? this.page.neighbour(this, across) : undefined);
      if (!target) return;
      event.preventDefault();
      target.focus({ focusVisible: true });
    }
  }

  // -------------------------------------------------------------------------- where a photograph's details lie

  const waiting = new Map();

  function idle() {
    return new Promise((done) => (globalThis.requestIdleCallback ? requestIdleCallback(done, { timeout: 300 }) : setTimeout(done)));
  }

  // In the object itself, in a block of the page, or in a file beside it, which calls `receive`.
  async function detailsOf(summary) {
    if (summary.details) return summary.details;
    if (summary.block) return JSON.parse(document.getElementById(summary.block).textContent);
    return new Promise((resolve, reject) => {
      const script = make("script", { src: summary.file });
      waiting.set(summary.key, resolve);
      script.onload = () => script.remove();
      script.onerror = () => {
        script.remove();
        reject(new Error(`${summary.file}, which lies beside this page, cannot be read.`));
      };
      document.head.append(script);
    });
  }

  function receive(key, details) {
    waiting.get(key)?.(details);
    waiting.delete(key);
  }

  // ------------------------------------------------------------------------------------------------ the whole page

  const ALL_AT_ONCE = 50;

  class Page {
    constructor(root, told) {
      Object.assign(this, { root, told, opacity: 0.4, least: {}, colours: [] });
      this.entries = told.entries.map((summary, i) => new Entry(this, summary, i));
      this.order = [...this.entries];
      this.names = [...new Set(told.entries.flatMap(({ panels }) => panels.flatMap(({ phrases }) => phrases.flatMap((one) => Object.keys(one.figures)))))];
      this.bar = make("form", { class: "bar", role: "search", "aria-label": "Photographs to show" });
      this.list = make("div", { class: "entries", id: "photographs", tabindex: "-1" }, ...this.entries.map((entry) => entry.element));
      this.isOne = this.entries.length === 1;
      const body = make("div", { class: this.isOne ? "body" : "body with-contents" }, this.isOne ? null : this.contents(), this.list);
      root.append(this.bar, body);
      if (this.entries.length <= ALL_AT_ONCE) this.entries.forEach((entry) => entry.build());
      this.fillBar();
      if (told.sort) this.sort(told.sort);
      this.watch();
      addEventListener("pointerdown", (event) => (this.pointer = event.pointerType), true);
    }

    colour(thing) {
      return (this.colours[thing % nColours] ??= colourOf(this.root, thing));
    }

    // ---- the bar

    fillBar() {
      if (!this.isOne) this.bar.append(this.searchBox(), this.sortBox());
      const hasMasks = this.told.entries.some(({ panels }) => panels.some(({ phrases }) => phrases.length));
      this.bar.hidden = !this.entries.length || (this.isOne && !hasMasks);
      for (const name of this.names) if (!this.isOne || this.entries[0].n_phrases > 1) this.bar.append(this.filterBox(name));
      if (hasMasks) this.bar.append(this.opacityBox());
      this.count = make("output", { class: "count", "aria-live": "polite" });
      if (!this.isOne) this.bar.append(this.count);
      this.bar.addEventListener("submit", (event) => event.preventDefault());
    }

    searchBox() {
      this.search = make("input", { type: "search", placeholder: "Search words and names", "aria-label": "Search words and names", autocomplete: "off", spellcheck: "false" });
      this.search.addEventListener("input", () => this.filter());
      return this.search;
    }

    sortBox() {
      const figures = [...new Set([...this.told.entries.flatMap((one) => Object.keys(one.figures)), ...this.names])];
      const options = figures.flatMap((name) => [[`+${name}`, `Lowest ${name} first`], [`-${name}`, `Highest ${name} first`]]);
      const all = [["", "In order"], ...options, ["phrases", "Most phrases first"]];
      this.sorting = make("select", { "aria-label": "Order" }, ...all.map(([value, words]) => make("option", { value }, words)));
      this.sorting.value = this.told.sort ?? "";
      this.sorting.addEventListener("change", () => this.sort(this.sorting.value));
      return this.sorting;
    }

    filterBox(name) {
      const output = make("output", {}, "any");
      const input = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": `Least ${name}`, "aria-valuetext": "any" });
      input.addEventListener("input", () => {
        this.least[name] = Number(input.value);
        output.value = Number(input.value) ? `≥ ${shown(Number(input.value))}` : "any";
        input.setAttribute("aria-valuetext", output.value);
        this.soon(() => this.filter());
      });
      return make("label", { class: "range" }, make("span", {}, capital(name)), input, output);
    }

    opacityBox() {
      const input = make("input", { type: "range", min: 0, max: 100, value: 100 * this.opacity, "aria-label": "Opacity of the masks" });
      input.addEventListener("input", () => {
        this.opacity = Number(input.value) / 100;
        this.soon(() => this.entries.filter((entry) => entry.isOpen).forEach((entry) => {
          entry.panels.forEach((panel) => panel.drawAll());
          entry.update();
        }));
      });
      return make("label", { class: "range" }, make("span", {}, "Opacity"), input);
    }

    // Once before the next frame, whatever a slider says in between.
    soon(work) {
      this.next = work;
      this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.next();
      });
    }

    // ---- which photographs, and in which order

    isFiltering() {
      return Object.values(this.least).some((value) => value > 0);
    }

    passes(phrase) {
      return Object.entries(this.least).every(([name, least]) => (phrase.figures[name] ?? 1) >= least);
    }

    filter() {
      const words = (this.search?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const entry of this.entries) {
        n += entry.filter(words);
        if (entry.link) entry.link.parentElement.hidden = entry.element.hidden;
      }
      this.say(n);
    }

    say(n) {
      const all = this.entries.length;
      this.count.value = n === all ? "" : `${n.toLocaleString("en")} of ${all.toLocaleString("en")} photographs`;
      this.list.classList.toggle("nothing", n === 0 && this.entries.length > 0);
    }

    sort(how) {
      const sign = how[0] === "-" ? -1 : 1, name = how.slice(1);
      // Photographs without the figure stand behind all others.
      const value = (entry) => (how === "phrases" ? -entry.n_phrases : sign * (entry.figure(name) ?? sign * Infinity));
      this.order = [...this.entries];
      if (how) this.order.sort((one, other) => value(one) - value(other) || one.index - other.index);
      this.list.append(...this.order.map((entry) => entry.element));
      this.links?.append(...this.order.map((entry) => entry.link.parentElement));
    }

    neighbour(entry, step) {
      const seen = this.order.filter((one) => !one.element.hidden && one.n_phrases);
      const next = seen[seen.indexOf(entry) + step];
      next?.build();
      return next?.stops[0];
    }

    // ---- contents

    contents() {
      this.links = make("ol", {});
      for (const entry of this.entries) {
        const { name, thumb } = entry.summary;
        const picture = make("img", { src: thumb, alt: "", loading: "lazy", decoding: "async", width: 56, height: 42 });
        entry.link = make("a", { href: `#${encodeURIComponent(entry.id)}`, tabindex: "-1" }, picture, make("span", { dir: "auto" }, name));
        this.links.append(make("li", {}, entry.link));
      }
      this.entries[0]?.link.setAttribute("tabindex", "0");
      this.links.addEventListener("keydown", (event) => this.walkLinks(event));
      return make("nav", { class: "contents", "aria-label": "Contents" }, this.links);
    }

    walkLinks(event) {
      const links = this.order.filter((one) => !one.element.hidden).map((one) => one.link);
      const at = links.indexOf(event.target.closest("a"));
      const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: links.length - 1 }[event.key];
      if (to === undefined || !links[to]) return;
      event.preventDefault();
      this.rove(links[to]);
      links[to].focus();
    }

    rove(link) {
      for (const { link: other } of this.entries) if (other.tabIndex === 0) other.tabIndex = -1;
      link.tabIndex = 0;
    }

    // ---- what is looked at

    watch() {
      const of = new Map(this.entries.map((entry) => [entry.element, entry]));
      this.near = new IntersectionObserver((changes) => {
        for (const { target, isIntersecting } of changes) isIntersecting ? of.get(target)?.open() : of.get(target)?.close();
      }, { rootMargin: "600px 0px" });
      for (const element of of.keys()) this.near.observe(element);
      if (this.isOne) return;
      const middle = new IntersectionObserver((changes) => {
        for (const { target, isIntersecting } of changes) if (isIntersecting) this.current(of.get(target));
      }, { rootMargin: "-30% 0px -65% 0px" });
      for (const element of of.keys()) middle.observe(element);
    }

    // The one photograph with an answer that has grown since: in its place, and at once.
    renew(summary) {
      const [old] = this.entries, entry = new Entry(this, summary, 0);
      this.near.disconnect();
      this.entries = this.order = [entry];
      entry.build();
      entry.panels[0].figures[0].adopt(old.panels[0].figures[0]);
      old.element.replaceWith(entry.element);
      entry.draw(summary.details);
      this.watch();
    }

    current(entry) {
      if (this.links.contains(document.activeElement)) return;
      this.links.querySelector("[aria-current]")?.removeAttribute("aria-current");
      entry.link.setAttribute("aria-current", "true");
      this.rove(entry.link);
      const nav = this.links.parentElement, item = entry.link;
      if (nav.scrollHeight > nav.clientHeight) nav.scrollTop = item.offsetTop - nav.clientHeight / 2;
      if (nav.scrollWidth > nav.clientWidth) nav.scrollLeft = item.offsetLeft - nav.clientWidth / 2;
    }

    // Marks the characters of a token without touching the text, where the browser can.
    markToken(range, entry) {
      if (!globalThis.Highlight || (!range && this.walked !== entry)) return;
      this.walked = range ? entry : null;
      range ? CSS.highlights.set("aas-token", new Highlight(range)) : CSS.highlights.delete("aas-token");
    }
  }

  // One mask on a canvas of a photograph that somebody else shows; `size`: its height and width as shown.
  function drawMask(root, canvas, { runs, thing }, [height, width]) {
    canvas.width = width;
    canvas.height = height;
    const picture = new ImageData(width, height), colour = colourOf(root, thing);
    const tints = [packed(...colour, 110), packed(...colour, 255)];
    paint(new Uint32Array(picture.data.buffer), bitmapOf(runsOf(runs), width, height), width, height, ...tints);
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  // Fills `root`, an element with the class `aas`.
  function mount(root, told) {
    nColours = told.n_colours;
    const page = new Page(root, told);
    // The browser looked for its anchor before there was one.
    if (location.hash) page.entries.find((entry) => entry.link?.hash === location.hash)?.element.scrollIntoView();
    return page;
  }
  return { mount, receive, make, drawMask, colourClass };
})();

// In a page of its own.
if (document.getElementById("page")) {
  AasViewer.mount(document.getElementById("viewer"), JSON.parse(document.getElementById("page").textContent));
}
