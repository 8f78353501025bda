// The app's page: a photograph, a question, and the answers in the one viewer (aas/view/assets/viewer.js).
// `io` is what carries wishes to Python (aas/serve/service.py). Every word of others becomes a text node.
globalThis.AasApp = (() => {
  const { make, mount, drawMask, colourClass } = AasViewer;
  const FIELDS = { model: "Model", segmenter: "Segmenter", maps: "Map source", preset: "Preset", head: "Mask head" };
  const WAYS = {
    question: ["Ask", "Ask a question", "Describe the image in detail."],
    answer: ["Ground", "Ground my sentence", "a dog on a bench beside the tree"],
  };
  const NEAR_PX = 12;
  const PLACE_EACH_MS = 700;
  const LATE_MS = 5000;

  // The same words for those who point and those who tap.
  const either = (pointed, touched) => [make("span", { class: "pointed" }, pointed), make("span", { class: "touched" }, touched)];

  const button = (words, attributes, pressed) => {
    const element = make("button", { type: "button", ...attributes }, words);
    element.addEventListener("click", pressed);
    return element;
  };
  const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);

  // A line of what went wrong, or what was done.
  class Line {
    constructor() {
      this.element = make("p", { class: "line", role: "status", dir: "auto" });
    }

    say(words, isWrong = false) {
      this.element.textContent = words;
      this.element.classList.toggle("wrong", isWrong);
    }
  }

  // ------------------------------------------------------------------------------------------ a photograph and words

  class Composer {
    constructor(app) {
      Object.assign(this, { app, photo: null, way: "question", before: null, line: new Line() });
      this.file = make("input", { type: "file", accept: "image/*", class: "file", "aria-label": "Choose a photograph" });
      this.file.addEventListener("change", () => this.file.files[0] && this.take(this.file.files[0]));
      this.seen = make("span", { class: "seen" });
      this.hint = make("span", { class: "hint-words" }, make("strong", {}, "Choose a photograph"), " or drop one anywhere");
      this.drop = make("label", { class: "drop" }, this.file, this.seen, this.hint);
      this.words = make("textarea", { rows: 2, maxlength: 4000, spellcheck: "true", dir: "auto" });
      this.words.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.send();
      });
      this.go = button("Ask", { class: "go" }, () => (this.app.isBusy ? this.app.stop() : this.send()));
      this.after = make("p", { class: "after", hidden: true });
      const form = make("div", { class: "wish" }, this.tabs(), this.after, this.words, make("div", { class: "row" }, this.options(), this.go), this.line.element);
      this.element = make("section", { class: "composer card", "aria-label": "Ask" }, this.drop, form);
      this.choose("question");
    }

    tabs() {
      this.ways = Object.entries(WAYS).map(([way, [, words]]) => button(words, { class: "way", "data-way": way }, () => this.choose(way)));
      return make("div", { class: "ways", role: "group", "aria-label": "What to do" }, ...this.ways);
    }

    options() {
      this.choices = Object.entries(FIELDS).map(([field, words]) => {
        const names = this.app.told.choices[field];
        const select = make("select", { "data-field": field, disabled: names.length < 2 }, ...names.map((name) => make("option", { value: name }, name)));
        return [field, select, make("label", { class: "choice" }, make("span", {}, words), select)];
      });
      const fields = make("div", { class: "choices" }, ...this.choices.map(([, , label]) => label));
      return make("details", { class: "options" }, make("summary", {}, "Options"), fields);
    }

    choose(way) {
      this.way = way;
      if (way === "answer") this.follow(null);
      const [words, label, example] = WAYS[way];
      for (const one of this.ways) one.setAttribute("aria-pressed", String(one.dataset.way === way));
      this.words.placeholder = example;
      this.words.setAttribute("aria-label", label);
      this.busy(this.app.isBusy, words);
    }

    // The next question is one of the same conversation.
    follow(turn) {
      this.before = turn;
      this.after.hidden = !turn;
      if (!turn) return;
      if (this.way !== "question") this.choose("question");
      const leave = button("×", { class: "leave", "aria-label": "Ask anew" }, () => this.follow(null));
      this.after.replaceChildren(make("span", { dir: "auto" }, `Following “${turn.words}”`), leave);
      this.show(turn.photo);
      this.element.scrollIntoView({ block: "nearest" });
    }

    busy(isBusy, words = WAYS[this.way][0]) {
      this.go.textContent = isBusy ? "Stop" : words;
      this.go.classList.toggle("stop", isBusy);
    }

    async take(file) {
      const limit = this.app.told.max_bytes;
      this.file.value = "";
      if (file.size > limit) return this.line.say(`${file.name} has ${megabytes(file.size)} MB, and ${megabytes(limit)} are taken: make it smaller first.`, true);
      this.line.say(`Reading ${file.name} …`);
      this.drop.classList.add("reading");
      try {
        const { path } = await this.app.io.upload(file);
        const photo = await this.app.wish("take", { path, name: file.name });
        this.follow(null);
        this.show(photo);
      } catch (error) {
        this.line.say(error.message, true);
      }
      this.drop.classList.remove("reading");
    }

    show(photo) {
      this.photo = photo;
      this.seen.replaceChildren(make("img", { src: photo.photo, alt: photo.name }));
      this.hint.replaceChildren(make("strong", { dir: "auto" }, photo.name), " · ", make("u", {}, "choose another"));
      this.drop.classList.add("full");
      this.line.say("");
      this.words.focus({ preventScroll: true });
    }

    send() {
      if (this.app.isBusy) return;
      if (!this.photo) return this.line.say("Choose a photograph first.", true);
      const words = this.words.value.trim() || (this.way === "question" ? this.words.placeholder : "");
      if (!words) return this.line.say("Write the sentence that is to be grounded.", true);
      this.line.say("");
      const choice = Object.fromEntries(this.choices.map(([field, select]) => [field, select.value]));
      this.app.ask(this.photo, { [this.way]: words, choice, after: this.before?.turn });
      this.words.value = "";
      this.follow(null);
    }
  }

  // ------------------------------------------------------------------------------------------------------ one answer

  class Turn {
    constructor(app, photo, words) {
      Object.assign(this, { app, photo, words, line: new Line() });
      this.view = make("div", { class: "view" });
      this.place = make("span", { class: "place", role: "status" });
      this.waiting = make("p", { class: "waiting" }, make("span", { dir: "auto" }, words), make("i", { class: "dots", "aria-hidden": "true" }), this.place);
      this.tools = make("div", { class: "tools", hidden: true }, ...this.buttons(), this.line.element);
      this.element = make("article", { class: "turn card writing", "aria-label": "Answer", "aria-busy": "true" }, this.waiting, this.view, this.tools);
    }

    buttons() {
      const download = (kind) => button(kind === "coco" ? "COCO" : kind.toUpperCase(), { class: "tool", "data-kind": kind, "aria-label": `Download ${kind}` }, () => this.download(kind));
      this.correct = button("Correct masks", { class: "tool" }, () => this.edit());
      this.save = button("Save", { class: "tool" }, () => this.keep());
      const further = button("Ask further", { class: "tool" }, () => this.app.composer.follow(this));
      return [further, this.correct, this.save, make("span", { class: "downloads" }, "Download", ...["json", "png", "coco"].map(download))];
    }

    queued(before) {
      this.place.textContent = before ? `${before} ${before > 1 ? "questions are" : "question is"} answered before yours.` : "";
    }

    summary({ told, drawn }) {
      const { name, size, pixelated, thumb, photo } = this.photo;
      const details = { photo, panels: [drawn] };
      return { name, size, pixelated, thumb, figures: {}, links: [], panels: [told], details };
    }

    told(state) {
      if (state.state === "failed") return this.fail(state.error);
      this.waiting.hidden = true;
      if (state.state === "writing" && this.page) this.page.renew(this.summary(state));
      else this.show(state);
      if (state.state === "done") this.finish(state);
    }

    show(state) {
      this.state = state;
      const root = make("div", { class: "looking" });
      this.view.replaceChildren(root);
      const summary = this.summary(state);
      const isFirst = !this.page;
      this.page = mount(root, { n_colours: this.app.told.n_colours, sort: "", entries: [summary] });
      this.page.entries[0].draw(summary.details);
      if (isFirst) this.reveal();
    }

    // Where most of it would be below the window, as on a phone.
    reveal() {
      if (this.element.getBoundingClientRect().top > 0.6 * innerHeight) this.element.scrollIntoView();
    }

    finish(state) {
      this.turn = state.turn;
      this.element.classList.remove("writing");
      this.element.removeAttribute("aria-busy");
      this.tools.hidden = false;
      this.correct.disabled = !state.told.phrases.length;
    }

    fail(words) {
      this.element.classList.remove("writing");
      this.element.removeAttribute("aria-busy");
      if (!this.page) this.waiting.querySelector(".dots").remove();
      this.queued(0);
      this.tools.replaceChildren(this.line.element);
      this.tools.hidden = false;
      this.line.say(words, true);
    }

    edit() {
      const editor = new Editor(this);
      this.view.replaceChildren(editor.element);
      this.correct.disabled = true;
      this.line.say("");
      editor.choose(0);
    }

    leave() {
      this.correct.disabled = false;
      this.show(this.state);
      this.correct.focus({ preventScroll: true });
    }

    async keep() {
      await this.doing(async () => this.line.say(`Saved: ${(await this.wish("save", {})).saved}`));
    }

    async download(kind) {
      await this.doing(async () => {
        const { name, type, base64 } = await this.wish("download", { kind });
        const link = make("a", { href: `data:${type};base64,${base64}`, download: name });
        link.click();
      });
    }

    async doing(work) {
      try {
        await work();
      } catch (error) {
        this.line.say(error.message, true);
      }
    }

    wish(name, more) {
      return this.app.wish(name, { turn: this.turn, ...more });
    }
  }

  // ------------------------------------------------------------------------------------------------ correcting masks

  class Editor {
    constructor(turn) {
      Object.assign(this, { turn, sign: 1, asked: 0, cursor: null });
      this.image = make("img", { class: "base", src: turn.photo.photo, alt: turn.photo.name });
      this.canvas = make("canvas", { class: "rest", width: 0, height: 0, "aria-hidden": "true" });
      this.marks = make("div", { class: "points" });
      const aspect = turn.photo.size[1] / turn.photo.size[0];
      const help = "Photograph. Click to set a point; or move with the arrow keys and set one with Space.";
      this.stage = make("div", { class: "stage", tabindex: "0", role: "application", "aria-label": help }, this.image, this.canvas, this.marks);
      this.stage.style.setProperty("--aspect", String(aspect));
      this.stage.addEventListener("click", (event) => this.clicked(event, this.sign));
      this.stage.addEventListener("contextmenu", (event) => {
        event.preventDefault();
        this.clicked(event, 0);
      });
      this.line = new Line();
      this.element = make("div", { class: aspect < 0.85 ? "editing tall" : "editing" }, make("div", { class: "picture" }, this.stage, this.line.element), this.side());
      this.element.addEventListener("keydown", (event) => this.typed(event));
    }

    get told() {
      return this.turn.state.told;
    }

    side() {
      this.phrases = this.told.phrases.map(({ text, thing }, i) => button(text, { class: `phrase ${colourClass(thing)}`, "aria-pressed": "false", dir: "auto" }, () => this.choose(i)));
      const sign = (words, value, title) => button(words, { class: "sign", "data-sign": value, title }, () => this.signed(value));
      this.signs = [sign("+ on it", 1, "Key: +"), sign("− not on it", 0, "Key: −, or the right mouse button")];
      this.undo = button("Undo", { class: "tool" }, () => this.back());
      this.accept = button("Accept", { class: "tool prime" }, () => this.accepted());
      const done = button("Done", { class: "tool" }, () => this.turn.leave());
      return make(
        "div",
        { class: "side" },
        make("p", { class: "advice" }, "Which mask?"),
        make("div", { class: "which", role: "group", "aria-label": "Which mask" }, ...this.phrases),
        make("p", { class: "advice hint" }, ...either("Click on the photograph. Click a point again to take it away.", "Tap on the photograph. Tap a point again to take it away.")),
        make("div", { class: "signs", role: "group", "aria-label": "What a click says" }, ...this.signs),
        make("div", { class: "row" }, this.undo, make("span", { class: "gap" }), this.accept, done),
      );
    }

    choose(i) {
      this.index = i;
      const { points, thing } = this.told.phrases[i];
      this.points = [...points].reverse().map(({ kind, at }) => [...at, kind === "not" ? 0 : 1]);
      this.history = [];
      this.phrases.forEach((one, k) => one.setAttribute("aria-pressed", String(k === i)));
      this.marks.className = `points ${colourClass(thing)}`;
      this.signed(1);
      const mask = this.turn.state.drawn.masks.find((one) => one.thing === thing);
      this.draw(mask.runs);
      this.drawPoints();
      this.line.say("");
      this.accept.disabled = true;
    }

    signed(value) {
      this.sign = value;
      for (const one of this.signs) one.setAttribute("aria-pressed", String(Number(one.dataset.sign) === value));
      this.stage.classList.toggle("minus", !value);
    }

    draw(runs) {
      drawMask(this.element, this.canvas, { runs, thing: this.told.phrases[this.index].thing }, this.turn.photo.size);
    }

    drawPoints() {
      const place = (element, [x, y]) => {
        element.style.left = `${100 * x}%`;
        element.style.top = `${100 * y}%`;
        return element;
      };
      const marks = this.points.map(([x, y, label]) => place(make("i", { class: `point ${label ? "on" : "not"}` }), [x, y]));
      if (this.cursor) marks.push(place(make("i", { class: "cursor" }), this.cursor));
      this.marks.replaceChildren(...marks);
      this.undo.disabled = !this.history.length;
    }

    clicked(event, label) {
      const box = this.stage.getBoundingClientRect();
      const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      if (at.some((share) => share < 0 || share > 1)) return;
      this.cursor = null;
      this.set(at, label, [NEAR_PX / box.width, NEAR_PX / box.height]);
    }

    // A point there, or none where one is already.
    set([x, y], label, [nearX, nearY]) {
      const there = this.points.findIndex((one) => Math.hypot((one[0] - x) / nearX, (one[1] - y) / nearY) < 1);
      const points = there < 0 ? [...this.points, [x, y, label]] : this.points.filter((_, i) => i !== there);
      this.history.push(this.points);
      this.change(points);
    }

    back() {
      if (this.history.length) this.change(this.history.pop());
    }

    // The mask follows; of several clicks the last counts.
    async change(points) {
      this.points = points;
      this.drawPoints();
      const number = ++this.asked;
      try {
        const { runs, score } = await this.wish({});
        if (number !== this.asked) return;
        this.draw(runs);
        this.line.say(`Score ${score.toFixed(2)}`);
        this.accept.disabled = false;
      } catch (error) {
        if (number !== this.asked) return;
        this.line.say(error.message, true);
        this.accept.disabled = true;
      }
    }

    async accepted() {
      this.asked++; // what is still being computed is old
      try {
        const index = this.index, state = await this.wish({ accept: true });
        this.turn.state = state;
        this.phrases.forEach((one, i) => (one.className = `phrase ${colourClass(this.told.phrases[i].thing)}`));
        this.choose(index);
        this.line.say(`Accepted: ${this.told.phrases[index].text}`);
        this.turn.line.say("Changed, and not saved yet.");
      } catch (error) {
        this.line.say(error.message, true);
      }
    }

    wish(more) {
      return this.turn.wish("correct", { phrase: this.index, points: this.points, ...more });
    }

    typed(event) {
      if (event.key === "+" || event.key === "-") return this.signed(event.key === "+" ? 1 : 0);
      if (event.key === "z" && (event.ctrlKey || event.metaKey)) return this.back();
      if (event.key === "Escape") return this.turn.leave();
      if (event.target === this.stage) this.walked(event);
    }

    // Points without a pointer.
    walked(event) {
      const step = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] }[event.key];
      if (!step && event.key !== " ") return;
      event.preventDefault();
      this.cursor ??= [0.5, 0.5];
      if (!step) return this.set(this.cursor, this.sign, [0.015, 0.015]);
      this.cursor = this.cursor.map((share, i) => Math.min(0.999, Math.max(0, share + step[i])));
      this.drawPoints();
    }
  }

  // -------------------------------------------------------------------------------------------------- the whole page

  class App {
    constructor(root, told, io) {
      Object.assign(this, { told, io, number: 0, current: null });
      this.composer = new Composer(this);
      this.turns = make("div", { class: "turns", "aria-live": "off" });
      const title = make("header", { class: "top" }, make("h1", {}, "Ask a photograph"), make("p", { class: "hint" }, "Every noun phrase of the answer gets a mask. ", ...either("Point at one to see it alone, click it to see the attention it came from.", "Tap one to see it alone, and again to see the attention it came from.")));
      root.append(make("div", { class: "page" }, title, this.composer.element, this.turns));
      this.session = this.called("begin", {}).then(({ session }) => session);
      this.session.catch((error) => this.composer.line.say(error.message, true));
      io.watch("value", () => this.heard(io.props.value));
      this.listen(root);
    }

    get isBusy() {
      return this.current !== null;
    }

    listen(root) {
      addEventListener("dragover", (event) => {
        event.preventDefault();
        root.classList.add("dragging");
      });
      addEventListener("dragleave", (event) => event.relatedTarget ?? root.classList.remove("dragging"));
      addEventListener("drop", (event) => {
        event.preventDefault();
        root.classList.remove("dragging");
        if (event.dataTransfer.files[0]) this.composer.take(event.dataTransfer.files[0]);
      });
      addEventListener("paste", (event) => event.clipboardData.files[0] && this.composer.take(event.clipboardData.files[0]));
    }

    async called(name, wish) {
      // Of a server that is gone gradio gives nothing, or its own error.
      const found = await this.io.server[name](wish).catch(() => null);
      if (!found) throw new Error("The app does not answer: is `aas serve` still running?");
      if (found.error) throw new Error(found.error);
      return found;
    }

    async wish(name, wish) {
      return this.called(name, { session: await this.session, ...wish });
    }

    async ask(photo, wish) {
      const turn = new Turn(this, photo, wish.question ?? wish.answer), number = ++this.number;
      this.current = { number, turn };
      this.composer.busy(true);
      this.turns.prepend(turn.element);
      try {
        this.io.ask({ session: await this.session, photo: photo.photo_id, number, ...wish });
        this.wait(turn, number);
      } catch (error) {
        turn.fail(error.message);
        this.free();
      }
    }

    // Until it is answered, its place in the queue; and whether there is anybody who answers.
    async wait(turn, number) {
      const isCurrent = () => this.current?.number === number, after = (ms) => new Promise((goOn) => setTimeout(goOn, ms));
      try {
        while (isCurrent()) {
          await after(PLACE_EACH_MS);
          const { before } = isCurrent() ? await this.wish("place", { number }) : {};
          if (before === null) {
            await after(LATE_MS);
            if (isCurrent()) throw new Error("The answer was lost on its way: ask once more.");
          } else if (isCurrent() && !turn.page) turn.queued(before);
        }
      } catch (error) {
        if (!isCurrent()) return;
        turn.fail(error.message);
        this.free();
      }
    }

    heard(state) {
      if (!state || state.number !== this.current?.number) return;
      this.current.turn.told(state);
      if (state.state !== "writing") this.free();
    }

    stop() {
      this.current.turn.fail("Stopped.");
      this.io.stop();
      this.free();
    }

    free() {
      this.current = null;
      this.composer.busy(false);
    }
  }

  return { start: (element, told, io) => new App(element.querySelector(".served"), told, io) };
})();
