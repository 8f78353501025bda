
"use strict";
(() => {
  // data-i: which phrase; data-m: which mask, that several phrases may share.
  const phraseAt = (target) => target.closest?.("[data-i]:is(.phrase, .term, li)");
  const entryOf = (target) => target.closest?.(".entry");
  const indexOf = (element) => Number(element.dataset.i);
  const maskOf = (element) => Number(element.dataset.m);

  // Lights one mask of an entry, its phrases and its points; null lights none.
  function light(entry, mask) {
    if (entry.lit === mask) return;
    entry.lit = mask;
    update(entry);
  }

  // Shows the attention map of a phrase, or hides it when it is shown already.
  function toggle(entry, index) {
    entry.shown = entry.shown === index ? null : index;
    update(entry);
  }

  function update(entry) {
    const lit = entry.lit ?? null, shown = entry.shown ?? null;
    const peek = shown !== null && lit !== null && lit !== maskOf(termOf(entry, shown));
    entry.classList.toggle("lit", lit !== null);
    entry.classList.toggle("attention", shown !== null);
    entry.classList.toggle("peek", peek);
    for (const element of entry.querySelectorAll("[data-m]")) {
      element.classList.toggle("on", maskOf(element) === lit);
      element.classList.toggle("shown", indexOf(element) === shown);
      if (element.matches("button")) element.setAttribute("aria-pressed", String(indexOf(element) === shown));
    }
    entry.querySelector("figcaption").textContent = caption(entry, lit, shown, peek);
  }

  const termOf = (entry, index) => entry.querySelector(`.term[data-i="${index}"]`);
  const rowOf = (entry, mask) => entry.querySelector(`.legend li[data-m="${mask}"]`);

  function caption(entry, lit, shown, peek) {
    if (shown !== null && !peek) {
      const points = entry.querySelectorAll(`.point[data-i="${shown}"] .dot`).length > 1 ? "prompt points" : "prompt point";
      return `Attention for \u201c${termOf(entry, shown).textContent}\u201d, its ${points} marked.`;
    }
    if (lit === null) return "";
    const row = rowOf(entry, lit);
    return `Mask for \u201c${row.querySelector(".terms").textContent}\u201d, score ${row.querySelector(".score").textContent}.`;
  }

  // Which mask each pixel of the photograph belongs to (1 + its number, 0: none). Painted once, when first needed.
  async function maskIndex(entry) {
    const images = [...entry.querySelectorAll(".mask")];
    const box = entry.querySelector(".photo").viewBox.baseVal;
    const canvas = Object.assign(document.createElement("canvas"), { width: box.width, height: box.height });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const owner = new Uint16Array(box.width * box.height);
    for (const element of images) {
      const picture = new Image();
      picture.src = element.getAttribute("href");
      await picture.decode();
      pen.clearRect(0, 0, box.width, box.height);
      pen.drawImage(picture, 0, 0);
      const rgba = pen.getImageData(0, 0, box.width, box.height).data;
      // Masks stand in the page with the largest first: the smallest one under the pointer wins.
      for (let i = 0; i < owner.length; i++) if (rgba[4 * i + 3]) owner[i] = 1 + maskOf(element);
    }
    return { owner, width: box.width, height: box.height };
  }

  async function maskUnder(event, entry) {
    entry.masks ??= maskIndex(entry);
    const { owner, width, height } = await entry.masks;
    const photo = entry.querySelector(".photo");
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(photo.getScreenCTM().inverse());
    const x = Math.floor(at.x), y = Math.floor(at.y);
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    return inside && owner[y * width + x] ? owner[y * width + x] - 1 : null;
  }

  document.addEventListener("pointermove", async (event) => {
    const photo = event.target.closest?.(".photo");
    if (!photo) return;
    const entry = entryOf(photo);
    // The pointer may stroll over an attention map without changing it.
    const mask = (entry.shown ?? null) === null ? await maskUnder(event, entry) : null;
    if (photo.matches(":hover")) light(entry, mask);
  });
  document.addEventListener("pointerover", (event) => {
    const phrase = phraseAt(event.target);
    if (phrase) light(entryOf(phrase), maskOf(phrase));
  });
  document.addEventListener("pointerout", (event) => {
    const left = phraseAt(event.target) ?? event.target.closest?.(".photo");
    if (!left || left.contains(event.relatedTarget)) return;
    const focused = entryOf(left).querySelector(".phrase:focus-visible");
    light(entryOf(left), focused ? maskOf(focused) : null);
  });
  document.addEventListener("focusin", (event) => {
    const phrase = phraseAt(event.target);
    if (phrase?.matches(":focus-visible")) light(entryOf(phrase), maskOf(phrase));
  });
  document.addEventListener("focusout", (event) => {
    const phrase = phraseAt(event.target);
    if (phrase) light(entryOf(phrase), null);
  });
  document.addEventListener("click", async (event) => {
    const phrase = phraseAt(event.target);
    if (phrase) return toggle(entryOf(phrase), indexOf(phrase));
    if (!event.target.closest?.(".photo")) return;
    const entry = entryOf(event.target);
    if ((entry.shown ?? null) !== null) return toggle(entry, entry.shown);
    const mask = await maskUnder(event, entry);
    if (mask !== null) toggle(entry, indexOf(rowOf(entry, mask)));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const entry of document.querySelectorAll(".entry.attention")) toggle(entry, entry.shown);
  });
})();
