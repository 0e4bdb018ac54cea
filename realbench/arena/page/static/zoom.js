// Zoom and pan that show the same relative point of two pictures, at the same magnification.

const FARTHEST = 16;
const TAP_DISTANCE = 6; // pixels that a finger or a mouse may slip in a click

export class SharedZoom {
  // views: the elements that the pictures are in; onChange is called with the scale.
  constructor(views, onChange) {
    this.views = views.map((box) => ({ box, img: null }));
    this.onChange = onChange;
    this.pointers = new Map();
    this.moved = false;
    this.reset();
    const observer = new ResizeObserver(() => this.draw());
    for (const view of this.views) {
      observer.observe(view.box);
      this.listen(view);
    }
  }

  // Show these pictures, which must be loaded, whole.
  show(images) {
    this.views.forEach((view, i) => {
      view.img = images[i];
      if (images[i]) view.box.replaceChildren(images[i]);
      else view.box.replaceChildren();
    });
    this.pointers.clear();
    this.reset();
  }

  reset() {
    this.scale = 1;
    this.x = 0.5; // the relative point in the middle of the views
    this.y = 0.5;
    this.draw();
  }

  get zoomed() {
    return this.scale > 1;
  }

  // Zoom to the picture's own pixels, or far enough to see more than before.
  toggle(view = this.views[0], clientX, clientY) {
    if (this.zoomed) {
      this.reset();
      return;
    }
    const close = this.views.map((v) => this.size(v)).map((s) => s && s.natural / s.width / devicePixelRatio);
    this.zoomAt(view, Math.min(FARTHEST, Math.max(2.5, ...close.filter(Boolean))), clientX, clientY);
  }

  by(factor) {
    this.zoomAt(this.views[0], this.scale * factor);
  }

  pan(dx, dy) {
    // In shares of the view.
    const [view] = this.views;
    const size = this.size(view);
    if (size) this.move(view, -dx * size.boxWidth, -dy * size.boxHeight);
  }

  // How large a picture is when it is shown whole, in CSS pixels, and in pixels of its own.
  size({ box, img }) {
    if (!img || !img.naturalWidth || !box.clientWidth) return null;
    const fit = Math.min(box.clientWidth / img.naturalWidth, box.clientHeight / img.naturalHeight);
    return {
      width: img.naturalWidth * fit,
      height: img.naturalHeight * fit,
      boxWidth: box.clientWidth,
      boxHeight: box.clientHeight,
      natural: img.naturalWidth,
    };
  }

  // The point that a view can have in its middle without showing what is beyond the edge.
  center(size) {
    const within = (value, length, room) => {
      const margin = room / (2 * length * this.scale);
      return margin >= 0.5 ? 0.5 : Math.min(1 - margin, Math.max(margin, value));
    };
    return [within(this.x, size.width, size.boxWidth), within(this.y, size.height, size.boxHeight)];
  }

  zoomAt(view, scale, clientX, clientY) {
    const size = this.size(view);
    if (!size) return;
    const next = Math.min(FARTHEST, Math.max(1, scale));
    const rect = view.box.getBoundingClientRect();
    const dx = clientX === undefined ? 0 : clientX - rect.left - rect.width / 2;
    const dy = clientY === undefined ? 0 : clientY - rect.top - rect.height / 2;
    const [x, y] = this.center(size);
    // What is under the pointer stays there.
    this.x = x + dx / (size.width * this.scale) - dx / (size.width * next);
    this.y = y + dy / (size.height * this.scale) - dy / (size.height * next);
    this.scale = next;
    this.keepWithin();
    this.draw();
  }

  move(view, dx, dy) {
    const size = this.size(view);
    if (!size || !this.zoomed) return;
    this.x -= dx / (size.width * this.scale);
    this.y -= dy / (size.height * this.scale);
    this.keepWithin();
    this.draw();
  }

  keepWithin() {
    // As far as the picture that can go farthest.
    const centers = this.views.map((v) => this.size(v)).filter(Boolean).map((s) => this.center(s));
    if (!centers.length) return;
    const nearest = (value, options) =>
      options.reduce((best, one) => (Math.abs(one - value) < Math.abs(best - value) ? one : best));
    this.x = nearest(this.x, centers.map((c) => c[0]));
    this.y = nearest(this.y, centers.map((c) => c[1]));
  }

  draw() {
    for (const view of this.views) {
      const size = this.size(view);
      if (!size) continue;
      const [x, y] = this.center(size);
      const style = view.img.style;
      style.width = `${size.width}px`;
      style.height = `${size.height}px`;
      style.left = `${(size.boxWidth - size.width) / 2}px`;
      style.top = `${(size.boxHeight - size.height) / 2}px`;
      const tx = (0.5 - x) * size.width * this.scale;
      const ty = (0.5 - y) * size.height * this.scale;
      style.transform = this.zoomed ? `translate(${tx}px, ${ty}px) scale(${this.scale})` : "";
    }
    this.onChange(this.scale);
  }

  listen(view) {
    const { box } = view;
    box.addEventListener("wheel", (event) => {
      if (event.deltaY === 0) return;
      event.preventDefault();
      const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
      const speed = event.ctrlKey ? 0.01 : 0.002; // ctrl marks a pinch on a touchpad
      this.zoomAt(view, this.scale * Math.exp(-pixels * speed), event.clientX, event.clientY);
    }, { passive: false });
    box.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      if (!this.pointers.size) this.moved = false;
      this.pointers.set(event.pointerId, { view, x: event.clientX, y: event.clientY });
      this.start = { x: event.clientX, y: event.clientY };
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => this.onMove(event));
    const release = (event, click) => {
      if (!this.pointers.delete(event.pointerId)) return;
      box.classList.remove("dragged");
      if (click && !this.moved && !this.pointers.size) this.toggle(view, event.clientX, event.clientY);
    };
    box.addEventListener("pointerup", (event) => release(event, true));
    box.addEventListener("pointercancel", (event) => release(event, false));
    box.addEventListener("dragstart", (event) => event.preventDefault());
  }

  onMove(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const others = [...this.pointers.values()].filter((p) => p !== pointer && p.view === pointer.view);
    const before = { x: pointer.x, y: pointer.y };
    if (!this.moved) {
      const slipped = Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y);
      if (!others.length && slipped < TAP_DISTANCE) return;
      this.moved = true;
    }
    pointer.x = event.clientX;
    pointer.y = event.clientY;
    if (others.length) {
      const [other] = others;
      const apart = (p) => Math.hypot(p.x - other.x, p.y - other.y);
      const middle = [(pointer.x + other.x) / 2, (pointer.y + other.y) / 2];
      this.zoomAt(pointer.view, (this.scale * apart(pointer)) / Math.max(1, apart(before)), ...middle);
      this.move(pointer.view, (pointer.x - before.x) / 2, (pointer.y - before.y) / 2);
    } else if (this.zoomed) {
      pointer.view.box.classList.add("dragged");
      this.move(pointer.view, pointer.x - before.x, pointer.y - before.y);
    }
  }
}
